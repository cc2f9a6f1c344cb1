//! READ and WRITE as drivers send them nearly always, a run of them at once: to the logical unit that was addressed last,
//! SIMPLE, of ten or sixteen bytes, header and response in descriptors of their own, as much data as the CDB says, and nothing to
//! object to.
//!
//! Everything else is left to `request.rs` and `execute.rs`, whose order of checks says what is wrong with it: it has then not
//! been touched, and its header is read anew. What a run shares is looked up once: the unit, its state, what it lets through.
//! First all of the run is decoded, so that the shares of all are claimed at once (one write to the line that pollers share,
//! and the count is exact), then it is carried out: by a device that ends commands at once in a loop of its own, by any other one
//! after the other, and what it keeps is parked.

use bdev::{AtOnce, Io, Op, Status, Submitted, Work};
use guest_memory::GuestSlice;
use reactor::Tsc;
use scsi::{Admission, ReadWrite};
use vhost_user::RingSet;
use virtqueue::{ChainBatch, ShortChain};

use super::execute::sense_of;
use super::{Data, Held, Reply, Request, Requests, UnitState};
use crate::fence::UnitIndex;
use crate::limits::{CommandSlot, CommandSlots};
use crate::pending::{Kind, Pending, ResponseArea};
use crate::wire::{GOOD, REQUEST_LEN, RESPONSE_HEADER_LEN, RESPONSE_LEN, RequestHeader, task_attr};

/// A command that was decoded.
#[derive(Clone, Copy)]
pub(super) struct Quick {
    lba: u64,
    blocks: u32,
    /// Bytes of the chain that count as written when it has ended well.
    used: u32,
    /// Where the response goes.
    response: GuestSlice,
    write: bool,
}

impl Quick {
    pub(super) const NONE: Quick = Quick { lba: 0, blocks: 0, used: 0, response: GuestSlice::EMPTY, write: false };
}

/// What all commands of a run are measured by.
struct Usual {
    /// The LUN field of the unit.
    lun: u64,
    /// No more than the transport lets through, either.
    admission: Admission,
    block_size: u32,
}

/// A run that was decoded and is to be carried out.
struct Run<'a> {
    commands: &'a [Quick],
    batch: &'a ChainBatch,
    /// Where in the batch it begins.
    from: usize,
}

/// What became of a run.
#[derive(Default)]
struct Outcome {
    /// Commands from the first on that ended well, and how many of them were writes.
    ended: usize,
    writes: usize,
    read_blocks: u64,
    write_blocks: u64,
    /// How the next one ended, if there is one: `None` if it has not ended.
    stopped: Option<Option<Status>>,
}

impl Requests {
    /// Deals with the chains of the batch from `from` on, up to the first that takes a closer look; how many it dealt with.
    /// Not while a task management function is under way.
    #[inline(never)]
    pub(crate) fn submit_quick(
        &mut self,
        rings: &mut RingSet,
        slot: usize,
        batch: &ChainBatch,
        from: usize,
        now: Tsc,
    ) -> usize {
        let Some((lun, unit)) = self.last else { return 0 };
        let (ring_size, bytes_max) = (rings.ring_size(slot), self.bytes_max.min(BYTES_MAX) as u32);
        let seg_max = self.seg_max(ring_size);
        let state = &mut self.units[usize::from(unit)];
        let Some(usual) = state.usual(lun, bytes_max).filter(|_| seg_max >= SEGMENTS_MAX) else { return 0 };
        let known = usual.decode(batch.short(from), &mut self.quick);
        let mut slots = state.credits.take_up_to(known as u32);
        let commands = &self.quick[..slots.count() as usize];
        let Some(outcome) = state.channel.at_once(Run { commands, batch, from }) else {
            return self.hand_over(rings, slot, (batch, from), (unit, slots), now);
        };
        let ended = outcome.ended;
        let (commands, chains) = (&commands[..ended], &batch.chains()[from..][..ended]);
        rings.complete_popped(slot, chains, commands.iter().map(|command| command.used));
        state.count(&outcome);
        self.ok_responses += ended as u64;
        state.credits.retire_all(slots.split_off(ended as u32));
        let stopped = outcome.stopped.and_then(|outcome| Some((outcome, slots.take_one()?)));
        if slots.count() > 0 {
            state.credits.put_back(slots);
        }
        if ended == 0 && stopped.is_none() {
            return 0;
        }
        self.touch(unit);
        let Some((outcome, share)) = stopped else { return ended };
        self.go_on_slowly(rings, (slot, ring_size), (batch, from + ended), (unit, share), outcome, now);
        ended + 1
    }

