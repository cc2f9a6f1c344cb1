//! Who may look at a frame that a sender has lent: its receivers, until the sender takes it back. No memory in here; the
//! loom model below stands for it.
//!
//! A sender must get its memory back in bounded time, whatever its receivers do. So a receiver claims a frame before it looks
//! at it, and gives the claim back when it has copied it; a sender that has waited long enough revokes, and from then on
//! no claim succeeds. What is left to wait for is a copy under way.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};

/// Claims on one frame. All changes are read-modify-writes of one word, so they have an order that everybody agrees on.
#[derive(Debug)]
pub(super) struct Claims(AtomicU32);

impl Claims {
    pub(super) fn new() -> Claims {
        Claims(AtomicU32::new(0))
    }

    /// For a receiver: whether it may look at the frame now.
    #[inline]
    pub(super) fn claim(&self) -> bool {
        // Acquire, release: the looks lie between claim and release.
        let claimed = self.0.fetch_add(1, Ordering::Acquire) & REVOKED == 0;
        if !claimed {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
        claimed
    }

    /// For a receiver that claimed: it does not look any more.
    #[inline]
    pub(super) fn release(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    /// For the sender: nobody may look any more but those that do. Whether nobody does.
    pub(super) fn revoke(&self) -> bool {
        self.0.fetch_or(REVOKED, Ordering::AcqRel) & !REVOKED == 0
    }

    /// For the sender that is alone with the frame: a new frame.
    pub(super) fn renew(&mut self) {
        *self = Claims::new();
    }
}

const REVOKED: u32 = 1 << 31;

#[cfg(all(test, loom))]
mod model {
    use loom::sync::Arc;

    use super::*;

    /// The sender writes to its memory again as soon as nobody may look: no receiver sees that. Schedules with three preemptions
    /// at most: more take hours.
    #[test]
    fn loom_memory_taken_back_is_not_looked_at() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let shared = Arc::new((Claims::new(), AtomicU32::new(1)));
            let receivers: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    loom::thread::spawn(move || {
                        if shared.0.claim() {
                            assert_eq!(shared.1.load(Ordering::Relaxed), 1);
                            shared.0.release();
                        }
                    })
                })
                .collect();
            while !shared.0.revoke() {
                loom::thread::yield_now();
            }
            shared.1.store(2, Ordering::Relaxed);
            assert!(!shared.0.claim());
            receivers.into_iter().for_each(|receiver| receiver.join().unwrap());
        });
    }
}
