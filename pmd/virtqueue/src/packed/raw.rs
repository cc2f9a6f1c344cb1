//! A packed ring with its fields laid open, so that tests can write what no driver would and see what a device wrote.
//! Checks nothing; used by tests and by nothing else.

use super::rings::{Rings, Tail};
use crate::{RingAddresses, SetupError};

/// The fields of a packed ring, to be read and written one by one. Slots outside of the ring panic.
#[derive(Clone, Copy, Debug)]
pub struct RawPacked {
    pub(super) rings: Rings,
}

impl RawPacked {
    /// Lays the fields of a ring open, without touching it.
    ///
    /// # Errors
    /// [`SetupError`]: size, length of an area, alignment of an area.
    pub fn new(size: u16, rings: RingAddresses) -> Result<RawPacked, SetupError> {
        Ok(RawPacked { rings: Rings::new(size, rings)? })
    }

    /// Writes the descriptor in `slot`. Flags: NEXT 1, WRITE 2, INDIRECT 4, AVAIL 0x80, USED 0x8000.
    pub fn set_descriptor(&self, slot: u16, addr: u64, len: u32, id: u16, flags: u16) {
        self.rings.set_addr(slot, addr);
        self.rings.set_tail(slot, Tail::new(len, id, flags));
    }

    /// Length, buffer id and flags of the descriptor in `slot`.
    #[must_use]
    pub fn descriptor(&self, slot: u16) -> (u32, u16, u16) {
        let tail = self.rings.tail(slot);
        (tail.len(), tail.id(), tail.flags())
    }

    /// The 16 bytes of a descriptor, for indirect tables.
    #[must_use]
    pub fn descriptor_bytes(addr: u64, len: u32, id: u16, flags: u16) -> [u8; 16] {
        (u128::from(Tail::new(len, id, flags).0) << 64 | u128::from(addr)).to_le_bytes()
    }

    /// What the driver says about calls: position and flags.
    #[must_use]
    pub fn driver_event(&self) -> (u16, u16) {
        (self.rings.driver_events.position(), self.rings.driver_events.flags())
    }

    /// Writes what the driver says about calls. Flags: ENABLE 0, DISABLE 1, DESC 2.
    pub fn set_driver_event(&self, position: u16, flags: u16) {
        self.rings.driver_events.set_position(position);
        self.rings.driver_events.set_flags(flags);
    }

    /// What the device says about kicks: position and flags.
    #[must_use]
    pub fn device_event(&self) -> (u16, u16) {
        (self.rings.device_events.position(), self.rings.device_events.flags())
    }

    /// Writes what the device says about kicks.
    pub fn set_device_event(&self, position: u16, flags: u16) {
        self.rings.device_events.set_position(position);
        self.rings.device_events.set_flags(flags);
    }
}
