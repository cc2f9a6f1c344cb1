//! R27: what a driver sends. Every chain comes back, in order; what is no frame is dropped and counted by its cause, and
//! never reaches the port; what breaks the ring halts it (R19) and nobody else's.

use port::{Checksum, Offload, Segmentation};
use tests::device::Noise;
use tests::wire::{HEADER_LEN, NetSetup, tx};
use vhost_user::Shard as _;
use virtio_net::NetDrop;
use virtio_net::wire::feature;
use virtqueue::Segment;

const V1: u64 = feature::VERSION_1;
const TSO: u64 = V1 | feature::CSUM | feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_USO;

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + len) as u8).collect()
}

/// flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers: virtio 1.3 §5.1.6.
fn header(flags: u8, kind: u8, size: u16, start: u16, offset: u16) -> [u8; HEADER_LEN] {
    let ([a, b], [c, d], [e, f]) = (size.to_le_bytes(), start.to_le_bytes(), offset.to_le_bytes());
    [flags, kind, 54, 0, a, b, c, d, e, f, 0, 0]
}

#[test]
fn r27_frames_reach_the_port_as_they_are_and_chains_come_back_in_order() {
    let (mut device, wire) = NetSetup::default().start();
    let frames: Vec<Vec<u8>> = [14, 60, 64, 1500, 1514, 1518].into_iter().map(frame).collect();
    let tokens: Vec<usize> = frames.iter().map(|bytes| device.send_plain(0, bytes)).collect();
    device.run();
    assert_eq!(wire.take(0), frames);
    let back = device.take(tx(0));
    assert_eq!(
        back.iter().map(|reply| (reply.token, reply.written)).collect::<Vec<_>>(),
        tokens.iter().map(|token| (*token, 0)).collect::<Vec<_>>()
    );
    assert_eq!(device.all_dropped(), 0);
    assert_eq!(device.sum(|stats| stats.pairs[0].device.tx.frames.value()), 6);
    assert_eq!(device.sum(|stats| stats.pairs[0].device.tx.bytes.value()), 14 + 60 + 64 + 1500 + 1514 + 1518);
}

#[test]
fn r27_any_framing_of_header_and_frame_is_the_same_frame() {
    let bytes = frame(200);
    let whole = [vec![0; HEADER_LEN], bytes.clone()].concat();
    let (mut device, wire) = NetSetup::default().start();
    for cuts in [&[12][..], &[1], &[5, 7], &[8, 4], &[11, 2], &[12, 0, 100], &[212], &[3, 3, 3, 3, 50, 50]] {
        for indirect in [false, true] {
            let (mut segments, mut rest) = (Vec::new(), &whole[..]);
            for cut in cuts {
                let (part, after) = rest.split_at(*cut);
                segments.push(device.readable(part));
                rest = after;
            }
            if !rest.is_empty() {
                segments.push(device.readable(rest));
            }
            if indirect {
                device.submit_indirect(tx(0), &segments);
            } else {
                device.submit_chain(tx(0), &segments);
            }
            device.run();
            assert_eq!(wire.take(0), std::slice::from_ref(&bytes), "cut at {cuts:?}, indirect {indirect}");
            device.take_one(tx(0));
        }
    }
    assert_eq!(device.all_dropped(), 0);
}

#[test]
fn r27_legacy_header_without_num_buffers_is_ten_bytes() {
    let (mut device, wire) = NetSetup { features: 0, ..NetSetup::default() }.start();
    device.send(0, &[0; 10], &frame(60));
    device.run();
    assert_eq!(wire.take(0), [frame(60)]);
    drop(device);
    // MRG_RXBUF alone makes it 12.
    let (mut device, wire) = NetSetup { features: feature::MRG_RXBUF, ..NetSetup::default() }.start();
    device.send(0, &[0; 12], &frame(60));
    device.run();
    assert_eq!(wire.take(0), [frame(60)]);
}

