//! SPDK's malloc, null and error bdevs through the bindings.
#![cfg(feature = "libspdk")]
#![allow(unsafe_code, reason = "requests are given addresses")]

mod lab;

use std::iter::empty;
use std::sync::mpsc::channel;

use lab::{drain, lab, run};
use serde_json::json;
use spdk_rs::{
    Buffers, Command, Descriptor, Env, EnvError, Event, Gone, IoChannel, OpenError, Outcome, Registered,
    SubsystemError, Subsystems, Tag, Thread, ThreadError,
};

fn open(name: &'static str) -> Descriptor {
    lab().manage(move |thread| Descriptor::open(thread, name, true, |_| ()).unwrap())
}

/// A thread of the test's own, and its way into a bdev.
fn way_into(name: &'static str) -> (Thread, IoChannel) {
    let descriptor = open(name);
    let thread = Thread::create(lab().env, name).unwrap();
    let channel = IoChannel::open(&thread, &descriptor).unwrap();
    (thread, channel)
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed ^ (at >> 8) as u8)).collect()
}

#[test]
fn environment_started_twice_is_refused() {
    let lab = lab();
    assert!(matches!(Env::start(&lab::env_config()), Err(EnvError::Again)));
    assert!(spdk_rs::version().starts_with("SPDK v2"), "{}", spdk_rs::version());
    assert!(lab.env.ticks_per_second() > 1_000_000);
}

#[test]
fn malloc_reads_what_was_written_through_other_buffers() {
    let (thread, mut channel) = way_into("Malloc0");
    let data = pattern(3, 8192);
    let (mut a, mut b) = (data[..1024].to_vec(), data[1024..].to_vec());
    assert_eq!(run(&thread, &mut channel, Command::Write, (100, 16), &mut [&mut a, &mut b], &mut []), Outcome::Good);
    let (mut a, mut b, mut c) = (vec![0; 512], vec![0; 7168], vec![0; 512]);
    let buffers = &mut [&mut a[..], &mut b[..], &mut c[..]];
    assert_eq!(run(&thread, &mut channel, Command::Read, (100, 16), buffers, &mut []), Outcome::Good);
    assert_eq!([a, b, c].concat(), data);
    for command in [Command::Flush, Command::Reset] {
        assert_eq!(run(&thread, &mut channel, command, (0, 8192), &mut [], &mut []), Outcome::Good, "{command:?}");
    }
}

