//! Request queues: what becomes of a chain that was popped. The order of checks is the order of this file (see
//! requirements R01-R04, R12, R21, R24): the first one that objects answers.
//!
//! Nothing in here allocates, locks or calls the kernel in a steady load. When the answer becomes visible is the shard's
//! business.

use std::sync::Arc;

use bdev::{Channel, Completion, Io, Op, Status, Submitted};
use guest_memory::GuestSlice;
use reactor::Tsc;
use scsi::{Action, Command, Sense, Transfer};
use vhost_user::{RingSet, Ticket};
use virtqueue::Chain;

use crate::address::Address;
use crate::controller::default_seg_max;
use crate::data;
use crate::fence::{Sweep, UnitIndex, Verdict};
use crate::limits::{CommandSlot, Credits, Limits, OnCommandLimit, OnTransferLimit};
use crate::lun_map::{Addressee, LunMap, Unit};
use crate::nexus::{Nexus, UnitNexus};
use crate::order::{Attribute, Blocked, TaskSets};
use crate::pending::{Kind, Pending, PendingTable, ResponseArea};
use crate::stats::{Limit, ShardStats};
use crate::sweep::Sweeping;
use crate::wire::{
    REQUEST_LEN, RESPONSE_HEADER_LEN, RESPONSE_LEN, RequestHeader, SECTOR_LEN, check_condition, response,
    response_header, status, task_attr,
};

/// The request side of a shard.
pub(crate) struct Requests {
    map: Arc<LunMap>,
    limits: Limits,
    /// `limits.max_sectors` in bytes.
    bytes_max: u64,
    units: Vec<UnitState>,
    pending: PendingTable,
    stats: Arc<ShardStats>,
    /// The LUN field that was resolved last: nearly always the next one too.
    last: Option<(u64, UnitIndex)>,
    /// Units with something to settle at the end of the batch.
    touched: Vec<UnitIndex>,
    /// Units with commands at their backend.
    waiting: Vec<UnitIndex>,
    completions: Vec<Completion>,
    /// Parameter data of emulated commands.
    out: Vec<u8>,
    /// Buffers cut to size, where the driver's framing does not fit.
    cut: Vec<GuestSlice>,
    ok_responses: u64,
}

/// A logical unit as one shard has it.
struct UnitState {
    unit: Arc<Unit>,
    nexus: Arc<UnitNexus>,
    block_size: u32,
    channel: Channel,
    credits: Credits,
    /// Commands at the backend.
    outstanding: u32,
    tasks: TaskSets,
    touched: bool,
    tally: Tally,
}

/// What a batch did to one unit; goes to the counters when the batch ends.
#[derive(Default)]
struct Tally {
    reads: u32,
    writes: u32,
    others: u32,
    read_bytes: u64,
    write_bytes: u64,
}

/// One popped chain.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub readable: &'a [GuestSlice],
    pub writable: &'a [GuestSlice],
    pub chain: &'a Chain,
    /// Size of the ring that it came from.
    pub ring_size: u16,
}

/// How a request ends.
#[derive(Clone, Copy)]
enum Reply {
    /// A transport response without SCSI status.
    Transport(u8),
    /// A SCSI status without sense.
    Status(u8),
    /// CHECK CONDITION.
    Check(Sense),
    /// GOOD: this many bytes went to data-in, this many of the buffers' data bytes stayed unused.
    Good { data_in: u64, residual: u64 },
}

/// How far a command has come.
enum Progress {
    Ended(Reply),
    /// The backend has it; the bytes that move if it ends well.
    Pending(u64),
}

/// A command that was accepted: it counts as in flight.
struct Held {
    unit: UnitIndex,
    slot: CommandSlot,
    kind: Kind,
}

/// Data bytes in either direction.
#[derive(Clone, Copy)]
struct Data {
    out: u64,
    into: u64,
}

impl Data {
    /// What is behind the headers, whose presence has been checked.
    #[inline(always)]
    fn of(chain: &Chain) -> Data {
        Data { out: chain.readable_bytes - REQUEST_LEN as u64, into: chain.writable_bytes - RESPONSE_LEN as u64 }
    }
}

