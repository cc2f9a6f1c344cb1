//! Tests of the delay wrapper, in a time of their own: `now` is whatever a test says.

use std::sync::atomic::{AtomicU64, Ordering};

use guest_memory::{GuestSlice, Pages, SharedMemory};

use super::*;
use crate::testing::Recorder;
use crate::{Geometry, Malloc, Null, Op, Status, Token};

const START: Tsc = Tsc(1_000_000);

fn null() -> Arc<dyn Bdev> {
    Arc::new(Null::new("n", 1 << 20, 512).unwrap())
}

fn request(token: u64) -> Io<'static> {
    Io::new(Op::Read, 0, 1, &[], Token(token))
}

fn submit(channel: &mut Channel, token: u64, now: Tsc) {
    assert_eq!(channel.submit(&request(token), now), Submitted::Pending);
}

/// The tokens that complete at `now`, all of them good.
fn completed(channel: &mut Channel, now: Tsc) -> Vec<u64> {
    let mut done = Vec::new();
    assert_eq!(channel.poll(now, &mut done), done.len());
    assert!(done.iter().all(|completion| completion.status == Status::Good));
    done.iter().map(|completion| completion.token.0).collect()
}

#[test]
fn delay_completes_at_its_deadline_not_a_tick_earlier() {
    let mut channel = Delay::new("d", null(), DelayConfig::timed(100, 500)).unwrap().open();
    let deadline = START + Tsc::ticks(100_000);
    assert_eq!(channel.next_deadline(), None);
    submit(&mut channel, 1, START);
    assert_eq!(channel.next_deadline(), Some(deadline));
    assert_eq!(completed(&mut channel, Tsc(deadline.0 - 1)), []);
    assert_eq!(completed(&mut channel, deadline), [1]);
    assert_eq!(channel.next_deadline(), None);
    assert_eq!(completed(&mut channel, deadline + 1), []);
}

#[test]
fn delay_completes_in_order_of_deadlines_equal_ones_in_order_of_submission() {
    let mut channel = Delay::new("d", null(), DelayConfig::timed(100, 100)).unwrap().open();
    for (token, after) in [(1, 0), (2, 0), (3, 0), (4, 7), (5, 7), (6, 9)] {
        submit(&mut channel, token, START + after);
    }
    let deadline = START + Tsc::ticks(100_000);
    assert_eq!(completed(&mut channel, deadline + 6), [1, 2, 3]);
    assert_eq!(channel.next_deadline(), Some(deadline + 7));
    assert_eq!(completed(&mut channel, deadline + 100), [4, 5, 6]);
}

#[test]
fn delay_every_hundredth_request_takes_the_longer_time() {
    let mut channel = Delay::new("d", null(), DelayConfig::timed(100, 500)).unwrap().open();
    (1..=250).for_each(|token| submit(&mut channel, token, START));
    let usual: Vec<u64> = (1..=250).filter(|token| token % 100 != 0).collect();
    assert_eq!(completed(&mut channel, START + Tsc::ticks(100_000)), usual);
    assert_eq!(channel.next_deadline(), Some(START + Tsc::ticks(500_000)));
    assert_eq!(completed(&mut channel, START + Tsc::ticks(500_000)), [100, 200]);
}

#[test]
fn delay_of_no_time_completes_at_the_next_poll() {
    let mut channel = Delay::new("d", null(), DelayConfig::default()).unwrap().open();
    submit(&mut channel, 1, START);
    assert_eq!(channel.next_deadline(), Some(START));
    assert_eq!(completed(&mut channel, START), [1]);
}

