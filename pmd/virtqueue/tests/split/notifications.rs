//! Kicks and calls: who wants to be told of what, with literal indices, and that nobody sleeps over it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use virtqueue::split::{RawSplit, SplitDevice, SplitDriver};
use virtqueue::{ChainBatch, Features, Segment};

use crate::fixture::{BUFFERS, Guest};

const EVENT_IDX: Features = Features { event_idx: true };

/// A ring of 8 whose indices all stand at `index`, each descriptor a chain of its own.
fn ring_at(features: Features, index: u16) -> (Guest, RawSplit, SplitDevice) {
    let guest = Guest::with(8, features);
    let raw = guest.raw();
    raw.set_avail_index(index);
    raw.set_used_index(index);
    for slot in 0..8 {
        raw.set_descriptor(slot, BUFFERS, 16, 0, 0);
        raw.set_avail_entry(slot, slot);
    }
    let device = SplitDevice::new(8, guest.rings(), index, features).unwrap();
    (guest, raw, device)
}

/// Makes `count` chains available, pops, completes and publishes them. Whether the driver wants a call.
fn serve(guest: &Guest, raw: &RawSplit, device: &mut SplitDevice, count: u16) -> bool {
    raw.set_avail_index(raw.avail_index().wrapping_add(count));
    let mut batch = ChainBatch::new(8, 0);
    assert_eq!(device.pop(&guest.table, 8, &mut batch), usize::from(count));
    for chain in batch.chains() {
        device.complete(chain.head, 0);
    }
    assert_eq!(device.unpublished(), count);
    let call = device.publish();
    assert_eq!((raw.used_index(), device.unpublished()), (raw.avail_index(), 0));
    call
}

#[test]
fn call_without_event_index_is_what_the_flag_says() {
    let (guest, raw, mut device) = ring_at(Features::default(), 0);
    assert!(serve(&guest, &raw, &mut device, 1));
    raw.set_avail_flags(1);
    assert!(!serve(&guest, &raw, &mut device, 1));
    raw.set_avail_flags(0xfffe); // reserved bits mean nothing
    assert!(serve(&guest, &raw, &mut device, 1));
}

#[test]
fn call_with_event_index_comes_when_the_event_is_in_the_batch() {
    let (guest, raw, mut device) = ring_at(EVENT_IDX, 0);
    assert!(serve(&guest, &raw, &mut device, 1), "the first one: nobody knows what the driver was told last");
    // Used entries 1 to 4.
    raw.set_used_event(0);
    assert!(!serve(&guest, &raw, &mut device, 4), "0 was used before");
    // 5 to 8.
    raw.set_used_event(5);
    assert!(serve(&guest, &raw, &mut device, 4));
    // 9 to 12.
    raw.set_used_event(12);
    assert!(serve(&guest, &raw, &mut device, 4));
    // 13 to 16.
    raw.set_used_event(17);
    assert!(!serve(&guest, &raw, &mut device, 4), "17 is still to come");
    // 17 alone. The flag means nothing with event indices.
    raw.set_avail_flags(1);
    assert!(serve(&guest, &raw, &mut device, 1));
}

#[test]
fn call_with_event_index_works_across_the_wrap() {
    for (event, called) in [(65533, false), (65534, true), (65535, true), (0, true), (1, true), (2, false)] {
        let (guest, raw, mut device) = ring_at(EVENT_IDX, 65533);
        assert!(serve(&guest, &raw, &mut device, 1));
        raw.set_used_event(event);
        assert_eq!(serve(&guest, &raw, &mut device, 4), called, "entries 65534, 65535, 0, 1; event {event}");
        assert_eq!(raw.used_index(), 2);
    }
}

#[test]
fn publish_of_nothing_writes_nothing_and_wants_no_call() {
    let (_guest, raw, mut device) = ring_at(EVENT_IDX, 7);
    raw.set_used_index(99);
    assert!(!device.publish());
    assert_eq!(raw.used_index(), 99);
}

#[test]
fn completion_is_not_visible_before_it_is_published() {
    let (guest, raw, mut device) = ring_at(Features::default(), 0);
    raw.set_avail_index(2);
    device.pop(&guest.table, 8, &mut ChainBatch::new(8, 0));
    device.complete(1, 0x1234);
    assert_eq!((raw.used_index(), raw.used_element(0)), (0, (1, 0x1234)));
    assert_eq!((device.in_flight(), device.unpublished()), (1, 1));
    device.complete(0, 0);
    device.publish();
    assert_eq!((raw.used_index(), raw.used_element(1)), (2, (0, 0)));
}

#[test]
fn kicks_without_event_index_are_asked_for_by_the_flag() {
    let (_guest, raw, mut device) = ring_at(Features::default(), 3);
    raw.set_used_flags(0xffff);
    device.disable_notifications();
    assert_eq!(raw.used_flags(), 1);
    assert!(!device.enable_notifications());
    assert_eq!(raw.used_flags(), 0);
}

#[test]
fn kicks_with_event_index_are_asked_for_by_the_event() {
    let (_guest, raw, mut device) = ring_at(EVENT_IDX, 65535);
    raw.set_used_flags(0);
    assert!(!device.enable_notifications());
    assert_eq!(raw.avail_event(), 65535);
    device.disable_notifications();
    assert_eq!(raw.avail_event(), 65534, "an entry that was fetched long ago");
    assert_eq!(raw.used_flags(), 0, "with event indices the flag stays 0");
}

