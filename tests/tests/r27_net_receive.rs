//! R27: what a driver receives. Each frame is copied once into buffers that hold it, merged where that was negotiated; what
//! finds none, or is longer than they are, is dropped and counted; buffers that were not used are used by the next frame.

use port::{Checksum, Offload, Segmentation};
use tests::device::{Device, Noise};
use tests::wire::{HEADER_LEN, NetSetup, Wire, rx, tx};
use virtio_net::wire::feature;
use virtio_net::{NetDevice, NetDrop};
use virtqueue::Segment;

const V1: u64 = feature::VERSION_1;
const TSO: u64 = V1 | feature::MRG_RXBUF | feature::GUEST_CSUM | feature::GUEST_TSO4;

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 5 + len) as u8).collect()
}

/// The header of a frame that nothing is to be done to, in so many buffers.
fn plain(buffers: u16) -> Vec<u8> {
    let mut header = vec![0; HEADER_LEN];
    header[10..].copy_from_slice(&buffers.to_le_bytes());
    header
}

/// A TCP segment over IPv4 with `payload` bytes, its checksum left to be completed: the sum of the pseudo header is there.
fn tcp4(payload: usize) -> Vec<u8> {
    let total = (20 + 20 + payload) as u16;
    let mut bytes = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 8, 0];
    bytes.extend([0x45, 0]);
    bytes.extend(total.to_be_bytes());
    bytes.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    let ip_sum = !fold(&bytes[14..34], 0);
    bytes[24..26].copy_from_slice(&ip_sum.to_be_bytes());
    bytes.extend([0x30, 0x39, 0x1f, 0x90, 0, 0, 0, 100, 0, 0, 0, 7, 0x50, 0x18, 2, 0, 0, 0, 0, 0]);
    let pseudo = fold(&[10, 0, 0, 2, 10, 0, 0, 1, 0, 6], u32::from(total - 20));
    bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
    bytes.extend((0..payload).map(|at| (at * 3) as u8));
    bytes
}

