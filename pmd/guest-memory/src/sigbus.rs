//! The SIGBUS guard: a front-end that truncates its memory stops its own device, not the process.
//!
//! Every [`crate::Mapping`] stands in a lock-free table. When an access to one faults because the file behind it has
//! become shorter (or a page of it is bad), the handler maps anonymous memory over the *whole* mapping, sets its poison
//! flag and returns; the access goes on with zero pages. The poller sees the flag after its batch and stops the device.
//! A SIGBUS anywhere else goes to the handler that was there before.
//!
//! The handler does only what is safe in one: atomics, `mmap`, `sigaction`.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// How many regions can be mapped in one process.
pub(crate) const REGIONS_MAX: usize = 4096;

/// One place in the table of watched regions.
struct Slot {
    /// 0 when free, 1 while being filled, the region's address otherwise.
    start: AtomicUsize,
    length: AtomicUsize,
    poisoned: AtomicBool,
}

const FREE: usize = 0;
const CLAIMED: usize = 1;

static SLOTS: [Slot; REGIONS_MAX] =
    [const { Slot { start: AtomicUsize::new(FREE), length: AtomicUsize::new(0), poisoned: AtomicBool::new(false) } };
        REGIONS_MAX];

/// The handler that was installed before ours. Written once, before ours is installed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// A region's place in the table.
#[derive(Debug)]
pub(crate) struct Guard(usize);

impl Guard {
    /// Watches `length` bytes at `start`; `None` if the table is full. Installs the handler the first time.
    pub(crate) fn watch(start: *mut u8, length: usize) -> Option<Guard> {
        install();
        let index = SLOTS.iter().position(|slot| {
            slot.start.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })?;
        let slot = &SLOTS[index];
        slot.length.store(length, Ordering::Relaxed);
        slot.poisoned.store(false, Ordering::Relaxed);
        slot.start.store(start as usize, Ordering::Release);
        Some(Guard(index))
    }

    /// Whether a SIGBUS hit the region.
    #[inline]
    pub(crate) fn poisoned(&self) -> bool {
        SLOTS[self.0].poisoned.load(Ordering::Relaxed)
    }

    /// Stops watching. Called once, before the region is unmapped; the place may serve another region after that.
    pub(crate) fn release(&mut self) {
        SLOTS[self.0].start.store(FREE, Ordering::Release);
    }
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: plain sigaction calls with structures that live through them. The previous action is leaked on
        // purpose: the handler may read it at any time from now on.
        unsafe {
            let previous = Box::leak(Box::new(MaybeUninit::<libc::sigaction>::zeroed().assume_init()));
            libc::sigaction(libc::SIGBUS, ptr::null(), previous);
            PREVIOUS.store(previous, Ordering::Release);
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    });
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid siginfo for SA_SIGINFO handlers; si_addr is set for SIGBUS.
    let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
    // Only faults have an address (codes above 0 come from the kernel; a `kill` does not).
    if code > 0
        && let Some(slot) = slot_of(address)
        && replace(slot)
    {
        return;
    }
    forward(signal, info, context);
}

fn slot_of(address: usize) -> Option<&'static Slot> {
    SLOTS.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start > CLAIMED && address.wrapping_sub(start) < slot.length.load(Ordering::Relaxed)
    })
}

/// Maps zero pages over the region and marks it; false if the kernel refuses, so that the fault is not met for ever.
fn replace(slot: &Slot) -> bool {
    let (start, length) = (slot.start.load(Ordering::Relaxed), slot.length.load(Ordering::Relaxed));
    // SAFETY: the region is mapped (the faulting access is to it, and whoever accesses it keeps it mapped), and it is
    // ours as a whole. Shared, so that it behaves as the file's pages did; mmap is a plain system call.
    let mapped = unsafe {
        libc::mmap(
            start as *mut libc::c_void,
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    slot.poisoned.store(true, Ordering::Release);
    mapped != libc::MAP_FAILED
}

/// Hands a SIGBUS that is not ours to whoever had it before us.
fn forward(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.load(Ordering::Acquire);
    // SAFETY: set before our handler was installed, never freed; calling it is what the kernel would have done.
    unsafe {
        match (*previous).sa_sigaction {
            libc::SIG_IGN => {}
            libc::SIG_DFL => {
                // The default action at the faulting instruction: it is run again and kills the process, with the right
                // signal and a core dump of the right place. One that came by kill() is raised again.
                libc::sigaction(signal, previous, ptr::null_mut());
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
            handler if (*previous).sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Mapping, MemTable, Pages, RegionConfig, SharedMemory};
    use std::sync::Arc;

    fn truncated_region(pages: Pages, size: usize) -> Option<(SharedMemory, Arc<Mapping>)> {
        let memory = match SharedMemory::create("truncated", size, pages) {
            Ok(memory) => memory,
            Err(error) if pages == Pages::Huge => {
                eprintln!("SKIPPED sigbus on 2 MiB pages: no huge pages here ({error})");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let config = RegionConfig { guest_addr: 0, size: size as u64, user_addr: 0, mmap_offset: 0 };
        let mapping = Arc::new(Mapping::map(memory.fd(), &config).unwrap());
        assert!(!mapping.poisoned());
        rustix::fs::ftruncate(memory.fd(), 0).unwrap();
        Some((memory, mapping))
    }

    fn access_after_truncation_poisons(pages: Pages, size: usize) {
        let Some((_memory, mapping)) = truncated_region(pages, size) else {
            return;
        };
        let other_memory = SharedMemory::create("other", 4096, Pages::Small).unwrap();
        let config = RegionConfig { guest_addr: 1 << 40, size: 4096, user_addr: 1 << 40, mmap_offset: 0 };
        let other = Arc::new(Mapping::map(other_memory.fd(), &config).unwrap());
        let table = MemTable::new(vec![Arc::clone(&mapping)]).unwrap();
        let middle = mapping.memory().subslice(size / 2, 8).unwrap();
        assert_eq!(middle.read_array::<8>(), Some([0; 8]));
        assert!(mapping.poisoned() && table.poisoned());
        assert!(!other.poisoned(), "the neighbour is not touched");
        // The whole region is usable, not only the page that faulted.
        mapping.memory().fill(3);
        assert_eq!(middle.read_array::<1>(), Some([3]));
    }

    #[test]
    fn r17_access_to_truncated_memory_of_small_pages_poisons_only_that_region() {
        access_after_truncation_poisons(Pages::Small, 64 << 10);
    }

    #[test]
    fn r17_access_to_truncated_memory_of_huge_pages_poisons_only_that_region() {
        access_after_truncation_poisons(Pages::Huge, 4 << 20);
    }

    #[test]
    fn r17_write_to_truncated_memory_is_survived_too() {
        let (_memory, mapping) = truncated_region(Pages::Small, 8192).unwrap();
        mapping.memory().fill(1);
        assert!(mapping.poisoned());
    }

    #[test]
    fn sigbus_elsewhere_kills_as_before() {
        // A child process: maps a file by hand, truncates it, touches it. Our handler must let it die of SIGBUS.
        const CHILD: &str = "RINGSIDE_SIGBUS_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let (memory, _mapping) = truncated_region(Pages::Small, 4096).unwrap(); // handler installed
            memory.slice().fill(1); // the driver's own mapping is not watched
            unreachable!("the process is dead");
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sigbus::tests::sigbus_elsewhere_kills_as_before", "--nocapture"])
            .env(CHILD, "1")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGBUS));
    }
}
