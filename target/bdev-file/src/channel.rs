//! One poller's way into a file: requests become system calls on its ring, one after the other where one is not enough.
//!
//! A request is in exactly one place: `held` or `exclusive` (another change of the device goes first), `ready` (its next
//! call can be made), `starved` (waits for a bounce buffer), in the ring, or a question to the seeker.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};

use bdev::scatter::{first_difference, part};
use bdev::{Completion, Io, IoChannel, Op, Status, Submitted, Turn};
use guest_memory::GuestSlice;
use reactor::clock::Tsc;

use crate::bounce::Bounces;
use crate::config::RingError;
use crate::counters::ChannelCounters;
use crate::file::Shared;
use crate::request::{Request, Step};
use crate::ring::{Call, IoVec, Memory, Ring};
use crate::seeker::{self, Answer, Question, Seeker};

pub(crate) struct FileChannel {
    /// First, so that it is dropped first: the kernel lets go of what the others hold.
    ring: Ring,
    file: Arc<Shared>,
    requests: Vec<Request>,
    vacant: Vec<u32>,
    ready: VecDeque<u32>,
    starved: VecDeque<u32>,
    held: VecDeque<u32>,
    exclusive: VecDeque<u32>,
    /// A request of `exclusive` is on its way, and the device is this channel's alone.
    alone: bool,
    turn: Turn,
    bounces: Bounces,
    results: Vec<(u32, i32)>,
    /// Who knows the holes of the file; nobody, of a block device.
    seeker: Option<Seeker>,
    /// Questions that wait for an answer, and where it comes.
    asked: usize,
    answers: (Sender<Answer>, Receiver<Answer>),
    /// The one system call of this batch was made.
    entered: bool,
    /// The poller is about to sleep, and will not come by for what is left over.
    armed: bool,
    counters: Arc<ChannelCounters>,
}

impl FileChannel {
    pub(crate) fn open(file: &Arc<Shared>) -> Result<FileChannel, RingError> {
        let ring = Ring::new(file.fd(), DEPTH)?;
        let bounces = Bounces::new().map_err(|source| RingError::Call { action: "bounce buffers", source })?;
        let queue = || VecDeque::with_capacity(DEPTH as usize);
        Ok(FileChannel {
            ring,
            file: Arc::clone(file),
            requests: (0..DEPTH).map(|_| Request::vacant()).collect(),
            vacant: (0..DEPTH).rev().collect(),
            ready: queue(),
            starved: queue(),
            held: queue(),
            exclusive: VecDeque::new(),
            alone: false,
            turn: file.exclusion.join(),
            bounces,
            results: Vec::with_capacity(DEPTH as usize),
            seeker: None,
            asked: 0,
            answers: mpsc::channel(),
            entered: false,
            armed: false,
            counters: file.counters.join(),
        })
    }

    /// The same channel, which knows whom to ask for the holes of the file.
    pub(crate) fn asking(mut self, seeker: Option<Seeker>) -> FileChannel {
        self.seeker = seeker;
        self
    }

    /// Asks which blocks there are.
    #[cold]
    fn ask(&mut self, io: &Io<'_>, runs_max: u16) -> Submitted {
        let (geometry, Some(runs)) = (self.file.geometry, io.runs) else { return Submitted::Done(Status::Failed) };
        if io.lba >= geometry.block_count() {
            return Submitted::Done(Status::OutOfRange);
        }
        if self.is_full() {
            return Submitted::Done(Status::Busy);
        }
        let name = self.place();
        self.requests[name as usize].begin(io, geometry, false);
        let (answers, wake) = (self.answers.0.clone(), self.ring.waker());
        let question = Question { lba: io.lba, runs_max, runs: runs.clone(), name, answers, wake };
        if self.seeker.as_ref().is_some_and(|seeker| seeker.ask(question)) {
            self.asked += 1;
            return Submitted::Pending;
        }
        self.vacant.push(name);
        runs.leave(seeker::unknown(geometry, io.lba));
        Submitted::Done(Status::Good)
    }

    #[cold]
    fn take_answers(&mut self, done: &mut Vec<Completion>) {
        while let Ok((name, status)) = self.answers.1.try_recv() {
            self.asked -= 1;
            self.finish(name, status, done);
        }
    }

    fn is_full(&self) -> bool {
        self.vacant.is_empty() && self.requests.len() >= REQUESTS_MAX
    }

