//! When a ring is left alone for a moment after a fetch, so that its driver can add to it.
//!
//! A driver that makes chains available one at a time, and a poller that looks at the ring all the time, take its cache lines
//! from each other for each chain, and both wait for them longer than they work. Left alone for a moment, the driver finds its
//! lines where it left them, and the poller takes several chains for the price of one.
//!
//! Whether that pays depends on the driver's pace and on how many chains it has in flight; neither can be known here, so it is
//! tried. From time to time, a ring that gives chains by ones and twos is measured: some fetches as ever, then some with a
//! linger after each. If it gave clearly more chains in the same time, the poller lingers on, and tries again later. A
//! driver that has no more to send than it would have sent anyway gains nothing, so nothing is held up for it but those
//! few fetches, which grow rarer the more often they were in vain.

use std::mem;

use reactor::Tsc;
use virtqueue::ChainBatch;

use super::RingSet;

/// How long a ring is left alone. Several times what a cache line takes from core to core and back.
const LINGER_NANOS: u64 = 1_500;
/// A pause between two fetches counts for no more than this: the driver had nothing to send.
const PAUSE_NANOS: u64 = 4 * LINGER_NANOS;
/// A fetch of so many chains is a driver that sends one at a time.
const FEW: usize = 2;
/// Fetches in each half of a trial.
const TRIAL: u32 = 16;
/// Lingers until the next trial.
const KEEP: u32 = 4_096;
/// Fetches of few chains until the next trial: at first, and after many that were in vain.
const PATIENCE: (u32, u32) = (64, 1 << 17);

/// The same in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    linger: u64,
    pause: u64,
}

impl Terms {
    pub(super) fn new() -> Terms {
        Terms { linger: Tsc::ticks(LINGER_NANOS), pause: Tsc::ticks(PAUSE_NANOS) }
    }
}

/// What is known of one ring's driver.
#[derive(Debug)]
pub(super) struct Linger {
    phase: Phase,
    /// Fetches left in this phase.
    left: u32,
    /// How many fetches the phase [`Phase::Prompt`] lasts.
    patience: u32,
    /// Chains came: the next linger begins when they have been dealt with.
    begins: bool,
    until: Tsc,
    last: Tsc,
    seen: Pace,
    prompt: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The ring is looked at in every poll.
    Prompt,
    /// The same, and measured.
    Before,
    /// The poller lingers, and is measured.
    Trial,
    /// It lingers, since that pays.
    Lingering,
}

/// Chains that came in a time.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    chains: u64,
    ticks: u64,
}

impl Pace {
    /// By more than an eighth: less may be chance, and is not worth the time that a chain waits.
    fn clearly_quicker_than(self, other: Pace) -> bool {
        8 * self.chains * other.ticks > 9 * other.chains * self.ticks
    }
}

impl Default for Linger {
    fn default() -> Linger {
        Linger {
            phase: Phase::Prompt,
            left: PATIENCE.0,
            patience: PATIENCE.0,
            begins: false,
            until: Tsc::default(),
            last: Tsc::default(),
            seen: Pace::default(),
            prompt: Pace::default(),
        }
    }
}

impl Linger {
    #[inline]
    fn lingers(&self) -> bool {
        matches!(self.phase, Phase::Trial | Phase::Lingering)
    }

    /// Whether the ring is to be left alone now.
    #[inline]
    fn waits(&mut self, terms: &Terms, now: Tsc) -> bool {
        if !self.lingers() {
            return false;
        }
        if mem::take(&mut self.begins) {
            self.until = now + terms.linger;
        }
        now < self.until
    }

    /// A fetch found so many chains. Whether a linger follows.
    #[inline]
    fn fetched(&mut self, terms: &Terms, chains: usize, now: Tsc) -> bool {
        match (self.phase, chains) {
            (Phase::Prompt, 0) => {}
            (Phase::Prompt, 1..=FEW) if self.left > 1 => self.left -= 1,
            (Phase::Prompt, 1..=FEW) => self.measure(Phase::Before, now),
            // This driver gathers chains by itself, or is quick enough.
            (Phase::Prompt, _) => self.left = self.patience,
            _ => self.learn(terms, chains, now),
        }
        self.begins
    }

    #[inline(never)]
    fn learn(&mut self, terms: &Terms, chains: usize, now: Tsc) {
        if self.phase == Phase::Lingering && chains < FEW {
            return self.be_prompt(PATIENCE.0); // nothing is gathered
        }
        if chains == 0 {
            return;
        }
        self.seen.chains += chains as u64;
        self.seen.ticks += (now - self.last).min(terms.pause);
        self.last = now;
        self.left -= 1;
        if self.left == 0 {
            self.go_on(now);
        }
        self.begins = self.lingers();
    }

    /// What comes after this phase.
    fn go_on(&mut self, now: Tsc) {
        match self.phase {
            Phase::Prompt | Phase::Lingering => self.measure(Phase::Before, now),
            Phase::Before => {
                self.prompt = self.seen;
                self.measure(Phase::Trial, now);
            }
            Phase::Trial if self.seen.clearly_quicker_than(self.prompt) => {
                (self.phase, self.left, self.patience) = (Phase::Lingering, KEEP, PATIENCE.0);
            }
            Phase::Trial => self.be_prompt((2 * self.patience).min(PATIENCE.1)),
        }
    }

    fn measure(&mut self, phase: Phase, now: Tsc) {
        (self.phase, self.left, self.last, self.seen) = (phase, TRIAL, now, Pace::default());
    }

    fn be_prompt(&mut self, patience: u32) {
        (self.phase, self.left, self.patience) = (Phase::Prompt, patience, patience);
        self.begins = false;
    }
}

impl RingSet {
    /// As [`RingSet::pop`], for a ring whose driver fills it on its own account, as request and transmit queues are filled: finds
    /// nothing while the ring is left alone for its driver to add to it, up to 1.5 µs from the first poll after a fetch on.
    #[inline]
    pub fn pop_gathered(&mut self, slot: usize, limit: usize, batch: &mut ChainBatch, now: Tsc) -> usize {
        if self.rings[slot].linger.waits(&self.linger, now) {
            batch.clear();
            return 0;
        }
        let count = self.pop(slot, limit, batch);
        let ring = &mut self.rings[slot];
        if ring.linger.fetched(&self.linger, count, now) {
            ring.stats.lingers.add(1);
        }
        count
    }
}

#[cfg(test)]
mod tests;
