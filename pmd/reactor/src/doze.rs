//! The order of steps in which a poller falls asleep, and a waker rings it out, without a lost wakeup; what the steps do is the
//! business of `poller` and `bell`. Compiles under `--cfg loom`, and the model in `doze/model.rs` runs this very code.
//!
//! Two kinds of producer can have work for a poller that is about to sleep, and both follow one pattern, *publish, full
//! fence, look at a flag*, against the poller's *raise the flag, full fence, look for work*. One of the two sees the other.
//!
//! | producer | publishes | flag | rings |
//! |---|---|---|---|
//! | control thread, another poller | a job, a message | `asleep` here | the poller's own eventfd |
//! | guest driver, backend | an avail index, a completion | notifications on, in a ring of a source | the source's fd |

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The flag that says whether a poller has to be rung. Written by read-modify-writes only, on both sides: they put all
/// its changes in one line, where a waker that takes down an old flag cannot appear to have taken down the next.
pub(crate) struct Doze {
    asleep: AtomicBool,
}

/// What a poller does on its way to sleep.
pub(crate) trait Sleeper {
    /// Enables the notifications of every source. Whether the poller may sleep.
    fn arm(&mut self) -> bool;
    /// Looks at every source and at the inbox. Whether there was anything.
    fn recheck(&mut self) -> bool;
    /// Blocks until a notification or the deadline.
    fn block(&mut self);
    /// Disables the notifications again.
    fn disarm(&mut self);
}

/// What a waker does to a sleeping poller.
pub(crate) trait Doorbell {
    /// Ends the sleep under way, or the next one if there is none.
    fn ring(&self);
}

impl Doze {
    pub(crate) fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// The way to sleep and back, on the poller. Whether it blocked.
    pub(crate) fn fall_asleep(&self, sleeper: &mut impl Sleeper) -> bool {
        let mut blocked = false;
        if sleeper.arm() {
            self.asleep.swap(true, Ordering::Relaxed);
            // Orders this flag and those of every ring, stored by `arm`, before the loads of `recheck`.
            fence(Ordering::SeqCst);
            if !sleeper.recheck() {
                sleeper.block();
                blocked = true;
            }
            self.rise();
        }
        sleeper.disarm();
        blocked
    }

    /// Takes the flag down: the poller polls. A ring on its way may still come, and costs one sleep that ends at once.
    pub(crate) fn rise(&self) {
        self.asleep.swap(false, Ordering::Relaxed);
    }

    /// Makes sure that the poller looks at what the calling thread published before. Rings only where the poller is asleep or
    /// about to be, and of several wakers only the first.
    pub(crate) fn wake(&self, bell: &impl Doorbell) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            bell.ring();
        }
    }
}

#[cfg(all(test, loom))]
mod model;