#[test]
fn r27_what_is_no_frame_is_dropped_and_counted_and_the_next_one_goes() {
    let cases: &[(&str, u64, Vec<u8>, usize, NetDrop)] = &[
        ("one byte", V1, vec![0], 0, NetDrop::BadDescriptor),
        ("11 bytes of header", V1, vec![0; 11], 0, NetDrop::BadDescriptor),
        ("a header and nothing", V1, vec![0; 12], 0, NetDrop::BadDescriptor),
        ("13 bytes of frame", V1, vec![0; 12], 13, NetDrop::BadDescriptor),
        ("a byte above the MTU", V1, vec![0; 12], 1519, NetDrop::Oversize),
        ("64 KiB", V1, vec![0; 12], 65535, NetDrop::Oversize),
        ("checksum not negotiated", V1, header(1, 0, 0, 34, 16).to_vec(), 100, NetDrop::BadOffload),
        ("checksum behind the end", TSO, header(1, 0, 0, 34, 65).to_vec(), 100, NetDrop::BadOffload),
        ("checksum far behind the end", TSO, header(1, 0, 0, 0xffff, 0xffff).to_vec(), 100, NetDrop::BadOffload),
        ("checksum's second byte outside", TSO, header(1, 0, 0, 99, 0).to_vec(), 100, NetDrop::BadOffload),
        ("segments of size 0", TSO, header(1, 1, 0, 34, 16).to_vec(), 3000, NetDrop::BadOffload),
        ("segments without checksum", TSO, header(0, 1, 1448, 34, 16).to_vec(), 3000, NetDrop::BadOffload),
        ("unknown segmentation", TSO, header(1, 2, 1448, 34, 16).to_vec(), 3000, NetDrop::BadOffload),
        ("ECN of nothing", TSO, header(1, 0x80, 1448, 34, 16).to_vec(), 1000, NetDrop::BadOffload),
        ("ECN not negotiated", TSO, header(1, 0x81, 1448, 34, 16).to_vec(), 3000, NetDrop::BadOffload),
        ("UFO not negotiated", TSO, header(1, 3, 1448, 34, 6).to_vec(), 3000, NetDrop::BadOffload),
        ("TSO not negotiated", V1 | feature::CSUM, header(1, 1, 1448, 34, 16).to_vec(), 3000, NetDrop::BadOffload),
        ("longer than IP can be", TSO, header(1, 1, 1448, 34, 16).to_vec(), 65601, NetDrop::Oversize),
    ];
    for (what, features, header, len, cause) in cases {
        let (mut device, wire) = NetSetup { features: *features, ..NetSetup::default() }.start();
        device.send(0, header, &frame(*len));
        device.send_plain(0, &frame(64));
        device.run();
        assert_eq!(wire.take(0), [frame(64)], "{what}");
        assert_eq!(device.take(tx(0)).len(), 2, "{what}");
        assert_eq!((device.tx_dropped(*cause), device.all_dropped()), (1, 1), "{what}");
        assert!(!device.broken(tx(0)), "{what}");
    }
}

#[test]
fn r27_offloads_that_fit_reach_the_port() {
    let (mut device, wire) = NetSetup { features: TSO | feature::HOST_ECN, ..NetSetup::default() }.start();
    let partial = Checksum::Partial { start: 34, offset: 16 };
    let cases = [
        (header(0, 0, 0, 0, 0), 100, Checksum::Unchecked, Segmentation::None),
        (header(2, 0, 0, 0, 0), 100, Checksum::Unchecked, Segmentation::None), // DATA_VALID says nothing to a device
        (header(1, 0, 0, 34, 16), 100, partial, Segmentation::None),
        (header(1, 1, 1448, 34, 16), 9000, partial, Segmentation::Tcp4 { size: 1448, ecn: false }),
        (header(1, 0x81, 1448, 34, 16), 9000, partial, Segmentation::Tcp4 { size: 1448, ecn: true }),
        (header(1, 4, 1428, 34, 16), 65549, partial, Segmentation::Tcp6 { size: 1428, ecn: false }),
        (header(1, 5, 1472, 34, 16), 9000, partial, Segmentation::Udp { size: 1472 }),
    ];
    for (header, len, checksum, segmentation) in cases {
        device.send(0, &header, &frame(len));
        device.run();
        let sent = std::mem::take(&mut wire.lane(0).sent);
        assert_eq!(sent, [(frame(len), Offload { checksum, segmentation })]);
        device.take_one(tx(0));
    }
    assert_eq!(device.all_dropped(), 0);
}

