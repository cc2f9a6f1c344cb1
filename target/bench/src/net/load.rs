//! The thread that drives the rings: phases, time, and the loop over all queue pairs. It takes no lock, and makes no system
//! call but kicks (and sleeps, if it is to wait for interrupts). What is thought of frames is the judge's.

use std::sync::Arc;
use std::time::Duration;

use reactor::Tsc;
use virtqueue::UsedFault;

use super::args::{Args, Mode};
use super::frame::Frames;
use super::judge::{Counts, Judge};
use super::pace::Pace;
use super::receiver::Receiver;
use super::sender::{BATCH, Sender, number};
use crate::board::{Board, Order, Phase};
use crate::link::RingFds;
use crate::meter::Meter;
use crate::stage::{SLEEPING_TICK, Sleeper, Stage, TICK, cpu_time, ticks};

/// A queue pair.
#[derive(Debug)]
pub(super) struct Pair {
    pub receiver: Receiver,
    pub sender: Sender,
}

/// All queue pairs and what is measured on them.
pub(super) struct Load<'a> {
    args: &'a Args,
    board: &'a Board,
    pairs: Vec<Pair>,
    frames: Frames,
    judge: Judge,
    pace: Pace,
    sleeper: Option<Sleeper<'a>>,
    window_max: usize,
    totals: Totals,
    /// What the totals were when the measurement began.
    before: Snapshot,
    next_tick: Tsc,
    asked_to_finish: bool,
    window: Option<Window>,
}

/// Over all phases.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    /// Frames given to the device.
    sent: u64,
    /// Frames that it has taken.
    taken: u64,
    /// Ticks of the clock in turns that moved something.
    busy: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Snapshot {
    totals: Totals,
    counts: Counts,
    cpu: Duration,
}

/// What the load has to say in the end.
#[derive(Debug)]
pub(super) struct Report {
    /// `None` if the measurement did not begin.
    pub window: Option<Window>,
    /// Of all phases.
    pub counts: Counts,
    pub sent: u64,
    /// Frames that did not come back.
    pub lost: u64,
    /// The first things that were wrong.
    pub complaints: Vec<String>,
    /// Why it ended before its time, if it did.
    pub halt: Option<Halt>,
    /// Frames that the device has not taken, by queue pair.
    pub outstanding: Vec<u16>,
}

/// The measurement.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub meter: Meter,
    /// Frames that the device took.
    pub taken: u64,
    /// Frames that came.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
    pub length: Duration,
    /// Time in turns that moved something.
    pub busy: Duration,
    /// Processor time of the thread.
    pub cpu: Duration,
}

/// Why a load ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// [`Order::Abandon`].
    Abandoned,
    /// A device broke the rules of the used ring.
    Fault { ring: usize, fault: UsedFault },
}

