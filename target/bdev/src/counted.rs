//! What a device has done, counted where its channels are called. Who reads it, and in which format, is not in here.

use std::sync::Arc;

use reactor::clock::Tsc;
use stats::{Counter, Histogram, HistogramSnapshot};

use crate::blocks::CounterBlocks;
use crate::{Bdev, BdevInfo, Channel, Completion, Io, Op, Status, Submitted, Token};

/// A device that counts what the one below does. It has the name, the kind and the speed of that one: a request that
/// is done at once costs a dozen instructions more.
pub struct Counted {
    base: Arc<dyn Bdev>,
    blocks: CounterBlocks<ChannelStats>,
}

/// What is counted per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// [`Op::Read`].
    Read,
    /// [`Op::Write`].
    Write,
    /// [`Op::Flush`].
    Flush,
    /// [`Op::Unmap`].
    Unmap,
    /// [`Op::WriteZeroes`] and [`Op::WriteSame`].
    Fill,
    /// [`Op::Compare`] and [`Op::Verify`].
    Verify,
    /// [`Op::CompareAndWrite`].
    CompareAndWrite,
    /// [`Op::BlockStatus`].
    BlockStatus,
    /// [`Op::Reset`].
    Reset,
}

impl OpKind {
    /// Each of them, in the order of their numbers.
    pub const ALL: [OpKind; 9] = [
        OpKind::Read,
        OpKind::Write,
        OpKind::Flush,
        OpKind::Unmap,
        OpKind::Fill,
        OpKind::Verify,
        OpKind::CompareAndWrite,
        OpKind::BlockStatus,
        OpKind::Reset,
    ];

    /// The kind of an operation.
    #[must_use]
    #[inline]
    pub const fn of(op: Op) -> OpKind {
        match op {
            Op::Read => OpKind::Read,
            Op::Write { .. } => OpKind::Write,
            Op::Flush => OpKind::Flush,
            Op::Unmap => OpKind::Unmap,
            Op::WriteZeroes { .. } | Op::WriteSame => OpKind::Fill,
            Op::Compare | Op::Verify => OpKind::Verify,
            Op::CompareAndWrite { .. } => OpKind::CompareAndWrite,
            Op::BlockStatus { .. } => OpKind::BlockStatus,
            Op::Reset => OpKind::Reset,
        }
    }

    /// Its name as a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            OpKind::Read => "read",
            OpKind::Write => "write",
            OpKind::Flush => "flush",
            OpKind::Unmap => "unmap",
            OpKind::Fill => "fill",
            OpKind::Verify => "verify",
            OpKind::CompareAndWrite => "compare_and_write",
            OpKind::BlockStatus => "block_status",
            OpKind::Reset => "reset",
        }
    }
}

/// The counters of one channel. Written by its poller only.
#[derive(Debug, Default)]
pub(crate) struct ChannelStats {
    ended: [Counter; OpKind::ALL.len()],
    errors: [Counter; OpKind::ALL.len()],
    read_bytes: Counter,
    written_bytes: Counter,
    pending_ticks: [Box<Histogram>; 2],
}

/// What a device has done so far, over all channels it ever had.
#[derive(Clone, Debug)]
pub struct BdevTotals {
    /// Requests that ended, by [`OpKind`].
    pub ended: [u64; OpKind::ALL.len()],
    /// Those of them that did not end well; a comparison that found a difference is one of them.
    pub errors: [u64; OpKind::ALL.len()],
    /// Bytes that reads moved.
    pub read_bytes: u64,
    /// Bytes that writes moved.
    pub written_bytes: u64,
    /// How long reads were pending, in ticks of the clock. Requests that were done at once are not in here.
    pub read_ticks: HistogramSnapshot,
    /// How long writes were pending.
    pub write_ticks: HistogramSnapshot,
}

impl Counted {
    /// Counts what `base` does.
    #[must_use]
    pub fn new(base: Arc<dyn Bdev>) -> Counted {
        Counted { base, blocks: CounterBlocks::default() }
    }

    /// What it has done so far. From any thread; disturbs no poller.
    #[must_use]
    pub fn totals(&self) -> BdevTotals {
        let mut ticks = [HistogramSnapshot::empty(), HistogramSnapshot::empty()];
        self.blocks.each(|block| {
            for (sum, histogram) in ticks.iter_mut().zip(&block.pending_ticks) {
                sum.merge(&histogram.snapshot());
            }
        });
        let [read_ticks, write_ticks] = ticks;
        BdevTotals {
            ended: OpKind::ALL.map(|kind| self.blocks.sum(|block| block.ended[kind as usize].value())),
            errors: OpKind::ALL.map(|kind| self.blocks.sum(|block| block.errors[kind as usize].value())),
            read_bytes: self.blocks.sum(|block| block.read_bytes.value()),
            written_bytes: self.blocks.sum(|block| block.written_bytes.value()),
            read_ticks,
            write_ticks,
        }
    }
}

