//! Which rings of a set are polled, and which wait for a kick: hot and cold ones. When to ask for a change is the poller's
//! (`reactor::Source`); the two notification questions are `virtqueue`'s.
//!
//! A ring is *hot* while it is used: it is on the list that the device goes through in each poll, and its driver is told
//! not to kick. One that gave no chain for 10 to 20 ms goes *cold*: notifications are enabled, it is looked at once more, and
//! leaves the list. A chain that comes later comes with a kick, since the driver moves its index before it looks whether one is
//! wanted; the poller hears of it and has all cold rings looked at. Commands in flight keep a ring hot: they have to be
//! published. A hundred idle rings so add nothing to a poll.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use virtqueue::FaultReason;

use super::{Ring, RingSet};

/// How near a ring is to being left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heat {
    /// Stopped, disabled or passive: nobody looks at it.
    Out,
    /// Polled, and chains came since the last [`RingSet::cool`].
    Used,
    /// Polled, and no chain came since then.
    Idle,
    /// Waits for a kick.
    Cold,
}

impl RingSet {
    /// Whether chains of the ring in `slot` wait for the device to have something for them, as event buffers do: they are no
    /// work then, and no reason to stay awake. The ring is neither hot nor cold; pop when there is something.
    pub fn set_passive(&mut self, slot: usize, passive: bool) {
        if self.rings[slot].passive == passive {
            return;
        }
        self.rings[slot].passive = passive;
        self.kicks_generation += 1;
        if passive {
            self.leave(slot, Heat::Out);
        } else {
            self.begin(slot);
        }
    }

    /// The ring in `slot` is rarely used, as control queues are: it is cold from the start.
    pub fn set_cold_start(&mut self, slot: usize) {
        self.rings[slot].cold_start = true;
    }

    // --- what a poll has to look at ---

    /// The slot of a hot ring, counted from 0, in the order of slots; `None` behind the last. The list changes in
    /// [`RingSet::cool`] and [`RingSet::warm`], and when a ring is started or stopped, never within a poll.
    #[must_use]
    #[inline]
    pub fn hot(&self, at: usize) -> Option<usize> {
        self.hot.get(at).map(|slot| usize::from(*slot))
    }

    /// Whether the ring in `slot` is polled.
    #[must_use]
    #[inline]
    pub fn is_hot(&self, slot: usize) -> bool {
        matches!(self.rings[slot].heat, Heat::Used | Heat::Idle)
    }

    /// To be called now and then, at an even pace, while the poller watches all of [`RingSet::kicks`]: rings that gave no
    /// chain since the last call go cold.
    pub fn cool(&mut self) {
        for at in (0..self.hot.len()).rev() {
            let slot = usize::from(self.hot[at]);
            match self.rings[slot].cooler() {
                heat @ (Heat::Used | Heat::Idle) => self.rings[slot].heat = heat,
                heat => self.leave(slot, heat),
            }
        }
    }

    /// To be called when a kick was heard, or might have been missed: cold rings with something to fetch become hot.
    pub fn warm(&mut self) {
        for slot in 0..self.rings.len() {
            let ring = &self.rings[slot];
            if ring.heat == Heat::Cold
                && ring.fetches()
                && ring.queue.as_ref().is_some_and(|queue| queue.has_available())
            {
                self.heat(slot);
            }
        }
        if self.table.poisoned() {
            self.halt_all(FaultReason::MemoryLost);
        }
    }

    // --- the way to sleep and back, of hot rings: cold ones sleep already ---

    /// Asks every driver to kick, then looks again: true if a chain is there already, so that the poller must not sleep.
    ///
    /// From here on until [`RingSet::disable_notifications`] no call is held back: see [`RingSet::next_call`].
    pub fn enable_notifications(&mut self) -> bool {
        self.doze(true);
        let mut available = false;
        for slot in &self.hot {
            let ring = &mut self.rings[usize::from(*slot)];
            if ring.fetches()
                && let Some(queue) = &mut ring.queue
            {
                available |= queue.enable_notifications();
            }
        }
        available
    }

