//! Whole runs: against a device in this process behind a real socket, and against the null responder.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use super::args::tests::parse;
use super::testing::{BLOCKS, Device, Seen, Twist};
use super::*;

/// Times are short, and nothing is asserted that depends on how far a run gets in them.
const SHORT: &str = "--time 0.05 --qd 4";

fn args(device: &Device, line: &str) -> Args {
    let warmup = if line.contains("--number-ios") { "" } else { "--warmup 0.01" };
    parse(&format!("--socket {} {SHORT} {warmup} {line}", device.path().display())).unwrap()
}

fn never() -> std::os::fd::OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

fn run_on(device: &Device, line: &str) -> Outcome {
    measure(&args(device, line), never().as_fd()).unwrap()
}

fn refusal(device: &Device, line: &str) -> String {
    format!("{:#}", measure(&args(device, line), never().as_fd()).unwrap_err())
}

fn is_transfer(seen: Seen) -> bool {
    matches!(seen.opcode, 0x28 | 0x2a)
}

#[test]
fn run_of_every_pattern_succeeds_and_stops_every_ring() {
    for rw in ["randread", "randwrite", "randrw", "read", "write"] {
        for line in ["", "--queues 3", "--indirect", "--interrupt", "--in-order", "--bs 512 --queue-size 16"] {
            let device = Device::honest();
            let outcome = run_on(&device, &format!("--rw {rw} {line}"));
            assert!(outcome.passed(), "{rw} {line}: {outcome:?}");
            assert_eq!((outcome.block_size, outcome.range_bytes), (512, 1 << 20));
            let rings = if line == "--queues 3" { 5 } else { 3 };
            assert_eq!(device.stopped(), rings, "{rw} {line}");
        }
    }
}

#[test]
fn run_with_time_to_think_sends_whole_batches_each_when_the_last_is_back() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let device = Device::start(move |seen| {
        count.fetch_add(u64::from(is_transfer(seen)), Ordering::Relaxed);
        Twist::None
    });
    let outcome = run_on(&device, "--think-us 10000000 --queues 2");
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!((sent.load(Ordering::Relaxed), outcome.asked.think_us), (8, 10_000_000), "four to each of two queues");
    for line in ["--think-us 50", "--think-us 50 --interrupt", "--think-us 50 --verify --rw randwrite"] {
        let outcome = run_on(&Device::honest(), line);
        assert!(outcome.passed(), "{line}: {outcome:?}");
    }
    let outcome = run_on(&Device::honest(), "--think-us 50 --number-ios 10 --time 60");
    assert!(outcome.passed() && outcome.ios == 10, "{outcome:?}");
}

#[test]
fn run_with_verification_of_every_pattern_finds_an_honest_device_honest() {
    for rw in ["randread", "randwrite", "randrw", "read", "write"] {
        let outcome = run_on(&Device::honest(), &format!("--rw {rw} --verify --queues 2"));
        assert!(outcome.passed(), "{rw}: {outcome:?}");
        // At the least, each slot of both queues had one command.
        assert!(outcome.verified_blocks >= 8, "{rw}: {outcome:?}");
        assert_eq!(outcome.mismatched_blocks, 0);
    }
}

#[test]
fn verification_of_a_device_that_loses_writes_fails_and_names_the_lba() {
    let device = Device::start(|seen| if (seen.opcode, seen.lba) == (0x2a, 8) { Twist::Lose } else { Twist::None });
    let outcome = run_on(&device, "--rw read --verify --size 32k");
    assert!(!outcome.passed());
    let lost =
        "LBA 8: lost block: expected generation 1, found no stamp, it begins with [00, 00, 00, 00, 00, 00, 00, 00]";
    assert_eq!(outcome.mismatches[0], lost);
    assert_eq!(outcome.errors, outcome.mismatched_blocks);
}

