//! What a poller polls, and what it asks of it before it sleeps; how sources are kept is in `sources`.

use crate::clock::Tsc;
use std::any::Any;
use std::os::fd::BorrowedFd;

/// Something that a poller looks at in every loop: a shard of a device, a backend, a port.
///
/// All methods run on the poller that owns the source, so they must not block, and those of the path (`poll`) must not
/// allocate, lock, log or enter the kernel either. The sleeping methods have defaults for a source that can only be polled; a
/// poller that owns one of those never sleeps.
///
/// A source that panics is not polled again; see [`SourceHandle`](crate::SourceHandle).
pub trait Source: Any + Send {
    /// Does what there is to do, within a bound of its own, and says how much that was, in any unit; 0 means idle. `now` was read
    /// at the start of this loop. Also called between `arm` and `disarm`, and then must find what arrived before `arm`.
    fn poll(&mut self, now: Tsc) -> usize;

    /// Enables every notification of the source, then says whether the poller may sleep.
    fn arm(&mut self) -> Armed {
        Armed::MustPoll { deadline: None }
    }

    /// Undoes `arm`: the poller is back. Called exactly once after each `arm`, whatever that answered.
    fn disarm(&mut self) {}

    /// Shows the fds whose becoming readable must wake the poller: kick eventfds, completion eventfds. They are watched
    /// edge-triggered, so nobody needs to read them, and through duplicates, so the source may close its own at any time.
    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        let _ = add;
    }

    /// A number that differs whenever the set of `wake_fds` does. The set is read again only then.
    fn fds_generation(&self) -> u64 {
        0
    }
}

/// Whether a poller may sleep, as one of its sources sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// Work appeared while arming: poll on.
    Ready,
    /// Every notification is enabled: one of `wake_fds`, or [`PollerHandle::wake`](crate::PollerHandle::wake), will tell of new work.
    Sleep,
    /// As `Sleep`, but to be polled at `deadline` at the latest. Without a deadline: there is no notification, never sleep.
    MustPoll {
        /// The moment of the next poll.
        deadline: Option<Tsc>,
    },
}
