//! The control queue: task management functions and asynchronous notification (virtio 1.3 §5.6.6.2). One function at a
//! time, in the order of the queue; what a function does on the rings is the fence's and the sweep's business.

use std::sync::Arc;

use guest_memory::GuestSlice;
use reactor::Tsc;
use scsi::UnitAttention;
use vhost_user::{RingSet, Ticket};
use virtqueue::ChainBatch;

use crate::address::Address;
use crate::data;
use crate::fence::UnitIndex;
use crate::fence::{Scope, Sweep, Verdict};
use crate::lun_map::Addressee;
use crate::nexus::Nexus;
use crate::request::Requests;
use crate::stats::{ShardStats, TMF_NAMES};
use crate::wire::{control, response};

/// How many requests without a task management function are answered per poll.
const BUDGET: usize = 16;

/// Answers up to this length are written whole, also those of unknown types. No known one has more than 5 bytes.
const ZEROED_MAX: usize = 64;

/// The control queue of a device, on the shard that owns it.
pub(crate) struct ControlQueue {
    slot: usize,
    /// Taken out while its chain is dealt with.
    batch: Option<ChainBatch>,
    nexus: Arc<Nexus>,
    stats: Arc<ShardStats>,
    active: Option<Active>,
}

/// A task management function that the shards are at.
struct Active {
    ticket: Ticket,
    answer: GuestSlice,
    function: usize,
    sweep: Sweep,
    /// The logical unit that it is about has gone meanwhile.
    unit_gone: bool,
    /// Backends were asked to give up what the function waits for.
    reset: bool,
    since: Tsc,
}

/// A task management function as it was read.
struct Tmf {
    subtype: u32,
    lun: [u8; 8],
    tag: u64,
}

/// Subtypes (virtio 1.3 §5.6.6.2).
mod subtype {
    pub const ABORT_TASK: u32 = 0;
    pub const ABORT_TASK_SET: u32 = 1;
    pub const CLEAR_ACA: u32 = 2;
    pub const CLEAR_TASK_SET: u32 = 3;
    pub const I_T_NEXUS_RESET: u32 = 4;
    pub const LOGICAL_UNIT_RESET: u32 = 5;
    pub const QUERY_TASK: u32 = 6;
    pub const QUERY_TASK_SET: u32 = 7;
}

impl ControlQueue {
    pub(crate) fn new(slot: usize, nexus: Arc<Nexus>, stats: Arc<ShardStats>) -> ControlQueue {
        ControlQueue { slot, batch: Some(ChainBatch::new(1, 16)), nexus, stats, active: None }
    }

    /// A logical unit goes: a function that is about it completes, but resets nothing any more.
    pub(crate) fn unit_gone(&mut self, gone: UnitIndex) {
        if let Some(active) = &mut self.active {
            active.unit_gone |= match active.sweep.scope {
                Scope::Task { unit, .. } | Scope::Unit(unit) => unit == gone,
                Scope::Target(_) => false,
            };
        }
    }

    /// The slot of its ring.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Whether a task management function is under way.
    pub(crate) fn busy(&self) -> bool {
        self.active.is_some()
    }

    /// Answers what can be answered. Returns the number of requests that began or ended.
    pub(crate) fn poll(&mut self, rings: &mut RingSet, requests: &mut Requests, now: Tsc) -> usize {
        self.reset_backends(requests, now);
        let mut work = self.finish(rings, requests, now);
        while self.active.is_none() && work < BUDGET {
            let Some(mut batch) = self.batch.take() else { break };
            let popped = rings.pop(self.slot, 1, &mut batch);
            if let Some(chain) = batch.chains().first() {
                let ticket = rings.ticket(self.slot, chain);
                self.request(rings, requests, ticket, (batch.readable(chain), batch.writable(chain)), now);
            }
            self.batch = Some(batch);
            work += popped;
            if popped == 0 {
                break;
            }
        }
        if work > 0 {
            rings.publish(self.slot);
        }
        work
    }

