//! Lingering on a clock by hand, with a driver whose pace depends on whether it is left alone.

use crossbeam::channel;
use proptest::prelude::*;
use virtqueue::split::SplitDriver;

use super::super::tests::{BUFFER, Rig, mapped};
use super::*;

const TERMS: Terms = Terms { linger: 1500, pause: 6000 };

/// A driver with `depth` chains in flight that makes one available every `alone` ticks while nobody looks at the ring, and
/// every `crowded` ticks while the poller does, as long as it has completions to answer. A poll takes 20 ticks, and
/// 100 for each chain.
struct Model {
    linger: Linger,
    now: u64,
    depth: usize,
    alone: u64,
    crowded: u64,
    available: usize,
    /// Progress towards the next chain, in ticks × the pace.
    worked: u64,
    fetches: u64,
    lingers: u64,
    chains: u64,
}

impl Model {
    fn new(depth: usize, alone: u64, crowded: u64) -> Model {
        let (linger, now) = (Linger::default(), 1_000_000);
        Model { linger, now, depth, alone, crowded, available: depth, worked: 0, fetches: 0, lingers: 0, chains: 0 }
    }

    fn pass(&mut self, ticks: u64, pace: u64) {
        self.now += ticks;
        self.worked += ticks * 1_000_000 / pace;
        let ready = ((self.worked / 1_000_000) as usize).min(self.depth - self.available);
        self.available += ready;
        self.worked -= ready as u64 * 1_000_000;
        if self.available == self.depth {
            self.worked = 0; // it waits for completions
        }
    }

    fn poll(&mut self) {
        if self.linger.waits(&TERMS, Tsc(self.now)) {
            return self.pass(20, self.alone);
        }
        let start = Tsc(self.now);
        let chains = self.available.min(32);
        if chains > 0 {
            // What is fetched is completed at the end of the poll only.
            self.pass(20 + 100 * chains as u64, self.crowded);
            self.available -= chains;
            self.fetches += 1;
            self.chains += chains as u64;
        } else {
            self.pass(20, self.crowded);
        }
        self.lingers += u64::from(self.linger.fetched(&TERMS, chains, start));
    }

    /// Chains in a million ticks, at the end of ten.
    fn pace(&mut self) -> u64 {
        let mut run = |ticks| {
            let (end, before) = (self.now + ticks, self.chains);
            while self.now < end {
                self.poll();
            }
            self.chains - before
        };
        run(9_000_000);
        run(1_000_000)
    }
}

/// What bdevperf at depth 32 does, in nanoseconds as they were measured.
#[test]
fn driver_that_is_quicker_when_left_alone_is_left_alone() {
    let mut model = Model::new(32, 280, 480);
    let pace = model.pace();
    assert!(pace > 3000, "{pace}: prompt, it would be some 2080");
    assert!(model.lingers * 10 > model.fetches * 9, "{} of {}", model.lingers, model.fetches);
}

#[test]
fn driver_with_little_in_flight_is_not_made_to_wait() {
    for depth in [1, 2] {
        let mut model = Model::new(depth, 280, 480);
        model.pace();
        let share = model.fetches / model.lingers.max(1);
        assert!(share > 100, "depth {depth}: one fetch of {share} was followed by a linger");
    }
}

/// Its pace is its own: it gains nothing, so its chains are not held up.
#[test]
fn driver_that_is_as_quick_when_it_is_watched_is_not_made_to_wait() {
    let mut model = Model::new(32, 700, 700);
    model.pace();
    let share = model.fetches / model.lingers.max(1);
    assert!(share > 100, "one fetch of {share} was followed by a linger");
}

/// However long it goes on: at 2^17 fetches a trial, 16 of them are held up.
#[test]
fn trials_in_vain_grow_rarer() {
    let mut linger = Linger::default();
    let (mut now, mut lingers) = (0, 0u64);
    for _ in 0..4 * PATIENCE.1 {
        now += 1000;
        while linger.waits(&TERMS, Tsc(now)) {
            now += 1000;
        }
        lingers += u64::from(linger.fetched(&TERMS, 1, Tsc(now)));
    }
    let doublings = u64::from((PATIENCE.1 / PATIENCE.0).ilog2());
    let most = u64::from(TRIAL) * (doublings + 4);
    assert!((u64::from(TRIAL)..=most).contains(&lingers), "{lingers}");
    assert_eq!(linger.patience, PATIENCE.1);
}

#[test]
fn driver_that_gathers_chains_by_itself_is_never_tried() {
    let mut linger = Linger::default();
    for round in 0..100_000 {
        // One of 60 is small, as at the end of a burst.
        let chains = if round % 60 == 0 { 1 } else { 3 };
        assert!(!linger.fetched(&TERMS, chains, Tsc(round)));
        assert_eq!(linger.phase, Phase::Prompt);
    }
}

