//! The poller's half of a channel: requests become SPDK's, one or several each, and their ends become completions.
//!
//! A request is in exactly one place: at SPDK, with at least one part there; `starved`, waiting for a buffer of the pool; or in
//! `ended`, for the next poll to tell. Nearly all are reads and writes that SPDK does as they are: of those nothing is kept
//! here.

use std::collections::VecDeque;
use std::iter;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bdev::scatter::{first_difference, part};
use bdev::{Completion, Geometry, Io, Op, ResetWatch, Status, Submitted, Token};
use guest_memory::GuestSlice;
use reactor::clock::Tsc;
use spdk_rs::{Buffer, Buffers, Command, Errno, Finished, IoChannel, Outcome, Piece, Tag, Thread};

use crate::bdev::Shared;
use crate::counters::ChannelCounters;
use crate::memory::View;
use crate::poller;
use crate::request::Request;
use crate::status::{self, Doing};
use crate::turns::Turns;

pub(crate) struct Lane {
    channel: IoChannel,
    /// The bdev is memory, which it lends for reads and writes: data moves by the processor, from and to any buffers.
    lent: bool,
    thread: Thread,
    shared: Arc<Shared>,
    memory: View,
    /// Opened when it is needed first.
    pool: Option<Buffers>,
    /// It could not be opened, and that was said.
    pool_refused: bool,
    requests: Vec<Request>,
    vacant: Vec<u32>,
    starved: VecDeque<u32>,
    ended: Vec<Completion>,
    /// What SPDK has finished, while it is dealt with.
    finished: Vec<Finished>,
    counters: Arc<ChannelCounters>,
    /// Of the poller.
    turns: Rc<Turns>,
    resets: ResetWatch,
    waits: u64,
}

/// Why there is no channel.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum NoLane {
    #[error("this thread does not poll SPDK")]
    NoThread,
    #[error("the bdev is closed")]
    Closed,
    /// For now: memory, or a device that is being reset.
    #[error("SPDK opens none: {0}")]
    Refused(Errno),
}

impl NoLane {
    /// How a request is answered that would have needed one.
    pub(crate) fn status(self) -> Status {
        match self {
            NoLane::NoThread | NoLane::Closed => Status::Gone,
            NoLane::Refused(_) => Status::Busy,
        }
    }
}

impl Lane {
    /// Opens a channel of SPDK's on the calling thread.
    ///
    /// # Errors
    /// See [`NoLane`].
    pub(crate) fn open(shared: &Arc<Shared>, counters: &Arc<ChannelCounters>) -> Result<Lane, NoLane> {
        let (thread, turns) = poller::here().ok_or(NoLane::NoThread)?;
        let descriptor = shared.descriptor().ok_or(NoLane::Closed)?;
        let mut channel = IoChannel::open(&thread, &descriptor).map_err(NoLane::Refused)?;
        let lent = channel.move_by(move_lent);
        turns.opened();
        Ok(Lane {
            channel,
            lent,
            thread,
            memory: View::new(&shared.memory),
            shared: Arc::clone(shared),
            pool: None,
            pool_refused: false,
            requests: (0..USUAL).map(|_| Request::vacant()).collect(),
            vacant: (0..USUAL).rev().collect(),
            starved: VecDeque::new(),
            ended: Vec::with_capacity(USUAL as usize),
            finished: Vec::with_capacity(USUAL as usize),
            counters: Arc::clone(counters),
            turns,
            resets: shared.resets.watch(),
            waits: 0,
        })
    }

    /// Whether the last request has ended; completions are for nobody any more.
    pub(crate) fn is_over(&mut self) -> bool {
        self.advance();
        self.ended.clear();
        self.channel.outstanding() == 0 && self.requests.len() == self.vacant.len()
    }

    /// The SPDK thread that it lives on.
    pub(crate) fn thread(&self) -> &Thread {
        &self.thread
    }

