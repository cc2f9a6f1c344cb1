//! What a task management function does to commands at their backends, and to the backends: an abort asks for single commands
//! back, a reset for all that a backend has. Both are requests to hurry: a command counts as ended when its backend says so.

use bdev::{Io, Submitted, Token};
use reactor::Tsc;
use vhost_user::RingSet;

use super::Requests;
use crate::fence::{Scope, Sweep, UnitIndex, Verdict};

impl Requests {
    /// Passes a function's verdict on every command at a backend that is in its scope; those that it aborts are asked for.
    /// Returns how many there are.
    pub(crate) fn judge_pending(&mut self, rings: &mut RingSet, sweep: Sweep) -> u32 {
        let Requests { pending, units, .. } = self;
        pending.judge(sweep.scope, sweep.verdict, |ticket, unit, token| {
            rings.await_published(ticket);
            if sweep.verdict == Verdict::Abort {
                units[usize::from(unit)].channel.abort(token);
            }
        })
    }

    /// Resets the backends in a function's scope that have commands of this nexus, on any shard. When every shard has
    /// joined the function, that gives back what it waits for.
    #[cold]
    pub(crate) fn reset_backends(&mut self, scope: Scope, now: Tsc) {
        for index in 0..self.units.places() {
            let unit = index as UnitIndex;
            let Some(state) = self.units.of(unit) else { continue };
            let in_scope = match scope {
                Scope::Task { .. } => false,
                Scope::Unit(wanted) => wanted == unit,
                Scope::Target(target) => state.unit.target == target,
            };
            let can = state.unit.bdev.info().can.reset;
            if in_scope && can && state.leaving.is_none() && state.credits.in_flight() > 0 {
                self.reset_backend(unit, now);
            }
        }
    }

    fn reset_backend(&mut self, unit: UnitIndex, now: Tsc) {
        let state = &mut self.units[usize::from(unit)];
        let Submitted::Pending = state.channel.submit(&Io::reset(Token(RESET | u64::from(unit))), now) else { return };
        state.channel.flush_submissions();
        state.outstanding += 1;
        if !state.waiting {
            state.waiting = true;
            self.waiting.push(unit);
        }
        self.resets += 1;
    }

    /// Resets that are under way.
    pub(crate) fn resets(&self) -> usize {
        self.resets
    }

    /// A backend has ended something that is no command.
    #[cold]
    pub(super) fn reset_ended(&mut self, token: Token) {
        let unit = (token.0 ^ RESET) as UnitIndex;
        let Some(state) = self.units.of(unit).filter(|_| token.0 & RESET != 0 && self.resets > 0) else {
            debug_assert!(false, "a bdev completed {token:?}, which is not in flight");
            return;
        };
        state.outstanding -= 1;
        self.resets -= 1;
    }
}

/// Set in the tokens of resets; below stands the unit. Those of commands are smaller.
const RESET: u64 = 1 << 32;