    /// Tells every driver that kicks are not needed: the ring is polled again.
    pub fn disable_notifications(&mut self) {
        self.doze(false);
        for slot in &self.hot {
            let ring = &mut self.rings[usize::from(*slot)];
            if ring.fetches()
                && let Some(queue) = &mut ring.queue
            {
                queue.disable_notifications();
                if queue.has_available() {
                    ring.count_kicks();
                }
            }
        }
    }

    /// The kick descriptors that wake a sleeping poller, and tell one that is awake of cold rings.
    pub fn kicks(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        for ring in self.rings.iter().filter(|ring| !ring.passive) {
            if let Some(kick) = &ring.kick {
                add(kick.as_fd());
            }
        }
    }

    /// A number that differs whenever the set of [`RingSet::kicks`] does.
    #[must_use]
    pub fn kicks_generation(&self) -> u64 {
        self.kicks_generation
    }

    /// Whether every ring that is polled has a kick descriptor. A driver that never kicks has to be polled.
    #[must_use]
    pub fn can_sleep(&self) -> bool {
        self.hot.iter().all(|slot| self.rings[usize::from(*slot)].kick.is_some())
    }

    // --- inside ---

    /// A ring that fetches from now on.
    pub(super) fn begin(&mut self, slot: usize) {
        let ring = &mut self.rings[slot];
        if ring.passive || !ring.fetches() || ring.queue.is_none() {
            return;
        }
        if ring.cold_start && ring.kick.is_some() && ring.freeze() == Heat::Cold {
            self.leave(slot, Heat::Cold);
        } else {
            self.heat(slot);
        }
    }

    /// Makes a ring hot.
    pub(super) fn heat(&mut self, slot: usize) {
        let ring = &mut self.rings[slot];
        let before = mem::replace(&mut ring.heat, Heat::Used);
        if before == Heat::Cold {
            ring.stats.cold.set(0);
            ring.count_kicks();
            if let Some(queue) = &mut ring.queue {
                queue.disable_notifications();
            }
        }
        if matches!(before, Heat::Out | Heat::Cold) {
            let at = self.hot.partition_point(|hot| usize::from(*hot) < slot);
            self.hot.insert(at, slot as u16);
        }
    }

    /// Takes a ring off the list of hot ones.
    pub(super) fn leave(&mut self, slot: usize, heat: Heat) {
        self.hot.retain(|hot| usize::from(*hot) != slot);
        let ring = &mut self.rings[slot];
        ring.heat = heat;
        ring.stats.cold.set(u64::from(heat == Heat::Cold));
    }

    /// Chains came from a ring that had none lately.
    #[cold]
    pub(super) fn used_again(&mut self, slot: usize) {
        match self.rings[slot].heat {
            Heat::Idle => self.rings[slot].heat = Heat::Used,
            // Whoever popped from it did not go by the list. The driver was told to kick at these chains only.
            Heat::Cold => self.heat(slot),
            Heat::Used | Heat::Out => {}
        }
    }

    /// The memory table has changed under a ring: what its driver was told may lie elsewhere.
    pub(super) fn moved(&mut self, slot: usize) {
        match self.rings[slot].heat {
            Heat::Cold if self.rings[slot].lost => self.leave(slot, Heat::Out),
            Heat::Cold => self.heat(slot),
            Heat::Out | Heat::Used | Heat::Idle => {}
        }
    }
}

impl Ring {
    /// What becomes of a hot ring when time has passed.
    fn cooler(&mut self) -> Heat {
        let quiet = self.is_quiet();
        match self.heat {
            _ if !quiet => Heat::Idle,
            _ if !self.fetches() => Heat::Out,
            Heat::Idle if self.kick.is_some() => self.freeze(),
            _ => Heat::Idle,
        }
    }

    /// Asks the driver for kicks and looks once more: cold, unless something is there.
    fn freeze(&mut self) -> Heat {
        let Some(queue) = &mut self.queue else { return Heat::Out };
        if queue.enable_notifications() {
            queue.disable_notifications();
            return Heat::Used;
        }
        Heat::Cold
    }

    pub(super) fn count_kicks(&self) {
        if let Some(kick) = &self.kick {
            self.stats.kicks.add(kick.drain());
        }
    }
}
