//! The load generator, the *driver* side of vhost-user: what a performance lab measures a target with, and what a test
//! finds lost data with. Nothing of the target's devices is in here; `ringside bench` is the command line of it.
//!
//! - [`scsi`] keeps reads and writes in flight on one LUN of a vhost-user-scsi socket, and verifies every block if asked.
//! - [`net`] sends and receives frames through a vhost-user-net socket, and verifies every byte if asked.
//! - [`cores`] measures how far two cores are apart, without which figures of two polling threads cannot be compared.
//! - [`copy`] copies within memory and does nothing else: what no disk in memory can be faster than.
//! - [`sink`] is a net device that gives every chain back unseen: what a driver reaches with a device that does nothing.
//! - [`report`] sums up windows of both: medians, ratios with intervals, and plots. [`machine`] is what it says of where they
//!   were measured.
//!
//! Common to both: `link` is the vhost-user conversation, `memory` what is shared, `stage` the time of a run, `meter` its
//! latencies; one thread drives the rings while the calling thread watches it (`watch`, `board`, `signals`), and instead of a
//! device there may be a thread that answers everything (`responder`).
//!
//! Linux on x86-64 only: little endian, and time comes from the time-stamp counter.
#![forbid(unsafe_code)]

mod board;
pub mod copy;
pub mod cores;
mod histogram;
mod link;
pub mod machine;
mod memory;
mod meter;
pub mod net;
mod numbers;
pub mod report;
mod responder;
mod ring;
pub mod scsi;
mod signals;
pub mod sink;
mod size;
mod stage;
#[cfg(test)]
mod testing;
mod watch;

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

use vhost_user::connection::Stop;

/// Prints what came of a run on standard output, in its JSON form if it is given, and why it failed on standard error.
pub(crate) fn print(outcome: &impl fmt::Display, failure: Option<&str>, json: Option<String>) -> io::Result<()> {
    if let Some(failure) = failure {
        eprintln!("bench: {failure}");
    }
    let mut out = io::stdout().lock();
    match json {
        Some(line) => writeln!(out, "{line}"),
        None => write!(out, "{outcome}"),
    }
}

/// Says that a thread is finished, however it came to that.
pub(crate) struct Finished<'a>(pub &'a Stop);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// Another seed each time, so that a block or a frame of an earlier run is not taken for one of this.
pub(crate) fn some_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // JSON readers may keep numbers in doubles, which hold 53 bits.
    (now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32) & ((1 << 53) - 1)
}