impl Bdev for Counted {
    fn info(&self) -> &BdevInfo {
        self.base.info()
    }

    fn block_count(&self) -> u64 {
        self.base.block_count()
    }

    fn open(&self) -> Channel {
        self.base.open().counted(Counting::new(self.blocks.join(), self.base.info().block_size))
    }

    fn reset(&self) {
        self.base.reset();
    }
}

/// The counting part of a channel.
#[derive(Debug)]
pub(crate) struct Counting {
    stats: Arc<ChannelStats>,
    block_size: u32,
    /// Requests that are pending, by the token that the device knows them by.
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    token: Token,
    kind: OpKind,
    bytes: u64,
    since: Tsc,
}

/// Requests that have ended one after the other and are counted in the same way.
#[derive(Default)]
struct Alike {
    /// Since when they have been pending, and how they have ended.
    what: Option<(OpKind, Tsc, Status)>,
    requests: u64,
    bytes: u64,
}

impl Counting {
    fn new(stats: Arc<ChannelStats>, block_size: u32) -> Counting {
        Counting { stats, block_size, places: Vec::with_capacity(RESERVED), free: Vec::with_capacity(RESERVED) }
    }

    /// The token under which the device is to know the next request.
    #[inline]
    pub(crate) fn next_token(&self) -> Token {
        Token(u64::from(self.free.last().copied().unwrap_or(self.places.len() as u32)))
    }

    /// The request has been submitted under that token; its own is `token`.
    #[inline]
    pub(crate) fn submitted(&mut self, io: &Io<'_>, token: Token, outcome: Submitted, now: Tsc) {
        let kind = OpKind::of(io.op);
        let bytes = u64::from(io.blocks) * u64::from(self.block_size);
        match outcome {
            Submitted::Done(status) => self.ended(kind, 1, bytes, status),
            Submitted::Pending => self.keep(Place { token, kind, bytes, since: now }),
        }
    }

    /// Requests, reads or writes of so many blocks together, were ended at once.
    #[inline(always)]
    pub(crate) fn done(&self, op: Op, requests: u64, blocks: u64, status: Status) {
        self.ended(OpKind::of(op), requests, blocks * u64::from(self.block_size), status);
    }

    /// Requests have completed: gives them their own tokens back.
    #[inline]
    pub(crate) fn completed(&mut self, completions: &mut [Completion], now: Tsc) {
        let mut alike = Alike::default();
        for completion in completions {
            let index = completion.token.0 as u32;
            let Some(&Place { token, kind, bytes, since }) = self.places.get(index as usize) else {
                debug_assert!(false, "a bdev completed {:?}, which is not in flight", completion.token);
                continue;
            };
            self.free.push(index);
            completion.token = token;
            let what = (kind, since, completion.status);
            if alike.what != Some(what) {
                self.count(&alike, now);
                alike = Alike { what: Some(what), ..Alike::default() };
            }
            alike.requests += 1;
            alike.bytes += bytes;
        }
        self.count(&alike, now);
    }

    fn count(&self, alike: &Alike, now: Tsc) {
        let Alike { what: Some((kind, since, status)), requests, bytes } = *alike else { return };
        if let OpKind::Read | OpKind::Write = kind {
            self.stats.pending_ticks[kind as usize].record_n(now.0.saturating_sub(since.0), requests);
        }
        self.ended(kind, requests, bytes, status);
    }

    /// The token under which the device knows a pending request. A linear search, for what is rare.
    pub(crate) fn known_as(&self, token: Token) -> Option<Token> {
        let pending = |index: u32| self.places[index as usize].token == token && !self.free.contains(&index);
        (0..self.places.len() as u32).find(|&index| pending(index)).map(|index| Token(u64::from(index)))
    }

    fn keep(&mut self, place: Place) {
        match self.free.pop() {
            Some(index) => self.places[index as usize] = place,
            None => {
                self.places.push(place);
                self.free.reserve(self.places.len()); // its way back must not allocate
            }
        }
    }

    #[inline]
    fn ended(&self, kind: OpKind, requests: u64, bytes: u64, status: Status) {
        self.stats.ended[kind as usize].add(requests);
        match (status, kind) {
            (Status::Good, OpKind::Read) => self.stats.read_bytes.add(bytes),
            (Status::Good, OpKind::Write) => self.stats.written_bytes.add(bytes),
            (Status::Good, _) => {}
            _ => self.stats.errors[kind as usize].add(requests),
        }
    }
}