    /// What can be said of a request at once.
    fn refusal(&self, io: &Io<'_>) -> Option<Status> {
        let geometry = self.file.geometry;
        if self.file.read_only && io.op.writes() {
            return Some(Status::WriteProtected);
        }
        let nothing = match io.op {
            Op::Flush => false,
            Op::BlockStatus { .. } => return Some(Status::Unsupported), // asking the file system may take long
            Op::Unmap if !geometry.holds_extents(io.extents) => return Some(Status::OutOfRange),
            Op::Unmap => io.extents.iter().all(|extent| extent.blocks == 0),
            _ => match geometry.span(io) {
                Ok((_, length)) => length == 0,
                Err(status) => return Some(status),
            },
        };
        let promises = self.file.writethrough && io.op.writes()
            || matches!(io.op, Op::Flush | Op::Write { fua: true } | Op::CompareAndWrite { fua: true });
        if promises && self.file.sync_failed.load(Ordering::Relaxed) {
            return Some(Status::WriteError);
        }
        if nothing {
            return Some(Status::Good);
        }
        self.is_full().then_some(Status::Busy)
    }

    fn place(&mut self) -> u32 {
        self.vacant.pop().unwrap_or_else(|| {
            self.requests.push(Request::vacant());
            self.vacant.reserve(self.requests.len()); // its way back must not allocate
            self.requests.len() as u32 - 1
        })
    }

    /// Lets requests go on that waited for another change of the device.
    fn admit(&mut self) {
        while let Some(&index) = self.held.front() {
            if !self.turn.enter() {
                break;
            }
            self.held.pop_front();
            self.requests[index as usize].entered = true;
            self.ready.push_back(index);
        }
        if !self.alone
            && let Some(&index) = self.exclusive.front()
            && self.turn.claim()
            && self.turn.alone()
        {
            self.alone = true;
            self.exclusive.pop_front();
            self.ready.push_back(index);
        }
    }

    /// Hands calls to the ring, as many as fit.
    fn pump(&mut self) {
        if !self.ring.has_begun() && !self.ready.is_empty() && self.ring.begin().is_err() {
            self.counters.enter_failures.add(1); // and again with the next batch
            return;
        }
        while self.ring.has_room() {
            let Some(index) = self.ready.pop_front() else { return };
            self.make_call(index);
        }
    }

    /// The one system call of a batch.
    fn enter(&mut self) {
        if self.entered && !self.armed || !self.ring.wants_enter() {
            return;
        }
        self.entered = true;
        self.counters.enters.add(1);
        if self.ring.enter().is_err() {
            self.counters.enter_failures.add(1); // and again with the next batch
        }
    }

    /// Hands the next call of a request to the ring, or lets it wait for a bounce buffer.
    fn make_call(&mut self, index: u32) {
        let request = &mut self.requests[index as usize];
        if request.step == Step::Punch {
            choose(&self.file, request);
        }
        let file = request.offset + request.done;
        let durable = request.durable && !request.doubtful;
        let straight = match request.step {
            Step::Read | Step::Write => {
                request.bounce.is_none() && !request.bounce_wanted && lay_out(request, &self.file)
            }
            Step::Check | Step::Fill => false,
            Step::Punch | Step::Zero | Step::Sync => true,
        };
        if !straight && request.bounce.is_none() {
            let Some(bounce) = self.bounces.take() else { return self.starved.push_back(index) };
            request.bounce = Some(bounce);
            if request.step == Step::Fill {
                fill(request, &self.bounces, self.file.geometry.block_size() as usize);
            }
        }
        let memory = match &request.bounce {
            Some(bounce) => {
                request.piece = request.left().min(Bounces::PIECE as u64);
                let slice = self.bounces.slice(bounce, request.piece as usize);
                if request.step == Step::Write {
                    self.counters.bounced.add(1);
                    gather(request, slice);
                }
                Memory::One(slice)
            }
            None => match request.buffers.as_slice() {
                [buffer] if request.list.is_empty() => {
                    let at = (request.data_at + request.done) as usize;
                    Memory::One(buffer.subslice(at, request.piece as usize).unwrap_or(GuestSlice::EMPTY))
                }
                _ => Memory::List(&request.list),
            },
        };
        let call = match request.step {
            Step::Read | Step::Check => Call::Read { to: memory, offset: file },
            Step::Write | Step::Fill => Call::Write { from: memory, offset: file, durable },
            Step::Punch => Call::Fallocate { mode: PUNCH, offset: request.offset, len: request.length },
            Step::Zero => Call::Fallocate { mode: ZERO, offset: request.offset, len: request.length },
            Step::Sync => Call::Fdatasync,
        };
        // SAFETY: buffers stay mapped until the request completes (a promise of `bdev::IoChannel::submit`'s caller),
        // bounce buffers for as long as the channel; the list is not touched before the result has been reaped. `Ring`
        // is dropped before either and waits for the kernel.
        #[expect(unsafe_code, reason = "the kernel is given addresses")]
        unsafe {
            self.ring.push(call, index);
        }
    }

