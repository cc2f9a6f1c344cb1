//! Commands at their backend, and the end of a batch.

use std::os::fd::BorrowedFd;

use bdev::{Completion, Status};
use reactor::{Armed, Tsc};
use vhost_user::{RingSet, Ticket};

use super::execute::sense_of;
use super::reply::{saturate, used_len, verdict_response};
use super::{Data, Held, Reply, Request, Requests};
use crate::fence::UnitIndex;
use crate::pending::{Kind, Next, Pending, ResponseArea};
use crate::wire::{GOOD, RequestHeader, response};

/// Commands that went to their backend at the same moment and have ended well, to be counted together.
struct OfOneAge {
    since: Tsc,
    now: Tsc,
    reads: u64,
    writes: u64,
    read_bytes: u64,
    write_bytes: u64,
}

impl OfOneAge {
    fn new(now: Tsc) -> OfOneAge {
        OfOneAge { since: now, now, reads: 0, writes: 0, read_bytes: 0, write_bytes: 0 }
    }

    #[inline(always)]
    fn add(&mut self, kind: Kind, bytes: u64) {
        let (count, sum) = match kind {
            Kind::Write => (&mut self.writes, &mut self.write_bytes),
            _ => (&mut self.reads, &mut self.read_bytes),
        };
        *count += 1;
        *sum += bytes;
    }
}

impl Requests {
    /// The backend has the command: keeps what its end needs.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    #[inline(never)]
    pub(super) fn park(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        held: Held,
        (bytes, next): (u64, Option<Box<Next>>),
        now: Tsc,
    ) {
        let Held { unit, slot, kind } = held;
        self.keep(Pending {
            ticket,
            slot,
            unit,
            target: self.units[usize::from(unit)].unit.target,
            tag: header.tag(),
            kind,
            bytes,
            residual: saturate(data.out + data.into - bytes),
            since: now,
            barrier: false,
            verdict: None,
            next,
            response: ResponseArea::of(request.writable),
        });
    }

    /// The same, put together already.
    #[inline(always)]
    pub(super) fn keep(&mut self, pending: Pending) {
        let unit = pending.unit;
        let state = &mut self.units[usize::from(unit)];
        state.outstanding += 1;
        self.prompt |= state.prompt;
        if !state.waiting {
            state.waiting = true;
            self.waiting.push(unit);
        }
        self.pending.insert(pending);
    }

    /// Has every backend with commands wake the poller. Whether that lets it sleep, and until when.
    pub(crate) fn arm_backends(&mut self) -> Armed {
        let mut nearest: Option<Tsc> = None;
        for unit in &self.waiting {
            let state = &mut self.units[usize::from(*unit)];
            state.armed = true;
            state.channel.arm();
            let deadline = state.channel.next_deadline();
            if deadline.is_none() && state.channel.wake_fd().is_none() {
                return Armed::MustPoll { deadline: None };
            }
            nearest = nearest.into_iter().chain(deadline).min();
        }
        Armed::until(nearest)
    }

    pub(crate) fn disarm_backends(&mut self) {
        for state in self.units.iter_mut().filter(|state| state.armed) {
            state.armed = false;
            state.channel.disarm();
        }
    }

