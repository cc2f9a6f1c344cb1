//! A guest's memory: real shared memory, mapped once by the driver (here) and once more by the device. No ring and no
//! request in here.

use std::ops::Range;
use std::sync::Arc;

use guest_memory::{GuestSlice, Mapping, MemTable, Pages, RegionConfig, SharedMemory};

/// Added to guest addresses, gives the addresses that a front-end would know the memory by.
pub const USER_BASE: u64 = 0x7f00_0000_0000;

/// The memory of a guest, region by region.
pub struct Guest {
    regions: Vec<Region>,
}

struct Region {
    addr: u64,
    memory: SharedMemory,
}

/// What all of a guest's memory held at one moment.
pub struct Snapshot(Vec<(u64, Vec<u8>)>);

impl Guest {
    /// Memory of these regions, each a guest address and a size in bytes.
    ///
    /// # Panics
    /// If the kernel has no memory for it.
    #[must_use]
    pub fn new(regions: &[(u64, usize)]) -> Guest {
        let region = |&(addr, size): &(u64, usize)| {
            let memory = SharedMemory::create("guest", size, Pages::Small).expect("memory for a guest");
            Region { addr, memory }
        };
        Guest { regions: regions.iter().map(region).collect() }
    }

    /// The device's mappings of the whole, as a table of its own.
    ///
    /// # Panics
    /// If a region cannot be mapped, or two overlap.
    #[must_use]
    pub fn table(&self) -> MemTable {
        self.table_of(0..self.regions.len())
    }

    /// The device's mappings of some of the regions.
    ///
    /// # Panics
    /// As [`Guest::table`], and if there are not so many regions.
    #[must_use]
    pub fn table_of(&self, regions: Range<usize>) -> MemTable {
        let mapped = self.regions[regions].iter().map(Region::map).collect();
        MemTable::new(mapped).expect("regions that do not overlap")
    }

    /// The driver's view of `len` bytes.
    ///
    /// # Panics
    /// If they do not lie in one region.
    #[must_use]
    pub fn slice(&self, addr: u64, len: usize) -> GuestSlice {
        self.regions.iter().find_map(|region| region.slice(addr, len)).unwrap_or_else(|| {
            panic!("{addr:#x}, {len} bytes: not in one region of the guest");
        })
    }

    /// Writes bytes, which may lie across neighbouring regions.
    ///
    /// # Panics
    /// If there is no memory at one of the addresses.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        let mut done = 0;
        self.each_part(addr, bytes.len(), |part| done += part.write(&bytes[done..]));
    }

    /// Reads bytes, which may lie across neighbouring regions.
    ///
    /// # Panics
    /// If there is no memory at one of the addresses.
    #[must_use]
    pub fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        self.each_part(addr, len, |part| done += part.read(&mut bytes[done..]));
        bytes
    }

    /// Takes the memory of one region away under everybody, as a hostile front-end would: the file behind it is
    /// truncated. The driver's own view of it is gone, too.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn truncate(&self, region: usize) {
        rustix::fs::ftruncate(self.regions[region].memory.fd(), 0).expect("a memfd of our own");
    }

    /// Remembers every byte.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let content = |region: &Region| (region.addr, self.read(region.addr, region.memory.len()));
        Snapshot(self.regions.iter().map(content).collect())
    }

    fn each_part(&self, mut addr: u64, mut len: usize, mut visit: impl FnMut(GuestSlice)) {
        while len > 0 {
            let region = self.regions.iter().find(|region| region.slice(addr, 1).is_some());
            let region = region.unwrap_or_else(|| panic!("{addr:#x}: no memory of the guest"));
            let count = len.min(region.memory.len() - (addr - region.addr) as usize);
            visit(self.slice(addr, count));
            addr += count as u64;
            len -= count;
        }
    }
}

impl Snapshot {
    /// Which guest addresses hold something else now.
    #[must_use]
    pub fn changed(&self, guest: &Guest) -> Vec<Range<u64>> {
        const PAGE: usize = 4096;
        let mut changes: Vec<Range<u64>> = Vec::new();
        for (start, before) in &self.0 {
            let after = guest.read(*start, before.len());
            for (page, (before, after)) in before.chunks(PAGE).zip(after.chunks(PAGE)).enumerate() {
                if before == after {
                    continue;
                }
                let differs = before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after);
                for addr in differs.map(|(at, _)| start + (page * PAGE + at) as u64) {
                    match changes.last_mut() {
                        Some(last) if last.end == addr => last.end += 1,
                        _ => changes.push(addr..addr + 1),
                    }
                }
            }
        }
        changes
    }

    /// # Panics
    /// If a byte has changed.
    pub fn assert_untouched(&self, guest: &Guest, when: &str) {
        let changed = self.changed(guest);
        assert!(changed.is_empty(), "{when}: guest memory changed at {changed:x?}");
    }

    /// # Panics
    /// If a byte outside `allowed` has changed.
    pub fn assert_only(&self, guest: &Guest, allowed: &[Range<u64>], when: &str) {
        for change in self.changed(guest) {
            let stray = change.clone().find(|addr| !allowed.iter().any(|range| range.contains(addr)));
            assert_eq!(stray, None, "{when}: guest memory changed at {change:x?}, allowed {allowed:x?}");
        }
    }
}

impl Region {
    fn map(&self) -> Arc<Mapping> {
        let config = RegionConfig {
            guest_addr: self.addr,
            size: self.memory.len() as u64,
            user_addr: USER_BASE + self.addr,
            mmap_offset: 0,
        };
        Arc::new(Mapping::map(self.memory.fd(), &config).expect("memory that can be mapped"))
    }

    fn slice(&self, addr: u64, len: usize) -> Option<GuestSlice> {
        self.memory.slice().subslice(usize::try_from(addr.checked_sub(self.addr)?).ok()?, len)
    }
}
