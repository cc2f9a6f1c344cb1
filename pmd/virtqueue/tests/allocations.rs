//! The device side allocates nothing once its arena has met the longest chain. An allocator that counts needs a program
//! of its own, and `unsafe`.
#![allow(unsafe_code)] // the allocator below, which only passes on

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use guest_memory::{Mapping, MemTable, Pages, RegionConfig, SharedMemory};
use virtqueue::split::{SplitDevice, SplitDriver};
use virtqueue::{ChainBatch, Features, RingAddresses, Segment, SplitLayout};

const SIZE: u16 = 64;

struct Counting;

thread_local! {
    /// By thread: the test harness allocates in its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn serving_a_ring_allocates_nothing_in_steady_state() {
    let memory = SharedMemory::create("allocations", 1 << 20, Pages::Small).unwrap();
    let region = RegionConfig { guest_addr: 0, size: 1 << 20, user_addr: 0, mmap_offset: 0 };
    let table = MemTable::new(vec![Arc::new(Mapping::map(memory.fd(), &region).unwrap())]).unwrap();
    let part = |at: usize, len: usize| memory.slice().subslice(at, len).unwrap();
    let rings = RingAddresses {
        desc: part(0, SplitLayout::desc_len(SIZE)),
        avail: part(0x1000, SplitLayout::avail_len(SIZE)),
        used: part(0x2000, SplitLayout::used_len(SIZE)),
    };
    let features = Features { event_idx: true };
    let mut driver = SplitDriver::new(SIZE, rings, features).unwrap();
    let mut device = SplitDevice::new(SIZE, rings, 0, features).unwrap();
    // Room for nothing: the first rounds have to make it.
    let mut batch = ChainBatch::new(8, 0);

    // Usual chains, long ones, and one that takes the longest way: with a buffer of no bytes.
    let long = [Segment::readable(0x8000, 16); 12];
    let empty = [Segment::readable(0x8000, 16), Segment::readable(0x9000, 0), Segment::writable(0x9000, 4096)];
    let chains = [
        driver.prepare(&long[..3], 0).unwrap(),
        driver.prepare(&long, 1).unwrap(),
        driver.prepare(&empty, 2).unwrap(),
        driver.prepare_indirect(&long, 0x4000, part(0x4000, 192), 3).unwrap(),
        driver.prepare_indirect(&long[..3], 0x5000, part(0x5000, 48), 4).unwrap(),
    ];
    let mut round = |device: &mut SplitDevice, batch: &mut ChainBatch| {
        chains.iter().for_each(|chain| driver.submit(chain));
        driver.publish();
        let mut bytes = 0;
        while device.pop(&table, 8, batch) > 0 {
            for chain in batch.chains() {
                bytes += batch.readable(chain).iter().map(|slice| slice.len()).sum::<usize>();
                device.complete(chain.head, 0);
            }
            device.publish();
        }
        assert!(!device.enable_notifications());
        device.disable_notifications();
        while driver.pop_used().is_some() {}
        bytes
    };
    let expected = 16 * (3 + 12 + 1 + 12 + 3);
    let before = ALLOCATIONS.get();
    for _ in 0..4 {
        assert_eq!(round(&mut device, &mut batch), expected);
    }
    assert!(ALLOCATIONS.get() > before, "the arena started without room, so counting works");

    let before = ALLOCATIONS.get();
    for _ in 0..1000 {
        assert_eq!(round(&mut device, &mut batch), expected);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