    /// The descriptors of all backends that have one. The same for ever; silent unless the backend is armed.
    pub(crate) fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.units.iter().filter_map(|state| state.channel.wake_fd()).for_each(add);
    }

    /// Takes what backends have completed. Returns how many commands ended, and how many of them a task management
    /// function waited for.
    pub(crate) fn poll_backends(&mut self, rings: &mut RingSet, now: Tsc) -> (usize, u32) {
        let (mut ended, mut judged) = (0, 0);
        let mut at = 0;
        while let Some(&unit) = self.waiting.get(at) {
            let mut completions = std::mem::take(&mut self.completions);
            self.units[usize::from(unit)].channel.poll(now, &mut completions);
            ended += completions.len();
            let mut of_one_age = OfOneAge::new(now);
            for completion in completions.drain(..) {
                if !self.complete_plain(rings, unit, &completion, &mut of_one_age) {
                    judged += u32::from(self.complete(rings, &completion, now));
                }
            }
            self.count_of_one_age(unit, &mut of_one_age);
            self.completions = completions;
            // Asked now: the end of one command may have sent another one to the backend.
            let state = &mut self.units[usize::from(unit)];
            if state.outstanding == 0 {
                state.waiting = false;
                self.waiting.swap_remove(at);
            } else {
                at += 1;
            }
        }
        (ended, judged)
    }

    /// Ends a command that was at its backend, if it is one of those that nearly all are. False, and nothing has happened, if not.
    #[inline(always)]
    fn complete_plain(
        &mut self,
        rings: &mut RingSet,
        unit: UnitIndex,
        completion: &Completion,
        of_one_age: &mut OfOneAge,
    ) -> bool {
        let state = &mut self.units[usize::from(unit)];
        if completion.status != Status::Good || state.leaving.is_some() || !state.tasks.is_trivial() {
            return false;
        }
        let Some(Pending { ticket, slot, kind, bytes, since, response, .. }) =
            self.pending.remove_plain(completion.token)
        else {
            return false;
        };
        state.outstanding -= 1;
        state.credits.retire(slot);
        self.touch(unit);
        self.ok_responses += 1;
        response.write(&GOOD);
        rings.complete(ticket, used_len(if kind == Kind::Read { bytes } else { 0 }));
        if since != of_one_age.since {
            self.count_of_one_age(unit, of_one_age);
            of_one_age.since = since;
        }
        of_one_age.add(kind, bytes);
        true
    }

    /// Counts them, and begins anew.
    #[inline]
    fn count_of_one_age(&self, unit: UnitIndex, commands: &mut OfOneAge) {
        let OfOneAge { since, now, reads, writes, read_bytes, write_bytes } = *commands;
        let ticks = now.0.saturating_sub(since.0);
        let stats = &self.stats.units[usize::from(unit)];
        stats.count_reads(reads, read_bytes, ticks);
        stats.count_writes(writes, write_bytes, ticks);
        *commands = OfOneAge::new(now);
    }

    /// Ends a command that was at its backend. True if a task management function waits for it.
    pub(super) fn complete(&mut self, rings: &mut RingSet, completion: &Completion, now: Tsc) -> bool {
        let Some(mut pending) = self.pending.remove(completion.token) else {
            self.reset_ended(completion.token);
            return false;
        };
        let unit = pending.unit;
        self.touch(unit);
        let state = &mut self.units[usize::from(unit)];
        state.outstanding -= 1;
        let mut reply = match pending.verdict {
            _ if state.leaving.is_some() => Reply::Transport(response::TRANSPORT_FAILURE), // R22
            Some(verdict) => Reply::Transport(verdict_response(verdict)),
            None if completion.status == Status::Good => Reply::Good {
                data_in: if pending.kind == Kind::Read { pending.bytes } else { 0 },
                residual: u64::from(pending.residual),
            },
            None => Reply::Check(sense_of(completion.status, pending.kind)),
        };
        let data = pending.bytes + u64::from(pending.residual);
        if let (Some(next), Reply::Good { .. }) = (pending.next.take(), &reply) {
            match self.go_on(pending, *next, now) {
                Some(ended) => (pending, reply) = ended,
                None => return false,
            }
        }
        self.units[usize::from(unit)].credits.retire(pending.slot);
        let moved = if completion.status == Status::Good { pending.bytes } else { 0 };
        let stats = &self.stats.units[usize::from(unit)];
        let ticks = now.0.saturating_sub(pending.since.0);
        match pending.kind {
            Kind::Read => stats.count_reads(1, moved, ticks),
            Kind::Write => stats.count_writes(1, moved, ticks),
            Kind::Verify | Kind::Other => stats.others.add(1),
        }
        let (ring, barrier, judged) = (pending.ticket.slot(), pending.barrier, pending.verdict.is_some());
        let area = pending.response;
        let used = self.write_reply(&reply, data, Some(unit), |bytes| area.write(bytes));
        rings.complete(pending.ticket, used);
        if !self.units[usize::from(unit)].tasks.is_trivial() {
            self.unblock(rings, unit, ring, barrier, now);
        }
        judged
    }

    /// The batch has ended: slots go back, counters are written. To be called just before used entries are published.
    #[inline]
    pub(crate) fn settle(&mut self, started: Tsc) {
        if self.touched.is_empty() {
            self.count_ok();
            return;
        }
        let mut ticks = None;
        for unit in self.touched.drain(..) {
            let unit = usize::from(unit);
            let state = &mut self.units[unit];
            state.touched = false;
            let stats = &self.stats.units[unit];
            stats.high_water.record(u64::from(state.credits.peak()));
            state.credits.release();
            if state.outstanding > 0 {
                state.channel.flush_submissions();
            }
            stats.in_flight.set(u64::from(state.credits.held()));
            let tally = std::mem::take(&mut state.tally);
            if tally.reads + tally.writes + tally.others == 0 {
                continue;
            }
            let ticks = *ticks.get_or_insert_with(|| Tsc::now().0.saturating_sub(started.0));
            stats.count_reads(u64::from(tally.reads), tally.read_bytes, ticks);
            stats.count_writes(u64::from(tally.writes), tally.write_bytes, ticks);
            if tally.others > 0 {
                stats.others.add(u64::from(tally.others));
            }
        }
        self.count_ok();
    }

    #[inline]
    pub(super) fn count_ok(&mut self) {
        if self.ok_responses > 0 {
            self.stats.responses[usize::from(response::OK)].add(self.ok_responses);
            self.ok_responses = 0;
        }
    }
}
