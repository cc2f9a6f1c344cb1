//! One memory region of a front-end, mapped into our address space. Which regions stand together is `table.rs`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

use rustix::fs::{FileType, SeekFrom};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::{GuestSlice, observers, pollers, sigbus};

/// A memory region as a front-end describes it (vhost-user "Memory region description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionConfig {
    /// Guest physical address of the first byte.
    pub guest_addr: u64,
    /// Size in bytes.
    pub size: u64,
    /// Address of the first byte in the front-end's own address space; ring addresses are given as such.
    pub user_addr: u64,
    /// Offset of the first byte in the file that comes with the region.
    pub mmap_offset: u64,
}

/// Why a region could not be mapped. Each text names the region's guest address.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The size is 0.
    #[error("region at guest address {guest_addr:#x}: size 0, at least 1 byte")]
    Empty {
        /// Guest address of the region.
        guest_addr: u64,
    },
    /// Address or offset plus size do not fit in 64 bits.
    #[error("region at guest address {guest_addr:#x}: {field} {value:#x} plus size {size:#x} overflows")]
    Overflow {
        /// Guest address of the region.
        guest_addr: u64,
        /// Which of the numbers.
        field: &'static str,
        /// Its value.
        value: u64,
        /// Size of the region in bytes.
        size: u64,
    },
    /// The file ends before the region does.
    #[error("region at guest address {guest_addr:#x}: ends at byte {end:#x} of its file, which has {file:#x}")]
    BeyondFile {
        /// Guest address of the region.
        guest_addr: u64,
        /// Offset of the region's end in the file.
        end: u64,
        /// Size of the file in bytes.
        file: u64,
    },
    /// A system call failed.
    #[error("region at guest address {guest_addr:#x}: {call}: {error}")]
    System {
        /// Guest address of the region.
        guest_addr: u64,
        /// Which call.
        call: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// More regions are mapped in this process than the SIGBUS guard has room for.
    #[error("region at guest address {guest_addr:#x}: {limit} regions are mapped already, no room for more")]
    TooMany {
        /// Guest address of the region.
        guest_addr: u64,
        /// How many there can be in the process.
        limit: usize,
    },
}

/// A mapped region. Unmapped when dropped, which takes long for large memory: never drop one on a poller.
#[derive(Debug)]
pub struct Mapping {
    config: RegionConfig,
    memory: GuestSlice,
    /// The whole mapping, page aligned; `memory` lies inside.
    base: *mut u8,
    length: usize,
    guard: sigbus::Guard,
}

// SAFETY: addresses and lengths only; the memory is reached through `GuestSlice`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the region of the file behind `fd` and, page by page, touches what is resident in it already, so that
    /// pollers meet no page fault there. Holes stay holes. The file descriptor is not kept.
    ///
    /// # Errors
    /// [`MapError`]: sizes and offsets that cannot be, a file that is too short, or a failed system call.
    pub fn map(fd: BorrowedFd<'_>, config: &RegionConfig) -> Result<Mapping, MapError> {
        pollers::assert_may_map("mmap");
        let guest_addr = config.guest_addr;
        let system = |call| move |error: rustix::io::Errno| MapError::System { guest_addr, call, error: error.into() };
        check_numbers(config)?;
        let stat = rustix::fs::fstat(fd).map_err(system("fstat"))?;
        let end = config.mmap_offset + config.size;
        let file = stat.st_size.max(0).unsigned_abs();
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && end > file {
            return Err(MapError::BeyondFile { guest_addr, end, file });
        }
        // Hugetlbfs wants offset and length in whole huge pages; st_blksize is the page size there and on memfds.
        let page = page_size(u64::try_from(stat.st_blksize).unwrap_or(4096));
        let offset = config.mmap_offset & !(page - 1);
        let inset = (config.mmap_offset - offset) as usize;
        let length = ((end - offset).next_multiple_of(page)) as usize;
        // SAFETY: a fresh mapping at an address that the kernel picks.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                fd,
                offset,
            )
        }
        .map_err(system("mmap"))?
        .cast::<u8>();
        // SAFETY: just mapped; ours until munmap in drop. A core dump of guest memory helps nobody.
        unsafe {
            let _ = rustix::mm::madvise(base.cast(), length, Advice::LinuxDontDump);
        }
        let Some(guard) = sigbus::Guard::watch(base, length) else {
            // SAFETY: mapped above, and nobody has seen it.
            unsafe { rustix::mm::munmap(base.cast(), length) }.map_err(system("munmap"))?;
            return Err(MapError::TooMany { guest_addr, limit: sigbus::REGIONS_MAX });
        };
        // SAFETY: `inset + size` bytes of the mapping, which lives as long as this struct.
        let memory = unsafe { GuestSlice::from_raw(base.add(inset), config.size as usize) };
        let mapping = Mapping { config: *config, memory, base, length, guard };
        mapping.populate_resident(fd, offset, stat.st_size == stat.st_blocks * 512);
        observers::tell(|observer| observer.mapped(mapping.whole()));
        Ok(mapping)
    }

    /// The region as the front-end described it.
    #[must_use]
    pub fn config(&self) -> &RegionConfig {
        &self.config
    }

    /// All of the region's bytes.
    #[must_use]
    #[inline]
    pub fn memory(&self) -> GuestSlice {
        self.memory
    }

    /// All pages of the mapping: the region, and what lies on its first and last page beside it.
    fn whole(&self) -> GuestSlice {
        // SAFETY: mapped as long as this lives.
        unsafe { GuestSlice::from_raw(self.base, self.length) }
    }

    /// Whether the memory went away under us: a SIGBUS was caught, and the region holds unrelated zero pages since.
    #[must_use]
    #[inline]
    pub fn poisoned(&self) -> bool {
        self.guard.poisoned()
    }

    /// Fills our page tables for the parts of the file that hold data. Best effort: what fails here faults later.
    fn populate_resident(&self, fd: BorrowedFd<'_>, offset: u64, whole: bool) {
        let end = offset + self.length as u64;
        let mut at = offset;
        while at < end {
            let Ok(start) = rustix::fs::seek(fd.as_fd(), SeekFrom::Data(at)) else {
                return;
            };
            let stop = rustix::fs::seek(fd.as_fd(), SeekFrom::Hole(start)).unwrap_or(end).min(end);
            if start >= stop {
                return;
            }
            // Hugetlbfs calls everything up to the end of the file data: populate it only if that is so.
            if start == offset && stop == end && !whole {
                return;
            }
            // SAFETY: a page-aligned part of our mapping; populating changes no content.
            unsafe {
                let part = self.base.add((start - offset) as usize);
                let _ = rustix::mm::madvise(part.cast(), (stop - start) as usize, Advice::LinuxPopulateWrite);
            }
            at = stop;
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        pollers::assert_may_map("munmap");
        observers::tell(|observer| observer.unmapping(self.whole()));
        self.guard.release();
        // SAFETY: mapped in `map`, unmapped only here; see the crate's documentation for why no slice is in use.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.cast(), self.length) } {
            tracing::error!("munmap of the region at guest address {:#x}: {error}", self.config.guest_addr);
        }
    }
}

