//! The thread of a null responder: one that answers everything at once, so that a run against it reaches the ceiling of the
//! load generator itself. What it answers is the load's; there is no vhost-user in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use reactor::affinity;

use crate::cores;

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Responder {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Starts a thread that calls `poll` for ever: on `core`, or on another than the load generator's, if that is pinned.
    ///
    /// # Errors
    /// The load generator is pinned, and there is no other core.
    pub(crate) fn start(
        core: Option<usize>,
        load: Option<usize>,
        mut poll: impl FnMut() + Send + 'static,
    ) -> anyhow::Result<Responder> {
        let core = match (core, load) {
            (Some(core), _) => Some(core),
            (None, Some(taken)) => Some(other_core(taken)?),
            (None, None) => None,
        };
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let body = move || {
            if let Some(core) = core
                && let Err(error) = cores::pin(core)
            {
                eprintln!("null responder: {error}");
            }
            while !until.load(Ordering::Relaxed) {
                poll();
            }
        };
        let thread = thread::Builder::new().name("null-responder".to_owned()).spawn(body).context("null responder")?;
        Ok(Responder { over, thread: Some(thread) })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has said by itself why it panicked, if it did.
            let _ = thread.join();
        }
    }
}

fn other_core(taken: usize) -> anyhow::Result<usize> {
    let allowed = affinity::allowed()?;
    let other = allowed.iter().copied().find(|core| *core != taken);
    other.with_context(|| format!("--core {taken}: the null responder needs another core, there is only this one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responder_without_a_core_of_its_own_is_an_error_naming_it() {
        let allowed = affinity::allowed().unwrap();
        match (other_core(allowed[0]), allowed.get(1)) {
            (Ok(core), Some(second)) => assert_eq!(core, *second),
            (Err(error), None) => assert!(error.to_string().contains("needs another core")),
            (found, _) => panic!("{found:?} of {allowed:?}"),
        }
    }

    #[test]
    fn responder_dropped_ends_its_thread() {
        let responder = Responder::start(None, None, || {}).unwrap();
        let over = Arc::downgrade(&responder.over);
        drop(responder);
        assert!(over.upgrade().is_none(), "the thread has let go of its half");
    }
}
