//! Coalescing on a clock by hand: an interval of 1000 ticks is 10 ms, and 1000 chains per second are 10 in it.

use crossbeam::channel;
use virtqueue::split::SplitDriver;

use super::super::tests::{BUFFER, Rig, mapped};
use super::*;
use crate::notify::Notifier;

pub(super) const TERMS: Terms = Terms { delay_base: 40, iops_threshold: 1000, interval: 1000 };

/// A coalescing ring whose driver uses it one chain at a time, and its end of the call descriptor.
struct Busy {
    rig: Rig,
    driver: SplitDriver,
    call: Notifier,
}

impl Busy {
    fn new(terms: Option<Terms>) -> Busy {
        let mut rig = mapped();
        let driver = rig.driver();
        rig.start(0);
        let call = rig.call();
        call.drain();
        rig.set.set_terms(terms, Tsc(0));
        Busy { rig, driver, call }
    }

    /// One chain goes round in a poll at that time, and the driver asks for the next call.
    fn round(&mut self, now: u64) {
        self.rig.set.begin_poll(Tsc(now));
        self.driver.add(&[BUFFER], 0).unwrap();
        self.driver.publish();
        assert_eq!(self.rig.echo(), 1);
        while self.driver.pop_used().is_some() {}
        let _ = self.driver.enable_calls();
    }

    /// Twice the threshold in the interval that ends at 1000: calls are 40 ticks apart from there on.
    fn loaded() -> Busy {
        let mut busy = Busy::new(Some(TERMS));
        (1..=20).for_each(|at| busy.round(at * 10));
        assert_eq!(busy.call.drain(), 20, "no call is delayed before the rate is known");
        busy.poll(1000);
        busy.round(1000);
        assert_eq!(busy.call.drain(), 1, "the first call has none before it to keep away from");
        busy
    }

    fn poll(&mut self, now: u64) {
        self.rig.set.begin_poll(Tsc(now));
    }

    fn counts(&self) -> (u64, u64) {
        let stats = &self.rig.set.rings[0].stats;
        (stats.calls_delayed.value(), stats.calls_coalesced.value())
    }
}

#[test]
fn calls_of_a_busy_ring_are_as_far_apart_as_its_rate_asks_for() {
    let mut busy = Busy::loaded();
    busy.round(1010);
    busy.round(1020);
    busy.poll(1039);
    assert_eq!((busy.call.drain(), busy.counts()), (0, (1, 1)));
    busy.poll(1040);
    assert_eq!(busy.call.drain(), 1, "one call for both");
    busy.round(1041);
    busy.poll(1079);
    assert_eq!(busy.call.drain(), 0, "the delayed call counts as one to keep away from");
    busy.poll(1080);
    assert_eq!(busy.call.drain(), 1);
    busy.poll(5000);
    assert_eq!(busy.call.drain(), 0, "nothing is owed twice");
}

#[test]
fn calls_at_the_threshold_are_not_delayed() {
    let mut busy = Busy::new(Some(TERMS));
    (1..=10).for_each(|at| busy.round(at * 10));
    busy.poll(1000);
    busy.round(1000);
    busy.round(1001);
    assert_eq!((busy.call.drain(), busy.counts()), (12, (0, 0)));
}

#[test]
fn calls_of_a_set_that_does_not_coalesce_go_at_once() {
    let mut busy = Busy::new(None);
    (1..=200).for_each(|at| busy.round(at * 10));
    assert_eq!((busy.call.drain(), busy.counts()), (200, (0, 0)));
}

#[test]
fn calls_of_a_prompt_ring_go_at_once() {
    let mut busy = Busy::loaded();
    busy.round(1010);
    busy.rig.set.set_prompt(0, true);
    assert_eq!(busy.call.drain(), 1, "what was held back goes");
    busy.round(1011);
    assert_eq!(busy.call.drain(), 1);
    busy.rig.set.set_prompt(0, false);
    busy.round(1012);
    assert_eq!(busy.call.drain(), 0);
}

#[test]
fn poller_that_sleeps_is_told_when_a_delayed_call_is_due_and_holds_back_none_after_that() {
    let mut busy = Busy::loaded();
    assert!(!busy.rig.set.enable_notifications());
    assert_eq!(busy.rig.set.next_call(), None, "nothing is held back");
    busy.round(1010);
    assert_eq!(busy.call.drain(), 1, "nobody was told of it, so it goes at once");
    busy.rig.set.disable_notifications();

    busy.round(1020);
    assert!(!busy.rig.set.enable_notifications());
    assert_eq!((busy.call.drain(), busy.rig.set.next_call()), (0, Some(Tsc(1050))));
    busy.rig.set.disable_notifications();
    busy.poll(1050);
    assert_eq!((busy.call.drain(), busy.rig.set.next_call()), (1, None));
}

