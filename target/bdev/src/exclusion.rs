//! Who may change a device: any number of channels at once, or one alone. Nothing about what they do, and no waiting:
//! whoever finds the device taken comes again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stats::OwnLines;

/// The exclusion of one device: makes [`Op::CompareAndWrite`](crate::Op::CompareAndWrite) atomic.
///
/// Every change of the medium is announced on its channel's own cache line, which costs one exchange there and no
/// traffic between pollers. The one that wants the device for itself looks at all of those lines.
#[derive(Clone, Debug, Default)]
pub struct Exclusion(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Somebody wants the device for itself, or has it.
    claimed: OwnLines<AtomicBool>,
    /// Changes under way, of each channel. Locked by control threads; a poller only tries to.
    channels: Mutex<Vec<Arc<OwnLines<AtomicU32>>>>,
}

/// A channel's part in the exclusion of its device.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    announced: Arc<OwnLines<AtomicU32>>,
    under_way: u32,
    claims: bool,
}

impl Exclusion {
    /// A channel takes part. For control threads.
    #[must_use]
    pub fn join(&self) -> Turn {
        let announced = Arc::new(OwnLines::default());
        lock(&self.0.channels).push(Arc::clone(&announced));
        Turn { shared: Arc::clone(&self.0), announced, under_way: 0, claims: false }
    }
}

impl Turn {
    /// A change begins, unless the device is taken: then `false`, and the change has to be tried again. Changes may
    /// overlap; each ends with a [`leave`](Turn::leave).
    #[must_use]
    #[inline]
    pub fn enter(&mut self) -> bool {
        // First announce, then look; a claim is first made, then it looks: one of the two sees the other (SeqCst).
        if self.under_way == 0 {
            self.announced.swap(1, Ordering::SeqCst);
        }
        if self.shared.claimed.load(Ordering::SeqCst) {
            if self.under_way == 0 {
                self.announced.store(0, Ordering::Release);
            }
            return false;
        }
        self.under_way += 1;
        true
    }

    /// A change has ended.
    #[inline]
    pub fn leave(&mut self) {
        debug_assert!(self.under_way > 0, "more changes ended than began");
        self.under_way -= 1;
        if self.under_way == 0 {
            self.announced.store(0, Ordering::Release);
        }
    }

    /// Claims the device for this channel: no change begins any more, on any channel. `false` if another has it.
    #[must_use]
    pub fn claim(&mut self) -> bool {
        if !self.claims {
            let claimed = &self.shared.claimed;
            self.claims = claimed.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        }
        self.claims
    }

    /// Whether this channel has claimed the device and every change that was under way has ended: it is alone.
    #[must_use]
    pub fn alone(&self) -> bool {
        if !self.claims || self.under_way > 0 {
            return false;
        }
        // Taken only while a control thread opens or closes a channel: look again later.
        let Ok(channels) = self.shared.channels.try_lock() else { return false };
        channels.iter().all(|announced| announced.load(Ordering::SeqCst) == 0)
    }

    /// Gives up the claim.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.claims) {
            self.shared.claimed.store(false, Ordering::Release);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.release();
        lock(&self.shared.channels).retain(|announced| !Arc::ptr_eq(announced, &self.announced));
    }
}

type Announced = Vec<Arc<OwnLines<AtomicU32>>>;

/// The list is whole between any two calls on it, so a panic elsewhere does not spoil it.
fn lock(channels: &Mutex<Announced>) -> MutexGuard<'_, Announced> {
    channels.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusion_lets_changes_overlap_and_a_claim_waits_for_all_of_them() {
        let exclusion = Exclusion::default();
        let (mut one, mut other, mut third) = (exclusion.join(), exclusion.join(), exclusion.join());
        assert!(one.enter() && one.enter() && other.enter());
        assert!(third.claim() && !third.alone());
        assert!(!one.enter() && !other.enter() && !third.enter(), "nothing begins under a claim");
        one.leave();
        other.leave();
        assert!(!third.alone());
        one.leave();
        assert!(third.alone());
        assert!(!one.claim(), "the second claim has to wait");
        third.release();
        assert!(one.claim() && one.alone());
        one.release();
        assert!(other.enter());
    }

    #[test]
    fn exclusion_of_a_channel_that_is_dropped_ends_its_claim_and_its_changes() {
        let exclusion = Exclusion::default();
        let (mut one, mut other) = (exclusion.join(), exclusion.join());
        assert!(one.claim());
        drop(one);
        assert!(other.enter());
        let mut third = exclusion.join();
        assert!(third.claim() && !third.alone());
        drop(other);
        assert!(third.alone());
    }

    #[test]
    fn exclusion_under_threads_never_lets_a_change_meet_the_one_alone() {
        const ROUNDS: u32 = 20_000;
        let exclusion = Exclusion::default();
        let (changing, alone) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for claims in [false, true, false, true] {
                let mut turn = exclusion.join();
                let (changing, alone) = (&changing, &alone);
                scope.spawn(move || {
                    let mut done = 0;
                    while done < ROUNDS {
                        if claims && turn.claim() {
                            while !turn.alone() {
                                std::thread::yield_now();
                            }
                            assert_eq!(alone.fetch_add(1, Ordering::SeqCst), 0);
                            assert_eq!(changing.load(Ordering::SeqCst), 0);
                            alone.fetch_sub(1, Ordering::SeqCst);
                            turn.release();
                            done += 1;
                        } else if !claims && turn.enter() {
                            changing.fetch_add(1, Ordering::SeqCst);
                            assert_eq!(alone.load(Ordering::SeqCst), 0);
                            changing.fetch_sub(1, Ordering::SeqCst);
                            turn.leave();
                            done += 1;
                        } else {
                            std::thread::yield_now();
                        }
                    }
                });
            }
        });
    }
}
