//! Reads and writes on one logical unit through the driver side of vhost-user-scsi.
//!
//! [`run`] is `ringside bench scsi`. It connects (`controller`), lays out shared memory (`layout`, `lines`), asks the logical
//! unit what it is (`disk`, `cdb`, `reply`), and then one thread (`load`) drives all request queues (`queue`) with the
//! commands of a pattern (`pattern`, `work`), while the calling thread watches. With verification the commands are those of
//! `verify`. What came of it is an [`Outcome`]. Instead of a device there may be a thread that answers everything
//! (`responder`).
//!
//! One command is one descriptor chain whose descriptors stay written: sending it again changes the LBA in its header
//! and one entry of the available ring.

mod args;
mod cdb;
mod controller;
mod disk;
mod layout;
mod lines;
mod load;
mod outcome;
mod pattern;
mod queue;
mod reply;
mod responder;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;
mod work;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::event::{PollFd, PollFlags};
use virtio_scsi::wire::SECTOR_LEN;
use virtqueue::Features;

pub use args::{Args, Rw};
pub use outcome::{Asked, ErrorKind, Outcome};

pub use crate::histogram::LatencyHistogram;
pub use crate::meter::Latency;
pub use crate::ring::Ring;

use crate::board::Board;
use crate::link::{self, Link, RingFds};
use crate::memory::Memory;
use crate::report::OneRun;
use crate::responder::Responder;
use crate::signals::Signals;
use crate::some_seed;
use crate::watch::{self, Ended, Watched};
use controller::Limits;
use disk::{Disk, Range};
use layout::Layout;
use load::{Halt, Load, Report};
use queue::Queue;

/// Runs, prints progress on standard error and the outcome on standard output. SIGINT and SIGTERM end it early, with an
/// outcome. The caller makes the exit status of [`Outcome::passed`].
///
/// # Errors
/// What keeps a run from beginning: arguments, a report that cannot be written, nobody listens, a device that lacks something, no such logical unit. What
/// goes wrong later is part of the outcome.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let signals = Signals::install().context("signals")?;
    let report = args.report.as_deref().map(OneRun::create).transpose()?;
    let outcome = measure(args, signals.as_fd())?;
    outcome.print(args.json).context("standard output")?;
    report.map_or(Ok(()), |report| report.write(&outcome.json(), args.core))?;
    Ok(outcome)
}

/// Runs until the time is over or `interrupt` becomes readable. Prints progress on standard error, and no outcome.
///
/// # Errors
/// As [`run`].
pub fn measure(args: &Args, interrupt: BorrowedFd<'_>) -> anyhow::Result<Outcome> {
    args.check()?;
    let connected = args.socket.as_deref().map(|path| controller::connect(args, path)).transpose()?;
    let (mut link, limits) = connected.map_or((None, None), |(link, limits)| (Some(link), limits));
    let layout = Layout::new(args);
    let memory = Memory::create(layout.len).with_context(|| format!("{} bytes of shared memory", layout.len))?;
    let fds = layout.rings.iter().map(|_| RingFds::new()).collect::<anyhow::Result<Vec<_>>>()?;
    let features = link.as_ref().map_or(Features::default(), Link::ring_features);
    let mut queues = queues(args, &memory, &layout, &fds, features)?;
    let (disk, _responder) = match &mut link {
        Some(link) => {
            link.start(&memory, layout.queue_size, &layout.rings, fds.clone())?;
            (find_disk(args, &mut queues[0], link, interrupt)?, None)
        }
        None => {
            let mut device = responder::Device::new(&memory, &layout)?;
            let responder = Responder::start(args.responder_core, args.core, move || device.poll())?;
            (Disk::ASSUMED, Some(responder))
        }
    };
    if let Some(limits) = limits {
        warn_of_limits(args, limits);
    }
    let range = Range::new(args, disk)?;
    let seed = args.seed.unwrap_or_else(some_seed);
    let (report, ended) = drive(args, range, seed, queues, &fds, link.as_ref(), interrupt)?;
    let mut outcome = Outcome::new(args, seed, &range, &report);
    outcome.interrupted = ended == Ended::Interrupted;
    outcome.failure = failure(&report, ended);
    let patience = if outcome.interrupted { args.stall_timeout.min(watch::HURRIED) } else { args.stall_timeout };
    if let Some(link) = &mut link
        && outcome.failure.is_none()
        && let Err(error) = link.stop(patience)
    {
        outcome.failure = Some(format!("{error:#}"));
    }
    Ok(outcome)
}

