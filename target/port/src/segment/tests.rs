//! Frames cut by us, put together again and checked by somebody else's code (smoltcp), and frames that must be refused.

use proptest::prelude::*;
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

use super::*;
use crate::FrameBatch;
use crate::testing::{Memory, Shape, batch_of, simple_sum};

const ALL_TCP: Offloads = Offloads::TCP4.union(Offloads::TCP6).union(Offloads::ECN).union(Offloads::CHECKSUM);

fn cut_offload(shape: &Shape, size: u16) -> Offload {
    let segmentation = match (shape.tcp, shape.ip6) {
        (true, false) => Segmentation::Tcp4 { size, ecn: true },
        (true, true) => Segmentation::Tcp6 { size, ecn: true },
        (false, _) => Segmentation::Udp { size },
    };
    Offload { checksum: partial(shape), segmentation }
}

fn partial(shape: &Shape) -> Checksum {
    Checksum::Partial { start: (shape.l2_len() + shape.l3_len()) as u16, offset: shape.checksum_offset() }
}

/// Everything that comes out, as bytes, with what is left to be done to it.
fn run(
    frame: &[u8],
    lens: &[usize],
    offload: Offload,
    capable: Offloads,
) -> Result<Vec<(Vec<u8>, Offload)>, BadOffload> {
    let memory = Memory::of(frame);
    let batch = batch_of(&memory.cut(lens), offload);
    let frame = batch.frame(0);
    let mut segmenter = Segmenter::new();
    let mut cut = segmenter.begin(&frame, capable)?;
    let (count, longest, mut out) = (cut.remaining(), cut.longest(), Vec::new());
    while let Some(piece) = cut.next_frame() {
        let mut bytes = vec![0; piece.len()];
        assert_eq!(piece.read(&mut bytes), bytes.len());
        assert_eq!(copied(&piece), bytes);
        out.push((bytes, piece.offload));
    }
    assert_eq!((out.len(), cut.remaining()), (count, 0));
    assert!(out.iter().all(|(bytes, _)| bytes.len() <= longest));
    Ok(out)
}

/// The frame through buffers of odd sizes.
fn copied(frame: &OutFrame<'_>) -> Vec<u8> {
    let room = Memory::of(&vec![0; frame.len()]);
    let buffers = room.cut(&[1, 0, 31, 12, 7, 100]);
    assert_eq!(frame.copy_to(&buffers), frame.len());
    let mut bytes = vec![0; frame.len()];
    room.at(0, frame.len()).read(&mut bytes);
    bytes
}

/// One packet that a receiver would accept: its transport header and payload, and its IPv4 identification.
fn accepted(shape: &Shape, frame: &[u8]) -> (Vec<u8>, Option<u16>) {
    let packet = &frame[shape.l2_len()..];
    let (source, destination, payload, identification): (IpAddress, IpAddress, Vec<u8>, _) = if shape.ip6 {
        let ip = Ipv6Packet::new_checked(packet).expect("IPv6");
        assert_eq!(40 + usize::from(ip.payload_len()), packet.len());
        let extension = shape.l3_len() - 40;
        (ip.src_addr().into(), ip.dst_addr().into(), ip.payload()[extension..].to_vec(), None)
    } else {
        let ip = Ipv4Packet::new_checked(packet).expect("IPv4");
        assert!(ip.verify_checksum());
        assert_eq!(usize::from(ip.total_len()), packet.len());
        (ip.src_addr().into(), ip.dst_addr().into(), ip.payload().to_vec(), Some(ip.ident()))
    };
    if shape.tcp {
        assert!(TcpPacket::new_checked(&payload[..]).expect("TCP").verify_checksum(&source, &destination));
    } else {
        let udp = UdpPacket::new_checked(&payload[..]).expect("UDP");
        assert_eq!(usize::from(udp.len()), payload.len());
        assert!(udp.checksum() != 0 && udp.verify_checksum(&source, &destination));
    }
    (payload, identification)
}

