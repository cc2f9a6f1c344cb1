//! What a virtqueue of either format is set up from, and the checks that both need. Each format knows its own sizes.

use std::fmt;

use guest_memory::{GuestArray, GuestSlice, Scalar};

/// Where the three areas of a ring lie, translated. Each has exactly the length that its format demands
/// ([`SplitLayout`](crate::SplitLayout) and [`PackedLayout`](crate::PackedLayout) compute them).
#[derive(Clone, Copy, Debug)]
pub struct RingAddresses {
    /// Descriptor area: the descriptor table of a split ring, the descriptor ring of a packed one.
    pub desc: GuestSlice,
    /// Driver area: the available ring of a split ring, the driver's event suppression of a packed one.
    pub avail: GuestSlice,
    /// Device area: the used ring of a split ring, the device's event suppression of a packed one.
    pub used: GuestSlice,
}

/// What was negotiated that changes how a ring works. Indirect descriptors are always understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `VIRTIO_F_EVENT_IDX` (bit 29).
    pub event_idx: bool,
}

/// An area of a ring, as error texts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Descriptor area.
    Desc,
    /// Driver area.
    Avail,
    /// Device area.
    Used,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Area::Desc => "descriptor area",
            Area::Avail => "driver area",
            Area::Used => "device area",
        })
    }
}

/// Why a ring cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The size is not one that a ring can have.
    #[error("queue size {size}: has to be a power of two, 1 to 32768")]
    Size {
        /// The size asked for.
        size: u16,
    },
    /// The size is not one that a packed ring can have.
    #[error("queue size {size}: has to be 1 to 32768")]
    PackedSize {
        /// The size asked for.
        size: u16,
    },
    /// The base of a split ring is an index.
    #[error("base {base}: a split ring has 16 bits")]
    SplitBase {
        /// The base given.
        base: u32,
    },
    /// A position in a base is not in the ring.
    #[error("base {base:#x}: a packed ring of size {size} has slots 0 to {last}", last = size - 1)]
    Base {
        /// The base given.
        base: u32,
        /// The queue size.
        size: u16,
    },
    /// An area does not start where it may.
    #[error("{area} at {address:#x}: has to be a multiple of {align}")]
    Alignment {
        /// Which area.
        area: Area,
        /// Where it starts in our address space.
        address: usize,
        /// What the start has to be a multiple of, in bytes.
        align: usize,
    },
    /// An area is not as long as the queue size makes it.
    #[error("{area} of {len} bytes: a queue of size {size} has {wanted}")]
    Length {
        /// Which area.
        area: Area,
        /// Its length in bytes.
        len: usize,
        /// The length it has to have, in bytes.
        wanted: usize,
        /// The queue size.
        size: u16,
    },
}

/// Refuses an area that is not `wanted` bytes long or does not start at a multiple of `align`.
pub(crate) fn check(area: Area, slice: GuestSlice, size: u16, wanted: usize, align: usize) -> Result<(), SetupError> {
    if slice.len() != wanted {
        let len = slice.len();
        return Err(SetupError::Length { area, len, wanted, size });
    }
    let address = slice.as_ptr().addr();
    if !address.is_multiple_of(align) {
        return Err(SetupError::Alignment { area, address, align });
    }
    Ok(())
}

/// The area as an array of `T`.
pub(crate) fn array<T: Scalar>(area: Area, slice: GuestSlice) -> Result<GuestArray<T>, SetupError> {
    GuestArray::new(slice).ok_or(SetupError::Alignment { area, address: slice.as_ptr().addr(), align: size_of::<T>() })
}