#[test]
fn delayed_call_goes_when_coalescing_ends() {
    let mut busy = Busy::loaded();
    busy.round(1010);
    busy.rig.set.set_coalescing(Coalescing::OFF, Tsc(1011));
    assert_eq!(busy.call.drain(), 1);
}

#[test]
fn r15_delayed_call_goes_before_the_stop_is_answered_and_none_after() {
    let mut busy = Busy::loaded();
    busy.round(1010);
    let (back, stopped) = channel::bounded(1);
    busy.rig.set.stop(0, back);
    assert_eq!((stopped.recv().unwrap().base, busy.call.drain()), (Some(22), 1));
    busy.poll(9000);
    assert_eq!((busy.call.drain(), busy.rig.set.next_call()), (0, None));
}

#[test]
fn delayed_call_goes_before_disabling_is_answered() {
    let mut busy = Busy::loaded();
    busy.round(1010);
    let (back, disabled) = channel::bounded(1);
    busy.rig.set.disable(0, back);
    disabled.recv().unwrap();
    assert_eq!(busy.call.drain(), 1);
}

#[test]
fn delayed_call_goes_to_the_new_descriptor_once() {
    let mut busy = Busy::loaded();
    busy.round(1010);
    let new = busy.rig.call();
    busy.poll(9000);
    assert_eq!((busy.call.drain(), new.drain()), (0, 1));
}

#[test]
fn delay_never_exceeds_the_interval() {
    let mut busy = Busy::new(Some(Terms { delay_base: u64::MAX, ..TERMS }));
    (1..=20).for_each(|at| busy.round(at * 10));
    busy.poll(1000);
    busy.round(1000);
    busy.call.drain();
    busy.round(1001);
    assert_eq!(busy.call.drain(), 0);
    busy.poll(2000);
    assert_eq!(busy.call.drain(), 1);
}

#[test]
fn delay_is_base_times_excess_over_threshold_of_the_rate() {
    // As SPDK has it: 100 us, 60,000 IOPS; intervals of 10 ms on a clock of 1 GHz.
    let terms = Terms { delay_base: 100_000, iops_threshold: 60_000, interval: 10_000_000 };
    for (chains, us) in [(0, 0), (600, 0), (601, 0), (606, 1), (900, 50), (1200, 100), (6000, 900), (100_000, 10_000)] {
        assert_eq!(terms.delay(chains, terms.interval) / 1000, us, "{chains} chains in 10 ms");
        assert_eq!(terms.delay(chains * 3, terms.interval * 3) / 1000, us, "the same rate, seen later");
    }
}

#[test]
fn delay_ends_with_the_load() {
    let mut busy = Busy::loaded();
    busy.round(1010);
    busy.poll(2000);
    busy.call.drain();
    (0..5).for_each(|at| busy.round(2000 + at));
    assert_eq!(busy.call.drain(), 5, "two chains in the last interval");
}

#[test]
fn delayed_call_goes_with_the_check_that_changes_the_delay() {
    let mut busy = Busy::loaded();
    busy.round(1970);
    assert_eq!(busy.call.drain(), 1);
    busy.round(1985);
    busy.poll(1999);
    assert_eq!(busy.call.drain(), 0, "due at 2010");
    busy.poll(2000);
    assert_eq!(busy.call.drain(), 1);
}

#[test]
fn chains_that_were_put_back_are_not_counted_twice() {
    let mut busy = Busy::new(Some(TERMS));
    let mut batch = virtqueue::ChainBatch::new(8, 64);
    for at in 1..=10 {
        busy.driver.add(&[BUFFER], 0).unwrap();
        busy.driver.publish();
        busy.poll(at);
        assert_eq!(busy.rig.set.pop(0, 8, &mut batch), 1);
        let ticket = busy.rig.set.ticket(0, &batch.chains()[0]);
        busy.rig.set.put_back(0, [ticket].into_iter());
        assert_eq!(busy.rig.echo(), 1);
        while busy.driver.pop_used().is_some() {}
    }
    busy.poll(1000);
    assert_eq!(busy.rig.set.rings[0].pace.delay, 0, "10 chains in 10 ms are the threshold");
}

#[test]
fn coalescing_in_ticks_is_that_in_microseconds() {
    assert!(Coalescing::OFF.terms().is_none());
    let terms = Coalescing { delay_base_us: 100, iops_threshold: 60_000 }.terms().unwrap();
    assert_eq!((terms.delay_base, terms.interval), (Tsc::ticks(100_000), Tsc::ticks(10_000_000)));
    assert_eq!(Coalescing::IOPS_THRESHOLD_MIN, 100);
}