    #[inline]
    pub(crate) fn submit(&mut self, io: &Io<'_>) -> Submitted {
        if let Some(status) = self.refusal(io) {
            return Submitted::Done(status);
        }
        match io.op {
            Op::Read => self.straight(io, Command::Read, READ),
            Op::Write { fua } if !(fua && self.shared.cached) => self.straight(io, Command::Write, WRITE),
            _ => self.keep(io),
        }
    }

    /// A read or a write that is one request of SPDK's, if its data is where SPDK can take it.
    #[inline]
    fn straight(&mut self, io: &Io<'_>, command: Command, note: u32) -> Submitted {
        if !self.reaches(io.buffers) {
            return self.keep(io);
        }
        let tag = Tag { token: io.token.0, note };
        let buffers = io.buffers.iter().copied();
        match self.hand_over(command, io.lba, u64::from(io.blocks), tag, buffers, iter::empty()) {
            Ok(()) => Submitted::Pending,
            Err(status) => Submitted::Done(status),
        }
    }

    /// Whether the data of a read or write can move without the pool, which is then counted.
    #[inline]
    fn reaches(&mut self, buffers: &[GuestSlice]) -> bool {
        if self.lent {
            self.counters.lent.add(1);
            return true;
        }
        let straight = self.goes_straight(buffers);
        if straight {
            self.counters.direct.add(1);
        }
        straight
    }

    /// Whether SPDK can take the data where it is. It would move what is not aligned itself, but no more of it than one buffer holds.
    #[inline]
    fn goes_straight(&mut self, buffers: &[GuestSlice]) -> bool {
        let mask = self.shared.alignment_mask;
        let aligned = |slice: &GuestSlice| (slice.as_ptr().addr() | slice.len()) & mask == 0;
        self.memory.covers(buffers) && (mask == 0 || buffers.iter().all(aligned))
    }

    /// Any request: what it has come to is kept here.
    #[inline(never)]
    fn keep(&mut self, io: &Io<'_>) -> Submitted {
        let Some(index) = self.vacant.pop().or_else(|| self.grow()) else { return Submitted::Done(Status::Busy) };
        self.requests[index as usize].begin(io, self.shared.cached);
        let begun = match io.op {
            Op::Read | Op::Write { .. } => self.transfer(index, io),
            Op::CompareAndWrite { .. } => self.compare_and_write(index, io),
            Op::Flush => self.flush(index, io),
            Op::Unmap => self.unmap(index, io),
            Op::WriteZeroes { .. } => {
                self.start(index, Command::WriteZeroes, io.lba, u64::from(io.blocks), iter::empty(), iter::empty())
            }
            Op::Reset => self.reset(index),
            _ => self.through_pool(index, io),
        };
        match begun {
            Ok(()) => Submitted::Pending,
            Err(status) => {
                self.vacant.push(index);
                Submitted::Done(status)
            }
        }
    }

    /// What can be said of a request at once.
    #[inline]
    fn refusal(&self, io: &Io<'_>) -> Option<Status> {
        let shared = &self.shared;
        if shared.removed.load(Ordering::Relaxed) {
            return Some(Status::Gone);
        }
        if !shared.info.can.include(io.op) {
            return Some(Status::Unsupported);
        }
        if shared.info.read_only && io.op.writes() {
            return Some(Status::WriteProtected);
        }
        let geometry = shared.geometry();
        let nothing = match io.op {
            Op::Flush => !shared.flushes,
            Op::Reset => false,
            Op::Unmap if !geometry.holds_extents(io.extents) => return Some(Status::OutOfRange),
            Op::Unmap => io.extents.iter().all(|extent| extent.blocks == 0),
            _ => match geometry.span(io) {
                Ok((_, length)) => length == 0,
                Err(status) => return Some(status),
            },
        };
        nothing.then_some(Status::Good)
    }

