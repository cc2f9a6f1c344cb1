//! Memory that a front-end of this process shares with the target. Guest addresses, addresses of the front-end and our
//! own are three different things here, so that nothing passes that mixes them up.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use guest_memory::{GuestSlice, Pages, RegionConfig, SharedMemory};

/// One memory region, handed out from its start on.
#[derive(Debug)]
pub struct Region {
    memory: SharedMemory,
    config: RegionConfig,
    name: String,
    taken: usize,
}

/// A piece of a region, and its three addresses.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Where descriptors say it is.
    pub guest_addr: u64,
    /// Where ring addresses say it is.
    pub user_addr: u64,
    /// Where we find it.
    pub slice: GuestSlice,
}

impl Region {
    /// A region of at least `size` bytes, at addresses that follow from `slot`.
    ///
    /// # Errors
    /// What the kernel said: for huge pages mostly that there are too few.
    pub fn create(slot: u64, size: usize, pages: Pages) -> io::Result<Region> {
        Region::create_at((slot + 1) << 32, 0x7f00_0000_0000 + (slot << 36), size, pages)
    }

    /// A region of at least `size` bytes, at these addresses of the guest and of the front-end.
    ///
    /// # Errors
    /// As [`Region::create`].
    pub fn create_at(guest_addr: u64, user_addr: u64, size: usize, pages: Pages) -> io::Result<Region> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("live-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let memory = SharedMemory::create(&name, size, pages)?;
        let config = RegionConfig { guest_addr, size: memory.len() as u64, user_addr, mmap_offset: 0 };
        Ok(Region { memory, config, name, taken: 0 })
    }

    /// The next `len` bytes, from a cache line's start on.
    ///
    /// # Panics
    /// If there are not that many left.
    pub fn take(&mut self, len: usize) -> Area {
        let offset = self.taken;
        let slice = self.memory.slice().subslice(offset, len);
        let slice = slice.unwrap_or_else(|| panic!("{len} bytes at {offset} of a region of {}", self.memory.len()));
        self.taken = (offset + len).next_multiple_of(64);
        let RegionConfig { guest_addr, user_addr, .. } = self.config;
        Area { guest_addr: guest_addr + offset as u64, user_addr: user_addr + offset as u64, slice }
    }

    /// How the target is told of it.
    #[must_use]
    pub fn config(&self) -> &RegionConfig {
        &self.config
    }

    /// The memory itself.
    #[must_use]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Everything that is in it now.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.memory.len()];
        self.memory.slice().read(&mut bytes);
        bytes
    }

    /// How many mappings of it there are in this process: ours, and one for every connection that holds it.
    ///
    /// # Panics
    /// Without `/proc`.
    #[must_use]
    pub fn mappings(&self) -> usize {
        let name = format!("/memfd:{} (deleted)", self.name);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("there is a /proc");
        maps.lines().filter(|line| line.ends_with(&name)).count()
    }

    /// How many descriptors of it there are in this process.
    ///
    /// # Panics
    /// Without `/proc`.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let name = format!("/memfd:{} (deleted)", self.name);
        let fds = std::fs::read_dir("/proc/self/fd").expect("there is a /proc");
        // A descriptor that another thread closes meanwhile is not ours.
        fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter(|target| target.as_os_str() == name.as_str())
            .count()
    }

    /// Takes the memory away from whoever has mapped it, ourselves included: not to be touched any more.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn truncate(&self) {
        rustix::fs::ftruncate(self.memory.fd(), 0).expect("our own memfd");
    }
}

impl Area {
    /// The first `mid` bytes and the rest.
    ///
    /// # Panics
    /// If it is not that long.
    #[must_use]
    pub fn split(self, mid: usize) -> (Area, Area) {
        let (front, back) = self.slice.split_at(mid);
        let Area { guest_addr, user_addr, .. } = self;
        let rest = Area { guest_addr: guest_addr + mid as u64, user_addr: user_addr + mid as u64, slice: back };
        (Area { slice: front, ..self }, rest)
    }

    /// The `len` bytes from `offset` on.
    ///
    /// # Panics
    /// If it is not that long.
    #[must_use]
    pub fn part(self, offset: usize, len: usize) -> Area {
        self.split(offset).1.split(len).0
    }
}