    /// A reset that waits for commands, which are all at their backends now, has these reset, once.
    fn reset_backends(&mut self, requests: &mut Requests, now: Tsc) {
        let fence = &self.nexus.fence;
        let waits = |active: &&mut Active| !active.reset && active.sweep.verdict == Verdict::Reset && !active.unit_gone;
        let Some(active) = self.active.as_mut().filter(waits) else { return };
        if fence.is_joined() && fence.result().is_none() {
            active.reset = true;
            requests.reset_backends(active.sweep.scope, now);
        }
    }

    /// Ends the function under way if every shard has acknowledged it, and backends have been reset.
    fn finish(&mut self, rings: &mut RingSet, requests: &Requests, now: Tsc) -> usize {
        let Some(found) = self.active.as_ref().and_then(|_| self.nexus.fence.result()) else { return 0 };
        if requests.resets() > 0 {
            return 0;
        }
        let Some(active) = self.active.take() else { return 0 };
        match active.sweep {
            _ if active.unit_gone => {}
            Sweep { verdict: Verdict::Reset, scope: scope @ Scope::Unit(unit) } => {
                // The initiator learns of the reset, and with it that cached data may be lost.
                if let Some(reset) = requests.map().unit(unit) {
                    reset.bdev.reset();
                    reset.logical_unit.reset_modes();
                }
                requests.attention(scope, UnitAttention::LunReset);
            }
            Sweep { verdict: Verdict::Reset, scope } => requests.attention(scope, UnitAttention::NexusLoss),
            _ => {}
        }
        let query_found = found && active.sweep.verdict == Verdict::Query;
        let code = if query_found { response::FUNCTION_SUCCEEDED } else { response::FUNCTION_COMPLETE };
        self.stats.tmf_duration.record(now.0.saturating_sub(active.since.0));
        self.answer_tmf(rings, active.ticket, active.answer, active.function, code);
        1
    }

    fn request(
        &mut self,
        rings: &mut RingSet,
        requests: &Requests,
        ticket: Ticket,
        (readable, writable): (&[GuestSlice], &[GuestSlice]),
        now: Tsc,
    ) {
        let Some(first) = writable.first() else {
            self.stats.no_response_room.add(1);
            return rings.complete(ticket, 0);
        };
        match data::gather::<4>(readable).map(u32::from_le_bytes) {
            Some(control::TMF) => match data::gather::<{ control::TMF_LEN }>(readable) {
                Some(bytes) => self.tmf(rings, requests, ticket, *first, &Tmf::parse(&bytes), now),
                None => self.fail(rings, ticket, writable),
            },
            Some(control::AN_QUERY | control::AN_SUBSCRIBE) => match data::gather::<{ control::AN_LEN }>(readable) {
                Some(bytes) if total(writable) >= control::AN_RESPONSE_LEN => {
                    self.notification(rings, requests, ticket, writable, &bytes);
                }
                _ => self.fail(rings, ticket, writable),
            },
            _ => self.fail(rings, ticket, writable),
        }
    }

    /// R13: nothing is left unanswered. The response byte is the last one of what the driver gave, zeroes come before it.
    fn fail(&self, rings: &mut RingSet, ticket: Ticket, writable: &[GuestSlice]) {
        self.stats.responses[usize::from(response::FAILURE)].add(1);
        let length = total(writable);
        // virtio 1.3 §2.7.8.2: what is told as written has been written, from the first byte on.
        let zeroed = length <= ZEROED_MAX;
        let mut before = length - 1;
        for slice in writable {
            let (front, rest) = slice.split_at(before.min(slice.len()));
            if zeroed {
                front.fill(0);
            }
            if rest.write(&[response::FAILURE]) == 1 {
                break;
            }
            before -= front.len();
        }
        rings.complete(ticket, if zeroed { length as u32 } else { 0 });
    }

