//! Which threads may not map or unmap the memory of a front-end: for large memory that takes milliseconds to seconds, and a
//! poller would hold up every other device. Checked in builds with debug assertions only.

use std::cell::Cell;

thread_local! {
    static POLLER: Cell<bool> = const { Cell::new(false) };
}

/// From now on it is a bug if this thread maps or unmaps a [`Mapping`](crate::Mapping): a panic in builds with debug
/// assertions.
pub fn never_map_on_this_thread() {
    POLLER.set(true);
}

#[inline]
#[track_caller]
pub(crate) fn assert_may_map(what: &str) {
    debug_assert!(
        !POLLER.get() || std::thread::panicking(),
        "{what} on a poller: every other device would wait for it"
    );
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{Mapping, Pages, RegionConfig, SharedMemory};

    #[test]
    fn mapping_on_a_poller_is_a_bug_and_so_is_unmapping() {
        let memory = SharedMemory::create("poller", 4096, Pages::Small).unwrap();
        let config = RegionConfig { guest_addr: 0, size: 4096, user_addr: 0, mmap_offset: 0 };
        let map = || Mapping::map(memory.fd(), &config).unwrap();
        let mapped = map();
        let poller = std::thread::scope(|scope| {
            let poller = scope.spawn(|| {
                never_map_on_this_thread();
                let unmapped = catch_unwind(AssertUnwindSafe(|| drop(mapped))).is_err();
                (unmapped, catch_unwind(AssertUnwindSafe(map)).is_err())
            });
            poller.join().unwrap()
        });
        assert_eq!(poller, (cfg!(debug_assertions), cfg!(debug_assertions)));
        drop(map());
    }
}
