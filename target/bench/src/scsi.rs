//! Reads and writes on one logical unit through the driver side of vhost-user-scsi.
//!
//! [`run`] is `ringside bench scsi`. It connects (`link`), lays out shared memory (`layout`, `lines`), asks the logical
//! unit what it is (`disk`, `cdb`, `reply`), and then one thread (`load`) drives all request queues (`queue`) with the
//! commands of a pattern (`pattern`, `work`), while the calling thread watches (`watch`, `board`, `signals`). With
//! verification the commands are those of `verify`. What came of it is an [`Outcome`]. Instead of a device there may be
//! a thread that answers everything (`responder`).
//!
//! One command is one descriptor chain whose descriptors stay written: sending it again changes the LBA in its header
//! and one entry of the available ring.

mod args;
mod board;
mod cdb;
mod disk;
mod layout;
mod lines;
mod link;
mod load;
mod meter;
mod outcome;
mod pattern;
mod queue;
mod reply;
mod responder;
mod signals;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;
mod watch;
mod work;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use rustix::event::{PollFd, PollFlags};
use vhost_user::connection::Stop;
use virtio_scsi::wire::SECTOR_LEN;
use virtqueue::Features;

pub use args::{Args, Ring, Rw};
pub use meter::Latency;
pub use outcome::{Asked, ErrorKind, Outcome};

use crate::cores;
use board::Board;
use disk::{Disk, Range};
use layout::{Layout, Memory};
use link::{Link, RingFds};
use load::{Halt, Load, Report};
use queue::Queue;
use responder::Responder;
use signals::Signals;
use watch::{Ended, watch};

/// Runs, prints progress on standard error and the outcome on standard output. SIGINT and SIGTERM end it early, with an
/// outcome. The caller makes the exit status of [`Outcome::passed`].
///
/// # Errors
/// What keeps a run from beginning: arguments, nobody listens, a device that lacks something, no such logical unit. What
/// goes wrong later is part of the outcome.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let signals = Signals::install().context("signals")?;
    let outcome = measure(args, signals.as_fd())?;
    outcome.print(args.json).context("standard output")?;
    Ok(outcome)
}

/// Runs until the time is over or `interrupt` becomes readable. Prints progress on standard error, and no outcome.
///
/// # Errors
/// As [`run`].
pub fn measure(args: &Args, interrupt: BorrowedFd<'_>) -> anyhow::Result<Outcome> {
    args.check()?;
    let mut link = args.socket.as_deref().map(|path| Link::connect(args, path)).transpose()?;
    let layout = Layout::new(args);
    let memory = Memory::create(layout.len).with_context(|| format!("{} bytes of shared memory", layout.len))?;
    let fds = layout.rings.iter().map(|_| RingFds::new()).collect::<anyhow::Result<Vec<_>>>()?;
    let features = link.as_ref().map_or(Features::default(), Link::ring_features);
    let mut queues = queues(args, &memory, &layout, &fds, features)?;
    let (disk, _responder) = match &mut link {
        Some(link) => {
            link.start(&memory, &layout, fds.clone())?;
            (find_disk(args, &mut queues[0], link, interrupt)?, None)
        }
        None => (Disk::ASSUMED, Some(Responder::start(args, &memory, &layout)?)),
    };
    if let Some(link) = &link {
        warn_of_limits(args, link);
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
fn warn_of_limits(args: &Args, link: &Link) {
    let Some(limits) = link.limits() else { return };
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
    let body = || {
        let _finished = Finished(&board.finished);
        if let Some(core) = args.core {
            cores::pin(core).context("--core")?;
        }
        anyhow::Ok(load.run())
    };
    thread::scope(|scope| {
        let driving = thread::Builder::new().name("bench".to_owned()).spawn_scoped(scope, body)?;
        let ended = watch(args, &board, link, interrupt);
        if ended.is_err() {
            board.give(board::Order::Abandon);
        }
        let Ok(report) = driving.join() else { bail!("the driving thread panicked") };
        Ok((report?, ended?))
    })
}

/// Says that a thread is finished, however it came to that.
struct Finished<'a>(&'a Stop);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
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

/// Another one each time, so that a block of an earlier run is not taken for one of this.
fn some_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // JSON readers may keep numbers in doubles, which hold 53 bits.
    (now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32) & ((1 << 53) - 1)
}
