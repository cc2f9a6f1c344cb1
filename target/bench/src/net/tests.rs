//! Whole runs: against a device in this process behind a real socket, and against the null responder.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};

use super::args::tests::parse;
use super::testing::{Device, Kind, MRG_RXBUF, OFFERED, Twist};
use super::*;
use crate::testing::Side;

/// Times are long, and runs end by the number of their frames.
const RUN: &str = "--time 600 --frames 300 --seed 7";

fn args(device: &Device, line: &str) -> Args {
    parse(&format!("--socket {} {RUN} {line}", device.path().display())).unwrap()
}

fn never() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

fn run_on(device: &Device, line: &str) -> Outcome {
    measure(&args(device, line), never().as_fd()).unwrap()
}

fn refusal(device: &Device, line: &str) -> String {
    format!("{:#}", measure(&args(device, line), never().as_fd()).unwrap_err())
}

/// A device that does this to the frame of one number.
fn twisting(frame: u64, twist: Twist) -> Device {
    Device::start(Kind::ECHO, move |number| if number == frame { twist } else { Twist::None })
}

#[test]
fn loop_brings_every_frame_back_and_stops_every_ring() {
    for line in [
        "",
        "--verify",
        "--verify --queues 2 --flows 4",
        "--verify --indirect",
        "--verify --interrupt",
        "--verify --mrg off",
        "--size 30 --verify",
        "--size 1518 --verify --queue-size 16",
        "--verify --window 1",
        "--verify --rate 1000000",
        "--verify --interrupt --rate 20000",
    ] {
        let device = Device::honest();
        let outcome = run_on(&device, &format!("--mode loop {line}"));
        assert!(outcome.passed(), "{line}: {outcome:?}");
        assert_eq!((outcome.sent, outcome.received, outcome.rx_frames), (300, 300, 300), "{line}");
        assert_eq!((outcome.reordered, outcome.foreign), (0, 0), "{line}");
        assert!(outcome.lat_us.max > 0.0 && outcome.mpps > 0.0, "{line}");
        assert_eq!(device.stopped(), if line.contains("--queues 2") { 4 } else { 2 }, "{line}");
    }
}

#[test]
fn loop_puts_frames_of_several_buffers_together() {
    for line in [
        "--size 1518 --rx-buffer 128",
        "--size 9018",
        "--size 9018 --rx-buffer 130 --queue-size 128",
        "--size 9018 --rx-buffer 1000 --queues 2",
        "--size 65535 --offload tso",
        "--size 65535 --offload tso --rx-buffer 65562 --mrg off",
        "--size 116 --rx-buffer 128",
        "--size 117 --rx-buffer 128",
    ] {
        let outcome = run_on(&Device::honest(), &format!("--mode loop --verify --frames 100 {line}"));
        assert!(outcome.passed(), "{line}: {outcome:?}");
        let size = u64::from(outcome.asked.size);
        assert_eq!((outcome.received, outcome.rx_bytes), (100, 100 * size), "{line}");
    }
}

#[test]
fn tx_sends_as_many_frames_as_were_asked_for() {
    for line in ["", "--verify", "--queues 2", "--indirect --interrupt", "--size 14", "--size 70 --offload tso"] {
        let device = Device::start(Kind::ECHO, |_| Twist::Lose);
        let outcome = run_on(&device, &format!("--mode tx {line}"));
        assert!(outcome.passed(), "{line}: {outcome:?}");
        assert_eq!((outcome.sent, outcome.tx_frames, outcome.lost, outcome.received), (300, 300, 0, 0), "{line}");
    }
}

#[test]
fn rx_counts_what_comes() {
    for (line, len) in [("", 64), ("--queues 2 --interrupt", 64), ("--rx-buffer 128", 1518), ("", 9000)] {
        let device = Device::start(Kind { source: Some(len), ..Kind::ECHO }, |_| Twist::None);
        let outcome = run_on(&device, &format!("--mode rx --frames 50 {line}"));
        assert!(outcome.passed(), "{line}: {outcome:?}");
        assert!(outcome.received >= 50, "{line}");
        assert_eq!(outcome.rx_bytes, outcome.rx_frames * len as u64, "{line}");
    }
}

#[test]
fn runs_by_time_measure_after_the_warm_up() {
    let device = Device::honest();
    for mode in ["tx", "loop"] {
        let line = format!("--socket {} --time 0.05 --warmup 0.01 --mode {mode}", device.path().display());
        let outcome = measure(&parse(&line).unwrap(), never().as_fd()).unwrap();
        assert!(outcome.passed(), "{mode}: {outcome:?}");
        assert!(outcome.measured_s >= 0.05 && outcome.sent >= outcome.tx_frames, "{mode}");
    }
}

#[test]
fn loop_over_a_device_that_loses_a_frame_counts_it() {
    for line in ["", "--verify", "--window 1"] {
        let outcome = run_on(&twisting(17, Twist::Lose), &format!("--mode loop --loss-timeout 0.2 {line}"));
        assert!(!outcome.passed(), "{line}");
        assert_eq!((outcome.lost, outcome.received, outcome.failure), (1, 299, None), "{line}");
    }
}

