//! What comes back, in which order, and what happens when nobody listens.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::testing::{Memory, attachment, batch_of};
use crate::{Checksum, Mac, Segmentation};

fn queues(frames_max: usize, count: usize) -> (Vec<Box<dyn PortQueue>>, Vec<Arc<PortStats>>) {
    let device = attachment("a", Mac([2, 0, 0, 0, 0, 1]), count, false);
    let port = Loopback::new("echo", LoopbackConfig { frames_max });
    let mut queues = port.attach(&device).expect("attached");
    queues.iter_mut().for_each(|queue| queue.set_open(true));
    (queues, device.stats)
}

fn queue(frames_max: usize) -> (Box<dyn PortQueue>, Arc<PortStats>) {
    let (mut queues, stats) = queues(frames_max, 1);
    (queues.remove(0), Arc::clone(&stats[0]))
}

/// The frames of a burst, as addresses and lengths of their segments.
fn received(queue: &mut dyn PortQueue, limit: usize) -> Vec<Vec<(usize, usize)>> {
    let mut batch = FrameBatch::new(32, 64);
    queue.rx_burst(&mut batch, limit);
    batch.frames().map(|frame| places(frame.segments)).collect()
}

fn places(segments: &[GuestSlice]) -> Vec<(usize, usize)> {
    segments.iter().map(|segment| (segment.as_ptr().addr(), segment.len())).collect()
}

#[test]
fn loopback_gives_back_the_same_memory_with_what_is_left_to_do() {
    let (mut queue, stats) = queue(8);
    let memory = Memory::of(&[7; 100]);
    let offload = Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        segmentation: Segmentation::Tcp4 { size: 10, ecn: false },
    };
    let segments = memory.cut(&[20, 30]);
    assert_eq!(queue.tx_burst(&batch_of(&segments, offload)), 1);
    assert_eq!((queue.tx_done(), queue.arm()), (0, Armed::Ready));
    let mut batch = FrameBatch::new(1, 1);
    assert_eq!(queue.rx_burst(&mut batch, 32), 1);
    assert_eq!((batch.frame(0).len, batch.frame(0).offload), (100, offload));
    assert_eq!(places(batch.frame(0).segments), places(&segments));
    assert_eq!((queue.tx_done(), queue.rx_burst(&mut batch, 32)), (0, 0));
    queue.rx_done(1);
    assert_eq!((queue.tx_done(), queue.tx_done(), queue.arm()), (1, 0, Armed::Sleep));
    assert_eq!((stats.tx_frames.value(), stats.tx_bytes.value()), (1, 100));
    assert_eq!((stats.rx_frames.value(), stats.rx_bytes.value()), (1, 100));
}

#[test]
fn loopback_keeps_queue_pairs_apart() {
    let (mut queues, _) = queues(8, 2);
    let memory = Memory::of(&[7; 60]);
    queues[1].tx_burst(&batch_of(&[memory.at(0, 60)], Offload::NONE));
    assert!(received(&mut *queues[0], 32).is_empty());
    assert_eq!(received(&mut *queues[1], 32).len(), 1);
}

#[test]
fn r27_loopback_that_is_full_takes_no_more() {
    let (mut queue, _) = queue(3);
    let memory = Memory::of(&[7; 60]);
    let mut batch = FrameBatch::new(5, 5);
    (0..5).for_each(|_| batch.push(memory.at(0, 60), &[], Offload::NONE));
    assert_eq!((queue.tx_burst(&batch), queue.tx_burst(&batch)), (3, 0));
    assert_eq!(received(&mut *queue, 2).len(), 2);
    queue.rx_done(2);
    assert_eq!((queue.tx_done(), queue.tx_burst(&batch)), (2, 2));
}

#[test]
fn r27_loopback_that_is_closed_holds_nothing_and_says_so() {
    let (mut queue, stats) = queue(8);
    let memory = Memory::of(&[7; 60]);
    let batch = batch_of(&[memory.at(0, 60)], Offload::NONE);
    queue.tx_burst(&batch);
    queue.tx_burst(&batch);
    queue.set_open(false);
    assert_eq!(queue.tx_done(), 2);
    assert_eq!((queue.tx_burst(&batch), queue.tx_done()), (1, 1));
    assert_eq!(stats.drops[DropCause::NoDestination as usize].value(), 3);
    assert_eq!(stats.tx_frames.value(), 2, "the last one found it closed");
    queue.set_open(true);
    assert!(received(&mut *queue, 32).is_empty());
}

