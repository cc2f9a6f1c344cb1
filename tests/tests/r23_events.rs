//! R23: events. One that finds no buffer is lost, counted, and told of on the next buffer; what a driver puts on the event
//! queue never wedges it, and a driver that has not asked for events gets none.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Gate, Null};
use reactor::{Armed, Source as _};
use tests::device::{CHANGE, Device, EVENT, FIRST, HOTPLUG, Request, Setup, TEST_UNIT_READY, lun, read_10, unit};

const TRANSPORT_RESET: u32 = 1;
const MISSED: u32 = 0x8000_0000;
const RESCAN: u32 = 1;
const REMOVED: u32 = 2;
const NOTHING: [u8; 8] = [0; 8];

fn null() -> Arc<Null> {
    Arc::new(Null::new("disk", 1024, 512).unwrap())
}

fn device(features: u64) -> Device {
    let mut device = Device::ready(Setup::of([unit(0, 0, null())]));
    device.accept(features);
    device
}

fn plug(device: &mut Device, number: u16) {
    device.plug(unit(0, number, null())).unwrap();
}

fn at(number: u8) -> [u8; 8] {
    [1, 0, 0, number, 0, 0, 0, 0]
}

fn missed(device: &Device) -> u64 {
    device.count(|stats| stats.events_missed.value())
}

/// No event, rescan, removed, parameter change.
fn sent(device: &Device) -> [u64; 4] {
    [0, 1, 2, 3].map(|event| device.count(|stats| stats.events[event].value()))
}

#[test]
fn r23_events_arrive_in_order_and_are_counted() {
    let mut device = device(HOTPLUG);
    for _ in 0..3 {
        device.post_event_buffer(16);
    }
    plug(&mut device, 1);
    plug(&mut device, 255);
    device.unplug(0, 1).unwrap();
    let expected =
        [(TRANSPORT_RESET, at(1), RESCAN), (TRANSPORT_RESET, at(255), RESCAN), (TRANSPORT_RESET, at(1), REMOVED)];
    assert_eq!(device.events(), expected);
    assert_eq!((sent(&device), missed(&device)), ([0, 2, 1, 0], 0));
}

#[test]
fn r23_event_without_a_buffer_is_told_of_as_soon_as_there_is_one() {
    let mut device = device(HOTPLUG);
    plug(&mut device, 1);
    plug(&mut device, 2);
    device.run();
    assert_eq!((device.events(), missed(&device)), (vec![], 2));
    device.post_event_buffer(16);
    device.post_event_buffer(16);
    device.run();
    assert_eq!(device.events(), [(MISSED, NOTHING, 0)], "once, however many were lost");
    assert_eq!(sent(&device), [1, 0, 0, 0]);
    plug(&mut device, 3);
    assert_eq!(device.events(), [(TRANSPORT_RESET, at(3), RESCAN)], "and then as ever");
}

#[test]
fn r23_next_event_carries_the_flag_if_it_comes_first() {
    let mut device = device(HOTPLUG);
    plug(&mut device, 1);
    device.post_event_buffer(16);
    plug(&mut device, 2);
    device.run();
    assert_eq!(device.events(), [(MISSED | TRANSPORT_RESET, at(2), RESCAN)]);
    assert_eq!((sent(&device), missed(&device)), ([0, 1, 0, 0], 1));
}

#[test]
fn r23_buffer_that_is_too_short_comes_back_empty_and_the_next_one_is_used() {
    let mut device = device(HOTPLUG);
    for len in [1, 15, 12, 20] {
        device.post_event_buffer(len);
    }
    plug(&mut device, 1);
    let replies = device.take(EVENT);
    assert_eq!(replies.iter().map(|reply| reply.written).collect::<Vec<_>>(), [0, 0, 0, 16]);
    assert!(replies[..3].iter().all(|reply| reply.writable.iter().all(|byte| *byte == 0xa5)));
    let event = [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0xa5, 0xa5, 0xa5, 0xa5];
    assert_eq!(replies[3].writable, event);
    // None is left that is long enough.
    device.post_event_buffer(8);
    plug(&mut device, 2);
    device.run();
    assert_eq!((device.events(), missed(&device)), (vec![], 1));
    device.post_event_buffer(16);
    device.run();
    assert_eq!(device.events(), [(MISSED, NOTHING, 0)]);
    assert_eq!(device.outstanding(EVENT), 0);
}

