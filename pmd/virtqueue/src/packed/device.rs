//! The device side of a packed ring: its state, and notifications. Popping is in `fetch`, completing in `complete`; eventfds
//! are the caller's.

use std::sync::atomic::{Ordering, fence};

use super::position::Position;
use super::rings::{Rings, Tail};
use super::runs::Run;
use crate::follow::{Hints, INDIRECT, NEXT, WRITE};
use crate::{Fault, Features, RingAddresses, SetupError};

/// The device side of one packed ring.
///
/// Chains that were popped are in flight until they are completed; completions become visible to the driver with
/// [`PackedDevice::publish`], all of them at once. A chain's head is its buffer id. Setting up a ring writes nothing to it.
#[derive(Debug)]
pub struct PackedDevice {
    pub(super) rings: Rings,
    /// The next descriptor to be fetched.
    pub(super) avail: Position,
    /// Where the next used descriptor is written.
    pub(super) used: Position,
    /// Descriptors of chains in flight: those between `used` and `avail`.
    pub(super) taken: u16,
    /// Chains popped and chains completed, free-running.
    pub(super) popped: u16,
    pub(super) completed: u16,
    /// What was completed and not published.
    pub(super) unpublished: Unpublished,
    pub(super) event_idx: bool,
    /// Nothing was published since the ring was set up, so nobody knows which event the driver was told of last.
    pub(super) first_publish: bool,
    pub(super) fault: Option<Fault>,
    pub(super) hints: Hints,
    /// By buffer id: how many slots its chain in flight takes up; 0 if it has none.
    pub(super) in_flight: Box<[u16]>,
    pub(super) resumed_at: Option<u16>,
    /// Flags that are looked at in entries of indirect tables.
    pub(super) table_flags: u16,
    /// One used descriptor speaks of all chains that are published together.
    pub(super) one_for_all: bool,
    /// What was completed in order and has no used descriptor yet.
    pub(super) run: Option<Run>,
}

/// Used descriptors that the driver does not look at yet, because the first of them has not been written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unpublished {
    pub(super) chains: u16,
    /// Slots that they pass over.
    pub(super) slots: u16,
    pub(super) first: Option<(u16, Tail)>,
}

impl PackedDevice {
    /// Takes a ring of `size` descriptors over. `base` is what the front-end says in SET_VRING_BASE: where fetching goes on
    /// in its lower half, where used descriptors go on in its upper one, each a slot in 15 bits and a wrap counter. An upper
    /// half of 0 is that of a front-end that knows only the lower one; the two are the same then.
    ///
    /// Where they differ, the requests in between were fetched by a back-end that has died, and never answered: fetching
    /// goes on there, see [`PackedDevice::resumed_at`].
    ///
    /// # Errors
    /// [`SetupError`]: size, length of an area, alignment of an area, a base outside of the ring.
    pub fn new(size: u16, rings: RingAddresses, base: u32, features: Features) -> Result<PackedDevice, SetupError> {
        let rings = Rings::new(size, rings)?;
        let avail = Position::from_bits(base as u16);
        let used = if base >> 16 == 0 { avail } else { Position::from_bits((base >> 16) as u16) };
        if avail.slot >= size || used.slot >= size {
            return Err(SetupError::Base { base, size });
        }
        Ok(PackedDevice {
            rings,
            avail: used,
            used,
            taken: 0,
            popped: 0,
            completed: 0,
            unpublished: Unpublished::default(),
            event_idx: features.event_idx,
            first_publish: true,
            fault: None,
            hints: Hints::default(),
            in_flight: vec![0; usize::from(size)].into_boxed_slice(),
            resumed_at: (avail != used).then_some(used.bits()),
            table_flags: WRITE | INDIRECT,
            one_for_all: false,
            run: None,
        })
    }

