//! The memory of front-ends, as far as SPDK knows it: registered when it is mapped, on the control thread that maps it, and
//! looked up by pollers without a lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use guest_memory::{GuestSlice, MappingObserver};
use parking_lot::{Mutex, RwLock};
use spdk_rs::{Env, Registered};

/// All of it.
#[derive(Debug)]
pub(crate) struct Memory {
    env: Env,
    /// By address of the mapping.
    mappings: Mutex<BTreeMap<usize, Known>>,
    /// Ranges that SPDK knows, ascending and apart.
    ranges: RwLock<Arc<[Range]>>,
    /// Counts changes of `ranges`.
    generation: AtomicU64,
}

/// A mapping, and what SPDK took of it.
#[derive(Debug)]
struct Known {
    len: usize,
    registered: Option<(Range, Registered)>,
}

/// Addresses from `start` up to, and without, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: usize,
    end: usize,
}

/// How much memory of front-ends is mapped, and how much of it SPDK has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryCounts {
    /// Bytes that are mapped.
    pub mapped_bytes: u64,
    /// Bytes of them that devices reach without a copy.
    pub registered_bytes: u64,
}

impl Memory {
    pub(crate) fn new(env: Env) -> Memory {
        Memory { env, mappings: Mutex::default(), ranges: RwLock::new(Arc::new([])), generation: AtomicU64::new(0) }
    }

    pub(crate) fn counts(&self) -> MemoryCounts {
        let mappings = self.mappings.lock();
        let registered = mappings.values().filter_map(|known| known.registered.as_ref());
        MemoryCounts {
            mapped_bytes: mappings.values().map(|known| known.len as u64).sum(),
            registered_bytes: registered.map(|(range, _)| (range.end - range.start) as u64).sum(),
        }
    }

    fn publish(&self, mappings: &BTreeMap<usize, Known>) {
        let ranges = mappings.values().filter_map(|known| known.registered.as_ref());
        *self.ranges.write() = ranges.map(|(range, _)| *range).collect();
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl MappingObserver for Memory {
    fn mapped(&self, memory: GuestSlice) {
        // Not under the lock: an IOMMU takes its time.
        let registered = register(self.env, memory);
        if registered.is_none() {
            tracing::warn!(bytes = memory.len(), "SPDK does not take a guest's memory: its data is copied on its way");
        }
        let mut mappings = self.mappings.lock();
        mappings.insert(memory.as_ptr().addr(), Known { len: memory.len(), registered });
        self.publish(&mappings);
    }

    fn unmapping(&self, memory: GuestSlice) {
        let mut mappings = self.mappings.lock();
        let known = mappings.remove(&memory.as_ptr().addr());
        self.publish(&mappings);
        drop(mappings);
        drop(known);
    }
}

/// All of it, or the largest part of it that is made of whole huge pages: SPDK before 25.09 takes nothing else.
fn register(env: Env, memory: GuestSlice) -> Option<(Range, Registered)> {
    let start = memory.as_ptr().addr();
    let whole = Range { start, end: start + memory.len() };
    let huge = Range {
        start: whole.start.next_multiple_of(Registered::HUGE_PAGE),
        end: whole.end / Registered::HUGE_PAGE * Registered::HUGE_PAGE,
    };
    [whole, huge].into_iter().filter(|range| range.start < range.end).find_map(|range| {
        let address = memory.as_ptr().with_addr(range.start);
        // SAFETY: mapped, until `unmapping` takes it back; requests that use it have ended by then (see `guest_memory`).
        let registered = unsafe { Registered::new(env, address, range.end - range.start) };
        match registered {
            Ok(registered) => Some((range, registered)),
            Err(errno) => {
                tracing::debug!(bytes = range.end - range.start, %errno, "not registered");
                None
            }
        }
    })
}

/// A poller's view of it.
#[derive(Debug)]
pub(crate) struct View {
    memory: Arc<Memory>,
    generation: u64,
    ranges: Arc<[Range]>,
    last: Range,
}

impl View {
    pub(crate) fn new(memory: &Arc<Memory>) -> View {
        let nothing = Range { start: 0, end: 0 };
        View { memory: Arc::clone(memory), generation: u64::MAX, ranges: Arc::new([]), last: nothing }
    }

    /// Whether devices reach all of these bytes.
    #[inline]
    pub(crate) fn covers(&mut self, slices: &[GuestSlice]) -> bool {
        // Whoever got a slice of a new mapping got it after the change was counted.
        if self.memory.generation.load(Ordering::Acquire) != self.generation {
            self.renew();
        }
        slices.iter().all(|slice| self.covers_one(slice))
    }

    #[inline]
    fn covers_one(&mut self, slice: &GuestSlice) -> bool {
        let start = slice.as_ptr().addr();
        let end = start + slice.len();
        if self.last.start <= start && end <= self.last.end {
            return true;
        }
        let after = self.ranges.partition_point(|range| range.start <= start);
        let Some(range) = after.checked_sub(1).map(|at| self.ranges[at]).filter(|range| end <= range.end) else {
            return slice.is_empty();
        };
        self.last = range;
        true
    }

    /// After a memory table has changed, which is when a lock does not hurt.
    #[cold]
    fn renew(&mut self) {
        self.generation = self.memory.generation.load(Ordering::Acquire);
        self.ranges = Arc::clone(&self.memory.ranges.read());
        self.last = Range { start: 0, end: 0 };
    }
}