#[test]
fn loop_over_a_device_that_doubles_a_frame_counts_it() {
    let outcome = run_on(&twisting(17, Twist::Twice), "--mode loop --window 64");
    assert!(!outcome.passed());
    assert_eq!((outcome.lost, outcome.duplicated, outcome.received), (0, 1, 300));
    assert_eq!(outcome.complaints, ["frame 17 of queue pair 0 came again"]);
}

#[test]
fn loop_over_a_device_that_swaps_frames_tells_and_passes() {
    let outcome = run_on(&twisting(17, Twist::Later), "--mode loop --verify");
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!((outcome.reordered, outcome.received), (1, 300));
}

#[test]
fn verification_finds_a_changed_byte_wherever_it_is() {
    for at in [0, 13, 20, 35, 40, 58, 63] {
        let outcome = run_on(&twisting(17, Twist::Flip { at }), "--mode loop --verify");
        assert_eq!(outcome.corrupted, 1, "byte {at}: {outcome:?}");
        assert!(!outcome.passed() && outcome.complaints[0].starts_with("frame 0x11: "), "{outcome:?}");
    }
    let outcome = run_on(&twisting(17, Twist::Flip { at: 63 }), "--mode loop");
    assert!(outcome.passed(), "without verification nobody looks there");
}

#[test]
fn changed_number_or_run_makes_a_frame_lost() {
    let run = run_on(&twisting(17, Twist::Flip { at: 49 }), "--mode loop --loss-timeout 0.2");
    assert_eq!((run.lost, run.foreign, run.duplicated), (1, 1, 0), "{run:?}");
    let number = run_on(&twisting(16, Twist::Flip { at: 52 }), "--mode loop --loss-timeout 0.2");
    assert_eq!((number.lost, number.foreign, number.duplicated), (1, 0, 1), "{number:?}");
    assert_eq!(number.complaints, [format!("frame {} of queue pair 0 was never sent", 16 + (1u64 << 40))]);
}

#[test]
fn frame_that_is_too_short_is_corrupted() {
    let outcome = run_on(&twisting(17, Twist::Cut), "--mode loop");
    assert_eq!((outcome.corrupted, outcome.lost), (1, 0));
    assert_eq!(outcome.complaints, ["frame 0x11: 63 bytes, sent 64"]);
}

#[test]
fn frames_of_somebody_else_are_counted_and_harmless() {
    let outcome = run_on(&twisting(17, Twist::Foreign), "--mode loop --verify --window 64");
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!((outcome.foreign, outcome.received), (1, 300));
}

#[test]
fn buffers_that_hold_no_frame_are_malformed_and_the_run_goes_on() {
    for (twist, complaint, lost) in [
        (Twist::Stub { written: 11 }, "a receive buffer with 11 bytes, the header alone has 12", 0),
        (Twist::Stub { written: 2061 }, "a receive buffer with 2061 bytes, it has room for 2060", 0),
        (Twist::Buffers { num_buffers: 0 }, "num_buffers 0, must be 1 to 256", 1),
        (Twist::Buffers { num_buffers: 257 }, "num_buffers 257, must be 1 to 256", 1),
    ] {
        let outcome = run_on(&twisting(17, twist), "--mode loop --loss-timeout 0.2 --window 64");
        assert!(!outcome.passed());
        assert_eq!((outcome.malformed, outcome.lost), (1, lost), "{outcome:?}");
        assert_eq!(outcome.complaints, [complaint]);
    }
    let unmerged = run_on(&twisting(17, Twist::Buffers { num_buffers: 0 }), "--mode loop --mrg off --verify");
    assert!(unmerged.passed(), "without mergeable buffers the field means nothing: {unmerged:?}");
}

#[test]
fn checksum_that_the_device_says_to_be_right_is_taken() {
    for (flags, passes) in [(1, true), (2, true), (0, false)] {
        let outcome = run_on(&twisting(17, Twist::Flags { flags }), "--mode loop --verify --offload csum");
        assert_eq!(outcome.passed(), passes, "flags {flags}: {outcome:?}");
    }
}

#[test]
fn device_that_connects_is_waited_for() {
    let device = Device::start(Kind { side: Side::Client, ..Kind::ECHO }, |_| Twist::None);
    let outcome = run_on(&device, "--server --mode loop --verify");
    assert!(outcome.passed() && outcome.asked.server, "{outcome:?}");
    assert!(!device.path().exists(), "the socket is ours to remove");
}

#[test]
fn waiting_for_a_device_that_does_not_come_ends_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let args = parse(&format!("--socket {} --server --stall-timeout 0.1", path.display())).unwrap();
    let error = format!("{:#}", measure(&args, never().as_fd()).unwrap_err());
    assert_eq!(error, format!("{}: no device connected within 100ms", path.display()));
    let interrupt = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
    let args = parse(&format!("--socket {} --server --stall-timeout 600", path.display())).unwrap();
    assert_eq!(measure(&args, interrupt.as_fd()).unwrap_err().to_string(), "interrupted");
}

