//! Dispatch to the channel of any device: by enum for the ones at memory speed, by virtual call for the rest. No device
//! in here.

use std::fmt;
use std::os::fd::BorrowedFd;

use reactor::clock::Tsc;

use crate::malloc::MallocChannel;
use crate::null::NullChannel;
use crate::{Completion, Io, IoChannel, Op, Submitted};

/// One poller's way into a device of any kind; see [`IoChannel`], whose methods these are.
///
/// A command on the null device is a few hundred instructions end to end: a virtual call per request would show there,
/// and it would keep the compiler from seeing that these devices (nearly) never leave anything pending.
pub struct Channel(Kind);

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
        if let Kind::Malloc(channel) = &self.0 {
            channel.prefetch(op, lba);
        }
    }

    /// See [`IoChannel::submit`].
    #[inline]
    pub fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        match &mut self.0 {
            Kind::Null(channel) => channel.submit(io),
            Kind::Malloc(channel) => channel.submit(io),
            Kind::Other(channel) => channel.submit(io, now),
        }
    }

    /// See [`IoChannel::flush_submissions`].
    #[inline]
    pub fn flush_submissions(&mut self) {
        if let Kind::Other(channel) = &mut self.0 {
            channel.flush_submissions();
        }
    }

    /// See [`IoChannel::poll`].
    #[inline]
    pub fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        match &mut self.0 {
            Kind::Null(_) => 0,
            Kind::Malloc(channel) => channel.poll(done),
            Kind::Other(channel) => channel.poll(now, done),
        }
    }

    /// See [`IoChannel::next_deadline`].
    #[must_use]
    #[inline]
    pub fn next_deadline(&self) -> Option<Tsc> {
        match &self.0 {
            Kind::Null(_) => None,
            Kind::Malloc(channel) => channel.next_deadline(),
            Kind::Other(channel) => channel.next_deadline(),
        }
    }

    /// See [`IoChannel::wake_fd`].
    #[must_use]
    #[inline]
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Kind::Null(_) | Kind::Malloc(_) => None,
            Kind::Other(channel) => channel.wake_fd(),
        }
    }

    /// See [`IoChannel::arm`].
    #[inline]
    pub fn arm(&mut self) {
        if let Kind::Other(channel) = &mut self.0 {
            channel.arm();
        }
    }

    /// See [`IoChannel::disarm`].
    #[inline]
    pub fn disarm(&mut self) {
        if let Kind::Other(channel) = &mut self.0 {
            channel.disarm();
        }
    }
}

impl From<Box<dyn IoChannel>> for Channel {
    fn from(channel: Box<dyn IoChannel>) -> Channel {
        Channel(Kind::Other(channel))
    }
}

impl From<NullChannel> for Channel {
    fn from(channel: NullChannel) -> Channel {
        Channel(Kind::Null(channel))
    }
}

impl From<MallocChannel> for Channel {
    fn from(channel: MallocChannel) -> Channel {
        Channel(Kind::Malloc(channel))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Null(_) => "Channel(Null)",
            Kind::Malloc(_) => "Channel(Malloc)",
            Kind::Other(_) => "Channel(Other)",
        })
    }
}
