//! Dispatch to the channel of any device: by enum for the ones at memory speed, by virtual call for the rest. No device
//! in here.

use std::fmt;
use std::os::fd::BorrowedFd;

use guest_memory::GuestSlice;
use reactor::clock::Tsc;

use crate::counted::Counting;
use crate::malloc::MallocChannel;
use crate::null::NullChannel;
use crate::{Completion, Io, IoChannel, Op, Status, Submitted, Token};

/// One poller's way into a device of any kind; see [`IoChannel`], whose methods these are.
///
/// A command on the null device is a few hundred instructions end to end: a virtual call per request would show there,
/// and it would keep the compiler from seeing that these devices (nearly) never leave anything pending.
pub struct Channel {
    kind: Kind,
    counting: Option<Box<Counting>>,
}

/// A device at memory speed: one that ends reads and writes within the call, and that has no volatile cache, so that writes
/// need no FUA.
pub trait AtOnce {
    /// Ends a read or write that has its whole data in what `data` gives, or does nothing: then `None`, and it is for
    /// [`Channel::submit`].
    fn read_or_write<'a>(
        &mut self,
        write: bool,
        lba: u64,
        blocks: u32,
        data: impl FnOnce() -> &'a [GuestSlice],
    ) -> Option<Status>;

    /// A hint that a read or write from `lba` on will come next but one or so: hides its first cache miss.
    fn prefetch(&self, write: bool, lba: u64);
}

/// What is to be done on a device of either kind that is [`AtOnce`]: compiled for each, so that nothing is asked per request.
pub trait Work {
    /// What comes of it.
    type Outcome;

    /// Does it.
    fn on<D: AtOnce>(self, device: &mut D) -> Self::Outcome;
}

/// The tag is a byte of its own: which device it is, is asked of every request.
#[repr(u8)]
enum Kind {
    Null(NullChannel),
    Malloc(MallocChannel),
    Other(Box<dyn IoChannel>),
}

impl Channel {
    /// A hint that a request of this kind, from `lba` on, will be submitted next but one or so. Optional, and nothing may
    /// depend on it: see [`AtOnce::prefetch`]; on devices of other kinds it does nothing.
    #[inline]
    pub fn prefetch(&self, op: Op, lba: u64) {
        if let (Kind::Malloc(channel), Op::Read | Op::Write { .. }) = (&self.kind, op) {
            channel.prefetch(op.writes(), lba);
        }
    }

    /// See [`IoChannel::submit`].
    #[inline(always)]
    pub fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        let write = match io.op {
            Op::Read => false,
            Op::Write { .. } => true,
            _ => return self.submit_in_full(io, now),
        };
        let data = || io.buffers;
        let done = match &mut self.kind {
            Kind::Null(channel) => channel.read_or_write(write, io.lba, io.blocks, data),
            Kind::Malloc(channel) => channel.begin_run().read_or_write(write, io.lba, io.blocks, data),
            Kind::Other(_) => None,
        };
        let Some(status) = done else { return self.submit_in_full(io, now) };
        self.count(io.op, 1, u64::from(io.blocks), status);
        Submitted::Done(status)
    }

    /// Hands `work` the device, if it is one that ends reads and writes at once; else `None`. `work` [counts](Channel::count)
    /// afterwards what it did, and submits what was not ended.
    #[inline(always)]
    pub fn at_once<W: Work>(&mut self, work: W) -> Option<W::Outcome> {
        match &mut self.kind {
            Kind::Null(channel) => Some(work.on(channel)),
            Kind::Malloc(channel) => Some(work.on(&mut channel.begin_run())),
            Kind::Other(_) => None,
        }
    }

    /// Counts requests that were ended [at once](Channel::at_once), of so many blocks together.
    #[inline]
    pub fn count(&self, op: Op, requests: u64, blocks: u64, status: Status) {
        if let Some(counting) = &self.counting {
            counting.done(op, requests, blocks, status);
        }
    }

    /// What may be pending afterwards, and what is rare. The request with the counter's token is made where the caller's fields are
    /// still at hand: copied as a whole right after they were written one by one, they would have to leave the store buffer first.
    #[inline(always)]
    fn submit_in_full(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        match &self.counting {
            None => self.submit_uncounted(io, now),
            Some(counting) => {
                let token = counting.next_token();
                self.submit_counted(&Io { token, ..*io }, io.token, now)
            }
        }
    }

    #[inline(never)]
    fn submit_uncounted(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        self.kind.submit(io, now)
    }

    /// `io` has the counter's token, and the caller's is `token`.
    #[inline(never)]
    fn submit_counted(&mut self, io: &Io<'_>, token: Token, now: Tsc) -> Submitted {
        let submitted = self.kind.submit(io, now);
        if let Some(counting) = &mut self.counting {
            counting.submitted(io, token, submitted, now);
        }
        submitted
    }

    /// See [`IoChannel::flush_submissions`].
    #[inline]
    pub fn flush_submissions(&mut self) {
        if let Kind::Other(channel) = &mut self.kind {
            channel.flush_submissions();
        }
    }

    /// See [`IoChannel::abort`].
    #[cold]
    pub fn abort(&mut self, token: Token) {
        let Kind::Other(channel) = &mut self.kind else { return };
        let token = match &self.counting {
            None => Some(token),
            Some(counting) => counting.known_as(token),
        };
        if let Some(token) = token {
            channel.abort(token);
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
            counting.completed(&mut done[before..], now);
        }
        count
    }

    /// See [`IoChannel::is_prompt`].
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        matches!(&self.kind, Kind::Other(channel) if channel.is_prompt())
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
