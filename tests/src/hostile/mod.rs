//! A hostile driver: random sequences of what drivers and front-ends do, good and bad, against a device whose shards are
//! polled by hand. Nothing depends on time, so that the seed of a sequence is all that it takes to see it again.
//!
//! A sequence makes a controller of random limits, shards and queues, over devices that end requests in random order
//! when they are let (`ledger`). Steps are requests of every shape (`shapes`), task management functions, stops,
//! disablings, resets, rings that go cold, limits and memory tables that change, chains that break their ring, connections
//! that go while their requests live on and others that come. After every poll it is checked (`session`) that
//! - every chain that was fetched comes back once, with a response that it may have, and nothing else is written;
//! - a command is refused exactly if its unit has the limit in flight, and the backend never has more; where chains are used in
//!   order (VIRTIO_F_IN_ORDER), the driver cannot see more of that than that there were enough;
//! - a function is answered after everything that it is about;
//! - what was answered as quiet is quiet: nothing is fetched, written or called;
//!
//! and in the end that nothing is left anywhere, and that every counter says what the driver saw.

pub mod ledger;
mod ring;
mod session;
mod shapes;

use std::sync::{Arc, OnceLock};

use bdev::Bdev;
use crossbeam::channel::{self, Receiver, Sender};
use reactor::{IdlePolicy, PollerHandle, Reactor, ReactorConfig};
use vhost_user::RingReport;
use virtio_scsi::{Controller, ControllerConfig, Limit, Limits, OnCommandLimit, OnTransferLimit};
use virtqueue::Features;

use self::ledger::Ledger;
use self::ring::Kind;
use self::session::{Revival, Rules, Session};
use self::shapes::{Bounds, UNITS};
use crate::device::{Noise, unit};

/// What the driver has seen, in the device's own terms.
#[derive(Default)]
pub struct Seen {
    responses: [u64; 16],
    functions: [[u64; 16]; 9],
    refused: [[u64; Limit::ALL.len()]; UNITS as usize],
    bare: u64,
}

/// How often something happened in a number of sequences: a test that tries nothing finds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were answered.
    pub answers: u64,
    /// Those that `cmd_per_lun` refused.
    pub refused: u64,
    /// Those that a function ended.
    pub swept: u64,
    /// Functions.
    pub functions: u64,
    /// Rings that were halted.
    pub halted: u64,
    /// Connections that ended.
    pub sessions: u64,
    /// Those of them with commands in flight.
    pub left_behind: u64,
    /// Quiet replies: to stops, disablings and resets.
    pub quiets: u64,
}

/// Runs one sequence.
///
/// # Panics
/// If the device breaks a promise. The seed is printed then.
#[must_use]
pub fn run_sequence(seed: u64) -> Tally {
    let _told = TellSeed(seed);
    let mut world = World::new(seed);
    let steps = 40 + world.noise.below(120) as u32;
    while world.step < steps {
        world.step();
    }
    world.finish()
}

struct World {
    noise: Noise,
    step: u32,
    rules: Rules,
    controller: Controller,
    pollers: Vec<PollerHandle>,
    ledgers: Vec<Ledger>,
    sender: Sender<RingReport>,
    reports: Receiver<RingReport>,
    /// The last one is connected; those before it are on their way out.
    sessions: Vec<Session>,
    connected: usize,
    /// The highest limit so far.
    limit_max: u32,
    seen: Seen,
    tally: Tally,
    /// Print every step.
    loud: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut noise = Noise::new(seed);
        let bounds = Bounds { max_sectors: 4, seg_max: 3 + noise.below(2) as u32 };
        let rules = Rules {
            bounds,
            cmd_per_lun: 1 + noise.below(6) as u32,
            on_cmd_per_lun: noise.pick(&[OnCommandLimit::Transport, OnCommandLimit::Failure, OnCommandLimit::Scsi]),
            on_max_sectors: noise.pick(&[OnTransferLimit::Transport, OnTransferLimit::Scsi]),
            ring_size: noise.pick(&[8, 16, 32, 64]),
            kind: Kind { features: Features { event_idx: noise.once_in(2) }, in_order: noise.once_in(3) },
        };
        let ledger = |number: u16| Ledger::new(format!("ledger{number}"), rules.cmd_per_lun, Noise::new(noise.bits()));
        let ledgers: Vec<Ledger> = (0..UNITS).map(ledger).collect();
        let units = (0..).zip(&ledgers).map(|(lun, ledger)| unit(0, lun, Arc::new(ledger.clone()) as Arc<dyn Bdev>));
        let limits = Limits {
            cmd_per_lun: rules.cmd_per_lun,
            max_sectors: bounds.max_sectors,
            seg_max: Some(bounds.seg_max),
            on_cmd_per_lun: rules.on_cmd_per_lun,
            on_max_sectors: rules.on_max_sectors,
        };
        let controller = Controller::new(ControllerConfig {
            name: "hostile".into(),
            request_queues: 1 + noise.below(4) as u16,
            queue_size_max: 64,
            in_order: rules.kind.in_order,
            limits,
            units: units.collect(),
        });
        let shards = 1 + noise.below(3) as usize;
        let (sender, reports) = channel::bounded(1024);
        let mut world = World {
            noise,
            step: 1,
            rules,
            controller,
            pollers: vec![poller(); shards],
            ledgers,
            sender,
            reports,
            sessions: Vec::new(),
            connected: 0,
            limit_max: rules.cmd_per_lun,
            seen: Seen::default(),
            tally: Tally::default(),
            loud: std::env::var_os("HOSTILE_SEED").is_some(),
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.ledgers.iter().for_each(|ledger| ledger.session(self.connected));
        self.connected += 1;
        self.sessions.push(Session::connect(self.rules, &self.controller, &self.pollers, &self.sender));
    }

