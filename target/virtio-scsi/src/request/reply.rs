//! How a request ends: the bytes of its response, its used entry, and what is counted of it.

use vhost_user::{RingSet, Ticket};

use super::{Held, Reply, Request, Requests};
use crate::data;
use crate::fence::{UnitIndex, Verdict};
use crate::pending::Kind;
use crate::wire::{REQUEST_LEN, RESPONSE_HEADER_LEN, RESPONSE_LEN, check_condition, response, response_header, status};

impl Requests {
    /// Ends a command that holds a slot.
    #[inline(always)]
    pub(super) fn finish(
        &mut self,
        rings: &mut RingSet,
        ticket: Ticket,
        request: &Request<'_>,
        reply: &Reply,
        held: Held,
    ) {
        let Held { unit, slot, kind } = held;
        let state = &mut self.units[usize::from(unit)];
        match kind {
            Kind::Read => state.tally.reads += 1,
            Kind::Write => state.tally.writes += 1,
            Kind::Verify | Kind::Other => state.tally.others += 1,
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
    pub(super) fn refuse(&mut self, rings: &mut RingSet, ticket: Ticket, request: &Request<'_>, code: u8) {
        self.answer(rings, ticket, request, &Reply::Transport(code), None);
    }

    /// Writes the response and completes the chain.
    #[inline(never)]
    pub(super) fn answer(
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
    pub(super) fn write_reply(
        &mut self,
        reply: &Reply,
        data: u64,
        unit: Option<UnitIndex>,
        write: impl FnOnce(&[u8]),
    ) -> u32 {
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
                self.stats.sense_keys[usize::from(sense.code().0 & 0xf)].add(1);
                let mut descriptor_format = false;
                if let Some(unit) = unit {
                    self.stats.units[usize::from(unit)].errors.add(1);
                    descriptor_format = self.units[usize::from(unit)].unit.logical_unit.descriptor_sense();
                }
                let (bytes, len) = check_condition(&sense, descriptor_format, saturate(data));
                write(&bytes[..len]);
                len as u32
            }
        }
    }

    /// R12: less room than a whole response. A header still fits in 12 bytes; below that only a bare used entry is left.
    #[cold]
    pub(super) fn answer_short(&mut self, rings: &mut RingSet, ticket: Ticket, request: &Request<'_>) {
        if request.chain.writable_bytes < RESPONSE_HEADER_LEN as u64 {
            self.stats.no_response_room.add(1);
            return rings.complete(ticket, 0);
        }
        self.refuse(rings, ticket, request, response::FAILURE);
    }
}

/// Bytes of the chain that count as written when a command ended well.
#[inline(always)]
pub(super) fn used_len(data_in: u64) -> u32 {
    if data_in == 0 { RESPONSE_HEADER_LEN as u32 } else { saturate(RESPONSE_LEN as u64 + data_in) }
}

/// Data bytes that the buffers hold behind the headers.
#[inline]
pub(super) fn data_bytes(request: &Request<'_>) -> u64 {
    request.chain.readable_bytes.saturating_sub(REQUEST_LEN as u64)
        + request.chain.writable_bytes.saturating_sub(RESPONSE_LEN as u64)
}

#[inline]
pub(super) fn saturate(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// R08: what a command gets that a task management function ended.
pub(super) fn verdict_response(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Abort => response::ABORTED,
        Verdict::Reset => response::RESET,
        Verdict::Query => unreachable!("a query ends no command"),
    }
}
