//! A running target in this process, front-ends that talk to it through real sockets and real shared memory, and a
//! neighbour that must not notice what they do: the harness of the tests named `live_*`. No test is in here.
//!
//! From the bottom up: [`memory`] is what a front-end shares, [`queue`] the driver side of one ring in it, [`client`] a
//! connected front-end with rings. [`load`] is the neighbour, [`rig`] the target with block devices of the test's choice,
//! [`running`] the target as a configuration file makes it. [`host`] makes block devices and small file systems, where it
//! may. [`exposition`] reads `/metrics`, strictly. Requests and replies are those of [`device`](crate::device).
//!
//! Nothing in here sleeps: whoever waits, waits for a condition, at most for [`PATIENCE`], and then fails by name.

pub mod client;
pub mod exposition;
pub mod host;
pub mod load;
pub mod memory;
pub mod queue;
pub mod rig;
pub mod running;

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long anything may take. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done`.
///
/// # Panics
/// If that does not come about within [`PATIENCE`]; the text names `what`.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::yield_now();
    }
}

/// Waits until `fd` is readable (or hung up), at most for [`PATIENCE`]; whether it is.
#[must_use]
pub fn wait_readable(fd: impl AsFd) -> bool {
    poll_readable(fd, PATIENCE)
}

/// Whether `fd` is readable (or hung up) now.
#[must_use]
pub fn readable(fd: impl AsFd) -> bool {
    poll_readable(fd, Duration::ZERO)
}

fn poll_readable(fd: impl AsFd, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
            Ok(count) => return count > 0,
        }
    }
}
