//! R26: the control queue of a net device, for front-ends that pass it on. Every command comes back with a byte that says OK
//! or ERR, and does what it says; nothing is ever left on the queue.

use tests::device::{Device, Noise};
use tests::wire::{MAC, NetSetup, rx};
use virtio_net::wire::feature;
use virtio_net::{NetDevice, NetDrop};

const ALL: u64 = feature::VERSION_1
    | feature::MRG_RXBUF
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_RX_EXTRA
    | feature::CTRL_VLAN
    | feature::CTRL_MAC_ADDR
    | feature::GUEST_ANNOUNCE
    | feature::MQ
    | feature::CTRL_GUEST_OFFLOADS
    | feature::GUEST_CSUM
    | feature::GUEST_TSO4;

fn setup(queue_pairs: u16, features: u64) -> NetSetup {
    NetSetup { queue_pairs, features, ..NetSetup::default() }
}

/// A command in the usual framing: class and command, data, room for the answer. The answer.
#[track_caller]
fn command(device: &mut Device<NetDevice>, ring: u16, class: u8, command: u8, data: &[u8]) -> u8 {
    let mut segments = vec![device.readable(&[class, command])];
    if !data.is_empty() {
        segments.push(device.readable(data));
    }
    segments.push(device.writable(1));
    let reply = device.answer_chain(ring, &segments);
    assert_eq!(reply.written, 1);
    reply.byte()
}

fn frame_to(to: [u8; 6], vlan: Option<u16>) -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[..6].copy_from_slice(&to);
    if let Some(vlan) = vlan {
        frame[12..14].copy_from_slice(&[0x81, 0]);
        frame[14..16].copy_from_slice(&vlan.to_be_bytes());
    }
    frame
}

#[test]
fn r26_commands_are_answered_by_what_they_are() {
    let cases: &[(u8, u8, &[u8], u8)] = &[
        (0, 0, &[1], 0),
        (0, 1, &[0], 0),
        (0, 2, &[1], 0),
        (0, 5, &[0], 0),
        (0, 6, &[0], 1),
        (0, 0, &[], 1),
        (0, 0, &[1, 1], 1),
        (1, 0, &[0, 0, 0, 0, 0, 0, 0, 0], 0),
        (1, 0, &[1, 0, 0, 0, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0], 0),
        (1, 0, &[1, 0, 0, 0, 0, 0, 0, 0], 1),
        (1, 0, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 1),
        (1, 0, &[0, 0, 0, 0, 0, 0, 0, 0, 0], 1),
        (1, 1, &[2, 0, 0, 0, 0, 1], 0),
        (1, 1, &[2, 0, 0, 0, 0], 1),
        (1, 1, &[1, 0, 0, 0, 0, 1], 1),
        (1, 2, &[], 1),
        (2, 0, &[100, 0], 0),
        (2, 1, &[100, 0], 0),
        (2, 0, &[0, 0x10], 1),
        (2, 0, &[0], 1),
        (2, 2, &[0, 0], 1),
        (3, 0, &[], 0),
        (3, 1, &[], 1),
        (4, 0, &[1, 0], 0),
        (4, 0, &[2, 0], 0),
        (4, 0, &[0, 0], 1),
        (4, 0, &[3, 0], 1),
        (4, 0, &[1], 1),
        (4, 1, &[0; 40], 1),
        (5, 0, &[0x83, 0, 0, 0, 0, 0, 0, 0], 1), // CSUM is no offload of the driver's
        (5, 0, &[0x82, 0, 0, 0, 0, 0, 0, 0], 0),
        (5, 0, &[2, 0, 0, 0, 0, 0, 0, 0], 0),
        (5, 0, &[0, 0, 0, 0, 0, 0, 0, 0], 0),
        (5, 0, &[0x80, 0, 0, 0, 0, 0, 0, 0], 1), // TSO4 without the checksum
        (5, 0, &[2, 1, 0, 0, 0, 0, 0, 0], 1),    // TSO6 was not negotiated
        (5, 0, &[2], 1),
        (6, 0, &[], 1),
        (0xff, 0xff, &[0; 100], 1),
    ];
    let (mut device, _wire) = setup(2, ALL).start();
    for (class, code, data, answer) in cases {
        assert_eq!(command(&mut device, 4, *class, *code, data), *answer, "class {class} command {code} {data:?}");
    }
    let ok = cases.iter().filter(|case| case.3 == 0).count() as u64;
    assert_eq!(device.sum(|stats| stats.control_ok.value()), ok);
    assert_eq!(device.sum(|stats| stats.control_errors.value()), cases.len() as u64 - ok);
}

