//! When drivers are called: at once, or, where calls are coalesced, a little later and then once for several batches.
//!
//! A ring that gave more chains than the threshold in the last interval has its calls spaced: the busier, the further
//! apart. That the driver wants a call is found out when completions are published, and is kept until the call has gone:
//! with an event index the ring itself does not tell twice.
//!
//! A call that is held back goes in the first poll at or after the moment that it is due, and earlier when the ring is stopped
//! or disabled, its descriptor is replaced, or the terms change. A source that is to be left alone says when it is due
//! ([`RingSet::next_call`]). Whatever is published after it has said so, and before it is polled again, is called for at once.

use reactor::Tsc;

use super::{Ring, RingSet};

/// How calls of a device are coalesced, in the terms of SPDK's `vhost_controller_set_coalescing`.
///
/// A ring that gave `iops` chains a second in the last [`Coalescing::INTERVAL_US`] has its calls
/// `delay_base_us` × (`iops` - `iops_threshold`) / `iops_threshold` apart, but never further than that interval; up to the
/// threshold each goes at once. Queues that are not for requests are not coalesced ([`RingSet::set_prompt`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// How far apart calls are at twice the threshold, in microseconds, at most [`Coalescing::DELAY_BASE_US_MAX`]; 0: no call
    /// is ever delayed.
    pub delay_base_us: u32,
    /// Chains a second of one ring up to which its calls are not delayed, at least [`Coalescing::IOPS_THRESHOLD_MIN`].
    pub iops_threshold: u32,
}

impl Coalescing {
    /// Each call goes at once; the default, with the threshold that SPDK has by default.
    pub const OFF: Coalescing = Coalescing { delay_base_us: 0, iops_threshold: 60_000 };
    /// Length of the interval over which chains are counted, in microseconds. No call is delayed longer.
    pub const INTERVAL_US: u32 = 10_000;
    /// Largest `delay_base_us`: SPDK's bound, 2^32 ticks, is a little more.
    pub const DELAY_BASE_US_MAX: u32 = 1_000_000;
    /// Smallest `iops_threshold`: one chain an interval.
    pub const IOPS_THRESHOLD_MIN: u32 = 1_000_000 / Coalescing::INTERVAL_US;

    /// In ticks of the clock; `None` if nothing is to be delayed.
    fn terms(self) -> Option<Terms> {
        let ticks = |us| Tsc::ticks(u64::from(us) * 1000);
        (self.delay_base_us > 0).then(|| Terms {
            delay_base: ticks(self.delay_base_us),
            iops_threshold: self.iops_threshold.max(1),
            interval: ticks(Coalescing::INTERVAL_US),
        })
    }
}

impl Default for Coalescing {
    fn default() -> Coalescing {
        Coalescing::OFF
    }
}

/// The same in ticks.
#[derive(Clone, Copy, Debug)]
struct Terms {
    delay_base: u64,
    iops_threshold: u32,
    interval: u64,
}

impl Terms {
    /// Ticks between two calls of a ring that gave `chains` in `elapsed` ticks.
    fn delay(&self, chains: u64, elapsed: u64) -> u64 {
        let intervals_per_s = u128::from(1_000_000 / Coalescing::INTERVAL_US);
        // Both sides in chains × ticks per second, so that nothing is rounded.
        let seen = u128::from(chains) * u128::from(self.interval) * intervals_per_s;
        let free = (u128::from(self.iops_threshold) * u128::from(elapsed)).max(1);
        let delay = u128::from(self.delay_base).saturating_mul(seen.saturating_sub(free)) / free;
        delay.min(u128::from(self.interval)) as u64
    }
}

/// The calls of one ring.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// See [`RingSet::set_prompt`].
    prompt: bool,
    /// The driver wants a call that has not been sent.
    owed: bool,
    /// No call goes before this.
    next: Tsc,
    /// Ticks between two calls.
    delay: u64,
    /// What the ring's counter of chains was at the last check, and those put back since.
    chains: u64,
}

/// Coalescing in a ring set.
#[derive(Debug)]
pub(super) struct Coalescer {
    terms: Terms,
    /// Time of the poll.
    now: Tsc,
    checked: Tsc,
    /// When there is something to do: the next check, or a call that is due before.
    due: Tsc,
    /// Nobody may poll for a while, and those who poll then have been told when.
    dozing: bool,
}

