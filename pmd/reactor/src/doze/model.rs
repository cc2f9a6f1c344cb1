//! The loom model of falling asleep and of going cold: every interleaving of a poller, a driver that kicks and a thread that wakes. A
//! lost wakeup shows as a deadlock. Run by `RUSTFLAGS="--cfg loom" cargo test -p reactor --release loom`.

use super::*;
use loom::sync::atomic::AtomicUsize;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// A poller's surroundings: an inbox, a source with one ring and a box for messages, and the fds it blocks on.
struct World {
    doze: Doze,
    inbox: AtomicUsize,
    ring: Ring,
    messages: AtomicUsize,
    bell: Bell,
}

/// As much of a virtqueue as matters: an avail index, and whether the driver has to kick (virtio 1.3 §2.7.10).
struct Ring {
    avail: AtomicUsize,
    notify: AtomicBool,
}

/// Edge-triggered fds: rung once or more, a wait ends, and forgets.
struct Bell {
    rung: Mutex<Rung>,
    change: Condvar,
}

/// Which fds rang.
#[derive(Default)]
struct Rung {
    own: bool,
    kick: bool,
}

impl Bell {
    fn set(&self, set: impl FnOnce(&mut Rung)) {
        set(&mut self.rung.lock().unwrap());
        self.change.notify_one();
    }
}

impl Doorbell for Bell {
    fn ring(&self) {
        self.set(|rung| rung.own = true);
    }
}

impl World {
    fn new() -> Self {
        Self {
            doze: Doze::new(),
            inbox: AtomicUsize::new(0),
            ring: Ring { avail: AtomicUsize::new(0), notify: AtomicBool::new(false) },
            messages: AtomicUsize::new(0),
            bell: Bell { rung: Mutex::new(Rung::default()), change: Condvar::new() },
        }
    }

    /// A job.
    fn post(&self) {
        self.inbox.fetch_add(1, Ordering::Release);
        self.doze.wake(&self.bell);
    }

    /// A chain.
    fn submit(&self) {
        self.ring.avail.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.ring.notify.load(Ordering::Relaxed) {
            self.bell.set(|rung| rung.kick = true);
        }
    }

    /// A message to the source.
    fn leave(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.doze.rouse(&self.bell);
    }
}

/// What a poller has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    jobs: usize,
    chains: usize,
    messages: usize,
}

/// The poller. If it `cools`, its source goes cold whenever it is idle.
struct Poller<'a> {
    world: &'a World,
    seen: Seen,
    cools: bool,
    cold: bool,
}

impl<'a> Poller<'a> {
    fn new(world: &'a World, cools: bool) -> Self {
        Self { world, seen: Seen::default(), cools, cold: false }
    }

    /// Looks at the inbox, and at the source while that is hot.
    fn poll(&mut self) -> bool {
        let before = self.seen;
        self.seen.jobs = self.world.inbox.load(Ordering::Acquire);
        if !self.cold {
            self.poll_source();
        }
        self.seen != before
    }

    fn poll_source(&mut self) -> bool {
        let before = self.seen;
        self.seen.chains = self.world.ring.avail.load(Ordering::Acquire);
        self.seen.messages = self.world.messages.load(Ordering::Relaxed);
        self.seen != before
    }

    /// What is done with fds that rang, asleep or not.
    fn heed(&mut self, rung: &Rung) {
        if rung.kick {
            self.heat();
        }
    }

    fn heat(&mut self) {
        if std::mem::take(&mut self.cold) {
            self.disarm();
        }
    }

    /// One loop that stays awake. Whether it found anything.
    fn turn(&mut self) -> bool {
        if self.cools {
            let rung = std::mem::take(&mut *self.world.bell.rung.lock().unwrap());
            self.heed(&rung);
        }
        if self.world.doze.is_roused() {
            self.world.doze.take_roused();
            self.heat();
        }
        self.poll()
    }

    /// Lets the source go cold. Whether there was something instead.
    fn cool(&mut self) -> bool {
        if !self.cools || self.cold {
            return false;
        }
        self.cold = go_cold(self, |poller| poller.arm(), |poller| poller.poll_source());
        if !self.cold {
            self.disarm();
        }
        !self.cold
    }

    /// Polls, cools and sleeps until it has seen that much.
    fn run(&mut self, all: Seen) {
        while self.seen != all {
            if !self.turn() && !self.cool() {
                let world = self.world;
                world.doze.fall_asleep(self);
            }
        }
    }
}

impl Sleeper for Poller<'_> {
    fn arm(&mut self) -> bool {
        if !self.cold {
            self.world.ring.notify.store(true, Ordering::Relaxed);
        }
        true
    }

    fn recheck(&mut self) -> bool {
        self.poll() || self.world.doze.is_roused()
    }

    fn block(&mut self) {
        let mut rung = self.world.bell.rung.lock().unwrap();
        while !(rung.own || rung.kick) {
            rung = self.world.bell.change.wait(rung).unwrap();
        }
        let rung = std::mem::take(&mut *rung);
        self.heed(&rung);
    }

    fn disarm(&mut self) {
        if !self.cold {
            self.world.ring.notify.store(false, Ordering::Relaxed);
        }
    }
}

/// Runs the poller against one thread for each kind of work, which does so much of it.
fn model(cools: bool, all: Seen) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let world = Arc::new(World::new());
        let producers = [
            (all.jobs, World::post as fn(&World)),
            (all.chains, World::submit as fn(&World)),
            (all.messages, World::leave as fn(&World)),
        ];
        let producers: Vec<_> = producers
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, produce)| {
                let world = Arc::clone(&world);
                thread::spawn(move || (0..count).for_each(|_| produce(&world)))
            })
            .collect();
        let mut poller = Poller::new(&world, cools);
        poller.run(all);
        assert_eq!(poller.seen, all);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
    });
}

#[test]
fn loom_jobs_posted_while_falling_asleep_are_all_seen() {
    model(false, Seen { jobs: 2, ..Seen::default() });
}

#[test]
fn loom_chains_submitted_while_falling_asleep_are_all_seen() {
    model(false, Seen { chains: 2, ..Seen::default() });
}

#[test]
fn loom_job_and_chain_together_are_both_seen() {
    model(false, Seen { jobs: 1, chains: 1, ..Seen::default() });
}

#[test]
fn loom_chains_submitted_while_their_source_goes_cold_are_all_seen() {
    model(true, Seen { chains: 2, ..Seen::default() });
}

#[test]
fn loom_messages_left_for_a_source_that_goes_cold_are_all_seen() {
    model(true, Seen { messages: 2, ..Seen::default() });
}

#[test]
fn loom_chain_and_job_are_both_seen_though_the_glance_takes_either_ring() {
    model(true, Seen { jobs: 1, chains: 1, ..Seen::default() });
}

#[test]
fn loom_chain_and_message_are_both_seen_by_a_source_that_goes_cold() {
    model(true, Seen { chains: 1, messages: 1, ..Seen::default() });
}

/// Two wakers of one sleep: only the first rings, and that is enough for both.
#[test]
fn loom_two_posting_threads_are_both_seen() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let world = Arc::new(World::new());
        let posting = [(); 2].map(|()| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.post())
        });
        let mut poller = Poller::new(&world, true);
        poller.run(Seen { jobs: 2, ..Seen::default() });
        posting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
