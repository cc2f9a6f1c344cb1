//! Work that the driver leaves undone: frames of TCP that come from a file, checksums and segmentation left to the device, and
//! what arrives in a file on the other side is whole and right.

use std::fs;
use std::path::Path;

use super::counts::{Counts, all_sent, disconnected};
use super::driver::{PLAIN, Setup};
use super::lab::{LOOPBACK, Lab, dpdk, one_net};

/// Bytes of headers: Ethernet, IPv4, TCP, without options.
const HEADERS: usize = 14 + 20 + 20;
/// Each in three parts, they fit into a ring.
const FRAMES: u32 = 80;
const PAYLOAD: usize = 1400;

/// A file in the format of libpcap with these frames.
fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    // Magic number, version 2.4, no time zone, no accuracy, longest frame 65535, Ethernet.
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap().to_le_bytes();
        file.extend([&[0; 8], &len[..], &len[..], frame].concat());
    }
    fs::write(path, file).unwrap();
}

/// The frames of such a file.
fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).unwrap();
    let (mut rest, mut frames) = (file.get(24..).expect("a whole header"), Vec::new());
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

/// The `number`th segment of a TCP connection, with its sequence number and without checksums.
fn segment(number: u32) -> Vec<u8> {
    let total = (20 + 20 + PAYLOAD) as u16;
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 9, 0x52, 0x54, 0, 0, 0, 8, 8, 0];
    frame.extend([0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x12, 0x34, 0x56, 0x78]);
    frame.extend((number * PAYLOAD as u32).to_be_bytes());
    frame.extend([0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend((0..PAYLOAD).map(|at| payload_byte(number, at)));
    frame
}

fn payload_byte(number: u32, at: usize) -> u8 {
    (number as usize * 31 + at * 7 + (at >> 8)) as u8
}

/// The sum of the 16-bit words, folded (RFC 1071): all ones over data with a right checksum.
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u64 = words.map(u64::from).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// Checks headers and checksums of a segment, and returns its sequence number and payload.
fn checked(frame: &[u8]) -> (usize, &[u8]) {
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    assert_eq!(frame.len(), 14 + total, "the length in the IP header is that of the frame");
    assert_eq!(sum(&[&frame[14..34]]), 0xffff, "IP checksum");
    let tcp_len = ((total - 20) as u16).to_be_bytes();
    assert_eq!(sum(&[&frame[26..34], &[0, 6], &tcp_len, &frame[34..]]), 0xffff, "TCP checksum");
    let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
    (sequence as usize, &frame[HEADERS..])
}

/// Sends segments of TCP through testpmd, which leaves to the device what `commands` say, and returns the frames that reach
/// the file behind the port.
fn through(lab: &Lab, commands: &str, arrive: u64) -> Vec<Vec<u8>> {
    let (from, to) = (lab.path("from.pcap"), lab.path("to.pcap"));
    write_pcap(&from, &(0..FRAMES).map(segment).collect::<Vec<_>>());
    let port = dpdk(&format!("net_pcap0,tx_pcap={}", to.display()));
    let ringside = lab.serve(&one_net(&port, ""));
    let device = format!("net_pcap0,rx_pcap={}", from.display());
    // Or it throws away what there is to be received when it starts to forward.
    let setup = Setup { other_device: Some(&device), arguments: "--no-flush-rx", ..PLAIN };
    let mut testpmd = lab.testpmd("n0", &setup);
    testpmd.run(&format!("port stop all\n{commands}\nport start all"));
    testpmd.forward("csum", "start", "the file is sent", |testpmd| testpmd.xstats(1).sent() >= FRAMES.into());
    assert_eq!(testpmd.xstats(1).sent(), u64::from(FRAMES));
    all_sent(&ringside, "n0", FRAMES.into());
    Counts::until(&ringside, "n0", "all frames are in the file", |counts| counts.port_tx == arrive);
    assert_eq!(Counts::of(&ringside, "n0").port_drops, 0);
    testpmd.quit();
    disconnected(&ringside, "n0");
    ringside.metrics().assert_no_trouble_of_net();
    ringside.stop();
    read_pcap(&to)
}

/// Sends the same through a loopback and back into a file, and returns what is in it: as many frames as `back`.
fn around(lab: &Lab, commands: &str, back: u64) -> Vec<Vec<u8>> {
    let (from, to) = (lab.path("from.pcap"), lab.path("to.pcap"));
    write_pcap(&from, &(0..FRAMES).map(segment).collect::<Vec<_>>());
    let ringside = lab.serve(&one_net(LOOPBACK, ""));
    let device = format!("net_pcap0,rx_pcap={},tx_pcap={}", from.display(), to.display());
    let setup = Setup { other_device: Some(&device), arguments: "--no-flush-rx", ..PLAIN };
    let mut testpmd = lab.testpmd("n0", &setup);
    testpmd.run(&format!("port stop all\n{commands}\nport start all"));
    testpmd.forward("csum", "start", "all is back", |testpmd| testpmd.xstats(0).sent() >= back);
    let counted = testpmd.xstats(1);
    assert_eq!((counted.sent(), counted.received()), (FRAMES.into(), back));
    let counts = all_sent(&ringside, "n0", FRAMES.into());
    assert_eq!((counts.port_rx, counts.rx), (FRAMES.into(), back));
    testpmd.quit();
    disconnected(&ringside, "n0");
    ringside.metrics().assert_no_trouble_of_net();
    ringside.stop();
    read_pcap(&to)
}

/// That the payload of these segments is what was sent, each byte once and in order.
fn assert_whole(frames: &[Vec<u8>]) {
    let mut expected = 0;
    for frame in frames {
        let (sequence, payload) = checked(frame);
        assert_eq!(sequence, expected, "sequence number");
        let sent = |at: usize| payload_byte((at / PAYLOAD) as u32, at % PAYLOAD);
        assert!(payload.iter().enumerate().all(|(at, byte)| *byte == sent(sequence + at)), "payload at {sequence}");
        expected += payload.len();
    }
    assert_eq!(expected, FRAMES as usize * PAYLOAD, "bytes that arrived");
}

#[test]
fn checksums_that_testpmd_leaves_open_are_filled_in() {
    let Some(lab) = Lab::enter("checksums_that_testpmd_leaves_open_are_filled_in") else { return };
    let frames = through(&lab, "csum set ip sw 1\ncsum set tcp hw 1", FRAMES.into());
    assert_eq!(frames.len(), FRAMES as usize);
    assert_whole(&frames);
}

#[test]
fn segments_that_testpmd_leaves_uncut_are_cut() {
    let Some(lab) = Lab::enter("segments_that_testpmd_leaves_uncut_are_cut") else { return };
    // 1400 bytes in segments of 500: three of each.
    let frames = through(&lab, "csum set ip sw 1\ncsum set tcp hw 1\ntso set 500 1", 3 * u64::from(FRAMES));
    assert_eq!(frames.len(), 3 * FRAMES as usize);
    assert!(frames.iter().all(|frame| [HEADERS + 500, HEADERS + 400].contains(&frame.len())));
    assert_whole(&frames);
}

/// The driver takes no such frames back as it sends: they are cut on their way to it.
#[test]
fn segments_that_come_back_uncut_to_a_driver_that_takes_none_are_cut() {
    const TEST: &str = "segments_that_come_back_uncut_to_a_driver_that_takes_none_are_cut";
    let Some(lab) = Lab::enter(TEST) else { return };
    let frames = around(&lab, "csum set tcp hw 1\ntso set 500 1", 3 * u64::from(FRAMES));
    assert!(frames.iter().all(|frame| [HEADERS + 500, HEADERS + 400].contains(&frame.len())));
    assert_whole(&frames);
}

#[test]
fn segments_that_come_back_uncut_to_a_driver_that_takes_them_are_left_whole() {
    const TEST: &str = "segments_that_come_back_uncut_to_a_driver_that_takes_them_are_left_whole";
    let Some(lab) = Lab::enter(TEST) else { return };
    let receives = "port config 1 rx_offload tcp_cksum on\nport config 1 rx_offload tcp_lro on";
    let commands = format!("csum set tcp hw 1\ntso set 500 1\n{receives}");
    let frames = around(&lab, &commands, FRAMES.into());
    assert_eq!(frames.len(), FRAMES as usize);
    assert_whole(&frames);
}
