//! Counts the allocations of requests on every native device, through a counting global allocator. Nothing about what
//! the requests do.

use std::sync::Arc;

use bdev::{Bdev, Channel, Completion, Delay, DelayConfig, Gate, Io, Malloc, Null, Op, Status, Submitted, Token};
use guest_memory::{GuestSlice, Pages, SharedMemory};
use reactor::clock::Tsc;

const BATCH: u64 = 32;

/// Runs batches of scattered reads and writes, and returns how many requests have ended.
fn run(channel: &mut Channel, buffers: &[GuestSlice], done: &mut Vec<Completion>, batches: u64) -> u64 {
    let mut ended = 0;
    for batch in 0..batches {
        let now = Tsc(batch * 1000);
        for n in 0..BATCH {
            let op = [Op::Read, Op::Write { fua: n % 4 == 1 }][n as usize % 2];
            match channel.submit(&Io::new(op, n, 8, buffers, Token(n)), now) {
                Submitted::Done(Status::Good) => ended += 1,
                Submitted::Done(status) => panic!("{op:?} failed: {status:?}"),
                Submitted::Pending => {}
            }
        }
        channel.flush_submissions();
        ended += channel.poll(now, done) as u64;
        done.clear();
    }
    ended
}

/// The allocations of 100 batches, after `warm_up` batches.
fn allocations(channel: &mut Channel, warm_up: u64, buffers: usize) -> u64 {
    let memory = SharedMemory::create("guest", 4096, Pages::Small).expect("memory for one page");
    let length = 4096 / buffers;
    let buffers: Vec<GuestSlice> =
        (0..buffers).map(|n| memory.slice().subslice(n * length, length).expect("inside")).collect();
    let mut done = Vec::with_capacity(1024);
    run(channel, &buffers, &mut done, warm_up);
    let mut ended = 0;
    let counted = allocation_counter::measure(|| ended = run(channel, &buffers, &mut done, 100));
    assert_eq!(ended, 100 * BATCH);
    counted.count_total
}

fn null() -> Arc<dyn Bdev> {
    Arc::new(Null::new("null", 1 << 20, 512).expect("a size that is fine"))
}

#[test]
fn counter_sees_an_allocation() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(7))));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn null_requests_allocate_nothing() {
    assert_eq!(allocations(&mut null().open(), 0, 4), 0);
}

#[test]
fn malloc_requests_allocate_nothing() {
    let malloc = Malloc::new("malloc", 1 << 20, 512).expect("a megabyte");
    assert_eq!(allocations(&mut malloc.open(), 0, 4), 0);
}

#[test]
fn delay_requests_allocate_nothing_from_the_first_on() {
    let malloc = Arc::new(Malloc::new("malloc", 1 << 20, 512).expect("a megabyte"));
    let delay = Delay::new("delay", malloc, DelayConfig::timed(0, 0)).expect("times that are fine");
    assert_eq!(allocations(&mut delay.open(), 0, 16), 0);
}

#[test]
fn delay_requests_with_long_buffer_lists_allocate_nothing_once_warm() {
    let delay = Delay::new("delay", null(), DelayConfig::timed(0, 0)).expect("times that are fine");
    let mut channel = delay.open();
    assert_eq!(allocations(&mut channel, 1, 256), 0);
}

#[test]
fn delay_at_a_gate_with_more_than_the_reserve_allocates_nothing_once_warm() {
    const DEPTH: u64 = 1000;
    let gate = Gate::closed();
    let mut channel = Delay::held(null(), &gate).open();
    let mut done = Vec::with_capacity(DEPTH as usize);
    let mut round = || {
        gate.close();
        for n in 0..DEPTH {
            let io = Io::new(Op::Read, n, 1, &[], Token(n));
            assert_eq!(channel.submit(&io, Tsc(n)), Submitted::Pending);
        }
        gate.open();
        assert_eq!(channel.poll(Tsc(DEPTH), &mut done), DEPTH as usize);
        done.clear();
    };
    round();
    assert_eq!(allocation_counter::measure(round).count_total, 0);
}
