//! The thread that drives the rings: phases, time, and the loop over all queues. It takes no lock, and makes no system
//! call but kicks (and sleeps, if it is to wait for interrupts). What is sent is the work's business.

use std::sync::Arc;
use std::time::Duration;

use reactor::Tsc;
use virtqueue::UsedFault;

use super::Args;
use super::cdb::Direction;
use super::disk::Range;
use super::pattern::{Numbers, Pattern};
use super::queue::Queue;
use super::reply::Tally;
use super::verify::{Findings, Verified};
use super::work::{Bounded, Plain, Work};
use crate::board::{Board, Order, Phase};
use crate::link::RingFds;
use crate::meter::Meter;
use crate::stage::{SLEEPING_TICK, Sleeper, Stage, TICK, cpu_time, ticks};

/// All queues and what is measured on them.
pub(super) struct Load<'a> {
    args: &'a Args,
    range: Range,
    seed: u64,
    board: &'a Board,
    queues: Vec<Queue>,
    sleeper: Option<Sleeper<'a>>,
    meter: Meter,
    tally: Tally,
    completed: u64,
    /// Ticks of the clock in turns that took something back.
    busy: u64,
    cpu_before: Duration,
    next_tick: Tsc,
    asked_to_finish: bool,
    window: Option<Window>,
}

/// What the load has to say in the end.
#[derive(Debug)]
pub(super) struct Report {
    /// `None` if the measurement did not begin.
    pub window: Option<Window>,
    pub tally: Tally,
    /// What verification found, if it was asked for.
    pub findings: Option<Findings>,
    /// Why it ended before its time, if it did.
    pub halt: Option<Halt>,
    /// Commands that did not come back, by queue.
    pub outstanding: Vec<u16>,
}

/// The measurement.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub meter: Meter,
    pub length: Duration,
    /// Time in turns that took something back.
    pub busy: Duration,
    /// Processor time of the thread.
    pub cpu: Duration,
}

/// Why a load ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// [`Order::Finish`].
    Finished,
    /// [`Order::Abandon`].
    Abandoned,
    /// A device broke the rules of the used ring.
    Fault { queue: usize, fault: UsedFault },
}

