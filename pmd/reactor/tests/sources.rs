//! Sources on running pollers: adding, jobs, removing, panics, shutdown. Sleeping is in `sleep`, cores are in `cores`.
#![cfg(not(loom))]

mod common;

use common::{Counting, Witness, allowed, one, polled_again, until};
use reactor::{Gone, IdlePolicy, Reactor, ReactorConfig, Source, SourceHandle, Tsc};
use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};

/// Panics in the poll after it is told to.
#[derive(Default)]
struct Fragile {
    broken: bool,
    _witness: Witness,
}

impl Source for Fragile {
    fn poll(&mut self, _now: Tsc) -> usize {
        assert!(!self.broken, "fragile");
        0
    }
}

#[test]
fn sources_in_great_number_are_all_polled() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let sources: Vec<_> = (0..500).map(|_| Counting::default()).collect();
    let polls: Vec<_> = sources.iter().map(|source| Arc::clone(&source.polls)).collect();
    let handles: Vec<_> = sources.into_iter().map(|source| poller.add(source)).collect();
    polls.iter().for_each(|polls| polled_again(polls, 3));
    handles[0].call(|_| ()).expect("still there");
    assert_eq!(poller.stats().sources.value(), 500);
}

#[test]
fn source_removed_comes_back_and_is_polled_no_more() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let neighbour = Counting::default();
    let neighbour_polls = Arc::clone(&neighbour.polls);
    poller.add(neighbour);
    let handle = poller.add(Counting { log: vec![7], ..Counting::default() });
    polled_again(&neighbour_polls, 2);
    let source = handle.remove().expect("it was there");
    let polls = source.polls.load(Ordering::Relaxed);
    assert_eq!(source.log, [7]);
    polled_again(&neighbour_polls, 10);
    assert_eq!(source.polls.load(Ordering::Relaxed), polls);
    assert_eq!(handle.remove().map(drop), Err(Gone));
    assert_eq!(handle.call(|_| ()), Err(Gone));
    handle.run(|_| unreachable!("the source is gone"));
    assert_eq!(poller.stats().panics.value(), 0);
}

#[test]
fn source_removed_is_dropped_by_the_caller() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let (witness, dropped_on) = Witness::new();
    let handle = poller.add(Counting { witness, ..Counting::default() });
    drop(handle.remove().expect("it was there"));
    assert_eq!(dropped_on.recv(), Ok(thread::current().id()));
}

#[test]
fn sources_added_and_removed_by_many_threads_leave_none_behind() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..200 {
                    let handle = poller.add(Counting { log: vec![round], ..Counting::default() });
                    assert_eq!(handle.call(|source| source.log[0]), Ok(round));
                    assert_eq!(handle.remove().expect("it was there").log, [round]);
                }
            });
        }
    });
    assert_eq!(poller.add(Counting::default()).call(|_| ()), Ok(()));
    assert_eq!(poller.stats().sources.value(), 1);
}

#[test]
fn jobs_of_one_thread_run_in_order() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let handle = poller.add(Counting::default());
    for number in 0..1_000 {
        handle.run(move |source| source.log.push(number));
    }
    let log = handle.call(|source| source.log.clone()).expect("still there");
    assert_eq!(log, (0..1_000).collect::<Vec<_>>());
    // The source itself, 1,000 runs, one call: the call was counted before it ran.
    assert_eq!(poller.stats().jobs.value(), 1_002);
}

#[test]
fn jobs_in_great_number_do_not_keep_sources_from_being_polled() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let handle = poller.add(Counting::default());
    let (open, gate) = mpsc::channel::<()>();
    handle.run(move |_| gate.recv().expect("opened"));
    let polls = handle.clone();
    let seen = Arc::new(AtomicU64::new(0));
    for _ in 0..160 {
        let seen = Arc::clone(&seen);
        polls.run(move |source| {
            seen.store(source.polls.load(Ordering::Relaxed), Ordering::Relaxed);
        });
    }
    let before = polls.poller().stats().loops.value();
    open.send(()).expect("the gate is there");
    let after = handle.call(|_| ()).map(|()| polls.poller().stats().loops.value());
    assert!(after.expect("still there") >= before + 160 / 16 - 1);
    assert!(seen.load(Ordering::Relaxed) > 0, "polled between the jobs");
}

#[test]
fn call_returns_what_the_source_answers() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let handle = poller.add(Counting { log: vec![1, 2, 3], ..Counting::default() });
    assert_eq!(handle.call(|source| source.log.iter().sum::<u64>()), Ok(6));
    assert_eq!(handle.poller().core(), poller.core());
}

