//! A virtqueue of either format: what those hold who do not care which one was negotiated. One question a call, none a
//! descriptor; no logic of its own.

use guest_memory::{GuestSlice, MemTable};

use crate::packed::{PackedChain, PackedDevice, PackedDriver};
use crate::split::{PreparedChain, SplitDevice, SplitDriver};
use crate::{
    Chain, ChainBatch, Fault, Features, Full, InOrderDevice, PackedLayout, RingAddresses, Segment, SetupError,
    SplitLayout, Used, UsedFault,
};

/// How a ring lies in memory (VIRTIO_F_RING_PACKED says which).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingFormat {
    /// Three areas, virtio 1.3 §2.7.
    #[default]
    Split,
    /// One ring, virtio 1.3 §2.8.
    Packed,
}

impl RingFormat {
    /// Both.
    pub const ALL: [RingFormat; 2] = [RingFormat::Split, RingFormat::Packed];

    /// The base of a ring that nobody has used: slot 0, and of packed rings wrap counter 1 (virtio 1.3 §2.8.1).
    #[must_use]
    pub const fn first_base(self) -> u32 {
        match self {
            RingFormat::Split => 0,
            RingFormat::Packed => 0x8000,
        }
    }

    /// Lengths in bytes of the descriptor, the driver and the device area of a ring of `size` descriptors.
    #[must_use]
    pub const fn area_lens(self, size: u16) -> [usize; 3] {
        match self {
            RingFormat::Split => {
                [SplitLayout::desc_len(size), SplitLayout::avail_len(size), SplitLayout::used_len(size)]
            }
            RingFormat::Packed => [PackedLayout::desc_len(size), PackedLayout::EVENT_LEN, PackedLayout::EVENT_LEN],
        }
    }
}

/// The device side of a virtqueue. What each method does stands at the same one of [`SplitDevice`] and [`PackedDevice`].
#[derive(Debug)]
pub enum DeviceQueue {
    /// A split ring.
    Split(SplitDevice),
    /// A packed ring.
    Packed(PackedDevice),
    /// Either, whose chains are used in order: see [`DeviceQueue::in_order`].
    InOrder(Box<InOrderDevice>),
}

/// The ring of a queue in order.
#[derive(Debug)]
pub(crate) enum Ring {
    /// A split ring.
    Split(SplitDevice),
    /// A packed ring.
    Packed(PackedDevice),
}

/// The driver side of a virtqueue. What each method does stands at the same one of [`SplitDriver`] and [`PackedDriver`].
#[derive(Debug)]
pub enum DriverQueue {
    /// A split ring.
    Split(SplitDriver),
    /// A packed ring.
    Packed(PackedDriver),
}

/// A chain that can be submitted any number of times, to the queue that it was prepared in.
#[derive(Debug, PartialEq, Eq)]
pub enum Prepared {
    /// In a split ring.
    Split(PreparedChain),
    /// In a packed ring.
    Packed(PackedChain),
}

