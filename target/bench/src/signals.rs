//! SIGINT and SIGTERM as a descriptor that becomes readable. They have no other effect: a run that is interrupted has
//! an end in sight, whatever the device does, and tools such as `timeout` send their signal twice.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;

/// The signals, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Signals {
    receiver: UnixStream,
    registered: Vec<SigId>,
}

impl Signals {
    /// # Errors
    /// The process may open no more descriptors.
    pub(crate) fn install() -> io::Result<Signals> {
        let (receiver, sender) = UnixStream::pair()?;
        let mut signals = Signals { receiver, registered: Vec::new() };
        for signal in [SIGINT, SIGTERM] {
            signals.registered.push(low_level::pipe::register(signal, sender.try_clone()?)?);
        }
        Ok(signals)
    }
}

impl AsFd for Signals {
    /// Readable once a signal came.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags};

    use super::*;
    use crate::link::wait;

    #[test]
    fn signals_of_either_kind_make_it_readable_any_number_of_times() {
        for signal in [SIGINT, SIGTERM] {
            let signals = Signals::install().unwrap();
            let readable = || {
                let mut fds = [PollFd::new(&signals, PollFlags::IN)];
                wait(&mut fds, Duration::ZERO).unwrap();
                !fds[0].revents().is_empty()
            };
            assert!(!readable());
            low_level::raise(signal).unwrap();
            low_level::raise(signal).unwrap();
            assert!(readable());
        }
    }
}
