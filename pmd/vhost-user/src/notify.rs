//! Event file descriptors that a front-end gave us: call and err to be written, kick to be drained. Who decides when is
//! the ring set.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// An eventfd of the front-end.
///
/// Neither a full counter nor an empty one may hold a poller up. A descriptor whose owner made it blocking is asked with
/// `poll` before it is written. Its flags are the front-end's and stay as they are.
#[derive(Debug)]
pub struct Notifier {
    fd: OwnedFd,
    blocking: bool,
}

impl Notifier {
    /// Takes the descriptor as it is.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Notifier {
        let blocking = rustix::fs::fcntl_getfl(&fd).map_or(true, |flags| !flags.contains(OFlags::NONBLOCK));
        Notifier { fd, blocking }
    }

    /// Adds 1 to the counter; whoever waits for it wakes up. True if the descriptor took it.
    pub fn signal(&self) -> bool {
        // A full counter means that the other side has been told already.
        (!self.blocking || self.ready(PollFlags::OUT)) && rustix::io::write(&self.fd, &1u64.to_ne_bytes()).is_ok()
    }

    /// Takes what the counter holds: how many times the other side has signalled since the last call. Never blocks, also
    /// if the front-end changes the descriptor's flags behind our back.
    pub fn drain(&self) -> u64 {
        let mut value = [0u8; 8];
        // An offset of -1 is the place where the file stands.
        match preadv2(&self.fd, &mut [IoSliceMut::new(&mut value)], u64::MAX, ReadWriteFlags::NOWAIT) {
            Ok(8) => u64::from_ne_bytes(value),
            Ok(_) | Err(_) => 0,
        }
    }

    fn ready(&self, flags: PollFlags) -> bool {
        let mut fds = [PollFd::new(&self.fd, flags)];
        loop {
            match rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Err(Errno::INTR) => {}
                result => return result == Ok(1) && fds[0].revents().contains(flags),
            }
        }
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn notifier_counts_and_never_blocks_on_a_blocking_descriptor() {
        for flags in [EventfdFlags::CLOEXEC, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK] {
            let notifier = Notifier::new(eventfd(0, flags).unwrap());
            assert_eq!(notifier.drain(), 0, "an empty counter does not block");
            assert!(notifier.signal() && notifier.signal());
            assert_eq!(notifier.drain(), 2);
            rustix::io::write(&notifier.fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
            assert!(!notifier.signal(), "a full counter does not block");
        }
    }
}
