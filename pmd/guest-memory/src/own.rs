//! Memory of our own: what the driver side shares with a target, and what a memory-backed bdev keeps its blocks in.

use std::alloc::Layout;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::GuestSlice;

const HUGE_PAGE: usize = 2 << 20;
const SMALL_PAGE: usize = 4096;

/// Which pages shared memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// 4 KiB.
    Small,
    /// 2 MiB, from the kernel's pool of huge pages.
    Huge,
}

/// A memfd and our mapping of it: what a front-end shares with its back-end.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    memory: Anonymous,
}

/// A mapping that is unmapped when dropped.
#[derive(Debug)]
struct Anonymous {
    base: *mut u8,
    length: usize,
}

// SAFETY: addresses only, reached through `GuestSlice`.
unsafe impl Send for Anonymous {}
// SAFETY: as above.
unsafe impl Sync for Anonymous {}

impl SharedMemory {
    /// Creates `size` bytes of zeroed shared memory. `name` shows up in `/proc/PID/maps`. The size may be changed later
    /// through the file descriptor, as a hostile front-end would.
    ///
    /// # Errors
    /// What the kernel said: for [`Pages::Huge`] mostly that there are too few huge pages.
    pub fn create(name: &str, size: usize, pages: Pages) -> io::Result<SharedMemory> {
        let (flags, page) = match pages {
            Pages::Small => (MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING, SMALL_PAGE),
            Pages::Huge => (MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, HUGE_PAGE),
        };
        let fd = rustix::fs::memfd_create(name, flags)?;
        let length = size.max(1).next_multiple_of(page);
        rustix::fs::ftruncate(&fd, length as u64)?;
        // SAFETY: a fresh mapping at an address that the kernel picks.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &fd,
                0,
            )?
        };
        Ok(SharedMemory { fd, memory: Anonymous { base: base.cast(), length } })
    }

    /// The file that a front-end passes to its back-end.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// All of it. Valid for as long as this value.
    #[must_use]
    pub fn slice(&self) -> GuestSlice {
        // SAFETY: exactly our mapping, which is unmapped when `self` is dropped.
        unsafe { GuestSlice::from_raw(self.memory.base, self.memory.length) }
    }

    /// Size in bytes, whole pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.length
    }

    /// Never: there is at least one page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.memory.length == 0
    }

    /// Takes our own access away (`PROT_NONE`) or gives it back. The other side's mappings are not affected.
    ///
    /// # Errors
    /// What `mprotect` said.
    pub fn protect(&self, accessible: bool) -> io::Result<()> {
        let flags = if accessible {
            rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE
        } else {
            rustix::mm::MprotectFlags::empty()
        };
        // SAFETY: exactly our mapping; taking access away can only make our own accesses fault.
        unsafe { rustix::mm::mprotect(self.memory.base.cast(), self.memory.length, flags)? };
        Ok(())
    }

    /// Forbids that the memory is made smaller from now on, by anyone.
    ///
    /// # Errors
    /// What `fcntl(F_ADD_SEALS)` said; huge pages cannot be sealed here.
    pub fn seal_size(&self) -> io::Result<()> {
        Ok(rustix::fs::fcntl_add_seals(&self.fd, SealFlags::SHRINK | SealFlags::GROW)?)
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        // SAFETY: mapped by the constructor of the owner, unmapped only here.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.cast(), self.length) } {
            tracing::error!("munmap of {} bytes of our own: {error}", self.length);
        }
    }
}

/// What a [`HugeRegion`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// 2 MiB pages from the kernel's pool.
    Huge,
    /// Ordinary memory, with transparent huge pages where the kernel has them: the pool had too few.
    Plain,
}

/// Anonymous memory for block data: huge pages where there are enough, ordinary memory otherwise. Zeroed and resident.
#[derive(Debug)]
pub struct HugeRegion {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Huge { base: *mut u8, layout: Layout },
    Plain(Anonymous),
}

// SAFETY: addresses only, reached through `GuestSlice`.
unsafe impl Send for HugeRegion {}
// SAFETY: as above.
unsafe impl Sync for HugeRegion {}

impl HugeRegion {
    /// Allocates `size` bytes, from huge pages if the pool has enough of them.
    ///
    /// # Errors
    /// If there is not that much memory of either kind.
    pub fn allocate(size: usize) -> io::Result<HugeRegion> {
        let len = size.max(1);
        match HugeRegion::huge(len)? {
            Some(region) => Ok(region),
            None => HugeRegion::plain(len),
        }
    }

    fn plain(len: usize) -> io::Result<HugeRegion> {
        let length = len.checked_next_multiple_of(HUGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh anonymous mapping at an address that the kernel picks.
        let base = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?
        };
        let plain = Anonymous { base: base.cast(), length };
        // SAFETY: our own fresh mapping; neither advice changes its content.
        unsafe {
            let _ = rustix::mm::madvise(base, length, Advice::LinuxHugepage);
            rustix::mm::madvise(base, length, Advice::LinuxPopulateWrite)?;
        }
        Ok(HugeRegion { memory: Memory::Plain(plain), len })
    }

