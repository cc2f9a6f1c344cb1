//! Commands whose task attribute, or whose older neighbours, may make them wait (R10). The rules stand in `order.rs`; this is
//! what happens to the chains.

use reactor::Tsc;
use scsi::Sense;
use vhost_user::{RingSet, Ticket};

use super::reply::verdict_response;
use super::{Data, Held, Progress, Reply, Request, Requests};
use crate::fence::{Sweep, UnitIndex, Verdict};
use crate::order::{Attribute, Blocked};
use crate::pending::Kind;
use crate::wire::{RequestHeader, task_attr};

impl Requests {
    /// A command whose attribute, or whose unit's task sets, may make it wait (R10).
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    #[cold]
    pub(super) fn submit_in_order(
        &mut self,
        rings: &mut RingSet,
        ticket: Ticket,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        held: Held,
        now: Tsc,
    ) {
        if header.task_attr() >= task_attr::ACA {
            let refusal = Reply::Check(Sense::INVALID_MESSAGE_ATTRIBUTE);
            return self.finish(rings, ticket, request, &refusal, held);
        }
        let attribute = Attribute::of(header.task_attr(), header.cdb()[0]);
        let (unit, ring) = (held.unit, ticket.slot());
        let Requests { units, pending, .. } = self;
        let tasks = &mut units[usize::from(unit)].tasks;
        if tasks.admits(ring, attribute, || pending.count(unit, ring)) {
            return self.run_in_order(rings, ticket, request, header, data, held, attribute, (now, now));
        }
        let blocked = Blocked {
            ticket,
            slot: held.slot,
            header: *header.bytes(),
            attribute,
            tag: header.tag(),
            readable: request.readable.to_vec(),
            writable: request.writable.to_vec(),
            chain: *request.chain,
            ring_size: request.ring_size,
            since: now,
        };
        tasks.block(ring, blocked, || pending.count(unit, ring));
    }

    /// Carries out a command that need not wait, and remembers it if others may have to wait for it. `since` is when it
    /// came into the task set.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    pub(super) fn run_in_order(
        &mut self,
        rings: &mut RingSet,
        ticket: Ticket,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        mut held: Held,
        attribute: Attribute,
        (since, now): (Tsc, Tsc),
    ) {
        match self.execute(request, header, data, &mut held, now) {
            Progress::Ended(reply) => self.finish(rings, ticket, request, &reply, held),
            Progress::Pending(bytes, next) => {
                let (unit, ring) = (held.unit, ticket.slot());
                let token = self.pending.next_token();
                let Requests { units, pending, .. } = self;
                let tasks = &mut units[usize::from(unit)].tasks;
                let barrier = tasks.started(ring, attribute, || pending.count(unit, ring));
                self.park(ticket, request, header, data, held, (bytes, next), now);
                self.pending.set_order(token, barrier, since);
            }
        }
    }

    /// A command at the backend has ended: those that waited for it go on.
    #[cold]
    pub(super) fn unblock(&mut self, rings: &mut RingSet, unit: UnitIndex, ring: usize, barrier: bool, now: Tsc) {
        self.units[usize::from(unit)].tasks.ended(ring, barrier);
        while let Some(blocked) = self.units[usize::from(unit)].tasks.next(ring) {
            let Blocked { ticket, slot, header, attribute, readable, writable, chain, ring_size, since, .. } = blocked;
            let request =
                Request { readable: &readable, writable: &writable, chain: &chain, continued: &[], ring_size };
            let data = Data::of(&chain);
            let held = Held { unit, slot, kind: Kind::Other };
            self.touch(unit);
            self.run_in_order(rings, ticket, &request, RequestHeader::of(&header), data, held, attribute, (since, now));
        }
    }

    /// Passes a task management function's verdict on commands that wait for others: those that are to end do so at
    /// once, without having been dispatched. True if there was one in its scope.
    pub(crate) fn judge_blocked(&mut self, rings: &mut RingSet, sweep: Sweep) -> bool {
        let mut found = false;
        for index in 0..self.units.places() {
            let unit = index as UnitIndex;
            let Some(state) = self.units.of(unit).filter(|state| !state.tasks.is_trivial()) else { continue };
            if sweep.verdict == Verdict::Query {
                found |= state.tasks.holds(sweep.scope, unit, state.unit.target);
                continue;
            }
            for blocked in state.tasks.take(sweep.scope, unit, state.unit.target) {
                found = true;
                rings.await_published(&blocked.ticket);
                self.end_blocked(rings, unit, blocked, verdict_response(sweep.verdict));
            }
        }
        found
    }

    /// Ends a command that waits for others, without having dispatched it.
    pub(super) fn end_blocked(&mut self, rings: &mut RingSet, unit: UnitIndex, blocked: Blocked, code: u8) {
        self.touch(unit);
        let Blocked { ticket, slot, readable, writable, chain, ring_size, .. } = blocked;
        self.units[usize::from(unit)].credits.retire(slot);
        let request = Request { readable: &readable, writable: &writable, chain: &chain, continued: &[], ring_size };
        self.refuse(rings, ticket, &request, code);
    }
}
