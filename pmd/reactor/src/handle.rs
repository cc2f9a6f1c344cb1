//! How other threads reach a poller and the sources on it; what the poller does with it is in `poller` and `sources`.

use crate::poller::{Shared, on_poller};
use crate::poller_stats::PollerStats;
use crate::source::Source;
use crate::sources::{Entry, Removed, SourceId, Sources};
use crossbeam::channel::bounded;
use rustix::process::Pid;
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use thiserror::Error;

/// One poller, seen from any thread. Stays valid, if useless, when the reactor has ended.
#[derive(Clone)]
pub struct PollerHandle {
    shared: Arc<Shared>,
}

/// The source is no longer on its poller: it was removed, it panicked, or the poller has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the source is no longer on its poller")]
pub struct Gone;

impl PollerHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The core that the poller is pinned to.
    pub fn core(&self) -> usize {
        self.shared.core
    }

    /// Hands a source to the poller, which polls it from its next loop on. Does not wait. If the poller has ended, the source
    /// is dropped here.
    pub fn add<S: Source>(&self, source: S) -> SourceHandle<S> {
        let id = SourceId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let entry = Entry::new(id, source);
        self.shared.post(Box::new(move |sources| sources.insert(entry)));
        SourceHandle { poller: self.clone(), id, source: PhantomData }
    }

    /// Makes sure that the poller polls its sources after this call, the cold ones, too, so that one of them can find what the
    /// calling thread has left for it. A store, a fence and a load while the poller is awake; a write to an eventfd if it sleeps.
    pub fn wake(&self) {
        self.shared.rouse();
    }

    /// The kernel's number of its thread, as `/proc/self/task` has it.
    pub fn thread_id(&self) -> Option<Pid> {
        self.shared.thread.get().copied()
    }

    /// What the poller measures.
    pub fn stats(&self) -> &PollerStats {
        &self.shared.stats
    }

    /// Asks the poller to end once its inbox is empty.
    pub(crate) fn stop(&self) {
        self.shared.post(Box::new(Sources::stop));
    }

    /// Runs `work` on the poller and waits for the result. `None` if the poller ended, or `work` panicked.
    fn ask<R: Send + 'static>(&self, work: impl FnOnce(&mut Sources) -> R + Send + 'static) -> Option<R> {
        assert!(!on_poller(), "a poller must not wait for a poller");
        let (reply, answer) = bounded(1);
        self.shared.post(Box::new(move |sources| {
            // The other end waits until this one sends or is dropped.
            let _ = reply.send(work(sources));
        }));
        answer.recv().ok()
    }
}

impl fmt::Debug for PollerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollerHandle").field("core", &self.core()).finish_non_exhaustive()
    }
}

/// One source on its poller, seen from any thread. Jobs of one thread run in the order they were sent. Dropping the
/// handles does not remove the source.
///
/// When the source panics, in a poll or in a job, it is polled no more and everything here answers [`Gone`]. What is left of
/// it is dropped by [`remove`](Self::remove), or at the end of the reactor.
pub struct SourceHandle<S> {
    poller: PollerHandle,
    id: SourceId,
    source: PhantomData<fn(S) -> S>,
}

impl<S: Source> SourceHandle<S> {
    /// Runs `work` on the source, between two polls. Does not wait, and may be called on a poller. `work` is dropped unrun if the
    /// source is gone.
    pub fn run(&self, work: impl FnOnce(&mut S) + Send + 'static) {
        let id = self.id;
        self.poller.shared.post(Box::new(move |sources| {
            sources.with(id, work);
        }));
    }

    /// Runs `work` on the source and waits for its result.
    ///
    /// # Panics
    /// On a poller thread, which must not wait: it might wait for itself.
    pub fn call<R: Send + 'static>(&self, work: impl FnOnce(&mut S) -> R + Send + 'static) -> Result<R, Gone> {
        let id = self.id;
        self.poller.ask(move |sources| sources.with(id, work)).flatten().ok_or(Gone)
    }

    /// Takes the source off its poller, so that it is dropped by the caller. A source that panicked is dropped here and answered as
    /// [`Gone`].
    ///
    /// # Panics
    /// On a poller thread, which must not wait: it might wait for itself.
    pub fn remove(&self) -> Result<S, Gone> {
        let id = self.id;
        match self.poller.ask(move |sources| sources.remove(id)).flatten() {
            Some(Removed::Live(entry)) => {
                let source: Box<dyn Any> = entry.into_source();
                source.downcast().map(|source| *source).map_err(|_| Gone)
            }
            Some(Removed::Wreck(wreck)) => {
                drop(wreck);
                Err(Gone)
            }
            None => Err(Gone),
        }
    }

    /// The poller that the source is on.
    pub fn poller(&self) -> &PollerHandle {
        &self.poller
    }
}

impl<S> Clone for SourceHandle<S> {
    fn clone(&self) -> Self {
        Self { poller: self.poller.clone(), id: self.id, source: PhantomData }
    }
}

impl<S> fmt::Debug for SourceHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceHandle").field("poller", &self.poller).field("id", &self.id.0).finish()
    }
}
