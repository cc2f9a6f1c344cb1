//! What a poller polls, and what it asks of it before it sleeps; how sources are kept is in `sources`.

use crate::clock::Tsc;
use std::any::Any;
use std::os::fd::BorrowedFd;

/// Something that a poller looks at: a shard of a device, a backend, a port.
///
/// All methods run on the poller that owns the source, so they must not block, and those of the path (`poll`) must not
/// allocate, lock, log or enter the kernel either. The sleeping methods have defaults for a source that can only be polled; a
/// poller that owns one of those never sleeps.
///
/// # Hot and cold
/// A source is polled in every loop while it is *hot*. One that did no work for 10 to 20 ms and that says `Sleep` when it is
/// armed goes *cold*: it stays armed and is polled no more, until one of its `wake_fds` rings, a job runs on it, somebody
/// calls [`PollerHandle::wake`](crate::PollerHandle::wake), or the sweep finds work that no notification told of. Parts of a
/// source, rings above all, do the same on their own with `cool` and `warm`.
///
/// A source that panics is not polled again; see [`SourceHandle`](crate::SourceHandle).
pub trait Source: Any + Send {
    /// Does what there is to do in the hot parts, within a bound of its own, and says how much that was, in any unit; 0 means
    /// idle. `now` was read at the start of this loop. Also called between `arm` and `disarm`, and then must find what arrived
    /// before `arm`.
    fn poll(&mut self, now: Tsc) -> usize;

    /// Enables the notifications of every hot part, then says whether the poller may sleep, or do without polling this source.
    fn arm(&mut self) -> Armed {
        Armed::MustPoll { deadline: None }
    }

    /// Undoes `arm`: the source is polled again. Called exactly once after each `arm`, whatever that answered.
    fn disarm(&mut self) {}

    /// Lets parts go cold that have done nothing since the last call: enables their notifications, looks once more, and leaves
    /// them out of `poll`. Called every 10 ms while the source is hot, and only if every one of `wake_fds` is watched.
    fn cool(&mut self) {}

    /// Looks at every cold part: one that has work becomes hot, for the next `poll` to find. Called when one of `wake_fds` has
    /// rung, and now and then, for drivers that do not notify as they should.
    fn warm(&mut self) {}

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

impl Armed {
    /// Every notification is enabled, and there is something to be done then, if at all.
    #[must_use]
    pub fn until(deadline: Option<Tsc>) -> Armed {
        deadline.map_or(Armed::Sleep, |deadline| Armed::MustPoll { deadline: Some(deadline) })
    }

    /// The less patient of two answers.
    #[must_use]
    pub fn sooner(self, other: Armed) -> Armed {
        match (self, other) {
            (Armed::Ready, _) | (_, Armed::Ready) => Armed::Ready,
            (Armed::Sleep, other) | (other, Armed::Sleep) => other,
            (Armed::MustPoll { deadline: None }, _) | (_, Armed::MustPoll { deadline: None }) => {
                Armed::MustPoll { deadline: None }
            }
            (Armed::MustPoll { deadline: Some(a) }, Armed::MustPoll { deadline: Some(b) }) => {
                Armed::MustPoll { deadline: Some(a.min(b)) }
            }
        }
    }
}