#[test]
fn r23_event_is_written_across_descriptors_and_not_to_readable_ones() {
    let mut device = device(HOTPLUG);
    let segments = [device.readable(&[7; 24]), device.writable(3), device.writable(6), device.writable(30)];
    device.submit_chain(EVENT, &segments);
    plug(&mut device, 1);
    let reply = device.take_one(EVENT);
    assert_eq!(reply.written, 16);
    assert_eq!(reply.writable[..16], [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(device.guest.read(segments[0].addr, 24), [7; 24]);
}

#[test]
fn r23_driver_that_did_not_ask_for_hot_plug_events_gets_none_and_misses_none() {
    for features in [0, CHANGE] {
        let mut device = device(features);
        device.post_event_buffer(16);
        plug(&mut device, 1);
        device.unplug(0, 1).unwrap();
        device.run();
        assert_eq!((device.events(), missed(&device), sent(&device)), (vec![], 0, [0; 4]));
        // The unit attention does not depend on that.
        let reply = device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY));
        assert_eq!(reply.sense(), Some((0x06, 0x3f, 0x0e)));
    }
}

#[test]
fn r23_device_reset_forgets_what_was_missed() {
    let mut device = device(HOTPLUG);
    plug(&mut device, 1);
    device.shards.iter_mut().for_each(vhost_user::Shard::reset);
    device.post_event_buffer(16);
    device.run();
    assert_eq!(device.events(), [], "a driver that starts looks for everything anyway");
    plug(&mut device, 2);
    assert_eq!(device.events(), [(TRANSPORT_RESET, at(2), RESCAN)]);
}

/// A LUN whose every slot is taken holds up no event.
#[test]
fn r02_r23_full_lun_starves_no_event() {
    let gate = Gate::closed();
    let mut setup = Setup::of([unit(0, 0, Arc::new(Recorder::gated("disk", 1024, 512, &gate).unwrap()))]);
    setup.limits.cmd_per_lun = 2;
    setup.gate = gate;
    let mut device = Device::ready(setup);
    device.accept(HOTPLUG | CHANGE);
    device.post_event_buffer(16);
    device.post_event_buffer(16);
    let read = Request::new(lun(0, 0), &read_10(0, 1)).data_in(512);
    device.submit_many(FIRST, 5, read);
    device.run();
    assert_eq!(device.take(FIRST).len(), 3, "refused");
    plug(&mut device, 1);
    device.resize(0, 0, 512).unwrap();
    assert_eq!(device.events(), [(TRANSPORT_RESET, at(1), RESCAN), (3, at(0), 0x092a)]);
}

/// Event buffers that wait for events are no reason to stay awake; a buffer that events wait for is one.
#[test]
fn r23_missed_event_asks_for_a_kick_and_otherwise_the_queue_sleeps() {
    let mut device = device(HOTPLUG);
    for index in 0..3 {
        let _ = device.rings(index).set_kick(index, Some(tests::device::event()));
    }
    device.post_event_buffer(16);
    assert_eq!(device.shards[0].arm(), Armed::Sleep, "a buffer waits");
    device.shards[0].disarm();
    plug(&mut device, 1);
    assert_eq!(device.events().len(), 1);
    plug(&mut device, 2);
    assert_eq!(device.shards[0].arm(), Armed::Sleep, "no buffer yet, but its kick wakes");
    device.post_event_buffer(16);
    device.shards[0].disarm();
    assert_eq!(device.shards[0].arm(), Armed::Ready, "it is there");
    device.shards[0].disarm();
    device.run();
    assert_eq!(device.events(), [(MISSED, NOTHING, 0)]);
    device.post_event_buffer(16);
    assert_eq!(device.shards[0].arm(), Armed::Sleep);
    device.shards[0].disarm();
}

#[test]
fn r23_event_queue_that_is_stopped_misses_the_event_and_tells_when_it_runs_again() {
    let mut device = device(HOTPLUG);
    device.post_event_buffer(16);
    let stopped = device.stop(EVENT);
    device.run();
    let base = stopped.try_recv().unwrap().base.unwrap();
    plug(&mut device, 1);
    assert_eq!(missed(&device), 1);
    device.start(EVENT, base);
    device.run();
    assert_eq!(device.events(), [(MISSED, NOTHING, 0)]);
}