impl<'a> Load<'a> {
    pub(super) fn new(
        args: &'a Args,
        range: Range,
        seed: u64,
        board: &'a Board,
        queues: Vec<Queue>,
        fds: &'a [Arc<RingFds>],
    ) -> Load<'a> {
        let sleeper = args.interrupt.then(|| Sleeper::new(fds, board));
        Load {
            args,
            range,
            seed,
            board,
            queues,
            sleeper,
            meter: Meter::new(),
            tally: Tally::default(),
            completed: 0,
            busy: 0,
            cpu_before: Duration::ZERO,
            next_tick: Tsc::now(),
            asked_to_finish: false,
            window: None,
        }
    }

    /// All phases, on the calling thread.
    pub(super) fn run(mut self) -> Report {
        let mut numbers = Numbers::new(self.seed);
        self.queues.iter_mut().for_each(|queue| queue.fill_data(|| numbers.next()));
        let pattern = Pattern::new(self.args, self.range.pieces, self.seed);
        let (result, findings) = if self.args.verify {
            let mut work = Verified::new(self.range, self.seed);
            (self.verified(&mut work, pattern), Some(work.findings().clone()))
        } else {
            (self.timed(&mut Plain(pattern)), None)
        };
        let outstanding = self.queues.iter().map(Queue::in_flight).collect();
        Report { window: self.window, tally: self.tally, findings, halt: result.err(), outstanding }
    }

    fn verified(&mut self, work: &mut Verified, pattern: Pattern) -> Result<(), Halt> {
        let reads_only = self.args.rw.reads_only();
        if reads_only {
            work.fill();
            self.sweep(work, Phase::Filling, Direction::Write)?;
        }
        work.follow(pattern);
        self.timed(work)?;
        if !reads_only {
            work.read_back();
            self.sweep(work, Phase::ReadingBack, Direction::Read)?;
        }
        Ok(())
    }

    /// A phase that ends when there is no work left.
    fn sweep<W: Work>(&mut self, work: &mut W, phase: Phase, direction: Direction) -> Result<(), Halt> {
        self.board.set_phase(phase);
        self.prepare(Some(direction));
        self.cycle(work, Stage::Untimed)
    }

    /// Warm-up and measurement.
    fn timed<W: Work>(&mut self, work: &mut W) -> Result<(), Halt> {
        let rw = self.args.rw;
        let direction = match (rw.reads_only(), rw.writes_only()) {
            (true, _) => Some(Direction::Read),
            (_, true) => Some(Direction::Write),
            _ => None,
        };
        self.prepare(direction);
        if let Some(left) = self.args.number_ios {
            let stage = self.measuring(Tsc::now());
            return self.cycle(&mut Bounded { work, left }, stage);
        }
        self.board.set_phase(Phase::WarmingUp);
        self.cycle(work, Stage::WarmingUp { until: Tsc::now() + ticks(self.args.warmup) })
    }

    /// The measurement begins.
    fn measuring(&mut self, now: Tsc) -> Stage {
        self.board.set_phase(Phase::Measuring);
        self.meter.clear();
        self.busy = 0;
        self.cpu_before = cpu_time();
        Stage::Measuring { since: now, until: now + ticks(self.args.time) }
    }

    fn prepare(&mut self, direction: Option<Direction>) {
        self.queues.iter_mut().for_each(|queue| queue.prepare(&self.range, direction));
    }

    /// Keeps all slots busy until the stage says that nothing more is sent, or the work does, and everything is back. With a
    /// time to think, batch by batch.
    fn cycle<W: Work>(&mut self, work: &mut W, mut stage: Stage) -> Result<(), Halt> {
        let think = ticks(Duration::from_micros(self.args.think_us.into()));
        self.next_tick = Tsc::now();
        let last = loop {
            self.queues.iter_mut().for_each(|queue| queue.prime(work));
            let nothing_left = self.in_flight() == 0;
            let last = self.exchange(work, &mut stage, think == 0)?;
            if nothing_left || think == 0 || !stage.sends() {
                break last;
            }
            self.think(&mut stage, last + think)?;
            if !stage.sends() {
                break last;
            }
        };
        if let Stage::Measuring { since, .. } = stage {
            self.window = Some(self.window_of(last - since)); // there was no more work
        }
        self.tell();
        if self.asked_to_finish { Err(Halt::Finished) } else { Ok(()) }
    }

    /// Until everything is back; with `refill` there is a command for each that comes back. Returns when that was.
    fn exchange<W: Work>(&mut self, work: &mut W, stage: &mut Stage, refill: bool) -> Result<Tsc, Halt> {
        let mut last = Tsc::now();
        while self.in_flight() > 0 {
            let mut came = 0;
            for queue in &mut self.queues {
                came += queue.turn(work, &mut self.meter, &mut self.tally, refill && stage.sends());
            }
            let now = Tsc::now();
            if came > 0 {
                self.completed += came as u64;
                self.busy += now - last;
            }
            last = now;
            if now >= self.next_tick {
                *stage = self.tick(now, *stage)?;
            }
            if came == 0 && self.sleeper.is_some() {
                self.sleep(now);
                last = Tsc::now();
            }
        }
        Ok(last)
    }

    /// Sends nothing until then, or until nothing more is to be sent.
    fn think(&mut self, stage: &mut Stage, until: Tsc) -> Result<(), Halt> {
        loop {
            let now = Tsc::now();
            if now >= self.next_tick {
                *stage = self.tick(now, *stage)?;
            }
            if now >= until || !stage.sends() {
                return Ok(());
            }
            match &mut self.sleeper {
                Some(sleeper) => sleeper.sleep(until.min(self.next_tick) - now),
                None => std::hint::spin_loop(),
            }
        }
    }

    /// What is done now and then: tell how far it is, see what is wanted, see what time it is.
    #[cold]
    #[inline(never)]
    fn tick(&mut self, now: Tsc, stage: Stage) -> Result<Stage, Halt> {
        self.tell();
        let order = self.board.order();
        self.asked_to_finish |= order != Order::GoOn;
        let stage = self.stage_at(now, stage);
        let tick = if self.sleeper.is_some() { SLEEPING_TICK } else { TICK };
        self.next_tick = (now + ticks(tick)).min(stage.until());
        if order == Order::Abandon {
            return Err(Halt::Abandoned);
        }
        let fault = |(queue, ring): (usize, &Queue)| ring.fault().map(|fault| Halt::Fault { queue, fault });
        self.queues.iter().enumerate().find_map(fault).map_or(Ok(stage), Err)
    }

    /// The stage from now on.
    fn stage_at(&mut self, now: Tsc, stage: Stage) -> Stage {
        match stage {
            Stage::Measuring { since, until } if now >= until || self.asked_to_finish => {
                self.window = Some(self.window_of(now - since));
                self.board.set_phase(Phase::Draining);
                Stage::Draining
            }
            _ if self.asked_to_finish => Stage::Draining,
            Stage::WarmingUp { until } if now >= until => self.measuring(now),
            other => other,
        }
    }

    fn window_of(&self, length: u64) -> Window {
        Window {
            meter: self.meter.clone(),
            length: Duration::from_nanos(Tsc::nanos(length)),
            busy: Duration::from_nanos(Tsc::nanos(self.busy)),
            cpu: cpu_time().saturating_sub(self.cpu_before),
        }
    }

    fn tell(&self) {
        self.board.completed.set(self.completed);
        self.board.failed.set(self.tally.total());
        self.board.in_flight.set(self.in_flight().into());
    }

    #[inline(always)]
    fn in_flight(&self) -> u32 {
        self.queues.iter().map(|queue| u32::from(queue.in_flight())).sum()
    }

    /// Sleeps until a call, an order or the next tick.
    fn sleep(&mut self, now: Tsc) {
        // Calls are wanted on every ring before any of them is relied on.
        let back = self.queues.iter_mut().fold(false, |back, queue| queue.enable_calls() | back);
        if !back && let Some(sleeper) = &mut self.sleeper {
            sleeper.sleep(self.next_tick - now);
        }
        self.queues.iter_mut().for_each(Queue::disable_calls);
    }
}
