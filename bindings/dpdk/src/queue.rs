//! The two kinds of queue: bursts in and out. Nothing in here takes a lock or enters the kernel by itself; drivers of kernel
//! interfaces do.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::start::Running;
use crate::{Burst, RxOffloads, TxOffloads};

/// Frames from a port. One thread at a time uses it, and its thread should be [registered](crate::register_thread).
#[derive(Debug)]
pub struct RxQueue {
    running: Arc<Running>,
    port: u16,
    queue: u16,
    _one_thread: PhantomData<Cell<()>>,
}

/// Frames to a port. One thread at a time uses it, and its thread should be [registered](crate::register_thread).
#[derive(Debug)]
pub struct TxQueue {
    running: Arc<Running>,
    port: u16,
    queue: u16,
    _one_thread: PhantomData<Cell<()>>,
}

impl RxQueue {
    pub(crate) fn new(running: Arc<Running>, port: u16, queue: u16) -> RxQueue {
        RxQueue { running, port, queue, _one_thread: PhantomData }
    }

    /// Its number.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// What the port does to received frames.
    #[must_use]
    pub fn offloads(&self) -> RxOffloads {
        self.running.rx_offloads
    }

    /// Adds up to `limit` received frames to `burst`, and returns their number.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst, limit: usize) -> usize {
        let space = burst.free_space();
        let limit = limit.min(Burst::MAX - burst.end());
        // SAFETY: the port is started for as long as `running` lives; this is the only owner of the queue, and borrowed
        // exclusively; `space` has room for `limit` pointers.
        let count = unsafe { dpdk_sys::shim_rx_burst(self.port, self.queue, space, limit as u16) };
        let count = usize::from(count);
        // SAFETY: they were written, and are ours.
        unsafe { burst.filled(count) };
        count
    }
}

impl TxQueue {
    pub(crate) fn new(running: Arc<Running>, port: u16, queue: u16) -> TxQueue {
        TxQueue { running, port, queue, _one_thread: PhantomData }
    }

    /// Its number.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// What the port does to frames that it sends.
    #[must_use]
    pub fn offloads(&self) -> TxOffloads {
        self.running.tx_offloads
    }

    /// Sends frames of `burst`, oldest first, and returns how many it took; those are no longer in `burst`.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        // SAFETY: the port is started for as long as `running` lives; this is the only owner of the queue, and borrowed
        // exclusively; as many pointers as the burst is long.
        let count = unsafe { dpdk_sys::shim_tx_burst(self.port, self.queue, burst.pointers(), burst.len() as u16) };
        let count = usize::from(count);
        // SAFETY: the driver has them.
        unsafe { burst.forget(count) };
        count
    }

    /// Has the driver look at what frames ask for, and prepare them. Returns how many, oldest first, it would send: the next
    /// one must not be sent to it.
    pub fn prepare(&mut self, burst: &mut Burst) -> usize {
        // SAFETY: as above. The frames stay ours.
        let count = unsafe { dpdk_sys::shim_tx_prepare(self.port, self.queue, burst.pointers(), burst.len() as u16) };
        usize::from(count)
    }
}