#[test]
fn r27_loopback_loses_what_is_no_frame_and_goes_on() {
    let (mut queue, stats) = queue(8);
    let memory = Memory::of(&[7; 2000]);
    let mut batch = FrameBatch::new(4, 1100);
    batch.push(memory.at(0, 13), &[], Offload::NONE);
    batch.push(memory.at(0, 60), &[], Offload::NONE);
    batch.push(GuestSlice::EMPTY, &vec![memory.at(0, 1); 1025], Offload::NONE);
    batch.push(memory.at(0, 61), &vec![memory.at(0, 1); 1000], Offload::NONE);
    assert_eq!((queue.tx_burst(&batch), queue.tx_done()), (4, 1));
    let lens: Vec<usize> = received(&mut *queue, 32).iter().map(Vec::len).collect();
    assert_eq!(lens, [1, 1001]);
    queue.rx_done(1);
    // The lost one between the two is done with the first.
    assert_eq!(queue.tx_done(), 2);
    queue.rx_done(1);
    assert_eq!(queue.tx_done(), 1);
    assert_eq!(stats.drops[DropCause::Length as usize].value(), 2);
    assert_eq!(stats.tx_frames.value(), 2, "only what was kept was sent on");
}

#[test]
fn r27_segments_that_end_where_their_ring_ends_are_followed_by_others() {
    let slices = [GuestSlice::EMPTY; 8];
    let mut ring = SegmentRing::new(8);
    assert_eq!((ring.keep(&slices[..6]), ring.keep(&slices[..2]), ring.keep(&slices[..1])), (Some(0), Some(6), None));
    ring.release(0, 6);
    assert_eq!((ring.keep(&slices[..5]), ring.keep(&slices[..2])), (Some(0), None));
    ring.release(6, 2);
    ring.release(0, 5);
    assert_eq!((ring.used, ring.keep(&slices)), (0, Some(0)));
}

#[test]
fn loopback_at_work_allocates_nothing() {
    let (mut queue, _) = queue(64);
    let memory = Memory::of(&[7; 100]);
    let (mut batch, mut back) = (FrameBatch::new(32, 96), FrameBatch::new(32, 96));
    (0..32).for_each(|_| batch.push(memory.at(0, 60), &[memory.at(60, 10), memory.at(70, 30)], Offload::NONE));
    let allocations = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert_eq!((queue.tx_burst(&batch), queue.rx_burst(&mut back, 32)), (32, 32));
            queue.rx_done(32);
            assert_eq!(queue.tx_done(), 32);
        }
    });
    assert_eq!(allocations.count_total, 0);
}

/// One thing that a device does.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<usize>),
    Receive(usize),
    Done(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let send = prop::collection::vec(prop_oneof![1..5usize, 1..40usize, Just(900)], 0..6).prop_map(Step::Send);
    prop::collection::vec(
        prop_oneof![send, (0..8usize).prop_map(Step::Receive), (0..8usize).prop_map(Step::Done)],
        0..80,
    )
}

proptest! {
    /// What comes back is what was taken, in order, and is done when the device has copied it, not before.
    #[test]
    fn loopback_in_any_order_of_steps_echoes_in_order(steps in steps()) {
        let memory = Memory::of(&[7; 2000]);
        let (mut queue, _) = queue(6);
        let (mut sent, mut seen, mut copied, mut done) = (Vec::new(), 0, 0, 0);
        for step in steps {
            match step {
                Step::Send(counts) => {
                    let mut batch = FrameBatch::new(6, 1000);
                    // Every frame has an address and a number of segments of its own.
                    for (index, count) in counts.iter().enumerate() {
                        let first = memory.at((sent.len() + index) % 1900, 60);
                        batch.push(first, &vec![memory.at(5, 2); *count - 1], Offload::NONE);
                    }
                    let taken = queue.tx_burst(&batch);
                    sent.extend(batch.frames().take(taken).map(|frame| places(frame.segments)));
                    prop_assert!(sent.len() - copied <= 6);
                }
                Step::Receive(limit) => {
                    let frames = received(&mut *queue, limit);
                    prop_assert_eq!(&frames[..], &sent[seen..seen + limit.min(sent.len() - seen)]);
                    seen += frames.len();
                }
                Step::Done(frames) => {
                    queue.rx_done(frames);
                    copied = seen.min(copied + frames);
                }
            }
            done += queue.tx_done();
            prop_assert_eq!(done, copied);
        }
    }
}
