//! Tests of the fault plans and of the device that follows them.

use guest_memory::{Pages, SharedMemory};

use super::*;
use crate::testing::Recorder;
use crate::{Delay, Extent, Malloc};

const NOW: Tsc = Tsc(9);
const WRITE: Op = Op::Write { fua: false };

fn faulty(plan: &str) -> (Recorder, Faulty) {
    let recorder = Recorder::new("r", 1 << 20, 512).unwrap();
    let faulty = Faulty::new("bad", Arc::new(recorder.clone()), plan.parse().unwrap());
    (recorder, faulty)
}

fn submit(channel: &mut Channel, op: Op, lba: u64, blocks: u32) -> Submitted {
    channel.submit(&Io::new(op, lba, blocks, &[], Token(lba)), NOW)
}

/// Which of `count` requests failed, counted from 1.
fn failures(channel: &mut Channel, op: Op, count: u64, status: Status) -> Vec<u64> {
    let failed = |n: &u64| match submit(channel, op, *n, 1) {
        Submitted::Done(Status::Good) => false,
        Submitted::Done(found) => {
            assert_eq!(found, status);
            true
        }
        Submitted::Pending => panic!("pending"),
    };
    (1..=count).filter(failed).collect()
}

#[test]
fn faulty_every_third_write_fails_and_does_not_reach_the_device() {
    let (recorder, faulty) = faulty("every 3 writes");
    assert_eq!((faulty.info().kind, faulty.info().name.as_str()), ("error", "bad"));
    let mut channel = faulty.open();
    assert_eq!(failures(&mut channel, Op::Read, 10, Status::ReadError), []);
    assert_eq!(failures(&mut channel, WRITE, 10, Status::WriteError), [3, 6, 9]);
    assert_eq!((recorder.calls().reads, recorder.calls().writes), (10, 7));
    // each channel counts for itself, and a write-same is a write
    assert_eq!(failures(&mut faulty.open(), Op::WriteSame, 4, Status::WriteError), [3]);
}

#[test]
fn faulty_effects_are_the_statuses_they_name() {
    let table = [
        ("medium-error", Status::WriteError),
        ("read-error", Status::ReadError),
        ("write-error", Status::WriteError),
        ("no-space", Status::NoSpace),
        ("write-protected", Status::WriteProtected),
        ("busy", Status::Busy),
        ("aborted", Status::Aborted),
        ("gone", Status::Gone),
        ("failed", Status::Failed),
    ];
    for (word, status) in table {
        let (_, faulty) = faulty(&format!("all requests with {word}"));
        assert_eq!(failures(&mut faulty.open(), WRITE, 2, status), [1, 2], "{word}");
    }
    let (_, faulty) = faulty("all requests");
    for (op, status) in
        [(Op::Read, Status::ReadError), (Op::Compare, Status::ReadError), (Op::Flush, Status::WriteError)]
    {
        assert_eq!(submit(&mut faulty.open(), op, 0, 1), Submitted::Done(status));
    }
}

#[test]
fn faulty_range_is_hit_by_every_request_that_touches_it() {
    let (_, faulty) = faulty("all reads at 100-199; all unmaps at 7 with busy");
    let mut channel = faulty.open();
    for (lba, blocks, hit) in
        [(99, 1, false), (99, 2, true), (199, 1, true), (200, 9, false), (0, 1000, true), (150, 0, false)]
    {
        let expected = if hit { Status::ReadError } else { Status::Good };
        assert_eq!(submit(&mut channel, Op::Read, lba, blocks), Submitted::Done(expected), "{lba} + {blocks}");
    }
    assert_eq!(submit(&mut channel, WRITE, 150, 1), Submitted::Done(Status::Good));
    let extents = [(0, 7), (6, 2)].map(|(lba, blocks)| Extent { lba, blocks });
    let mut unmap = |extents| channel.submit(&Io::unmap(extents, Token(1)), NOW);
    assert_eq!(unmap(&extents[..1]), Submitted::Done(Status::Good));
    assert_eq!(unmap(&extents), Submitted::Done(Status::Busy));
}

#[test]
fn faulty_rate_is_near_what_it_says_and_the_same_for_a_seed() {
    let count = |plan: &str| failures(&mut faulty(plan).1.open(), Op::Read, 10_000, Status::ReadError);
    let hits = count("1.5% of reads seed 1");
    assert!((100..=200).contains(&hits.len()), "{}", hits.len());
    assert_eq!(hits, count("1.5% of reads seed 1"));
    assert_ne!(hits, count("1.5% of reads seed 2"));
    assert_eq!(count("0% of reads"), []);
    assert_eq!(count("100% of reads").len(), 10_000);
}

