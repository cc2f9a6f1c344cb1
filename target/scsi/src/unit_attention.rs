//! Unit attentions: what happened to a logical unit that an I_T nexus has not been told yet. Who raises one, and on
//! which nexus, is the transport's business.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::sense::Sense;

/// A unit attention condition, in order of precedence (SAM-6, unit attention condition precedence): the first one
/// pending is reported first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum UnitAttention {
    /// 29h/01h POWER ON OCCURRED: a new session.
    PowerOn,
    /// 29h/03h BUS DEVICE RESET FUNCTION OCCURRED: a logical unit reset.
    LunReset,
    /// 29h/07h I_T NEXUS LOSS OCCURRED.
    NexusLoss,
    /// 2Ah/09h CAPACITY DATA HAS CHANGED.
    CapacityChanged,
    /// 3Fh/0Eh REPORTED LUNS DATA HAS CHANGED.
    ReportedLunsChanged,
}

impl UnitAttention {
    /// Every condition, the highest precedence first. The position is the bit in [`UnitAttentions`].
    pub const ALL: [UnitAttention; 5] = [
        UnitAttention::PowerOn,
        UnitAttention::LunReset,
        UnitAttention::NexusLoss,
        UnitAttention::CapacityChanged,
        UnitAttention::ReportedLunsChanged,
    ];

    /// The sense data that reports it: UNIT ATTENTION and its additional sense code.
    pub const fn sense(self) -> Sense {
        match self {
            UnitAttention::PowerOn => Sense::new(0x06, 0x29, 0x01),
            UnitAttention::LunReset => Sense::new(0x06, 0x29, 0x03),
            UnitAttention::NexusLoss => Sense::new(0x06, 0x29, 0x07),
            UnitAttention::CapacityChanged => Sense::new(0x06, 0x2a, 0x09),
            UnitAttention::ReportedLunsChanged => Sense::new(0x06, 0x3f, 0x0e),
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// The conditions that this one makes pointless.
    ///
    /// After a power on the initiator asks everything anew, so nothing older is worth telling. Any other reset replaces
    /// the lesser resets only: initiators that see one do not look for a new capacity or inventory, so those stay.
    const fn supersedes(self) -> u32 {
        match self {
            UnitAttention::PowerOn => !UnitAttention::PowerOn.bit(),
            UnitAttention::LunReset => UnitAttention::NexusLoss.bit(),
            _ => 0,
        }
    }
}

/// The unit attentions pending for one I_T nexus on one logical unit. Control threads raise them, pollers take them.
#[derive(Default, Debug)]
pub struct UnitAttentions(AtomicU32);

impl UnitAttentions {
    /// Nothing pending.
    pub const fn new() -> UnitAttentions {
        UnitAttentions(AtomicU32::new(0))
    }

    /// Establishes a condition; one that is pending already stays one. Lesser conditions that it makes pointless go.
    pub fn raise(&self, attention: UnitAttention) {
        self.update(|pending| (pending & !attention.supersedes()) | attention.bit());
    }

    /// Whether nothing is pending: one relaxed load, meant for every command.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// The condition to report next; it stays pending.
    pub fn pending(&self) -> Option<UnitAttention> {
        first(self.0.load(Ordering::Acquire))
    }

    /// The condition to report now; it is no longer pending. Of two takers only one gets it.
    pub fn take(&self) -> Option<UnitAttention> {
        first(self.update(|pending| pending & pending.wrapping_sub(1)))
    }

    /// Forgets one condition: the one that REQUEST SENSE returned, or REPORTED LUNS DATA HAS CHANGED once REPORT LUNS
    /// has answered (SAM-6). Returns whether it was pending.
    pub fn clear(&self, attention: UnitAttention) -> bool {
        self.update(|pending| pending & !attention.bit()) & attention.bit() != 0
    }

    /// Applies `change` and returns what was there before. Release and acquire: what the raiser changed (a capacity, an
    /// inventory) is visible to whoever reports it.
    fn update(&self, change: impl Fn(u32) -> u32) -> u32 {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            match self.0.compare_exchange_weak(old, change(old), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(before) => return before,
                Err(seen) => old = seen,
            }
        }
    }
}

/// The condition of highest precedence in a set.
fn first(pending: u32) -> Option<UnitAttention> {
    UnitAttention::ALL.get(pending.trailing_zeros() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sense_of_each_condition_is_the_code_of_the_standard() {
        let expected = [
            (UnitAttention::PowerOn, (0x06, 0x29, 0x01)),
            (UnitAttention::LunReset, (0x06, 0x29, 0x03)),
            (UnitAttention::NexusLoss, (0x06, 0x29, 0x07)),
            (UnitAttention::CapacityChanged, (0x06, 0x2a, 0x09)),
            (UnitAttention::ReportedLunsChanged, (0x06, 0x3f, 0x0e)),
        ];
        assert_eq!(expected.map(|(attention, _)| attention), UnitAttention::ALL);
        for (attention, code) in expected {
            assert_eq!(attention.sense().code(), code);
        }
    }

    #[test]
    fn take_several_pending_reports_highest_precedence_first() {
        let pending = UnitAttentions::new();
        assert!(pending.is_empty());
        assert_eq!(pending.take(), None);
        pending.raise(UnitAttention::ReportedLunsChanged);
        pending.raise(UnitAttention::CapacityChanged);
        pending.raise(UnitAttention::CapacityChanged);
        pending.raise(UnitAttention::NexusLoss);
        assert!(!pending.is_empty());
        assert_eq!(pending.pending(), Some(UnitAttention::NexusLoss));
        assert_eq!(pending.take(), Some(UnitAttention::NexusLoss));
        assert_eq!(pending.take(), Some(UnitAttention::CapacityChanged));
        assert_eq!(pending.take(), Some(UnitAttention::ReportedLunsChanged));
        assert_eq!(pending.take(), None);
        assert!(pending.is_empty());
    }

    #[test]
    fn raise_power_on_clears_everything_older() {
        let pending = UnitAttentions::new();
        for attention in UnitAttention::ALL {
            pending.raise(attention);
        }
        pending.raise(UnitAttention::PowerOn);
        assert_eq!(pending.take(), Some(UnitAttention::PowerOn));
        assert_eq!(pending.take(), None);
    }

    #[test]
    fn raise_lun_reset_replaces_nexus_loss_but_keeps_capacity_change() {
        let pending = UnitAttentions::new();
        pending.raise(UnitAttention::NexusLoss);
        pending.raise(UnitAttention::CapacityChanged);
        pending.raise(UnitAttention::LunReset);
        assert_eq!(pending.take(), Some(UnitAttention::LunReset));
        assert_eq!(pending.take(), Some(UnitAttention::CapacityChanged));
        assert_eq!(pending.take(), None);
    }

    #[test]
    fn clear_one_condition_leaves_the_others() {
        let pending = UnitAttentions::new();
        pending.raise(UnitAttention::LunReset);
        pending.raise(UnitAttention::ReportedLunsChanged);
        assert!(pending.clear(UnitAttention::ReportedLunsChanged));
        assert!(!pending.clear(UnitAttention::ReportedLunsChanged));
        assert_eq!(pending.take(), Some(UnitAttention::LunReset));
        assert!(pending.is_empty());
    }
}