/// Pending requests that there is room for from the start.
const RESERVED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delay, Extent, Gate, Malloc};

    const NOW: Tsc = Tsc(100);

    #[test]
    fn counted_requests_that_are_done_at_once_are_counted_by_kind_and_outcome() {
        let counted = Counted::new(Arc::new(Malloc::new("m", 8192, 512).unwrap()));
        assert_eq!((counted.info().kind, counted.info().name.as_str()), ("malloc", "m"));
        let mut channel = counted.open();
        let extents = [Extent { lba: 0, blocks: 1 }];
        let ios = [
            Io::new(Op::Verify, 0, 16, &[], Token(1)),
            Io::new(Op::WriteZeroes { unmap: false }, 0, 17, &[], Token(2)),
            Io::new(Op::Flush, 0, 0, &[], Token(3)),
            Io::unmap(&extents, Token(4)),
        ];
        for io in &ios {
            let Submitted::Done(_) = channel.submit(io, NOW) else { panic!("{io:?} is pending") };
        }
        let totals = counted.totals();
        assert_eq!(totals.ended, [0, 0, 1, 1, 1, 1, 0, 0, 0]);
        assert_eq!(totals.errors, [0, 0, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn counted_pending_requests_keep_their_tokens_and_are_timed() {
        let gate = Gate::closed();
        let null = Arc::new(crate::Null::new("n", 1 << 20, 512).unwrap());
        let counted = Counted::new(Arc::new(Delay::held(null, &gate)));
        let (mut channel, mut done) = (counted.open(), Vec::new());
        let mut ended = Vec::new();
        for round in 0..3u64 {
            for n in 0..400 {
                let op = [Op::Read, Op::Write { fua: false }][n as usize % 2];
                let io = Io::new(op, n, 8, &[], Token(u64::MAX - round * 400 - n));
                assert_eq!(channel.submit(&io, Tsc(1000 * round)), Submitted::Pending);
            }
            gate.release(350);
            channel.poll(Tsc(1000 * round + 50), &mut done);
            ended.append(&mut done);
        }
        gate.open();
        channel.poll(Tsc(10_000), &mut done);
        ended.append(&mut done);
        let expected: Vec<Completion> =
            (0..1200).map(|n| Completion { token: Token(u64::MAX - n), status: Status::Good }).collect();
        assert_eq!(ended, expected);
        let totals = counted.totals();
        assert_eq!((totals.ended[0], totals.ended[1], totals.errors), (600, 600, [0; 9]));
        assert_eq!((totals.read_bytes, totals.written_bytes), (600 * 4096, 600 * 4096));
        assert_eq!((totals.read_ticks.count(), totals.write_ticks.count()), (600, 600));
        assert_eq!(totals.read_ticks.max(), 8000);
    }

    #[test]
    fn counted_channels_that_are_closed_stay_in_the_sum() {
        let counted = Counted::new(Arc::new(crate::Null::new("n", 8, 512).unwrap()));
        for _ in 0..3 {
            let mut channel = counted.open();
            assert_eq!(channel.submit(&Io::new(Op::Read, 0, 8, &[], Token(1)), NOW), Submitted::Done(Status::Good));
        }
        assert_eq!((counted.totals().ended[0], counted.totals().read_bytes), (3, 3 * 4096));
    }

    #[test]
    fn counted_and_ordered_requests_are_aborted_under_the_names_that_the_device_knows() {
        let null = Arc::new(crate::Null::new("n", 1 << 20, 512).unwrap());
        let plan = "all writes at 2-8 with hang".parse().unwrap();
        let ordered = crate::Ordered::new(Arc::new(crate::Faulty::new("f", null, plan)));
        let counted = Counted::new(Arc::new(ordered));
        let (mut channel, mut done) = (counted.open(), Vec::new());
        let mut write =
            |lba: u64| channel.submit(&Io::new(Op::Write { fua: false }, lba, 1, &[], Token(100 + lba)), NOW);
        assert_eq!(write(1), Submitted::Done(Status::Good));
        assert!([2, 3, 4, 9].map(&mut write).iter().all(|submitted| *submitted == Submitted::Pending));
        for token in [103, 109, 101, 102] {
            channel.abort(Token(token)); // 103 and 102 hang; 109 has been done, 101 is not there any more
        }
        channel.poll(NOW, &mut done);
        let aborted = |token| Completion { token: Token(token), status: Status::Aborted };
        assert_eq!(done, [aborted(102), aborted(103)]);
        channel.abort(Token(104));
        channel.poll(NOW, &mut done);
        assert_eq!(done[2..], [aborted(104), Completion { token: Token(109), status: Status::Good }]);
        assert_eq!(counted.totals().errors[OpKind::Write as usize], 3);
    }
}