#[test]
fn r27_frames_that_find_the_port_full_are_dropped_and_counted() {
    let (mut device, wire) = NetSetup::default().start();
    wire.lane(0).room = Some(3);
    for at in 0..10 {
        device.send_plain(0, &frame(60 + at));
    }
    device.run();
    assert_eq!(wire.take(0), [frame(60), frame(61), frame(62)]);
    assert_eq!(device.take(tx(0)).len(), 10);
    assert_eq!((device.tx_dropped(NetDrop::PortFull), device.all_dropped()), (7, 7));
    assert_eq!(device.sum(|stats| stats.pairs[0].device.tx.frames.value()), 3);
}

#[test]
fn r27_chains_come_back_in_order_while_the_port_keeps_frames() {
    let (mut device, wire) = NetSetup::default().start();
    wire.lane(0).hold = true;
    let tokens: Vec<usize> = (0..6)
        .map(|at| {
            // The third is no frame: it waits for its turn.
            let len = if at == 2 { 5 } else { 60 };
            device.send_plain(0, &frame(len))
        })
        .collect();
    device.run();
    assert_eq!(device.take(tx(0)).len(), 0);
    wire.release(0, 1);
    device.run();
    let back = |device: &mut tests::device::Device<virtio_net::NetDevice>| {
        device.take(tx(0)).into_iter().map(|reply| reply.token).collect::<Vec<_>>()
    };
    assert_eq!(back(&mut device), tokens[..1]);
    wire.release(0, 1);
    device.run();
    assert_eq!(back(&mut device), tokens[1..3]);
    wire.release(0, 3);
    device.run();
    assert_eq!(back(&mut device), tokens[3..]);
}

#[test]
fn r14_stopping_a_ring_waits_for_the_frames_that_the_port_keeps() {
    let (mut device, wire) = NetSetup::default().start();
    wire.lane(0).hold = true;
    for _ in 0..3 {
        device.send_plain(0, &frame(60));
    }
    device.run();
    let stopped = device.stop(tx(0));
    device.run();
    assert!(stopped.try_recv().is_err(), "the port may still read the driver's memory");
    wire.release(0, 3);
    device.run();
    assert_eq!(stopped.try_recv().expect("the ring has stopped").base, Some(3));
    assert_eq!(device.take(tx(0)).len(), 3);
}

#[test]
fn r19_broken_ring_halts_alone() {
    let setup = NetSetup { queue_pairs: 2, features: V1 | feature::MQ, ..NetSetup::default() };
    let (mut device, wire) = setup.start();
    let outside = Segment::readable(0x7fff_0000, 100);
    device.submit_chain(tx(0), &[outside]);
    device.send_plain(0, &frame(60));
    device.send_plain(1, &frame(61));
    device.refill(0, 1, 2048);
    wire.deliver(0, &frame(62));
    device.run();
    assert!(device.broken(tx(0)) && !device.broken(tx(1)) && !device.broken(0));
    assert_eq!((wire.take(0), wire.take(1)), (vec![], vec![frame(61)]));
    assert_eq!(device.received(0).len(), 1);
}

#[test]
fn r27_writable_descriptors_of_a_frame_are_not_touched() {
    let (mut device, wire) = NetSetup::default().start();
    let (head, room) = (device.readable(&[vec![0; 12], frame(60)].concat()), device.writable(64));
    device.submit_chain(tx(0), &[head, room]);
    device.run();
    assert_eq!(wire.take(0), [frame(60)]);
    let reply = device.take_one(tx(0));
    assert_eq!((reply.written, reply.writable.clone()), (0, vec![0xa5; 64]));
    // Only writable: there is no frame.
    let room = device.writable(64);
    device.submit_chain(tx(0), &[room]);
    device.run();
    assert_eq!((device.take_one(tx(0)).written, device.tx_dropped(NetDrop::BadDescriptor)), (0, 1));
}

