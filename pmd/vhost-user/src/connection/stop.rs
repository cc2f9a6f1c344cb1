//! The request to end, which every blocking wait of this crate listens to. It cannot be taken back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// A stop that anybody may request and anybody may wait for; clones are the same stop.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// Not requested yet.
    ///
    /// # Errors
    /// This process may open no more descriptors.
    pub fn new() -> io::Result<Stop> {
        Ok(Stop(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Requests it; from now on every wait returns at once.
    pub fn request(&self) {
        // Nobody ever reads: the counter only fails to take more when it is far above 0.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Whether it was requested.
    pub fn requested(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits until it is requested, at most for `timeout`; whether it was.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
            match poll(&mut [PollFd::new(&*self.0, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                // Poll of one valid descriptor fails for want of kernel memory only; ending is then the safe answer.
                Err(_) => return true,
            }
        }
    }

    /// Waits until `fd` has one of `events` (or failed): true, or until the stop is requested: false. The stop wins.
    ///
    /// # Errors
    /// Those of `poll`, interruptions excepted.
    pub fn wait_for(&self, fd: impl AsFd, events: PollFlags) -> io::Result<bool> {
        loop {
            let mut fds = [PollFd::new(&*self.0, PollFlags::IN), PollFd::new(&fd, events)];
            match poll(&mut fds, None) {
                Ok(_) if !fds[0].revents().is_empty() => return Ok(false),
                Ok(_) if !fds[1].revents().is_empty() => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Stop {
    /// Readable once the stop was requested; not to be read from.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_requested_once_ends_every_wait_of_every_clone() {
        let stop = Stop::new().unwrap();
        let other = stop.clone();
        assert!(!other.requested());
        assert!(!other.wait(Duration::from_millis(1)));
        stop.request();
        stop.request();
        assert!(other.requested());
        assert!(other.wait(Duration::from_secs(3600)));
        assert!(stop.requested(), "waiting does not use it up");
    }

    #[test]
    fn stop_and_ready_descriptor_together_stop_wins() {
        let stop = Stop::new().unwrap();
        let ready = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        assert!(stop.wait_for(&ready, PollFlags::IN).unwrap());
        stop.request();
        assert!(!stop.wait_for(&ready, PollFlags::IN).unwrap());
    }
}