/// Completes what was left open, as virtio has it, byte by byte.
fn completed(mut frame: Vec<u8>, offload: Offload) -> Vec<u8> {
    if let Checksum::Partial { start, offset } = offload.checksum {
        let (start, at) = (usize::from(start), usize::from(start + offset));
        let sum = !simple_sum(&frame[start..]);
        frame[at..at + 2].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
    }
    frame
}

fn shapes() -> impl Strategy<Value = Shape> {
    (0..3usize, any::<bool>(), any::<bool>(), 0..44usize).prop_map(|(tags, ip6, tcp, options)| Shape {
        tags,
        ip6,
        tcp,
        options,
    })
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..6000)
}

proptest! {
    #[test]
    fn segments_put_together_are_the_payload_and_each_is_accepted(
        shape in shapes(),
        payload in payloads(),
        size in 30u16..2000,
        lens in prop::collection::vec(0..3000usize, 0..6),
        completes in any::<bool>(),
    ) {
        let capable = if completes { Offloads::CHECKSUM } else { Offloads::empty() };
        let out = run(&shape.frame(&payload), &lens, cut_offload(&shape, size), capable).unwrap();
        prop_assert_eq!(out.len(), payload.len().div_ceil(usize::from(size)).max(1));
        let (mut together, count) = (Vec::new(), out.len());
        for (index, (bytes, offload)) in out.into_iter().enumerate() {
            prop_assert_eq!(offload.segmentation, Segmentation::None);
            prop_assert_eq!(offload.checksum, if completes { partial(&shape) } else { Checksum::Valid });
            let (transport, identification) = accepted(&shape, &completed(bytes, offload));
            if let Some(identification) = identification {
                prop_assert_eq!(identification, 0xfffeu16.wrapping_add(index as u16));
            }
            if shape.tcp {
                let tcp = TcpPacket::new_unchecked(&transport[..]);
                let sequence = 0xffff_ff00u32.wrapping_add(together.len() as u32);
                prop_assert_eq!(tcp.seq_number().0 as u32, sequence);
                let last = index + 1 == count;
                prop_assert_eq!((tcp.fin(), tcp.psh(), tcp.ack(), tcp.cwr()), (last, last, true, index == 0));
            }
            let data = &transport[shape.l4_len()..];
            prop_assert!(data.len() == usize::from(size) || index + 1 == count);
            together.extend_from_slice(data);
        }
        prop_assert_eq!(together, payload);
    }

    #[test]
    fn checksum_left_open_is_completed_and_nothing_else_changes(
        shape in shapes(),
        payload in payloads(),
        lens in prop::collection::vec(0..3000usize, 0..6),
    ) {
        let frame = shape.frame(&payload);
        let offload = Offload { checksum: partial(&shape), segmentation: Segmentation::None };
        let out = run(&frame, &lens, offload, Offloads::empty()).unwrap();
        prop_assert_eq!(&out[0].0, &completed(frame.clone(), offload));
        prop_assert_eq!(out[0].1, Offload { checksum: Checksum::Valid, segmentation: Segmentation::None });
        accepted(&shape, &out[0].0);
        // A receiver that can do it gets it as it is.
        let out = run(&frame, &lens, offload, Offloads::CHECKSUM).unwrap();
        prop_assert_eq!(out, vec![(frame, offload)]);
    }

    #[test]
    fn frame_that_the_receiver_cuts_itself_goes_unchanged(shape in shapes(), payload in payloads(), size in 30u16..2000) {
        let (frame, offload) = (shape.frame(&payload), cut_offload(&shape, size));
        let out = run(&frame, &[20, 700], offload, Offloads::all()).unwrap();
        prop_assert_eq!(out, vec![(frame, offload)]);
    }

    #[test]
    fn fragments_put_together_are_the_datagram(
        tags in 0..3usize,
        ip6 in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 0..6000),
        size in 40u16..2000,
        open in any::<bool>(),
    ) {
        let shape = Shape { tags, ip6, tcp: false, options: 0 };
        let checksum = if open { partial(&shape) } else { Checksum::Unchecked };
        let offload = Offload { checksum, segmentation: Segmentation::UdpFragments { size } };
        let whole = completed(shape.frame(&payload), Offload { checksum: partial(&shape), ..Offload::NONE });
        let sent = if open { shape.frame(&payload) } else { whole.clone() };
        let out = run(&sent, &[17, 300], offload, Offloads::CHECKSUM).unwrap();
        let (mut together, count) = (Vec::new(), out.len());
        for (index, (bytes, offload)) in out.into_iter().enumerate() {
            prop_assert_eq!(offload, Offload::NONE);
            let packet = &bytes[shape.l2_len()..];
            let (offset, more, data) = if ip6 { fragment6(packet) } else { fragment4(packet) };
            prop_assert_eq!((offset, more), (together.len(), index + 1 < count));
            prop_assert!(data.len() == usize::from(size & !7) || index + 1 == count);
            together.extend_from_slice(&data);
        }
        prop_assert_eq!(&together[..], &whole[shape.l2_len() + shape.l3_len()..]);
    }
}

