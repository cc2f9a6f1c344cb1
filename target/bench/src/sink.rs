//! A net device that gives every chain back at once and looks at nothing in it: what a driver, which may be anybody's, reaches
//! with a device that does nothing. It is made of the product's own parts: the vhost-user session, the rings, a busy poller.
//!
//! It is no strict bound: who looks at a ring without a pause takes its cache lines from the driver more often, so that a device
//! with something to do may come out some percent above it.
//!
//! [`run`] is `ringside bench sink`: sockets, front-ends and signals. What is done to the rings is `shard`.

mod shard;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, bail, ensure};
use crossbeam::channel::{self, Receiver, Sender};
use reactor::{IdlePolicy, Reactor, ReactorConfig, affinity};
use rustix::event::PollFlags;
use vhost_user::connection::{self, Listener, Stop};
use vhost_user::message::{F_PROTOCOL_FEATURES, protocol};
use vhost_user::session::{DeviceInfo, Session};
use vhost_user::{Endpoint, EndpointParts, RingReport, RingSet, RingStats};

use crate::Finished;
use crate::link::Needed;
use crate::net;
use crate::net::wire::{EVENT_IDX, INDIRECT, MRG_RXBUF, VERSION_1};
use crate::ring;
use crate::signals::Signals;
use shard::{RINGS, Shard};

/// Where, and what drivers find there.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// vhost-user-net socket to listen on
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Which chains are given back; those of what drivers send are in any case
    #[arg(long, value_enum, default_value_t = Mode::Tx)]
    pub mode: Mode,
    /// With --mode rx, bytes of a frame without FCS, 14 to 9018: its header is written and nothing else. What does not fit
    /// into a receive buffer is cut off
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: u32,
    /// Core of the poller [default: the last one that this process may use]
    #[arg(long, value_name = "CORE")]
    pub core: Option<usize>,
}

/// What drivers find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum Mode {
    /// A device that takes frames, and leaves receive buffers alone.
    Tx,
    /// One that fills every receive buffer, too.
    Rx,
}

/// Serves one front-end after the other until SIGINT or SIGTERM comes, then ends whatever front-ends do.
///
/// # Errors
/// Options out of their bounds, a core that this process may not use, a socket path that cannot be used, a socket that fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    args.check()?;
    let signals = Signals::install().context("signals")?;
    serve(args, &Listener::bind(&args.socket)?, signals.as_fd())
}

impl Args {
    fn check(&self) -> anyhow::Result<()> {
        let (size, least, most) = (self.size, net::SIZE_MIN, net::SIZE_MAX);
        ensure!((least..=most).contains(&size), "--size {size}: must be {least} to {most}");
        if let Some(core) = self.core {
            affinity::check(&[core]).context("--core")?;
        }
        Ok(())
    }

    fn core(&self) -> anyhow::Result<usize> {
        match (self.core, affinity::allowed()?.last()) {
            (Some(core), _) | (None, Some(&core)) => Ok(core),
            (None, None) => bail!("this process may use no core"),
        }
    }
}

/// Serves until `interrupt` becomes readable.
fn serve(args: &Args, listener: &Listener, interrupt: BorrowedFd<'_>) -> anyhow::Result<()> {
    let reactor = Reactor::start(&ReactorConfig { cores: vec![args.core()?], idle: IdlePolicy::Busy })?;
    let stop = Stop::new().context("eventfd")?;
    let (reports, faults) = channel::bounded(FAULTS_MAX);
    let sink = Sink { args, reactor, reports };
    thread::scope(|scope| {
        scope.spawn(|| tell(&faults));
        let serving = scope.spawn(|| {
            let _finished = Finished(&stop);
            sink.front_ends(listener, &stop)
        });
        let waited = stop.wait_for(interrupt, PollFlags::IN);
        stop.request();
        serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        waited.map(drop).context("signals")
    })
}

/// What connections have in common. When it is dropped nothing is left that could report.
struct Sink<'a> {
    args: &'a Args,
    /// Of one poller.
    reactor: Reactor,
    reports: Sender<RingReport>,
}

impl Sink<'_> {
    /// One after the other; who comes meanwhile waits.
    fn front_ends(self, listener: &Listener, stop: &Stop) -> anyhow::Result<()> {
        while let Some(stream) = listener.accept(stop).context("--socket")? {
            let mut endpoint = self.connection();
            connection::serve(stream, Session::new(DEVICE), &mut endpoint, stop);
            endpoint.close();
        }
        Ok(())
    }

    fn connection(&self) -> Endpoint<Shard> {
        let name: Arc<str> = "sink".into();
        let ring_stats: Vec<Arc<RingStats>> = (0..RINGS).map(|_| Arc::default()).collect();
        let rings = RingSet::new(Arc::clone(&name), (0..).zip(ring_stats.clone()).collect(), self.reports.clone());
        Endpoint::new(EndpointParts {
            name,
            shards: vec![self.reactor.pollers()[0].add(Shard::new(rings, self.args))],
            routes: vec![0; usize::from(RINGS)],
            ring_stats,
            config: Box::new(Vec::new),
            quiesce: Arc::default(),
        })
    }
}

/// Says which rings broke, until there are no more of them.
fn tell(faults: &Receiver<RingReport>) {
    for RingReport { ring, fault, .. } in faults {
        eprintln!("bench: ring {ring} ({}) is broken: {fault}", net::ring_name(ring.into()));
    }
}

/// What a front-end finds: one queue pair with what ringside's net device has to offer of rings and buffers, and nothing of
/// what is done to frames. Without a control queue.
const DEVICE: DeviceInfo = DeviceInfo {
    features: bits(&[VERSION_1, MRG_RXBUF, INDIRECT, EVENT_IDX, ring::PACKED, ring::IN_ORDER]) | F_PROTOCOL_FEATURES,
    tolerated_features: 0,
    protocol_features: protocol::MQ
        | protocol::REPLY_ACK
        | protocol::RESET_DEVICE
        | protocol::CONFIGURE_MEM_SLOTS
        | protocol::STATUS,
    queues: RINGS,
    queue_size_max: 1024,
    max_mem_slots: 509, // as ringside's devices
};

const fn bits(features: &[Needed]) -> u64 {
    let (mut all, mut at) = (0, 0);
    while at < features.len() {
        all |= 1 << features[at].bit;
        at += 1;
    }
    all
}

/// Faults that wait to be told: of each ring one.
const FAULTS_MAX: usize = RINGS as usize;
