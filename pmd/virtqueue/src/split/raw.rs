//! A split ring with its fields laid open, so that tests can write what no driver would and see what a device wrote.
//! Checks nothing; used by tests and by nothing else.

use super::rings::Rings;
use crate::follow::Descriptor;
use crate::{RingAddresses, SetupError};

/// The fields of a split ring, to be read and written one by one. Slots and descriptors outside of the ring panic.
#[derive(Clone, Copy, Debug)]
pub struct RawSplit {
    pub(super) rings: Rings,
}

impl RawSplit {
    /// Lays the fields of a ring open, without touching it. A driver's own are at
    /// [`SplitDriver::raw`](super::SplitDriver::raw).
    ///
    /// # Errors
    /// [`SetupError`]: size, length of an area, alignment of an area.
    pub fn new(size: u16, rings: RingAddresses) -> Result<RawSplit, SetupError> {
        Ok(RawSplit { rings: Rings::new(size, rings)? })
    }

    /// Writes descriptor `index` of the table. Flags: NEXT 1, WRITE 2, INDIRECT 4.
    pub fn set_descriptor(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.rings.set_descriptor(usize::from(index), Descriptor::new(addr, len, flags, next));
    }

    /// The 16 bytes of a descriptor, for indirect tables.
    #[must_use]
    pub fn descriptor_bytes(addr: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
        let [addr, rest] = Descriptor::new(addr, len, flags, next).words();
        (u128::from(rest) << 64 | u128::from(addr)).to_le_bytes()
    }

    /// Writes the available entry of the free-running `index`, without moving the available index.
    pub fn set_avail_entry(&self, index: u16, head: u16) {
        self.rings.set_avail_entry(index, head);
    }

    /// Writes the available index.
    pub fn set_avail_index(&self, index: u16) {
        self.rings.set_avail_index(index);
    }

    /// The available index.
    #[must_use]
    pub fn avail_index(&self) -> u16 {
        self.rings.avail_index()
    }

    /// Writes the driver's flags (NO_INTERRUPT 1).
    pub fn set_avail_flags(&self, flags: u16) {
        self.rings.set_avail_flags(flags);
    }

    /// The driver's flags.
    #[must_use]
    pub fn avail_flags(&self) -> u16 {
        self.rings.avail_flags()
    }

    /// Writes the index at which the driver wants a call.
    pub fn set_used_event(&self, index: u16) {
        self.rings.set_used_event(index);
    }

    /// The index at which the driver wants a call.
    #[must_use]
    pub fn used_event(&self) -> u16 {
        self.rings.used_event()
    }

    /// Writes the used index.
    pub fn set_used_index(&self, index: u16) {
        self.rings.set_used_index(index);
    }

    /// The used index.
    #[must_use]
    pub fn used_index(&self) -> u16 {
        self.rings.used_index()
    }

    /// Head and bytes written of the used entry of the free-running `index`.
    #[must_use]
    pub fn used_element(&self, index: u16) -> (u32, u32) {
        self.rings.used_element(index)
    }

    /// Writes the used entry of the free-running `index`.
    pub fn set_used_element(&self, index: u16, head: u32, written: u32) {
        self.rings.set_used_element(index, head, written);
    }

    /// The device's flags (NO_NOTIFY 1).
    #[must_use]
    pub fn used_flags(&self) -> u16 {
        self.rings.used_flags()
    }

    /// Writes the device's flags.
    pub fn set_used_flags(&self, flags: u16) {
        self.rings.set_used_flags(flags);
    }

    /// The index at which the device wants a kick.
    #[must_use]
    pub fn avail_event(&self) -> u16 {
        self.rings.avail_event()
    }

    /// Writes the index at which the device wants a kick.
    pub fn set_avail_event(&self, index: u16) {
        self.rings.set_avail_event(index);
    }
}
