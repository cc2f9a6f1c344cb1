//! What a poller sleeps on: an epoll instance with an eventfd of its own and the fds of its sources; when it may sleep is `doze`'s.

use crate::clock::Tsc;
use crate::doze::Doorbell;
use crate::source::Source;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::{Errno, fcntl_dupfd_cloexec, write};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The epoll instance of one poller. Everything in it is edge-triggered: each write to an eventfd is a new event, whatever its
/// count, so nothing is ever read and a poller that is awake pays nothing for kicks.
pub(crate) struct Bell {
    epoll: OwnedFd,
    own: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let own = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &own, epoll::EventData::new_u64(0), EDGES)?;
        Ok(Self { epoll, own })
    }

    /// Blocks until something rings, for so many ticks at most. Whether something rang.
    pub(crate) fn wait(&self, ticks: Option<u64>) -> bool {
        let timeout = ticks.map(timespec);
        let mut events = [EVENT; EVENTS];
        match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok(events) => events > 0,
            // A signal handler ran. Every other error would be one of the arguments, all of them ours.
            Err(errno) => errno == Errno::INTR,
        }
    }

    /// Watches the fds that a source shows now, until the result is dropped.
    pub(crate) fn watch(self: &Arc<Self>, source: &dyn Source) -> io::Result<Watch> {
        let mut watch = Watch { bell: Arc::clone(self), fds: Vec::new() };
        let mut outcome = Ok(());
        source.wake_fds(&mut |fd| {
            if outcome.is_ok() {
                outcome = fcntl_dupfd_cloexec(fd, 0).and_then(|fd| watch.add(fd));
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

/// The fds of one source in an epoll instance. They are duplicates of the source's: an epoll entry lives as long as the open
/// file, which the front-end shares, so it can be removed only through an fd that is certain to be still ours.
pub(crate) struct Watch {
    bell: Arc<Bell>,
    fds: Vec<OwnedFd>,
}

impl Watch {
    fn add(&mut self, fd: OwnedFd) -> rustix::io::Result<()> {
        epoll::add(&self.bell.epoll, &fd, epoll::EventData::new_u64(0), EDGES)?;
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
/// Which fds rang does not matter, a poller that is awake looks at all its sources. Taking many at once leaves fewer to
/// end the next sleep at once.
const EVENTS: usize = 32;
const EVENT: epoll::Event = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };

#[cfg(test)]
mod tests;
