//! Where everything lies in the shared memory of a run: rings, the lines of each command, its data. Offsets and sizes;
//! what the bytes mean is `lines.rs`'s and the ring's.
//!
//! Nothing that both sides write shares a pair of cache lines with anything else: rings and lines start at multiples of
//! 128 bytes, data at multiples of a page.

use std::io;
use std::os::fd::BorrowedFd;

use guest_memory::{GuestSlice, Pages, RegionConfig, SharedMemory};
use rustix::fs::FallocateFlags;
use virtqueue::{RingAddresses, SplitLayout};

use super::Args;
use super::lines::SLOT_LEN;

/// The two queues before the request queues: control and event (virtio 1.3 §5.6.2).
pub(super) const FIRST_REQUEST_RING: u16 = 2;

/// Offsets in the shared memory.
#[derive(Debug)]
pub(super) struct Layout {
    /// Descriptors of each ring.
    pub queue_size: u16,
    /// By ring index: control, event, then one a request queue.
    pub rings: Vec<RingPlace>,
    /// By request queue.
    pub queues: Vec<QueuePlace>,
    /// Distance of the data of two commands in bytes.
    pub data_stride: usize,
    /// Size of all of it in bytes.
    pub len: usize,
}

/// The three areas of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingPlace {
    pub desc: usize,
    pub avail: usize,
    pub used: usize,
}

/// What the commands of one request queue consist of, each by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueuePlace {
    /// Lines of [`SLOT_LEN`] bytes.
    pub lines: usize,
    /// Data, [`Layout::data_stride`] bytes each.
    pub data: usize,
}

/// Shared memory as both sides address it.
#[derive(Debug)]
pub(super) struct Memory {
    shared: SharedMemory,
    region: RegionConfig,
}

impl Layout {
    pub(super) fn new(args: &Args) -> Layout {
        let mut end = 0usize;
        let mut place = |len: usize, align: usize| {
            let start = end.next_multiple_of(align);
            end = start + len;
            start
        };
        let size = args.queue_size;
        let slots = usize::from(args.qd);
        let data_stride = (args.bs as usize).next_multiple_of(PAGE);
        let rings = (0..FIRST_REQUEST_RING + args.queues)
            .map(|_| RingPlace {
                desc: place(SplitLayout::desc_len(size), PAIR),
                avail: place(SplitLayout::avail_len(size), PAIR),
                used: place(SplitLayout::used_len(size), PAIR),
            })
            .collect();
        let queues = (0..args.queues)
            .map(|_| QueuePlace { lines: place(SLOT_LEN * slots, PAGE), data: place(data_stride * slots, PAGE) })
            .collect();
        Layout { queue_size: size, rings, queues, data_stride, len: end }
    }
}

impl Memory {
    /// Memory of `len` bytes, all of it resident: of huge pages where there are enough, of small ones otherwise.
    ///
    /// # Errors
    /// There is not that much memory.
    pub(super) fn create(len: usize) -> io::Result<Memory> {
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
    pub(super) fn region(&self) -> (RegionConfig, BorrowedFd<'_>) {
        (self.region, self.shared.fd())
    }

    /// The `len` bytes from `offset` on.
    ///
    /// # Panics
    /// If they are outside: offsets come from the layout that the memory was made for.
    pub(super) fn slice(&self, offset: usize, len: usize) -> GuestSlice {
        self.shared.slice().subslice(offset, len).expect("an offset of the layout")
    }

    /// The address of a byte in descriptors.
    pub(super) fn guest_addr(&self, offset: usize) -> u64 {
        self.region.guest_addr + offset as u64
    }

    /// The address of a byte in vhost-user messages about rings.
    pub(super) fn user_addr(&self, offset: usize) -> u64 {
        self.region.user_addr + offset as u64
    }

    /// A ring's areas.
    pub(super) fn ring(&self, place: &RingPlace, size: u16) -> RingAddresses {
        RingAddresses {
            desc: self.slice(place.desc, SplitLayout::desc_len(size)),
            avail: self.slice(place.avail, SplitLayout::avail_len(size)),
            used: self.slice(place.used, SplitLayout::used_len(size)),
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
const PAGE: usize = 4096;
/// Processors fetch lines in pairs.
const PAIR: usize = 128;

#[cfg(test)]
mod tests {
    use super::super::args::tests::parse;
    use super::*;

    #[test]
    fn layout_parts_are_aligned_and_do_not_overlap() {
        let args = parse("--socket s --queues 3 --qd 5 --queue-size 64 --bs 6k").unwrap();
        let layout = Layout::new(&args);
        assert_eq!((layout.rings.len(), layout.queues.len(), layout.data_stride), (5, 3, 8192));
        let mut parts = Vec::new();
        for ring in &layout.rings {
            parts.extend([(ring.desc, 1024, 128), (ring.avail, 134, 128), (ring.used, 518, 128)]);
        }
        for queue in &layout.queues {
            parts.extend([(queue.lines, 5 * 384, 4096), (queue.data, 5 * 8192, 4096)]);
        }
        let mut end = 0;
        for (start, len, align) in parts {
            assert!(start >= end && start % align == 0, "{start}");
            end = start + len;
        }
        assert_eq!(end, layout.len);
    }

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
