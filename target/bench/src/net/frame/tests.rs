//! Frames byte by byte, and what verification makes of damaged ones.

use guest_memory::{Pages, SharedMemory};

use super::super::args::tests::parse;
use super::*;

const RUN: u64 = 0x0102_0304_0506_0708;

fn frames(line: &str) -> Frames {
    let args = parse(&format!("--socket s {line}")).unwrap();
    args.check().unwrap();
    Frames::new(&args, RUN)
}

/// As it lies in memory after it was written as number 0 and made this one.
fn rewritten(frames: &Frames, number: u64) -> Vec<u8> {
    let memory = SharedMemory::create("frames", frames.len(), Pages::Small).unwrap();
    let slice = memory.slice().subslice(0, frames.len()).unwrap();
    frames.write(slice, 0);
    frames.rewrite(slice, number);
    let mut bytes = vec![0; frames.len()];
    slice.read(&mut bytes);
    bytes
}

/// RFC 1071 over these bytes, which include their checksum: 0 if it is right.
fn residue(pseudo: &[u8], bytes: &[u8]) -> u16 {
    let all: Vec<u8> = pseudo.iter().chain(bytes).copied().collect();
    let sum: u32 = all.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(folded as u16 + (folded >> 16) as u16)
}

fn pseudo(frame: &[u8], protocol: u8) -> Vec<u8> {
    let len = (frame.len() - 34) as u16;
    [&frame[26..34], &[0, protocol], &len.to_be_bytes()].concat()
}

#[test]
fn frame_of_64_bytes_is_this_udp_datagram() {
    let bytes = rewritten(&frames("--src-mac 52:54:00:00:00:01 --dst-mac 52:54:00:00:00:02"), 0x1122_3344_5566_7788);
    #[rustfmt::skip]
    let wanted = [
        // virtio-net header
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // Ethernet
        0x52, 0x54, 0, 0, 0, 2,  0x52, 0x54, 0, 0, 0, 1,  0x08, 0,
        // IPv4
        0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0xae, 0x93, 198, 18, 0, 1, 198, 19, 0, 1,
        // UDP; the checksum is looked at below
        0xc0, 0, 0, 9, 0, 30, bytes[52], bytes[53],
        // run and number
        1, 2, 3, 4, 5, 6, 7, 8,  0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
        0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes, wanted);
    let frame = &bytes[12..];
    assert_eq!(residue(&[], &frame[14..34]), 0);
    assert_eq!(residue(&pseudo(frame, 17), &frame[34..]), 0);
}

#[test]
fn frames_of_every_size_have_right_checksums() {
    for size in [58, 59, 60, 64, 65, 1518, 9018] {
        for line in ["", "--verify", "--flows 5", "--flows 16384 --verify"] {
            let frames = frames(&format!("--size {size} {line}"));
            for number in [0, 1, 0xffff, 0x0001_0000_0000_0000, u64::MAX, 123_456_789] {
                let bytes = rewritten(&frames, number);
                let frame = &bytes[12..];
                assert_eq!(residue(&[], &frame[14..34]), 0, "{size} {line} {number:#x}");
                assert_eq!(residue(&pseudo(frame, 17), &frame[34..]), 0, "{size} {line} {number:#x}");
                assert_eq!(bytes, frames.bytes(number), "written at once and made of another");
                assert_eq!(frames.number_of(frame), Some(number));
            }
        }
    }
}

#[test]
fn frames_of_several_flows_differ_in_their_source_port() {
    let frames = frames("--flows 3");
    let port = |number| rewritten(&frames, number)[12 + 34..12 + 36].to_vec();
    assert_eq!([port(0), port(1), port(2), port(3)], [[0xc0, 0], [0xc0, 1], [0xc0, 2], [0xc0, 0]]);
}