impl RingSet {
    /// Coalesces calls like this from now on; a new set sends each at once. What was held back goes now.
    pub fn set_coalescing(&mut self, coalescing: Coalescing, now: Tsc) {
        self.set_terms(coalescing.terms(), now);
    }

    /// Whether each call of the ring in `slot` goes at once, however calls are coalesced: control and event queues.
    pub fn set_prompt(&mut self, slot: usize, prompt: bool) {
        let ring = &mut self.rings[slot];
        ring.pace.prompt = prompt;
        ring.send_call();
    }

    /// To be called at the begin of each poll: sends the calls that are due.
    #[inline]
    pub fn begin_poll(&mut self, now: Tsc) {
        if let Some(coalescer) = &mut self.coalescer {
            coalescer.now = now;
            if now >= coalescer.due {
                self.pace();
            }
        }
    }

    /// When the first call that is held back is due; `None` if none is. To be asked after [`RingSet::enable_notifications`].
    #[must_use]
    pub fn next_call(&self) -> Option<Tsc> {
        self.coalescer.as_ref()?;
        self.rings.iter().filter(|ring| ring.pace.owed).map(|ring| ring.pace.next).min()
    }

    // --- inside ---

    fn set_terms(&mut self, terms: Option<Terms>, now: Tsc) {
        for ring in &mut self.rings {
            ring.send_call();
            ring.pace = Pace { prompt: ring.pace.prompt, chains: ring.stats.chains.value(), ..Pace::default() };
        }
        let coalescer = |terms: Terms| Coalescer { terms, now, checked: now, due: now + terms.interval, dozing: false };
        self.coalescer = terms.map(coalescer);
    }

    /// The poller is about to do without polls, or polls again.
    pub(super) fn doze(&mut self, dozing: bool) {
        if let Some(coalescer) = &mut self.coalescer {
            coalescer.dozing = dozing;
        }
    }

    /// Sends the calls that are due, and finds the delays of the next interval.
    #[inline(never)]
    fn pace(&mut self) {
        let Some(coalescer) = &mut self.coalescer else { return };
        let (now, elapsed) = (coalescer.now, coalescer.now - coalescer.checked);
        let check = elapsed >= coalescer.terms.interval;
        if check {
            coalescer.checked = now;
        }
        coalescer.due = coalescer.checked + coalescer.terms.interval;
        for ring in &mut self.rings {
            if check {
                let chains = ring.stats.chains.value();
                ring.pace.delay = coalescer.terms.delay(chains.wrapping_sub(ring.pace.chains), elapsed);
                ring.pace.chains = chains;
                // What was held back under the old delay does not wait for the new one, nor the other way round.
                ring.pace.next = ring.pace.next.min(now);
            }
            if ring.pace.owed && now >= ring.pace.next {
                ring.send_call();
                ring.pace.next = now + ring.pace.delay;
            } else if ring.pace.owed {
                coalescer.due = coalescer.due.min(ring.pace.next);
            }
        }
    }

    /// The driver of the ring wants a call.
    #[inline(never)]
    pub(super) fn call_in_time(&mut self, slot: usize) {
        let Some(coalescer) = &mut self.coalescer else { return };
        let ring = &mut self.rings[slot];
        if ring.pace.owed {
            ring.stats.calls_coalesced.add(1);
        } else if coalescer.now >= ring.pace.next || ring.pace.prompt || coalescer.dozing {
            ring.pace.next = coalescer.now + ring.pace.delay;
            ring.call();
        } else {
            ring.pace.owed = true;
            ring.stats.calls_delayed.add(1);
            coalescer.due = coalescer.due.min(ring.pace.next);
        }
    }
}

impl Ring {
    /// Sends the call that is held back, if one is.
    pub(super) fn send_call(&mut self) {
        if self.forget_call() {
            self.call();
        }
    }

    /// Another call goes in place of the one that is held back, if one is.
    pub(super) fn forget_call(&mut self) -> bool {
        std::mem::take(&mut self.pace.owed)
    }

    /// Chains that were counted come again.
    pub(super) fn count_again(&mut self, chains: u32) {
        self.pace.chains = self.pace.chains.wrapping_add(u64::from(chains));
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