#[test]
fn delay_moves_the_data_when_due_and_not_before() {
    let memory = SharedMemory::create("guest", 8192, Pages::Small).unwrap();
    let (one, other) = memory.slice().split_at(4096);
    let malloc: Arc<dyn Bdev> = Arc::new(Malloc::new("m", 1 << 20, 4096).unwrap());
    let mut fast = malloc.open();
    let mut slow = Delay::new("d", malloc, DelayConfig::timed(1, 1)).unwrap().open();
    let due = START + Tsc::ticks(1000);
    fn io(op: Op, buffers: &[GuestSlice]) -> Io<'_> {
        Io::new(op, 3, 1, buffers, Token(9))
    }

    one.fill(0xaa);
    {
        let (head, tail) = one.split_at(1234);
        let lent = vec![head, tail]; // gone before the write is performed
        assert_eq!(slow.submit(&io(Op::Write { fua: false }, &lent), START), Submitted::Pending);
    }
    assert_eq!(fast.submit(&io(Op::Read, &[other]), START), Submitted::Done(Status::Good));
    assert_eq!(other.read_array::<4096>(), Some([0; 4096]));
    one.fill(0xbb); // the guest still may, and the device sees it
    assert_eq!(completed(&mut slow, due), [9]);
    assert_eq!(fast.submit(&io(Op::Read, &[other]), due), Submitted::Done(Status::Good));
    assert_eq!(other.read_array::<4096>(), Some([0xbb; 4096]));

    one.fill(0xcc);
    assert_eq!(slow.submit(&io(Op::Read, &[one]), due), Submitted::Pending);
    assert_eq!(completed(&mut slow, due), []);
    assert_eq!(one.read_array::<4096>(), Some([0xcc; 4096]));
    assert_eq!(completed(&mut slow, due + Tsc::ticks(1000)), [9]);
    assert_eq!(one.read_array::<4096>(), Some([0xbb; 4096]));
}

#[test]
fn delay_passes_the_status_of_the_base_on() {
    let mut channel = Delay::new("d", null(), DelayConfig::default()).unwrap().open();
    let beyond = Io { lba: 1 << 20, ..request(4) };
    assert_eq!(channel.submit(&beyond, START), Submitted::Pending);
    let mut done = Vec::new();
    assert_eq!(channel.poll(START, &mut done), 1);
    assert_eq!(done, [Completion { token: Token(4), status: Status::OutOfRange }]);
}

#[test]
fn delay_over_a_delay_adds_up() {
    let inner: Arc<dyn Bdev> = Arc::new(Delay::new("in", null(), DelayConfig::timed(30, 30)).unwrap());
    let mut channel = Delay::new("out", inner, DelayConfig::timed(70, 70)).unwrap().open();
    submit(&mut channel, 1, START);
    let (first, second) = (Tsc::ticks(70_000), Tsc::ticks(30_000));
    assert_eq!(completed(&mut channel, START + first), []);
    assert_eq!(channel.next_deadline(), Some(START + first + second));
    assert_eq!(completed(&mut channel, START + first + second), [1]);
}

#[test]
fn delay_hands_a_batch_to_a_pending_base_with_one_flush() {
    let queueing = Arc::new(Queueing::new());
    let mut channel = Delay::new("d", queueing.clone(), DelayConfig::default()).unwrap().open();
    (1..=5).for_each(|token| submit(&mut channel, token, START));
    assert_eq!(completed(&mut channel, START), [1, 2, 3, 4, 5]);
    assert_eq!(completed(&mut channel, START), []);
    assert_eq!(queueing.flushes.load(Ordering::Relaxed), 1);
}

#[test]
fn delay_at_a_gate_keeps_order_of_submission_and_the_poller_awake() {
    let gate = Gate::closed();
    let delay = Delay::new("d", null(), DelayConfig::held(&gate)).unwrap();
    let (mut one, mut other) = (delay.open(), delay.open());
    (1..=4).for_each(|token| submit(&mut one, token, START));
    submit(&mut other, 5, START);
    assert_eq!(gate.held(), 5);
    assert!(one.next_deadline().is_some_and(|deadline| deadline < START));
    assert_eq!(completed(&mut one, Tsc(u64::MAX)), []);
    gate.release(3);
    assert_eq!(completed(&mut one, START), [1, 2, 3]);
    assert_eq!(completed(&mut other, START), []);
    gate.open();
    assert_eq!(completed(&mut other, START), [5]);
    assert_eq!(completed(&mut one, START), [4]);
    assert_eq!((gate.held(), one.next_deadline()), (0, None));
}

