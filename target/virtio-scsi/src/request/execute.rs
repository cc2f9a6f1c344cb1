//! Carrying a command out: from the unit attention on (steps 10 to 15 of the order of checks).

use std::sync::Arc;

use bdev::{Io, Op, Status, Submitted};
use guest_memory::GuestSlice;
use reactor::Tsc;
use scsi::{Action, Command, Context, DataPhase, LogData, ReadWrite, Sense, Transfer};

use super::{Data, Held, Progress, Reply, Request, Requests};
use crate::data;
use crate::fence::UnitIndex;
use crate::pending::Kind;
use crate::wire::{REQUEST_LEN, RESPONSE_LEN, RequestHeader, response};

impl Requests {
    /// From the unit attention on (steps 10 to 15).
    #[inline(always)]
    pub(super) fn execute(
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
        match ReadWrite::parse(header.cdb()) {
            Some(command) => self.read_write(command, request, data, held, now),
            None => self.execute_parsed(request, header, data, held, now),
        }
    }

    /// What is not a READ or WRITE of ten or sixteen bytes.
    #[inline(never)]
    fn execute_parsed(
        &mut self,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        held: &mut Held,
        now: Tsc,
    ) -> Progress {
        match Command::parse(header.cdb()) {
            Ok(Command::Read(transfer)) => self.read_write(ReadWrite::Read(transfer), request, data, held, now),
            Ok(Command::Write(transfer)) => self.read_write(ReadWrite::Write(transfer), request, data, held, now),
            parsed => self.other(request, header, parsed, data, held, now),
        }
    }

    #[inline(always)]
    fn read_write(
        &mut self,
        command: ReadWrite,
        request: &Request<'_>,
        data: Data,
        held: &mut Held,
        now: Tsc,
    ) -> Progress {
        match command {
            ReadWrite::Read(transfer) => {
                held.kind = Kind::Read;
                self.block_io(held, &transfer, Op::Read, request.writable, RESPONSE_LEN, data.into, data, now)
            }
            ReadWrite::Write(transfer) => {
                held.kind = Kind::Write;
                let op = Op::Write { fua: transfer.fua };
                self.block_io(held, &transfer, op, request.readable, REQUEST_LEN, data.out, data, now)
            }
        }
    }

    #[inline(always)]
    pub(super) fn unit_attention(&self, unit: UnitIndex, header: RequestHeader<'_>) -> Option<Sense> {
        let attentions = &self.units[usize::from(unit)].nexus.attentions;
        if attentions.is_empty() || !scsi::reports_unit_attention(header.cdb()[0]) {
            return None;
        }
        attentions.take().map(|attention| attention.sense())
    }