    #[cold]
    fn grow(&mut self) -> Option<u32> {
        let index = u32::try_from(self.requests.len()).ok().filter(|&index| index < REQUESTS_MAX)?;
        self.requests.push(Request::vacant());
        self.vacant.reserve(self.requests.len()); // its way back must not allocate
        Some(index)
    }

    /// Begins a part of a request that is kept here.
    #[inline]
    fn start(
        &mut self,
        index: u32,
        command: Command,
        lba: u64,
        blocks: u64,
        buffers: impl Iterator<Item = GuestSlice>,
        second: impl Iterator<Item = GuestSlice>,
    ) -> Result<(), Status> {
        let tag = Tag { token: 0, note: index };
        self.hand_over(command, lba, blocks, tag, buffers, second)?;
        self.requests[index as usize].parts += 1;
        Ok(())
    }

    /// Gives SPDK a request.
    #[inline]
    fn hand_over(
        &mut self,
        command: Command,
        lba: u64,
        blocks: u64,
        tag: Tag,
        buffers: impl Iterator<Item = GuestSlice>,
        second: impl Iterator<Item = GuestSlice>,
    ) -> Result<(), Status> {
        let address = |slice: GuestSlice| (slice.as_ptr(), slice.len());
        self.turns.given();
        // SAFETY: buffers of a guest stay mapped until the request completes (a promise of `bdev::IoChannel::submit`'s caller), and
        // those of the pool are the request's until then. A channel that is dropped earlier is kept by its poller (`is_over`).
        let started =
            unsafe { self.channel.start(command, lba, blocks, tag, buffers.map(address), second.map(address)) };
        started.map_err(|errno: Errno| status::of_errno(errno))
    }

    /// A request with data: as it is, or through the pool.
    #[inline]
    fn transfer(&mut self, index: u32, io: &Io<'_>) -> Result<(), Status> {
        if !self.reaches(io.buffers) {
            self.counters.bounced.add(1);
            return self.through_pool(index, io);
        }
        let command = if io.op == Op::Read { Command::Read } else { Command::Write };
        self.start(index, command, io.lba, u64::from(io.blocks), io.buffers.iter().copied(), iter::empty())
    }

    /// The buffers are kept: if there is a difference they are looked at again.
    #[cold]
    fn compare_and_write(&mut self, index: u32, io: &Io<'_>) -> Result<(), Status> {
        let way = if self.goes_straight(io.buffers) { &self.counters.direct } else { &self.counters.bounced };
        way.add(1);
        self.requests[index as usize].keep(io.buffers);
        self.start_compare_and_write(index)
    }

    fn start_compare_and_write(&mut self, index: u32) -> Result<(), Status> {
        let request = &mut self.requests[index as usize];
        let (lba, blocks) = (request.lba, request.blocks);
        let half = blocks * u64::from(self.shared.info.block_size);
        let buffers = mem::take(&mut request.buffers);
        let straight = self.goes_straight(&buffers);
        let (first, second) = (part(&buffers, 0, half), part(&buffers, half, half));
        let started = straight.then(|| self.start(index, Command::CompareAndWrite, lba, blocks, first, second));
        self.requests[index as usize].buffers = buffers;
        started.unwrap_or_else(|| {
            self.open_pool()?;
            self.next_piece(index)
        })
    }

    /// SPDK says that data differs, and not where; it says so, too, of data that it could not read. The blocks are read and
    /// compared: what is found then is what a compare-and-write at that moment would have found.
    #[cold]
    fn look_where(&mut self, index: u32) -> Result<(), Status> {
        self.give_back(index);
        self.requests[index as usize].look();
        self.open_pool()?;
        self.next_piece(index)
    }

    /// A comparison is over, and everything is the same. One that looked for a difference has been overtaken by a write, and
    /// what it belongs to is done again.
    #[cold]
    fn same(&mut self, index: u32) -> Option<Result<(), Status>> {
        let request = &mut self.requests[index as usize];
        if !request.found_nothing() {
            return None;
        }
        if request.in_vain == IN_VAIN_MAX {
            return Some(Err(Status::Busy)); // nothing was written
        }
        Some(self.start_compare_and_write(index))
    }