#[test]
fn chain_that_came_before_kicks_were_asked_for_is_seen() {
    for features in [Features::default(), EVENT_IDX] {
        let (guest, raw, mut device) = ring_at(features, 65535);
        device.disable_notifications();
        raw.set_avail_index(0);
        assert!(device.has_available());
        assert!(device.enable_notifications(), "do not sleep");
        assert_eq!(device.pop(&guest.table, 8, &mut ChainBatch::new(8, 0)), 1);
        assert!(!device.enable_notifications(), "sleep");
    }
}

#[test]
fn driver_kicks_exactly_when_it_is_asked_to() {
    for features in [Features::default(), EVENT_IDX] {
        let guest = Guest::with(8, features);
        let mut driver = guest.driver();
        let mut device = guest.device();
        let mut batch = ChainBatch::new(8, 0);
        let submit = |driver: &mut SplitDriver, count| {
            for token in 0..count {
                driver.add(&[Segment::readable(BUFFERS, 8)], token).unwrap();
            }
            driver.publish()
        };
        let mut serve = |device: &mut SplitDevice, driver: &mut SplitDriver| {
            let count = device.pop(&guest.table, 8, &mut batch);
            batch.chains().iter().for_each(|chain| device.complete(chain.head, 0));
            device.publish();
            while driver.pop_used().is_some() {}
            count
        };
        device.disable_notifications();
        assert!(!submit(&mut driver, 2));
        assert_eq!(serve(&mut device, &mut driver), 2);
        assert!(!submit(&mut driver, 3));
        assert_eq!(serve(&mut device, &mut driver), 3);
        assert!(!device.enable_notifications());
        assert!(submit(&mut driver, 2));
        assert!(!driver.publish(), "nothing new");
        assert_eq!(serve(&mut device, &mut driver), 2);
    }
}

#[test]
fn polling_device_with_event_index_is_kicked_at_most_once_in_65536_entries() {
    let guest = Guest::with(8, EVENT_IDX);
    let mut driver = guest.driver();
    let mut device = guest.device();
    device.disable_notifications();
    let prepared = driver.prepare(&[Segment::readable(BUFFERS, 8)], 0).unwrap();
    let mut batch = ChainBatch::new(1, 0);
    let mut kicks = 0;
    for _ in 0..3 * 65536 {
        driver.submit(&prepared);
        kicks += u32::from(driver.publish());
        assert_eq!(device.pop(&guest.table, 1, &mut batch), 1);
        device.complete(prepared.head(), 0);
        device.publish();
        driver.pop_used().unwrap();
    }
    assert_eq!(kicks, 3);
}

#[test]
fn calls_are_asked_for_by_the_driver_in_the_same_way() {
    for features in [Features::default(), EVENT_IDX] {
        let guest = Guest::with(8, features);
        let mut driver = guest.driver();
        let mut device = guest.device();
        let raw = driver.raw();
        let mut batch = ChainBatch::new(8, 0);
        let mut round = |driver: &mut SplitDriver, device: &mut SplitDevice| {
            driver.add(&[Segment::readable(BUFFERS, 8)], 0).unwrap();
            driver.publish();
            assert_eq!(device.pop(&guest.table, 8, &mut batch), 1);
            device.complete(batch.chains()[0].head, 0);
            device.publish()
        };
        round(&mut driver, &mut device);
        assert!(driver.enable_calls(), "one came back already");
        assert!(driver.pop_used().is_some());
        assert!(!driver.enable_calls());
        assert!(round(&mut driver, &mut device));
        assert!(driver.pop_used().is_some());
        driver.disable_calls();
        assert!(!round(&mut driver, &mut device));
        assert_eq!(raw.avail_flags(), u16::from(!features.event_idx));
    }
}

/// Device and driver both sleep whenever they find nothing. A notification that is missed leaves both asleep.
#[test]
fn sleepers_on_both_sides_never_miss_a_notification() {
    for features in [Features::default(), EVENT_IDX] {
        exchange_between_sleepers(features);
    }
}

fn exchange_between_sleepers(features: Features) {
    const CHAINS: usize = 20_000;
    const LONG: Duration = Duration::from_secs(30);
    let guest = Guest::with(8, features);
    let mut driver = guest.driver();
    let mut device = guest.device();
    let (kick, kicked) = mpsc::channel();
    let (call, called) = mpsc::channel();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (guest, done) = (&guest, &done);
        scope.spawn(move || {
            let mut batch = ChainBatch::new(4, 0);
            while !done.load(Ordering::Relaxed) {
                if device.pop(&guest.table, 4, &mut batch) == 0 {
                    if !device.enable_notifications() {
                        match kicked.recv_timeout(LONG) {
                            Ok(()) => device.disable_notifications(),
                            Err(RecvTimeoutError::Disconnected) => break,
                            Err(RecvTimeoutError::Timeout) => panic!("the device waits for a kick"),
                        }
                    }
                    continue;
                }
                batch.chains().iter().for_each(|chain| device.complete(chain.head, 0));
                if device.publish() {
                    let _ = call.send(());
                }
            }
        });
        let (mut added, mut back) = (0, 0);
        while back < CHAINS {
            while added < CHAINS && driver.add(&[Segment::readable(BUFFERS, 8)], added).is_ok() {
                added += 1;
                // Many small batches: that is where races are.
                if added % 3 == 0 {
                    break;
                }
            }
            if driver.publish() {
                let _ = kick.send(());
            }
            let before = back;
            while let Some(used) = driver.pop_used() {
                assert_eq!(used.token, back);
                back += 1;
            }
            if back == before && back < CHAINS && driver.in_flight() > 0 && !driver.enable_calls() {
                called.recv_timeout(LONG).expect("the driver waits for a call");
                driver.disable_calls();
            }
        }
        done.store(true, Ordering::Relaxed);
        drop(kick);
    });
    assert_eq!(driver.fault(), None);
}
