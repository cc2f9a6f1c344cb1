//! Request queues: what becomes of a chain that was popped. The order of checks is the order of this file (see
//! requirements R01-R04, R12, R24) and of `request/execute.rs` behind it: the first one that objects answers.
//!
//! `quick.rs` is a short way for what drivers send nearly always, `medium.rs` has the rarer commands that concern the medium,
//! `reply.rs` ends requests, `backend.rs` deals with those that their backend keeps, `task_set.rs` with those that have to wait
//! for others, `management.rs` what task management does to backends. Nothing in here allocates, locks or calls the kernel in a
//! steady load. When an answer becomes visible is the shard's business.

mod backend;
mod execute;
mod inventory;
mod management;
mod medium;
mod quick;
mod reply;
mod task_set;

use std::sync::Arc;

use bdev::{Channel, Completion};
use guest_memory::GuestSlice;
use reactor::Tsc;
use scsi::Sense;
use vhost_user::{RingSet, Ticket};
use virtqueue::Chain;

pub(crate) use self::inventory::UnitPart;
use self::inventory::{Leaving, Units};
use self::quick::Quick;
use self::reply::verdict_response;
use crate::address::Address;
use crate::controller::default_seg_max;
use crate::data;
use crate::fence::{UnitIndex, Verdict};
use crate::limits::{CommandSlot, Credits, Limits, OnCommandLimit, OnTransferLimit};
use crate::lun_map::{Addressee, LunMap, Unit};
use crate::nexus::{Nexus, UnitNexus};
use crate::order::TaskSets;
use crate::pending::{Kind, Next, PendingTable};
use crate::stats::{Limit, ShardStats};
use crate::sweep::Sweeping;
use crate::wire::{REQUEST_LEN, RESPONSE_LEN, RequestHeader, SECTOR_LEN, response, status, task_attr};

/// Chains popped from a ring at once.
pub(crate) const BATCH: usize = 32;

/// The request side of a shard.
pub(crate) struct Requests {
    map: Arc<LunMap>,
    limits: Limits,
    /// `limits.max_sectors` in bytes.
    bytes_max: u64,
    units: Units,
    /// Units that are going and have not gone.
    leaving: usize,
    /// Counts the units that came and went.
    generation: u64,
    pending: PendingTable,
    /// Resets that are under way at backends.
    resets: usize,
    stats: Arc<ShardStats>,
    nexus: Arc<Nexus>,
    /// The LUN field that was resolved last: nearly always the next one too.
    last: Option<(u64, UnitIndex)>,
    /// Units with something to settle at the end of the batch.
    touched: Vec<UnitIndex>,
    /// Units with commands at their backend.
    waiting: Vec<UnitIndex>,
    /// A backend that may have ended it by now was given a command.
    prompt: bool,
    completions: Vec<Completion>,
    /// Parameter data of emulated commands.
    scratch: scsi::Scratch,
    /// The parameter list of the command at hand.
    list: Vec<u8>,
    /// Blocks that an UNMAP gives back.
    extents: Vec<bdev::Extent>,
    /// Buffers cut to size, where the driver's framing does not fit.
    cut: Vec<GuestSlice>,
    ok_responses: u64,
    /// A run of commands that `quick.rs` has decoded.
    quick: [Quick; BATCH],
}