    /// Moves the ring to other addresses of ours, because the memory table changed. The driver's ring stays where it is:
    /// positions and chains in flight go on.
    ///
    /// # Errors
    /// [`SetupError`] as from [`PackedDevice::new`]; the ring stays at its old addresses then.
    pub fn rebase(&mut self, rings: RingAddresses) -> Result<(), SetupError> {
        self.rings = Rings::new(self.size(), rings)?;
        Ok(())
    }

    /// Says that the device writes to none of this ring's buffers, and whether it completes chains in the order that they
    /// were popped in, as VIRTIO_F_IN_ORDER has it.
    ///
    /// Entries of indirect tables are readable then, whatever they say: DPDK's virtio driver (22.11 to 24.11) leaves WRITE
    /// from an earlier use on some of those that it sends from. In order, one used descriptor is written for all chains that
    /// are published together, with the id of the last (virtio 1.3 §2.8.9). Where the device writes, each chain needs one of
    /// its own: those without are taken to be written to their ends.
    pub fn set_read_only(&mut self, in_order: bool) {
        self.table_flags = INDIRECT;
        self.one_for_all = in_order;
    }

    /// Number of descriptors.
    #[must_use]
    #[inline]
    pub fn size(&self) -> u16 {
        self.rings.size()
    }

    /// Where fetching goes on, as one half of a base, although the front-end said that it had been fetched from there;
    /// `None` if its base stands.
    #[must_use]
    pub fn resumed_at(&self) -> Option<u16> {
        self.resumed_at
    }

    /// What a front-end is told at the end, to say it in SET_VRING_BASE when it starts the ring again: see
    /// [`PackedDevice::new`].
    #[must_use]
    pub fn base(&self) -> u32 {
        u32::from(self.avail.bits()) | u32::from(self.used.bits()) << 16
    }

    /// Whether a driver has used the ring since it was made.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.avail != Position::START
    }

    /// Why the ring is broken, if it is.
    #[must_use]
    #[inline]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Breaks the ring for a reason that was found elsewhere. The first fault stays.
    #[cold]
    pub fn mark_broken(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    // --- fetching ---

    /// Counts the chains that are available now, from [`PackedDevice::next_avail`] on. What the driver made available
    /// before is visible to us afterwards. Takes as long as there are descriptors in them.
    #[must_use]
    pub fn avail_snapshot(&self) -> u16 {
        let (mut chains, mut at, mut left) = (0u16, self.avail, self.size() - self.taken);
        while left > 0 && at.is_available(self.rings.tail(at.slot).flags()) {
            let mut slots = 1;
            while slots < left && self.rings.tail(at.forward(slots - 1, self.size()).slot).flags() & NEXT != 0 {
                slots += 1;
            }
            at = at.forward(slots, self.size());
            left -= slots;
            chains += 1;
        }
        self.popped.wrapping_add(chains)
    }

    /// Chains popped so far, free-running: what [`PackedDevice::avail_snapshot`] counts from.
    #[must_use]
    #[inline]
    pub fn next_avail(&self) -> u16 {
        self.popped
    }

    /// Whether there is something to be fetched; never from a broken ring.
    #[must_use]
    #[inline]
    pub fn has_available(&self) -> bool {
        self.fault.is_none() && self.next_tail().is_some()
    }

    /// Chains that were popped and not completed.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.popped.wrapping_sub(self.completed)
    }

    // --- notifications from the driver ---

    /// Asks the driver for a kick at the next descriptor (virtio 1.3 §2.8.10), then looks once more. True if something is
    /// available already: there may be no kick for it, so do not sleep.
    ///
    /// Does nothing on a broken ring, and returns false: nothing is ever fetched from it.
    #[must_use]
    pub fn enable_notifications(&mut self) -> bool {
        if self.fault.is_some() {
            return false;
        }
        self.rings.device_events.enable(self.avail, self.event_idx);
        // The wish before the look: the driver writes its descriptor before it looks for the wish.
        fence(Ordering::SeqCst);
        self.has_available()
    }

    /// Tells the driver that the ring is polled.
    pub fn disable_notifications(&mut self) {
        self.rings.device_events.disable();
    }
}
