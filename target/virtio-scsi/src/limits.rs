//! The transport's hard limits (R01-R06) and the share of one that a command holds. What is answered when one is hit
//! stands in the policies; who asks is `request.rs`.

use std::mem;
use std::sync::Arc;

use ::stats::OwnLines;
#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};

/// What a command gets that is one too many for its LUN (R02).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCommandLimit {
    /// `VIRTIO_SCSI_S_BUSY`.
    #[default]
    Transport,
    /// `VIRTIO_SCSI_S_FAILURE`.
    Failure,
    /// Status TASK SET FULL.
    Scsi,
}

/// What a command gets that moves too much (R01).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTransferLimit {
    /// `VIRTIO_SCSI_S_FAILURE`.
    #[default]
    Transport,
    /// CHECK CONDITION, ILLEGAL REQUEST, INVALID FIELD IN CDB.
    Scsi,
}

/// Limits of one controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Commands in flight per LUN over all request queues, at least 1.
    pub cmd_per_lun: u32,
    /// Data bytes of one command in 512-byte sectors, at least 1.
    pub max_sectors: u32,
    /// Data segments of one command per direction; `None` means ring size - 2.
    pub seg_max: Option<u32>,
    /// Policy for `cmd_per_lun`.
    pub on_cmd_per_lun: OnCommandLimit,
    /// Policy for `max_sectors`.
    pub on_max_sectors: OnTransferLimit,
}

impl Default for Limits {
    /// What QEMU tells a guest unless it is told otherwise.
    fn default() -> Limits {
        Limits {
            cmd_per_lun: 128,
            max_sectors: 65535,
            seg_max: None,
            on_cmd_per_lun: OnCommandLimit::default(),
            on_max_sectors: OnTransferLimit::default(),
        }
    }
}

/// One command's share of its LUN's `cmd_per_lun`. It goes back through [`Credits::retire`]; losing one would shrink the
/// LUN for good, so that is a panic in builds with debug assertions.
#[derive(Debug)]
#[must_use = "a slot has to be given back"]
pub struct CommandSlot(());

/// Shares of several commands, taken at once. Each goes back as one: through [`Credits::retire_all`], as a
/// [`CommandSlot`], or unused through [`Credits::put_back`].
#[derive(Debug)]
#[must_use = "slots have to be given back"]
pub struct CommandSlots(u32);

impl CommandSlots {
    /// How many there are.
    #[must_use]
    #[inline]
    pub fn count(&self) -> u32 {
        self.0
    }

    /// Takes one out; `None` if there is none left.
    #[inline]
    pub fn take_one(&mut self) -> Option<CommandSlot> {
        self.0 = self.0.checked_sub(1)?;
        Some(CommandSlot(()))
    }

    /// Takes up to `count` of them out.
    #[inline]
    pub fn split_off(&mut self, count: u32) -> CommandSlots {
        let count = count.min(self.0);
        self.0 -= count;
        CommandSlots(count)
    }
}

/// The count of commands in flight of one LUN, as one shard sees it.
///
/// While the LUN has one shard this is a plain counter. Spread over several, the shards share one atomic: a claim never
/// takes it above the limit, so the count is exact over all queues.
#[derive(Debug)]
pub struct Credits {
    limit: u32,
    /// Held by commands of this shard, those in `retiring` included.
    held: u32,
    /// Completed but not yet published: given back just before the used index is stored.
    retiring: u32,
    /// The most in flight since the last release, over all shards.
    peak: u32,
    shared: Option<Arc<OwnLines<AtomicU32>>>,
}

impl Credits {
    /// No command in flight. `shared` is given if other shards serve the same LUN.
    #[must_use]
    pub fn new(limit: u32, shared: Option<Arc<OwnLines<AtomicU32>>>) -> Credits {
        Credits { limit, held: 0, retiring: 0, peak: 0, shared }
    }

    /// Takes a share, unless the limit is reached.
    #[inline]
    pub fn take(&mut self) -> Option<CommandSlot> {
        let in_flight = match &self.shared {
            None if self.held < self.limit => self.held + 1,
            None => return None,
            Some(shared) => claim(shared, self.limit)?,
        };
        self.held += 1;
        self.peak = self.peak.max(in_flight);
        Some(CommandSlot(()))
    }

    /// Takes up to `wanted` shares, as many as there are: one claim for all, where shards share the count. For commands that
    /// are there: a share that is taken and not used would let another shard refuse one too early.
    #[inline]
    pub fn take_up_to(&mut self, wanted: u32) -> CommandSlots {
        let (taken, in_flight) = match &self.shared {
            None => {
                let taken = wanted.min(self.limit.saturating_sub(self.held));
                (taken, self.held + taken)
            }
            Some(shared) => claim_up_to(shared, self.limit, wanted),
        };
        self.held += taken;
        self.peak = self.peak.max(in_flight);
        CommandSlots(taken)
    }

