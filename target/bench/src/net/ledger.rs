//! Which frames of one queue pair are on their way, and what it means when one comes back. Looks at no bytes.

use reactor::Tsc;

/// Frames of one queue pair, by number. Those of the last so many are remembered.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Box<[Entry]>,
    /// Number of the next frame.
    next: u64,
    /// None before this one is on its way.
    oldest: u64,
    /// One more than the highest number that came back.
    highest: u64,
    pending: u32,
    lost: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sent: Tsc,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It came back, or there was none.
    Done,
    Pending,
    Lost,
}

/// What the return of a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// As it should be; how many ticks it took.
    InOrder(u64),
    /// After one that was sent later.
    Reordered(u64),
    /// It was back already, or is so old that nobody remembers.
    Again,
    /// None with such a number was sent.
    NeverSent,
}

impl Ledger {
    /// For up to `window` frames on their way.
    pub(super) fn new(window: u16) -> Ledger {
        let len = (4 * usize::from(window)).next_power_of_two();
        let entries = vec![Entry { sent: Tsc(0), state: State::Done }; len].into_boxed_slice();
        Ledger { entries, next: 0, oldest: 0, highest: 0, pending: 0, lost: 0 }
    }

    /// Frames on their way.
    #[inline(always)]
    pub(super) fn pending(&self) -> u32 {
        self.pending
    }

    /// Frames that did not come back.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes note of one more frame; its number. One that was overtaken by three windows of others is lost.
    #[inline(always)]
    pub(super) fn send(&mut self, now: Tsc) -> u64 {
        let number = self.next;
        let entry = self.entry(number);
        let overtaken = entry.state == State::Pending;
        *entry = Entry { sent: now, state: State::Pending };
        if overtaken {
            self.lost += 1;
        } else {
            self.pending += 1;
        }
        self.next += 1;
        number
    }

    /// A frame came back.
    #[inline(always)]
    pub(super) fn back(&mut self, number: u64, now: Tsc) -> Return {
        if number >= self.next {
            return Return::NeverSent;
        }
        if self.next - number > self.entries.len() as u64 {
            return Return::Again;
        }
        let entry = self.entry(number);
        let (sent, state) = (entry.sent, entry.state);
        entry.state = State::Done;
        match state {
            State::Done => return Return::Again,
            State::Pending => self.pending -= 1,
            State::Lost => self.lost -= 1, // it was only late
        }
        let ticks = now.0.saturating_sub(sent.0);
        if number < self.highest {
            return Return::Reordered(ticks);
        }
        self.highest = number + 1;
        Return::InOrder(ticks)
    }

    /// Gives up frames that were sent `ticks` ago or earlier.
    pub(super) fn expire(&mut self, now: Tsc, ticks: u64) {
        self.oldest = self.oldest.max(self.next.saturating_sub(self.entries.len() as u64));
        while self.oldest < self.next {
            let entry = self.entry(self.oldest);
            match entry.state {
                State::Pending if now.0.saturating_sub(entry.sent.0) < ticks => return,
                State::Pending => {
                    entry.state = State::Lost;
                    self.pending -= 1;
                    self.lost += 1;
                }
                State::Done | State::Lost => {}
            }
            self.oldest += 1;
        }
    }

    #[inline(always)]
    fn entry(&mut self, number: u64) -> &mut Entry {
        let mask = self.entries.len() - 1;
        &mut self.entries[number as usize & mask]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(count: u64, window: u16) -> Ledger {
        let mut ledger = Ledger::new(window);
        for number in 0..count {
            assert_eq!(ledger.send(Tsc(number)), number);
        }
        ledger
    }

    #[test]
    fn frames_that_come_back_in_order_leave_nothing() {
        let mut ledger = with(5, 8);
        for number in 0..5 {
            assert_eq!(ledger.back(number, Tsc(100)), Return::InOrder(100 - number));
        }
        ledger.expire(Tsc(1000), 1);
        assert_eq!((ledger.pending(), ledger.lost()), (0, 0));
    }

    #[test]
    fn frame_that_comes_back_after_a_later_one_is_reordered() {
        let mut ledger = with(3, 8);
        assert_eq!(ledger.back(2, Tsc(9)), Return::InOrder(7));
        assert_eq!(ledger.back(0, Tsc(9)), Return::Reordered(9));
        assert_eq!(ledger.back(1, Tsc(9)), Return::Reordered(8));
        assert_eq!((ledger.pending(), ledger.lost()), (0, 0));
    }

    #[test]
    fn frame_that_comes_back_twice_or_was_never_sent_is_told_apart() {
        let mut ledger = with(2, 8);
        ledger.back(0, Tsc(1));
        assert_eq!(ledger.back(0, Tsc(1)), Return::Again);
        assert_eq!(ledger.back(2, Tsc(1)), Return::NeverSent);
        assert_eq!(ledger.back(u64::MAX, Tsc(1)), Return::NeverSent);
        assert_eq!(ledger.pending(), 1);
        let mut old = with(100, 4);
        assert_eq!(old.back(0, Tsc(1)), Return::Again, "nobody remembers it");
    }

    #[test]
    fn frame_is_lost_when_its_time_is_over_and_late_when_it_comes_after_that() {
        let mut ledger = with(4, 8);
        ledger.back(1, Tsc(5));
        ledger.expire(Tsc(12), 10);
        assert_eq!((ledger.pending(), ledger.lost()), (1, 2), "0 and 2 were sent 12 and 10 ago");
        assert_eq!(ledger.back(0, Tsc(20)), Return::Reordered(20));
        assert_eq!((ledger.pending(), ledger.lost()), (1, 1));
        assert_eq!(ledger.back(3, Tsc(20)), Return::InOrder(17));
    }

    #[test]
    fn frame_that_three_windows_overtake_is_lost() {
        let mut ledger = with(1, 4);
        for number in 1..=16 {
            ledger.send(Tsc(number));
            ledger.back(number, Tsc(number));
        }
        assert_eq!((ledger.pending(), ledger.lost()), (0, 1));
        ledger.expire(Tsc(1000), 1);
        assert_eq!(ledger.lost(), 1, "counted once");
    }
}