#[test]
fn r26_commands_that_were_not_negotiated_are_errors() {
    let (mut device, _wire) = setup(2, feature::VERSION_1 | feature::CTRL_VQ).start();
    // Without MQ the control queue is behind the first pair (virtio 1.3 §5.1.2).
    for (class, code, data) in [
        (0, 0, &[1][..]),
        (0, 2, &[1]),
        (1, 0, &[0; 8]),
        (1, 1, &MAC.0),
        (2, 0, &[1, 0]),
        (3, 0, &[]),
        (4, 0, &[1, 0]),
        (5, 0, &[0; 8]),
    ] {
        assert_eq!(command(&mut device, 2, class, code, data), 1, "class {class} command {code}");
    }
}

#[test]
fn r26_any_framing_is_the_same_command_and_none_is_left_on_the_queue() {
    let (mut device, _wire) = setup(1, ALL).start();
    let bytes = [4, 0, 1, 0];
    for cut in 1..4 {
        let segments = [device.readable(&bytes[..cut]), device.readable(&bytes[cut..]), device.writable(8)];
        let reply = device.answer_chain(2, &segments);
        assert_eq!((reply.written, reply.writable[0], reply.writable[1]), (1, 0, 0xa5));
    }
    for bytes in [&[][..], &[4]] {
        let mut segments: Vec<_> = bytes.chunks(1).map(|part| device.readable(part)).collect();
        segments.push(device.writable(1));
        let reply = device.answer_chain(2, &segments);
        assert_eq!((reply.written, reply.byte()), (1, 1), "{bytes:?}");
    }
    // No room for an answer: the command is not done, and comes back all the same.
    let segment = device.readable(&[0, 0, 0]);
    assert_eq!(device.answer_chain(2, &[segment]).written, 0);
    assert!(!device.broken(2));
}

#[test]
fn r26_random_commands_are_all_answered() {
    let mut noise = Noise::new(26);
    let (mut device, _wire) = setup(4, ALL).start();
    for _ in 0..10_000 {
        let data: Vec<u8> = (0..noise.below(40)).map(|_| noise.bits() as u8).collect();
        let answer = command(&mut device, 8, noise.below(8) as u8, noise.below(8) as u8, &data);
        assert!(answer <= 1);
    }
}

