//! SPDK, as far as the wiring goes: what the crate `bdev-spdk` is told, and when SPDK is started and ended. In a program that was
//! built without it, it is never there.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bdev::Bdev;
use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::select;

use crate::config::{self, BdevKind, Config};
use crate::reload::Reloader;

#[cfg(not(feature = "spdk"))]
mod absent;
#[cfg(feature = "spdk")]
mod built;

#[cfg(not(feature = "spdk"))]
pub use absent::{Device, Spdk, version};
#[cfg(feature = "spdk")]
pub use built::{Device, Spdk, version};

/// A bdev of SPDK's, opened.
pub struct Opened {
    /// As everybody uses it.
    pub bdev: Arc<dyn Bdev>,
    /// The same, to be asked for more.
    pub device: Arc<Device>,
}

/// Why a bdev of SPDK's is not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// SPDK has none of that name, now.
    #[error("{0}")]
    Missing(String),
    /// There is one, and it cannot be had; or there is no SPDK.
    #[error("{0}")]
    Refused(String),
}

/// What happens to a bdev by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One that is waited for is there.
    Appeared {
        /// Its name in the configuration.
        bdev: String,
    },
    /// It goes: whoever has it is to let go of it.
    Removed {
        /// Its name in the configuration.
        bdev: String,
    },
    /// It has so many blocks now.
    Resized {
        /// Its name in the configuration.
        bdev: String,
        /// How many.
        block_count: u64,
    },
}

/// What channels of a bdev have counted beside requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transfers whose buffers SPDK was given as they are.
    pub direct: u64,
    /// Transfers between the guest's memory and that of the bdev, which lends it.
    pub lent: u64,
    /// Transfers through SPDK's pool.
    pub bounced: u64,
    /// How often the pool was empty for one.
    pub starved: u64,
    /// How often SPDK had no room for a request.
    pub waited: u64,
}

/// Memory of front-ends in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is mapped.
    pub mapped: u64,
    /// What of it SPDK's devices reach.
    pub registered: u64,
}

/// Whether a configuration needs SPDK.
#[must_use]
pub fn is_wanted(config: &Config) -> bool {
    config.spdk != config::Spdk::default() || config.bdevs.iter().any(|bdev| matches!(bdev.kind, BdevKind::Spdk(_)))
}

/// The thread that does to the target what has happened to its bdevs.
pub struct Events {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

impl Events {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(events: Receiver<Event>, reloader: Arc<Reloader>) -> io::Result<Events> {
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("ringside-bdevs".into()).spawn(move || {
            loop {
                select! {
                    recv(events) -> event => match event {
                        Ok(event) => reloader.happened(&event),
                        Err(_) => break,
                    },
                    recv(stopped) -> _ => break,
                }
            }
        })?;
        Ok(Events { thread, stop })
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}