fn check_numbers(config: &RegionConfig) -> Result<(), MapError> {
    let RegionConfig { guest_addr, size, user_addr, mmap_offset } = *config;
    if size == 0 {
        return Err(MapError::Empty { guest_addr });
    }
    for (field, value) in [("guest address", guest_addr), ("user address", user_addr)] {
        if value.checked_add(size - 1).is_none() {
            return Err(MapError::Overflow { guest_addr, field, value, size });
        }
    }
    // The mapping must also fit in the address space: below 2^63 with room to round up to a huge page.
    match mmap_offset.checked_add(size) {
        Some(end) if end < 1 << 62 => Ok(()),
        _ => Err(MapError::Overflow { guest_addr, field: "mmap offset", value: mmap_offset, size }),
    }
}

fn page_size(block: u64) -> u64 {
    if block.is_power_of_two() && block > 4096 { block } else { 4096 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pages, SharedMemory};

    fn config(size: u64, mmap_offset: u64) -> RegionConfig {
        RegionConfig { guest_addr: 0x1000, size, user_addr: 0x7f00_0000_0000, mmap_offset }
    }

    #[test]
    fn map_refuses_impossible_numbers_naming_them() {
        let memory = SharedMemory::create("map", 8192, Pages::Small).unwrap();
        let text = |config: &RegionConfig| Mapping::map(memory.fd(), config).unwrap_err().to_string();
        assert_eq!(text(&config(0, 0)), "region at guest address 0x1000: size 0, at least 1 byte");
        assert_eq!(
            text(&config(8192, 4096)),
            "region at guest address 0x1000: ends at byte 0x3000 of its file, which has 0x2000"
        );
        assert_eq!(
            text(&config(8192, u64::MAX - 4096)),
            "region at guest address 0x1000: mmap offset 0xffffffffffffefff plus size 0x2000 overflows"
        );
        assert_eq!(
            text(&RegionConfig { guest_addr: u64::MAX, ..config(2, 0) }),
            "region at guest address 0xffffffffffffffff: guest address 0xffffffffffffffff plus size 0x2 overflows"
        );
    }

    #[test]
    fn map_at_an_unaligned_offset_shows_the_right_bytes() {
        let memory = SharedMemory::create("map", 3 * 4096, Pages::Small).unwrap();
        memory.slice().subslice(4097, 3).unwrap().write(b"abc");
        let mapping = Mapping::map(memory.fd(), &config(4096, 4097)).unwrap();
        assert_eq!(mapping.memory().len(), 4096);
        assert_eq!(mapping.memory().read_array::<3>(), Some(*b"abc"));
        mapping.memory().write(b"xyz");
        assert_eq!(memory.slice().subslice(4097, 3).unwrap().read_array::<3>(), Some(*b"xyz"));
    }

    #[test]
    fn map_of_sparse_memory_populates_no_hole() {
        let memory = SharedMemory::create("sparse", 1 << 30, Pages::Small).unwrap();
        memory.slice().subslice(512 << 20, 1).unwrap().write(&[1]);
        let mapping = Mapping::map(memory.fd(), &config(1 << 30, 0)).unwrap();
        let blocks = rustix::fs::fstat(memory.fd()).unwrap().st_blocks;
        assert!(blocks * 512 <= 1 << 21, "{blocks} blocks are allocated after mapping, one page was before");
        assert_eq!(mapping.memory().subslice(512 << 20, 1).unwrap().read_array::<1>(), Some([1]));
    }
}