#[test]
fn r26_driver_receives_what_it_has_asked_for() {
    let (mut device, wire) = setup(1, ALL & !feature::CTRL_VLAN).start();
    device.refill(0, 32, 200);
    let passes = |device: &mut Device<NetDevice>, to: [u8; 6]| {
        wire.deliver(0, &frame_to(to, None));
        device.run();
        device.received(0).len() == 1
    };
    let (other, group) = ([2, 0, 0, 0, 0, 9], [0x33, 0x33, 0, 0, 0, 1]);
    assert!(passes(&mut device, other) && passes(&mut device, group));
    assert_eq!(command(&mut device, 2, 0, 0, &[0]), 0); // no longer promiscuous
    assert!(passes(&mut device, MAC.0) && passes(&mut device, [0xff; 6]));
    assert!(!passes(&mut device, other) && !passes(&mut device, group));
    assert_eq!(command(&mut device, 2, 1, 1, &other), 0); // another address
    assert!(passes(&mut device, other) && !passes(&mut device, MAC.0));
    let tables = [&[0, 0, 0, 0, 1, 0, 0, 0][..], &group].concat();
    assert_eq!(command(&mut device, 2, 1, 0, &tables), 0);
    assert!(passes(&mut device, group) && !passes(&mut device, [0x33, 0x33, 0, 0, 0, 2]));
    assert_eq!(command(&mut device, 2, 0, 1, &[1]), 0); // all multicast
    assert!(passes(&mut device, [0x33, 0x33, 0, 0, 0, 2]));
    assert_eq!(command(&mut device, 2, 0, 5, &[1]), 0); // no broadcast
    assert!(!passes(&mut device, [0xff; 6]));
    assert_eq!(device.all_dropped(), 0, "what the driver does not want is not lost");
    assert_eq!(device.sum(|stats| stats.pairs[0].device.rx.filtered.value()), 5, "but counted");
}

#[test]
fn r26_vlans_pass_when_the_driver_has_named_them() {
    let (mut device, wire) = setup(1, ALL).start();
    device.refill(0, 32, 200);
    let passes = |device: &mut Device<NetDevice>, vlan| {
        wire.deliver(0, &frame_to(MAC.0, vlan));
        device.run();
        device.received(0).len() == 1
    };
    assert!(passes(&mut device, None) && !passes(&mut device, Some(7)));
    assert_eq!(command(&mut device, 2, 2, 0, &[7, 0]), 0);
    assert!(passes(&mut device, Some(7)) && !passes(&mut device, Some(8)));
    assert_eq!(command(&mut device, 2, 2, 1, &[7, 0]), 0);
    assert!(!passes(&mut device, Some(7)));
}

#[test]
fn r26_pairs_receive_when_the_driver_has_set_their_number() {
    for shards in [1, 2] {
        let (mut device, wire) = NetSetup { shards, ..setup(2, ALL) }.start();
        assert!(wire.lane(0).open && !wire.lane(1).open, "one pair until the driver says more");
        assert_eq!(command(&mut device, 4, 4, 0, &[2, 0]), 0);
        device.run();
        assert!(wire.lane(0).open && wire.lane(1).open);
        device.refill(1, 4, 200);
        wire.deliver(1, &frame_to(MAC.0, None));
        device.run();
        assert_eq!(device.take(rx(1)).len(), 1);
        assert_eq!(command(&mut device, 4, 4, 0, &[1, 0]), 0);
        device.run();
        assert!(!wire.lane(1).open);
        // What still comes on the second pair: to the first one, if that is on the same poller.
        device.refill(0, 4, 200);
        wire.deliver(1, &frame_to(MAC.0, None));
        device.run();
        let (came, lost) = (device.take(rx(0)).len(), device.rx_dropped(NetDrop::QueueDisabled));
        assert_eq!((wire.waiting(1), came, lost), if shards == 1 { (0, 1, 0) } else { (0, 0, 1) });
    }
}

#[test]
fn r26_guest_offloads_are_what_the_driver_wants_now() {
    use port::{Checksum, Offload};
    let (mut device, wire) = setup(1, ALL & !feature::MQ).start();
    device.refill(0, 32, 200);
    let flags = |device: &mut Device<NetDevice>| {
        wire.deliver_pieces(0, vec![frame_to(MAC.0, None)], Offload { checksum: Checksum::Valid, ..Offload::NONE });
        device.run();
        device.received(0)[0].0[0]
    };
    assert_eq!(flags(&mut device), 2); // DATA_VALID
    assert_eq!(command(&mut device, 2, 5, 0, &[0; 8]), 0);
    assert_eq!(flags(&mut device), 0);
    assert_eq!(command(&mut device, 2, 5, 0, &[2, 0, 0, 0, 0, 0, 0, 0]), 0);
    assert_eq!(flags(&mut device), 2);
}
