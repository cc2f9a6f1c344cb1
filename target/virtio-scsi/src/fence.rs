//! The fence of task management (R07): one function at a time, announced to every shard of the device, joined by each when it
//! dispatches nothing in its scope any more, acknowledged when nothing of that is left. Atomics only; what a shard does in
//! between is `sweep.rs`.
//!
//! The shard of the control queue raises the fence. Every shard looks at the epoch once a poll, which is one load of a
//! line that nobody writes meanwhile. A shard acknowledges after the used entries of the affected commands have been
//! published, with release; the control shard reads the last acknowledgement with acquire, and so its own used entry
//! comes after all of theirs.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Position of a logical unit in its controller's map.
pub type UnitIndex = u16;

/// Which commands a function acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The command of a logical unit that has this tag.
    Task {
        /// The unit.
        unit: UnitIndex,
        /// The identifier that the driver gave the command.
        tag: u64,
    },
    /// Every command of a logical unit.
    Unit(UnitIndex),
    /// Every command of a target.
    Target(u8),
}

/// What the function does with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They end with `S_ABORTED`.
    Abort,
    /// They end with `S_RESET`.
    Reset,
    /// They go on; it is only asked whether there is one.
    Query,
}

/// One task management function as shards see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Which commands.
    pub scope: Scope,
    /// What becomes of them.
    pub verdict: Verdict,
}

/// The meeting point of a device's shards.
#[derive(Debug)]
pub struct Fence {
    shards: u32,
    /// Number of functions raised so far.
    epoch: AtomicU64,
    /// Scope and verdict, written before the epoch.
    word: AtomicU64,
    tag: AtomicU64,
    /// Shards that have not joined.
    outside: AtomicU32,
    /// Shards that have not acknowledged.
    missing: AtomicU32,
    found: AtomicBool,
}

impl Fence {
    /// A fence for this many shards.
    #[must_use]
    pub fn new(shards: u32) -> Fence {
        Fence {
            shards,
            epoch: AtomicU64::new(0),
            word: AtomicU64::new(0),
            tag: AtomicU64::new(0),
            outside: AtomicU32::new(0),
            missing: AtomicU32::new(0),
            found: AtomicBool::new(false),
        }
    }

    /// Announces a function. Only the control shard does, and only when the one before has its [`Fence::result`].
    pub fn raise(&self, sweep: Sweep) {
        debug_assert_eq!(self.missing.load(Ordering::Relaxed), 0, "one function at a time");
        let (word, tag) = encode(sweep);
        self.word.store(word, Ordering::Relaxed);
        self.tag.store(tag, Ordering::Relaxed);
        self.found.store(false, Ordering::Relaxed);
        self.outside.store(self.shards, Ordering::Relaxed);
        self.missing.store(self.shards, Ordering::Relaxed);
        // Release: whoever sees the epoch sees what stands above. Only this shard writes it.
        self.epoch.store(self.epoch.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Whether a function was raised since `seen`: one load, once a poll, by every shard.
    #[inline]
    pub fn raised_since(&self, seen: u64) -> bool {
        self.epoch.load(Ordering::Relaxed) != seen
    }

    /// The function that was raised since `seen`, if any.
    pub fn look(&self, seen: &mut u64) -> Option<Sweep> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch == *seen {
            return None;
        }
        *seen = epoch;
        Some(decode(self.word.load(Ordering::Relaxed), self.tag.load(Ordering::Relaxed)))
    }

    /// This shard has seen the function, and gives no backend a command in its scope any more.
    pub fn join(&self) {
        self.outside.fetch_sub(1, Ordering::Release);
    }

    /// Whether every shard has joined: what is in the function's scope is at a backend by now, or never will be.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.outside.load(Ordering::Acquire) == 0
    }

