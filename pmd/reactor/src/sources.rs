//! The sources of one poller, owned by its thread: polling, arming, and jobs on a single one; when to do which is `poller`'s.

use crate::bell::{Bell, Watch};
use crate::clock::Tsc;
use crate::source::{Armed, Source};
use std::any::Any;
use std::sync::Arc;

/// Names a source on its poller. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceId(pub(crate) u64);

/// The sources of a poller, in the order of polling, and those that panicked.
pub(crate) struct Sources {
    live: Vec<Entry>,
    /// Sources that panicked, kept because dropping them is not for the poller.
    wrecks: Vec<Entry>,
    /// Index in `live` of the source that is running, for whoever catches its panic.
    current: usize,
    armed: bool,
    stopping: bool,
}

/// One source. Polling touches the box only.
pub(crate) struct Entry {
    source: Box<dyn Source>,
    armed: bool,
    id: SourceId,
    /// The type of the source, for the log.
    name: &'static str,
    watched: Option<Watched>,
}

/// The fds of a source as of the last sleep. `None` if they could not be watched.
struct Watched {
    generation: u64,
    watch: Option<Watch>,
}

/// What arming all sources came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Work appeared: poll on.
    Ready,
    /// One of them has no notification: no sleep.
    Restless,
    /// All are armed, and want to be polled at that moment at the latest.
    Until(Option<Tsc>),
}

/// A source taken out.
pub(crate) enum Removed {
    /// In good order.
    Live(Entry),
    /// It panicked: only good for dropping.
    Wreck(Entry),
}

impl Entry {
    pub(crate) fn new<S: Source>(id: SourceId, source: S) -> Self {
        let name = std::any::type_name::<S>();
        Self { source: Box::new(source), armed: false, id, name, watched: None }
    }

    pub(crate) fn into_source(self) -> Box<dyn Source> {
        self.source
    }

    /// Sees to it that the bell watches the fds that the source has now. Whether it does.
    fn watch(&mut self, bell: &Arc<Bell>) -> bool {
        let generation = self.source.fds_generation();
        if self.watched.as_ref().is_none_or(|watched| watched.generation != generation) {
            // The old fds leave before the new ones enter: some may be the same.
            self.watched = None;
            let watch = bell.watch(&*self.source);
            let watch = watch.inspect_err(|error| {
                tracing::warn!(source = self.name, id = self.id.0, %error, "cannot watch the fds, the poller will not sleep");
            });
            self.watched = Some(Watched { generation, watch: watch.ok() });
        }
        self.watched.as_ref().is_some_and(|watched| watched.watch.is_some())
    }
}

impl Sources {
    pub(crate) fn new() -> Self {
        Self { live: Vec::new(), wrecks: Vec::new(), current: NONE, armed: false, stopping: false }
    }

    /// Polls every source once. The work they did.
    #[inline]
    pub(crate) fn poll(&mut self, now: Tsc) -> usize {
        let mut work = 0;
        for (index, entry) in self.live.iter_mut().enumerate() {
            self.current = index;
            work += entry.source.poll(now);
        }
        self.current = NONE;
        work
    }

    /// Arms every source, up to the first that will not let the poller sleep.
    pub(crate) fn arm(&mut self, bell: &Arc<Bell>) -> Readiness {
        self.armed = true;
        let mut nearest: Option<Tsc> = None;
        for (index, entry) in self.live.iter_mut().enumerate() {
            self.current = index;
            let watched = entry.watch(bell);
            entry.armed = true;
            let deadline = match entry.source.arm() {
                Armed::Ready => return self.settle(Readiness::Ready),
                Armed::MustPoll { deadline: None } => return self.settle(Readiness::Restless),
                Armed::Sleep => None,
                Armed::MustPoll { deadline } => deadline,
            };
            if !watched {
                return self.settle(Readiness::Restless);
            }
            nearest = nearest.into_iter().chain(deadline).min();
        }
        self.settle(Readiness::Until(nearest))
    }

    /// Disarms what `arm` armed. No more than a look at a flag if that is nothing.
    pub(crate) fn disarm(&mut self) {
        if !self.armed {
            return;
        }
        for (index, entry) in self.live.iter_mut().enumerate() {
            if entry.armed {
                self.current = index;
                // First, so that a source that panics here is not asked again.
                entry.armed = false;
                entry.source.disarm();
            }
        }
        self.current = NONE;
        self.armed = false;
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.live.push(entry);
    }

    /// Runs `work` on one source, as that source: a panic is its own. `None` if it is gone.
    pub(crate) fn with<S: Source, R>(&mut self, id: SourceId, work: impl FnOnce(&mut S) -> R) -> Option<R> {
        let index = self.position(id)?;
        let source: &mut dyn Any = &mut *self.live[index].source;
        let source = source.downcast_mut::<S>()?;
        self.current = index;
        let result = work(source);
        self.current = NONE;
        Some(result)
    }

    pub(crate) fn remove(&mut self, id: SourceId) -> Option<Removed> {
        if let Some(index) = self.position(id) {
            return Some(Removed::Live(self.live.remove(index)));
        }
        let index = self.wrecks.iter().position(|wreck| wreck.id == id)?;
        Some(Removed::Wreck(self.wrecks.swap_remove(index)))
    }

    /// Takes the source that was running out of the loop, after its panic. Its type and id, `None` if none was running.
    pub(crate) fn bury_current(&mut self) -> Option<(&'static str, SourceId)> {
        let index = std::mem::replace(&mut self.current, NONE);
        if index >= self.live.len() {
            return None;
        }
        let wreck = self.live.remove(index);
        let whose = (wreck.name, wreck.id);
        self.wrecks.push(wreck);
        Some(whose)
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// Asks the poller to end once its inbox is empty.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    #[inline]
    pub(crate) fn stopping(&self) -> bool {
        self.stopping
    }

    /// What is left when the poller has ended: the sources in good order. Wrecks are dropped, here.
    pub(crate) fn into_live(self) -> impl Iterator<Item = Box<dyn Source>> {
        self.live.into_iter().map(Entry::into_source)
    }

    fn settle(&mut self, readiness: Readiness) -> Readiness {
        self.current = NONE;
        readiness
    }

    /// A poller has tens to hundreds of sources, and jobs on them are rare.
    fn position(&self, id: SourceId) -> Option<usize> {
        self.live.iter().position(|entry| entry.id == id)
    }
}

/// No source is running.
const NONE: usize = usize::MAX;