#[test]
fn r27_ten_thousand_random_chains_all_come_back() {
    let mut noise = Noise::new(27);
    for round in 0..20 {
        let features = if round % 2 == 0 { TSO } else { V1 } | if round % 3 == 0 { feature::EVENT_IDX } else { 0 };
        let (mut device, wire) = NetSetup { features, ring_size: 256, ..NetSetup::default() }.start();
        let mut submitted = 0;
        for _ in 0..500 {
            let mut segments = Vec::new();
            for _ in 0..=noise.below(4) {
                let most = if noise.once_in(8) { 4000 } else { 40 };
                let len = noise.below(most) as usize;
                let mut bytes: Vec<u8> = (0..len).map(|_| noise.bits() as u8).collect();
                if noise.once_in(2) {
                    bytes.fill(0);
                }
                segments.push(if noise.once_in(6) && !segments.is_empty() {
                    device.writable(len.max(1))
                } else {
                    device.readable(&bytes)
                });
            }
            segments.sort_by_key(|segment| segment.writable);
            device.submit_chain(tx(0), &segments);
            submitted += 1;
            if noise.once_in(8) {
                wire.lane(0).room = noise.once_in(3).then(|| noise.below(20) as usize);
                device.run();
                submitted -= device.take(tx(0)).len();
            }
        }
        device.run();
        submitted -= device.take(tx(0)).len();
        assert_eq!(submitted, 0, "round {round}");
        assert!(!device.broken(tx(0)));
        let sent = device.sum(|stats| stats.pairs[0].device.tx.frames.value());
        assert_eq!(sent + device.all_dropped(), 500, "every chain is a frame that was sent, or was counted as lost");
    }
}

#[test]
fn r27_num_buffers_of_a_driver_means_nothing() {
    let (mut device, wire) = NetSetup::default().start();
    let mut header = [0; HEADER_LEN];
    header[10..].copy_from_slice(&[0xff, 0xff]);
    device.send(0, &header, &frame(60));
    device.run();
    assert_eq!((wire.take(0), device.all_dropped()), (vec![frame(60)], 0));
}

#[test]
fn r27_frame_in_as_many_descriptors_as_the_ring_has_goes_and_one_more_breaks_the_ring() {
    let (mut device, wire) = NetSetup { ring_size: 64, ..NetSetup::default() }.start();
    let whole = [vec![0; HEADER_LEN], frame(1500)].concat();
    let segments: Vec<Segment> = whole.chunks(24).map(|part| device.readable(part)).collect();
    assert_eq!(segments.len(), 63);
    device.submit_chain(tx(0), &segments);
    device.run();
    assert_eq!((wire.take(0), device.take(tx(0)).len()), (vec![frame(1500)], 1));
    // In an indirect table there can be more than the ring has.
    let segments: Vec<Segment> = whole.chunks(20).map(|part| device.readable(part)).collect();
    assert!(segments.len() > 64);
    device.submit_indirect(tx(0), &segments);
    device.run();
    assert!(device.broken(tx(0)) && wire.take(0).is_empty());
}

#[test]
fn announcement_of_a_guest_goes_out_once_and_in_turn() {
    let (mut device, wire) = NetSetup::default().start();
    let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    wire.lane(0).hold = true;
    device.send_plain(0, &frame(60));
    device.run();
    device.shards[0].send_rarp(mac);
    device.shards[0].send_rarp(mac); // the first is still under way
    device.send_plain(0, &frame(61));
    device.run();
    let sent = wire.take(0);
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[1][..14], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x80, 0x35]);
    wire.release(0, 2);
    device.run();
    assert_eq!(device.take(tx(0)).len(), 1, "the announcement is done, and the frame behind it is not");
    wire.release(0, 1);
    device.run();
    assert_eq!(device.take(tx(0)).len(), 1);
    wire.lane(0).hold = false;
    device.shards[0].send_rarp(mac);
    assert_eq!(wire.take(0).len(), 1);
}
