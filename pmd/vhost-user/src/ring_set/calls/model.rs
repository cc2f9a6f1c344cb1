//! Every short story of a driver, a poller and a control thread, on a clock by hand: no completion stays uncalled for longer
//! than the delay that was in force when it was published, whatever else happens, awake or asleep, and none for ever.

use crossbeam::channel;
use virtqueue::split::SplitDriver;

use super::super::tests::{BUFFER, Rig, mapped};
use super::tests::TERMS;
use super::*;
use crate::notify::Notifier;

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The driver makes a chain available, and kicks if it is to.
    Add,
    /// The driver takes everything back, as if a call had come, and waits for the next.
    Take,
    /// The driver takes everything back and wants no calls for now.
    TakeAndPoll,
    /// Time passes: less than the delay, or more than an interval. The poller polls all the while unless it sleeps.
    Pass(u64),
    /// The poller tries to sleep.
    Sleep,
    /// The same, and in its last look something ends that it does not count as work.
    SleepOverWork,
    /// Something else wakes the poller: a job, another source.
    Wake,
    /// The front-end gives another call descriptor.
    ReplaceCall,
    /// The ring is disabled and enabled again.
    DisableEnable,
    /// The ring is stopped and started again where it was.
    Restart,
    /// The operator gives the same terms again.
    SetTerms,
}

const STEPS: [Step; 12] = [
    Step::Add,
    Step::Take,
    Step::TakeAndPoll,
    Step::Pass(15),
    Step::Pass(1100),
    Step::Sleep,
    Step::SleepOverWork,
    Step::Wake,
    Step::ReplaceCall,
    Step::DisableEnable,
    Step::Restart,
    Step::SetTerms,
];

/// How far the clock goes between two polls.
const LOOP: u64 = 5;

/// The whole scene.
struct Scene {
    rig: Rig,
    driver: SplitDriver,
    kick: Notifier,
    call: Notifier,
    now: u64,
    /// The poller sleeps, until this moment at the latest.
    asleep: Option<Option<Tsc>>,
    /// The driver waits for a call.
    waits: bool,
    /// A completion that the driver waits for has been there since, and may be uncalled until this moment.
    uncalled_until: Option<u64>,
}

