//! Starting the poller threads and ending them; the loop they run is in `poller`.

use crate::affinity::{self, AffinityError};
use crate::clock;
use crate::handle::PollerHandle;
use crate::poller::{Poller, Shared};
use crate::source::Source;
use crate::sources::Sources;
use crate::turns;
use rustix::thread::{gettid, set_current_timer_slack};
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use thiserror::Error;

/// What a poller does without work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Polls for a while, then sleeps until a source or another thread notifies it.
    #[default]
    Adaptive,
    /// Polls for ever.
    Busy,
}

/// Where the pollers run, and what they do without work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReactorConfig {
    /// One pinned poller per core, each core once.
    pub cores: Vec<usize>,
    /// For all of them.
    pub idle: IdlePolicy,
}

/// The poller threads. Dropping it ends them as [`shutdown`](Self::shutdown) does.
pub struct Reactor {
    pollers: Vec<PollerHandle>,
    threads: Vec<JoinHandle<Sources>>,
}

/// Why the pollers could not be started.
#[derive(Debug, Error)]
pub enum ReactorError {
    /// The cores are no good, or one could not be had.
    #[error(transparent)]
    Affinity(#[from] AffinityError),
    /// The kernel refused what a poller needs.
    #[error("cannot start the poller of core {core}: {source}")]
    Start {
        /// The core of that poller.
        core: usize,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl Reactor {
    /// Starts one thread per core, and returns when every one is pinned and polls. The calling thread must be allowed on
    /// all of these cores: narrow it with [`affinity::control_affinity`] afterwards.
    pub fn start(config: &ReactorConfig) -> Result<Self, ReactorError> {
        affinity::check(&config.cores)?;
        if !clock::is_invariant() {
            tracing::warn!(
                "this processor does not promise a time-stamp counter of constant rate (invariant TSC): \
                 latencies and deadlines may be off"
            );
        }
        // Measured now, by this thread, before a poller needs it.
        tracing::debug!(ticks_per_second = clock::ticks_per_second(), "time-stamp counter");
        let mut reactor = Self { pollers: Vec::new(), threads: Vec::new() };
        let (report, reports) = mpsc::channel();
        for &core in &config.cores {
            reactor.spawn(core, config.idle, report.clone())?;
        }
        drop(report);
        reports.into_iter().collect::<Result<(), AffinityError>>()?;
        Ok(reactor)
    }

    /// The pollers, in the order of the configured cores.
    pub fn pollers(&self) -> &[PollerHandle] {
        &self.pollers
    }

    /// Ends the pollers: each runs the jobs that its inbox holds, then its thread ends. Returns the sources that were still
    /// there, in no particular order, so that they are dropped here; so are those that panicked.
    ///
    /// Calls under way, and later ones, answer [`Gone`](crate::Gone).
    pub fn shutdown(mut self) -> Vec<Box<dyn Source>> {
        self.end()
    }

    fn spawn(
        &mut self,
        core: usize,
        idle: IdlePolicy,
        report: mpsc::Sender<Result<(), AffinityError>>,
    ) -> Result<(), ReactorError> {
        let start = |source| ReactorError::Start { core, source };
        let shared = Arc::new(Shared::new(core).map_err(start)?);
        let poller = PollerHandle::new(Arc::clone(&shared));
        let thread = std::thread::Builder::new().name(format!("ringside-p{core}"));
        let thread = thread.spawn(move || main(shared, idle, report)).map_err(start)?;
        self.pollers.push(poller);
        self.threads.push(thread);
        Ok(())
    }

    fn end(&mut self) -> Vec<Box<dyn Source>> {
        self.pollers.iter().for_each(PollerHandle::stop);
        let threads = self.threads.drain(..);
        let left = threads.map(|thread| thread.join().expect("a poller catches every panic"));
        left.flat_map(Sources::into_live).collect()
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// A poller thread from its first instruction to its last.
fn main(shared: Arc<Shared>, idle: IdlePolicy, report: mpsc::Sender<Result<(), AffinityError>>) -> Sources {
    let _ = shared.thread.set(gettid());
    let pinned = affinity::pin(shared.core);
    let failed = pinned.is_err();
    // `start` listens until every thread has reported and let go of its end.
    let _ = report.send(pinned);
    drop(report);
    if failed {
        shared.close();
        return Sources::new();
    }
    // Deadlines to the nanosecond instead of to 50 µs. Refused, they are only late.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    if let Err(error) = turns::shorten() {
        tracing::debug!("the turns of a poller stay long: {error}");
    }
    Poller::new(shared, idle).run()
}
