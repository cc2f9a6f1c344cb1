//! The loop of a poller thread: jobs, sources, accounting, idling; how others reach it is in `handle`, what it sleeps on in `bell`.

use crate::bell::{Bell, Rung};
use crate::clock::Tsc;
use crate::doze::{Doze, Sleeper};
use crate::inbox::{Inbox, Job};
use crate::poller_stats::PollerStats;
use crate::reactor::IdlePolicy;
use crate::sources::{Readiness, Sources};
use rustix::process::Pid;
use stats::OwnLines;
use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

/// What a poller and everybody else share.
pub(crate) struct Shared {
    pub(crate) core: usize,
    pub(crate) next_id: AtomicU64,
    bell: Arc<Bell>,
    inbox: Inbox,
    doze: OwnLines<Doze>,
    pub(crate) stats: OwnLines<PollerStats>,
    /// Set by the thread itself before the reactor has started.
    pub(crate) thread: OnceLock<Pid>,
}

impl Shared {
    pub(crate) fn new(core: usize) -> io::Result<Self> {
        Ok(Self {
            core,
            next_id: AtomicU64::new(0),
            bell: Arc::new(Bell::new()?),
            inbox: Inbox::new(),
            doze: OwnLines::new(Doze::new()),
            stats: OwnLines::default(),
            thread: OnceLock::new(),
        })
    }

    /// Sends a job to the poller. Dropped if the poller has ended.
    pub(crate) fn post(&self, job: Job) {
        self.inbox.post(job);
        self.wake();
    }

    /// Makes sure that the poller looks at its inbox.
    fn wake(&self) {
        self.doze.wake(&*self.bell);
    }

    /// Makes sure that the poller looks at every source.
    pub(crate) fn rouse(&self) {
        self.doze.rouse(&*self.bell);
    }

    /// Nobody will take jobs any more.
    pub(crate) fn close(&self) {
        self.inbox.close();
    }
}

/// A poller, on its thread.
pub(crate) struct Poller {
    shared: Arc<Shared>,
    sources: Sources,
    idle: IdlePolicy,
    /// The start of the loop under way.
    now: Tsc,
    /// When to try to sleep, if all loops until then are idle.
    sleep_at: Tsc,
    /// How long to stay awake without work, in ticks: grows while sources refuse to sleep.
    patience: u64,
    spin_ticks: u64,
    /// When to ask next which cold sources rang.
    glance_at: Tsc,
    glance_ticks: u64,
    /// When to let what is idle go cold.
    cool_at: Tsc,
    cool_ticks: u64,
}

/// Whether the calling thread is a poller, and so must not block.
pub fn on_poller() -> bool {
    ON_POLLER.get()
}

impl Poller {
    pub(crate) fn new(shared: Arc<Shared>, idle: IdlePolicy) -> Self {
        let (now, spin_ticks) = (Tsc::now(), Tsc::ticks(SPIN_NANOS));
        let (sleep_at, patience) = (now + spin_ticks, spin_ticks);
        let (glance_ticks, cool_ticks) = (Tsc::ticks(GLANCE_NANOS), Tsc::ticks(COOL_NANOS));
        Self {
            shared,
            sources: Sources::new(),
            idle,
            now,
            sleep_at,
            patience,
            spin_ticks,
            glance_at: now + glance_ticks,
            glance_ticks,
            cool_at: now + cool_ticks,
            cool_ticks,
        }
    }

