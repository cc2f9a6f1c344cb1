//! Commands that concern the medium and are neither READ nor WRITE: which operations of the block device they are, one
//! after the other where one is not enough. What the commands mean, and that their blocks exist, is `scsi`'s.

use bdev::{BlockRuns, Extent, Io, Op, Status, Submitted};
use reactor::Tsc;
use scsi::{Action, LbaRun, LbaState, LbaStatusQuery, Transfer};

use super::execute::sense_of;
use super::{Data, Held, Progress, Reply, Request, Requests};
use crate::data;
use crate::fence::UnitIndex;
use crate::pending::{Kind, Next, Pending};
use crate::wire::{REQUEST_LEN, RESPONSE_LEN, response};

/// An operation on one run of blocks.
#[derive(Clone, Copy)]
struct Step {
    op: Op,
    lba: u64,
    blocks: u32,
}

impl Step {
    fn new(op: Op, transfer: &Transfer) -> Step {
        Step { op, lba: transfer.lba, blocks: transfer.blocks }
    }

    /// Neither of these has blocks: all of the device, and those of a list.
    fn of_all(op: Op) -> Step {
        Step { op, lba: 0, blocks: 0 }
    }
}

impl Requests {
    /// Starts what `action` asks the backend for. `moved` bytes of data-out came with the command.
    #[cold]
    pub(super) fn on_medium(
        &mut self,
        action: Action,
        request: &Request<'_>,
        data: Data,
        moved: u64,
        held: &mut Held,
        now: Tsc,
    ) -> Progress {
        let write_through = self.units[usize::from(held.unit)].unit.logical_unit.write_through();
        // What has no FUA of its own is flushed, where writes are not to stay in a cache.
        let then_flush = write_through.then_some(Step::of_all(Op::Flush));
        let (kind, first, second) = match action {
            Action::Flush => (Kind::Other, Step::of_all(Op::Flush), None),
            Action::Verify(transfer) => (Kind::Verify, Step::new(Op::Verify, &transfer), None),
            Action::Compare(transfer) => (Kind::Verify, Step::new(Op::Compare, &transfer), None),
            Action::WriteAndVerify { transfer, compare } => {
                let check = if compare { Op::Compare } else { Op::Verify };
                let write = Step::new(Op::Write { fua: true }, &transfer);
                (Kind::Write, write, Some(Step::new(check, &transfer)))
            }
            Action::CompareAndWrite(transfer) => {
                let op = Op::CompareAndWrite { fua: transfer.fua | write_through };
                (Kind::Other, Step::new(op, &transfer), None)
            }
            Action::WriteSame { transfer, unmap, no_data_out } => {
                let zeroes = no_data_out || self.is_zero(request, data, moved);
                let op = if zeroes { Op::WriteZeroes { unmap } } else { Op::WriteSame };
                (Kind::Other, Step::new(op, &transfer), then_flush)
            }
            Action::Unmap => {
                self.extents.clear();
                self.extents
                    .extend(self.scratch.extents.iter().map(|&scsi::Extent { lba, blocks }| Extent { lba, blocks }));
                (Kind::Other, Step::of_all(Op::Unmap), then_flush)
            }
            Action::LbaStatus(query) => {
                held.kind = Kind::Verify;
                return self.lba_status(query, request, data, held.unit, now);
            }
            Action::Read(_) | Action::Write(_) | Action::DataIn | Action::Good | Action::Check(_) => {
                unreachable!("the caller deals with these")
            }
        };
        held.kind = kind;
        self.run_steps(first, second, request, data, moved, held, now)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn run_steps(
        &mut self,
        first: Step,
        second: Option<Step>,
        request: &Request<'_>,
        data: Data,
        moved: u64,
        held: &Held,
        now: Tsc,
    ) -> Progress {
        let mut steps = [Some(first), second].into_iter().flatten();
        while let Some(step) = steps.next() {
            match self.submit_step(step, request, data, held.unit, now) {
                Submitted::Done(Status::Good) => {}
                Submitted::Done(failed) => return Progress::Ended(Reply::Check(sense_of(failed, held.kind))),
                Submitted::Pending => {
                    let next = steps.next().map(|Step { op, lba, blocks }| {
                        let buffers = self.data_out(op, blocks, request, data, held.unit).to_vec();
                        Box::new(Next::Io { op, lba, blocks, buffers })
                    });
                    return Progress::Pending(moved, next);
                }
            }
        }
        if held.kind == Kind::Write {
            self.units[usize::from(held.unit)].tally.write_bytes += moved;
        }
        Progress::Ended(Reply::Good { data_in: 0, residual: data.out + data.into - moved })
    }

    fn submit_step(&mut self, step: Step, request: &Request<'_>, data: Data, unit: UnitIndex, now: Tsc) -> Submitted {
        let token = self.pending.next_token();
        let Requests { units, cut, extents, .. } = self;
        let state = &mut units[usize::from(unit)];
        if step.op == Op::Unmap {
            return state.channel.submit(&Io::unmap(extents, token), now);
        }
        let want = step.op.data_bytes(step.blocks, state.block_size);
        let buffers = data::behind(request.readable, REQUEST_LEN, data.out, want, cut);
        state.channel.submit(&Io::new(step.op, step.lba, step.blocks, buffers, token), now)
    }

    /// The data-out that an operation takes.
    fn data_out<'a>(
        &'a mut self,
        op: Op,
        blocks: u32,
        request: &Request<'a>,
        data: Data,
        unit: UnitIndex,
    ) -> &'a [guest_memory::GuestSlice] {
        let want = op.data_bytes(blocks, self.units[usize::from(unit)].block_size);
        data::behind(request.readable, REQUEST_LEN, data.out, want, &mut self.cut)
    }

    /// Whether the `len` bytes of data-out are all zero. They are not looked at again if so.
    fn is_zero(&mut self, request: &Request<'_>, data: Data, len: u64) -> bool {
        self.list.clear();
        self.list.resize(len as usize, 0xff); // a block
        let slices = data::behind(request.readable, REQUEST_LEN, data.out, len, &mut self.cut);
        data::gather_into(slices, &mut self.list);
        self.list.iter().all(|byte| *byte == 0)
    }

    fn lba_status(
        &mut self,
        query: LbaStatusQuery,
        request: &Request<'_>,
        data: Data,
        unit: UnitIndex,
        now: Tsc,
    ) -> Progress {
        let runs = BlockRuns::default();
        let runs_max = query.runs_max as u16; // at most LbaStatusQuery::RUNS_MAX
        let io = Io::block_status(query.lba, runs_max, &runs, self.pending.next_token());
        match self.units[usize::from(unit)].channel.submit(&io, now) {
            Submitted::Done(Status::Good) => {
                query.answer(&lba_runs(&runs), &mut self.scratch.data_in);
                Progress::Ended(self.reply_of(Action::DataIn, request, data))
            }
            Submitted::Done(failed) => Progress::Ended(Reply::Check(sense_of(failed, Kind::Verify))),
            Submitted::Pending => {
                let room = data.into;
                let buffers = data::behind(request.writable, RESPONSE_LEN, room, room, &mut self.cut).to_vec();
                Progress::Pending(0, Some(Box::new(Next::Tell { query, runs, buffers, room })))
            }
        }
    }

    /// The first step of a command has ended well: goes on with the next. `None` if the backend has that one now.
    #[cold]
    pub(super) fn go_on(&mut self, mut pending: Pending, next: Next, now: Tsc) -> Option<(Pending, Reply)> {
        let total = pending.bytes + u64::from(pending.residual);
        match next {
            Next::Io { op, lba, blocks, buffers } => {
                let io = Io::new(op, lba, blocks, &buffers, self.pending.next_token());
                match self.units[usize::from(pending.unit)].channel.submit(&io, now) {
                    Submitted::Done(Status::Good) => {
                        let residual = pending.residual.into();
                        Some((pending, Reply::Good { data_in: 0, residual }))
                    }
                    Submitted::Done(failed) => {
                        let sense = sense_of(failed, pending.kind);
                        pending.bytes = 0;
                        pending.residual = super::reply::saturate(total);
                        Some((pending, Reply::Check(sense)))
                    }
                    Submitted::Pending => {
                        self.units[usize::from(pending.unit)].outstanding += 1;
                        self.pending.insert(pending);
                        None
                    }
                }
            }
            Next::Tell { query, runs, buffers, room } => {
                query.answer(&lba_runs(&runs), &mut self.scratch.data_in);
                let told = self.scratch.data_in.len() as u64;
                if told > room {
                    return Some((pending, Reply::Transport(response::OVERRUN)));
                }
                data::scatter(&buffers, &self.scratch.data_in);
                Some((pending, Reply::Good { data_in: told, residual: total - told }))
            }
        }
    }
}

/// As SCSI has them: none longer than 32 bits can say.
fn lba_runs(runs: &BlockRuns) -> Vec<LbaRun> {
    let split = |run: &bdev::BlockRun| {
        let bdev::BlockRun { lba, blocks, allocated } = *run;
        let state = if allocated { LbaState::Mapped } else { LbaState::Deallocated };
        let pieces = (0..blocks).step_by(PIECE as usize).take(LbaStatusQuery::RUNS_MAX as usize);
        pieces.map(move |at| LbaRun { lba: lba + at, blocks: (blocks - at).min(PIECE) as u32, state })
    };
    runs.found().iter().flat_map(split).collect()
}

/// Blocks of the longest run that can be told, in whole megabytes whatever the block size.
const PIECE: u64 = 0xffff_f000;
