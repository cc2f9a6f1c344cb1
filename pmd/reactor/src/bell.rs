//! What a poller sleeps on, and where it hears of its cold sources: an epoll instance with an eventfd of its own and the fds of
//! its sources; when it may sleep is `doze`'s.

use crate::clock::Tsc;
use crate::doze::Doorbell;
use crate::source::Source;
use crate::sources::SourceId;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::{Errno, fcntl_dupfd_cloexec, write};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The epoll instance of one poller. Everything in it is edge-triggered: each write to an eventfd is a new event, whatever its
/// count, so nothing has to be read. An fd that is readable when it is added is an event, too.
pub(crate) struct Bell {
    epoll: OwnedFd,
    own: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let own = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &own, epoll::EventData::new_u64(OWN), EDGES)?;
        Ok(Self { epoll, own })
    }

    /// Blocks until something rings, for so many ticks at most; what rang.
    pub(crate) fn wait(&self, ticks: Option<u64>) -> Rung {
        let timeout = ticks.map(timespec);
        let mut rung = Rung { events: [EVENT; EVENTS], count: 0, interrupted: false };
        match epoll::wait(&self.epoll, &mut rung.events, timeout.as_ref()) {
            Ok(count) => rung.count = count,
            // A signal handler ran. Every other error would be one of the arguments, all of them ours.
            Err(errno) => rung.interrupted = errno == Errno::INTR,
        }
        rung
    }

    /// Watches the fds that a source shows now, until the result is dropped.
    pub(crate) fn watch(self: &Arc<Self>, id: SourceId, source: &dyn Source) -> io::Result<Watch> {
        let mut watch = Watch { bell: Arc::clone(self), fds: Vec::new() };
        let mut outcome = Ok(());
        source.wake_fds(&mut |fd| {
            if outcome.is_ok() {
                outcome = fcntl_dupfd_cloexec(fd, 0).and_then(|fd| watch.add(id, fd));
            }
        });
        outcome?;
        Ok(watch)
    }
}

impl Doorbell for Bell {
    fn ring(&self) {
        // It fails only at a count of 2^64 - 2, and then it is readable anyway.
        let _ = write(&self.own, &1u64.to_ne_bytes());
    }
}

/// What a wait brought: the sources whose fds rang, each at least once.
pub(crate) struct Rung {
    events: [epoll::Event; EVENTS],
    count: usize,
    interrupted: bool,
}

impl Rung {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Self { events: [EVENT; EVENTS], count: 0, interrupted: false }
    }

    /// Whether anything ended the wait before its time.
    pub(crate) fn any(&self) -> bool {
        self.count > 0 || self.interrupted
    }

    /// The sources. Some may have gone since.
    pub(crate) fn sources(&self) -> impl Iterator<Item = SourceId> {
        let ids = self.events[..self.count].iter().map(|event| event.data.u64());
        ids.filter(|id| *id != OWN).map(SourceId)
    }
}

/// The fds of one source in an epoll instance. They are duplicates of the source's: an epoll entry lives as long as the open
/// file, which the front-end shares, so it can be removed only through an fd that is certain to be still ours.
pub(crate) struct Watch {
    bell: Arc<Bell>,
    fds: Vec<OwnedFd>,
}

impl Watch {
    fn add(&mut self, id: SourceId, fd: OwnedFd) -> rustix::io::Result<()> {
        epoll::add(&self.bell.epoll, &fd, epoll::EventData::new_u64(id.0), EDGES)?;
        self.fds.push(fd);
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for fd in &self.fds {
            // It is there, see `add`; if the kernel thinks otherwise there is nothing left to remove.
            let _ = epoll::delete(&self.bell.epoll, fd);
        }
    }
}

fn timespec(ticks: u64) -> Timespec {
    let nanos = Tsc::nanos(ticks);
    Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 }
}

const EDGES: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);
/// The poller's own eventfd. No source has this number.
const OWN: u64 = u64::MAX;
/// Taken at once. What is left is taken the next time, or ends the next sleep at once.
const EVENTS: usize = 32;
const EVENT: epoll::Event = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };

#[cfg(test)]
mod tests;
