//! Kicks and calls of packed rings, by literal event suppression structures (virtio 1.3 §2.8.14).

use std::iter;

use virtqueue::{ChainBatch, Segment};

use crate::fixture::BUFFERS;
use crate::ring::Ring;

const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESC: u16 = 2;

#[test]
fn packed_kicks_are_asked_for_by_flags_or_by_the_position_of_the_next_chain() {
    for event_idx in [false, true] {
        let ring = Ring::with(4, event_idx);
        let (mut driver, mut device) = (ring.driver(), ring.device());
        device.disable_notifications();
        assert_eq!(ring.raw.device_event().1, DISABLE);
        driver.add(&[Segment::readable(BUFFERS, 1)], 0).unwrap();
        assert!(!driver.publish(), "nobody wants a kick");
        assert!(device.enable_notifications(), "it came before kicks were asked for");
        let batch = &mut ChainBatch::new(4, 4);
        assert_eq!(device.pop(&ring.guest.table, 4, batch), 1);
        assert!(!device.enable_notifications());
        assert_eq!(ring.raw.device_event(), if event_idx { (0x8001, DESC) } else { (0, ENABLE) });
        for wanted in [true, !event_idx] {
            driver.add(&[Segment::readable(BUFFERS, 1)], 0).unwrap();
            assert_eq!(driver.publish(), wanted, "only the first is at the position");
        }
        assert!(device.has_available());
    }
}

#[test]
fn packed_calls_come_when_the_event_is_in_the_batch_also_across_the_wrap() {
    let ring = Ring::with(4, true);
    let (mut driver, mut device) = (ring.driver(), ring.device());
    let mut batch = ChainBatch::new(4, 4);
    let mut round = |count: usize, event: (u16, u16)| {
        ring.raw.set_driver_event(event.0, event.1);
        for token in 0..count {
            driver.add(&[Segment::readable(BUFFERS, 1)], token).unwrap();
        }
        driver.publish();
        assert_eq!(device.pop(&ring.guest.table, 4, &mut batch), count);
        device.complete_popped(batch.chains(), iter::repeat(0));
        let wanted = device.publish();
        (0..count).for_each(|token| assert_eq!(driver.pop_used().unwrap().token, token));
        wanted
    };
    assert!(round(1, (0x8003, DESC)), "nobody knows what the driver was told before");
    assert!(!round(1, (0x8003, DESC)), "slot 1, the event is at 3");
    assert!(!round(1, (0x8000, DISABLE)));
    assert!(round(3, (0x0001, DESC)), "slots 3, 0 and 1: the event is slot 1 of the next round");
    assert!(!round(1, (0x8002, DESC)), "slot 2 of the round before");
    assert!(round(1, (0x7fff, ENABLE)));
    assert!(round(4, (0x8003, DESC)), "a whole round");
    assert!(!device.publish(), "nothing");
}