    /// A call has returned: the request goes on, or ends.
    fn advance(&mut self, index: u32, result: i32, done: &mut Vec<Completion>) {
        let Ok(moved) = u64::try_from(result) else {
            return self.failed(index, -result, done);
        };
        let request = &mut self.requests[index as usize];
        request.tries = 0;
        match request.step {
            Step::Read | Step::Check if moved == 0 => return self.finish(index, Status::ReadError, done), // cut off
            Step::Write | Step::Fill if moved == 0 => return self.finish(index, Status::WriteError, done),
            Step::Read => {
                if let Some(bounce) = &request.bounce {
                    self.counters.bounced.add(1);
                    let from = self.bounces.slice(bounce, moved as usize);
                    scatter(request, from);
                }
            }
            Step::Check => {
                if let Some(status) = check(request, &self.bounces, moved) {
                    return self.finish(index, status, done);
                }
            }
            // There was room for this data.
            Step::Write | Step::Fill if request.doubtful => return self.lost(index, done),
            Step::Write | Step::Fill => {}
            Step::Punch | Step::Zero => return self.next_extent(index, done),
            Step::Sync => {
                let lost = self.file.sync_failed.load(Ordering::Relaxed);
                return self.finish(index, if lost { Status::WriteError } else { Status::Good }, done);
            }
        }
        self.progress(index, moved, done);
    }

    fn progress(&mut self, index: u32, moved: u64, done: &mut Vec<Completion>) {
        let direct = self.file.direct;
        let request = &mut self.requests[index as usize];
        let mut moved = moved.min(request.piece);
        if moved < request.piece {
            self.counters.continued.add(1);
            // The rest has to begin where a direct transfer may.
            moved -= direct.map_or(0, |alignment| moved % alignment.length as u64);
            if moved == 0 {
                let reads = matches!(request.step, Step::Read | Step::Check);
                let status = if reads { Status::ReadError } else { Status::WriteError };
                return self.finish(index, status, done);
            }
        }
        request.done += moved;
        if request.left() > 0 {
            return self.ready.push_back(index);
        }
        match (request.step, request.op) {
            (Step::Check, Op::CompareAndWrite { .. }) => {
                // Equal: now the second half of the data.
                (request.step, request.done, request.data_at) = (Step::Write, 0, request.length);
                if let Some(bounce) = request.bounce.take() {
                    self.give_back(bounce);
                }
                self.ready.push_back(index);
            }
            (Step::Fill, Op::Unmap | Op::WriteZeroes { .. }) => self.next_extent(index, done),
            _ => self.finish(index, Status::Good, done),
        }
    }

    /// One extent is done.
    fn next_extent(&mut self, index: u32, done: &mut Vec<Completion>) {
        let request = &mut self.requests[index as usize];
        request.next_extent += 1;
        if request.aim(self.file.geometry, Step::Punch) {
            self.ready.push_back(index);
        } else if request.durable {
            request.step = Step::Sync;
            self.ready.push_back(index);
        } else {
            self.finish(index, Status::Good, done);
        }
    }