/// Calls another source from its poll, which it must not.
struct Calling {
    other: SourceHandle<Counting>,
}

impl Source for Calling {
    fn poll(&mut self, _now: Tsc) -> usize {
        assert!(reactor::on_poller());
        self.other.call(|_| ()).map_or(0, |()| 1)
    }
}

#[test]
fn call_from_a_poller_panics_instead_of_waiting_for_itself() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let other = poller.add(Counting::default());
    let calling = poller.add(Calling { other: other.clone() });
    until(|| poller.stats().panics.value() == 1);
    assert_eq!(calling.call(|_| ()), Err(Gone));
    assert_eq!(other.call(|_| ()), Ok(()));
    assert!(!reactor::on_poller());
}

#[test]
fn run_from_a_poller_reaches_another_source() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let other = poller.add(Counting::default());
    let first = poller.add(Counting::default());
    let target = other.clone();
    first.run(move |_| target.run(|source| source.log.push(1)));
    until(|| other.call(|source| source.log.len()) == Ok(1));
}

#[test]
fn source_that_panics_in_a_poll_leaves_its_neighbours_alone() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let (left, right) = (Counting::default(), Counting::default());
    let polls = [Arc::clone(&left.polls), Arc::clone(&right.polls)];
    let (witness, dropped_on) = Witness::new();
    poller.add(left);
    let fragile = poller.add(Fragile { broken: false, _witness: witness });
    poller.add(right);
    fragile.run(|source| source.broken = true);
    until(|| poller.stats().panics.value() == 1);
    polls.iter().for_each(|polls| polled_again(polls, 3));
    assert_eq!(fragile.call(|_| ()), Err(Gone));
    assert_eq!(dropped_on.try_recv(), Err(mpsc::TryRecvError::Empty), "not dropped on the poller");
    assert_eq!(fragile.remove().map(drop), Err(Gone));
    assert_eq!(dropped_on.recv(), Ok(thread::current().id()));
    assert_eq!(poller.stats().sources.value(), 2);
}

#[test]
fn source_that_panics_in_a_job_is_gone_for_all_later_ones() {
    let (_reactor, poller) = one(IdlePolicy::Adaptive);
    let neighbour = poller.add(Counting::default());
    let fragile = poller.add(Fragile::default());
    let answer = fragile.call(|source| {
        source.broken = true;
        assert!(!source.broken, "in a job");
    });
    assert_eq!(answer, Err(Gone));
    assert_eq!(fragile.call(|_| ()), Err(Gone));
    assert_eq!(neighbour.call(|_| ()), Ok(()));
    assert_eq!((poller.stats().panics.value(), poller.stats().sources.value()), (1, 1));
}

#[test]
fn shutdown_returns_the_sources_to_be_dropped_by_the_caller() {
    let (reactor, poller) = one(IdlePolicy::Adaptive);
    let witnesses = [0, 1, 2].map(|number| {
        let (witness, dropped_on) = Witness::new();
        poller.add(Counting { log: vec![number], witness, ..Counting::default() });
        dropped_on
    });
    let left = reactor.shutdown();
    let numbers: Vec<_> = left
        .iter()
        .map(|source| {
            let source: &dyn Any = &**source;
            source.downcast_ref::<Counting>().expect("what was added").log[0]
        })
        .collect();
    assert_eq!(numbers, [0, 1, 2]);
    let empty = Err(mpsc::TryRecvError::Empty);
    assert!(witnesses.iter().all(|dropped_on| dropped_on.try_recv() == empty));
    drop(left);
    let here = Ok(thread::current().id());
    assert!(witnesses.iter().all(|dropped_on| dropped_on.recv() == here));
}