/// The ones' complement sum of big-endian words (RFC 1071).
fn fold(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether IPv4 and TCP checksums of a frame are right.
fn sums_are_right(frame: &[u8]) -> bool {
    let segment = &frame[34..];
    let pseudo = [&frame[26..34], &[0, 6]].concat();
    let start = u32::from(fold(&pseudo, segment.len() as u32));
    fold(&frame[14..34], 0) == 0xffff && fold(segment, start) == 0xffff
}

#[test]
fn r27_frames_reach_the_driver_behind_a_header() {
    let (mut device, wire) = NetSetup::default().start();
    device.refill(0, 8, 1530);
    for len in [14, 60, 64, 1514, 1518] {
        wire.deliver(0, &frame(len));
    }
    wire.deliver_pieces(0, vec![frame(14), frame(1), frame(300)], Offload::NONE);
    device.run();
    let got = device.received(0);
    let mut expected: Vec<_> = [14, 60, 64, 1514, 1518].into_iter().map(|len| (plain(1), frame(len))).collect();
    expected.push((plain(1), [frame(14), frame(1), frame(300)].concat()));
    assert_eq!(got, expected);
    assert_eq!((device.outstanding(rx(0)), device.all_dropped()), (2, 0));
    assert_eq!(device.sum(|stats| stats.pairs[0].device.rx.frames.value()), 6);
}

#[test]
fn r27_long_frame_is_merged_over_as_many_buffers_as_it_takes() {
    for (buffer, len, buffers) in
        [(64, 52, 1), (64, 53, 2), (64, 1500, 24), (1526, 1514, 1), (12, 13, 3), (20, 5000, 251)]
    {
        let (mut device, wire) = NetSetup { ring_size: 256, ..NetSetup::default() }.start();
        device.refill(0, 255, buffer);
        wire.deliver(0, &frame(len));
        wire.deliver(0, &frame(14));
        device.run();
        let got = device.received(0);
        assert_eq!(got[0], (plain(buffers), frame(len)), "{len} bytes in buffers of {buffer}");
        assert_eq!(got[1].1, frame(14));
        assert_eq!(device.all_dropped(), 0);
    }
}

#[test]
fn r27_buffers_in_pieces_are_filled_piece_by_piece() {
    let (mut device, wire) = NetSetup { ring_size: 256, ..NetSetup::default() }.start();
    for cuts in [&[12, 60][..], &[1, 11, 60], &[5, 5, 5, 57], &[10, 62], &[72]] {
        let segments: Vec<Segment> = cuts.iter().map(|len| device.writable(*len)).collect();
        device.submit_chain(rx(0), &segments);
        wire.deliver(0, &frame(60));
        device.run();
        assert_eq!(device.received(0), [(plain(1), frame(60))], "{cuts:?}");
    }
}

#[test]
fn r27_frame_without_buffers_is_dropped_and_counted_and_uses_none_up() {
    let (mut device, wire) = NetSetup::default().start();
    wire.deliver(0, &frame(60));
    device.run();
    assert_eq!(device.rx_dropped(NetDrop::NoGuestBuffer), 1);
    // Two buffers are too few for the first frame; the second one needs only one of them.
    device.refill(0, 2, 100);
    wire.deliver(0, &frame(1000));
    wire.deliver(0, &frame(80));
    device.run();
    assert_eq!(device.received(0), [(plain(1), frame(80))]);
    assert_eq!((device.outstanding(rx(0)), device.rx_dropped(NetDrop::NoGuestBuffer)), (1, 2));
    wire.deliver(0, &frame(60));
    device.run();
    assert_eq!(device.received(0), [(plain(1), frame(60))]);
    assert_eq!(device.all_dropped(), 2);
}

#[test]
fn r27_without_mergeable_buffers_a_longer_frame_is_oversize() {
    let (mut device, wire) = NetSetup { features: V1, ..NetSetup::default() }.start();
    device.refill(0, 2, 12 + 100);
    for len in [101, 100, 5000, 99] {
        wire.deliver(0, &frame(len));
    }
    device.run();
    assert_eq!(device.received(0).into_iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [100, 99]);
    assert_eq!((device.rx_dropped(NetDrop::Oversize), device.all_dropped()), (2, 2));
}

#[test]
fn r27_buffers_that_are_none_go_back_empty_and_are_counted() {
    let (mut device, wire) = NetSetup::default().start();
    let (small, readable, good) = (device.writable(11), device.readable(&[1, 2, 3]), device.writable(100));
    let both = [device.readable(&[9; 20]), device.writable(200)];
    let tokens = [
        device.submit_chain(rx(0), &[small]),
        device.submit_chain(rx(0), &[readable]),
        device.submit_chain(rx(0), &both),
    ];
    let last = device.submit_chain(rx(0), &[good]);
    wire.deliver(0, &frame(60));
    device.run();
    let replies = device.take(rx(0));
    assert_eq!(replies.iter().map(|reply| reply.token).collect::<Vec<_>>(), [&tokens[..], &[last]].concat());
    assert_eq!(replies.iter().map(|reply| reply.written).collect::<Vec<_>>(), [0, 0, 0, 72]);
    assert_eq!(replies[2].writable, vec![0xa5; 200]);
    assert_eq!((device.rx_dropped(NetDrop::BadDescriptor), device.all_dropped()), (3, 3));
}

#[test]
fn r27_ring_refilled_one_by_one_receives_one_by_one() {
    let (mut device, wire) = NetSetup { ring_size: 2, ..NetSetup::default() }.start();
    for round in 0..1000 {
        device.refill(0, 1, 1530);
        wire.deliver(0, &frame(60 + round % 100));
        device.run();
        assert_eq!(device.received(0), [(plain(1), frame(60 + round % 100))]);
    }
    assert_eq!(device.all_dropped(), 0);
}

/// A header that is there already is left alone; of any other, each byte is written, wherever the header lies in its cache line.
#[test]
fn r27_header_is_right_whatever_was_in_the_buffer() {
    let (mut device, wire) = NetSetup::default().start();
    let base = device.reserve(4096).next_multiple_of(64);
    for offset in [0, 51, 52, 53, 63] {
        // Twice in a row each, as the device remembers how it found the last ones.
        for wrong in (0..2 * HEADER_LEN + 4).map(|turn| turn / 2) {
            let addr = base + offset;
            let mut before = plain(1);
            before.iter_mut().skip(wrong).take(1).for_each(|byte| *byte ^= 0xff);
            device.guest.write(addr, &[before, vec![0xee; 200]].concat());
            device.submit_chain(rx(0), &[Segment::writable(addr, 1530)]);
            wire.deliver(0, &frame(64 + wrong));
            device.run();
            assert_eq!(device.received(0), [(plain(1), frame(64 + wrong))], "at {offset}, byte {wrong}");
            assert_eq!(device.guest.read(addr + (HEADER_LEN + 64 + wrong) as u64, 8), [0xee; 8], "behind the frame");
        }
    }
}

#[test]
fn r27_offloads_go_on_to_a_driver_that_takes_them() {
    let (mut device, wire) = NetSetup { features: TSO, ring_size: 256, ..NetSetup::default() }.start();
    device.refill(0, 64, 2048);
    let checksum = Checksum::Partial { start: 34, offset: 16 };
    let long = tcp4(9000);
    let segmentation = Segmentation::Tcp4 { size: 1448, ecn: false };
    wire.deliver_pieces(0, vec![long.clone()], Offload { checksum, segmentation });
    wire.deliver_pieces(0, vec![frame(60)], Offload { checksum: Checksum::Valid, ..Offload::NONE });
    device.run();
    let got = device.received(0);
    assert_eq!(got[0].1, long);
    // NEEDS_CSUM, TCPV4, hdr_len 54, gso_size 1448, csum_start 34, csum_offset 16, num_buffers 5
    assert_eq!(got[0].0, [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 5, 0]);
    assert_eq!(got[1], (vec![2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], frame(60)));
    assert_eq!(device.all_dropped(), 0);
}

#[test]
fn r27_what_a_driver_does_not_take_is_done_in_software() {
    let checksum = Checksum::Partial { start: 34, offset: 16 };
    let segmentation = Segmentation::Tcp4 { size: 1448, ecn: false };
    for features in
        [V1 | feature::MRG_RXBUF, V1, V1 | feature::GUEST_CSUM, V1 | feature::MRG_RXBUF | feature::GUEST_TSO6]
    {
        let (mut device, wire) = NetSetup { features, ..NetSetup::default() }.start();
        device.refill(0, 20, 1530);
        wire.deliver_pieces(0, vec![tcp4(1448 * 3 + 10)], Offload { checksum, segmentation });
        wire.deliver_pieces(0, vec![tcp4(100)], Offload { checksum, ..Offload::NONE });
        device.run();
        let got = device.received(0);
        assert_eq!(got.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [1502, 1502, 1502, 64, 154]);
        let payload: Vec<u8> = got[..4].iter().flat_map(|(_, bytes)| bytes[54..].to_vec()).collect();
        assert_eq!(payload, tcp4(1448 * 3 + 10)[54..]);
        for (header, bytes) in &got {
            let left = header[0] == 1;
            assert_eq!(left, features & feature::GUEST_CSUM != 0);
            assert!(left || sums_are_right(bytes), "features {features:#x}");
        }
        assert_eq!(device.all_dropped(), 0);
    }
}

#[test]
fn r27_offload_that_does_not_fit_its_frame_is_dropped() {
    let (mut device, wire) = NetSetup::default().start();
    device.refill(0, 4, 2048);
    let checksum = Checksum::Partial { start: 34, offset: 16 };
    // Not TCP at all.
    wire.deliver_pieces(
        0,
        vec![frame(3000)],
        Offload { checksum, segmentation: Segmentation::Tcp4 { size: 1448, ecn: false } },
    );
    wire.deliver(0, &frame(60));
    device.run();
    assert_eq!(device.received(0), [(plain(1), frame(60))]);
    assert_eq!((device.rx_dropped(NetDrop::BadOffload), device.all_dropped()), (1, 1));
}

#[test]
fn r27_pair_that_is_disabled_leaves_its_frames_to_the_first() {
    let setup = NetSetup { queue_pairs: 2, features: V1 | feature::MRG_RXBUF | feature::MQ, ..NetSetup::default() };
    let (mut device, wire) = setup.start();
    assert!(wire.lane(0).open && wire.lane(1).open);
    device.refill(0, 8, 1530);
    device.refill(1, 8, 1530);
    wire.deliver(1, &frame(60));
    device.run();
    assert_eq!((device.received(0).len(), device.received(1).len()), (0, 1));
    let disabled = device.disable(rx(1));
    device.run();
    assert!(disabled.try_recv().is_ok() && !wire.lane(1).open);
    wire.deliver(1, &frame(61));
    device.run();
    assert_eq!(device.received(0), [(plain(1), frame(61))]);
    device.rings(rx(1)).enable(rx(1));
    device.run();
    assert!(wire.lane(1).open);
}

#[test]
fn r27_frames_that_came_before_the_driver_are_not_for_it() {
    let (mut device, wire) = NetSetup::default().start();
    let stopped = device.stop(rx(0));
    device.run();
    let base = stopped.try_recv().unwrap().base.unwrap();
    assert!(!wire.lane(0).open);
    wire.deliver(0, &frame(60));
    device.run();
    assert_eq!(wire.waiting(0), 1, "nobody looks");
    device.start(rx(0), base);
    device.refill(0, 1, 1530);
    device.run();
    assert_eq!((device.received(0).len(), device.rx_dropped(NetDrop::QueueDisabled)), (0, 1));
}

#[test]
fn r14_nothing_is_written_after_a_ring_has_stopped() {
    let (mut device, wire) = NetSetup::default().start();
    device.refill(0, 16, 1530);
    wire.deliver(0, &frame(60));
    device.run();
    let stopped = device.stop(rx(0));
    device.run();
    assert_eq!(stopped.try_recv().unwrap().base, Some(1));
    let before = device.guest.snapshot();
    (0..50).for_each(|_| wire.deliver(0, &frame(700)));
    device.run();
    before.assert_untouched(&device.guest, "after the stop");
}

#[test]
fn r19_receive_ring_that_breaks_halts_alone() {
    let (mut device, wire) = NetSetup::default().start();
    device.refill(0, 1, 1530);
    device.submit_chain(rx(0), &[Segment::writable(0x7fff_0000, 2000)]);
    device.refill(0, 1, 1530);
    (0..4).for_each(|_| wire.deliver(0, &frame(60)));
    device.run();
    assert!(device.broken(rx(0)) && !device.broken(tx(0)));
    assert_eq!(device.received(0).len(), 1);
    device.send_plain(0, &frame(61));
    device.run();
    assert_eq!(wire.take(0), [frame(61)]);
}

#[test]
fn r27_random_buffers_and_frames_lose_nothing_uncounted() {
    for seed in 0..30 {
        let mut noise = Noise::new(seed);
        let features = if seed % 2 == 0 { V1 | feature::MRG_RXBUF } else { V1 };
        let (mut device, wire) = NetSetup { features, ring_size: 128, ..NetSetup::default() }.start();
        let (mut delivered, mut came, mut total): (Vec<Vec<u8>>, u64, u64) = (Vec::new(), 0, 0);
        for _ in 0..200 {
            refill_at_random(&mut device, &mut noise);
            for _ in 0..noise.below(6) {
                let most = if noise.once_in(5) { 5000 } else { 200 };
                let bytes: Vec<u8> = (0..14 + noise.below(most)).map(|_| noise.bits() as u8).collect();
                deliver_in_pieces(&wire, &mut noise, &bytes);
                delivered.push(bytes);
                total += 1;
            }
            device.run();
            for reply in drain(&mut device, features) {
                let at =
                    delivered.iter().position(|bytes| *bytes == reply).expect("a frame that was delivered, in order");
                delivered.drain(..=at);
                came += 1;
            }
        }
        let counted = device.sum(|stats| stats.pairs[0].device.rx.frames.value());
        assert_eq!(counted, came, "seed {seed}");
        // A buffer that is none costs no frame.
        let lost = device.all_dropped() - device.rx_dropped(NetDrop::BadDescriptor);
        assert_eq!(came + lost, total, "seed {seed}: every frame came, or was counted as lost");
        assert!(!device.broken(rx(0)));
    }
}

fn refill_at_random(device: &mut Device<NetDevice>, noise: &mut Noise) {
    while device.outstanding(rx(0)) < noise.below(40) as usize {
        let segments: Vec<Segment> =
            (0..=noise.below(2)).map(|_| device.writable(1 + noise.below(1600) as usize)).collect();
        device.submit_chain(rx(0), &segments);
    }
}

fn deliver_in_pieces(wire: &Wire, noise: &mut Noise, bytes: &[u8]) {
    let (first, rest) = bytes.split_at(1 + noise.below(bytes.len() as u64 - 1) as usize);
    wire.deliver_pieces(0, vec![first.to_vec(), rest.to_vec()], Offload::NONE);
}

/// Frames that came; buffers that went back empty are none.
fn drain(device: &mut Device<NetDevice>, features: u64) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut replies = device.take(rx(0)).into_iter().filter(|reply| reply.written > 0);
    while let Some(first) = replies.next() {
        let mut bytes = first.writable[..first.written as usize].to_vec();
        let buffers = u16::from_le_bytes([bytes[10], bytes[11]]);
        assert!(buffers == 1 || features & feature::MRG_RXBUF != 0);
        for _ in 1..buffers {
            let next = replies.next().expect("as many buffers as num_buffers says");
            bytes.extend_from_slice(&next.writable[..next.written as usize]);
        }
        frames.push(bytes.split_off(HEADER_LEN));
    }
    frames
}