#[test]
fn verification_of_a_device_that_keeps_nothing_says_so_and_calls_nothing_lost() {
    for rw in ["randread", "randwrite", "randrw"] {
        let device = Device::start(|seen| if is_transfer(seen) { Twist::Lose } else { Twist::None });
        let outcome = run_on(&device, &format!("--rw {rw} --verify --size 32k --number-ios 50 --time 60"));
        let failure = outcome.failure.as_deref().unwrap_or_default();
        assert!(failure.starts_with("--verify: every READ ended well and none moved a byte of the "), "{failure}");
        assert!(failure.ends_with(": the LUN keeps no data (a null bdev?), there is nothing to verify"), "{failure}");
        assert!(!outcome.passed());
        assert_eq!((outcome.errors, outcome.verified_blocks, outcome.mismatched_blocks), (0, 0, 0));
        assert!(outcome.mismatches.is_empty());
    }
}

#[test]
fn run_by_number_ends_after_that_many_commands() {
    for (rw, line) in [("randread", ""), ("write", "--queues 3"), ("randrw", "--verify"), ("read", "--verify")] {
        for number in [1, 3, 100] {
            let device = Device::honest();
            let outcome = run_on(&device, &format!("--rw {rw} {line} --time 600 --number-ios {number}"));
            assert!(outcome.passed(), "{rw} {line}: {outcome:?}");
            assert_eq!(outcome.ios, number, "{rw} {line}");
            assert!(outcome.measured_s > 0.0 && outcome.asked.warmup_s == 0.0);
        }
    }
}

#[test]
fn verification_of_a_device_that_swaps_blocks_fails_for_reads_and_writes() {
    let swap = |seen: Seen| match seen {
        Seen { opcode: 0x28, lba: 0, .. } => Twist::At { lba: 8 },
        Seen { opcode: 0x28, lba: 8, .. } => Twist::At { lba: 0 },
        _ => Twist::None,
    };
    for rw in ["randwrite", "read"] {
        let outcome = run_on(&Device::start(swap), &format!("--rw {rw} --verify --size 16k --qd 4 --seed 3"));
        assert!(!outcome.passed(), "{rw}");
        let first = &outcome.mismatches[0];
        let kind = first.starts_with("LBA 0: misdirected") || first.starts_with("LBA 8: misdirected");
        assert!(kind && first.ends_with("of seed 3"), "{first}");
    }
}

#[test]
fn verification_of_reads_that_move_nothing_finds_no_stamp() {
    let lost = |seen: Seen| seen.opcode == 0x28 && seen.lba >= 8;
    let device = Device::start(move |seen| if lost(seen) { Twist::Lose } else { Twist::None });
    let outcome = run_on(&device, "--rw read --verify --number-ios 256 --time 600");
    assert!(!outcome.passed() && outcome.failure.is_none());
    assert!(outcome.mismatches[0].contains("it begins with [db, db, db"), "{:?}", outcome.mismatches);
    assert_eq!(outcome.mismatches.len(), 8, "the first ones are told, all are counted");
    assert_eq!((outcome.mismatched_blocks, outcome.verified_blocks), (2040, 2048));
}

#[test]
fn failed_commands_are_counted_by_kind_and_fail_the_run() {
    let device = Device::start(|seen| match seen.transfers {
        _ if !is_transfer(seen) => Twist::None,
        1 => Twist::Answer { response: 5, status: 0 },
        2 => Twist::Answer { response: 0, status: 0x28 },
        3 => Twist::Sense { key: 3, asc: 0x11 },
        _ => Twist::None,
    });
    let outcome = run_on(&device, "");
    assert!(!outcome.passed());
    assert_eq!((outcome.errors, outcome.failure), (3, None));
    let kinds: Vec<_> = outcome.error_kinds.iter().map(|error| (error.kind.as_str(), error.count)).collect();
    let wanted = [("S_BUSY", 1), ("TASK SET FULL", 1), ("CHECK CONDITION 3h/11h/00h MEDIUM ERROR", 1)];
    assert_eq!(kinds, wanted);
}

#[test]
fn failed_writes_are_not_verified_but_fail_the_run() {
    let device = Device::start(|seen| match seen {
        Seen { opcode: 0x2a, lba: 8, .. } => Twist::Answer { response: 9, status: 0 },
        _ => Twist::None,
    });
    let outcome = run_on(&device, "--rw write --verify --size 32k");
    assert!(!outcome.passed());
    assert_eq!(outcome.mismatched_blocks, 0);
    assert_eq!(outcome.error_kinds[0].kind, "S_FAILURE");
}