#[test]
fn device_that_goes_away_ends_the_run_with_the_reason() {
    for line in ["--mode tx", "--mode loop --interrupt"] {
        let failure = run_on(&twisting(17, Twist::Close), line).failure.unwrap();
        assert!(failure.starts_with("the device closed the connection; frames outstanding: "), "{failure}");
    }
}

#[test]
fn ring_that_the_device_reports_broken_ends_the_run() {
    let outcome = run_on(&twisting(17, Twist::Break), "--mode tx");
    let failure = outcome.failure.clone().unwrap();
    assert!(failure.starts_with("the device reports that ring 1 (transmit) is broken; "), "{failure}");
    assert!(!outcome.passed());
}

#[test]
fn device_that_stops_taking_frames_ends_the_run_naming_what_is_outstanding() {
    for line in ["--mode tx", "--mode loop --interrupt --loss-timeout 0.1"] {
        let device = Device::start(Kind::ECHO, |number| if number < 17 { Twist::None } else { Twist::Hang });
        let outcome = run_on(&device, &format!("{line} --window 8 --stall-timeout 1.5"));
        let failure = outcome.failure.clone().unwrap();
        assert!(failure.starts_with("no frame was taken for 1.5s; frames outstanding: "), "{failure}");
        assert!(outcome.lost >= 8, "{outcome:?}");
    }
}

#[test]
fn run_that_is_interrupted_ends_in_order_and_has_passed() {
    for line in ["--mode tx", "--mode loop --verify", "--mode loop --interrupt"] {
        let (interrupt, other_end) = UnixStream::pair().unwrap();
        let mut other_end = Some(other_end);
        let device = Device::start(Kind::ECHO, move |number| {
            if number == 100 {
                drop(other_end.take());
            }
            Twist::None
        });
        let args = args(&device, &format!("{line} --frames 100000000"));
        let outcome = measure(&args, interrupt.as_fd()).unwrap();
        assert!(outcome.interrupted && outcome.passed(), "{outcome:?}");
        assert_eq!(device.stopped(), 2);
    }
}

#[test]
fn device_that_lacks_something_is_refused_by_name() {
    let without = |bits: u64| Device::start(Kind { features: OFFERED & !bits, ..Kind::ECHO }, |_| Twist::None);
    for (bit, line, wanted) in [
        (32, "", "the device does not offer VIRTIO_F_VERSION_1 (bit 32)"),
        (15, "--mrg on", "--mrg on: the device does not offer VIRTIO_NET_F_MRG_RXBUF (bit 15)"),
        (22, "--queues 2", "--queues: the device does not offer VIRTIO_NET_F_MQ (bit 22)"),
        (28, "--indirect", "--indirect: the device does not offer VIRTIO_F_INDIRECT_DESC (bit 28)"),
        (35, "--in-order", "--in-order: the device does not offer VIRTIO_F_IN_ORDER (bit 35)"),
        (0, "--offload csum", "--offload: the device does not offer VIRTIO_NET_F_CSUM (bit 0)"),
        (11, "--offload tso --size 70", "--offload: the device does not offer VIRTIO_NET_F_HOST_TSO4 (bit 11)"),
        (
            7,
            "--offload tso --size 70 --mode loop",
            "--offload: the device does not offer VIRTIO_NET_F_GUEST_TSO4 (bit 7)",
        ),
        (
            15,
            "--mode loop --size 9018",
            "--rx-buffer 2060: without mergeable buffers must be at least 9030 for frames of 9018 bytes",
        ),
    ] {
        assert_eq!(refusal(&without(1 << bit), line), wanted);
    }
    let plain = without(MRG_RXBUF);
    let outcome = run_on(&plain, "--mode loop --verify");
    assert!(outcome.passed() && !outcome.asked.mrg, "{outcome:?}");
    assert_eq!(refusal(&Device::honest(), "--queues 5"), "--queues 5: the device has 4 queue pairs");
    assert!(refusal(&Device::honest(), "--queue-size 2048").contains("--queue-size 2048: SET_VRING_NUM"));
}

#[test]
fn socket_without_listener_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nobody");
    let args = parse(&format!("--socket {}", path.display())).unwrap();
    let error = format!("{:#}", measure(&args, never().as_fd()).unwrap_err());
    assert!(error.contains("is a target running, with a net device on this socket?"), "{error}");
}

#[test]
fn null_responder_takes_gives_and_echoes() {
    for mode in ["tx", "rx", "loop"] {
        for line in ["", "--queues 2", "--indirect --size 1518", "--size 9018 --verify", "--mrg off --in-order"] {
            let args = parse(&format!("--null-responder --time 0.05 --warmup 0.01 --mode {mode} {line}")).unwrap();
            let outcome = measure(&args, never().as_fd()).unwrap();
            assert!(outcome.passed(), "{mode} {line}: {outcome:?}");
            assert!(outcome.asked.null_responder && outcome.mpps > 0.0, "{mode} {line}");
        }
    }
}
