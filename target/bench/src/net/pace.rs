//! How many frames may be sent now: by a rate, and by a number in all. Reads no clock.

use reactor::Tsc;

use super::sender::BATCH;

/// Frames that may be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Frames in a tick of the clock; `None` is as many as can be.
    per_tick: Option<f64>,
    /// Frames that are left in all.
    left: u64,
    /// Since when the rate counts.
    since: Tsc,
    now: Tsc,
    /// Sent since then.
    sent: u64,
}

impl Pace {
    /// So many frames a second, and in all.
    pub(super) fn new(rate: Option<u64>, total: Option<u64>, now: Tsc) -> Pace {
        let second = Tsc::ticks(1_000_000_000) as f64;
        let per_tick = rate.map(|rate| rate as f64 / second);
        Pace { per_tick, left: total.unwrap_or(u64::MAX), since: now, now, sent: 0 }
    }

    /// The first frame may be sent.
    pub(super) fn begin(&mut self, now: Tsc) {
        (self.since, self.now, self.sent) = (now, now, 0);
    }

    /// What time it is.
    #[inline(always)]
    pub(super) fn at(&mut self, now: Tsc) {
        self.now = now;
    }

    /// Frames that may be sent now.
    #[inline(always)]
    pub(super) fn allowance(&mut self) -> usize {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        match self.per_tick {
            None => left,
            Some(per_tick) => self.due(per_tick).min(left),
        }
    }

    /// One who falls behind does not catch up by more than two batches: the rate is no average over breaks.
    #[inline(always)]
    fn due(&mut self, per_tick: f64) -> usize {
        let due = (self.now - self.since) as f64 * per_tick + 1.0;
        let behind = due as u64 - self.sent.min(due as u64);
        if behind > CATCH_UP {
            self.sent += behind - CATCH_UP;
        }
        behind.min(CATCH_UP) as usize
    }

    /// So many were sent.
    #[inline(always)]
    pub(super) fn spend(&mut self, count: usize) {
        self.sent += count as u64;
        self.left -= count as u64;
    }

    /// As many were sent as there are to be.
    #[inline(always)]
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// When the next frame may be sent.
    pub(super) fn next(&self, now: Tsc) -> Tsc {
        match self.per_tick {
            Some(per_tick) if !self.is_over() => {
                let next = self.since + (self.sent as f64 / per_tick) as u64;
                next.max(now)
            }
            _ => Tsc(u64::MAX),
        }
    }
}

/// Frames.
const CATCH_UP: u64 = 2 * BATCH as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_without_a_rate_is_bounded_by_the_total() {
        let mut pace = Pace::new(None, Some(40), Tsc(0));
        assert_eq!(pace.allowance(), 40);
        pace.spend(32);
        assert_eq!((pace.allowance(), pace.is_over()), (8, false));
        pace.spend(8);
        assert!(pace.is_over());
        assert_eq!(Pace::new(None, None, Tsc(0)).allowance(), usize::MAX);
    }

    #[test]
    fn pace_of_a_rate_gives_a_frame_when_its_time_has_come() {
        let millisecond = Tsc::ticks(1_000_000);
        let mut pace = Pace::new(Some(1000), None, Tsc(0));
        pace.begin(Tsc(5));
        assert_eq!(pace.allowance(), 1, "the first one at once");
        pace.spend(1);
        assert_eq!(pace.allowance(), 0);
        let next = pace.next(Tsc(5)).0;
        assert!(next.abs_diff(5 + millisecond) <= 1, "{next}");
        pace.at(Tsc(5 + 3 * millisecond + millisecond / 2));
        assert_eq!(pace.allowance(), 3);
    }

    #[test]
    fn pace_that_falls_behind_does_not_catch_up_in_one_burst() {
        let second = Tsc::ticks(1_000_000_000);
        let mut pace = Pace::new(Some(1_000_000), None, Tsc(0));
        pace.at(Tsc(second));
        assert_eq!(pace.allowance(), 64);
        pace.spend(64);
        assert_eq!(pace.allowance(), 0, "the rest is forgotten");
    }
}