#[test]
fn device_that_goes_away_ends_the_run_with_the_reason() {
    for line in ["", "--interrupt", "--verify"] {
        let device = Device::start(|seen| if seen.transfers == 20 { Twist::Close } else { Twist::None });
        let outcome = run_on(&device, &format!("--time 3600 {line}"));
        let failure = outcome.failure.clone().unwrap();
        assert!(failure.starts_with("the device closed the connection; commands outstanding: "), "{failure}");
        assert!(!outcome.passed());
    }
}

#[test]
fn ring_that_the_device_reports_broken_ends_the_run() {
    let device = Device::start(|seen| if seen.transfers == 20 { Twist::Break } else { Twist::None });
    let failure = run_on(&device, "--time 3600").failure.unwrap();
    assert!(failure.starts_with("the device reports that ring 2 (request) is broken"), "{failure}");
}

#[test]
fn device_that_stops_answering_ends_the_run_naming_what_is_outstanding() {
    for line in ["", "--interrupt"] {
        let device = Device::start(|seen| if seen.transfers >= 20 { Twist::Hang } else { Twist::None });
        let outcome = run_on(&device, &format!("--time 3600 --stall-timeout 1.5 {line}"));
        let failure = outcome.failure.unwrap();
        let wanted = "no command came back for 1.5s; commands outstanding: 4 on request queue 0";
        assert_eq!(failure, wanted);
    }
}

#[test]
fn run_that_is_interrupted_has_an_outcome_at_once() {
    for line in ["--time 3600 --warmup 0", "--time 3600 --warmup 3600 --interrupt"] {
        let device = Device::honest();
        let interrupt = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        let outcome = measure(&args(&device, line), interrupt.as_fd());
        // As early as during start-up, or later: either way it ends.
        match outcome {
            Ok(outcome) => assert!(outcome.interrupted && outcome.passed(), "{outcome:?}"),
            Err(error) => assert!(format!("{error:#}").contains("interrupted"), "{error:#}"),
        }
    }
}

/// An interrupt, and a device that causes it with its hundredth transfer.
fn interrupting() -> (UnixStream, Device) {
    let (interrupt, other_end) = UnixStream::pair().unwrap();
    let mut other_end = Some(other_end);
    let device = Device::start(move |seen| {
        if seen.transfers == 100 {
            drop(other_end.take());
        }
        Twist::None
    });
    (interrupt, device)
}

#[test]
fn run_interrupted_in_the_middle_ends_in_order_and_has_passed() {
    for line in ["", "--interrupt", "--queues 3"] {
        let (interrupt, device) = interrupting();
        let outcome = measure(&args(&device, &format!("--time 3600 {line}")), interrupt.as_fd()).unwrap();
        assert!(outcome.interrupted && outcome.passed(), "{outcome:?}");
        assert!(device.stopped() >= 3);
    }
}

#[test]
fn verification_that_is_interrupted_has_not_passed() {
    let (interrupt, device) = interrupting();
    let args = args(&device, "--rw write --verify --time 3600");
    let outcome = measure(&args, interrupt.as_fd()).unwrap();
    assert!(outcome.interrupted && outcome.errors == 0 && !outcome.passed());
}

#[test]
fn start_up_takes_note_of_unit_attentions_and_goes_on() {
    let mut attentions = 0;
    let device = Device::start(move |seen| match seen.opcode {
        0x00 | 0x9e if attentions < 3 => {
            attentions += 1;
            Twist::Sense { key: 6, asc: 0x29 }
        }
        _ => Twist::None,
    });
    assert!(run_on(&device, "").passed());
}

#[test]
fn start_up_that_fails_names_command_and_reason() {
    let attentive = Device::start(|seen| match seen.opcode {
        0x00 => Twist::Sense { key: 6, asc: 0x29 },
        _ => Twist::None,
    });
    let error = refusal(&attentive, "");
    assert_eq!(error, "target 0, LUN 0: TEST UNIT READY: CHECK CONDITION 6h/29h/00h UNIT ATTENTION");
    let device = Device::honest();
    let error = refusal(&device, "--target 1");
    assert_eq!(error, "target 1, LUN 0: INQUIRY: the device has no such target (S_BAD_TARGET)");
    assert_eq!(refusal(&device, "--lun 300"), "--lun 300: target 0 has no such logical unit");
    assert_eq!(refusal(&device, "--queues 5"), "--queues 5: the device has 4 request queues");
    assert!(refusal(&device, "--queue-size 512").contains("--queue-size 512: SET_VRING_NUM"));
    assert!(run_on(&device, "").passed(), "refused runs do the device no harm");
}

