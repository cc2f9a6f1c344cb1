//! The wrapper that makes a device slow: its configuration and its channel. Time comes in as a parameter; which device
//! is below does not matter.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use reactor::clock::Tsc;

use crate::parked::{self, Parked, Slot};
use crate::{Bdev, BdevInfo, Channel, Completion, Io, IoChannel, Op, ResetWatch, Resets, Status, Submitted};

mod gate;

pub use gate::Gate;

/// A device that answers later than the one below.
///
/// Every request waits first and is *performed when its time has come*. (SPDK's delay bdev performs first and holds the
/// completion back.) Until it completes, its buffers are in use up to the last moment, as with the slowest hardware: a
/// target that answers too early is found out, because the data changes after the answer. The latency of the device
/// below comes on top.
///
/// Requests become due in the order of their deadlines, equal ones in the order of submission. Every hundredth request
/// of a channel takes the longer time. Or, with a [`Gate`], nothing depends on time at all: a request waits until the
/// gate lets it pass, in the order of submission. If the device below can be reset, what waits is given up with that.
pub struct Delay {
    info: BdevInfo,
    base: Arc<dyn Bdev>,
    pace: Pace,
    resets: Resets,
}

/// How long requests wait.
#[derive(Clone, Debug, Default)]
pub struct DelayConfig {
    /// How long 99 of 100 requests wait, in microseconds.
    pub latency_us: u64,
    /// How long the hundredth waits, in microseconds; at least `latency_us`.
    pub p99_us: u64,
    /// Requests wait at this gate instead; the times are ignored.
    pub hold: Option<Gate>,
}

/// Why there is no such device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelayError {
    /// The slow requests would be the fast ones.
    #[error("p99_us is {p99_us}, must be at least latency_us ({latency_us})")]
    P99BelowLatency {
        /// As asked for.
        p99_us: u64,
        /// As asked for.
        latency_us: u64,
    },
    /// No initiator waits that long; what is meant to hang is held by a gate.
    #[error("p99_us is {p99_us}, must be at most {LATENCY_US_MAX}")]
    TooLong {
        /// As asked for.
        p99_us: u64,
    },
}

impl DelayConfig {
    /// Waits of fixed length, in microseconds.
    #[must_use]
    pub const fn timed(latency_us: u64, p99_us: u64) -> DelayConfig {
        DelayConfig { latency_us, p99_us, hold: None }
    }

    /// Waits that `gate` ends.
    #[must_use]
    pub fn held(gate: &Gate) -> DelayConfig {
        DelayConfig { latency_us: 0, p99_us: 0, hold: Some(gate.clone()) }
    }
}

impl Delay {
    /// Makes `base` slow.
    ///
    /// # Errors
    /// A `p99_us` below `latency_us`, or above an hour.
    pub fn new(name: impl Into<String>, base: Arc<dyn Bdev>, config: DelayConfig) -> Result<Delay, DelayError> {
        Ok(Delay::paced(name.into(), base, Pace::new(config)?))
    }

    /// Holds the requests to `base` at `gate`, under the name of `base`. For tests.
    #[must_use]
    pub fn held(base: Arc<dyn Bdev>, gate: &Gate) -> Delay {
        Delay::paced(base.info().name.clone(), base, Pace::Held(gate.clone()))
    }

    fn paced(name: String, base: Arc<dyn Bdev>, pace: Pace) -> Delay {
        let info = BdevInfo { name, kind: "delay", ..base.info().clone() };
        Delay { info, base, pace, resets: Resets::default() }
    }
}

impl Bdev for Delay {
    fn info(&self) -> &BdevInfo {
        &self.info
    }

    fn block_count(&self) -> u64 {
        self.base.block_count()
    }

    fn open(&self) -> Channel {
        let channel: Box<dyn IoChannel> = Box::new(DelayChannel {
            base: self.base.open(),
            pace: self.pace.clone(),
            parked: Parked::new(),
            waiting: BinaryHeap::with_capacity(parked::RESERVED),
            submitted: 0,
            resets: self.resets.watch(),
            resetting: self.resets.clone(),
        });
        Channel::from(channel)
    }

    fn reset(&self) {
        self.base.reset();
    }
}

/// When a request may go on.
#[derive(Clone, Debug)]
enum Pace {
    /// A time after it was submitted.
    Timed { usual_ticks: u64, p99_ticks: u64 },
    /// When somebody says so.
    Held(Gate),
}