/// Offset in bytes, whether more follow, and what it carries.
fn fragment4(packet: &[u8]) -> (usize, bool, Vec<u8>) {
    let ip = Ipv4Packet::new_checked(packet).expect("IPv4");
    assert!(ip.verify_checksum());
    assert_eq!((ip.ident(), usize::from(ip.total_len())), (0xfffe, packet.len()));
    (usize::from(ip.frag_offset()), ip.more_frags(), ip.payload().to_vec())
}

fn fragment6(packet: &[u8]) -> (usize, bool, Vec<u8>) {
    let ip = Ipv6Packet::new_checked(packet).expect("IPv6");
    assert_eq!((u8::from(ip.next_header()), 40 + usize::from(ip.payload_len())), (44, packet.len()));
    let fragment = ip.payload();
    assert_eq!((fragment[0], fragment[1], &fragment[4..8]), (17, 0, &[0, 0, 0, 1][..]));
    let word = u16::from_be_bytes([fragment[2], fragment[3]]);
    (usize::from(word >> 3) * 8, word & 1 != 0, fragment[8..].to_vec())
}

const TCP4: Shape = Shape { tags: 0, ip6: false, tcp: true, options: 0 };
const UDP6: Shape = Shape { tags: 0, ip6: true, tcp: false, options: 0 };

fn refused(frame: &[u8], offload: Offload) -> BadOffload {
    let refused = run(frame, &[], offload, Offloads::empty()).expect_err("refused");
    // What the receiver would cut itself is checked as well.
    if offload.segmentation != Segmentation::None && !matches!(refused, BadOffload::Pieces(_) | BadOffload::Long(_)) {
        assert_eq!(run(frame, &[], offload, Offloads::all()).expect_err("refused"), refused);
    }
    refused
}

#[test]
fn r27_frame_cut_as_another_protocol_is_refused() {
    let (tcp4, udp6) = (TCP4.frame(&[1; 100]), UDP6.frame(&[1; 100]));
    let tcp = |frame, shape: &Shape, segmentation| refused(frame, Offload { checksum: partial(shape), segmentation });
    assert_eq!(tcp(&tcp4, &TCP4, Segmentation::Tcp6 { size: 50, ecn: false }), BadOffload::Protocol);
    assert_eq!(tcp(&tcp4, &TCP4, Segmentation::Udp { size: 50 }), BadOffload::Protocol);
    assert_eq!(tcp(&tcp4, &TCP4, Segmentation::UdpFragments { size: 50 }), BadOffload::Protocol);
    assert_eq!(tcp(&udp6, &UDP6, Segmentation::Tcp6 { size: 50, ecn: false }), BadOffload::Protocol);
    assert_eq!(tcp(&[0; 60], &UDP6, Segmentation::Udp { size: 50 }), BadOffload::Protocol);
    let short = BadOffload::Headers(BadHeaders::Short("IPv4"));
    assert_eq!(tcp(&tcp4[..30], &TCP4, Segmentation::Tcp4 { size: 50, ecn: false }), short);
}

