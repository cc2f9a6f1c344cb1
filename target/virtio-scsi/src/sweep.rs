//! One shard's part in a task management function (R07): which commands on its rings come before the function, and when
//! nothing in the function's scope is left here.

use vhost_user::RingSet;

use crate::fence::{Sweep, UnitIndex, Verdict};
use crate::pending::covers;

/// A function that this shard has not acknowledged.
#[derive(Debug)]
pub(crate) struct Sweeping {
    sweep: Sweep,
    /// Commands at backends that the function waits for.
    waiting: u32,
    found: bool,
}

/// Up to where each ring is swept: the avail index at the moment the function was seen, and which start of the ring that
/// belongs to. `None` once it is reached, or the ring was stopped.
#[derive(Debug)]
pub(crate) struct SweepTargets(Vec<Option<(u16, u64)>>);

impl SweepTargets {
    pub(crate) fn new(rings: usize) -> SweepTargets {
        SweepTargets(vec![None; rings])
    }

    /// Takes the snapshots. Rings that do not fetch have nothing to sweep.
    pub(crate) fn snapshot(&mut self, rings: &RingSet, request_slots: impl Iterator<Item = usize>) {
        for slot in request_slots {
            self.0[slot] = rings.avail_snapshot(slot).map(|index| (index, rings.starts(slot)));
        }
    }

    /// How many chains of the ring come before the function; `None` if the ring is swept.
    pub(crate) fn left(&mut self, rings: &RingSet, slot: usize) -> Option<u16> {
        let (target, start) = self.0[slot]?;
        let next = rings.next_avail(slot).filter(|_| rings.starts(slot) == start);
        let left = next.map(|next| target.wrapping_sub(next)).filter(|left| *left > 0);
        if left.is_none() {
            self.0[slot] = None;
        }
        left
    }

    /// Whether every ring is swept.
    pub(crate) fn done(&mut self, rings: &RingSet) -> bool {
        (0..self.0.len()).all(|slot| self.left(rings, slot).is_none())
    }
}

impl Sweeping {
    /// Begins: so many commands at backends have got their verdict, and those that waited for others, if there were any.
    pub(crate) fn begin(sweep: Sweep, at_backends: u32, found_blocked: bool) -> Sweeping {
        let waiting = if sweep.verdict == Verdict::Query { 0 } else { at_backends };
        Sweeping { sweep, waiting, found: found_blocked || at_backends > 0 }
    }

    /// A command that comes before the function: the verdict on it, if it is in scope and is to end.
    #[inline]
    pub(crate) fn judge(&mut self, unit: UnitIndex, target: u8, tag: u64) -> Option<Verdict> {
        if !covers(self.sweep.scope, unit, target, tag) {
            return None;
        }
        self.found = true;
        (self.sweep.verdict != Verdict::Query).then_some(self.sweep.verdict)
    }

    /// Commands that the function waited for have ended.
    pub(crate) fn ended(&mut self, count: u32) {
        self.waiting -= count;
    }

    /// Commands at backends that it still waits for.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Whether the answer stands, whatever has not been published: a query that has found a command.
    pub(crate) fn is_answered(&self) -> bool {
        self.found && self.sweep.verdict == Verdict::Query
    }

    /// Whether any command in scope was met.
    pub(crate) fn found(&self) -> bool {
        self.found
    }
}
