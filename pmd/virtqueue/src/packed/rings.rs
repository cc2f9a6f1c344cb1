//! The three areas of a packed ring as typed fields: where each field lies, and how it is accessed. No protocol in here.

use std::sync::atomic::Ordering;

use guest_memory::GuestArray;

use super::events::Events;
use crate::follow::DESCRIPTOR;
use crate::setup::{array, check};
use crate::{Area, RingAddresses, SetupError};

/// How long the areas of a packed ring are, in bytes (virtio 1.3 §2.8.13, §2.8.14).
#[derive(Clone, Copy, Debug)]
pub struct PackedLayout;

impl PackedLayout {
    /// Length of the driver's and of the device's event suppression structure.
    pub const EVENT_LEN: usize = 4;

    /// Length of the descriptor ring.
    #[must_use]
    pub const fn desc_len(size: u16) -> usize {
        DESCRIPTOR * size as usize
    }
}

/// The fields of one ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rings {
    /// Two words a descriptor: the address; length, buffer id and flags.
    pub(super) desc: GuestArray<u64>,
    /// Which calls the driver wants.
    pub(super) driver_events: Events,
    /// Which kicks the device wants.
    pub(super) device_events: Events,
    size: u16,
}

impl Rings {
    pub(super) fn new(size: u16, at: RingAddresses) -> Result<Rings, SetupError> {
        if !(1..=32768).contains(&size) {
            return Err(SetupError::PackedSize { size });
        }
        check(Area::Desc, at.desc, size, PackedLayout::desc_len(size), 16)?;
        check(Area::Avail, at.avail, size, PackedLayout::EVENT_LEN, 4)?;
        check(Area::Used, at.used, size, PackedLayout::EVENT_LEN, 4)?;
        Ok(Rings {
            desc: array(Area::Desc, at.desc)?,
            driver_events: Events(array(Area::Avail, at.avail)?),
            device_events: Events(array(Area::Used, at.used)?),
            size,
        })
    }

    #[inline(always)]
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Length, buffer id and flags of the descriptor in `slot`. What was written before its flags is visible afterwards.
    #[inline(always)]
    pub(super) fn tail(&self, slot: u16) -> Tail {
        Tail(self.desc.load(2 * usize::from(slot) + 1, Ordering::Acquire))
    }

    #[inline(always)]
    pub(super) fn set_tail(&self, slot: u16, tail: Tail) {
        self.desc.store(2 * usize::from(slot) + 1, tail.0, Ordering::Release);
    }

    #[inline(always)]
    pub(super) fn addr(&self, slot: u16) -> u64 {
        self.desc.load(2 * usize::from(slot), Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn set_addr(&self, slot: u16, addr: u64) {
        self.desc.store(2 * usize::from(slot), addr, Ordering::Relaxed);
    }
}

/// The second half of a descriptor, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail(pub(super) u64);

impl Tail {
    #[inline(always)]
    pub(super) const fn new(len: u32, id: u16, flags: u16) -> Tail {
        Tail(len as u64 | (id as u64) << 32 | (flags as u64) << 48)
    }

    #[inline(always)]
    pub(super) const fn len(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(super) const fn id(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline(always)]
    pub(super) const fn flags(self) -> u16 {
        (self.0 >> 48) as u16
    }
}