#[test]
fn r27_frame_with_a_checksum_elsewhere_is_refused() {
    let frame = TCP4.frame(&[1; 100]);
    let segmentation = Segmentation::Tcp4 { size: 50, ecn: false };
    for (start, offset) in [(34, 6), (33, 16), (34, 15), (65535, 65535), (0, 50)] {
        let offload = Offload { checksum: Checksum::Partial { start, offset }, segmentation };
        let expected = BadOffload::Checksum { start: start.into(), offset: offset.into() };
        assert_eq!(refused(&frame, offload), expected);
    }
    let offload = Offload { checksum: Checksum::Unchecked, segmentation };
    assert_eq!(refused(&frame, offload), BadOffload::Checksum { start: 0, offset: 0 });
    for (start, offset) in [(34, 119), (154, 0), (65535, 65535), (152, 1)] {
        let checksum = Checksum::Partial { start, offset };
        let expected = BadOffload::Bounds { start: start.into(), offset: offset.into(), max: 154 };
        assert_eq!(refused(&frame, Offload { checksum, segmentation: Segmentation::None }), expected);
    }
}

#[test]
fn r27_frame_cut_into_nothing_or_too_many_is_refused() {
    let offload = |size| cut_offload(&TCP4, size);
    assert_eq!(refused(&TCP4.frame(&[1; 100]), offload(0)), BadOffload::Size(0));
    assert_eq!(refused(&TCP4.frame(&[1; 257]), offload(1)), BadOffload::Pieces(257));
    assert_eq!(run(&TCP4.frame(&[1; 256]), &[], offload(1), Offloads::empty()).unwrap().len(), 256);
    let fragments = Offload { checksum: partial(&UDP6), segmentation: Segmentation::UdpFragments { size: 7 } };
    assert_eq!(run(&UDP6.frame(&[1; 9]), &[], fragments, Offloads::empty()), Err(BadOffload::Size(7)));
}

#[test]
fn r27_packet_longer_than_its_header_can_say_is_refused() {
    let frame = TCP4.frame(&vec![1; 66000]);
    assert_eq!(refused(&frame, cut_offload(&TCP4, 65500)), BadOffload::Long(65540));
    assert_eq!(run(&frame, &[], cut_offload(&TCP4, 65495), Offloads::empty()).unwrap().len(), 2);
    let fragments = Offload { checksum: partial(&UDP6), segmentation: Segmentation::UdpFragments { size: 1000 } };
    assert_eq!(refused(&UDP6.frame(&vec![1; 65500]), fragments), BadOffload::Long(65548));
}

#[test]
fn frame_behind_headers_that_cannot_be_cut_behind_is_refused() {
    let shape = Shape { tags: 0, ip6: true, tcp: true, options: 24 };
    let mut frame = shape.frame(&[1; 100]);
    frame[14 + 6] = 43;
    frame[14 + 40 + 3] = 1;
    assert_eq!(run(&frame, &[], cut_offload(&shape, 50), ALL_TCP - Offloads::TCP6), Err(BadOffload::Extensions));
    let shape = Shape { tags: 0, ip6: true, tcp: false, options: 8 };
    let fragments = Offload { checksum: partial(&shape), segmentation: Segmentation::UdpFragments { size: 48 } };
    assert_eq!(run(&shape.frame(&[1; 100]), &[], fragments, Offloads::CHECKSUM), Err(BadOffload::Extensions));
}

#[test]
fn frame_with_congestion_marks_goes_uncut_only_to_who_knows_them() {
    let (frame, offload) = (TCP4.frame(&[1; 100]), cut_offload(&TCP4, 50));
    assert_eq!(run(&frame, &[], offload, ALL_TCP).unwrap().len(), 1);
    assert_eq!(run(&frame, &[], offload, ALL_TCP - Offloads::ECN).unwrap().len(), 2);
}

