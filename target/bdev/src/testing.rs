//! A device for tests, here and in the crates above: it counts what reaches it, and fails on demand. Not for production:
//! it locks. To keep requests pending without any timing, combine it with [`Delay`] and a [`Gate`].
//!
//! Where the gate stands decides what is seen. *Below* the recorder ([`Recorder::gated`]) a request is counted when it
//! arrives and then hangs; a failure is answered at once. *Above* it (a `Delay` whose base is the recorder) a request
//! hangs first, shows in [`Gate::held`], and is counted, or fails, when it is let pass.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reactor::clock::Tsc;

use crate::{
    Bdev, BdevInfo, Channel, Completion, Delay, Gate, GeometryError, Io, IoChannel, Null, Op, Status, Submitted, Token,
};

/// A device that counts the requests it is called with, remembers the first of them, and fails those it is told to.
/// Clones are the same device: keep one to ask, and give the other away.
#[derive(Clone)]
pub struct Recorder {
    info: BdevInfo,
    base: Arc<dyn Bdev>,
    record: Arc<Mutex<Record>>,
}

/// How often the device was called, over all channels. Other operations than these count as ended only, and stand in
/// [`Recorder::first_calls`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Reads submitted.
    pub reads: u64,
    /// Writes submitted.
    pub writes: u64,
    /// Flushes submitted.
    pub flushes: u64,
    /// Requests that have ended, at once or later, well or not.
    pub ended: u64,
}

/// One request as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What to do.
    pub op: Op,
    /// First block.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u32,
    /// Number of buffers.
    pub buffers: usize,
    /// Total length of the buffers in bytes.
    pub bytes: u64,
    /// The submitter's name for it.
    pub token: Token,
}

#[derive(Default)]
struct Record {
    calls: Calls,
    first: Vec<Call>,
    open_channels: usize,
    failures: VecDeque<Status>,
}

impl Recorder {
    /// A recorder without a medium ([`Null`]) that answers at once.
    ///
    /// # Errors
    /// As [`Null::new`].
    pub fn new(name: impl Into<String>, block_count: u64, block_size: u32) -> Result<Recorder, GeometryError> {
        let name = name.into();
        Ok(Recorder::over(Arc::new(Null::new(name, block_count, block_size)?)))
    }

    /// A recorder without a medium whose requests hang until `gate` lets them pass.
    ///
    /// # Errors
    /// As [`Null::new`].
    pub fn gated(
        name: impl Into<String>,
        block_count: u64,
        block_size: u32,
        gate: &Gate,
    ) -> Result<Recorder, GeometryError> {
        let null = Null::new(name, block_count, block_size)?;
        Ok(Recorder::over(Arc::new(Delay::held(Arc::new(null), gate))))
    }

    /// A recorder of the requests to `base`, and with the name of `base`.
    #[must_use]
    pub fn over(base: Arc<dyn Bdev>) -> Recorder {
        let info = BdevInfo { kind: "recorder", ..base.info().clone() };
        Recorder { info, base, record: Arc::default() }
    }

    /// Lets the device say something else about itself (read-only, a cache …). What it does stays the same, and clones
    /// made before are not changed.
    #[must_use]
    pub fn describe(mut self, change: impl FnOnce(&mut BdevInfo)) -> Recorder {
        change(&mut self.info);
        self
    }

    /// How often the device was called.
    #[must_use]
    pub fn calls(&self) -> Calls {
        lock(&self.record).calls
    }

    /// The requests in the order of their arrival; only the first [`CALLS_MAX`] are kept.
    #[must_use]
    pub fn first_calls(&self) -> Vec<Call> {
        lock(&self.record).first.clone()
    }

    /// How many channels are open.
    #[must_use]
    pub fn open_channels(&self) -> usize {
        lock(&self.record).open_channels
    }

    /// The next `count` requests, of any kind and channel, end at once with `status` and do not reach the base. Adds
    /// to what was asked for before.
    pub fn fail_next(&self, count: usize, status: Status) {
        let failures = &mut lock(&self.record).failures;
        failures.resize(failures.len() + count, status);
    }
}

impl Bdev for Recorder {
    fn info(&self) -> &BdevInfo {
        &self.info
    }

    fn block_count(&self) -> u64 {
        self.base.block_count()
    }

    fn open(&self) -> Channel {
        lock(&self.record).open_channels += 1;
        let channel: Box<dyn IoChannel> =
            Box::new(RecorderChannel { base: self.base.open(), record: Arc::clone(&self.record) });
        Channel::from(channel)
    }

    fn reset(&self) {
        self.base.reset();
    }
}

struct RecorderChannel {
    base: Channel,
    record: Arc<Mutex<Record>>,
}

impl IoChannel for RecorderChannel {
    fn base(&self) -> Option<&Channel> {
        Some(&self.base)
    }

    fn base_mut(&mut self) -> Option<&mut Channel> {
        Some(&mut self.base)
    }

    fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        let failure = lock(&self.record).arrived(io);
        let submitted = match failure {
            Some(status) => Submitted::Done(status),
            None => self.base.submit(io, now),
        };
        if let Submitted::Done(_) = submitted {
            lock(&self.record).calls.ended += 1;
        }
        submitted
    }

    fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        let count = self.base.poll(now, done);
        lock(&self.record).calls.ended += count as u64;
        count
    }

    fn next_deadline(&self) -> Option<Tsc> {
        self.base.next_deadline()
    }
}

impl Drop for RecorderChannel {
    fn drop(&mut self) {
        lock(&self.record).open_channels -= 1;
    }
}

impl Record {
    /// Counts a request; returns how it fails, if it is to.
    fn arrived(&mut self, io: &Io<'_>) -> Option<Status> {
        match io.op {
            Op::Read => self.calls.reads += 1,
            Op::Write { .. } => self.calls.writes += 1,
            Op::Flush => self.calls.flushes += 1,
            _ => {}
        }
        if self.first.len() < CALLS_MAX {
            let bytes = io.buffers.iter().map(|buffer| buffer.len() as u64).sum();
            let Io { op, lba, blocks, buffers, token, .. } = *io;
            self.first.push(Call { op, lba, blocks, buffers: buffers.len(), bytes, token });
        }
        self.failures.pop_front()
    }
}

/// A test that failed elsewhere while it held the lock does not spoil what was counted.
fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many requests a [`Recorder`] remembers one by one. All are counted.
pub const CALLS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tsc = Tsc(5);

    fn io(op: Op, lba: u64) -> Io<'static> {
        Io::new(op, lba, 1, &[], Token(lba))
    }

    #[test]
    fn recorder_counts_each_kind_and_keeps_the_order() {
        let recorder = Recorder::new("r", 8, 512).unwrap();
        let mut channel = recorder.open();
        for (lba, op) in (0..).zip([Op::Write { fua: true }, Op::Read, Op::Flush, Op::Read]) {
            assert_eq!(channel.submit(&io(op, lba), NOW), Submitted::Done(Status::Good));
        }
        assert_eq!(recorder.calls(), Calls { reads: 2, writes: 1, flushes: 1, ended: 4 });
        let order: Vec<Token> = recorder.first_calls().iter().map(|call| call.token).collect();
        assert_eq!(order, [Token(0), Token(1), Token(2), Token(3)]);
    }

    #[test]
    fn recorder_fails_as_often_as_told_and_spares_the_base() {
        let below = Recorder::new("r", 8, 512).unwrap();
        let recorder = Recorder::over(Arc::new(below.clone()));
        let mut channel = recorder.open();
        recorder.fail_next(1, Status::WriteError);
        recorder.fail_next(1, Status::Busy);
        let outcomes = [0, 1, 2].map(|lba| channel.submit(&io(Op::Write { fua: false }, lba), NOW));
        assert_eq!(outcomes, [Status::WriteError, Status::Busy, Status::Good].map(Submitted::Done));
        assert_eq!((recorder.calls().writes, below.calls().writes), (3, 1));
    }

    #[test]
    fn recorder_gated_counts_on_arrival_and_ends_on_release() {
        let gate = Gate::closed();
        let recorder = Recorder::gated("r", 8, 512, &gate).unwrap();
        let (mut channel, mut done) = (recorder.open(), Vec::new());
        assert_eq!(recorder.open_channels(), 1);
        for lba in 0..3 {
            assert_eq!(channel.submit(&io(Op::Read, lba), NOW), Submitted::Pending);
        }
        assert_eq!(channel.poll(NOW, &mut done), 0);
        assert_eq!((recorder.calls().reads, recorder.calls().ended, gate.held()), (3, 0, 3));
        gate.release(2);
        assert_eq!(channel.poll(NOW, &mut done), 2);
        assert_eq!(done, [0, 1].map(|n| Completion { token: Token(n), status: Status::Good }));
        assert_eq!((recorder.calls().ended, gate.held()), (2, 1));
        drop(channel);
        assert_eq!((recorder.open_channels(), gate.held()), (0, 0));
    }

    #[test]
    fn recorder_below_a_gate_fails_what_was_pending() {
        let gate = Gate::closed();
        let recorder = Recorder::new("r", 8, 512).unwrap();
        let mut channel = Delay::held(Arc::new(recorder.clone()), &gate).open();
        let mut done = Vec::new();
        assert_eq!(channel.submit(&io(Op::Read, 3), NOW), Submitted::Pending);
        recorder.fail_next(1, Status::ReadError);
        gate.open();
        assert_eq!(channel.poll(NOW, &mut done), 1);
        assert_eq!(done, [Completion { token: Token(3), status: Status::ReadError }]);
    }

    #[test]
    fn recorder_described_otherwise_says_so() {
        let recorder = Recorder::new("r", 8, 4096).unwrap().describe(|info| info.read_only = true);
        assert_eq!(
            (recorder.info().read_only, recorder.info().block_size, recorder.info().kind),
            (true, 4096, "recorder")
        );
    }
}