    /// A request whose data is not where SPDK could take it, or that SPDK does not have: data is compared here, and a block that
    /// is to be written many times is repeated here.
    #[cold]
    fn through_pool(&mut self, index: u32, io: &Io<'_>) -> Result<(), Status> {
        self.open_pool()?;
        self.requests[index as usize].keep(io.buffers);
        self.next_piece(index)
    }

    fn open_pool(&mut self) -> Result<(), Status> {
        if self.pool.is_some() {
            return Ok(());
        }
        match Buffers::open(&self.thread) {
            Ok(pool) => {
                self.pool = Some(pool);
                Ok(())
            }
            Err(error) => {
                // The guest tries again, and then it is not said again.
                if !mem::replace(&mut self.pool_refused, true) {
                    tracing::error!(bdev = %self.shared.info.name, "requests are answered busy: {error}");
                }
                Err(Status::Busy)
            }
        }
    }

    /// Sends the next piece of a request through the pool, or has it wait for a buffer.
    fn next_piece(&mut self, index: u32) -> Result<(), Status> {
        if !self.send_piece(index)? {
            self.counters.starved.add(1);
            self.starved.push_back(index);
        }
        Ok(())
    }

    /// Sends the next piece of a request through the pool. False, and nothing is held, if the pool has no buffer for it.
    fn send_piece(&mut self, index: u32) -> Result<bool, Status> {
        let Some(pool) = &mut self.pool else { return Err(Status::Failed) };
        let block = u64::from(self.shared.info.block_size);
        let request = &mut self.requests[index as usize];
        let bytes = request.blocks * block;
        let largest = pool.len_max() as u64 / block * block;
        // Both halves of a compare-and-write go at once, a buffer each.
        let halves = matches!(request.op, Op::CompareAndWrite { .. });
        if halves && bytes > largest {
            return Err(Status::Failed); // the info bounds it, unless SPDK's buffers were made smaller than usual
        }
        let (wanted, buffers_max) = if halves { (2 * bytes, 2) } else { (bytes - request.done, PIECE_BUFFERS) };
        let mut room = 0;
        while request.pool.len() < buffers_max && room < wanted {
            let len = if halves { bytes } else { (wanted - room).min(largest) };
            let Some(buffer) = pool.take(len as usize) else { break };
            request.pool.push(buffer);
            room += len;
        }
        if room == 0 || halves && room < wanted {
            request.pool.drain(..).for_each(|buffer| pool.give(buffer));
            return Ok(false);
        }
        request.piece = room;
        let each = if halves { bytes } else { largest };
        self.start_piece(index, block, each, halves).map(|()| true)
    }

    /// The buffers of the pool are `each` bytes long, but for the last one.
    fn start_piece(&mut self, index: u32, block: u64, each: u64, halves: bool) -> Result<(), Status> {
        let request = &self.requests[index as usize];
        let mut pieces = [GuestSlice::EMPTY; PIECE_BUFFERS];
        let mut left = request.piece;
        for (slice, buffer) in pieces.iter_mut().zip(&request.pool) {
            *slice = show(buffer, each.min(left) as usize);
            left -= slice.len() as u64;
        }
        let pieces = &pieces[..request.pool.len()];
        let to = pieces.iter().copied();
        let command = match request.op {
            Op::Write { .. } | Op::CompareAndWrite { .. } => {
                copy(part(&request.buffers, request.done, request.piece), to);
                if halves { Command::CompareAndWrite } else { Command::Write }
            }
            Op::WriteSame => {
                to.for_each(|slice| repeat(&request.buffers, slice, block as usize));
                Command::Write
            }
            _ => Command::Read,
        };
        let blocks = if halves { request.blocks } else { request.piece / block };
        let lba = request.lba + request.done / block;
        let (first, second) = if halves { pieces.split_at(1) } else { (pieces, &[][..]) };
        let started = self.start(index, command, lba, blocks, first.iter().copied(), second.iter().copied());
        if started.is_err() {
            self.give_back(index);
        }
        started
    }

