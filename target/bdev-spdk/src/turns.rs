//! Whose turn it is to poll the SPDK thread of a poller: what its channels and its source tell each other.

use std::cell::Cell;

use reactor::clock::Tsc;

/// One of each poller.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Channels that are open.
    open: Cell<usize>,
    /// SPDK was given something since the thread was polled.
    fresh: Cell<bool>,
    /// The loop in which it was polled last.
    polled: Cell<u64>,
}

impl Turns {
    pub(crate) fn opened(&self) {
        self.open.set(self.open.get() + 1);
    }

    pub(crate) fn closed(&self) {
        self.open.set(self.open.get() - 1);
    }

    /// Channels that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// SPDK was given something.
    #[inline]
    pub(crate) fn given(&self) {
        self.fresh.set(true);
    }

    /// Whether the thread is to be polled, by somebody who waits for SPDK in the loop that began at `now`: once a loop, and once
    /// more if there has been something new since.
    #[inline]
    pub(crate) fn is_due(&self, now: Tsc) -> bool {
        self.fresh.get() || self.polled.get() != now.0
    }

    /// The thread is polled now.
    #[inline]
    pub(crate) fn take(&self, now: Tsc) {
        self.fresh.set(false);
        self.polled.set(now.0);
    }

    /// The loop in which it was polled last.
    #[inline]
    pub(crate) fn polled(&self) -> Tsc {
        Tsc(self.polled.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_is_polled_once_a_loop_and_again_for_what_is_new() {
        let turns = Turns::default();
        assert!(turns.is_due(Tsc(5)));
        turns.take(Tsc(5));
        assert!(!turns.is_due(Tsc(5)) && turns.is_due(Tsc(6)));
        turns.given();
        assert!(turns.is_due(Tsc(5)));
        turns.take(Tsc(5));
        assert!(!turns.is_due(Tsc(5)));
        assert_eq!(turns.polled(), Tsc(5));
    }
}
