//! The three areas of a split ring as typed fields: where each field lies, and how it is accessed. No protocol in here.

use std::sync::atomic::Ordering;

use guest_memory::GuestArray;

use crate::chain::CELL;
use crate::follow::{DESCRIPTOR, Descriptor};
use crate::setup::{array, check};
use crate::{Area, RingAddresses, SetupError};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`, the driver's flag.
pub(super) const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY`, the device's flag.
pub(super) const NO_NOTIFY: u16 = 1;

/// How long the areas of a split ring are, in bytes (virtio 1.3 §2.7).
#[derive(Clone, Copy, Debug)]
pub struct SplitLayout;

impl SplitLayout {
    /// Length of the descriptor table.
    #[must_use]
    pub const fn desc_len(size: u16) -> usize {
        DESCRIPTOR * size as usize
    }

    /// Length of the available ring, `used_event` included.
    #[must_use]
    pub const fn avail_len(size: u16) -> usize {
        6 + 2 * size as usize
    }

    /// Length of the used ring, `avail_event` included.
    #[must_use]
    pub const fn used_len(size: u16) -> usize {
        6 + 8 * size as usize
    }
}

/// The fields of one ring. Free-running indices are reduced to slots in here, by the size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rings {
    /// Two words a descriptor.
    pub(super) desc: GuestArray<u64>,
    /// The same; nothing in a ring so small that a usual chain could be longer than it. What `quick.rs` walks in.
    pub(super) usual_desc: GuestArray<u64>,
    /// flags, idx, ring[size], used_event.
    avail: GuestArray<u16>,
    /// flags, idx, (elements), avail_event.
    used: GuestArray<u16>,
    /// (flags and idx), then id and len of each element.
    elements: GuestArray<u32>,
    /// Size minus one.
    mask: u16,
}

impl Rings {
    pub(super) fn new(size: u16, at: RingAddresses) -> Result<Rings, SetupError> {
        if !size.is_power_of_two() {
            return Err(SetupError::Size { size });
        }
        check(Area::Desc, at.desc, size, SplitLayout::desc_len(size), 16)?;
        check(Area::Avail, at.avail, size, SplitLayout::avail_len(size), 2)?;
        check(Area::Used, at.used, size, SplitLayout::used_len(size), 4)?;
        Ok(Rings {
            desc: array(Area::Desc, at.desc)?,
            usual_desc: array(Area::Desc, if usize::from(size) < CELL { at.desc.split_at(0).0 } else { at.desc })?,
            avail: array(Area::Avail, at.avail)?,
            used: array(Area::Used, at.used)?,
            elements: array(Area::Used, at.used)?,
            mask: size - 1,
        })
    }

    #[inline(always)]
    pub(super) fn size(&self) -> u16 {
        self.mask + 1
    }

    #[inline(always)]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & self.mask)
    }

    // --- descriptor table ---

    #[inline(always)]
    pub(super) fn prefetch_descriptor(&self, index: u16) {
        self.desc.prefetch(2 * usize::from(index));
    }

    pub(super) fn set_descriptor(&self, index: usize, descriptor: Descriptor) {
        let [addr, rest] = descriptor.words();
        self.desc.store(2 * index, addr, Ordering::Relaxed);
        self.desc.store(2 * index + 1, rest, Ordering::Relaxed);
    }

    // --- available ring: written by the driver ---

    /// Asked after [`Rings::publish_used_index`].
    pub(super) fn avail_flags(&self) -> u16 {
        self.avail.load(0, Ordering::SeqCst)
    }

    pub(super) fn set_avail_flags(&self, flags: u16) {
        self.avail.store(0, flags, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn avail_index(&self) -> u16 {
        self.avail.load(1, Ordering::Acquire)
    }

    #[inline(always)]
    pub(super) fn set_avail_index(&self, index: u16) {
        self.avail.store(1, index, Ordering::Release);
    }

    #[inline(always)]
    pub(super) fn avail_entry(&self, index: u16) -> u16 {
        self.avail.load(2 + self.slot(index), Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn set_avail_entry(&self, index: u16, head: u16) {
        self.avail.store(2 + self.slot(index), head, Ordering::Relaxed);
    }

    /// Asked after [`Rings::publish_used_index`].
    pub(super) fn used_event(&self) -> u16 {
        self.avail.load(2 + usize::from(self.size()), Ordering::SeqCst)
    }

    pub(super) fn set_used_event(&self, index: u16) {
        self.avail.store(2 + usize::from(self.size()), index, Ordering::Relaxed);
    }

    // --- used ring: written by the device ---

    pub(super) fn used_flags(&self) -> u16 {
        self.used.load(0, Ordering::Relaxed)
    }

    pub(super) fn set_used_flags(&self, flags: u16) {
        self.used.store(0, flags, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn used_index(&self) -> u16 {
        self.used.load(1, Ordering::Acquire)
    }

    #[inline(always)]
    pub(super) fn set_used_index(&self, index: u16) {
        self.used.store(1, index, Ordering::Release);
    }

    /// As [`Rings::set_used_index`], and what is loaded as [`Ordering::SeqCst`] after it is loaded after it: one exchange, where
    /// a store and a fence would hold up everything that follows.
    #[inline(always)]
    pub(super) fn publish_used_index(&self, index: u16) {
        self.used.store(1, index, Ordering::SeqCst);
    }

    /// Elements `index` to `index + count` are going to be written: their lines are the driver's until then.
    #[inline(always)]
    pub(super) fn prefetch_used_elements(&self, index: u16, count: usize) {
        const PER_LINE: usize = 8;
        for ahead in (0..count).step_by(PER_LINE) {
            self.elements.prefetch_write(1 + 2 * self.slot(index.wrapping_add(ahead as u16)));
        }
    }

    /// Head and bytes written.
    #[inline(always)]
    pub(super) fn used_element(&self, index: u16) -> (u32, u32) {
        let at = 1 + 2 * self.slot(index);
        (self.elements.load(at, Ordering::Relaxed), self.elements.load(at + 1, Ordering::Relaxed))
    }

    #[inline(always)]
    pub(super) fn set_used_element(&self, index: u16, head: u32, written: u32) {
        let at = 1 + 2 * self.slot(index);
        self.elements.store(at + 1, written, Ordering::Relaxed);
        self.elements.store(at, head, Ordering::Relaxed);
    }

    pub(super) fn avail_event(&self) -> u16 {
        self.used.load(2 + 4 * usize::from(self.size()), Ordering::Relaxed)
    }

    pub(super) fn set_avail_event(&self, index: u16) {
        self.used.store(2 + 4 * usize::from(self.size()), index, Ordering::Relaxed);
    }
}