    fn give_back(&mut self, index: u32) {
        if let Some(pool) = &mut self.pool {
            self.requests[index as usize].pool.drain(..).for_each(|buffer| pool.give(buffer));
        }
    }

    /// No blocks is all from the first one on.
    fn flush(&mut self, index: u32, io: &Io<'_>) -> Result<(), Status> {
        let end = self.shared.geometry().block_count();
        let lba = io.lba.min(end - 1);
        let blocks = if io.blocks == 0 { end - lba } else { u64::from(io.blocks).min(end - lba) };
        self.start(index, Command::Flush, lba, blocks, iter::empty(), iter::empty())
    }

    /// Extents go one after the other: SPDK splits what is large, and a guest may send many.
    fn unmap(&mut self, index: u32, io: &Io<'_>) -> Result<(), Status> {
        let extents = &mut self.requests[index as usize].extents;
        extents.clear();
        extents.extend(io.extents.iter().rev().filter(|extent| extent.blocks > 0));
        self.next_extent(index)
    }

    fn next_extent(&mut self, index: u32) -> Result<(), Status> {
        let Some(extent) = self.requests[index as usize].extents.pop() else { return Ok(()) };
        self.start(index, Command::Unmap, extent.lba, u64::from(extent.blocks), iter::empty(), iter::empty())
    }

    /// What SPDK's bdev keeps ends by SPDK's reset, on whichever channel it is. What waits here, or has more steps to go, is given up
    /// by each channel before it polls again.
    #[cold]
    fn reset(&mut self, index: u32) -> Result<(), Status> {
        self.shared.resets.begin();
        self.give_up_all();
        self.requests[index as usize].status = Status::Good;
        self.start(index, Command::Reset, 0, 0, iter::empty(), iter::empty())
    }

    /// The bdev is reset: no request takes another step.
    #[cold]
    fn give_up_all(&mut self) {
        self.resets.was_reset();
        self.channel.give_up_waiting();
        self.requests.iter_mut().for_each(Request::give_up);
        while let Some(index) = self.starved.pop_front() {
            self.end(index, Status::Aborted);
        }
    }

    /// Gives a request up, as far as SPDK's bdev can.
    #[cold]
    pub(crate) fn abort(&mut self, token: Token) {
        let index = self.kept(token);
        if let Some(index) = index {
            self.requests[index as usize].give_up();
            if let Some(at) = self.starved.iter().position(|&starved| starved == index) {
                self.starved.remove(at);
                return self.end(index, Status::Aborted);
            }
        }
        self.turns.given();
        self.channel.abort(Tag { token: 0, note: ABORT }, |tag| match (index, tag.note) {
            (None, READ | WRITE) => tag.token == token.0,
            (Some(index), note) => note == index,
            _ => false,
        });
    }

    /// The place of a request, if it is one that is kept here.
    fn kept(&self, token: Token) -> Option<u32> {
        let is = |index: &u32| self.requests[*index as usize].token == token && !self.vacant.contains(index);
        (0..self.requests.len() as u32).find(is)
    }