#[test]
fn small_frames_are_ethernet_alone() {
    let tiny = frames("--size 14").bytes(7);
    assert_eq!(tiny[12..], [0x52, 0x54, 0, 0xbe, 0, 2, 0x52, 0x54, 0, 0xbe, 0, 1, 0x88, 0xb5]);
    assert_eq!(frames("--size 29").number_of(&tiny[12..]), None, "no room for a stamp");
    let small = frames("--size 57");
    let bytes = rewritten(&small, 9);
    assert_eq!(bytes[24..42], [0x88, 0xb5, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(small.number_of(&bytes[12..]), Some(9));
}

#[test]
fn checksum_that_is_left_to_the_device_is_the_sum_of_the_pseudo_header() {
    let bytes = rewritten(&frames("--offload csum"), 77);
    // NEEDS_CSUM; csum_start 34, csum_offset 6.
    assert_eq!(bytes[..12], [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]);
    let frame = &bytes[12..];
    let sum = !residue(&pseudo(frame, 17), &[]);
    assert_eq!(frame[40..42], sum.to_be_bytes());
}

#[test]
fn segmentation_that_is_left_to_the_device_is_told_in_the_header() {
    let bytes = rewritten(&frames("--offload tso --size 65535"), 77);
    // NEEDS_CSUM, TCPV4, hdr_len 54, gso_size 1460, csum_start 34, csum_offset 16.
    assert_eq!(bytes[..12], [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]);
    let frame = &bytes[12..];
    assert_eq!((frame[23], frame[46], frame[47]), (6, 0x50, 0x10));
    assert_eq!(u16::from_be_bytes([frame[16], frame[17]]), 65521);
    let sum = !residue(&pseudo(frame, 6), &[]);
    assert_eq!(frame[50..52], sum.to_be_bytes());
    let short = rewritten(&frames("--offload tso --size 1514"), 77);
    assert_eq!(short[..12], [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], "one segment needs no cutting");
}

#[test]
fn check_finds_every_flipped_bit() {
    for line in ["--size 64 --verify", "--size 30 --verify", "--size 200 --verify --offload csum"] {
        let frames = frames(line);
        let sent = frames.bytes(5)[12..].to_vec();
        let flags = frames.template[0];
        assert_eq!(frames.check(5, flags, &sent), Ok(()));
        for bit in 0..8 * sent.len() {
            let mut damaged = sent.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(frames.check(5, flags, &damaged).is_err(), "{line}: bit {bit}");
        }
        assert!(frames.check(6, flags, &sent).is_err(), "it is not number 6");
    }
}

#[test]
fn check_names_length_and_byte() {
    let frames = frames("--verify");
    let sent = frames.bytes(5)[12..].to_vec();
    let of = |frame: &[u8]| frames.check(5, 0, frame).unwrap_err().to_string();
    assert_eq!(of(&sent[..63]), "63 bytes, sent 64");
    let mut damaged = sent.clone();
    damaged[0] = 0xff;
    assert_eq!(of(&damaged), "byte 0 is 0xff, sent 0x52");
    damaged = sent;
    (damaged[40], damaged[41]) = (0x12, 0x34);
    assert!(of(&damaged).starts_with("checksum 0x1234, must be 0x"));
}

#[test]
fn check_takes_the_checksum_that_the_header_speaks_of() {
    let frames = frames("--verify --offload csum --size 100");
    let partial = frames.bytes(5)[12..].to_vec();
    let mut whole = partial.clone();
    whole[40..42].fill(0);
    let sum = residue(&pseudo(&whole, 17), &whole[34..]);
    whole[40..42].copy_from_slice(&sum.to_be_bytes());
    // NEEDS_CSUM 1, DATA_VALID 2.
    for (flags, frame, good) in [
        (0, &whole, true),
        (0, &partial, false),
        (1, &partial, true),
        (1, &whole, false),
        (2, &whole, true),
        (2, &partial, true),
    ] {
        assert_eq!(frames.check(5, flags, frame).is_ok(), good, "flags {flags}");
    }
}
