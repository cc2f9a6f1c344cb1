//! The sources of one poller, owned by its thread: polling, arming, and jobs on a single one. How they go cold and become hot
//! again is `sources/heat.rs`; when to do what is `poller`'s.

mod heat;

use crate::bell::{Bell, Watch};
use crate::clock::Tsc;
use crate::source::{Armed, Source};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

/// Names a source on its poller. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceId(pub(crate) u64);

/// The sources of a poller, and those that panicked.
pub(crate) struct Sources {
    /// Polled in every loop, in this order. Whatever is called on a source, it is in here meanwhile.
    hot: Vec<Entry>,
    /// Armed, and not polled. The next one of the sweep comes first.
    cold: VecDeque<Entry>,
    /// Sources that panicked, kept because dropping them is not for the poller.
    wrecks: Vec<Entry>,
    /// Index in `hot` of the source that is running, for whoever catches its panic.
    current: usize,
    /// Index in `hot` of the next one of the sweep.
    swept: usize,
    /// Whether hot sources are armed.
    armed: bool,
    stopping: bool,
}

/// One source. Polling touches the box only.
pub(crate) struct Entry {
    source: Box<dyn Source>,
    armed: bool,
    /// Whether it did work, or somebody dealt with it, since the last time that it might have gone cold.
    worked: bool,
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
        Self { source: Box::new(source), armed: false, worked: true, id, name, watched: None }
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
            let watch = bell.watch(self.id, &*self.source);
            let watch = watch.inspect_err(|error| {
                tracing::warn!(source = self.name, id = self.id.0, %error, "cannot watch the fds: it stays hot, and the poller will not sleep");
            });
            self.watched = Some(Watched { generation, watch: watch.ok() });
        }
        self.watched.as_ref().is_some_and(|watched| watched.watch.is_some())
    }
}

impl Sources {
    pub(crate) fn new() -> Self {
        Self {
            hot: Vec::new(),
            cold: VecDeque::new(),
            wrecks: Vec::new(),
            current: NONE,
            swept: 0,
            armed: false,
            stopping: false,
        }
    }

    /// Polls every hot source once. The work they did.
    #[inline]
    pub(crate) fn poll(&mut self, now: Tsc) -> usize {
        let mut work = 0;
        for (index, entry) in self.hot.iter_mut().enumerate() {
            self.current = index;
            let done = entry.source.poll(now);
            entry.worked |= done > 0;
            work += done;
        }
        self.current = NONE;
        work
    }

    /// Arms every hot source, up to the first that will not let the poller sleep.
    pub(crate) fn arm(&mut self, bell: &Arc<Bell>) -> Readiness {
        self.armed = true;
        let mut nearest: Option<Tsc> = None;
        for (index, entry) in self.hot.iter_mut().enumerate() {
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
        for (index, entry) in self.hot.iter_mut().enumerate() {
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
        self.hot.push(entry);
        // So that the list of cold ones need not grow when they go cold.
        self.cold.reserve(self.hot.len());
    }

    /// Runs `work` on one source, as that source: a panic is its own. `None` if it is gone.
    pub(crate) fn with<S: Source, R>(&mut self, id: SourceId, work: impl FnOnce(&mut S) -> R) -> Option<R> {
        let index = self.heat(id)?;
        self.hot[index].worked = true;
        let source: &mut dyn Any = &mut *self.hot[index].source;
        let source = source.downcast_mut::<S>()?;
        self.current = index;
        let result = work(source);
        self.current = NONE;
        Some(result)
    }

    pub(crate) fn remove(&mut self, id: SourceId) -> Option<Removed> {
        if let Some(index) = self.heat(id) {
            return Some(Removed::Live(self.hot.remove(index)));
        }
        let index = self.wrecks.iter().position(|wreck| wreck.id == id)?;
        Some(Removed::Wreck(self.wrecks.swap_remove(index)))
    }

    /// Takes the source that was running out of the loop, after its panic. Its type and id, `None` if none was running.
    pub(crate) fn bury_current(&mut self) -> Option<(&'static str, SourceId)> {
        let index = std::mem::replace(&mut self.current, NONE);
        if index >= self.hot.len() {
            return None;
        }
        let wreck = self.hot.remove(index);
        let whose = (wreck.name, wreck.id);
        self.wrecks.push(wreck);
        Some(whose)
    }

    pub(crate) fn len(&self) -> usize {
        self.hot.len() + self.cold.len()
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
        self.hot.into_iter().chain(self.cold).map(Entry::into_source)
    }

    fn settle(&mut self, readiness: Readiness) -> Readiness {
        self.current = NONE;
        readiness
    }
}

/// No source is running.
const NONE: usize = usize::MAX;