impl Requests {
    pub(crate) fn new(map: &Arc<LunMap>, limits: Limits, nexus: &Nexus, stats: Arc<ShardStats>) -> Requests {
        let state = |(index, unit): (usize, &Arc<Unit>)| UnitState {
            unit: Arc::clone(unit),
            nexus: Arc::clone(nexus.unit(index)),
            block_size: unit.logical_unit.block_size(),
            channel: unit.bdev.open(),
            credits: Credits::new(limits.cmd_per_lun, nexus.shared_count(index)),
            outstanding: 0,
            tasks: TaskSets::default(),
            touched: false,
            tally: Tally::default(),
        };
        let units: Vec<UnitState> = map.units().iter().enumerate().map(state).collect();
        let count = units.len();
        Requests {
            map: Arc::clone(map),
            limits,
            bytes_max: u64::from(limits.max_sectors) * SECTOR_LEN,
            units,
            pending: PendingTable::default(),
            stats,
            last: None,
            touched: Vec::with_capacity(count),
            waiting: Vec::with_capacity(count),
            completions: Vec::with_capacity(1024),
            out: Vec::with_capacity(4096),
            cut: Vec::with_capacity(256),
            ok_responses: 0,
        }
    }

    /// Commands at backends.
    #[inline]
    pub(crate) fn outstanding(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn pending_mut(&mut self) -> &mut PendingTable {
        &mut self.pending
    }

    /// When a backend has to be looked at next, as far as it knows.
    pub(crate) fn next_deadline(&self) -> Option<Tsc> {
        self.waiting.iter().filter_map(|unit| self.units[usize::from(*unit)].channel.next_deadline()).min()
    }

    /// Deals with one chain of a request queue.
    #[inline(always)]
    pub(crate) fn submit(
        &mut self,
        rings: &mut RingSet,
        ticket: Ticket,
        request: &Request<'_>,
        sweeping: Option<&mut Sweeping>,
        now: Tsc,
    ) {
        // Response area (R12): without room for one there is nobody to answer.
        let room = request.chain.writable_bytes;
        if room < RESPONSE_LEN as u64 {
            return self.answer_short(rings, ticket, request);
        }
        // Header length (R12).
        let Some(header) = data::gather::<REQUEST_LEN>(request.readable) else {
            return self.refuse(rings, ticket, request, response::FAILURE);
        };
        let header = RequestHeader::of(&header);
        let data = Data::of(request.chain);
        // LUN format, target; both directions.
        let Some(addressee) = self.resolve(header.lun()) else {
            return self.refuse(rings, ticket, request, response::BAD_TARGET);
        };
        if data.out > 0 && data.into > 0 {
            return self.refuse(rings, ticket, request, response::FAILURE);
        }
        let Addressee::Unit(unit) = addressee else {
            return self.submit_elsewhere(rings, ticket, request, header, data, addressee);
        };
        // A task management function that this command comes before (R07): no limit applies, nothing is dispatched.
        if let Some(verdict) = sweeping.and_then(|sweeping| self.judge(sweeping, unit, header)) {
            return self.refuse(rings, ticket, request, verdict_response(verdict));
        }
        if let Some(refusal) = self.check_transfer(request, data, Some(unit)) {
            return self.answer(rings, ticket, request, &refusal, None);
        }
        let state = &mut self.units[usize::from(unit)];
        let Some(slot) = state.credits.take() else {
            return self.refuse_full(rings, ticket, request, unit);
        };
        if !state.touched {
            state.touched = true;
            self.touched.push(unit);
        }
        let mut held = Held { unit, slot, kind: Kind::Other };
        if header.task_attr() != task_attr::SIMPLE || !state.tasks.is_trivial() {
            return self.submit_in_order(rings, ticket, request, header, data, held, now);
        }
        match self.execute(request, header, data, &mut held, now) {
            Progress::Ended(reply) => self.finish(rings, ticket, request, &reply, held),
            Progress::Pending(bytes) => self.park(ticket, request, header, data, held, bytes, now),
        }
    }

    /// A command whose attribute, or whose unit's task sets, may make it wait (R10).
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    #[cold]
    fn submit_in_order(
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
    fn run_in_order(
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
            Progress::Pending(bytes) => {
                let (unit, ring) = (held.unit, ticket.slot());
                let token = self.pending.next_token();
                let Requests { units, pending, .. } = self;
                let tasks = &mut units[usize::from(unit)].tasks;
                let barrier = tasks.started(ring, attribute, || pending.count(unit, ring));
                self.park(ticket, request, header, data, held, bytes, now);
                self.pending.set_order(token, barrier, since);
            }
        }
    }

    /// A command at the backend has ended: those that waited for it go on.
    #[cold]
    fn unblock(&mut self, rings: &mut RingSet, unit: UnitIndex, ring: usize, barrier: bool, now: Tsc) {
        self.units[usize::from(unit)].tasks.ended(ring, barrier);
        while let Some(blocked) = self.units[usize::from(unit)].tasks.next(ring) {
            let Blocked { ticket, slot, header, attribute, readable, writable, chain, ring_size, since, .. } = blocked;
            let request = Request { readable: &readable, writable: &writable, chain: &chain, ring_size };
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
        for index in 0..self.units.len() {
            let unit = index as UnitIndex;
            let state = &mut self.units[index];
            if state.tasks.is_trivial() {
                continue;
            }
            if sweep.verdict == Verdict::Query {
                found |= state.tasks.holds(sweep.scope, unit, state.unit.target);
                continue;
            }
            for blocked in state.tasks.take(sweep.scope, unit, state.unit.target) {
                found = true;
                self.touch(unit);
                let Blocked { ticket, slot, readable, writable, chain, ring_size, .. } = blocked;
                self.units[index].credits.retire(slot);
                let request = Request { readable: &readable, writable: &writable, chain: &chain, ring_size };
                self.refuse(rings, ticket, &request, verdict_response(sweep.verdict));
            }
        }
        found
    }

    #[cold]
    fn judge(&self, sweeping: &mut Sweeping, unit: UnitIndex, header: RequestHeader<'_>) -> Option<Verdict> {
        sweeping.judge(unit, self.units[usize::from(unit)].unit.target, header.tag())
    }

    /// Requests to something that is no logical unit of ours.
    #[cold]
    fn submit_elsewhere(
        &mut self,
        rings: &mut RingSet,
        ticket: Ticket,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        addressee: Addressee,
    ) {
        let reply = match addressee {
            Addressee::Unit(_) => unreachable!("the caller deals with logical units"),
            Addressee::Absent { target } => match self.check_transfer(request, data, None) {
                Some(refusal) => refusal,
                None => self.emulate(scsi::Addressee::Absent, request, header, data, target),
            },
            Addressee::ReportLuns { .. } if header.task_attr() >= task_attr::ACA => {
                Reply::Check(Sense::INVALID_MESSAGE_ATTRIBUTE)
            }
            Addressee::ReportLuns { target } => {
                self.emulate(scsi::Addressee::ReportLunsWellKnown, request, header, data, target)
            }
        };
        self.answer(rings, ticket, request, &reply, None);
    }

    /// seg_max, then max_sectors (R01, R04): what the transport refuses before it looks at the CDB.
    #[inline(always)]
    fn check_transfer(&mut self, request: &Request<'_>, data: Data, unit: Option<UnitIndex>) -> Option<Reply> {
        let seg_max = self.limits.seg_max.unwrap_or_else(|| default_seg_max(request.ring_size));
        let chain = request.chain;
        let descriptors = u32::from(chain.readable_descriptors.max(chain.writable_descriptors));
        if descriptors > seg_max && data_segments(request) > seg_max {
            return Some(self.refuse_segments(unit));
        }
        if data.out + data.into > self.bytes_max {
            return Some(self.refuse_transfer(unit));
        }
        None
    }

    #[cold]
    fn refuse_segments(&self, unit: Option<UnitIndex>) -> Reply {
        self.count_refusal(unit, Limit::SegMax);
        Reply::Transport(response::FAILURE)
    }

    #[cold]
    fn refuse_transfer(&self, unit: Option<UnitIndex>) -> Reply {
        self.count_refusal(unit, Limit::MaxSectors);
        match self.limits.on_max_sectors {
            OnTransferLimit::Transport => Reply::Transport(response::FAILURE),
            OnTransferLimit::Scsi => Reply::Check(Sense::INVALID_FIELD_IN_CDB),
        }
    }

    #[cold]
    fn refuse_full(&mut self, rings: &mut RingSet, ticket: Ticket, request: &Request<'_>, unit: UnitIndex) {
        self.count_refusal(Some(unit), Limit::CmdPerLun);
        let refusal = match self.limits.on_cmd_per_lun {
            OnCommandLimit::Transport => Reply::Transport(response::BUSY),
            OnCommandLimit::Failure => Reply::Transport(response::FAILURE),
            OnCommandLimit::Scsi => Reply::Status(status::TASK_SET_FULL),
        };
        self.answer(rings, ticket, request, &refusal, None);
    }

    fn count_refusal(&self, unit: Option<UnitIndex>, limit: Limit) {
        match unit {
            Some(unit) => self.stats.units[usize::from(unit)].refused[limit as usize].add(1),
            None => self.stats.absent_refused[limit as usize].add(1),
        }
    }

    /// From the unit attention on (steps 10 to 15).
    #[inline(always)]
    fn execute(
        &mut self,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        held: &mut Held,
        now: Tsc,
    ) -> Progress {
        if let Some(sense) = self.unit_attention(held.unit, header) {
            return Progress::Ended(Reply::Check(sense));
        }
        match Command::parse(header.cdb()) {
            Ok(Command::Read(transfer)) => {
                held.kind = Kind::Read;
                self.block_io(held, &transfer, Op::Read, request.writable, RESPONSE_LEN, data.into, data, now)
            }
            Ok(Command::Write(transfer)) => {
                held.kind = Kind::Write;
                let op = Op::Write { fua: transfer.fua };
                self.block_io(held, &transfer, op, request.readable, REQUEST_LEN, data.out, data, now)
            }
            Ok(command) => self.other(request, &command, data, held.unit, now),
            Err(sense) => Progress::Ended(Reply::Check(sense)),
        }
    }

    #[inline(always)]
    fn unit_attention(&self, unit: UnitIndex, header: RequestHeader<'_>) -> Option<Sense> {
        let attentions = &self.units[usize::from(unit)].nexus.attentions;
        if attentions.is_empty() || !scsi::reports_unit_attention(header.cdb()[0]) {
            return None;
        }
        attentions.take().map(|attention| attention.sense())
    }

    /// READ and WRITE of any length of CDB. The data is in `slices` behind a header of `skip` bytes: `room` bytes.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request, on the hot path")]
    #[inline(always)]
    fn block_io(
        &mut self,
        held: &Held,
        transfer: &Transfer,
        op: Op,
        slices: &[GuestSlice],
        skip: usize,
        room: u64,
        data: Data,
        now: Tsc,
    ) -> Progress {
        let state = &mut self.units[usize::from(held.unit)];
        // What moves is what the CDB says (R21).
        let bytes = transfer.bytes(state.block_size);
        if bytes > room {
            return Progress::Ended(Reply::Transport(response::OVERRUN));
        }
        let write = held.kind == Kind::Write;
        if let Err(sense) = state.unit.logical_unit.check_transfer(transfer, write) {
            return Progress::Ended(Reply::Check(sense));
        }
        let residual = data.out + data.into - bytes;
        if bytes == 0 {
            return Progress::Ended(Reply::Good { data_in: 0, residual });
        }
        let buffers = data::behind(slices, skip, room, bytes, &mut self.cut);
        let io = Io { op, lba: transfer.lba, blocks: transfer.blocks, buffers, token: self.pending.next_token() };
        match state.channel.submit(&io, now) {
            Submitted::Done(Status::Good) if write => {
                state.tally.write_bytes += bytes;
                Progress::Ended(Reply::Good { data_in: 0, residual })
            }
            Submitted::Done(Status::Good) => {
                state.tally.read_bytes += bytes;
                Progress::Ended(Reply::Good { data_in: bytes, residual })
            }
            Submitted::Done(failed) => Progress::Ended(Reply::Check(sense_of(failed, held.kind))),
            Submitted::Pending => Progress::Pending(bytes),
        }
    }

    /// Everything that is not READ or WRITE.
    #[inline(never)]
    fn other(&mut self, request: &Request<'_>, command: &Command, data: Data, index: UnitIndex, now: Tsc) -> Progress {
        let state = &mut self.units[usize::from(index)];
        let (unit, nexus) = (Arc::clone(&state.unit), Arc::clone(&state.nexus));
        let pending = nexus.attentions.pending();
        let luns = self.map.luns(unit.target);
        let action = scsi::execute(scsi::Addressee::Unit(&unit.logical_unit), command, luns, pending, &mut self.out);
        if let Action::Flush = action {
            return self.flush(data, index, now);
        }
        let reply = self.reply_of(action, request, data);
        if let (Command::RequestSense { .. }, Reply::Good { .. }, Some(told)) = (command, &reply, pending) {
            nexus.attentions.clear(told);
        }
        Progress::Ended(reply)
    }

    fn flush(&mut self, data: Data, unit: UnitIndex, now: Tsc) -> Progress {
        let io = Io { op: Op::Flush, lba: 0, blocks: 0, buffers: &[], token: self.pending.next_token() };
        match self.units[usize::from(unit)].channel.submit(&io, now) {
            Submitted::Done(Status::Good) => {
                Progress::Ended(Reply::Good { data_in: 0, residual: data.out + data.into })
            }
            Submitted::Done(failed) => Progress::Ended(Reply::Check(sense_of(failed, Kind::Write))),
            Submitted::Pending => Progress::Pending(0),
        }
    }

    /// Commands to something that is no logical unit of ours.
    fn emulate(
        &mut self,
        to: scsi::Addressee<'_>,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        target: u8,
    ) -> Reply {
        let command = to.admits(header.cdb()[0]).and_then(|()| Command::parse(header.cdb()));
        let action = match command {
            Ok(command) => scsi::execute(to, &command, self.map.luns(target), None, &mut self.out),
            Err(sense) => Action::Check(sense),
        };
        self.reply_of(action, request, data)
    }

    /// Moves the parameter data of an emulated command.
    fn reply_of(&mut self, action: Action, request: &Request<'_>, data: Data) -> Reply {
        let moved = match action {
            Action::DataIn => self.out.len() as u64,
            Action::Good => 0,
            Action::Check(sense) => return Reply::Check(sense),
            Action::Read(_) | Action::Write(_) | Action::Flush => {
                unreachable!("only a logical unit's own commands reach its backend")
            }
        };
        if moved > data.into {
            return Reply::Transport(response::OVERRUN);
        }
        if moved > 0 {
            let buffers = data::behind(request.writable, RESPONSE_LEN, data.into, moved, &mut self.cut);
            data::scatter(buffers, &self.out);
        }
        Reply::Good { data_in: moved, residual: data.out + data.into - moved }
    }

    /// The backend has the command: keeps what its end needs.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    #[inline(never)]
    fn park(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        held: Held,
        bytes: u64,
        now: Tsc,
    ) {
        let Held { unit, slot, kind } = held;
        let state = &mut self.units[usize::from(unit)];
        state.outstanding += 1;
        if state.outstanding == 1 {
            self.waiting.push(unit);
        }
        self.pending.insert(Pending {
            ticket,
            slot,
            unit,
            target: state.unit.target,
            tag: header.tag(),
            kind,
            bytes,
            residual: saturate(data.out + data.into - bytes),
            since: now,
            barrier: false,
            verdict: None,
            response: ResponseArea::of(request.writable),
        });
    }

    /// Ends a command that holds a slot.
    #[inline(always)]
    fn finish(&mut self, rings: &mut RingSet, ticket: Ticket, request: &Request<'_>, reply: &Reply, held: Held) {
        let Held { unit, slot, kind } = held;
        let state = &mut self.units[usize::from(unit)];
        match kind {
            Kind::Read => state.tally.reads += 1,
            Kind::Write => state.tally.writes += 1,
            Kind::Other => state.tally.others += 1,
        }
        state.credits.retire(slot);
        match *reply {
            Reply::Good { data_in, residual } => {
                self.ok_responses += 1;
                data::scatter(request.writable, &response_header(response::OK, status::GOOD, 0, saturate(residual)));
                rings.complete(ticket, used_len(data_in));
            }
            _ => self.answer(rings, ticket, request, reply, Some(unit)),
        }
    }

    /// A transport response without SCSI status.
    #[cold]
    fn refuse(&mut self, rings: &mut RingSet, ticket: Ticket, request: &Request<'_>, code: u8) {
        self.answer(rings, ticket, request, &Reply::Transport(code), None);
    }

    /// Writes the response and completes the chain.
    #[inline(never)]
    fn answer(
        &mut self,
        rings: &mut RingSet,
        ticket: Ticket,
        request: &Request<'_>,
        reply: &Reply,
        unit: Option<UnitIndex>,
    ) {
        let writable = request.writable;
        let used = self.write_reply(reply, data_bytes(request), unit, |bytes| data::scatter(writable, bytes));
        rings.complete(ticket, used);
    }

    /// Puts the reply's bytes where `write` does and counts it. `data` is how many data bytes the buffers hold. Returns
    /// how many bytes of the chain count as written.
    fn write_reply(&mut self, reply: &Reply, data: u64, unit: Option<UnitIndex>, write: impl FnOnce(&[u8])) -> u32 {
        match *reply {
            Reply::Good { data_in, residual } => {
                self.ok_responses += 1;
                write(&response_header(response::OK, status::GOOD, 0, saturate(residual)));
                used_len(data_in)
            }
            Reply::Transport(code) => {
                self.stats.responses[usize::from(code)].add(1);
                write(&response_header(code, status::GOOD, 0, saturate(data)));
                RESPONSE_HEADER_LEN as u32
            }
            Reply::Status(status) => {
                self.ok_responses += 1;
                write(&response_header(response::OK, status, 0, saturate(data)));
                RESPONSE_HEADER_LEN as u32
            }
            Reply::Check(sense) => {
                self.ok_responses += 1;
                if let Some(unit) = unit {
                    self.stats.units[usize::from(unit)].errors.add(1);
                }
                let (bytes, len) = check_condition(&sense, saturate(data));
                write(&bytes[..len]);
                len as u32
            }
        }
    }

    /// R12: less room than a whole response. A header still fits in 12 bytes; below that only a bare used entry is left.
    #[cold]
    fn answer_short(&mut self, rings: &mut RingSet, ticket: Ticket, request: &Request<'_>) {
        if request.chain.writable_bytes < RESPONSE_HEADER_LEN as u64 {
            self.stats.no_response_room.add(1);
            return rings.complete(ticket, 0);
        }
        self.refuse(rings, ticket, request, response::FAILURE);
    }

    #[inline(always)]
    fn resolve(&mut self, lun: &[u8; 8]) -> Option<Addressee> {
        let key = u64::from_le_bytes(*lun);
        match self.last {
            Some((last, unit)) if last == key => Some(Addressee::Unit(unit)),
            _ => self.resolve_anew(lun, key),
        }
    }

    #[inline(never)]
    fn resolve_anew(&mut self, lun: &[u8; 8], key: u64) -> Option<Addressee> {
        let found = self.map.find(Address::parse(lun)?)?;
        if let Addressee::Unit(unit) = found {
            self.last = Some((key, unit));
        }
        Some(found)
    }

    fn touch(&mut self, unit: UnitIndex) {
        let state = &mut self.units[usize::from(unit)];
        if !state.touched {
            state.touched = true;
            self.touched.push(unit);
        }
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
            for completion in completions.drain(..) {
                judged += u32::from(self.complete(rings, &completion, now));
            }
            self.completions = completions;
            if self.units[usize::from(unit)].outstanding == 0 {
                self.waiting.swap_remove(at);
            } else {
                at += 1;
            }
        }
        (ended, judged)
    }

    /// Ends a command that was at its backend. True if a task management function waits for it.
    fn complete(&mut self, rings: &mut RingSet, completion: &Completion, now: Tsc) -> bool {
        let Some(pending) = self.pending.remove(completion.token) else {
            debug_assert!(false, "a bdev completed {:?}, which is not in flight", completion.token);
            return false;
        };
        let unit = pending.unit;
        self.touch(unit);
        let state = &mut self.units[usize::from(unit)];
        state.outstanding -= 1;
        state.credits.retire(pending.slot);
        let good = completion.status == Status::Good;
        let moved = if good { pending.bytes } else { 0 };
        let stats = &self.stats.units[usize::from(unit)];
        let ticks = now.0.saturating_sub(pending.since.0);
        match pending.kind {
            Kind::Read => {
                stats.reads.add(1);
                stats.read_bytes.add(moved);
                stats.read_latency.record(ticks);
            }
            Kind::Write => {
                stats.writes.add(1);
                stats.write_bytes.add(moved);
                stats.write_latency.record(ticks);
            }
            Kind::Other => stats.others.add(1),
        }
        let data = pending.bytes + u64::from(pending.residual);
        let reply = match pending.verdict {
            Some(verdict) => Reply::Transport(verdict_response(verdict)),
            None if good => Reply::Good {
                data_in: if pending.kind == Kind::Read { pending.bytes } else { 0 },
                residual: u64::from(pending.residual),
            },
            None => Reply::Check(sense_of(completion.status, pending.kind)),
        };
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
        let ticks = Tsc::now().0.saturating_sub(started.0);
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
            if tally.reads > 0 {
                stats.reads.add(u64::from(tally.reads));
                stats.read_bytes.add(tally.read_bytes);
                stats.read_latency.record_n(ticks, u64::from(tally.reads));
            }
            if tally.writes > 0 {
                stats.writes.add(u64::from(tally.writes));
                stats.write_bytes.add(tally.write_bytes);
                stats.write_latency.record_n(ticks, u64::from(tally.writes));
            }
            if tally.others > 0 {
                stats.others.add(u64::from(tally.others));
            }
        }
        self.count_ok();
    }