#[test]
fn faulty_hang_lasts_until_it_is_released() {
    let (recorder, faulty) = faulty("every 2 writes with hang");
    let (mut channel, mut done) = (faulty.open(), Vec::new());
    let outcomes = [0, 1, 2, 3].map(|lba| submit(&mut channel, WRITE, lba, 1));
    let good = Submitted::Done(Status::Good);
    assert_eq!(outcomes, [good, Submitted::Pending, good, Submitted::Pending]);
    assert_eq!((channel.poll(NOW, &mut done), faulty.gate().held(), recorder.calls().writes), (0, 2, 2));
    assert_eq!(channel.next_deadline(), Some(Tsc(0)));
    faulty.gate().release(1);
    assert_eq!(channel.poll(NOW, &mut done), 1);
    assert_eq!(done, [Completion { token: Token(1), status: Status::Good }]);
    drop(channel);
    assert_eq!(faulty.gate().held(), 0);
}

#[test]
fn faulty_corruption_turns_a_bit_of_what_was_read_at_once_or_later() {
    let memory = SharedMemory::create("guest", 512, Pages::Small).unwrap();
    let malloc: Arc<dyn Bdev> = Arc::new(Malloc::new("m", 8192, 512).unwrap());
    let slow: Arc<dyn Bdev> = Arc::new(Delay::new("d", Arc::clone(&malloc), crate::DelayConfig::timed(0, 0)).unwrap());
    for base in [malloc, slow] {
        let mut channel = Faulty::new("bad", base, "every 2 reads with corruption".parse().unwrap()).open();
        for first in [0, 1, 0, 1] {
            let buffers = [memory.slice().subslice(0, 0).unwrap(), memory.slice().subslice(0, 512).unwrap()];
            let submitted = channel.submit(&Io::new(Op::Read, 3, 1, &buffers, Token(5)), NOW);
            if submitted == Submitted::Pending {
                assert_eq!(channel.poll(NOW, &mut Vec::new()), 1);
            }
            assert_eq!(memory.slice().read_array::<2>(), Some([first, 0]));
        }
    }
}

#[test]
fn faulty_lost_write_is_answered_well_and_not_done() {
    let (recorder, faulty) = faulty("every 2 writes with lost");
    assert_eq!(failures(&mut faulty.open(), WRITE, 4, Status::WriteError), []);
    assert_eq!(recorder.calls().writes, 2);
}

#[test]
fn fault_plan_that_says_nothing_sensible_is_refused_with_what_is_expected() {
    let table = [
        ("", r#""" in "": expected "every N", "P% of" or "all""#),
        ("evry 5 writes", r#""evry" in "evry 5 writes": expected "every N", "P% of" or "all""#),
        ("every 0 writes", r#""0" in "every 0 writes": expected a number, 1 or more"#),
        ("every writes", r#""writes" in "every writes": expected a number, 1 or more"#),
        ("101% of reads", r#""101%" in "101% of reads": expected 0% to 100%"#),
        ("1% reads", r#""reads" in "1% reads": expected "of""#),
        ("all", r#""" in "all": expected reads, writes, flushes, unmaps, compares or requests"#),
        ("all reads at 9-3", r#""9-3" in "all reads at 9-3": expected a block, or FIRST-LAST"#),
        ("all reads; all reads on fire", r#""on" in "all reads on fire": expected "at", "with", "seed", or the end"#),
        ("all reads with busy at 3", r#""at" in "all reads with busy at 3": expected "seed", or the end"#),
        ("all writes with corruption", r#""corruption" in "all writes with corruption": only of reads"#),
        ("all reads with lost", r#""lost" in "all reads with lost": only of writes"#),
    ];
    for (text, expected) in table {
        let error = text.parse::<FaultPlan>().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn faulty_hang_is_ended_by_an_abort_and_on_all_channels_by_a_reset() {
    let (recorder, faulty) = faulty("all writes with hang");
    assert!(faulty.info().can.reset && !recorder.info().can.reset);
    let (mut channels, mut done) = ([faulty.open(), faulty.open()], Vec::new());
    for (channel, lba) in [(0, 0), (0, 1), (0, 2), (1, 3)] {
        assert_eq!(submit(&mut channels[channel], WRITE, lba, 1), Submitted::Pending);
    }
    channels[0].abort(Token(1));
    channels[1].abort(Token(2)); // it is not on this one
    let aborted = |token| Completion { token: Token(token), status: Status::Aborted };
    assert_eq!((channels[1].poll(NOW, &mut done), channels[0].next_deadline()), (0, Some(Tsc(0))));
    assert_eq!(channels[0].poll(NOW, &mut done), 1);
    assert_eq!((done.pop(), faulty.gate().held()), (Some(aborted(1)), 3));
    assert_eq!(channels[1].submit(&Io::reset(Token(9)), NOW), Submitted::Done(Status::Good));
    channels.iter_mut().for_each(|channel| _ = channel.poll(NOW, &mut done));
    assert_eq!(done, [aborted(0), aborted(2), aborted(3)]);
    assert_eq!((faulty.gate().held(), recorder.calls().writes, channels[0].next_deadline()), (0, 0, None));
}