    fn huge(len: usize) -> io::Result<Option<HugeRegion>> {
        // hugepage-rs reads the default size of huge pages from the kernel and panics where there are none at all.
        if !std::fs::read_to_string("/proc/meminfo")?.contains("Hugepagesize:") {
            return Ok(None);
        }
        let Ok(layout) = Layout::from_size_align(len, SMALL_PAGE) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        // SAFETY: the layout's size is not zero.
        let base = unsafe { hugepage_rs::alloc(layout) };
        if base.is_null() {
            return Ok(None);
        }
        let region = HugeRegion { memory: Memory::Huge { base, layout }, len };
        // SAFETY: our own fresh mapping; the pool has reserved its pages, this makes them resident.
        match unsafe { rustix::mm::madvise(base.cast(), len.next_multiple_of(HUGE_PAGE), Advice::LinuxPopulateWrite) } {
            Ok(()) => Ok(Some(region)),
            Err(_) => Ok(None), // the pool ran dry on this memory node: `region` goes back
        }
    }

    /// All of it. Valid for as long as this value.
    #[must_use]
    #[inline]
    pub fn slice(&self) -> GuestSlice {
        let base = match &self.memory {
            Memory::Huge { base, .. } => *base,
            Memory::Plain(plain) => plain.base,
        };
        // SAFETY: inside our mapping, which is unmapped when `self` is dropped.
        unsafe { GuestSlice::from_raw(base, self.len) }
    }

    /// Sets a range to zero, as far as it is inside. Ordinary memory is given back to the system in whole small pages,
    /// to come again, zeroed, when it is touched next. Huge pages are kept: the pool might have none left when this one
    /// is touched again, which would kill the process.
    pub fn clear(&self, offset: usize, len: usize) {
        let len = len.min(self.len.saturating_sub(offset));
        let Some(range) = self.slice().subslice(offset, len) else { return };
        let (front, back) = (offset.next_multiple_of(SMALL_PAGE), (offset + len) / SMALL_PAGE * SMALL_PAGE);
        if matches!(self.memory, Memory::Huge { .. }) || front >= back {
            return range.fill(0);
        }
        let (head, rest) = range.split_at(front - offset);
        let (pages, tail) = rest.split_at(back - front);
        head.fill(0);
        tail.fill(0);
        // SAFETY: whole pages inside our own private anonymous mapping. Nobody holds a reference into it; copies that
        // race with this see old bytes or zeroes.
        if unsafe { rustix::mm::madvise(pages.as_ptr().cast(), pages.len(), Advice::LinuxDontNeed) }.is_err() {
            pages.fill(0); // locked memory cannot be given back
        }
    }

    /// What it is made of.
    #[must_use]
    pub fn backing(&self) -> Backing {
        match self.memory {
            Memory::Huge { .. } => Backing::Huge,
            Memory::Plain(_) => Backing::Plain,
        }
    }
}

impl Drop for HugeRegion {
    fn drop(&mut self) {
        if let Memory::Huge { base, layout } = self.memory {
            // SAFETY: allocated with exactly this layout, freed only here.
            unsafe { hugepage_rs::dealloc(base, layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_region_is_zeroed_and_holds_its_size_whatever_the_backing() {
        let region = HugeRegion::allocate(3 << 20).unwrap();
        assert_eq!(region.slice().len(), 3 << 20);
        let mut bytes = vec![1u8; 3 << 20];
        region.slice().read(&mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0));
        region.slice().fill(7);
        assert_eq!(region.slice().subslice((3 << 20) - 1, 1).unwrap().read_array::<1>(), Some([7]));
    }

    #[test]
    fn huge_region_cleared_is_zero_there_and_only_there() {
        const SIZE: usize = 64 << 10;
        let region = HugeRegion::allocate(SIZE).unwrap();
        for (offset, len) in [(0, SIZE), (1, 1), (0, 4096), (4095, 2), (100, 12_000), (8192, 8192), (SIZE - 512, 512)] {
            region.slice().fill(7);
            region.clear(offset, len);
            let mut bytes = vec![1u8; SIZE];
            region.slice().read(&mut bytes);
            let cleared = |at: &usize| (offset..offset + len).contains(at);
            assert!((0..SIZE).all(|at| bytes[at] == if cleared(&at) { 0 } else { 7 }), "{offset} + {len}");
        }
        region.slice().fill(7);
        region.clear(SIZE, 1);
        region.clear(SIZE - 1, usize::MAX);
        assert_eq!(region.slice().subslice(SIZE - 2, 2).unwrap().read_array::<2>(), Some([7, 0]));
    }

    #[test]
    fn plain_memory_cleared_is_given_back() {
        let region = HugeRegion::plain(8 << 20).unwrap();
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let start = region.slice().as_ptr() as usize;
            let mut rss = 0;
            let mut inside = false;
            for line in smaps.lines() {
                if let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
                    let (from, to) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16));
                    inside = from.unwrap_or(0) <= start && start < to.unwrap_or(0);
                } else if inside && line.starts_with("Rss:") {
                    rss = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
                }
            }
            rss
        };
        let before: usize = resident();
        region.clear(0, 8 << 20);
        let after: usize = resident();
        assert!(before >= 8 << 10 && after + (8 << 10) <= before, "{before} KiB, then {after} KiB");
    }

    #[test]
    fn huge_region_beyond_memory_is_an_error_not_a_crash() {
        assert!(HugeRegion::allocate(usize::MAX / 4).is_err());
    }

    #[test]
    fn shared_memory_rounds_up_to_pages() {
        let memory = SharedMemory::create("own", 5000, Pages::Small).unwrap();
        assert_eq!(memory.len(), 8192);
        memory.seal_size().unwrap();
        assert!(rustix::fs::ftruncate(memory.fd(), 4096).is_err());
    }
}