    /// READ and WRITE of any length of CDB. The data is in `slices` behind a header of `skip` bytes: `room` bytes.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request, on the hot path")]
    #[inline(always)]
    pub(super) fn block_io(
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
        let op = match op {
            Op::Write { fua } => Op::Write { fua: fua | state.unit.logical_unit.write_through() },
            other => other,
        };
        let residual = data.out + data.into - bytes;
        if bytes == 0 {
            return Progress::Ended(Reply::Good { data_in: 0, residual });
        }
        let buffers = data::behind(slices, skip, room, bytes, &mut self.cut);
        let io = Io::new(op, transfer.lba, transfer.blocks, buffers, self.pending.next_token());
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
            Submitted::Pending => Progress::Pending(bytes, None),
        }
    }

    /// Everything that is not a good READ or WRITE.
    pub(super) fn other(
        &mut self,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        parsed: Result<Command, Sense>,
        data: Data,
        held: &mut Held,
        now: Tsc,
    ) -> Progress {
        let index = held.unit;
        let state = &mut self.units[usize::from(index)];
        let (unit, nexus) = (Arc::clone(&state.unit), Arc::clone(&state.nexus));
        let pending = nexus.attentions.pending();
        let to = scsi::Addressee::Unit(&unit.logical_unit);
        let command = match to.admits(header.cdb()).and(parsed) {
            Ok(command) => command,
            Err(sense) => return Progress::Ended(Reply::Check(sense)),
        };
        let moved = match command.data(unit.logical_unit.block_size()) {
            DataPhase::Out(bytes) if bytes > data.out => return Progress::Ended(Reply::Transport(response::OVERRUN)),
            DataPhase::Out(bytes) => bytes,
            DataPhase::None | DataPhase::In(_) | DataPhase::InUpTo(_) => 0,
        };
        self.fill_list(&command, request, data);
        let luns = self.map.luns(unit.target);
        let log = self.log_of(&command, index);
        let context = Context { luns, pending, data_out: &self.list, has_data_out: data.out > 0, log };
        let action = scsi::execute(to, &command, &context, &mut self.scratch);
        let (Action::DataIn | Action::Good | Action::Check(_)) = action else {
            return self.on_medium(action, request, data, moved, held, now);
        };
        let reply = match self.reply_of(action, request, data) {
            Reply::Good { data_in, residual } => Reply::Good { data_in, residual: residual - moved },
            other => other,
        };
        match (command, &reply, pending) {
            (Command::RequestSense { .. }, Reply::Good { .. }, Some(told)) => drop(nexus.attentions.clear(told)),
            (Command::ReportLuns { .. }, Reply::Good { .. }, _) => self.inventory_told(unit.target),
            _ => {}
        }
        Progress::Ended(reply)
    }

    /// Copies the parameter list of a command that has one. Its length has been checked.
    fn fill_list(&mut self, command: &Command, request: &Request<'_>, data: Data) {
        self.list.clear();
        let len = command.parameter_list_len().unwrap_or(0);
        if len > 0 {
            self.list.resize(len.into(), 0);
            let slices = data::behind(request.readable, REQUEST_LEN, data.out, len.into(), &mut self.cut);
            data::gather_into(slices, &mut self.list);
        }
    }

    /// What LOG SENSE tells: what all shards have counted.
    fn log_of(&self, command: &Command, unit: UnitIndex) -> LogData {
        let mut log = LogData::default();
        if !matches!(command, Command::LogSense { .. }) {
            return log;
        }
        let block_size = u64::from(self.units[usize::from(unit)].block_size);
        let micros = |ticks| Tsc::nanos(ticks) / 1000;
        for stats in self.nexus.unit_stats(unit.into()) {
            log.reads += stats.reads.value();
            log.writes += stats.writes.value();
            log.blocks_read += stats.read_bytes.value() / block_size;
            log.blocks_written += stats.write_bytes.value() / block_size;
            log.read_micros += micros(stats.read_latency.sum());
            log.write_micros += micros(stats.write_latency.sum());
        }
        log
    }

    /// Commands to something that is no logical unit of ours.
    pub(super) fn emulate(
        &mut self,
        to: scsi::Addressee<'_>,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        target: u8,
    ) -> Reply {
        let command = to.admits(header.cdb()).and_then(|()| Command::parse(header.cdb()));
        let action = match command {
            Ok(command) => {
                if let Command::ReportLuns { .. } = command {
                    self.inventory_told(target);
                }
                let context = Context { luns: self.map.luns(target), ..Context::default() };
                scsi::execute(to, &command, &context, &mut self.scratch)
            }
            Err(sense) => Action::Check(sense),
        };
        self.reply_of(action, request, data)
    }

    /// Moves the parameter data of an emulated command.
    pub(super) fn reply_of(&mut self, action: Action, request: &Request<'_>, data: Data) -> Reply {
        let moved = match action {
            Action::DataIn => self.scratch.data_in.len() as u64,
            Action::Good => 0,
            Action::Check(sense) => return Reply::Check(sense),
            _ => unreachable!("only a logical unit's own commands reach its backend"),
        };
        if moved > data.into {
            return Reply::Transport(response::OVERRUN);
        }
        if moved > 0 {
            let buffers = data::behind(request.writable, RESPONSE_LEN, data.into, moved, &mut self.cut);
            data::scatter(buffers, &self.scratch.data_in);
        }
        Reply::Good { data_in: moved, residual: data.out + data.into - moved }
    }
}

/// What a backend's failure is in SCSI: the one place that says so.
pub(super) fn sense_of(status: Status, kind: Kind) -> Sense {
    match status {
        Status::ReadError => Sense::UNRECOVERED_READ_ERROR,
        Status::WriteError => Sense::WRITE_ERROR,
        Status::NoSpace => Sense::new(0x07, 0x27, 0x07), // SPACE ALLOCATION FAILED WRITE PROTECT,
        Status::WriteProtected => Sense::WRITE_PROTECTED,
        Status::Miscompare { offset } => Sense::miscompare(u64::from(offset)),
        Status::OutOfRange => Sense::LBA_OUT_OF_RANGE,
        Status::Unsupported => Sense::INVALID_OPCODE,
        Status::Gone => Sense::LU_NOT_SUPPORTED,
        Status::Busy | Status::Aborted => Sense::ABORTED_COMMAND,
        Status::Good | Status::Failed if matches!(kind, Kind::Read | Kind::Verify) => Sense::UNRECOVERED_READ_ERROR,
        Status::Good | Status::Failed => Sense::WRITE_ERROR,
    }
}