    /// Another limit, from now on. Commands beyond a lower one keep their shares; there are no new ones until enough have
    /// been given back.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// The most commands that were in flight at once since the last release, over all shards.
    #[must_use]
    #[inline]
    pub fn peak(&self) -> u32 {
        self.peak
    }

    /// Takes the slot of a completed command. It counts as in flight until [`Credits::release`].
    #[inline]
    pub fn retire(&mut self, slot: CommandSlot) {
        mem::forget(slot);
        self.retiring += 1;
    }

    /// As [`Credits::retire`] for the slots of several completed commands.
    #[inline]
    pub fn retire_all(&mut self, slots: CommandSlots) {
        self.retiring += slots.0;
        mem::forget(slots);
    }

    /// Takes slots back that no command came to hold.
    #[cold]
    pub fn put_back(&mut self, slots: CommandSlots) {
        self.held -= slots.0;
        if let Some(shared) = &self.shared {
            shared.fetch_sub(slots.0, Ordering::Release);
        }
        mem::forget(slots);
    }

    /// Gives back what was retired: to be called just before the used entries become visible.
    #[inline]
    pub fn release(&mut self) {
        self.held -= self.retiring;
        self.peak = 0;
        if let Some(shared) = &self.shared {
            // Release: whoever claims next must not be seen in flight together with what ended here.
            shared.fetch_sub(self.retiring, Ordering::Release);
        }
        self.retiring = 0;
    }

    /// Commands in flight, over all shards.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.shared.as_ref().map_or(self.held, |shared| shared.load(Ordering::Relaxed))
    }

    /// Commands in flight that this shard holds.
    #[must_use]
    #[inline]
    pub fn held(&self) -> u32 {
        self.held
    }
}

/// Adds 1 unless that exceeds `limit`; the new value.
fn claim(shared: &AtomicU32, limit: u32) -> Option<u32> {
    let claimed = shared.fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| (n < limit).then_some(n + 1));
    claimed.ok().map(|before| before + 1)
}

/// Adds as much of `wanted` as does not exceed `limit`; how much that is, and the new value.
fn claim_up_to(shared: &AtomicU32, limit: u32, wanted: u32) -> (u32, u32) {
    let room = |in_flight: u32| wanted.min(limit.saturating_sub(in_flight));
    let claim = |in_flight| Some(room(in_flight)).filter(|taken| *taken > 0).map(|taken| in_flight + taken);
    match shared.fetch_update(Ordering::Acquire, Ordering::Relaxed, claim) {
        Ok(before) => (room(before), before + room(before)),
        Err(before) => (0, before),
    }
}

#[cfg(debug_assertions)]
impl Drop for CommandSlots {
    fn drop(&mut self) {
        let Self(count) = self;
        assert!(*count == 0 || std::thread::panicking(), "{count} command slots were dropped");
    }
}