    #[inline]
    fn count_ok(&mut self) {
        if self.ok_responses > 0 {
            self.stats.responses[usize::from(response::OK)].add(self.ok_responses);
            self.ok_responses = 0;
        }
    }
}

/// Bytes of the chain that count as written when a command ended well.
#[inline(always)]
fn used_len(data_in: u64) -> u32 {
    if data_in == 0 { RESPONSE_HEADER_LEN as u32 } else { saturate(RESPONSE_LEN as u64 + data_in) }
}

/// Segments that carry data in the direction that has more: descriptors without those that the header takes up whole.
#[cold]
fn data_segments(request: &Request<'_>) -> u32 {
    let count = |descriptors: u16, slices: &[GuestSlice], header: usize| {
        u32::from(descriptors).saturating_sub(data::header_slices(slices, header) as u32)
    };
    let out = count(request.chain.readable_descriptors, request.readable, REQUEST_LEN);
    out.max(count(request.chain.writable_descriptors, request.writable, RESPONSE_LEN))
}

/// Data bytes that the buffers hold behind the headers.
#[inline]
fn data_bytes(request: &Request<'_>) -> u64 {
    request.chain.readable_bytes.saturating_sub(REQUEST_LEN as u64)
        + request.chain.writable_bytes.saturating_sub(RESPONSE_LEN as u64)
}

#[inline]
fn saturate(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// R08: what a command gets that a task management function ended.
fn verdict_response(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Abort => response::ABORTED,
        Verdict::Reset => response::RESET,
        Verdict::Query => unreachable!("a query ends no command"),
    }
}

/// What a backend's failure is in SCSI: the one place that says so.
fn sense_of(status: Status, kind: Kind) -> Sense {
    match status {
        Status::ReadError => Sense::UNRECOVERED_READ_ERROR,
        Status::WriteError => Sense::WRITE_ERROR,
        Status::NoSpace => Sense::new(0x07, 0x27, 0x07), // SPACE ALLOCATION FAILED WRITE PROTECT,
        Status::WriteProtected => Sense::WRITE_PROTECTED,
        Status::OutOfRange => Sense::LBA_OUT_OF_RANGE,
        Status::Unsupported => Sense::INVALID_OPCODE,
        Status::Gone => Sense::LU_NOT_SUPPORTED,
        Status::Busy | Status::Aborted => Sense::ABORTED_COMMAND,
        Status::Good | Status::Failed if kind == Kind::Read => Sense::UNRECOVERED_READ_ERROR,
        Status::Good | Status::Failed => Sense::WRITE_ERROR,
    }
}