impl Pace {
    fn new(config: DelayConfig) -> Result<Pace, DelayError> {
        let DelayConfig { latency_us, p99_us, hold } = config;
        if let Some(gate) = hold {
            return Ok(Pace::Held(gate));
        }
        if p99_us < latency_us {
            return Err(DelayError::P99BelowLatency { p99_us, latency_us });
        }
        if p99_us > LATENCY_US_MAX {
            return Err(DelayError::TooLong { p99_us });
        }
        Ok(Pace::Timed { usual_ticks: Tsc::ticks(latency_us * 1000), p99_ticks: Tsc::ticks(p99_us * 1000) })
    }

    /// The moment at which the channel's `sequence`th request, counted from 1, is due.
    fn deadline(&self, sequence: u64, now: Tsc) -> Tsc {
        match self {
            Pace::Timed { p99_ticks, .. } if sequence.is_multiple_of(P99_EVERY) => now + *p99_ticks,
            Pace::Timed { usual_ticks, .. } => now + *usual_ticks,
            // Past, so that a poller keeps looking at the gate; and equal, so that the order of submission decides.
            Pace::Held(_) => Tsc(0),
        }
    }
}

struct DelayChannel {
    base: Channel,
    pace: Pace,
    parked: Parked,
    waiting: BinaryHeap<Reverse<Due>>,
    submitted: u64,
    resets: ResetWatch,
    /// To tell the other channels.
    resetting: Resets,
}

/// A parked request, ordered by when it goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    deadline: Tsc,
    sequence: u64,
    slot: Slot,
}

impl IoChannel for DelayChannel {
    fn base(&self) -> Option<&Channel> {
        Some(&self.base)
    }

    fn base_mut(&mut self) -> Option<&mut Channel> {
        Some(&mut self.base)
    }

    fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        if io.op == Op::Reset {
            self.resetting.begin();
            return self.base.submit(io, now);
        }
        self.submitted += 1;
        let sequence = self.submitted;
        let due = Due { deadline: self.pace.deadline(sequence, now), sequence, slot: self.parked.park(io) };
        self.waiting.push(Reverse(due));
        if let Pace::Held(gate) = &self.pace {
            gate.arrived();
        }
        Submitted::Pending
    }

    fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        let before = done.len();
        if self.resets.was_reset() {
            self.give_up(done);
        }
        let mut passed_on = false;
        while let Some(slot) = self.next_due(now) {
            let io = self.parked.io(slot);
            match self.base.submit(&io, now) {
                Submitted::Done(status) => done.push(Completion { token: io.token, status }),
                Submitted::Pending => passed_on = true,
            }
            self.parked.release(slot);
        }
        if passed_on {
            self.base.flush_submissions();
        }
        self.base.poll(now, done);
        done.len() - before
    }

    fn next_deadline(&self) -> Option<Tsc> {
        let own = self.waiting.peek().map(|Reverse(due)| due.deadline);
        own.into_iter().chain(self.base.next_deadline()).min()
    }
}

impl DelayChannel {
    /// What waits ends, in the order of its deadlines.
    #[cold]
    fn give_up(&mut self, done: &mut Vec<Completion>) {
        if let Pace::Held(gate) = &self.pace {
            gate.left(self.waiting.len() as u64);
        }
        while let Some(Reverse(Due { slot, .. })) = self.waiting.pop() {
            done.push(Completion { token: self.parked.io(slot).token, status: Status::Aborted });
            self.parked.release(slot);
        }
    }

    /// Takes the next request that may go on out of the queue.
    fn next_due(&mut self, now: Tsc) -> Option<Slot> {
        let Reverse(next) = self.waiting.peek()?;
        let due = match &self.pace {
            Pace::Timed { .. } => next.deadline <= now,
            Pace::Held(gate) => gate.pass(),
        };
        if !due {
            return None;
        }
        self.waiting.pop().map(|Reverse(due)| due.slot)
    }
}

impl Drop for DelayChannel {
    fn drop(&mut self) {
        if let Pace::Held(gate) = &self.pace {
            gate.left(self.waiting.len() as u64);
        }
    }
}

/// One request of so many takes the longer time.
const P99_EVERY: u64 = 100;
/// An hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

#[cfg(test)]
mod tests;