fn queues(
    args: &Args,
    memory: &Memory,
    layout: &Layout,
    fds: &[Arc<RingFds>],
    features: Features,
) -> anyhow::Result<Vec<Queue>> {
    let request_fds = (0u16..).zip(&fds[usize::from(layout::FIRST_REQUEST_RING)..]);
    request_fds.map(|(index, fds)| Queue::new(args, memory, layout, index, Arc::clone(fds), features)).collect()
}

/// SCSI start-up, which ends early when the device is gone or does not answer, or the user wants it.
fn find_disk(args: &Args, queue: &mut Queue, link: &Link, interrupt: BorrowedFd<'_>) -> anyhow::Result<Disk> {
    let timeout = args.stall_timeout;
    let begun = Instant::now();
    Disk::find(args, queue, || {
        ensure!(begun.elapsed() < timeout, "no answer within {timeout:?}");
        let mut fds = [PollFd::from_borrowed_fd(interrupt, PollFlags::IN)];
        link::wait(&mut fds, Duration::ZERO)?;
        ensure!(fds[0].revents().is_empty(), "interrupted");
        link.watch(Duration::from_millis(1))
    })
}

/// Limits are the device's to enforce: going over them is what some runs are for.
fn warn_of_limits(args: &Args, limits: Limits) {
    let commands = u32::from(args.qd) * u32::from(args.queues);
    if commands > limits.cmd_per_lun {
        eprintln!("bench: {commands} commands in flight are more than the device's cmd_per_lun {}", limits.cmd_per_lun);
    }
    if args.bs > u64::from(limits.max_sectors) * SECTOR_LEN {
        let sectors = args.bs / SECTOR_LEN;
        eprintln!("bench: --bs of {sectors} sectors is more than the device's max_sectors {}", limits.max_sectors);
    }
}

/// The load on a thread of its own, watched from this one.
fn drive(
    args: &Args,
    range: Range,
    seed: u64,
    queues: Vec<Queue>,
    fds: &[Arc<RingFds>],
    link: Option<&Link>,
    interrupt: BorrowedFd<'_>,
) -> anyhow::Result<(Report, Ended)> {
    let board = Board::new().context("eventfd")?;
    let load = Load::new(args, range, seed, &board, queues, fds);
    let rates = |rate: f64| format!("{rate:.0} IOPS  {:.1} MiB/s", rate * args.bs as f64 / f64::from(1 << 20));
    let watched = Watched { stall_timeout: args.stall_timeout, terse: args.json, rates: &rates };
    watch::drive(args.core, || load.run(), watched, &board, link, interrupt)
}

/// Why the run could not go on, if it could not.
fn failure(report: &Report, ended: Ended) -> Option<String> {
    let outstanding = || {
        let queues = report.outstanding.iter().enumerate().filter(|(_, count)| **count > 0);
        let each: Vec<String> = queues.map(|(queue, count)| format!("{count} on request queue {queue}")).collect();
        if each.is_empty() { "none".to_owned() } else { each.join(", ") }
    };
    if let Some(Halt::Fault { queue, fault }) = report.halt {
        return Some(format!("the device broke the used ring of request queue {queue}: {fault}"));
    }
    match ended {
        Ended::ByItself | Ended::Interrupted => nothing_to_verify(report),
        Ended::Trouble(trouble) => Some(format!("{trouble}; commands outstanding: {}", outstanding())),
        Ended::Stalled(time) => {
            Some(format!("no command came back for {time:?}; commands outstanding: {}", outstanding()))
        }
    }
}

/// Not a fault of a disk: of the choice of one.
fn nothing_to_verify(report: &Report) -> Option<String> {
    let findings = report.findings.as_ref().filter(|findings| findings.moved_nothing())?;
    Some(format!(
        "--verify: every READ ended well and none moved a byte of the {} blocks asked for: the LUN keeps no data (a null \
         bdev?), there is nothing to verify",
        findings.checked
    ))
}
