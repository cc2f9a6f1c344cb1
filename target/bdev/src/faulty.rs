//! The wrapper that makes a device fail: its channel. What fails when is decided by a plan (`faulty/plan`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use guest_memory::GuestSlice;
use reactor::clock::Tsc;

use crate::parked::{Parked, Slot};
use crate::{
    Abilities, Bdev, BdevInfo, Channel, Completion, Gate, Io, IoChannel, Op, ResetWatch, Resets, Status, Submitted,
    Token,
};

mod plan;

use plan::Decider;
pub use plan::{Effect, FaultPlan, FaultPlanError};

/// A device that fails as a plan says, and does what the one below does otherwise.
pub struct Faulty {
    info: BdevInfo,
    base: Arc<dyn Bdev>,
    plan: FaultPlan,
    gate: Gate,
    opened: AtomicU64,
    resets: Resets,
}

impl Faulty {
    /// Makes `base` fail.
    #[must_use]
    pub fn new(name: impl Into<String>, base: Arc<dyn Bdev>, plan: FaultPlan) -> Faulty {
        let below = base.info().clone();
        let can = Abilities { reset: true, ..below.can };
        let info = BdevInfo { name: name.into(), kind: "error", can, ..below };
        Faulty { info, base, plan, gate: Gate::closed(), opened: AtomicU64::new(0), resets: Resets::default() }
    }

    /// Where the requests hang that the plan lets hang: what is released there goes on to the device below. An abort or a reset
    /// ends them.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Bdev for Faulty {
    fn info(&self) -> &BdevInfo {
        &self.info
    }

    fn block_count(&self) -> u64 {
        self.base.block_count()
    }

    fn open(&self) -> Channel {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let channel: Box<dyn IoChannel> = Box::new(FaultyChannel {
            base: self.base.open(),
            base_resets: self.base.info().can.reset,
            resets: self.resets.watch(),
            resetting: self.resets.clone(),
            decider: self.plan.decider(number),
            gate: self.gate.clone(),
            parked: Parked::new(),
            hanging: VecDeque::with_capacity(crate::parked::RESERVED),
            given_up: Vec::with_capacity(crate::parked::RESERVED),
            corrupting: Vec::with_capacity(crate::parked::RESERVED),
        });
        Channel::from(channel)
    }

    fn reset(&self) {
        self.base.reset();
    }
}

struct FaultyChannel {
    base: Channel,
    /// Whether the device below can be reset.
    base_resets: bool,
    resets: ResetWatch,
    /// To tell the other channels.
    resetting: Resets,
    decider: Decider,
    gate: Gate,
    parked: Parked,
    hanging: VecDeque<Slot>,
    /// Requests that do not hang any more, for the next poll to tell.
    given_up: Vec<Token>,
    /// Reads at the device below that are to come back wrong, and where.
    corrupting: Vec<(Token, GuestSlice)>,
}

impl IoChannel for FaultyChannel {
    fn base(&self) -> Option<&Channel> {
        Some(&self.base)
    }

    fn base_mut(&mut self) -> Option<&mut Channel> {
        Some(&mut self.base)
    }

    fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        if io.op == Op::Reset {
            return self.reset(io, now);
        }
        match self.decider.decide(io) {
            None => self.base.submit(io, now),
            Some(Effect::Fail(status)) => Submitted::Done(status),
            Some(Effect::MediumError) if !io.op.writes() && io.op != Op::Flush => Submitted::Done(Status::ReadError),
            Some(Effect::MediumError) => Submitted::Done(Status::WriteError),
            Some(Effect::Lose) => Submitted::Done(Status::Good),
            Some(Effect::Corrupt) => self.submit_corrupting(io, now),
            Some(Effect::Hang) => {
                self.hanging.push_back(self.parked.park(io));
                self.gate.arrived();
                Submitted::Pending
            }
        }
    }

    fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        let before = done.len();
        if self.resets.was_reset() {
            while let Some(slot) = self.hanging.pop_front() {
                self.give_up(slot);
            }
        }
        done.extend(self.given_up.drain(..).map(|token| Completion { token, status: Status::Aborted }));
        let mut passed_on = false;
        while let Some(&slot) = self.hanging.front()
            && self.gate.pass()
        {
            self.hanging.pop_front();
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
        let from_base = done.len();
        self.base.poll(now, done);
        if !self.corrupting.is_empty() {
            self.corrupt(&done[from_base..]);
        }
        done.len() - before
    }

    fn next_deadline(&self) -> Option<Tsc> {
        // Nothing wakes a poller when the gate opens.
        if self.hanging.is_empty() && self.given_up.is_empty() { self.base.next_deadline() } else { Some(Tsc(0)) }
    }

    fn abort(&mut self, token: Token) {
        let hangs = |slot: &Slot| self.parked.io(*slot).token == token;
        match self.hanging.iter().position(hangs).and_then(|at| self.hanging.remove(at)) {
            Some(slot) => self.give_up(slot),
            None => self.base.abort(token),
        }
    }
}

impl FaultyChannel {
    /// What hangs ends, on all channels, when they are polled; then the device below is reset.
    #[cold]
    fn reset(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        self.resetting.begin();
        if self.base_resets { self.base.submit(io, now) } else { Submitted::Done(Status::Good) }
    }

    /// A request that hung does not any more.
    #[cold]
    fn give_up(&mut self, slot: Slot) {
        self.given_up.push(self.parked.io(slot).token);
        self.parked.release(slot);
        self.gate.left(1);
    }

    fn submit_corrupting(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        let submitted = self.base.submit(io, now);
        if let Some(&first) = io.buffers.iter().find(|buffer| !buffer.is_empty()) {
            match submitted {
                Submitted::Done(Status::Good) => flip(first),
                Submitted::Done(_) => {}
                Submitted::Pending => self.corrupting.push((io.token, first)),
            }
        }
        submitted
    }

    fn corrupt(&mut self, ended: &[Completion]) {
        for completion in ended {
            let at = self.corrupting.iter().position(|(token, _)| *token == completion.token);
            if let Some(at) = at {
                let (_, first) = self.corrupting.swap_remove(at);
                if completion.status == Status::Good {
                    flip(first);
                }
            }
        }
    }
}

impl Drop for FaultyChannel {
    fn drop(&mut self) {
        self.gate.left(self.hanging.len() as u64);
    }
}

/// Turns the lowest bit of the first byte over: data that is wrong, but not obviously.
fn flip(buffer: GuestSlice) {
    if let (Some([byte]), Some(first)) = (buffer.read_array::<1>(), buffer.subslice(0, 1)) {
        first.fill(byte ^ 1);
    }
}

#[cfg(test)]
mod tests;
