//! The loom model of falling asleep: every interleaving of a poller, a driver that kicks and a thread that wakes. A lost wakeup shows
//! as a deadlock. Run by `RUSTFLAGS="--cfg loom" cargo test -p reactor --release loom`.

use super::*;
use loom::sync::atomic::AtomicUsize;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// A poller's surroundings: an inbox, one ring, and the fds it blocks on, here one bell for both.
struct World {
    doze: Doze,
    inbox: AtomicUsize,
    ring: Ring,
    bell: Bell,
}

/// As much of a virtqueue as matters: an avail index, and whether the driver has to kick (virtio 1.3 §2.7.10).
struct Ring {
    avail: AtomicUsize,
    notify: AtomicBool,
}

/// An edge-triggered fd: rung once or more, a wait ends, and forgets.
struct Bell {
    rung: Mutex<bool>,
    change: Condvar,
}

impl Doorbell for Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.change.notify_one();
    }
}

impl World {
    fn new() -> Self {
        Self {
            doze: Doze::new(),
            inbox: AtomicUsize::new(0),
            ring: Ring { avail: AtomicUsize::new(0), notify: AtomicBool::new(false) },
            bell: Bell { rung: Mutex::new(false), change: Condvar::new() },
        }
    }

    fn post(&self) {
        self.inbox.fetch_add(1, Ordering::Release);
        self.doze.wake(&self.bell);
    }

    fn submit(&self) {
        self.ring.avail.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.ring.notify.load(Ordering::Relaxed) {
            self.bell.ring();
        }
    }
}

/// The poller: counts what it has seen of the inbox and of the ring.
struct Poller<'a> {
    world: &'a World,
    jobs: usize,
    used: usize,
}

impl Poller<'_> {
    fn poll(&mut self) -> bool {
        let jobs = self.world.inbox.load(Ordering::Acquire);
        let avail = self.world.ring.avail.load(Ordering::Acquire);
        let found = jobs != self.jobs || avail != self.used;
        (self.jobs, self.used) = (jobs, avail);
        found
    }

    /// Polls and sleeps until it has seen so many jobs and chains.
    fn run(&mut self, jobs: usize, chains: usize) {
        while (self.jobs, self.used) != (jobs, chains) {
            if !self.poll() {
                let world = self.world;
                world.doze.fall_asleep(self);
            }
        }
    }
}

impl Sleeper for Poller<'_> {
    fn arm(&mut self) -> bool {
        self.world.ring.notify.store(true, Ordering::Relaxed);
        true
    }

    fn recheck(&mut self) -> bool {
        self.poll()
    }

    fn block(&mut self) {
        let mut rung = self.world.bell.rung.lock().unwrap();
        while !*rung {
            rung = self.world.bell.change.wait(rung).unwrap();
        }
        *rung = false;
    }

    fn disarm(&mut self) {
        self.world.ring.notify.store(false, Ordering::Relaxed);
    }
}

/// Runs the poller against a thread that posts so many jobs and a driver that submits so many chains.
fn model(jobs: usize, chains: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let world = Arc::new(World::new());
        let producers = [(jobs, World::post as fn(&World)), (chains, World::submit as fn(&World))];
        let producers: Vec<_> = producers
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, produce)| {
                let world = Arc::clone(&world);
                thread::spawn(move || (0..count).for_each(|_| produce(&world)))
            })
            .collect();
        let mut poller = Poller { world: &world, jobs: 0, used: 0 };
        poller.run(jobs, chains);
        assert_eq!((poller.jobs, poller.used), (jobs, chains));
        producers.into_iter().for_each(|producer| producer.join().unwrap());
    });
}

#[test]
fn loom_jobs_posted_while_falling_asleep_are_all_seen() {
    model(2, 0);
}

#[test]
fn loom_chains_submitted_while_falling_asleep_are_all_seen() {
    model(0, 2);
}

#[test]
fn loom_job_and_chain_together_are_both_seen() {
    model(1, 1);
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
        let mut poller = Poller { world: &world, jobs: 0, used: 0 };
        poller.run(2, 0);
        assert_eq!(poller.jobs, 2);
        posting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