impl Scene {
    /// Before the first step: twice the threshold in the last interval, and a call has just gone, so that the next waits.
    fn new() -> Scene {
        let mut rig = mapped();
        let (driver, kick) = rig.start_with_kick();
        let call = rig.call();
        rig.set.set_terms(Some(TERMS), Tsc(0));
        let mut scene = Scene { rig, driver, kick, call, now: 0, asleep: None, waits: true, uncalled_until: None };
        for _ in 0..20 {
            scene.perform(Step::Add);
            scene.perform(Step::Take);
        }
        scene.now = 1000;
        scene.poll_if_awake();
        scene.perform(Step::Add);
        scene.perform(Step::Take);
        assert!(scene.rig.set.rings[0].pace.next > Tsc(scene.now), "calls are delayed now");
        scene
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Add => {
                let _full = self.driver.add(&[BUFFER], 0);
                if self.driver.publish() {
                    self.kick.signal();
                    self.wake(); // epoll would
                }
                self.poll_if_awake();
            }
            Step::Take => self.take(true),
            Step::TakeAndPoll => self.take(false),
            Step::Pass(ticks) => self.pass(ticks),
            Step::Sleep => self.sleep(false),
            Step::SleepOverWork => self.sleep(true),
            Step::Wake => {
                self.wake();
                self.poll_if_awake();
            }
            Step::ReplaceCall => {
                let old = std::mem::replace(&mut self.call, self.rig.call());
                if old.drain() > 0 {
                    self.call.signal(); // the front-end hands on what came on the old one
                }
            }
            Step::DisableEnable => {
                let (back, disabled) = channel::bounded(1);
                self.rig.set.disable(0, back);
                disabled.recv().expect("nothing is in flight");
                self.heard("it is disabled");
                self.rig.set.enable(0);
                self.poll_if_awake();
            }
            Step::Restart => {
                let (back, stopped) = channel::bounded(1);
                self.rig.set.stop(0, back);
                let base = stopped.recv().expect("nothing is in flight").base.expect("it was started");
                self.heard("it is stopped");
                self.rig.restart(base, &self.kick);
                self.poll_if_awake();
            }
            Step::SetTerms => {
                self.rig.set.set_terms(Some(TERMS), Tsc(self.now));
                self.heard("other terms begin");
            }
        }
        self.check();
    }

    fn take(&mut self, wait: bool) {
        self.call.drain();
        self.uncalled_until = None;
        self.waits = wait;
        loop {
            while self.driver.pop_used().is_some() {}
            if !wait {
                self.driver.disable_calls();
                return;
            }
            if !self.driver.enable_calls() {
                return;
            }
        }
    }

    fn pass(&mut self, ticks: u64) {
        let end = self.now + ticks;
        while self.now < end {
            self.now += LOOP;
            if self.asleep.flatten().is_some_and(|deadline| deadline <= Tsc(self.now)) {
                self.wake();
            }
            self.poll_if_awake();
            self.check();
        }
    }

    fn wake(&mut self) {
        if self.asleep.take().is_some() {
            self.rig.set.disable_notifications();
        }
    }

    /// In the order of `Doze::fall_asleep`.
    fn sleep(&mut self, over_work: bool) {
        if self.asleep.is_some() {
            return;
        }
        let ready = self.rig.set.enable_notifications();
        let deadline = self.rig.set.next_call();
        if over_work {
            let _full = self.driver.add(&[BUFFER], 0);
            self.driver.publish();
        }
        let worked = self.poll() > 0 && !over_work;
        if ready || worked {
            self.rig.set.disable_notifications();
        } else {
            self.asleep = Some(deadline);
        }
    }

    fn poll_if_awake(&mut self) {
        if self.asleep.is_none() {
            self.poll();
        }
    }

    fn poll(&mut self) -> usize {
        self.rig.set.begin_poll(Tsc(self.now));
        let delay = self.rig.set.rings[0].pace.delay;
        let calls = self.rig.set.rings[0].stats.calls_suppressed.value();
        let count = self.rig.echo();
        let wanted = self.rig.set.rings[0].stats.calls_suppressed.value() == calls;
        if count > 0 && wanted && self.waits {
            self.uncalled_until.get_or_insert(self.now + delay);
        }
        self.heard_by_now();
        count
    }

    /// A call that has come ends the wait of the driver.
    fn heard_by_now(&mut self) {
        let count = self.call.drain();
        if count > 0 {
            self.uncalled_until = None;
            self.call.signal(); // it stays there until the driver looks
        }
    }

    fn heard(&mut self, when: &str) {
        self.heard_by_now();
        assert_eq!(self.uncalled_until, None, "uncalled when {when}");
    }

    fn check(&mut self) {
        self.heard_by_now();
        let late = self.uncalled_until.is_some_and(|until| self.now >= until + LOOP);
        assert!(!late, "uncalled at {}, due at {:?}", self.now, self.uncalled_until);
    }
}

fn tell(story: &[Step]) {
    let mut scene = Scene::new();
    story.iter().for_each(|step| scene.perform(*step));
    while scene.uncalled_until.is_some() {
        scene.pass(LOOP); // which fails at the latest when it is over
    }
}

/// All stories of this many steps.
const LEN: u32 = 4;

#[test]
fn no_story_of_four_steps_leaves_a_completion_uncalled_beyond_its_delay() {
    let base = STEPS.len();
    for number in 0..base.pow(LEN) {
        let story: Vec<Step> = (0..LEN).map(|at| STEPS[number / base.pow(at) % base]).collect();
        let told = std::panic::catch_unwind(|| tell(&story));
        assert!(told.is_ok(), "the story is {story:?}");
    }
}

#[test]
fn no_long_story_leaves_a_completion_uncalled_beyond_its_delay() {
    for seed in 0..200u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let story: Vec<Step> = (0..150)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                STEPS[(state % STEPS.len() as u64) as usize]
            })
            .collect();
        let told = std::panic::catch_unwind(|| tell(&story));
        assert!(told.is_ok(), "the story of seed {seed} is {story:?}");
    }
}