    /// Pushes what has ended since the last call, in the loop that began at `now`.
    #[inline]
    pub(crate) fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        if self.resets.was_reset() {
            self.give_up_all();
        }
        if self.turns.is_due(now) {
            self.turns.take(now);
            self.thread.poll_at(now.0);
        }
        self.advance();
        let count = self.ended.len();
        done.append(&mut self.ended);
        count
    }

    #[inline]
    fn advance(&mut self) {
        let (ended, finished, shared) = (&mut self.ended, &mut self.finished, &self.shared);
        self.channel.finished(|one| {
            let doing = match one.tag.note {
                READ => Doing::Reading,
                WRITE => Doing::Writing,
                _ => return finished.push(one),
            };
            let status = match one.outcome {
                Outcome::Good => Status::Good,
                other => status::of(other, doing, shared.removed.load(Ordering::Relaxed)),
            };
            ended.push(Completion { token: Token(one.tag.token), status });
        });
        if !self.finished.is_empty() {
            self.advance_kept();
        }
        let waits = self.channel.waits();
        if waits != self.waits {
            self.counters.waited.add(waits - self.waits);
            self.waits = waits;
        }
        if !self.starved.is_empty() {
            self.feed();
        }
    }

    fn advance_kept(&mut self) {
        let mut finished = mem::take(&mut self.finished);
        for one in finished.drain(..).filter(|one| one.tag.note != ABORT) {
            self.part_finished(&one);
        }
        self.finished = finished;
    }

    /// Those that wait for the pool try again, up to the first that it still has nothing for: nobody overtakes it.
    #[cold]
    fn feed(&mut self) {
        while let Some(&index) = self.starved.front() {
            let sent = self.send_piece(index);
            if sent == Ok(false) {
                return;
            }
            self.starved.pop_front();
            if let Err(status) = sent {
                self.end(index, status);
            }
        }
    }

    #[inline]
    fn part_finished(&mut self, finished: &Finished) {
        let index = finished.tag.note;
        let removed = self.shared.removed.load(Ordering::Relaxed);
        let request = &mut self.requests[index as usize];
        let doing =
            if matches!(request.op, Op::Read | Op::Compare | Op::Verify) { Doing::Reading } else { Doing::Writing };
        request.part_ended(status::of(finished.outcome, doing, removed));
        if request.parts > 0 {
            return;
        }
        let (status, looks) = (request.status, request.looking.is_some());
        match status {
            Status::Good if self.goes_on(index) => {}
            Status::Miscompare { .. } if !looks => {
                if let Err(status) = self.look_where(index) {
                    self.end(index, status);
                }
            }
            status => self.end(index, status),
        }
    }

    /// Whether there is more of the request to be done, which has begun then.
    #[inline]
    fn goes_on(&mut self, index: u32) -> bool {
        let request = &mut self.requests[index as usize];
        let block = u64::from(self.shared.info.block_size);
        let next = if !request.pool.is_empty() {
            let each = self.pool.as_ref().map_or(0, |pool| pool.len_max() as u64 / block * block);
            match request.op {
                Op::Read => scatter(request, each),
                Op::Compare => request.status = compare(request, each),
                _ => {}
            }
            request.done += request.piece;
            let (status, over) = (request.status, request.done >= request.blocks * block);
            self.give_back(index);
            match status {
                Status::Good if over => self.same(index),
                Status::Good => Some(self.next_piece(index)),
                other => Some(Err(other)),
            }
        } else if !request.extents.is_empty() {
            Some(self.next_extent(index))
        } else {
            None
        };
        let next = next.or_else(|| {
            let request = &mut self.requests[index as usize];
            let (lba, blocks) = (request.lba, request.blocks);
            let flush = mem::take(&mut request.durable);
            flush.then(|| self.start(index, Command::Flush, lba, blocks, iter::empty(), iter::empty()))
        });
        match next {
            None => false,
            Some(Ok(())) => true,
            Some(Err(status)) => {
                self.end(index, status);
                true
            }
        }
    }

    #[inline]
    fn end(&mut self, index: u32, status: Status) {
        self.give_back_if_any(index);
        let token = self.requests[index as usize].token;
        self.ended.push(Completion { token, status });
        self.vacant.push(index);
    }

    #[inline]
    fn give_back_if_any(&mut self, index: u32) {
        if !self.requests[index as usize].pool.is_empty() {
            self.give_back(index);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.turns.closed();
    }
}