#[test]
fn delay_dropped_with_requests_at_the_gate_touches_nothing_more() {
    let memory = SharedMemory::create("guest", 4096, Pages::Small).unwrap();
    let (gate, recorder) = (Gate::closed(), Recorder::new("r", 8, 4096).unwrap());
    let mut channel = Delay::held(Arc::new(recorder.clone()), &gate).open();
    let io = Io { buffers: &[memory.slice()], ..request(1) };
    assert_eq!(channel.submit(&io, START), Submitted::Pending);
    drop(channel);
    drop(memory);
    gate.open();
    assert_eq!((gate.held(), recorder.calls().reads, recorder.open_channels()), (0, 0, 0));
}

#[test]
fn delay_says_what_its_base_says_but_for_name_and_kind() {
    let base = Recorder::new("r", 8, 4096).unwrap().describe(|info| info.write_cache = true);
    let delay = Delay::new("slow", Arc::new(base.clone()), DelayConfig::timed(1, 2)).unwrap();
    let expected = BdevInfo { name: "slow".to_owned(), kind: "delay", ..base.info().clone() };
    assert_eq!(delay.info(), &expected);
}

#[test]
fn delay_of_impossible_times_is_an_error_that_names_them() {
    let error = |latency_us, p99_us| {
        Delay::new("d", null(), DelayConfig::timed(latency_us, p99_us)).err().expect("refused").to_string()
    };
    assert_eq!(error(100, 99), "p99_us is 99, must be at least latency_us (100)");
    assert_eq!(error(1, 3_600_000_001), "p99_us is 3600000001, must be at most 3600000000");
    assert!(Delay::new("d", null(), DelayConfig::timed(1, 3_600_000_000)).is_ok());
}

/// A device with a submission queue: what was submitted starts with the flush of its batch, and ends at the next poll.
struct Queueing {
    info: BdevInfo,
    flushes: Arc<AtomicU64>,
}

struct QueueingChannel {
    flushes: Arc<AtomicU64>,
    queued: Vec<Token>,
    started: Vec<Token>,
}

impl Queueing {
    fn new() -> Queueing {
        let info = BdevInfo::new("q", "queueing", Geometry::new(8, 512).unwrap());
        Queueing { info, flushes: Arc::default() }
    }
}

impl Bdev for Queueing {
    fn info(&self) -> &BdevInfo {
        &self.info
    }

    fn open(&self) -> Channel {
        let flushes = Arc::clone(&self.flushes);
        let channel: Box<dyn IoChannel> = Box::new(QueueingChannel { flushes, queued: vec![], started: vec![] });
        Channel::from(channel)
    }
}

impl IoChannel for QueueingChannel {
    fn submit(&mut self, io: &Io<'_>, _now: Tsc) -> Submitted {
        self.queued.push(io.token);
        Submitted::Pending
    }

    fn flush_submissions(&mut self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.started.append(&mut self.queued);
    }

    fn poll(&mut self, _now: Tsc, done: &mut Vec<Completion>) -> usize {
        let before = done.len();
        done.extend(self.started.drain(..).map(|token| Completion { token, status: Status::Good }));
        done.len() - before
    }

    fn next_deadline(&self) -> Option<Tsc> {
        None
    }
}

#[test]
fn delay_gives_up_what_waits_on_any_channel_when_the_device_below_is_reset() {
    let resettable = Recorder::new("r", 1 << 20, 512).unwrap().describe(|info| info.can.reset = true);
    for hold in [None, Some(Gate::closed())] {
        let config = DelayConfig { hold: hold.clone(), ..DelayConfig::timed(100, 500) };
        let delay = Delay::new("d", Arc::new(resettable.clone()), config).unwrap();
        let before = resettable.calls();
        let (mut channels, mut done) = ([delay.open(), delay.open()], Vec::new());
        for (channel, token) in [(0, 1), (0, 2), (1, 3)] {
            submit(&mut channels[channel], token, START);
        }
        channels[1].abort(Token(3)); // one that waits cannot be had alone
        assert_eq!(channels[1].submit(&Io::reset(Token(9)), START), Submitted::Done(Status::Good));
        channels.iter_mut().for_each(|channel| _ = channel.poll(START, &mut done));
        assert_eq!(done, [1, 2, 3].map(|token| Completion { token: Token(token), status: Status::Aborted }));
        assert_eq!(resettable.calls().reads, before.reads, "none was performed");
        assert!(hold.is_none_or(|gate| gate.held() == 0));
        assert_eq!(channels[0].next_deadline(), None);
    }
}