    #[cold]
    fn failed(&mut self, index: u32, errno: i32, done: &mut Vec<Completion>) {
        let request = &mut self.requests[index as usize];
        match (errno, request.step) {
            (libc::EAGAIN | libc::EINTR | libc::EBUSY, _) if request.tries < TRIES_MAX => {
                request.tries += 1;
                self.counters.retried.add(1);
                self.ready.push_back(index);
            }
            (libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY, Step::Punch) => {
                self.file.no_holes.store(true, Ordering::Relaxed);
                self.ready.push_back(index);
            }
            (libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY, Step::Zero) => {
                self.file.no_zeroes.store(true, Ordering::Relaxed);
                request.step = Step::Punch; // chosen anew
                self.ready.push_back(index);
            }
            // Not these blocks, but maybe others: a block device whose own blocks are larger than the guest's.
            (libc::EINVAL, Step::Punch | Step::Zero) => {
                request.step = Step::Fill;
                self.ready.push_back(index);
            }
            (libc::EINVAL, Step::Read | Step::Write) if self.file.direct.is_some() && !request.bounce_wanted => {
                request.bounce_wanted = true;
                self.ready.push_back(index);
            }
            // No room for this data, or for older data that had to go to the medium with it? In the page cache alone
            // there is no older data to be lost.
            (libc::ENOSPC | libc::EDQUOT | libc::EFBIG, Step::Write | Step::Fill)
                if request.durable && self.file.direct.is_none() && !request.doubtful =>
            {
                request.doubtful = true;
                self.ready.push_back(index);
            }
            (_, step) => {
                let status = status_of(errno, step);
                if step == Step::Sync || request.durable && status == Status::WriteError {
                    return self.lost(index, done);
                }
                self.finish(index, status, done);
            }
        }
    }

    /// Data was lost on its way to stable storage.
    #[cold]
    fn lost(&mut self, index: u32, done: &mut Vec<Completion>) {
        self.file.sync_failed.store(true, Ordering::Relaxed);
        self.counters.sync_failures.add(1);
        self.finish(index, Status::WriteError, done);
    }

    fn finish(&mut self, index: u32, status: Status, done: &mut Vec<Completion>) {
        let request = &mut self.requests[index as usize];
        done.push(Completion { token: request.token, status });
        if std::mem::take(&mut request.entered) {
            self.turn.leave();
        }
        if let Op::CompareAndWrite { .. } = request.op {
            self.alone = false;
            self.turn.release();
        }
        if let Some(bounce) = request.bounce.take() {
            self.give_back(bounce);
        }
        self.vacant.push(index);
    }

    fn give_back(&mut self, bounce: crate::bounce::Bounce) {
        self.bounces.give_back(bounce);
        self.ready.extend(self.starved.pop_front());
    }
}

impl IoChannel for FileChannel {
    fn submit(&mut self, io: &Io<'_>, _: Tsc) -> Submitted {
        if let Op::BlockStatus { runs_max } = io.op {
            return self.ask(io, runs_max);
        }
        if let Some(status) = self.refusal(io) {
            return Submitted::Done(status);
        }
        let index = self.place();
        let request = &mut self.requests[index as usize];
        request.begin(io, self.file.geometry, self.file.writethrough);
        if !request.extents.is_empty() {
            request.aim(self.file.geometry, Step::Punch);
        }
        if let Op::CompareAndWrite { .. } = io.op {
            self.exclusive.push_back(index);
        } else if !io.op.writes() {
            self.ready.push_back(index);
        } else if self.turn.enter() {
            request.entered = true;
            self.ready.push_back(index);
        } else {
            self.held.push_back(index);
        }
        Submitted::Pending
    }

    fn flush_submissions(&mut self) {
        if !self.exclusive.is_empty() {
            self.admit();
        }
        self.pump();
        self.enter();
    }

    fn poll(&mut self, _: Tsc, done: &mut Vec<Completion>) -> usize {
        let before = done.len();
        self.entered = false;
        if !self.held.is_empty() || !self.exclusive.is_empty() {
            self.admit();
        }
        self.pump();
        self.enter();
        let mut results = std::mem::take(&mut self.results);
        self.ring.reap(&mut results);
        for (index, result) in results.drain(..) {
            self.advance(index, result, done);
        }
        self.results = results;
        if self.asked > 0 {
            self.take_answers(done);
        }
        self.pump();
        self.enter();
        done.len() - before
    }

    fn next_deadline(&self) -> Option<Tsc> {
        // Nobody tells when another channel lets go of the device, or that a call still has to be made.
        let waits = !self.held.is_empty() || !self.exclusive.is_empty();
        let unmade = !self.ready.is_empty() && self.ring.has_room();
        (waits || unmade || self.ring.has_unsubmitted()).then_some(Tsc(0))
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.wake())
    }

    fn arm(&mut self) {
        self.armed = true;
        self.ring.notify(true);
    }

    fn disarm(&mut self) {
        self.armed = false;
        self.ring.notify(false);
    }
}

