//! When drivers are called: at once, or, where calls are coalesced, a little later and then once for several batches.
//!
//! A ring that gave more chains than the threshold in the last interval has its calls spaced: the busier, the further
//! apart. That the driver wants a call is found out when completions are published, and is kept until the call has gone:
//! with an event index the ring itself does not tell twice. A call that is held back goes when it is due, or earlier: before
//! the poller sleeps, and before the ring stops or is disabled.

use reactor::Tsc;

use super::{Ring, RingSet};

/// How calls of a controller are coalesced, as SPDK's `vhost_controller_set_coalescing` defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// How far apart calls are, in time-stamp counter ticks, at twice the threshold. It grows in proportion to the excess.
    pub delay_base: u64,
    /// Chains per second and ring up to which no call is delayed; at least 1.
    pub iops_threshold: u32,
    /// Time-stamp counter ticks in the time over which chains are counted: [`Coalescing::INTERVAL_US`]. No call is delayed longer.
    pub interval: u64,
}

impl Coalescing {
    /// Length of the interval over which chains are counted, in microseconds.
    pub const INTERVAL_US: u64 = 10_000;

    /// Ticks between two calls of a ring that gave `chains` in `elapsed` ticks.
    fn delay(&self, chains: u64, elapsed: u64) -> u64 {
        let intervals_per_s = u128::from(1_000_000 / Coalescing::INTERVAL_US);
        let scale = u128::from(self.interval.max(1)) * intervals_per_s;
        // Both sides in chains × ticks per second, so that nothing is rounded.
        let seen = u128::from(chains) * scale;
        let free = (u128::from(self.iops_threshold.max(1)) * u128::from(elapsed)).max(1);
        let delay = u128::from(self.delay_base) * seen.saturating_sub(free) / free;
        delay.min(u128::from(self.interval)) as u64
    }
}

/// The calls of one ring.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The driver wants a call that has not been sent.
    owed: bool,
    /// No call goes before this.
    next: Tsc,
    /// Ticks between two calls.
    delay: u64,
    /// What the ring's counter of chains was at the last check.
    chains: u64,
}

/// Coalescing in a ring set.
#[derive(Debug)]
pub(super) struct Coalescer {
    terms: Coalescing,
    /// Time of the poll.
    now: Tsc,
    checked: Tsc,
}

impl RingSet {
    /// Coalesces calls from now on; `None` sends each at once, as a new set does. What was held back goes now.
    pub fn set_coalescing(&mut self, terms: Option<Coalescing>, now: Tsc) {
        self.send_calls();
        for ring in &mut self.rings {
            ring.pace = Pace { chains: ring.stats.chains.value(), ..Pace::default() };
        }
        self.coalescer = terms.filter(|terms| terms.delay_base > 0).map(|terms| Coalescer { terms, now, checked: now });
    }

    /// To be called at the begin of each poll: sends the calls that are due.
    #[inline]
    pub fn begin_poll(&mut self, now: Tsc) {
        if self.coalescer.is_some() {
            self.pace(now);
        }
    }

    /// Sends the calls that are held back, and has the next ones go at once: nobody may poll for a while. To be called
    /// before the poller sleeps.
    pub fn send_calls(&mut self) {
        if self.coalescer.is_some() {
            for ring in &mut self.rings {
                ring.send_call();
                ring.pace.next = Tsc::default();
            }
        }
    }

    // --- inside ---

    #[inline(never)]
    fn pace(&mut self, now: Tsc) {
        let Some(coalescer) = &mut self.coalescer else { return };
        coalescer.now = now;
        let elapsed = now - coalescer.checked;
        let check = elapsed >= coalescer.terms.interval;
        if check {
            coalescer.checked = now;
        }
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
            }
        }
    }

    /// The driver of the ring wants a call.
    #[inline(never)]
    pub(super) fn call_in_time(&mut self, slot: usize) {
        let Some(coalescer) = &self.coalescer else { return };
        let ring = &mut self.rings[slot];
        if ring.pace.owed {
            ring.stats.calls_coalesced.add(1);
        } else if coalescer.now < ring.pace.next {
            ring.pace.owed = true;
            ring.stats.calls_delayed.add(1);
        } else {
            ring.pace.next = coalescer.now + ring.pace.delay;
            ring.call();
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
}