#[test]
fn malloc_compares_gives_back_and_writes_zeroes() {
    let (thread, mut channel) = way_into("Malloc1");
    let mut data = pattern(9, 2048);
    let mut other = pattern(10, 2048);
    let mut run = |command, range, first: &mut [&mut [u8]], second: &mut [&mut [u8]]| {
        run(&thread, &mut channel, command, range, first, second)
    };
    let miscompare = |outcome: Outcome| match outcome {
        Outcome::Failed(failure) => {
            assert_eq!((failure.scsi_status, failure.sense_key), (2, 0x0e));
            assert_eq!((failure.nvme_type, failure.nvme_code), (2, 0x85));
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(run(Command::Write, (8, 4), &mut [&mut data], &mut []), Outcome::Good);
    assert_eq!(run(Command::Compare, (8, 4), &mut [&mut data], &mut []), Outcome::Good);
    miscompare(run(Command::Compare, (8, 4), &mut [&mut other], &mut []));
    let (one, two) = (&mut data[..512], &mut other[..512]);
    assert_eq!(run(Command::CompareAndWrite, (8, 1), &mut [&mut *one], &mut [&mut *two]), Outcome::Good);
    miscompare(run(Command::CompareAndWrite, (8, 1), &mut [&mut *one], &mut [&mut *two]));
    assert_eq!(run(Command::Compare, (8, 1), &mut [two], &mut []), Outcome::Good);
    let mut read = vec![1; 2048];
    assert_eq!(run(Command::Unmap, (8, 2), &mut [], &mut []), Outcome::Good);
    assert_eq!(run(Command::WriteZeroes, (10, 1), &mut [], &mut []), Outcome::Good);
    assert_eq!(run(Command::Read, (8, 4), &mut [&mut read], &mut []), Outcome::Good);
    assert!(read[..1536].iter().all(|&byte| byte == 0));
    assert_eq!(read[1536..], data[1536..]);
}

#[test]
fn requests_beyond_the_end_or_of_a_wrong_length_are_refused_at_once() {
    let (thread, mut channel) = way_into("Malloc0");
    let mut buffer = vec![0u8; 1024];
    let list = [(buffer.as_mut_ptr(), buffer.len())];
    // SAFETY: refused, or ended below while the buffer lives.
    let refused =
        unsafe { channel.start(Command::Read, 8191, 2, Tag { token: 0, note: 0 }, list.into_iter(), empty()) };
    assert_eq!(refused.unwrap_err().raw(), 22);
    assert_eq!(channel.outstanding(), 0);
    assert!(drain(&thread, &mut channel).is_empty());
}

/// 511 requests of SPDK's are for all threads: 2,000 of one thread have to wait for each other.
#[test]
fn requests_without_room_wait_and_end_once_each() {
    let (thread, mut channel) = way_into("Null0");
    let mut buffer = vec![0u8; 4096];
    for token in 0..2000 {
        // SAFETY: the buffer lives until all have ended; the null bdev leaves it alone.
        unsafe {
            let list = [(buffer.as_mut_ptr(), buffer.len())].into_iter();
            channel.start(Command::Write, token, 1, Tag { token, note: !token as u32 }, list, empty()).unwrap();
        }
    }
    let ended = drain(&thread, &mut channel);
    assert!(channel.waits() > 1000, "{}", channel.waits());
    assert!(ended.iter().all(|finished| finished.outcome == Outcome::Good));
    let mut tokens: Vec<u64> = ended.iter().map(|finished| finished.tag.token).collect();
    tokens.sort_unstable();
    assert!(tokens.iter().copied().eq(0..2000));
    assert!(ended.iter().all(|finished| finished.tag.note == !finished.tag.token as u32));
}

#[test]
fn error_bdev_fails_as_often_as_it_was_told() {
    let (thread, mut channel) = way_into("EE_Base0");
    let params = json!({"name": "EE_Base0", "io_type": "read", "error_type": "failure", "num": 2});
    assert_eq!(lab().call("bdev_error_inject_error", params)["result"], true);
    let mut buffer = vec![0u8; 512];
    let outcomes = [0; 3].map(|_| run(&thread, &mut channel, Command::Read, (0, 1), &mut [&mut buffer], &mut []));
    for outcome in &outcomes[..2] {
        let Outcome::Failed(failure) = outcome else { panic!("{outcomes:?}") };
        assert_eq!((failure.nvme_type, failure.nvme_code, failure.sense_key), (0, 6, 0x0b), "{failure:?}");
    }
    assert_eq!(outcomes[2], Outcome::Good);
}

#[test]
fn bdev_that_is_removed_tells_and_goes_when_it_is_let_go() {
    let lab = lab();
    let (told, events) = channel();
    let descriptor =
        lab.manage(|thread| Descriptor::open(thread, "Gone0", true, move |event| told.send(event).unwrap()).unwrap());
    let thread = Thread::create(lab.env, "removal").unwrap();
    let mut channel = IoChannel::open(&thread, &descriptor).unwrap();
    let removal = std::thread::spawn(|| lab.call("bdev_malloc_delete", json!({"name": "Gone0"})));
    // A removal is announced to every channel, so that this thread has to be polled.
    let event = loop {
        thread.poll();
        if let Ok(event) = events.try_recv() {
            break event;
        }
    };
    assert_eq!(event, Event::Remove);
    let mut buffer = vec![0u8; 512];
    let outcome = run(&thread, &mut channel, Command::Read, (0, 1), &mut [&mut buffer], &mut []);
    assert!(matches!(outcome, Outcome::Failed(_) | Outcome::Good), "{outcome:?}");
    drop(channel);
    drop(descriptor);
    while !removal.is_finished() {
        thread.poll();
    }
    assert_eq!(removal.join().unwrap()["result"], true);
    let again = lab.manage(|thread| Descriptor::open(thread, "Gone0", true, |_| ()).map(|_| ()));
    assert!(matches!(again, Err(OpenError::Missing { .. })), "{again:?}");
}

#[test]
fn bdev_that_is_resized_tells_its_new_size() {
    let lab = lab();
    let (told, events) = channel();
    let descriptor =
        lab.manage(|thread| Descriptor::open(thread, "Null1", true, move |event| told.send(event).unwrap()).unwrap());
    let blocks = |descriptor: &Descriptor| {
        let descriptor = descriptor.clone();
        lab.manage(move |_| descriptor.info().block_count)
    };
    assert_eq!(blocks(&descriptor), 256);
    assert_eq!(lab.call("bdev_null_resize", json!({"name": "Null1", "new_size": 2}))["result"], true);
    assert_eq!(events.recv().unwrap(), Event::Resize);
    assert_eq!(blocks(&descriptor), 512);
}

#[test]
fn descriptor_says_what_the_bdev_is_and_has_done() {
    let lab = lab();
    let (thread, mut channel) = way_into("Null0");
    let descriptor = channel.descriptor().clone();
    let info = lab.manage(move |_| descriptor.info());
    assert_eq!((info.name.as_str(), info.product.as_str()), ("Null0", "Null disk"));
    assert_eq!((info.block_size, info.block_count, info.metadata_size), (4096, 1 << 20, 0));
    assert!(info.io_types.write() && info.io_types.write_zeroes() && !info.io_types.flush());
    assert!(!info.write_cache && !info.zoned && info.alignment.is_power_of_two());
    let mut buffer = vec![0u8; 8192];
    assert_eq!(run(&thread, &mut channel, Command::Read, (0, 2), &mut [&mut buffer], &mut []), Outcome::Good);
    let descriptor = channel.descriptor().clone();
    let (answer, answered) = channel_of_statistics();
    lab.manage(move |_| descriptor.statistics(move |result| answer.send(result).unwrap()));
    let statistics = loop {
        thread.poll();
        if let Ok(result) = answered.try_recv() {
            break result.unwrap();
        }
    };
    assert!(statistics.reads >= 1 && statistics.read_bytes >= 8192, "{statistics:?}");
}

type Answer = Result<spdk_rs::Statistics, spdk_rs::Errno>;

fn channel_of_statistics() -> (std::sync::mpsc::Sender<Answer>, std::sync::mpsc::Receiver<Answer>) {
    channel()
}

#[test]
fn thread_runs_messages_in_order_and_refuses_them_once_it_has_ended() {
    let thread = Thread::create(lab().env, "mail").unwrap();
    assert!(matches!(Thread::create(lab().env, "second"), Err(ThreadError::Occupied { .. })));
    let handle = thread.handle();
    let (told, heard) = channel();
    let sender = std::thread::spawn(move || {
        for number in 0..100 {
            let told = told.clone();
            handle.send(move || told.send(number).unwrap()).unwrap();
        }
        handle.send(|| panic!("a message that panics harms nobody")).unwrap();
        handle
    });
    let handle = sender.join().unwrap();
    while thread.poll() {}
    assert!(heard.try_iter().eq(0..100));
    assert_eq!(Thread::current().map(|current| current.handle().name().to_owned()), Some("mail".to_owned()));
    let refused = Subsystems::start(&thread, &[]);
    assert!(matches!(refused, Err(SubsystemError::OtherThread)), "not the first thread");
    drop(thread);
    assert!(Thread::current().is_none());
    assert_eq!(handle.send(|| unreachable!()), Err(Gone));
    assert!(Thread::create(lab().env, "third").is_ok());
}

#[test]
fn descriptor_of_a_bdev_that_is_not_there_or_is_another_ones_base_names_it() {
    let text = |name: &'static str| {
        lab().manage(move |thread| Descriptor::open(thread, name, true, |_| ()).unwrap_err().to_string())
    };
    assert_eq!(text("Nothing"), "SPDK has no bdev \"Nothing\"");
    assert_eq!(text("Base0"), "SPDK's bdev \"Base0\" is claimed: another bdev stands on it");
}

#[test]
fn buffers_of_the_pool_run_out_and_come_back() {
    let thread = Thread::create(lab().env, "buffers").unwrap();
    let mut buffers = Buffers::open(&thread).unwrap();
    assert!(buffers.len_max() >= 128 << 10);
    assert!(buffers.take(buffers.len_max() + 1).is_none());
    let taken: Vec<_> = std::iter::from_fn(|| buffers.take(buffers.len_max())).collect();
    assert!((2..=64).contains(&taken.len()), "{} large buffers", taken.len());
    assert!(taken.iter().all(|buffer| buffer.capacity() == buffers.len_max()));
    let small = buffers.take(512).unwrap();
    assert!(small.capacity() < buffers.len_max());
    taken.into_iter().chain([small]).for_each(|buffer| buffers.give(buffer));
    // Of those that came back, other threads may have taken all but the ones that this one keeps.
    let again: Vec<_> = std::iter::from_fn(|| buffers.take(buffers.len_max())).collect();
    assert!(again.len() >= 2, "{}", again.len());
    again.into_iter().for_each(|buffer| buffers.give(buffer));
}

#[test]
fn memory_is_registered_once_and_in_whole_pages() {
    let layout = std::alloc::Layout::from_size_align(2 * Registered::HUGE_PAGE, Registered::HUGE_PAGE).unwrap();
    // SAFETY: freed after everything that was registered in it is gone.
    unsafe {
        let memory = std::alloc::alloc_zeroed(layout);
        let register = |offset: usize, len| Registered::new(lab().env, memory.add(offset), len);
        assert_eq!(register(512, Registered::HUGE_PAGE).unwrap_err().raw(), 22);
        assert_eq!(register(0, 4096 + 512).unwrap_err().raw(), 22);
        let whole = register(0, 2 * Registered::HUGE_PAGE).unwrap();
        assert_eq!(register(Registered::HUGE_PAGE, Registered::HUGE_PAGE).unwrap_err().raw(), 16);
        drop(whole);
        drop(register(Registered::HUGE_PAGE, Registered::HUGE_PAGE).unwrap());
        std::alloc::dealloc(memory, layout);
    }
}
