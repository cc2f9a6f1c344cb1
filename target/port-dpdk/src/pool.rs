//! Mempools, which DPDK's binding never frees: those that are not used any more wait for the next port of their kind.

use std::ops::Deref;

use dpdk::{Eal, Mempool, MempoolConfig, MempoolError};
use parking_lot::Mutex;

/// A mempool that nobody else uses; mbufs of its last user may still be on their way home. Dropped, it waits for the next.
#[derive(Debug)]
pub(crate) struct Pool(Mempool);

static WAITING: Mutex<Vec<Mempool>> = Mutex::new(Vec::new());

impl Pool {
    pub(crate) fn new(eal: Eal, config: MempoolConfig) -> Result<Pool, MempoolError> {
        let mut waiting = WAITING.lock();
        match waiting.iter().position(|pool| pool.config() == config) {
            Some(found) => Ok(Pool(waiting.swap_remove(found))),
            None => Mempool::new(eal, config).map(Pool),
        }
    }
}

impl Deref for Pool {
    type Target = Mempool;

    fn deref(&self) -> &Mempool {
        &self.0
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        WAITING.lock().push(self.0);
    }
}