/// The first `len` bytes of a buffer of the pool.
fn show(buffer: &Buffer, len: usize) -> GuestSlice {
    // SAFETY: the request holds the buffer for as long as it uses the slice, and nobody has a reference to its bytes.
    unsafe { GuestSlice::from_raw(buffer.address(), len.min(buffer.capacity())) }
}

/// The buffers of the pool with the piece of a request that is there, and where in its data each begins. All are `each` bytes
/// long but for the last.
fn shown(request: &Request, each: u64) -> impl Iterator<Item = (u64, GuestSlice)> + '_ {
    let starts = (request.done..request.done + request.piece).step_by(each.max(1) as usize);
    let end = request.done + request.piece;
    starts.zip(&request.pool).map(move |(at, buffer)| (at, show(buffer, each.min(end - at) as usize)))
}

/// From the pool to the guest.
fn scatter(request: &Request, each: u64) {
    for (at, slice) in shown(request, each) {
        copy(iter::once(slice), part(&request.buffers, at, slice.len() as u64));
    }
}

/// Whether what was read is what the guest has.
fn compare(request: &Request, each: u64) -> Status {
    for (at, slice) in shown(request, each) {
        if let Some(offset) = first_difference(slice, part(&request.buffers, at, slice.len() as u64)) {
            return Status::Miscompare { offset: u32::try_from(at).unwrap_or(u32::MAX).saturating_add(offset) };
        }
    }
    Status::Good
}

/// Fills `to` with one block, over and over.
fn repeat(block: &[GuestSlice], to: GuestSlice, block_size: usize) {
    let (first, _) = to.split_at(block_size.min(to.len()));
    copy(block.iter().copied(), iter::once(first));
    let mut filled = first.len();
    while filled > 0 && filled < to.len() {
        let (from, rest) = to.split_at(filled);
        filled += from.copy_to(rest);
    }
}

/// Between memory that a bdev lends and a guest's: see [`spdk_rs::Move`].
///
/// # Safety
/// As there.
unsafe fn move_lent(write: bool, lent: &[Piece], buffers: &[Piece]) {
    // SAFETY: both are mapped while this runs (the caller's promise), which is as long as the slices live.
    let slice = |piece: &Piece| unsafe { GuestSlice::from_raw(piece.address, piece.len) };
    let (lent, buffers) = (lent.iter().map(slice), buffers.iter().map(slice));
    if write {
        copy(buffers, lent);
    } else {
        copy(lent, buffers);
    }
}

/// From the ones to the others, as far as both go.
fn copy(from: impl Iterator<Item = GuestSlice>, mut to: impl Iterator<Item = GuestSlice>) {
    let mut target = GuestSlice::EMPTY;
    for mut source in from {
        while !source.is_empty() {
            while target.is_empty() {
                let Some(next) = to.next() else { return };
                target = next;
            }
            let moved = source.copy_to(target);
            (source, target) = (source.split_at(moved).1, target.split_at(moved).1);
        }
    }
}

impl Shared {
    #[inline]
    fn geometry(&self) -> Geometry {
        // It only ever holds what was a geometry.
        Geometry::new(self.block_count.load(Ordering::Relaxed), self.info.block_size).unwrap_or(self.opened_as)
    }
}

/// Requests that a channel has room for from the start.
const USUAL: u32 = 256;
/// Requests of a channel at a time; more are answered busy.
const REQUESTS_MAX: u32 = 1 << 16;
/// Notes of reads and writes that are not kept here; others have the number of their place.
const READ: u32 = u32::MAX;
const WRITE: u32 = u32::MAX - 1;
/// That of requests to abort another one.
const ABORT: u32 = u32::MAX - 2;
/// How often a compare-and-write finds a difference that is not there when it looks, until it is answered busy.
const IN_VAIN_MAX: u8 = 8;
/// Buffers of the pool that one request has at a time: about 1 MiB.
const PIECE_BUFFERS: usize = 8;
