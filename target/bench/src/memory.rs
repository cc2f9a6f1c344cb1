//! Memory that a run shares with the device, rings in it, and how places in it are handed out. What lies where is a
//! layout's business.
//!
//! Nothing that both sides write shares a pair of cache lines with anything else: rings start at multiples of 128 bytes.

use std::io;
use std::os::fd::BorrowedFd;

use guest_memory::{GuestSlice, Pages, RegionConfig, SharedMemory};
use rustix::fs::FallocateFlags;
use virtqueue::{RingAddresses, RingFormat};

/// The three areas of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingPlace {
    pub format: RingFormat,
    pub desc: usize,
    pub avail: usize,
    pub used: usize,
}

/// Shared memory as both sides address it.
#[derive(Debug)]
pub(crate) struct Memory {
    shared: SharedMemory,
    region: RegionConfig,
}

/// Hands out places in memory that is yet to be made, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Placer {
    end: usize,
}

impl Placer {
    /// The offset of `len` bytes, a multiple of `align`.
    pub(crate) fn place(&mut self, len: usize, align: usize) -> usize {
        let start = self.end.next_multiple_of(align);
        self.end = start + len;
        start
    }

    /// A ring of `size` descriptors.
    pub(crate) fn ring(&mut self, format: RingFormat, size: u16) -> RingPlace {
        let [desc, avail, used] = format.area_lens(size).map(|len| self.place(len, PAIR));
        RingPlace { format, desc, avail, used }
    }

    /// Bytes up to the end of the last place.
    pub(crate) fn len(&self) -> usize {
        self.end
    }
}

impl Memory {
    /// Memory of `len` bytes, all of it resident: of huge pages where there are enough, of small ones otherwise.
    ///
    /// # Errors
    /// There is not that much memory.
    pub(crate) fn create(len: usize) -> io::Result<Memory> {
        let shared = match create(len, Pages::Huge) {
            Ok(shared) => shared,
            Err(_) => create(len, Pages::Small)?,
        };
        let region = RegionConfig {
            guest_addr: GUEST_ADDR,
            size: shared.len() as u64,
            user_addr: shared.slice().as_ptr().addr() as u64,
            mmap_offset: 0,
        };
        Ok(Memory { shared, region })
    }

    /// The one region of the memory table, and its file.
    pub(crate) fn region(&self) -> (RegionConfig, BorrowedFd<'_>) {
        (self.region, self.shared.fd())
    }

    /// The `len` bytes from `offset` on.
    ///
    /// # Panics
    /// If they are outside: offsets come from the layout that the memory was made for.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> GuestSlice {
        self.shared.slice().subslice(offset, len).expect("an offset of the layout")
    }

    /// The address of a byte in descriptors.
    pub(crate) fn guest_addr(&self, offset: usize) -> u64 {
        self.region.guest_addr + offset as u64
    }

    /// The address of a byte in vhost-user messages about rings.
    pub(crate) fn user_addr(&self, offset: usize) -> u64 {
        self.region.user_addr + offset as u64
    }

    /// A ring's areas.
    pub(crate) fn ring(&self, place: &RingPlace, size: u16) -> RingAddresses {
        let [desc, avail, used] = place.format.area_lens(size);
        RingAddresses {
            desc: self.slice(place.desc, desc),
            avail: self.slice(place.avail, avail),
            used: self.slice(place.used, used),
        }
    }
}

/// Allocates every page at once: a huge page that is missing is an error here, and a SIGBUS on first touch.
fn create(len: usize, pages: Pages) -> io::Result<SharedMemory> {
    let shared = SharedMemory::create("ringside-bench", len, pages)?;
    rustix::fs::fallocate(shared.fd(), FallocateFlags::empty(), 0, shared.len() as u64)?;
    Ok(shared)
}

/// Differs from our own addresses, so that a target that mixes them up does not get by.
const GUEST_ADDR: u64 = 0x1_0000_0000;
pub(crate) const PAGE: usize = 4096;
/// Processors fetch lines in pairs.
const PAIR: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_addressed_from_three_sides() {
        let memory = Memory::create(10_000).unwrap();
        assert_eq!(memory.slice(9_000, 8).read_array(), Some([0; 8]));
        assert_eq!(memory.guest_addr(16), 0x1_0000_0010);
        assert_eq!(memory.user_addr(16), memory.slice(16, 1).as_ptr().addr() as u64);
        let (region, _) = memory.region();
        assert!(region.size >= 10_000 && region.size.is_multiple_of(4096));
    }
}
