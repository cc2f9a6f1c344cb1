//! Keeps received flows away from queues that nobody receives from: a thread that rewrites the port's table when queues open
//! and close, because drivers may take their time with that, and pollers have none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};

use dpdk::Port;

/// The thread. Dropped, it ends.
pub(crate) struct Spreader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Of each queue, whether it can receive.
    open: Vec<AtomicBool>,
    end: AtomicBool,
}

/// One queue's way to say so.
pub(crate) struct Opener {
    shared: Arc<Shared>,
    thread: Thread,
    queue: usize,
}

impl Spreader {
    /// For a port that was started with `queues` queues; `None` if no thread can be had.
    pub(crate) fn new(port: Arc<Port>, queues: usize) -> Option<Spreader> {
        let open = (0..queues).map(|_| AtomicBool::new(false)).collect();
        let shared = Arc::new(Shared { open, end: AtomicBool::new(false) });
        let mine = Arc::clone(&shared);
        let thread = thread::Builder::new().name("dpdk-spread".to_owned()).spawn(move || mine.run(&port)).ok()?;
        Some(Spreader { shared, thread: Some(thread) })
    }

    pub(crate) fn opener(&self, queue: usize) -> Option<Opener> {
        let thread = self.thread.as_ref()?.thread().clone();
        Some(Opener { shared: Arc::clone(&self.shared), thread, queue })
    }
}

impl Opener {
    /// A store, and a system call if the thread sleeps.
    pub(crate) fn set(&self, open: bool) {
        if self.shared.open[self.queue].swap(open, Ordering::Release) != open {
            self.thread.unpark();
        }
    }
}

impl Shared {
    fn run(&self, port: &Port) {
        let mut done = Vec::new();
        while !self.end.load(Ordering::Acquire) {
            let open = |queue: &u16| self.open[usize::from(*queue)].load(Ordering::Acquire);
            let now: Vec<u16> = (0..self.open.len() as u16).filter(open).collect();
            // While none is open it does not matter where frames go.
            if !now.is_empty() && now != done {
                match port.spread(&now) {
                    Ok(_) => tracing::debug!(port = port.name(), queues = ?now, "flows are spread"),
                    Err(error) => tracing::warn!(%error, queues = ?now, "flows still go to queues that are closed"),
                }
                done = now;
                continue;
            }
            thread::park();
        }
    }
}

impl Drop for Spreader {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that spreads flows panicked");
            }
        }
    }
}