    /// Nothing in the function's scope is left in this shard, and what there was has been published. `found` says that
    /// there was something.
    pub fn acknowledge(&self, found: bool) {
        if found {
            self.found.store(true, Ordering::Relaxed);
        }
        self.missing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a command was found, once every shard has acknowledged.
    #[must_use]
    pub fn result(&self) -> Option<bool> {
        (self.missing.load(Ordering::Acquire) == 0).then(|| self.found.load(Ordering::Relaxed))
    }
}

// Word: bits 0-1 scope, 2-3 verdict, 16-31 unit or target.
fn encode(sweep: Sweep) -> (u64, u64) {
    let (kind, place, tag) = match sweep.scope {
        Scope::Task { unit, tag } => (0, unit, tag),
        Scope::Unit(unit) => (1, unit, 0),
        Scope::Target(target) => (2, u16::from(target), 0),
    };
    let verdict = match sweep.verdict {
        Verdict::Abort => 0,
        Verdict::Reset => 1,
        Verdict::Query => 2,
    };
    (kind | verdict << 2 | u64::from(place) << 16, tag)
}

fn decode(word: u64, tag: u64) -> Sweep {
    let place = (word >> 16) as u16;
    let scope = match word & 3 {
        0 => Scope::Task { unit: place, tag },
        1 => Scope::Unit(place),
        _ => Scope::Target(place as u8),
    };
    let verdict = match (word >> 2) & 3 {
        0 => Verdict::Abort,
        1 => Verdict::Reset,
        _ => Verdict::Query,
    };
    Sweep { scope, verdict }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn sweep_survives_the_trip_through_the_fence() {
        for scope in [Scope::Task { unit: 7, tag: u64::MAX }, Scope::Unit(0xffff), Scope::Target(255)] {
            for verdict in [Verdict::Abort, Verdict::Reset, Verdict::Query] {
                let fence = Fence::new(1);
                let mut seen = 0;
                assert_eq!(fence.look(&mut seen), None);
                fence.raise(Sweep { scope, verdict });
                assert_eq!(fence.look(&mut seen), Some(Sweep { scope, verdict }));
                assert_eq!(fence.look(&mut seen), None);
                assert_eq!(fence.result(), None);
                fence.acknowledge(true);
                assert_eq!(fence.result(), Some(true));
            }
        }
    }

    #[test]
    fn r07_fence_waits_for_every_shard() {
        let fence = Fence::new(3);
        for _ in 0..2 {
            fence.raise(Sweep { scope: Scope::Unit(1), verdict: Verdict::Reset });
            fence.join();
            fence.acknowledge(false);
            fence.join();
            fence.acknowledge(false);
            assert!(!fence.is_joined() && fence.result().is_none());
            fence.join();
            assert!(fence.is_joined() && fence.result().is_none());
            fence.acknowledge(false);
            assert_eq!(fence.result(), Some(false));
        }
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// R07: when the control shard sees the result, it sees everything that the other shard published before.
    #[test]
    fn r07_result_comes_after_the_last_used_entry() {
        loom::model(|| {
            let fence = Arc::new(Fence::new(2));
            let used = Arc::new(AtomicU32::new(0));
            let dispatched = Arc::new(AtomicU32::new(0));
            let other = {
                let (fence, used, dispatched) = (Arc::clone(&fence), Arc::clone(&used), Arc::clone(&dispatched));
                thread::spawn(move || {
                    let mut seen = 0;
                    if let Some(sweep) = fence.look(&mut seen) {
                        assert_eq!(sweep.scope, Scope::Task { unit: 3, tag: 99 });
                        dispatched.store(1, Ordering::Relaxed);
                        fence.join();
                        used.store(1, Ordering::Relaxed);
                        fence.acknowledge(true);
                        return true;
                    }
                    false
                })
            };
            let mut seen = 0;
            fence.raise(Sweep { scope: Scope::Task { unit: 3, tag: 99 }, verdict: Verdict::Abort });
            assert!(fence.look(&mut seen).is_some());
            fence.join();
            fence.acknowledge(false);
            // Whoever resets the backend now resets what the other shard has dispatched.
            if fence.is_joined() {
                assert_eq!(dispatched.load(Ordering::Relaxed), 1);
            }
            let early = fence.result();
            if early.is_some() {
                assert_eq!((early, used.load(Ordering::Relaxed)), (Some(true), 1));
            }
            if other.join().unwrap() {
                assert_eq!((fence.result(), used.load(Ordering::Relaxed)), (Some(true), 1));
            } else {
                assert_eq!(fence.result(), None);
            }
        });
    }
}