impl Drop for FileChannel {
    fn drop(&mut self) {
        // Changes that are under way are so until the kernel has ended them.
        self.ring.close();
    }
}

/// How the next extent is dealt with: the best that the file system has.
fn choose(file: &Shared, request: &mut Request) {
    request.step = if request.punches() && !file.no_holes.load(Ordering::Relaxed) {
        Step::Punch
    } else if !file.no_zeroes.load(Ordering::Relaxed) {
        Step::Zero
    } else {
        Step::Fill
    };
}

/// Lays the next piece of a transfer out for the kernel; `false` if the buffers are not aligned as they have to be.
fn lay_out(request: &mut Request, file: &Shared) -> bool {
    let (at, left) = (request.data_at + request.done, request.left().min(Ring::BYTES_MAX));
    let aligned = |slice: GuestSlice| {
        file.direct.is_none_or(|alignment| {
            (slice.as_ptr() as usize).is_multiple_of(alignment.memory) && slice.len().is_multiple_of(alignment.length)
        })
    };
    request.list.clear();
    if let [buffer] = request.buffers.as_slice() {
        request.piece = left;
        return buffer.subslice(at as usize, left as usize).is_some_and(aligned);
    }
    request.piece = 0;
    for slice in part(&request.buffers, at, left).take(Ring::LIST_MAX) {
        if !aligned(slice) {
            return false;
        }
        request.piece += slice.len() as u64;
        request.list.push(IoVec::from(slice));
    }
    true
}

/// From the buffers into a bounce buffer.
fn gather(request: &Request, mut to: GuestSlice) {
    for piece in part(&request.buffers, request.data_at + request.done, to.len() as u64) {
        let (here, rest) = to.split_at(piece.len());
        piece.copy_to(here);
        to = rest;
    }
}

/// From a bounce buffer into the buffers.
fn scatter(request: &Request, mut from: GuestSlice) {
    for piece in part(&request.buffers, request.data_at + request.done, from.len() as u64) {
        let (here, rest) = from.split_at(piece.len());
        here.copy_to(piece);
        from = rest;
    }
}

/// Repeats the block of a write-same, or zeroes.
fn fill(request: &Request, bounces: &Bounces, block_size: usize) {
    let Some(bounce) = &request.bounce else { return };
    let whole = bounces.slice(bounce, Bounces::PIECE.min(request.length.max(1) as usize));
    if request.op != Op::WriteSame {
        return bounces.slice(bounce, Bounces::PIECE).fill(0); // also for longer extents that come after this one
    }
    let mut to = whole;
    for piece in &request.buffers {
        let (here, rest) = to.split_at(piece.len().min(to.len()));
        piece.copy_to(here);
        to = rest;
    }
    let mut filled = block_size;
    while filled < whole.len() {
        let (from, to) = whole.split_at(filled);
        filled += from.copy_to(to);
    }
}

/// Compares what was read with the data, if there is any; the end of the request if it differs.
fn check(request: &Request, bounces: &Bounces, moved: u64) -> Option<Status> {
    let bounce = request.bounce.as_ref()?;
    let read = bounces.slice(bounce, moved as usize);
    let offset = first_difference(read, part(&request.buffers, request.done, moved))?;
    let offset = u32::try_from(request.done).unwrap_or(u32::MAX).saturating_add(offset);
    Some(Status::Miscompare { offset })
}

/// What an error of the kernel's is for whoever asked.
fn status_of(errno: i32, step: Step) -> Status {
    let reads = matches!(step, Step::Read | Step::Check);
    match errno {
        _ if step == Step::Sync => Status::WriteError,
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => Status::NoSpace,
        libc::EROFS | libc::EPERM | libc::EACCES if !reads => Status::WriteProtected,
        libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::ESHUTDOWN => Status::Gone,
        libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EINTR | libc::EBUSY => Status::Busy,
        libc::ECANCELED => Status::Aborted,
        // The guest's memory has gone.
        libc::EFAULT => Status::Failed,
        _ if reads => Status::ReadError,
        _ => Status::WriteError,
    }
}

/// Calls in a ring at a time: twice QEMU's default cmd_per_lun. Requests beyond wait in the channel.
const DEPTH: u32 = 256;
/// Requests in a channel at a time; more are answered busy.
const REQUESTS_MAX: usize = 1 << 16;
/// How often the same call is made again that was refused for the moment.
const TRIES_MAX: u32 = 1000;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

#[cfg(test)]
mod tests;
