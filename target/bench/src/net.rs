//! Frames through the driver side of vhost-user-net: sent, received, or sent and got back.
//!
//! [`run`] is `ringside bench net`. It connects (`device`), lays out shared memory (`layout`), and then one thread (`load`)
//! drives all queue pairs (`sender`, `receiver`) at the pace that was asked for (`pace`), while the calling thread watches.
//! Frames are those of `frame`, in front of each is a header of `wire`; `ledger` knows which are on their way, `judge` what
//! came of them. What came of all is an [`Outcome`]. Instead of a device there may be a thread that takes and gives frames
//! at once (`responder`).
//!
//! One frame to be sent is one descriptor that stays written, header and frame in a row: sending it again changes its number
//! and its checksum, if anything, and one entry of the available ring.

mod args;
mod device;
mod frame;
mod judge;
mod layout;
mod ledger;
mod load;
mod outcome;
mod pace;
mod receiver;
mod responder;
mod sender;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use anyhow::Context;
use virtqueue::Features;

pub use args::{Args, Mode, Offload, Switch};
pub use outcome::{Asked, Outcome};

pub(crate) use args::SIZE_MAX;
pub(crate) use device::ring_name;
pub(crate) use frame::MIN as SIZE_MIN;

pub use crate::histogram::LatencyHistogram;
pub use crate::meter::Latency;
pub use crate::ring::Ring;

use crate::board::Board;
use crate::link::{Link, RingFds};
use crate::memory::Memory;
use crate::report::OneRun;
use crate::responder::Responder;
use crate::signals::Signals;
use crate::some_seed;
use crate::watch::{self, Ended, Watched};
use frame::Frames;
use layout::Layout;
use load::{Halt, Load, Pair, Report};
use receiver::Receiver;
use sender::Sender;

/// Runs, prints progress on standard error and the outcome on standard output. SIGINT and SIGTERM end it early, with an
/// outcome. The caller makes the exit status of [`Outcome::passed`].
///
/// # Errors
/// What keeps a run from beginning: arguments, a report that cannot be written, nobody there, a device that lacks something. What goes wrong later is part of
/// the outcome.
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
    let mut link = args.socket.as_deref().map(|path| device::connect(args, path, interrupt)).transpose()?;
    let seed = args.seed.unwrap_or_else(some_seed);
    let frames = Frames::new(args, seed);
    let layout = Layout::new(args, &frames);
    let memory = Memory::create(layout.len).with_context(|| format!("{} bytes of shared memory", layout.len))?;
    let fds = layout.rings.iter().map(|_| RingFds::new()).collect::<anyhow::Result<Vec<_>>>()?;
    let features = link.as_ref().map_or(Features::default(), Link::ring_features);
    let mergeable = link.as_ref().map_or(args.mrg != Some(Switch::Off), device::mergeable);
    let pairs = pairs(args, &frames, &memory, &layout, &fds, features, mergeable)?;
    let _responder = match &mut link {
        Some(link) => {
            link.start(&memory, layout.queue_size, &layout.rings, fds.clone())?;
            None
        }
        None => {
            let mut device = responder::Device::new(args, &memory, &layout)?;
            Some(Responder::start(args.responder_core, args.core, move || device.poll())?)
        }
    };
    let (report, ended) = drive(args, pairs, frames, &fds, link.as_ref(), interrupt)?;
    let mut outcome = Outcome::new(args, seed, mergeable, &report);
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

fn pairs(
    args: &Args,
    frames: &Frames,
    memory: &Memory,
    layout: &Layout,
    fds: &[Arc<RingFds>],
    features: Features,
    mergeable: bool,
) -> anyhow::Result<Vec<Pair>> {
    let pairs = (0u16..).zip(fds.as_chunks::<2>().0);
    let pair = |(pair, [rx, tx]): (u16, &[Arc<RingFds>; 2])| {
        let receiver = Receiver::new(args, memory, layout, pair, Arc::clone(rx), features, mergeable)?;
        let sender = Sender::new(args, frames, memory, layout, pair, Arc::clone(tx), features)?;
        Ok(Pair { receiver, sender })
    };
    pairs.map(pair).collect()
}

/// The load on a thread of its own, watched from this one.
fn drive(
    args: &Args,
    pairs: Vec<Pair>,
    frames: Frames,
    fds: &[Arc<RingFds>],
    link: Option<&Link>,
    interrupt: BorrowedFd<'_>,
) -> anyhow::Result<(Report, Ended)> {
    let board = Board::new().context("eventfd")?;
    let load = Load::new(args, &board, pairs, frames, fds);
    let rates = |rate: f64| format!("{:.3} Mpps  {:.3} Gbit/s", rate / 1e6, rate * 8e-9 * f64::from(args.size));
    let watched = Watched { stall_timeout: args.stall_timeout, terse: args.json, rates: &rates };
    watch::drive(args.core, || load.run(), watched, &board, link, interrupt)
}

/// Why the run could not go on, if it could not.
fn failure(report: &Report, ended: Ended) -> Option<String> {
    let outstanding = || {
        let pairs = report.outstanding.iter().enumerate().filter(|(_, count)| **count > 0);
        let each: Vec<String> = pairs.map(|(pair, count)| format!("{count} on queue pair {pair}")).collect();
        if each.is_empty() { "none".to_owned() } else { each.join(", ") }
    };
    if let Some(Halt::Fault { ring, fault }) = report.halt {
        return Some(format!("the device broke the used ring of ring {ring}: {fault}"));
    }
    match ended {
        Ended::ByItself | Ended::Interrupted => None,
        Ended::Trouble(trouble) => Some(format!("{trouble}; frames outstanding: {}", outstanding())),
        Ended::Stalled(time) => Some(format!("no frame was taken for {time:?}; frames outstanding: {}", outstanding())),
    }
}
