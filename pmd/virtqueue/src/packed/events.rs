//! Event suppression: what each side says about when it wants to be told (virtio 1.3 §2.8.10, §2.8.14).

use std::sync::atomic::Ordering;

use guest_memory::GuestArray;

use super::position::Position;

/// `RING_EVENT_FLAGS_ENABLE`.
const ENABLE: u16 = 0;
/// `RING_EVENT_FLAGS_DISABLE`.
const DISABLE: u16 = 1;
/// `RING_EVENT_FLAGS_DESC`: at one position. Only with VIRTIO_F_EVENT_IDX.
const DESC: u16 = 2;

/// One side's event suppression structure: a position, then flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Events(pub(super) GuestArray<u16>);

impl Events {
    /// Tell me of nothing.
    pub(super) fn disable(self) {
        self.set_flags(DISABLE);
    }

    /// Tell me of everything; with event indices, of the descriptor at `next`.
    pub(super) fn enable(self, next: Position, event_idx: bool) {
        if event_idx {
            // The position before the flags that make it count.
            self.set_position(next.bits());
            self.0.store(1, DESC, Ordering::Release);
        } else {
            self.set_flags(ENABLE);
        }
    }

    /// Whether the other side wants to be told of the `count` descriptors before `here`.
    #[inline(always)]
    pub(super) fn wanted(self, here: Position, count: u16, size: u16, event_idx: bool) -> bool {
        match self.0.load(1, Ordering::Acquire) & 3 {
            DISABLE => false,
            DESC if event_idx => here.passed(Position::from_bits(self.position()), count, size),
            _ => true,
        }
    }

    pub(super) fn position(self) -> u16 {
        self.0.load(0, Ordering::Relaxed)
    }

    pub(super) fn set_position(self, bits: u16) {
        self.0.store(0, bits, Ordering::Relaxed);
    }

    pub(super) fn flags(self) -> u16 {
        self.0.load(1, Ordering::Relaxed)
    }

    pub(super) fn set_flags(self, flags: u16) {
        self.0.store(1, flags, Ordering::Relaxed);
    }
}
