//! A guest for tests: three memory regions in one shared memory, a ring in the first, and nothing else. Two of the
//! regions are neighbours, so that buffers can lie across them.

use std::sync::Arc;

use guest_memory::{GuestSlice, Mapping, MemTable, Pages, RegionConfig, SharedMemory};
use virtqueue::split::{RawSplit, SplitDevice, SplitDriver};
use virtqueue::{Chain, ChainBatch, Features, RingAddresses, RingFormat};

pub const MIB: u64 = 1 << 20;
/// First region: the ring, and some room after it.
pub const LOW: u64 = 0x10_0000;
/// Second region, right behind the first.
pub const NEIGHBOUR: u64 = 0x20_0000;
/// Third region, far away. There is a hole before it and nothing after it.
pub const HIGH: u64 = 0x1_0000_0000;
/// Where in the first region buffers do not meet the ring, whatever its size.
pub const BUFFERS: u64 = LOW + 0xf_0000;
pub const HOLE: u64 = 0x8000_0000;

pub const AVAIL: u64 = LOW + 0x8_0000;
pub const USED: u64 = LOW + 0xa_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub struct Guest {
    pub memory: SharedMemory,
    pub table: MemTable,
    pub size: u16,
    pub features: Features,
}

impl Guest {
    pub fn new(size: u16) -> Guest {
        Guest::with(size, Features::default())
    }

    pub fn with(size: u16, features: Features) -> Guest {
        let memory = SharedMemory::create("guest", 3 * MIB as usize, Pages::Small).unwrap();
        let regions = [(LOW, 0), (NEIGHBOUR, MIB), (HIGH, 2 * MIB)].map(|(guest_addr, mmap_offset)| {
            let config = RegionConfig { guest_addr, size: MIB, user_addr: guest_addr, mmap_offset };
            Arc::new(Mapping::map(memory.fd(), &config).unwrap())
        });
        let table = MemTable::new(regions.to_vec()).unwrap();
        Guest { memory, table, size, features }
    }

    pub fn rings(&self) -> RingAddresses {
        self.rings_of(RingFormat::Split)
    }

    /// The areas of a ring of either format, in the same places.
    pub fn rings_of(&self, format: RingFormat) -> RingAddresses {
        let [desc, avail, used] = format.area_lens(self.size);
        let part = |addr: u64, len: usize| self.table.translate(addr, len as u32).unwrap();
        RingAddresses { desc: part(LOW, desc), avail: part(AVAIL, avail), used: part(USED, used) }
    }

    pub fn driver(&self) -> SplitDriver {
        SplitDriver::new(self.size, self.rings(), self.features).unwrap()
    }

    pub fn device(&self) -> SplitDevice {
        SplitDevice::new(self.size, self.rings(), 0, self.features).unwrap()
    }

    /// A ring with every field laid open, zeroed.
    pub fn raw(&self) -> RawSplit {
        self.driver().raw()
    }

    pub fn bytes(&self, addr: u64, len: u32) -> GuestSlice {
        self.table.translate(addr, len).unwrap()
    }

    /// Writes an indirect table.
    pub fn write_table(&self, addr: u64, entries: &[(u64, u32, u16, u16)]) {
        for (index, &(buffer, len, flags, next)) in entries.iter().enumerate() {
            let bytes = RawSplit::descriptor_bytes(buffer, len, flags, next);
            let mut left = &bytes[..];
            self.table.translate_each(addr + 16 * index as u64, 16, |part| left = &left[part.write(left)..]).unwrap();
        }
    }

    /// The guest address of a byte of ours.
    pub fn guest_addr(&self, slice: GuestSlice) -> u64 {
        let at = slice.as_ptr().addr();
        let inside = |start: GuestSlice| at.checked_sub(start.as_ptr().addr()).filter(|offset| *offset < start.len());
        let found = self.table.regions().iter().find_map(|region| {
            let offset = inside(region.memory())?;
            assert!(offset + slice.len() <= region.memory().len(), "a slice that leaves its region");
            Some(region.config().guest_addr + offset as u64)
        });
        found.expect("a slice that is in no region")
    }

    /// Guest addresses and lengths of the readable and of the writable slices of a chain.
    pub fn shape(&self, batch: &ChainBatch, chain: &Chain) -> [Vec<(u64, usize)>; 2] {
        [batch.readable(chain), batch.writable(chain)]
            .map(|slices| slices.iter().map(|slice| (self.guest_addr(*slice), slice.len())).collect())
    }
}

/// Makes `heads` available in this order, as the first entries of the ring.
pub fn make_available(raw: &RawSplit, heads: &[u16]) {
    for (index, head) in heads.iter().enumerate() {
        raw.set_avail_entry(index as u16, *head);
    }
    raw.set_avail_index(heads.len() as u16);
}

/// Numbers that look random and are the same in each run (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
