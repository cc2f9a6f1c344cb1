//! SIGINT and SIGTERM as a descriptor that becomes readable. A second one ends the process the hard way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// The signals, for as long as this lives.
#[derive(Debug)]
pub(super) struct Signals {
    receiver: UnixStream,
    registered: Vec<SigId>,
}

impl Signals {
    /// # Errors
    /// The process may open no more descriptors.
    pub(super) fn install() -> io::Result<Signals> {
        let (receiver, sender) = UnixStream::pair()?;
        let mut signals = Signals { receiver, registered: Vec::new() };
        let once = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and raises it.
            let registered = &mut signals.registered;
            registered.push(flag::register_conditional_shutdown(signal, SIGNALLED + signal, Arc::clone(&once))?);
            registered.push(flag::register(signal, Arc::clone(&once))?);
            registered.push(low_level::pipe::register(signal, sender.try_clone()?)?);
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

/// What shells add to the signal's number.
const SIGNALLED: i32 = 128;