    /// Hands the commands of a run to a device that keeps them until later, and parks those. How many there are.
    #[inline(never)]
    fn hand_over(
        &mut self,
        rings: &mut RingSet,
        slot: usize,
        (batch, from): (&ChainBatch, usize),
        (unit, mut slots): (UnitIndex, CommandSlots),
        now: Tsc,
    ) -> usize {
        let mut count = 0;
        if slots.count() > 0 {
            self.touch(unit);
        }
        while let Some(share) = slots.take_one() {
            let Quick { lba, blocks, used, response, write } = self.quick[count];
            let chain = &batch.chains()[from + count];
            let slices = if write { batch.readable(chain) } else { batch.writable(chain) };
            // Not read before: decoding leaves out what a device that ends commands at once does not need.
            let header =
                batch.readable(chain).first().and_then(|header| header.read_array()).unwrap_or([0; REQUEST_LEN]);
            let header = RequestHeader::of(&header);
            let (op, kind) = match write {
                true => (Op::Write { fua: scsi::is_fua(header.cdb()) }, Kind::Write),
                false => (Op::Read, Kind::Read),
            };
            let io = Io::new(op, lba, blocks, slices.get(1..).unwrap_or_default(), self.pending.next_token());
            let state = &mut self.units[usize::from(unit)];
            let bytes = u64::from(blocks) * u64::from(state.block_size);
            let submitted = state.channel.submit(&io, now);
            let ticket = rings.ticket(slot, chain);
            match submitted {
                Submitted::Pending => self.keep(Pending {
                    ticket,
                    slot: share,
                    unit,
                    target: self.units[usize::from(unit)].unit.target,
                    tag: header.tag(),
                    kind,
                    bytes,
                    residual: 0,
                    since: now,
                    barrier: false,
                    verdict: None,
                    next: None,
                    response: ResponseArea::whole(response),
                }),
                Submitted::Done(Status::Good) => {
                    let moved = if write { &mut state.tally.write_bytes } else { &mut state.tally.read_bytes };
                    *moved += bytes;
                    *(if write { &mut state.tally.writes } else { &mut state.tally.reads }) += 1;
                    state.credits.retire(share);
                    self.ok_responses += 1;
                    let _ = response.write_array(GOOD);
                    rings.complete(ticket, used);
                }
                Submitted::Done(failed) => {
                    let (readable, writable, continued) =
                        (batch.readable(chain), batch.writable(chain), batch.continued());
                    let request = Request { readable, writable, chain, continued, ring_size: rings.ring_size(slot) };
                    let held = Held { unit, slot: share, kind };
                    self.finish(rings, ticket, &request, &Reply::Check(sense_of(failed, kind)), held);
                }
            }
            count += 1;
        }
        count
    }

    /// A command that holds a share, and that its device has not ended, or not well.
    #[cold]
    fn go_on_slowly(
        &mut self,
        rings: &mut RingSet,
        (slot, ring_size): (usize, u16),
        (batch, at): (&ChainBatch, usize),
        (unit, share): (UnitIndex, CommandSlot),
        outcome: Option<Status>,
        now: Tsc,
    ) {
        let chain = &batch.chains()[at];
        let (readable, writable, continued) = (batch.readable(chain), batch.writable(chain), batch.continued());
        let request = Request { readable, writable, chain, continued, ring_size };
        let ticket = rings.ticket(slot, chain);
        let data = Data::of(chain);
        let kind = if data.out > 0 { Kind::Write } else { Kind::Read };
        let held = Held { unit, slot: share, kind };
        match (outcome, readable.first().and_then(|header| header.read_array::<REQUEST_LEN>())) {
            (None, Some(header)) => {
                self.carry_out(rings, ticket, &request, RequestHeader::of(&header), data, held, now);
            }
            (failed, _) => {
                let status = failed.unwrap_or(Status::Failed);
                let op = if data.out > 0 { Op::Write { fua: false } } else { Op::Read };
                self.units[usize::from(unit)].channel.count(op, 1, 0, status);
                self.finish(rings, ticket, &request, &Reply::Check(sense_of(status, kind)), held);
            }
        }
    }
}

impl UnitState {
    /// What its commands are measured by; `None` if each takes a closer look.
    #[inline]
    fn usual(&self, lun: u64, bytes_max: u32) -> Option<Usual> {
        let usual = self.tasks.is_trivial() && self.nexus.attentions.is_empty();
        let admission = self.unit.logical_unit.admission().of_at_most(bytes_max / self.block_size);
        (usual && admission.plain_writes()).then_some(Usual { lun, admission, block_size: self.block_size })
    }

