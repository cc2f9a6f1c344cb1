//! Where in a packed ring one is, and in which kind of round.

/// `VIRTQ_DESC_F_AVAIL`, as bit of a descriptor's flags.
pub(super) const AVAIL: u16 = 1 << 7;
/// `VIRTQ_DESC_F_USED`.
pub(super) const USED: u16 = 1 << 15;
/// The wrap counter in what front-ends and event suppression call a position (virtio 1.3 §2.8.10, §2.9).
const WRAP: u16 = 1 << 15;

/// A slot of the ring and the wrap counter there (virtio 1.3 §2.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) slot: u16,
    pub(super) wrap: bool,
}

impl Position {
    /// Where a ring begins.
    pub(super) const START: Position = Position { slot: 0, wrap: true };

    /// Bits 0 to 14 are the slot, bit 15 is the wrap counter.
    pub(super) const fn from_bits(bits: u16) -> Position {
        Position { slot: bits & !WRAP, wrap: bits & WRAP != 0 }
    }

    pub(super) const fn bits(self) -> u16 {
        if self.wrap { self.slot | WRAP } else { self.slot }
    }

    /// `count` slots further on, at most once around, in a ring of `size`.
    #[inline(always)]
    #[must_use]
    pub(super) const fn forward(self, count: u16, size: u16) -> Position {
        // Neither is above 32768.
        let slot = self.slot as u32 + count as u32;
        if slot >= size as u32 {
            Position { slot: (slot - size as u32) as u16, wrap: !self.wrap }
        } else {
            Position { slot: slot as u16, wrap: self.wrap }
        }
    }

    /// `count` slots back, at most once around.
    #[must_use]
    pub(super) const fn back(self, count: u16, size: u16) -> Position {
        if count > self.slot {
            Position { slot: (self.slot as u32 + size as u32 - count as u32) as u16, wrap: !self.wrap }
        } else {
            Position { slot: self.slot - count, wrap: self.wrap }
        }
    }

    /// Whether these flags of the descriptor here make it available (virtio 1.3 §2.8.1).
    #[inline(always)]
    pub(super) const fn is_available(self, flags: u16) -> bool {
        flags & (AVAIL | USED) == self.available()
    }

    /// Whether these flags of the descriptor here make it used.
    #[inline(always)]
    pub(super) const fn is_used(self, flags: u16) -> bool {
        flags & (AVAIL | USED) == self.used()
    }

    /// The flags that make the descriptor here available.
    #[inline(always)]
    pub(super) const fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// The flags that make the descriptor here used.
    #[inline(always)]
    pub(super) const fn used(self) -> u16 {
        if self.wrap { AVAIL | USED } else { 0 }
    }

    /// Whether `event` lies in the `count` slots before this position: the other side wants to be told (virtio 1.3 §2.8.10).
    /// An event of another round, or behind the end of the ring, lies where it would if the ring went on.
    pub(super) const fn passed(self, event: Position, count: u16, size: u16) -> bool {
        let here = self.slot as i32;
        let event = if event.wrap == self.wrap { event.slot as i32 } else { event.slot as i32 - size as i32 };
        here - count as i32 <= event && event < here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(slot: u16, wrap: bool) -> Position {
        Position { slot, wrap }
    }

    #[test]
    fn position_wraps_forward_and_back() {
        assert_eq!(Position::START.forward(2, 3), at(2, true));
        assert_eq!(at(2, true).forward(1, 3), at(0, false));
        assert_eq!(at(2, false).forward(3, 3), at(2, true));
        for size in 1..=5 {
            for slot in 0..size {
                for count in 0..=size {
                    let here = at(slot, true);
                    assert_eq!(here.forward(count, size).back(count, size), here, "{slot} and {count} of {size}");
                }
            }
        }
        assert_eq!(at(32767, true).forward(32768, 32768), at(32767, false));
    }

    #[test]
    fn position_is_fifteen_bits_and_a_wrap_counter() {
        assert_eq!(Position::START.bits(), 0x8000);
        assert_eq!(at(5, false).bits(), 5);
        assert_eq!(Position::from_bits(0x8005), at(5, true));
    }

    #[test]
    fn descriptor_is_available_and_used_by_literal_flags() {
        assert!(at(0, true).is_available(0x0080) && !at(0, true).is_available(0x8080) && !at(0, true).is_available(0));
        assert!(at(0, false).is_available(0x8000) && !at(0, false).is_available(0x0080));
        assert!(at(0, true).is_used(0x8080) && at(0, false).is_used(0) && !at(0, false).is_used(0x8000));
    }

    #[test]
    fn event_is_passed_exactly_when_it_lies_in_the_batch() {
        // Slots 2 and 3 of 8 were passed.
        let passed: Vec<u16> = (0..8).filter(|slot| at(4, true).passed(at(*slot, true), 2, 8)).collect();
        assert_eq!(passed, [2, 3]);
        assert!((0..8).all(|slot| !at(4, true).passed(at(slot, false), 2, 8)), "of the round before");
        // Slots 6 and 7, then 0 and 1 of the next round.
        let here = at(2, false);
        assert!([at(6, true), at(7, true), at(0, false), at(1, false)].iter().all(|event| here.passed(*event, 4, 8)));
        assert!([at(5, true), at(0, true), at(2, false), at(6, false)].iter().all(|event| !here.passed(*event, 4, 8)));
        // A whole round.
        assert!(here.passed(at(2, true), 8, 8) && here.passed(at(1, false), 8, 8) && !here.passed(at(2, false), 8, 8));
        assert!(!here.passed(at(32767, true), 8, 8), "behind the end of the ring");
        assert!(!here.passed(at(1, false), 0, 8), "nothing, no event");
    }
}
