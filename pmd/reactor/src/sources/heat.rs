//! How sources go cold and become hot again: who is moved from one list to the other, and what is called on it then. When to
//! do that is `poller`'s; that no notification is lost on the way is the order of `doze::go_cold`.

use super::{NONE, SourceId, Sources};
use crate::bell::{Bell, Rung};
use crate::clock::Tsc;
use crate::doze;
use crate::source::Armed;
use std::mem;
use std::sync::Arc;

impl Sources {
    pub(crate) fn cold_len(&self) -> usize {
        self.cold.len()
    }

    /// Makes those hot that rang.
    pub(crate) fn heed(&mut self, rung: &Rung) {
        for id in rung.sources() {
            if let Some(index) = self.heat(id) {
                self.hot[index].worked = true;
                self.warm(index);
            }
        }
    }

    /// Looks in full at one hot source and at one cold source: the next in turn. The work that it found.
    pub(crate) fn sweep(&mut self, bell: &Arc<Bell>, now: Tsc) -> usize {
        if self.swept >= self.hot.len() {
            self.swept = 0;
        }
        if self.swept < self.hot.len() {
            self.warm(self.swept);
            self.swept += 1;
        }
        self.visit(bell, now)
    }

    /// Looks in full at every cold source. The work that they found.
    pub(crate) fn visit_cold(&mut self, bell: &Arc<Bell>, now: Tsc) -> usize {
        (0..self.cold.len()).map(|_| self.visit(bell, now)).sum()
    }

    /// Lets idle parts of the hot sources go cold, and the sources that did no work since the last call.
    pub(crate) fn cool(&mut self, bell: &Arc<Bell>, now: Tsc) {
        // Backwards: what takes the place of one that leaves has been dealt with.
        for index in (0..self.hot.len()).rev() {
            self.current = index;
            let entry = &mut self.hot[index];
            let worked = mem::take(&mut entry.worked);
            if !entry.watch(bell) {
                continue;
            }
            entry.source.cool();
            if !worked && self.goes_cold(index, now) {
                let entry = self.hot.swap_remove(index);
                self.cold.push_back(entry);
            }
        }
        self.current = NONE;
    }

    /// Makes everything hot, parts included: after a panic nobody knows what was rung and not yet dealt with.
    pub(crate) fn recover(&mut self) {
        self.disarm();
        while let Some(entry) = self.cold.pop_front() {
            self.hot.push(entry);
            self.disarm_one(self.hot.len() - 1);
        }
        (0..self.hot.len()).for_each(|index| self.warm(index));
    }

    /// The index in `hot` of a source, made hot and disarmed if it was not. `None` if it is gone.
    pub(super) fn heat(&mut self, id: SourceId) -> Option<usize> {
        // A poller has tens to hundreds of sources, and all this is rare.
        if let Some(index) = self.hot.iter().position(|entry| entry.id == id) {
            return Some(index);
        }
        let index = self.cold.iter().position(|entry| entry.id == id)?;
        let entry = self.cold.remove(index)?;
        self.hot.push(entry);
        let index = self.hot.len() - 1;
        self.disarm_one(index);
        Some(index)
    }

    /// Looks in full at the first cold source, which stays cold, as the last one, if it has nothing to do.
    fn visit(&mut self, bell: &Arc<Bell>, now: Tsc) -> usize {
        let Some(entry) = self.cold.pop_front() else { return 0 };
        self.hot.push(entry);
        let index = self.hot.len() - 1;
        self.disarm_one(index);
        self.warm(index);
        self.current = index;
        let work = self.hot[index].source.poll(now);
        self.current = NONE;
        if work > 0 {
            self.hot[index].worked = true;
        } else if self.hot[index].watch(bell) && self.goes_cold(index, now) {
            self.cold.extend(self.hot.pop());
        }
        work
    }

    /// Arms a hot source, and looks at it once more. Whether it may be left alone; if not, it is disarmed.
    fn goes_cold(&mut self, index: usize, now: Tsc) -> bool {
        self.current = index;
        let entry = &mut self.hot[index];
        entry.armed = true;
        let cold = doze::go_cold(
            entry,
            |entry| entry.source.arm() == Armed::Sleep,
            |entry| {
                let work = entry.source.poll(now) > 0;
                entry.worked |= work;
                work
            },
        );
        self.current = NONE;
        if !cold {
            self.disarm_one(index);
        }
        cold
    }

    fn disarm_one(&mut self, index: usize) {
        self.current = index;
        let entry = &mut self.hot[index];
        // First, so that a source that panics here is not asked again.
        entry.armed = false;
        entry.source.disarm();
        self.current = NONE;
    }

    fn warm(&mut self, index: usize) {
        self.current = index;
        self.hot[index].source.warm();
        self.current = NONE;
    }
}