impl<'a> Load<'a> {
    pub(super) fn new(
        args: &'a Args,
        board: &'a Board,
        pairs: Vec<Pair>,
        frames: Frames,
        fds: &'a [Arc<RingFds>],
    ) -> Load<'a> {
        Load {
            args,
            board,
            pairs,
            judge: Judge::new(args, frames.clone()),
            frames,
            pace: Pace::new(args.rate, args.frames.filter(|_| args.mode != Mode::Rx), Tsc::now()),
            sleeper: args.interrupt.then(|| Sleeper::new(fds, board)),
            window_max: args.window_or_default().into(),
            totals: Totals::default(),
            before: Snapshot::default(),
            next_tick: Tsc::now(),
            asked_to_finish: false,
            window: None,
        }
    }

    /// All phases, on the calling thread.
    pub(super) fn run(mut self) -> Report {
        self.pairs.iter_mut().for_each(|pair| pair.receiver.publish());
        let now = Tsc::now();
        self.pace.begin(now);
        let stage = if self.args.frames.is_some() {
            self.measuring(now)
        } else {
            self.board.set_phase(Phase::WarmingUp);
            Stage::WarmingUp { until: now + ticks(self.args.warmup) }
        };
        let halt = match self.args.mode {
            Mode::Tx => self.cycle(stage, Load::turn_tx),
            Mode::Rx => self.cycle(stage, Load::turn_rx),
            Mode::Loop => self.cycle(stage, Load::turn_loop),
        };
        Report {
            window: self.window,
            counts: self.judge.counts,
            sent: self.totals.sent,
            lost: self.judge.lost(),
            complaints: self.judge.complaints,
            halt: halt.err(),
            outstanding: self.pairs.iter().map(|pair| pair.sender.in_flight()).collect(),
        }
    }

    // --- turns: each moves what there is, and says how much that was ---

    #[inline(always)]
    fn turn_tx(&mut self, sends: bool) -> usize {
        let allowed = if sends { self.pace.allowance() } else { 0 };
        let mut left = allowed;
        let mut moved = 0;
        for (index, pair) in (0u16..).zip(&mut self.pairs) {
            let taken = pair.sender.reap();
            self.totals.taken += taken as u64;
            moved += taken;
            let room = self.window_max - usize::from(pair.sender.in_flight());
            let count = room.min(pair.sender.free()).min(BATCH).min(left);
            if count == 0 {
                continue;
            }
            if self.args.verify {
                for k in 0..count as u64 {
                    let number = number(index, self.totals.sent + k);
                    pair.sender.send(|memory| self.frames.rewrite(memory, number));
                }
            } else {
                (0..count).for_each(|_| pair.sender.send(|_| ()));
            }
            pair.sender.publish();
            self.totals.sent += count as u64;
            left -= count;
        }
        self.pace.spend(allowed - left);
        moved + (allowed - left)
    }

    #[inline(always)]
    fn turn_rx(&mut self, _sends: bool) -> usize {
        self.pairs.iter_mut().map(|pair| pair.receiver.turn(&mut self.judge)).sum()
    }

    #[inline(always)]
    fn turn_loop(&mut self, sends: bool) -> usize {
        let allowed = if sends { self.pace.allowance() } else { 0 };
        let mut left = allowed;
        let mut moved = 0;
        for (index, pair) in (0u16..).zip(&mut self.pairs) {
            moved += pair.receiver.turn(&mut self.judge);
            let taken = pair.sender.reap();
            self.totals.taken += taken as u64;
            moved += taken;
            let ledger = &mut self.judge.ledgers[usize::from(index)];
            let room = self.window_max - (ledger.pending() as usize).min(self.window_max);
            let count = room.min(pair.sender.free()).min(BATCH).min(left);
            if count == 0 {
                continue;
            }
            let now = Tsc::now();
            for _ in 0..count {
                let number = number(index, ledger.send(now));
                pair.sender.send(|memory| self.frames.rewrite(memory, number));
            }
            pair.sender.publish();
            self.totals.sent += count as u64;
            left -= count;
        }
        self.pace.spend(allowed - left);
        moved + (allowed - left)
    }

    // --- time ---

    /// Turns until the stage says that nothing more is sent and everything is back, or given up.
    #[inline(always)]
    fn cycle(&mut self, mut stage: Stage, turn: impl Fn(&mut Load<'a>, bool) -> usize) -> Result<(), Halt> {
        let mut last = Tsc::now();
        loop {
            let moved = turn(self, stage.sends());
            let now = Tsc::now();
            if moved > 0 {
                self.totals.busy += now - last;
            }
            last = now;
            self.pace.at(now);
            if now >= self.next_tick || (moved == 0 && self.pace.is_over()) {
                stage = self.tick(now, stage)?;
                if !stage.sends() && self.all_back() {
                    self.tell();
                    return Ok(());
                }
            }
            if moved == 0 && self.sleeper.is_some() {
                self.sleep(now);
                last = Tsc::now();
                self.pace.at(last);
            }
        }
    }

    /// Nothing is waited for any more.
    fn all_back(&self) -> bool {
        let taken = self.pairs.iter().all(|pair| pair.sender.in_flight() == 0);
        taken && self.judge.pending() == 0
    }

    /// What is done now and then: tell how far it is, see what is wanted, see what time it is.
    #[cold]
    #[inline(never)]
    fn tick(&mut self, now: Tsc, stage: Stage) -> Result<Stage, Halt> {
        let loss = ticks(self.args.loss_timeout);
        self.judge.ledgers.iter_mut().for_each(|ledger| ledger.expire(now, loss));
        self.tell();
        let order = self.board.order();
        self.asked_to_finish |= order != Order::GoOn || self.is_enough();
        let stage = self.stage_at(now, stage);
        let tick = if self.sleeper.is_some() { SLEEPING_TICK } else { TICK };
        self.next_tick = (now + ticks(tick)).min(stage.until());
        if order == Order::Abandon {
            return Err(Halt::Abandoned);
        }
        self.fault().map_or(Ok(stage), Err)
    }

    /// As many frames as were asked for have gone all the way.
    fn is_enough(&self) -> bool {
        match (self.args.mode, self.args.frames) {
            (_, None) => false,
            (Mode::Rx, Some(frames)) => self.judge.counts.received >= frames,
            (_, Some(_)) => self.pace.is_over() && self.all_back(),
        }
    }

    fn fault(&self) -> Option<Halt> {
        let rings = self.pairs.iter().flat_map(|pair| [pair.receiver.fault(), pair.sender.fault()]);
        rings.enumerate().find_map(|(ring, fault)| fault.map(|fault| Halt::Fault { ring, fault }))
    }

    /// The measurement begins.
    fn measuring(&mut self, now: Tsc) -> Stage {
        self.board.set_phase(Phase::Measuring);
        self.judge.meter.clear();
        self.before = Snapshot { totals: self.totals, counts: self.judge.counts, cpu: cpu_time() };
        Stage::Measuring { since: now, until: now + ticks(self.args.time) }
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
        let Snapshot { totals, counts, cpu } = self.before;
        Window {
            meter: self.judge.meter.clone(),
            taken: self.totals.taken - totals.taken,
            received: self.judge.counts.received - counts.received,
            bytes: self.judge.counts.bytes - counts.bytes,
            length: Duration::from_nanos(Tsc::nanos(length)),
            busy: Duration::from_nanos(Tsc::nanos(self.totals.busy - totals.busy)),
            cpu: cpu_time().saturating_sub(cpu),
        }
    }

    fn tell(&self) {
        let received = self.args.mode == Mode::Rx;
        self.board.completed.set(if received { self.judge.counts.received } else { self.totals.taken });
        self.board.failed.set(self.judge.failed());
        // Frames that do not come back are given up by the judge; what the device does not take is not.
        let in_flight = self.pairs.iter().map(|pair| u64::from(pair.sender.in_flight())).sum();
        self.board.in_flight.set(in_flight);
    }

    /// Sleeps until a call, an order, the next tick, or the time of the next frame.
    fn sleep(&mut self, now: Tsc) {
        // Calls are wanted on every ring before any of them is relied on.
        let mode = self.args.mode;
        let back = self.pairs.iter_mut().fold(false, |back, Pair { receiver, sender }| {
            let sent = mode != Mode::Rx && sender.enable_calls();
            let came = mode != Mode::Tx && receiver.enable_calls();
            back | sent | came
        });
        if !back && let Some(sleeper) = &mut self.sleeper {
            sleeper.sleep(self.next_tick.min(self.pace.next(now)).0.saturating_sub(now.0));
        }
        for Pair { receiver, sender } in &mut self.pairs {
            receiver.disable_calls();
            sender.disable_calls();
        }
    }
}