#[test]
fn start_up_of_a_device_that_does_not_answer_or_goes_away_ends() {
    let silent = Device::start(|_| Twist::Hang);
    assert_eq!(refusal(&silent, "--stall-timeout 1.5"), "target 0, LUN 0: INQUIRY: no answer within 1.5s");
    let gone = Device::start(|_| Twist::Close);
    assert_eq!(refusal(&gone, ""), "target 0, LUN 0: INQUIRY: the device closed the connection");
}

#[test]
fn socket_without_listener_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nobody");
    let args = parse(&format!("--socket {}", path.display())).unwrap();
    let error = format!("{:#}", measure(&args, never().as_fd()).unwrap_err());
    assert!(error.contains("is a target running") && error.contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn limits_of_the_device_are_told_and_gone_over() {
    let device = Device::honest();
    // 65 in flight where the device says 64, and 256 sectors where it says 128.
    let outcome = run_on(&device, "--qd 65 --queue-size 256 --bs 128k --size 1m");
    assert!(outcome.passed(), "{outcome:?}");
}

#[test]
fn every_command_of_a_run_is_seen_by_the_device_within_the_range() {
    let highest = Arc::new(AtomicU64::new(0));
    let seen_by_device = Arc::clone(&highest);
    let device = Device::start(move |seen| {
        if is_transfer(seen) {
            seen_by_device.fetch_max(seen.lba, Ordering::Relaxed);
        }
        Twist::None
    });
    run_on(&device, "--rw read --bs 64k");
    // Sequential reads wrap: sixteen commands are the whole disk, and more than that are sent.
    assert!(highest.load(Ordering::Relaxed) <= BLOCKS - 128);
}

#[test]
fn run_in_order_against_a_device_that_keeps_none_names_what_it_did() {
    let device =
        Device::start(|seen| if is_transfer(seen) && seen.transfers == 20 { Twist::Hang } else { Twist::None });
    let failure = run_on(&device, "--in-order --time 3600 --stall-timeout 3600").failure.unwrap();
    let wanted = "the device broke the used ring of request queue 0: used out of order (VIRTIO_F_IN_ORDER): head ";
    assert!(failure.starts_with(wanted), "{failure}");
    let lacking = refusal(&Device::without(1 << 35), "--in-order");
    assert_eq!(lacking, "--in-order: the device does not offer VIRTIO_F_IN_ORDER (bit 35)");
}

#[test]
fn null_responder_answers_every_command() {
    for line in [
        "--in-order",
        "--in-order --ring packed",
        "",
        "--queues 2",
        "--rw randrw",
        "--indirect --qd 128",
        "--rw write --bs 64k",
    ] {
        let args = parse(&format!("--null-responder --time 0.05 --warmup 0.01 {line}")).unwrap();
        let outcome = measure(&args, never().as_fd()).unwrap();
        assert!(outcome.passed() && outcome.failure.is_none(), "{line}: {outcome:?}");
        assert!(outcome.asked.null_responder);
    }
}

#[test]
fn start_up_with_a_back_end_that_does_not_reply_ends_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mute");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let args = parse(&format!("--socket {} --stall-timeout 0.1", path.display())).unwrap();
    let error = format!("{:#}", measure(&args, never().as_fd()).unwrap_err());
    assert_eq!(error, "GET_FEATURES: no reply within 100ms");
}

#[test]
fn run_that_is_interrupted_does_not_wait_for_a_device_that_hangs() {
    let (interrupt, other_end) = UnixStream::pair().unwrap();
    let mut other_end = Some(other_end);
    let device = Device::start(move |seen| {
        if seen.transfers < 20 {
            return Twist::None;
        }
        drop(other_end.take());
        Twist::Hang
    });
    let outcome = measure(&args(&device, "--time 3600 --stall-timeout 3600"), interrupt.as_fd()).unwrap();
    let failure = outcome.failure.unwrap();
    assert!(failure.starts_with("no command came back for 2s; commands outstanding: 4"), "{failure}");
}