#[test]
fn shutdown_runs_the_jobs_posted_before_it() {
    let (reactor, poller) = one(IdlePolicy::Adaptive);
    let handle = poller.add(Counting::default());
    let done = Arc::new(AtomicU64::new(0));
    for _ in 0..100 {
        let done = Arc::clone(&done);
        handle.run(move |_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
    }
    assert_eq!(reactor.shutdown().len(), 1);
    assert_eq!(done.load(Ordering::Relaxed), 100);
}

#[test]
fn shutdown_after_a_panic_in_the_same_loop_still_ends() {
    let (reactor, poller) = one(IdlePolicy::Busy);
    let handle = poller.add(Counting::default());
    let fragile = poller.add(Fragile::default());
    let (open, gate) = mpsc::channel::<()>();
    handle.run(move |_| gate.recv().expect("opened"));
    let left = thread::scope(|scope| {
        let stopper = scope.spawn(|| reactor.shutdown());
        // Behind the stop, or before it: both orders must end.
        fragile.run(|_| panic!("between stop and end"));
        open.send(()).expect("the gate is there");
        stopper.join().expect("shut down")
    });
    assert!((1..=2).contains(&left.len()));
}

#[test]
fn handles_after_the_shutdown_answer_gone() {
    let (reactor, poller) = one(IdlePolicy::Adaptive);
    let handle = poller.add(Counting::default());
    drop(reactor);
    assert_eq!(handle.call(|_| ()), Err(Gone));
    assert_eq!(handle.remove().map(drop), Err(Gone));
    let (witness, dropped_on) = Witness::new();
    let late = poller.add(Counting { witness, ..Counting::default() });
    assert_eq!(dropped_on.recv(), Ok(thread::current().id()));
    assert_eq!(late.call(|_| ()), Err(Gone));
    poller.wake();
}

#[test]
fn calls_during_a_shutdown_all_return() {
    for _ in 0..20 {
        let (reactor, poller) = one(IdlePolicy::Adaptive);
        let handle = poller.add(Counting::default());
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| while handle.call(|_| ()).is_ok() {});
            }
            polled_again(&handle.call(|source| Arc::clone(&source.polls)).expect("there"), 1);
            drop(reactor.shutdown());
        });
    }
}

/// Two pollers, on two cores where there are two.
#[test]
fn pollers_each_poll_their_own_sources() {
    let cores: Vec<_> = allowed().into_iter().take(2).collect();
    let config = ReactorConfig { cores: cores.clone(), idle: IdlePolicy::Busy };
    let reactor = Reactor::start(&config).expect("started");
    assert_eq!(reactor.pollers().iter().map(|poller| poller.core()).collect::<Vec<_>>(), cores);
    let handles: Vec<_> = reactor.pollers().iter().map(|poller| poller.add(Counting::default())).collect();
    let threads = handles.iter().map(|handle| handle.call(|_| thread::current().id()).expect("there"));
    let mut threads: Vec<ThreadId> = threads.collect();
    threads.dedup();
    assert_eq!(threads.len(), cores.len());
    for (handle, poller) in handles.iter().zip(reactor.pollers()) {
        assert_eq!(handle.poller().core(), poller.core());
        assert_eq!(poller.stats().sources.value(), 1);
    }
    assert_eq!(reactor.shutdown().len(), cores.len());
}

/// Does as much work per poll as it is told.
struct Switch(Arc<AtomicBool>);

impl Source for Switch {
    fn poll(&mut self, _now: Tsc) -> usize {
        usize::from(self.0.load(Ordering::Relaxed))
    }
}

#[test]
fn stats_tell_busy_loops_from_idle_ones() {
    let (_reactor, poller) = one(IdlePolicy::Busy);
    let working = Arc::new(AtomicBool::new(false));
    let handle = poller.add(Switch(Arc::clone(&working)));
    handle.call(|_| ()).expect("there");
    let stats = poller.stats();
    let settled = |loops: u64| {
        let start = stats.loops.value();
        until(|| stats.loops.value() >= start + loops);
    };
    settled(2);
    let (busy, idle) = (stats.busy_ticks.value(), stats.idle_ticks.value());
    settled(100);
    assert_eq!(stats.busy_ticks.value(), busy, "nothing to do");
    assert!(stats.idle_ticks.value() > idle);
    working.store(true, Ordering::Relaxed);
    settled(2);
    let (busy, idle) = (stats.busy_ticks.value(), stats.idle_ticks.value());
    let (idle_loops, lasted) = (stats.idle_loops.value(), stats.busy_loop_ticks.snapshot());
    settled(100);
    assert!(stats.busy_ticks.value() > busy);
    assert_eq!(stats.idle_loops.value(), idle_loops, "always at work");
    assert!(idle_loops >= 100 && stats.busy_loop_ticks.snapshot().count() >= lasted.count() + 99);
    assert_eq!(stats.idle_ticks.value(), idle, "always at work");
    assert!(stats.longest_loop_ticks.value() > 0 && stats.longest_job_ticks.value() > 0);
    assert_eq!(stats.sleeps.value(), 0);
}