    #[inline(always)]
    fn count(&mut self, outcome: &Outcome) {
        let Outcome { ended, writes, read_blocks, write_blocks, .. } = *outcome;
        let reads = ended - writes;
        let block_size = u64::from(self.block_size);
        if reads > 0 {
            self.tally.reads += reads as u32;
            self.tally.read_bytes += read_blocks * block_size;
            self.channel.count(Op::Read, reads as u64, read_blocks, Status::Good);
        }
        if writes > 0 {
            self.tally.writes += writes as u32;
            self.tally.write_bytes += write_blocks * block_size;
            self.channel.count(Op::Write { fua: false }, writes as u64, write_blocks, Status::Good);
        }
    }
}

impl Usual {
    /// Decodes chains up to the first that is not usual; returns how many.
    #[inline(always)]
    fn decode<'a>(&self, chains: impl Iterator<Item = Option<ShortChain<'a>>>, run: &mut [Quick]) -> usize {
        let mut count = 0;
        for (chain, quick) in chains.zip(run) {
            match chain.and_then(|chain| self.decode_one(&chain)) {
                Some(decoded) => *quick = decoded,
                None => break,
            }
            count += 1;
        }
        count
    }

    #[inline(always)]
    fn decode_one(&self, chain: &ShortChain<'_>) -> Option<Quick> {
        let header = chain.slice(0); // if it is not readable, there are no readable bytes, which is seen below
        if header.len() != REQUEST_LEN {
            return None;
        }
        let bytes = header.read_array::<REQUEST_LEN>()?;
        let header = RequestHeader::of(&bytes);
        if u64::from_le_bytes(*header.lun()) != self.lun || header.task_attr() != task_attr::SIMPLE {
            return None;
        }
        let (transfer, write) = match ReadWrite::parse(header.cdb())? {
            ReadWrite::Read(transfer) => (transfer, false),
            ReadWrite::Write(transfer) => (transfer, true),
        };
        if !self.admission.admits(&transfer) {
            return None;
        }
        // As many data bytes in the one direction as the CDB says, and none in the other.
        let bytes = transfer.bytes(self.block_size);
        let (readable_bytes, writable_bytes) = (chain.chain.readable_bytes, chain.chain.writable_bytes);
        let (response, used) = if write {
            if readable_bytes != REQUEST_LEN as u64 + bytes || writable_bytes != RESPONSE_LEN as u64 {
                return None;
            }
            (chain.slice(chain.readable_slices() % 4), RESPONSE_HEADER_LEN as u32)
        } else {
            if readable_bytes != REQUEST_LEN as u64 || writable_bytes != RESPONSE_LEN as u64 + bytes {
                return None;
            }
            (chain.slice(1), RESPONSE_LEN as u32 + bytes as u32) // at most BYTES_MAX
        };
        let quick = Quick { lba: transfer.lba, blocks: transfer.blocks, used, response: *response, write };
        (response.len() == RESPONSE_LEN).then_some(quick)
    }
}

impl Work for Run<'_> {
    type Outcome = Outcome;

    /// Carries the commands out, and writes the responses of those that end well.
    #[inline]
    fn on<D: AtOnce>(self, device: &mut D) -> Outcome {
        let mut outcome = Outcome::default();
        for (index, quick) in self.commands.iter().enumerate() {
            if let Some(next) = self.commands.get(index + 2) {
                device.prefetch(next.write, next.lba);
            }
            let status = device.read_or_write(quick.write, quick.lba, quick.blocks, || self.data(index, quick.write));
            if status != Some(Status::Good) {
                outcome.stopped = Some(status);
                break;
            }
            let _ = quick.response.write_array(GOOD);
            outcome.add(quick);
        }
        outcome
    }
}

impl<'a> Run<'a> {
    /// Where the data of the command is, or goes: behind the header, or behind the response.
    #[inline]
    fn data(&self, index: usize, write: bool) -> &'a [GuestSlice] {
        let chain = &self.batch.chains()[self.from + index];
        let slices = if write { self.batch.readable(chain) } else { self.batch.writable(chain) };
        slices.get(1..).unwrap_or_default()
    }
}

impl Outcome {
    #[inline(always)]
    fn add(&mut self, quick: &Quick) {
        self.ended += 1;
        if quick.write {
            self.writes += 1;
            self.write_blocks += u64::from(quick.blocks);
        } else {
            self.read_blocks += u64::from(quick.blocks);
        }
    }
}

/// A chain of four slices has no more segments than this in either direction.
const SEGMENTS_MAX: u32 = 4;
/// With a response they can be told in a used entry.
const BYTES_MAX: u64 = 1 << 31;