    fn step(&mut self) {
        self.step += 1;
        let World { noise, sessions, step, .. } = self;
        let step = *step;
        let session = sessions.last_mut().expect("one is connected");
        let roll = noise.below(200);
        if self.loud {
            eprintln!("step {step}: {roll}");
        }
        match roll {
            0..60 => session.submit(noise, step),

            60..80 => session.control(noise, step),
            80..82 => session.post_event(noise, step),
            82 => session.poison(noise),
            83..100 => {
                let ledger = noise.pick(&[0, 1]);
                self.ledgers[ledger].release(1 + noise.below(4));
            }
            100..102 => {
                let shard = noise.below(session.shards()) as usize;
                session.arm(shard);
            }
            126..128 => {
                let shard = noise.below(session.shards()) as usize;
                (0..2).for_each(|_| session.cool(shard));
            }
            128 => self.change_limit(),
            102..126 if session.idle() => self.manage(roll),
            _ => _ = self.poll(),
        }
        self.settle();
    }

    /// What the control thread can do when it waits for nothing.
    fn manage(&mut self, roll: u64) {
        let World { noise, sessions, step, .. } = self;
        let session = sessions.last_mut().expect("one is connected");
        let index = noise.below(session.rings()) as u16;
        match roll {
            102..106 => session.stop(index),
            106..110 => session.disable(index),
            110..117 => {
                if let Some(index) = session.at_rest(noise) {
                    session.revive(index, noise.pick(&[Revival::Renew, Revival::Resume]));
                }
            }
            117..119 => {
                // Stopped and started again between two polls, if nothing is in flight.
                session.stop(index);
                session.settle_control(*step);
                if session.idle() {
                    session.revive(index, noise.pick(&[Revival::Renew, Revival::Resume]));
                }
            }
            119..122 => session.change_memory(noise),
            122..124 => session.reset(),
            _ => {
                session.close();
                self.tally.sessions += 1;
                self.tally.left_behind += u64::from(session.in_flight.iter().any(|count| *count > 0));
                self.connect();
            }
        }
    }

    /// Another `cmd_per_lun` for everybody.
    fn change_limit(&mut self) {
        let World { noise, sessions, ledgers, controller, rules, limit_max, .. } = self;
        rules.cmd_per_lun = 1 + noise.below(6) as u32;
        *limit_max = rules.cmd_per_lun.max(*limit_max);
        ledgers.iter().for_each(|ledger| ledger.raise_limit(rules.cmd_per_lun));
        let limits = Limits { cmd_per_lun: rules.cmd_per_lun, ..controller.limits() };
        let tell = || sessions.iter_mut().for_each(|session| session.set_limits(limits));
        controller.set_limits(limits, tell).expect("a limit that can be");
    }

    /// Polls one shard of one session: mostly of the one that is connected.
    fn poll(&mut self) -> usize {
        let World { noise, sessions, step, seen, .. } = self;
        let count = sessions.len() as u64;
        let session = if noise.once_in(3) { noise.below(count) } else { count - 1 } as usize;
        let session = &mut sessions[session];
        match session.shards() {
            0 => 0,
            shards => session.poll_shard(noise.below(shards) as usize, *step, seen),
        }
    }

    /// Lets control threads go on, forgets connections of which nothing is left, and compares the gauges.
    fn settle(&mut self) {
        let Tally { quiets, .. } = &mut self.tally;
        for session in &mut self.sessions {
            let waited = !session.idle();
            session.settle_control(self.step);
            *quiets += u64::from(waited && session.idle());
        }
        self.sessions.retain(|session| !session.closed());
        for unit in 0..usize::from(UNITS) {
            let expected: u32 = self.sessions.iter().map(|session| session.in_flight[unit]).sum();
            let gauges: u64 = self.controller.stats().iter().map(|stats| stats.units[unit].in_flight.value()).sum();
            // In order, commands that have ended may be out still.
            let agree = gauges == u64::from(expected) || self.rules.kind.in_order && gauges < u64::from(expected);
            assert!(agree, "step {}: {gauges} commands in flight of unit {unit}, {expected} are out", self.step);
        }
    }