    /// Polls until it is told to stop, through every panic of a source.
    pub(crate) fn run(mut self) -> Sources {
        ON_POLLER.set(true);
        // One frame for all loops: catching costs nothing until there is something to catch.
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.turn_until_stopped())) {
            self.bury(&*panic);
        }
        self.sources
    }

    fn turn_until_stopped(&mut self) {
        self.shared.doze.rise();
        self.sources.recover();
        while !(self.sources.stopping() && self.shared.inbox.is_empty()) {
            self.turn();
        }
        self.sources.recover();
        self.shared.close();
    }

    /// One loop.
    #[inline]
    fn turn(&mut self) {
        let mut work = self.run_jobs();
        if self.now >= self.glance_at {
            work += self.glance();
        }
        if self.shared.doze.is_roused() {
            work += self.look_at_cold();
        }
        work += self.sources.poll(self.now);
        self.account(work > 0);
        if work > 0 {
            self.sleep_at = self.now + self.spin_ticks;
        } else if self.idle == IdlePolicy::Busy || self.now < self.sleep_at {
            // Some 30 ns (Zen 4) that leave the core to its sibling thread; a loop over one source takes 12.
            std::hint::spin_loop();
        } else {
            self.sleep();
        }
    }

    #[inline]
    fn run_jobs(&mut self) -> usize {
        let mut jobs = 0;
        while jobs < JOBS_PER_LOOP
            && let Some(job) = self.shared.inbox.take()
        {
            self.run_job(job);
            jobs += 1;
        }
        jobs
    }

    #[cold]
    fn run_job(&mut self, job: Job) {
        let stats = &self.shared.stats;
        stats.jobs.add(1);
        let start = Tsc::now();
        job(&mut self.sources);
        stats.longest_job_ticks.record(Tsc::now() - start);
        self.show_sources();
    }

    /// Looks after cold sources: those that rang, the next of the sweep, and those that are to become cold.
    #[cold]
    fn glance(&mut self) -> usize {
        self.glance_at = self.now + self.glance_ticks;
        let rung = self.shared.bell.wait(Some(0));
        self.sources.heed(&rung);
        let work = self.sources.sweep(&self.shared.bell, self.now);
        self.cool();
        self.show_sources();
        work
    }

    /// Every so often, lets go cold what has been idle since the last time.
    fn cool(&mut self) {
        if self.now >= self.cool_at {
            self.cool_at = self.now + self.cool_ticks;
            self.sources.cool(&self.shared.bell, self.now);
        }
    }

    /// Somebody has left a message for one of the sources.
    #[cold]
    fn look_at_cold(&mut self) -> usize {
        self.shared.doze.take_roused();
        self.sources.visit_cold(&self.shared.bell, self.now)
    }

    fn show_sources(&self) {
        let stats = &self.shared.stats;
        stats.sources.set(self.sources.len() as u64);
        stats.cold_sources.set(self.sources.cold_len() as u64);
    }

    /// Ends a loop: one reading of the clock, for it and for the next.
    #[inline]
    fn account(&mut self, busy: bool) {
        let end = Tsc::now();
        let ticks = end - self.now;
        self.now = end;
        let stats = &self.shared.stats;
        if busy {
            stats.busy_ticks.add(ticks);
            stats.busy_loop_ticks.record(ticks);
        } else {
            stats.idle_ticks.add(ticks);
            stats.idle_loops.add(1);
        }
        stats.loops.add(1);
        stats.longest_loop_ticks.record(ticks);
    }

    /// Tries to sleep, and decides when to try again.
    #[cold]
    fn sleep(&mut self) {
        self.cool();
        let mut night = Night {
            shared: &self.shared,
            sources: &mut self.sources,
            started: self.now,
            readiness: Readiness::Ready,
            found: false,
            woken: self.now,
            rung: Rung::none(),
        };
        let slept = self.shared.doze.fall_asleep(&mut night);
        let Night { readiness, found, woken, rung, .. } = night;
        if slept {
            self.now = woken;
            self.glance_at = woken + self.glance_ticks;
            self.sources.heed(&rung);
            self.show_sources();
        } else {
            self.account(found);
        }
        self.patience = match readiness {
            Readiness::Restless => (self.patience * 2).min(self.spin_ticks * PATIENCE_MAX),
            Readiness::Ready | Readiness::Until(_) => self.spin_ticks,
        };
        self.sleep_at = self.now + self.patience;
    }

    fn bury(&mut self, panic: &(dyn Any + Send)) {
        let reason = reason(panic);
        let core = self.shared.core;
        match self.sources.bury_current() {
            Some((source, id)) => {
                tracing::error!(core, source, id = id.0, reason, "a source panicked and is polled no more");
            }
            None => tracing::error!(core, reason, "a job panicked"),
        }
        let stats = &self.shared.stats;
        stats.panics.add(1);
        self.show_sources();
    }
}

/// One attempt to sleep.
struct Night<'a> {
    shared: &'a Shared,
    sources: &'a mut Sources,
    /// The end of the last loop accounted for.
    started: Tsc,
    readiness: Readiness,
    /// Whether the last look found work.
    found: bool,
    woken: Tsc,
    /// What ended the sleep.
    rung: Rung,
}

impl Sleeper for Night<'_> {
    fn arm(&mut self) -> bool {
        self.readiness = self.sources.arm(&self.shared.bell);
        match self.readiness {
            Readiness::Until(Some(deadline)) => deadline - Tsc::now() >= Tsc::ticks(SHORTEST_SLEEP_NANOS),
            Readiness::Until(None) => true,
            Readiness::Ready | Readiness::Restless => false,
        }
    }

    fn recheck(&mut self) -> bool {
        self.found = self.sources.poll(Tsc::now()) > 0;
        self.found || !self.shared.inbox.is_empty() || self.shared.doze.is_roused()
    }

    fn block(&mut self) {
        let Readiness::Until(deadline) = self.readiness else { return };
        let stats = &self.shared.stats;
        let asleep = Tsc::now();
        stats.idle_ticks.add(asleep - self.started);
        stats.sleeps.add(1);
        stats.asleep.set(1);
        self.rung = self.shared.bell.wait(deadline.map(|deadline| deadline - asleep));
        self.woken = Tsc::now();
        stats.asleep.set(0);
        stats.asleep_ticks.add(self.woken - asleep);
        stats.wakeups.add(u64::from(self.rung.any()));
    }

    fn disarm(&mut self) {
        self.sources.disarm();
    }
}

/// The message of a panic, as far as it has one.
fn reason(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

thread_local! {
    static ON_POLLER: Cell<bool> = const { Cell::new(false) };
}

/// Jobs between two looks at the sources.
const JOBS_PER_LOOP: usize = 16;
/// How long an adaptive poller polls without work before it tries to sleep: about what a sleep and a wakeup cost.
const SPIN_NANOS: u64 = 50_000;
/// How often a poller that is awake asks which fds of its sources rang: one system call, some 200 ns (Zen 4).
const GLANCE_NANOS: u64 = 100_000;
/// A source, or a ring, goes cold when it was idle from one of these moments to the next.
const COOL_NANOS: u64 = 10_000_000;
/// A sleep until a deadline nearer than this would miss it.
const SHORTEST_SLEEP_NANOS: u64 = 20_000;
/// Where sources refuse to sleep, attempts grow rarer, up to this many times `SPIN_NANOS`: each costs them a notification enabled.
const PATIENCE_MAX: u64 = 200;
