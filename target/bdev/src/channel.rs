//! Dispatch to the channel of any device: by enum for the ones at memory speed, by virtual call for the rest. No device
//! in here.

use std::fmt;
use std::os::fd::BorrowedFd;

use reactor::clock::Tsc;

use crate::counted::Counting;
use crate::malloc::MallocChannel;
use crate::null::NullChannel;
use crate::{Completion, Io, IoChannel, Op, Submitted};

/// One poller's way into a device of any kind; see [`IoChannel`], whose methods these are.
///
/// A command on the null device is a few hundred instructions end to end: a virtual call per request would show there,
/// and it would keep the compiler from seeing that these devices (nearly) never leave anything pending.
pub struct Channel {
    kind: Kind,
    counting: Option<Box<Counting>>,
}

enum Kind {
    Null(NullChannel),
    Malloc(MallocChannel),
    Other(Box<dyn IoChannel>),
}

impl Channel {
    /// A hint that a request of this kind, from `lba` on, will be submitted next but one or so. Optional, and nothing
    /// may depend on it: on the memory device it hides the first cache miss behind the copy of the request before,
    /// which is a fifth (writes) to a third (reads) of a random 4 KiB transfer; on others it does nothing.
    #[inline]
    pub fn prefetch(&self, op: Op, lba: u64) {
        if let Kind::Malloc(channel) = &self.kind {
            channel.prefetch(op, lba);
        }
    }

    /// See [`IoChannel::submit`].
    #[inline(always)]
    pub fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        let done = match &mut self.kind {
            Kind::Null(channel) => channel.at_once(io),
            Kind::Malloc(channel) => channel.at_once(io),
            Kind::Other(_) => None,
        };
        let Some(status) = done else { return self.submit_in_full(io, now) };
        if let Some(counting) = &self.counting {
            counting.done(io, status);
        }
        Submitted::Done(status)
    }

    /// What may be pending afterwards, and what is rare.
    #[inline(never)]
    fn submit_in_full(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        match &mut self.counting {
            None => self.kind.submit(io, now),
            Some(counting) => {
                let submitted = self.kind.submit(&Io { token: counting.next_token(), ..*io }, now);
                counting.submitted(io, submitted, now);
                submitted
            }
        }
    }

    /// See [`IoChannel::flush_submissions`].
    #[inline]
    pub fn flush_submissions(&mut self) {
        if let Kind::Other(channel) = &mut self.kind {
            channel.flush_submissions();
        }
    }

    /// See [`IoChannel::poll`].
    #[inline]
    pub fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        let before = done.len();
        let count = match &mut self.kind {
            Kind::Null(_) => 0,
            Kind::Malloc(channel) => channel.poll(done),
            Kind::Other(channel) => channel.poll(now, done),
        };
        if let Some(counting) = &mut self.counting {
            done[before..].iter_mut().for_each(|completion| counting.completed(completion, now));
        }
        count
    }

    /// See [`IoChannel::next_deadline`].
    #[must_use]
    #[inline]
    pub fn next_deadline(&self) -> Option<Tsc> {
        match &self.kind {
            Kind::Null(_) => None,
            Kind::Malloc(channel) => channel.next_deadline(),
            Kind::Other(channel) => channel.next_deadline(),
        }
    }

    /// See [`IoChannel::wake_fd`].
    #[must_use]
    #[inline]
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Null(_) | Kind::Malloc(_) => None,
            Kind::Other(channel) => channel.wake_fd(),
        }
    }

    /// See [`IoChannel::arm`].
    #[inline]
    pub fn arm(&mut self) {
        if let Kind::Other(channel) = &mut self.kind {
            channel.arm();
        }
    }

    /// See [`IoChannel::disarm`].
    #[inline]
    pub fn disarm(&mut self) {
        if let Kind::Other(channel) = &mut self.kind {
            channel.disarm();
        }
    }

    /// The same channel, counted: by `counting` only, if another one did so before.
    pub(crate) fn counted(self, counting: Counting) -> Channel {
        Channel { kind: self.kind, counting: Some(Box::new(counting)) }
    }
}

impl Kind {
    fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        match self {
            Kind::Null(channel) => channel.submit(io),
            Kind::Malloc(channel) => channel.submit(io),
            Kind::Other(channel) => channel.submit(io, now),
        }
    }
}

impl From<Box<dyn IoChannel>> for Channel {
    fn from(channel: Box<dyn IoChannel>) -> Channel {
        Channel { kind: Kind::Other(channel), counting: None }
    }
}

impl From<NullChannel> for Channel {
    fn from(channel: NullChannel) -> Channel {
        Channel { kind: Kind::Null(channel), counting: None }
    }
}

impl From<MallocChannel> for Channel {
    fn from(channel: MallocChannel) -> Channel {
        Channel { kind: Kind::Malloc(channel), counting: None }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Null(_) => "Channel(Null)",
            Kind::Malloc(_) => "Channel(Malloc)",
            Kind::Other(_) => "Channel(Other)",
        })
    }
}
