//! Commands that wait for their backend. A slab that is allocated as it grows and then reused: a steady load allocates
//! nothing.

use bdev::{BlockRuns, Op, Token};
use guest_memory::GuestSlice;
use reactor::Tsc;
use scsi::LbaStatusQuery;
use vhost_user::Ticket;

use crate::fence::{Scope, UnitIndex, Verdict};
use crate::limits::CommandSlot;
use crate::wire::{RESPONSE_HEADER_LEN, RESPONSE_LEN};

/// What a command in flight does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    /// Reads the medium, and moves nothing of it.
    Verify,
    Other,
}

/// A command in flight at a backend: everything that its end needs.
#[derive(Debug)]
pub(crate) struct Pending {
    pub ticket: Ticket,
    pub slot: CommandSlot,
    pub unit: UnitIndex,
    pub target: u8,
    pub tag: u64,
    pub kind: Kind,
    /// Bytes that move if it ends well.
    pub bytes: u64,
    /// Data bytes of the buffers that stay unused if it ends well.
    pub residual: u32,
    pub since: Tsc,
    /// Whether younger commands wait for it (R10).
    pub barrier: bool,
    /// What a task management function has said of it.
    pub verdict: Option<Verdict>,
    /// What is left to do if it ends well so far. Boxed: only rare commands have more than one step.
    pub next: Option<Box<Next>>,
    pub response: ResponseArea,
}

impl Pending {
    /// A READ or WRITE that uses all of its buffers, that no task management function and no other command waits for, and that is
    /// over if it ends well.
    #[inline]
    fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Read | Kind::Write)
            && self.residual == 0
            && !self.barrier
            && self.verdict.is_none()
            && self.next.is_none()
            && self.response.rest.is_empty()
    }
}

/// The second step of a command.
#[derive(Debug)]
pub(crate) enum Next {
    /// An operation on the same unit: what was written is read back, or flushed.
    Io { op: Op, lba: u64, blocks: u32, buffers: Vec<GuestSlice> },
    /// GET LBA STATUS: what was found is told, in these buffers, which hold that many bytes.
    Tell { query: LbaStatusQuery, runs: BlockRuns, buffers: Vec<GuestSlice>, room: u64 },
}

/// Where the response goes: the first writable bytes of the chain.
#[derive(Debug)]
pub(crate) struct ResponseArea {
    first: GuestSlice,
    /// Only for drivers that cut the response in pieces; empty, and so without memory, for all others.
    rest: Vec<GuestSlice>,
}

impl ResponseArea {
    pub(crate) fn of(writable: &[GuestSlice]) -> ResponseArea {
        let (first, rest) = writable.split_first().expect("the response area was checked");
        first.prefetch_write(); // the driver has it, and the command takes longer than the line
        let rest = if first.len() >= RESPONSE_LEN { Vec::new() } else { rest.to_vec() };
        ResponseArea { first: *first, rest }
    }

    /// A whole one.
    #[inline]
    pub(crate) fn whole(area: GuestSlice) -> ResponseArea {
        area.prefetch_write(); // as above
        ResponseArea { first: area, rest: Vec::new() }
    }

    #[inline(always)]
    pub(crate) fn write(&self, bytes: &[u8]) {
        if self.rest.is_empty() {
            // Nearly all are of this length, which the compiler then knows.
            let header = <[u8; RESPONSE_HEADER_LEN]>::try_from(bytes);
            if !header.is_ok_and(|header| self.first.write_array(header)) {
                self.first.write(bytes);
            }
        } else {
            let (front, back) = bytes.split_at(self.first.len().min(bytes.len()));
            self.first.write(front);
            crate::data::scatter(&self.rest, back);
        }
    }
}

/// The slab.
#[derive(Debug, Default)]
pub(crate) struct PendingTable {
    entries: Vec<Option<Pending>>,
    free: Vec<u32>,
}

impl PendingTable {
    /// The token that the next [`PendingTable::insert`] will use.
    pub(crate) fn next_token(&self) -> Token {
        Token(u64::from(self.free.last().copied().unwrap_or(self.entries.len() as u32)))
    }

    /// Inlined, so that each field is written once, to its place.
    #[inline(always)]
    pub(crate) fn insert(&mut self, pending: Pending) {
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => self.grow(),
        };
        self.entries[index] = Some(pending);
    }

    #[cold]
    fn grow(&mut self) -> usize {
        self.entries.push(None);
        // Room for its way back, so that completing never allocates.
        self.free.reserve(self.entries.len());
        self.entries.len() - 1
    }

    /// Says of the command with this token whether younger ones wait for it, and since when it has been in the task set.
    pub(crate) fn set_order(&mut self, token: Token, barrier: bool, since: Tsc) {
        if let Some(Some(pending)) = self.entries.get_mut(token.0 as usize) {
            pending.barrier = barrier;
            pending.since = since;
        }
    }

    /// The command with this token; `None` if there is none, which would be the backend's mistake.
    #[inline(always)]
    pub(crate) fn remove(&mut self, token: Token) -> Option<Pending> {
        let index = usize::try_from(token.0).ok()?;
        let pending = self.entries.get_mut(index)?.take()?;
        self.free.push(index as u32);
        Some(pending)
    }

    /// As [`PendingTable::remove`], if the command is a plain one.
    #[inline(always)]
    pub(crate) fn remove_plain(&mut self, token: Token) -> Option<Pending> {
        let entry = self.entries.get_mut(usize::try_from(token.0).ok()?)?;
        let pending = entry.take_if(|pending| pending.is_plain())?;
        self.free.push(token.0 as u32);
        Some(pending)
    }

    /// Commands of one unit and queue.
    pub(crate) fn count(&self, unit: UnitIndex, ring: usize) -> u32 {
        let of = |pending: &&Pending| pending.unit == unit && pending.ticket.slot() == ring;
        self.entries.iter().flatten().filter(of).count() as u32
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Passes a task management function's verdict on every command in its scope. Returns how many there are; `judged` is
    /// called for each that is to end, with its unit and its token at the backend.
    pub(crate) fn judge(
        &mut self,
        scope: Scope,
        verdict: Verdict,
        mut judged: impl FnMut(&Ticket, UnitIndex, Token),
    ) -> u32 {
        let mut count = 0;
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let in_scope = |pending: &&mut Pending| covers(scope, pending.unit, pending.target, pending.tag);
            let Some(pending) = entry.as_mut().filter(in_scope) else { continue };
            count += 1;
            if verdict != Verdict::Query {
                pending.verdict = Some(verdict);
                judged(&pending.ticket, pending.unit, Token(index as u64));
            }
        }
        count
    }
}

/// Whether a command is in the scope of a task management function.
pub(crate) fn covers(scope: Scope, unit: UnitIndex, target: u8, tag: u64) -> bool {
    match scope {
        Scope::Task { unit: wanted, tag: wanted_tag } => (unit, tag) == (wanted, wanted_tag),
        Scope::Unit(wanted) => unit == wanted,
        Scope::Target(wanted) => target == wanted,
    }
}
