//! The order of steps in which a poller falls asleep, or lets one source go cold, and a waker rings it out, without a lost
//! wakeup; what the steps do is the business of `poller`, `sources` and `bell`. Compiles under `--cfg loom`, and the model in
//! `doze/model.rs` runs this very code.
//!
//! Two kinds of producer can have work for a poller that is about to sleep, and both follow one pattern, *publish, full
//! fence, look at a flag*, against the poller's *raise the flag, full fence, look for work*. One of the two sees the other.
//!
//! | producer | publishes | flag | rings |
//! |---|---|---|---|
//! | control thread, another poller | a job, a message | `asleep` here | the poller's own eventfd |
//! | guest driver, backend | an avail index, a completion | notifications on, in a ring of a source | the source's fd |
//!
//! Going cold is the same for one source of a poller that stays awake: its flags are up, and the poller looks at its fds
//! instead of at the source. What was rung stays in the epoll set until the poller takes it out, asleep or not, so a poller
//! that falls asleep need not look at its cold sources again. A message to a source that may be cold has a flag of its own,
//! `roused`, which the poller looks at in every loop.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The flags between a poller and its wakers. Written by read-modify-writes only, on both sides: they put all changes of
/// one in a line, where who takes down an old flag cannot appear to have taken down the next.
pub(crate) struct Doze {
    /// Whether the poller has to be rung.
    asleep: AtomicBool,
    /// Whether somebody left a message for a source that may be cold.
    roused: AtomicBool,
}

/// What a poller does on its way to sleep.
pub(crate) trait Sleeper {
    /// Enables the notifications of every source. Whether the poller may sleep.
    fn arm(&mut self) -> bool;
    /// Looks at every hot source, at the inbox, and at `roused`. Whether there was anything.
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
        Self { asleep: AtomicBool::new(false), roused: AtomicBool::new(false) }
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

    /// Makes sure that the poller looks at what the calling thread published before, in a cold source, too.
    pub(crate) fn rouse(&self, bell: &impl Doorbell) {
        self.roused.swap(true, Ordering::Release);
        self.wake(bell);
    }

    /// Whether cold sources have to be looked at: one load of a line that is hardly ever written.
    #[inline]
    pub(crate) fn is_roused(&self) -> bool {
        self.roused.load(Ordering::Relaxed)
    }

    /// Takes that flag down, before the sources are looked at. Whatever was left before it was raised is visible then.
    pub(crate) fn take_roused(&self) -> bool {
        self.roused.swap(false, Ordering::Acquire)
    }

    /// Makes sure that the poller looks at its inbox. Rings only where the poller is asleep or about to be, and of several
    /// wakers only the first.
    pub(crate) fn wake(&self, bell: &impl Doorbell) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            bell.ring();
        }
    }
}

/// Lets a source go cold: `arm` enables its notifications and says whether it can do without being polled, `recheck` looks at
/// it once more and says whether there was anything. Whether it is cold; if not, it has to be disarmed.
pub(crate) fn go_cold<T>(
    source: &mut T,
    arm: impl FnOnce(&mut T) -> bool,
    recheck: impl FnOnce(&mut T) -> bool,
) -> bool {
    if !arm(source) {
        return false;
    }
    // Orders the flags that `arm` stored before the loads of `recheck`.
    fence(Ordering::SeqCst);
    !recheck(source)
}

#[cfg(all(test, loom))]
mod model;