#[test]
fn plain_frame_goes_as_it_lies_there() {
    let frame = [0x42; 61];
    let valid = Offload { checksum: Checksum::Valid, segmentation: Segmentation::None };
    for offload in [Offload::NONE, valid] {
        assert_eq!(run(&frame, &[5], offload, Offloads::empty()).unwrap(), vec![(frame.to_vec(), offload)]);
    }
}

#[test]
fn cutting_allocates_nothing() {
    let memory = Memory::of(&TCP4.frame(&vec![1; 60000]));
    let batch = batch_of(&memory.cut(&[60, 4096]), cut_offload(&TCP4, 1448));
    let (mut segmenter, mut buffer) = (Segmenter::new(), vec![0; 2048]);
    let allocations = allocation_counter::measure(|| {
        let frame = batch.frame(0);
        let mut cut = segmenter.begin(&frame, Offloads::empty()).unwrap();
        while let Some(out) = cut.next_frame() {
            out.read(&mut buffer);
        }
    });
    assert_eq!(allocations.count_total, 0);
}

/// Any offload with headers that are near what it wants.
fn offloads() -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        Just(Checksum::Unchecked),
        Just(Checksum::Valid),
        (0u16..80, 0u16..20).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        (prop_oneof![Just(34u16), Just(54), Just(38)], prop_oneof![Just(6u16), Just(16)])
            .prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let size = prop_oneof![any::<u16>(), 0u16..40];
    let segmentation = (0..5, size, any::<bool>()).prop_map(|(kind, size, ecn)| match kind {
        0 => Segmentation::None,
        1 => Segmentation::Tcp4 { size, ecn },
        2 => Segmentation::Tcp6 { size, ecn },
        3 => Segmentation::Udp { size },
        _ => Segmentation::UdpFragments { size },
    });
    (checksum, segmentation).prop_map(|(checksum, segmentation)| Offload { checksum, segmentation })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30_000, ..ProptestConfig::default() })]

    /// 30,000 frames of near-sense, each through three receivers: none panics, and nothing grows without bound.
    #[test]
    fn r27_garbage_is_cut_or_refused(
        shape in shapes(),
        offload in offloads(),
        noise in prop::collection::vec((0..120usize, any::<u8>()), 0..4),
        len in 0..400usize,
        split in 0..100usize,
    ) {
        let mut frame = shape.frame(&[0x5a; 300]);
        for (at, value) in noise {
            let at = at % frame.len();
            frame[at] = value;
        }
        frame.truncate(len);
        garbage(&frame, offload, split);
    }

    #[test]
    fn r27_noise_is_cut_or_refused(frame in prop::collection::vec(any::<u8>(), 0..200), offload in offloads(), ip in 0..3) {
        let mut frame = frame;
        if ip > 0 && frame.len() > 14 {
            frame[12..15].copy_from_slice(if ip == 1 { &[0x08, 0x00, 0x45] } else { &[0x86, 0xdd, 0x60] });
        }
        garbage(&frame, offload, 50);
    }
}

fn garbage(frame: &[u8], offload: Offload, split: usize) {
    GARBAGE.with(|memory| {
        memory.at(0, frame.len()).write(frame);
        let (first, second) = memory.at(0, frame.len()).split_at(split.min(frame.len()));
        let mut batch = FrameBatch::new(1, 2);
        batch.push(first, &[second], offload);
        let (mut segmenter, mut buffer) = (Segmenter::new(), [0; 512]);
        for capable in [Offloads::empty(), Offloads::CHECKSUM, Offloads::all()] {
            let frame = batch.frame(0);
            let Ok(mut cut) = segmenter.begin(&frame, capable) else { continue };
            assert!(cut.remaining() <= SEGMENTS_MAX && cut.longest() <= frame.len as usize + 8);
            while let Some(out) = cut.next_frame() {
                out.read(&mut buffer);
            }
        }
    });
}

thread_local! {
    static GARBAGE: Memory = Memory::of(&[0; 4096]);
}