#[cfg(debug_assertions)]
impl Drop for CommandSlot {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a command slot was dropped: its LUN would have lost a share for good");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn r02_credits_refuse_at_the_limit_and_not_before() {
        let mut credits = Credits::new(2, None);
        let a = credits.take().unwrap();
        let b = credits.take().unwrap();
        assert_eq!(credits.peak(), 2);
        assert!(credits.take().is_none());
        credits.retire(a);
        assert!(credits.take().is_none(), "in flight until just before the used entry is visible");
        credits.release();
        let c = credits.take().unwrap();
        assert_eq!(credits.peak(), 2);
        credits.retire(b);
        credits.retire(c);
        credits.release();
        assert_eq!(credits.held(), 0);
    }

    #[test]
    fn r02_credits_of_two_shards_share_one_exact_count() {
        let shared = Arc::new(OwnLines::new(AtomicU32::new(0)));
        let (mut a, mut b) = (Credits::new(3, Some(Arc::clone(&shared))), Credits::new(3, Some(Arc::clone(&shared))));
        let slots = [a.take().unwrap(), b.take().unwrap(), a.take().unwrap()];
        assert!(a.take().is_none() && b.take().is_none());
        let [first, second, third] = slots;
        b.retire(second);
        b.release();
        let fourth = b.take().unwrap();
        assert_eq!(b.peak(), 3);
        a.retire(first);
        a.retire(third);
        a.release();
        b.retire(fourth);
        b.release();
        assert_eq!(shared.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn r02_slots_taken_at_once_are_as_many_as_there_are_and_count_as_each_would() {
        for shared in [None, Some(Arc::new(OwnLines::new(AtomicU32::new(0))))] {
            let mut credits = Credits::new(5, shared.clone());
            let one = credits.take().unwrap();
            let mut slots = credits.take_up_to(9);
            assert_eq!((slots.count(), credits.held(), credits.peak()), (4, 5, 5));
            assert!(credits.take().is_none());
            assert_eq!(credits.take_up_to(1).count(), 0);
            let ended = slots.split_off(2);
            credits.retire(slots.take_one().unwrap());
            credits.retire_all(ended);
            assert_eq!(slots.count(), 1);
            assert_eq!(credits.take_up_to(1).count(), 0, "in flight until just before the used entry is visible");
            credits.put_back(slots);
            let again = credits.take_up_to(2);
            assert_eq!(again.count(), 1);
            credits.retire_all(again);
            credits.retire(one);
            credits.release();
            assert_eq!(credits.held(), 0);
            assert_eq!(shared.map_or(0, |shared| shared.load(Ordering::Relaxed)), 0);
        }
    }

    #[test]
    fn r02_limit_below_what_is_held_leaves_nothing_to_take_at_once() {
        let mut credits = Credits::new(5, None);
        let slots = credits.take_up_to(4);
        credits.set_limit(2);
        assert_eq!(credits.take_up_to(3).count(), 0);
        credits.retire_all(slots);
        credits.release();
        let slots = credits.take_up_to(3);
        assert_eq!(slots.count(), 2);
        credits.put_back(slots);
    }

    #[test]
    fn r02_shared_count_never_exceeds_the_limit_under_contention() {
        const LIMIT: u32 = 5;
        let shared = Arc::new(OwnLines::new(AtomicU32::new(0)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let mut credits = Credits::new(LIMIT, Some(Arc::clone(&shared)));
                    let mut taken = 0;
                    for round in 0..20_000 {
                        let mut slots = Vec::new();
                        for _ in 0..=(round % 3) {
                            slots.extend(credits.take());
                            assert!(credits.peak() <= LIMIT);
                        }
                        taken += slots.len();
                        slots.into_iter().for_each(|slot| credits.retire(slot));
                        credits.release();
                    }
                    taken
                })
            })
            .collect();
        assert!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>() > 20_000);
        assert_eq!(shared.load(Ordering::Relaxed), 0);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::thread;

    fn shared() -> Arc<OwnLines<AtomicU32>> {
        Arc::new(OwnLines::new(AtomicU32::new(0)))
    }

    /// R02: a driver that has seen the used entry finds the slot free, on whichever poller it asks.
    #[test]
    fn r02_refill_on_another_poller_is_never_refused() {
        loom::model(|| {
            let shared = shared();
            let used = Arc::new(AtomicU32::new(0));
            let mut first = Credits::new(1, Some(Arc::clone(&shared)));
            let slot = first.take().unwrap();
            let poller = {
                let used = Arc::clone(&used);
                thread::spawn(move || {
                    first.retire(slot);
                    first.release();
                    used.store(1, Ordering::Release);
                })
            };
            let mut second = Credits::new(1, Some(shared));
            let seen = used.load(Ordering::Acquire) == 1;
            let taken = second.take();
            assert!(taken.is_some() || !seen, "refused although nothing is in flight");
            if let Some(slot) = taken {
                second.retire(slot);
                second.release();
            }
            poller.join().unwrap();
        });
    }

    /// R02: pollers that take at the same time never hold more than the limit together, and where there is room for one of
    /// them, one gets it.
    #[test]
    fn r02_pollers_that_take_at_once_get_exactly_the_limit() {
        loom::model(|| {
            let (shared, backend) = (shared(), Arc::new(AtomicU32::new(0)));
            let take = |shared: Arc<OwnLines<AtomicU32>>, backend: Arc<AtomicU32>| {
                let mut credits = Credits::new(2, Some(shared));
                let slots = [credits.take(), credits.take()];
                let taken = slots.iter().flatten().count() as u32;
                let before = backend.fetch_add(taken, Ordering::AcqRel);
                assert!(before + taken <= 2, "{} at the backend", before + taken);
                slots.into_iter().flatten().for_each(mem::forget);
                taken
            };
            let other = {
                let (shared, backend) = (Arc::clone(&shared), Arc::clone(&backend));
                thread::spawn(move || take(shared, backend))
            };
            let mine = take(shared, backend);
            assert_eq!(mine + other.join().unwrap(), 2, "four asked, two got it");
        });
    }

    /// R02: the same, one of them taking several at once.
    #[test]
    fn r02_poller_that_takes_several_at_once_gets_what_is_free() {
        loom::model(|| {
            let (shared, backend) = (shared(), Arc::new(AtomicU32::new(0)));
            let enter = |backend: &AtomicU32, taken: u32| {
                let before = backend.fetch_add(taken, Ordering::AcqRel);
                assert!(before + taken <= 3, "{} at the backend", before + taken);
            };
            let other = {
                let (shared, backend) = (Arc::clone(&shared), Arc::clone(&backend));
                thread::spawn(move || {
                    let slots = Credits::new(3, Some(shared)).take_up_to(2);
                    let taken = slots.count();
                    enter(&backend, taken);
                    mem::forget(slots);
                    taken
                })
            };
            let mut credits = Credits::new(3, Some(shared));
            let slots = [credits.take(), credits.take()];
            let mine = slots.iter().flatten().count() as u32;
            enter(&backend, mine);
            slots.into_iter().flatten().for_each(mem::forget);
            assert_eq!(mine + other.join().unwrap(), 3, "four asked, three got it");
        });
    }
}