/// A logical unit as one shard has it.
pub(crate) struct UnitState {
    unit: Arc<Unit>,
    nexus: Arc<UnitNexus>,
    block_size: u32,
    channel: Channel,
    /// See [`bdev::IoChannel::is_prompt`].
    prompt: bool,
    credits: Credits,
    /// Commands, and resets, at the backend.
    outstanding: u32,
    /// Whether it is in [`Requests::waiting`].
    waiting: bool,
    tasks: TaskSets,
    touched: bool,
    /// Its channel was told to wake the poller.
    armed: bool,
    tally: Tally,
    /// It has been taken out of the map: where it goes when its last command has ended. The last field: that the other end
    /// has no sender any more means that everything above has been dropped.
    leaving: Leaving,
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
    /// See `virtqueue::ChainBatch::continued`; only checks on arrival ask for it.
    pub continued: &'a [u32],
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
    /// The backend has it; the bytes that move if it ends well, and what is to be done then, if that is not all.
    Pending(u64, Option<Box<Next>>),
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
    /// Without a unit: those of the map are [added](Requests::add_unit) before there is a request.
    pub(crate) fn new(map: Arc<LunMap>, limits: Limits, nexus: Arc<Nexus>, stats: Arc<ShardStats>) -> Requests {
        Requests {
            map,
            limits,
            bytes_max: u64::from(limits.max_sectors) * SECTOR_LEN,
            units: Units::default(),
            leaving: 0,
            generation: 0,
            pending: PendingTable::default(),
            resets: 0,
            stats,
            nexus,
            last: None,
            touched: Vec::new(),
            waiting: Vec::new(),
            prompt: false,
            completions: Vec::with_capacity(1024),
            scratch: scsi::Scratch { data_in: Vec::with_capacity(4096), extents: Vec::with_capacity(256) },
            list: Vec::with_capacity(4096),
            extents: Vec::new(),
            cut: Vec::with_capacity(256),
            ok_responses: 0,
            quick: [Quick::NONE; BATCH],
        }
    }

    /// Commands, and resets, at backends.
    #[inline]
    pub(crate) fn outstanding(&self) -> usize {
        self.pending.len() + self.resets
    }

    /// Whether a backend that may have ended it by now was given a command since this was asked last.
    #[inline]
    pub(crate) fn take_prompt(&mut self) -> bool {
        std::mem::take(&mut self.prompt)
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
            rings.await_published(&ticket);
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
        let held = Held { unit, slot, kind: Kind::Other };
        if header.task_attr() != task_attr::SIMPLE || !state.tasks.is_trivial() {
            return self.submit_in_order(rings, ticket, request, header, data, held, now);
        }
        self.carry_out(rings, ticket, request, header, data, held, now);
    }

    /// A command that was accepted and need not wait for others.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request, on the hot path")]
    #[inline(always)]
    fn carry_out(
        &mut self,
        rings: &mut RingSet,
        ticket: Ticket,
        request: &Request<'_>,
        header: RequestHeader<'_>,
        data: Data,
        mut held: Held,
        now: Tsc,
    ) {
        match self.execute(request, header, data, &mut held, now) {
            Progress::Ended(reply) => self.finish(rings, ticket, request, &reply, held),
            Progress::Pending(bytes, next) => self.park(ticket, request, header, data, held, (bytes, next), now),
        }
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
        let seg_max = self.seg_max(request.ring_size);
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

    #[inline(always)]
    fn seg_max(&self, ring_size: u16) -> u32 {
        self.limits.seg_max.unwrap_or_else(|| default_seg_max(ring_size))
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

    pub(super) fn count_refusal(&self, unit: Option<UnitIndex>, limit: Limit) {
        match unit {
            Some(unit) => self.stats.units[usize::from(unit)].refused[limit as usize].add(1),
            None => self.stats.absent_refused[limit as usize].add(1),
        }
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

    pub(super) fn touch(&mut self, unit: UnitIndex) {
        let state = &mut self.units[usize::from(unit)];
        if !state.touched {
            state.touched = true;
            self.touched.push(unit);
        }
    }
}

/// Segments that carry data in the direction that has more: descriptors without those that the header takes up whole.
#[cold]
fn data_segments(request: &Request<'_>) -> u32 {
    let Request { readable, writable, chain, continued, .. } = *request;
    let headers = chain.whole_descriptors(readable, false, REQUEST_LEN, continued);
    let responses = chain.whole_descriptors(writable, true, RESPONSE_LEN, continued);
    let (out, into) = (u32::from(chain.readable_descriptors), u32::from(chain.writable_descriptors));
    out.saturating_sub(headers).max(into.saturating_sub(responses))
}