#[test]
fn ring_whose_driver_has_no_more_to_add_is_looked_at_in_every_poll_again() {
    for chains in [0, 1] {
        let mut model = Model::new(32, 280, 480);
        model.pace();
        while model.linger.phase != Phase::Lingering {
            model.poll();
        }
        model.linger.fetched(&TERMS, chains, Tsc(model.now));
        assert_eq!((model.linger.phase, model.linger.left), (Phase::Prompt, PATIENCE.0));
        assert!(!model.linger.waits(&TERMS, Tsc(model.now)));
    }
}

/// Its pace may change while it is left alone, so whether that pays is asked again.
#[test]
fn lingering_is_on_trial_again_after_a_while() {
    let mut model = Model::new(32, 280, 480);
    model.pace();
    model.crowded = 280;
    let fetches = model.fetches;
    while model.linger.phase != Phase::Prompt || model.linger.patience == PATIENCE.0 {
        model.poll();
        assert!(model.fetches - fetches < 2 * u64::from(KEEP), "{:?}", model.linger);
    }
}

proptest! {
    /// Whatever the driver does: no ring is left alone longer than the linger, from the first poll after a fetch on.
    #[test]
    fn no_linger_is_longer_than_it_is_said_to_be(
        rounds in proptest::collection::vec((0usize..40, 1u64..5000), 1..2000),
        few in any::<bool>(),
    ) {
        let mut linger = Linger::default();
        let mut now = 0;
        for (chains, ticks) in rounds {
            now += ticks;
            let first = now;
            while linger.waits(&TERMS, Tsc(now)) {
                now += 100;
                prop_assert!(now - first < TERMS.linger + 100);
            }
            linger.fetched(&TERMS, if few { chains % 3 } else { chains }, Tsc(now));
        }
    }
}

/// A ring set whose ring lingers, with its driver, and the time.
fn lingering() -> (Rig, SplitDriver, Tsc) {
    let mut rig = mapped();
    let driver = rig.driver();
    rig.start(0);
    let ring = &mut rig.set.rings[0].linger;
    (ring.phase, ring.left) = (Phase::Lingering, KEEP);
    rig.set.linger = TERMS;
    (rig, driver, Tsc(10_000))
}

fn echo(rig: &mut Rig, now: Tsc) -> usize {
    let mut batch = ChainBatch::new(8, 64);
    let count = rig.set.pop_gathered(0, 8, &mut batch, now);
    assert_eq!(batch.chains().len(), count);
    let tickets: Vec<_> = batch.chains().iter().map(|chain| rig.set.ticket(0, chain)).collect();
    tickets.into_iter().for_each(|ticket| rig.set.complete(ticket, 0));
    rig.set.publish(0);
    count
}

#[test]
fn chains_that_come_during_a_linger_are_fetched_together_at_its_end() {
    let (mut rig, mut driver, now) = lingering();
    let mut add = |count| {
        (0..count).for_each(|_| assert!(driver.add(&[BUFFER], 0).is_ok()));
        driver.publish();
        while driver.pop_used().is_some() {}
    };
    add(2);
    assert_eq!(echo(&mut rig, now), 2, "nothing was fetched before");
    add(1);
    assert_eq!(echo(&mut rig, now + 50), 0, "the linger begins with this poll");
    add(2);
    assert_eq!(echo(&mut rig, now + (49 + TERMS.linger)), 0);
    assert_eq!(echo(&mut rig, now + 50 + TERMS.linger), 3);
    assert_eq!(rig.set.rings[0].stats.lingers.value(), 2);
}

/// Sleep asks the ring itself, not what a poll found: a chain that waits for the end of a linger keeps its poller awake.
#[test]
fn poller_does_not_fall_asleep_during_a_linger_over_a_chain() {
    let (mut rig, mut driver, now) = lingering();
    for _ in 0..2 {
        driver.add(&[BUFFER], 0).unwrap();
    }
    driver.publish();
    assert_eq!(echo(&mut rig, now), 2);
    driver.add(&[BUFFER], 0).unwrap();
    driver.publish();
    assert_eq!(echo(&mut rig, now + 50), 0);
    assert!(rig.set.enable_notifications());
}

/// A ring that is started again has another driver.
#[test]
fn ring_that_is_started_again_is_looked_at_in_every_poll() {
    let (mut rig, _driver, _) = lingering();
    let (back, _stopped) = channel::bounded(1);
    rig.set.stop(0, back);
    rig.set.settle(false);
    rig.start(0);
    assert_eq!(rig.set.rings[0].linger.phase, Phase::Prompt);
}