macro_rules! forward {
    ($side:tt: $($(#[$attribute:meta])* fn $name:ident(&$($word:ident)+ $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        $(
            #[allow(missing_docs, reason = "the same as in the ring formats")]
            $(#[$attribute])*
            #[inline]
            pub fn $name(&$($word)+ $(, $argument: $type)*) $(-> $result)? {
                forward!(@$side (forward!(@me $($word)+)) $name($($argument),*))
            }
        )*
    };
    (@device ($me:expr) $name:ident($($argument:ident),*)) => {
        match $me {
            Self::Split(queue) => queue.$name($($argument),*),
            Self::Packed(queue) => queue.$name($($argument),*),
            Self::InOrder(queue) => queue.ring.$name($($argument),*),
        }
    };
    (@either ($me:expr) $name:ident($($argument:ident),*)) => {
        match $me {
            Self::Split(queue) => queue.$name($($argument),*),
            Self::Packed(queue) => queue.$name($($argument),*),
        }
    };
    (@me mut $me:ident) => { $me };
    (@me $me:ident) => { $me };
}

/// What both kinds of device queue pass on to their ring as it is.
macro_rules! device_methods {
    ($side:tt) => {
        forward! {
            $side:
            fn rebase(&mut self, rings: RingAddresses) -> Result<(), SetupError>;
            #[must_use]
            fn base(&self) -> u32;
            #[must_use]
            fn was_used(&self) -> bool;
            #[must_use]
            fn size(&self) -> u16;
            #[must_use]
            fn resumed_at(&self) -> Option<u16>;
            #[must_use]
            fn fault(&self) -> Option<Fault>;
            fn mark_broken(&mut self, fault: Fault);
            #[must_use]
            fn avail_snapshot(&self) -> u16;
            #[must_use]
            fn next_avail(&self) -> u16;
            #[must_use]
            fn has_available(&self) -> bool;
            #[must_use]
            fn in_flight(&self) -> u16;
            #[must_use]
            fn unpublished(&self) -> u16;
            #[must_use]
            fn enable_notifications(&mut self) -> bool;
            fn disable_notifications(&mut self);
        }
    };
}

impl DeviceQueue {
    /// Takes over a ring that the front-end described. `base` is what SET_VRING_BASE said.
    ///
    /// # Errors
    /// [`SetupError`]: size, length of an area, alignment of an area, base.
    pub fn new(
        format: RingFormat,
        size: u16,
        rings: RingAddresses,
        base: u32,
        features: Features,
    ) -> Result<DeviceQueue, SetupError> {
        Ok(match format {
            RingFormat::Split => {
                let index = u16::try_from(base).map_err(|_| SetupError::SplitBase { base })?;
                DeviceQueue::Split(SplitDevice::new(size, rings, index, features)?)
            }
            RingFormat::Packed => DeviceQueue::Packed(PackedDevice::new(size, rings, base, features)?),
        })
    }

    /// Says that the device writes to none of this ring's buffers, and whether it completes chains in the order that they
    /// were popped in: see [`PackedDevice::set_read_only`]. It makes no difference to split rings, whose used elements lie
    /// eight to a cache line.
    pub fn set_read_only(&mut self, in_order: bool) {
        if let DeviceQueue::Packed(queue) = self {
            queue.set_read_only(in_order);
        }
    }

    /// From now on chains are used in the order that they were popped in, as VIRTIO_F_IN_ORDER promises, whatever order they
    /// are completed in: what is completed early waits for what is older, and is in flight until then. Of a packed ring, one
    /// used descriptor speaks of as many chains as it can (virtio 1.3 §2.8.9).
    ///
    /// # Panics
    /// If chains are in flight.
    #[must_use]
    pub fn in_order(self) -> DeviceQueue {
        match self {
            DeviceQueue::Split(ring) => DeviceQueue::InOrder(Box::new(InOrderDevice::new(Ring::Split(ring)))),
            DeviceQueue::Packed(ring) => DeviceQueue::InOrder(Box::new(InOrderDevice::new(Ring::Packed(ring)))),
            queue @ DeviceQueue::InOrder(_) => queue,
        }
    }

    /// Fetches chains.
    #[inline]
    pub fn pop(&mut self, memory: &MemTable, limit: usize, batch: &mut ChainBatch) -> usize {
        match self {
            DeviceQueue::Split(queue) => queue.pop(memory, limit, batch),
            DeviceQueue::Packed(queue) => queue.pop(memory, limit, batch),
            DeviceQueue::InOrder(queue) => queue.pop(memory, limit, batch),
        }
    }

    /// Takes back that these chains were popped.
    pub fn put_back(&mut self, heads: impl DoubleEndedIterator<Item = u16>) {
        match self {
            DeviceQueue::Split(queue) => queue.put_back(heads),
            DeviceQueue::Packed(queue) => queue.put_back(heads),
            DeviceQueue::InOrder(queue) => queue.put_back(heads),
        }
    }

    /// Completes a chain.
    #[inline]
    pub fn complete(&mut self, head: u16, written: u32) {
        match self {
            DeviceQueue::Split(queue) => queue.complete(head, written),
            DeviceQueue::Packed(queue) => queue.complete(head, written),
            DeviceQueue::InOrder(queue) => queue.complete(head, written),
        }
    }

    /// Completes chains of the last pop.
    #[inline]
    pub fn complete_popped(&mut self, chains: &[Chain], written: impl Iterator<Item = u32>) {
        match self {
            DeviceQueue::Split(queue) => queue.complete_popped(chains, written),
            DeviceQueue::Packed(queue) => queue.complete_popped(chains, written),
            DeviceQueue::InOrder(queue) => queue.complete_popped(chains, written),
        }
    }

    /// Makes completed chains visible to the driver; whether it wants a call for them.
    #[inline]
    pub fn publish(&mut self) -> bool {
        match self {
            DeviceQueue::Split(queue) => queue.publish(),
            DeviceQueue::Packed(queue) => queue.publish(),
            DeviceQueue::InOrder(queue) => queue.publish(),
        }
    }

    device_methods!(device);
}

impl Ring {
    device_methods!(either);
}

impl DriverQueue {
    /// Takes a ring over and zeroes it.
    ///
    /// # Errors
    /// [`SetupError`]: size, length of an area, alignment of an area.
    pub fn new(
        format: RingFormat,
        size: u16,
        rings: RingAddresses,
        features: Features,
    ) -> Result<DriverQueue, SetupError> {
        Ok(match format {
            RingFormat::Split => DriverQueue::Split(SplitDriver::new(size, rings, features)?),
            RingFormat::Packed => DriverQueue::Packed(PackedDriver::new(size, rings, features)?),
        })
    }

    /// Keeps a chain of one descriptor a segment, to be submitted any number of times.
    ///
    /// # Errors
    /// [`Full`]: it does not fit into what is free.
    pub fn prepare(&mut self, segments: &[Segment], token: usize) -> Result<Prepared, Full> {
        Ok(match self {
            DriverQueue::Split(queue) => Prepared::Split(queue.prepare(segments, token)?),
            DriverQueue::Packed(queue) => Prepared::Packed(queue.prepare(segments, token)?),
        })
    }

    /// Keeps a chain of one indirect descriptor, to be submitted any number of times.
    ///
    /// # Errors
    /// [`Full`]: there is no free descriptor.
    pub fn prepare_indirect(
        &mut self,
        segments: &[Segment],
        table_addr: u64,
        table: GuestSlice,
        token: usize,
    ) -> Result<Prepared, Full> {
        Ok(match self {
            DriverQueue::Split(queue) => Prepared::Split(queue.prepare_indirect(segments, table_addr, table, token)?),
            DriverQueue::Packed(queue) => Prepared::Packed(queue.prepare_indirect(segments, table_addr, table, token)?),
        })
    }

    /// Adds a prepared chain.
    ///
    /// # Panics
    /// If it is in flight, or was prepared in another queue.
    #[inline]
    pub fn submit(&mut self, chain: &Prepared) {
        match (self, chain) {
            (DriverQueue::Split(queue), Prepared::Split(chain)) => queue.submit(chain),
            (DriverQueue::Packed(queue), Prepared::Packed(chain)) => queue.submit(chain),
            _ => panic!("{OTHER_FORMAT}"),
        }
    }

    /// Frees what a prepared chain holds.
    ///
    /// # Panics
    /// If it is in flight, or was prepared in another queue.
    pub fn release(&mut self, chain: Prepared) {
        match (self, chain) {
            (DriverQueue::Split(queue), Prepared::Split(chain)) => queue.release(chain),
            (DriverQueue::Packed(queue), Prepared::Packed(chain)) => queue.release(chain),
            _ => panic!("{OTHER_FORMAT}"),
        }
    }

    forward! {
        either:
        fn expect_in_order(&mut self);
        #[must_use]
        fn size(&self) -> u16;
        #[must_use]
        fn num_free(&self) -> usize;
        #[must_use]
        fn in_flight(&self) -> u16;
        #[must_use]
        fn fault(&self) -> Option<UsedFault>;
        fn add(&mut self, segments: &[Segment], token: usize) -> Result<u16, Full>;
        fn add_indirect(&mut self, segments: &[Segment], table_addr: u64, table: GuestSlice, token: usize) -> Result<u16, Full>;
        fn publish(&mut self) -> bool;
        fn pop_used(&mut self) -> Option<Used>;
        #[must_use]
        fn enable_calls(&mut self) -> bool;
        fn disable_calls(&mut self);
    }
}

impl Prepared {
    /// The chain's head: its first descriptor in a split ring, its buffer id in a packed one.
    #[must_use]
    pub fn head(&self) -> u16 {
        match self {
            Prepared::Split(chain) => chain.head(),
            Prepared::Packed(chain) => chain.head(),
        }
    }
}

impl From<SplitDevice> for DeviceQueue {
    fn from(queue: SplitDevice) -> DeviceQueue {
        DeviceQueue::Split(queue)
    }
}

const OTHER_FORMAT: &str = "a chain that was prepared in a queue of the other format";