    /// No asynchronous event is ever reported (R13).
    fn notification(
        &self,
        rings: &mut RingSet,
        requests: &Requests,
        ticket: Ticket,
        writable: &[GuestSlice],
        bytes: &[u8; control::AN_LEN],
    ) {
        let lun: &[u8; 8] = bytes[4..].first_chunk().expect("12 bytes are left");
        let known = Address::parse(lun).and_then(|address| requests.map().find(address)).is_some();
        let code = if known { response::OK } else { response::BAD_TARGET };
        self.stats.responses[usize::from(code)].add(1);
        data::scatter(writable, &[0, 0, 0, 0, code]);
        rings.complete(ticket, control::AN_RESPONSE_LEN as u32);
    }

    fn tmf(
        &mut self,
        rings: &mut RingSet,
        requests: &Requests,
        ticket: Ticket,
        answer: GuestSlice,
        tmf: &Tmf,
        now: Tsc,
    ) {
        let function = usize::try_from(tmf.subtype).unwrap_or(usize::MAX).min(TMF_NAMES.len() - 1);
        match plan(requests, tmf) {
            Err(code) => self.answer_tmf(rings, ticket, answer, function, code),
            Ok(sweep) => {
                self.active =
                    Some(Active { ticket, answer, function, sweep, unit_gone: false, reset: false, since: now });
                self.nexus.raise(sweep);
            }
        }
    }

    fn answer_tmf(&self, rings: &mut RingSet, ticket: Ticket, answer: GuestSlice, function: usize, code: u8) {
        self.stats.tmfs[function][usize::from(code)].add(1);
        answer.write(&[code]);
        rings.complete(ticket, 1);
    }
}

impl Tmf {
    fn parse(bytes: &[u8; control::TMF_LEN]) -> Tmf {
        let (_, rest) = bytes.split_first_chunk::<4>().expect("24 bytes");
        let (subtype, rest) = rest.split_first_chunk::<4>().expect("20 bytes");
        let (lun, rest) = rest.split_first_chunk::<8>().expect("16 bytes");
        let tag = rest.first_chunk::<8>().expect("8 bytes");
        Tmf { subtype: u32::from_le_bytes(*subtype), lun: *lun, tag: u64::from_le_bytes(*tag) }
    }
}

/// R08: what the function is to do, or the response if there is nothing to do.
fn plan(requests: &Requests, tmf: &Tmf) -> Result<Sweep, u8> {
    let verdict = match tmf.subtype {
        subtype::ABORT_TASK | subtype::ABORT_TASK_SET | subtype::CLEAR_TASK_SET => Verdict::Abort,
        subtype::I_T_NEXUS_RESET | subtype::LOGICAL_UNIT_RESET => Verdict::Reset,
        subtype::QUERY_TASK | subtype::QUERY_TASK_SET => Verdict::Query,
        subtype::CLEAR_ACA => return Err(response::FUNCTION_REJECTED),
        _ => return Err(response::FUNCTION_REJECTED),
    };
    let address = Address::parse(&tmf.lun).ok_or(response::BAD_TARGET)?;
    let addressee = requests.map().find(address).ok_or(response::BAD_TARGET)?;
    let scope = match (addressee, address, tmf.subtype) {
        (Addressee::ReportLuns { .. }, ..) => return Err(response::FUNCTION_COMPLETE),
        (_, Address::Unit { target, .. }, subtype::I_T_NEXUS_RESET) => Scope::Target(target),
        (Addressee::Absent { .. }, ..) => return Err(response::INCORRECT_LUN),
        (Addressee::Unit(unit), _, subtype::ABORT_TASK | subtype::QUERY_TASK) => Scope::Task { unit, tag: tmf.tag },
        (Addressee::Unit(unit), ..) => Scope::Unit(unit),
    };
    Ok(Sweep { scope, verdict })
}

fn total(slices: &[GuestSlice]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}
