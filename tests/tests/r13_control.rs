//! R13: whatever comes on the control queue is completed: Linux waits for ever for what is not.

use std::sync::Arc;

use bdev::testing::Recorder;
use tests::device::{CONTROL, Device, Message, Noise, Reply, Setup, UNWRITTEN, lun, task_management, unit};

const BAD_TARGET: u8 = 3;
const FAILURE: u8 = 9;
const AN_QUERY: u32 = 1;
const AN_SUBSCRIBE: u32 = 2;

fn device() -> Device {
    let disk = Recorder::new("disk", 64, 512).unwrap();
    Device::ready(Setup::of([unit(0, 0, Arc::new(disk))]))
}

/// type, lun, event_requested; event_actual, response (virtio 1.3 §5.6.6.2).
fn notification(kind: u32, lun: [u8; 8], events: u32) -> Message {
    let mut readable = kind.to_le_bytes().to_vec();
    readable.extend(lun);
    readable.extend(events.to_le_bytes());
    Message { readable, writable: 5 }
}

/// virtio 1.3 §2.7.8.2: the device has written at least the length that it tells, from the first byte on.
fn assert_honest(reply: &Reply, what: &str) {
    let told = &reply.writable[..reply.written as usize];
    assert!(told.iter().all(|byte| *byte != UNWRITTEN), "{what}: {} of {}", reply.written, reply.writable.len());
}

#[test]
fn r13_asynchronous_notification_answers_that_there_is_none() {
    let mut device = device();
    for kind in [AN_QUERY, AN_SUBSCRIBE] {
        for address in [lun(0, 0), [1, 0, 0, 0, 0, 0, 0, 0], lun(0, 7), [0xc1, 1, 0, 0, 0, 0, 0, 0]] {
            for events in [0, 2, 0x3e, u32::MAX] {
                let reply = device.answer(CONTROL, notification(kind, address, events));
                assert_eq!((reply.writable.as_slice(), reply.written), (&[0, 0, 0, 0, 0][..], 5), "{address:02x?}");
            }
        }
        for address in [lun(9, 0), [0; 8], [1, 0, 0x80, 0, 0, 0, 0, 0]] {
            let reply = device.answer(CONTROL, notification(kind, address, 2));
            assert_eq!(
                (reply.writable.as_slice(), reply.written),
                (&[0, 0, 0, 0, BAD_TARGET][..], 5),
                "{address:02x?}"
            );
        }
    }
}

#[test]
fn r13_unknown_types_fail_in_the_last_byte_of_the_answer() {
    let mut device = device();
    for kind in [3u32, 4, 0x100, 0x0100_0000, u32::MAX] {
        for room in [1, 2, 5, 12, 108] {
            let mut readable = kind.to_le_bytes().to_vec();
            readable.extend([0; 20]);
            let reply = device.answer(CONTROL, Message { readable, writable: room });
            assert_eq!(reply.writable[room - 1], FAILURE, "type {kind}, room for {room}");
            assert_honest(&reply, &format!("type {kind}, room for {room}"));
        }
    }
}

#[test]
fn r13_last_byte_may_be_in_any_descriptor() {
    let mut device = device();
    let message = Message { readable: vec![9, 0, 0, 0], writable: 5 };
    for cuts in [vec![1, 1, 1, 1], vec![4], vec![0, 3, 0], vec![2, 2]] {
        let chain = device.cut(&message, &[1, 1, 1], &cuts);
        let reply = device.answer_chain(CONTROL, &chain);
        assert_eq!(reply.writable[4], FAILURE);
        assert_honest(&reply, "in pieces");
    }
}

/// Requests of every kind, cut off at every length, with room for every answer.
#[test]
fn r13_every_length_is_completed() {
    let mut device = device();
    let requests = [
        task_management(5, lun(0, 0), 0).readable,
        notification(AN_QUERY, lun(0, 0), 0).readable,
        notification(AN_SUBSCRIBE, lun(0, 0), 0).readable,
        [7; 24].to_vec(),
    ];
    let mut bare = 0;
    for (kind, request) in requests.iter().enumerate() {
        for readable in 0..=request.len() {
            for writable in 0..=8 {
                if readable + writable == 0 {
                    continue;
                }
                let message = Message { readable: request[..readable].to_vec(), writable };
                let chain = device.cut(&message, &[], &[]);
                let reply = device.answer_chain(CONTROL, &chain);
                let what = format!("kind {kind}, {readable} bytes, room for {writable}");
                assert_honest(&reply, &what);
                let whole = readable == request.len();
                match (kind, writable) {
                    (_, 0) => {
                        bare += 1;
                        assert_eq!(reply.written, 0, "{what}");
                    }
                    (0, _) if whole => assert_eq!((reply.writable[0], reply.written), (0, 1), "{what}"),
                    (1 | 2, 5..) if whole => assert_eq!((&reply.writable[..5], reply.written), (&[0; 5][..], 5)),
                    _ => assert_eq!(reply.writable[writable - 1], FAILURE, "{what}"),
                }
                assert_eq!(device.count(|stats| stats.no_response_room.value()), bare, "{what}");
            }
        }
    }
    assert!(!device.broken(CONTROL));
}

#[test]
fn r13_task_management_is_read_however_it_is_cut() {
    let mut device = device();
    for cuts in [vec![1; 24], vec![4, 4, 8, 8], vec![23], vec![0, 24]] {
        let chain = device.cut(&task_management(0, lun(0, 0), 1), &cuts, &[]);
        let reply = device.answer_chain(CONTROL, &chain);
        assert_eq!((reply.byte(), reply.written), (0, 1));
        let chain = device.cut(&notification(AN_QUERY, lun(0, 0), 1), &cuts, &[1, 1, 1]);
        let reply = device.answer_chain(CONTROL, &chain);
        assert_eq!((reply.writable.as_slice(), reply.written), (&[0; 5][..], 5));
    }
}

#[test]
fn r13_large_answer_areas_are_not_filled() {
    let mut device = device();
    let reply = device.answer(CONTROL, Message { readable: vec![9; 24], writable: 100_000 });
    assert_eq!(reply.writable[99_999], FAILURE);
    assert_honest(&reply, "a large area");
    assert!(reply.writable[1000..99_999].iter().all(|byte| *byte == UNWRITTEN), "a poller has no time for that");
}

#[test]
fn r13_random_requests_are_each_completed_once() {
    const SEED: u64 = 13;
    let mut device = device();
    let mut noise = Noise::new(SEED);
    for round in 0..10_000 {
        let mut readable: Vec<u8> = (0..noise.below(40)).map(|_| noise.bits() as u8).collect();
        if readable.len() >= 16 && noise.once_in(2) {
            readable[..4].copy_from_slice(&(noise.below(4) as u32).to_le_bytes());
            readable[4..8].copy_from_slice(&(noise.below(9) as u32).to_le_bytes());
        }
        let message = Message { writable: noise.below(10) as usize, readable };
        if message.readable.len() + message.writable > 0 {
            let cuts = [noise.below(10) as usize, noise.below(10) as usize];
            let chain = device.cut(&message, &cuts, &cuts);
            let reply = device.answer_chain(CONTROL, &chain);
            assert_honest(&reply, &format!("seed {SEED}, round {round}"));
        }
    }
    assert!(!device.broken(CONTROL));
    assert_eq!(device.manage(5, lun(0, 0), 0), 0);
}