    /// Everything may end now, and has to.
    fn finish(mut self) -> Tally {
        self.ledgers.iter().for_each(Ledger::open);
        self.run();
        self.sessions.iter().for_each(Session::check_quiet);
        self.sessions.last_mut().expect("one is connected").close();
        self.settle();
        self.run();
        assert_eq!(self.sessions.len(), 0, "a connection that never ends");
        for ledger in &self.ledgers {
            assert_eq!(ledger.left(), (0, 0), "requests and channels in the end");
        }
        self.compare();
        self.tally
    }

    fn run(&mut self) {
        const QUIET: usize = 6;
        let mut quiet = 0;
        for _ in 0..2000 {
            self.step += 1;
            let mut work = 0;
            for session in &mut self.sessions {
                for shard in 0..session.shards() {
                    work += session.poll_shard(shard as usize, self.step, &mut self.seen);
                }
            }
            self.settle();
            quiet = if work == 0 { quiet + 1 } else { 0 };
            if quiet == QUIET {
                return;
            }
        }
        panic!("the device never comes to rest");
    }

    /// Counters say what the driver saw.
    fn compare(&mut self) {
        let blocks = self.controller.stats();
        let sum = |of: &dyn Fn(&virtio_scsi::ShardStats) -> u64| blocks.iter().map(|stats| of(stats)).sum::<u64>();
        let codes = blocks[0].responses.len();
        let Seen { responses, functions, refused, bare } = &self.seen;
        for (code, expected) in responses.iter().enumerate().take(codes) {
            assert_eq!(sum(&|stats| stats.responses[code].value()), *expected, "responses {code}");
        }
        for (function, by_code) in functions.iter().enumerate() {
            for (code, expected) in by_code.iter().enumerate().take(codes) {
                let counted = sum(&|stats| stats.tmfs[function][code].value());
                assert_eq!(counted, *expected, "functions {function} with response {code}");
            }
        }
        for (unit, by_limit) in refused.iter().enumerate() {
            for limit in Limit::ALL {
                let counted = sum(&|stats| stats.units[unit].refused[limit as usize].value());
                assert_eq!(counted, by_limit[limit as usize], "refusals of unit {unit} by {limit:?}");
            }
        }
        assert_eq!(sum(&|stats| stats.no_response_room.value()), *bare);
        let halted =
            sum(&|stats| stats.rings.iter().flat_map(|(_, ring)| &ring.faults).map(|fault| fault.value()).sum());
        assert_eq!(self.reports.try_iter().count() as u64, halted, "each halted ring is reported once");
        let high = blocks.iter().flat_map(|stats| stats.units.iter()).map(|unit| unit.high_water.value()).max();
        assert!(high <= Some(u64::from(self.limit_max)), "high water {high:?}");
        self.tally.answers += responses.iter().sum::<u64>();
        self.tally.refused += refused.iter().map(|limits| limits[Limit::CmdPerLun as usize]).sum::<u64>();
        self.tally.swept += responses[2] + responses[4];
        self.tally.functions += functions.iter().flatten().sum::<u64>();
        self.tally.halted += halted;
    }
}

impl Seen {
    fn response(&mut self, code: u8) {
        self.responses[usize::from(code)] += 1;
    }

    fn function(&mut self, subtype: u32, code: u8) {
        self.functions[subtype.min(8) as usize][usize::from(code)] += 1;
    }

    fn refused(&mut self, unit: Option<u16>, limit: Limit) {
        if let Some(unit) = unit {
            self.refused[usize::from(unit)][limit as usize] += 1;
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.answers += other.answers;
        self.refused += other.refused;
        self.swept += other.swept;
        self.functions += other.functions;
        self.halted += other.halted;
        self.sessions += other.sessions;
        self.left_behind += other.left_behind;
        self.quiets += other.quiets;
    }
}

/// Says which sequence it was, if it fails.
struct TellSeed(u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("HOSTILE_SEED={} runs this sequence alone, step by step", self.0);
        }
    }
}

/// A poller that is only there to be woken: shards are polled by the test.
fn poller() -> PollerHandle {
    static REACTOR: OnceLock<Reactor> = OnceLock::new();
    let start = || {
        let cores = reactor::affinity::allowed().expect("the cores of this process");
        Reactor::start(&ReactorConfig { cores: vec![cores[0]], idle: IdlePolicy::Adaptive }).expect("a poller")
    };
    REACTOR.get_or_init(start).pollers()[0].clone()
}
