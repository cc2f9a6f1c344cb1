//! The SPDK thread of a poller, and the source that polls it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::Sender;

use reactor::clock::Tsc;
use reactor::{Armed, Source};
use spdk_rs::{Env, Thread, ThreadError};

use crate::home::AtHome;
use crate::lane::Lane;
use crate::turns::Turns;

/// Polls the SPDK thread of its poller. The thread itself stays on the operating system's thread that made it.
///
/// While a channel is open the poller does not sleep: SPDK tells nobody when there is something to do. Channels with requests poll
/// the thread themselves, when they have handed requests over; this source does so when none of them has, and seldom, as
/// nobody waits then: for what SPDK sends to all of its threads, and for what its modules do by the clock.
#[derive(Debug)]
pub struct SpdkPoller {
    name: String,
    /// The loop in which it was polled last.
    last: Tsc,
    look_ticks: u64,
}

/// What a poller has of SPDK.
struct Here {
    thread: Thread,
    turns: Rc<Turns>,
    /// Channels whose users are gone, until their last request has ended.
    leaving: Vec<(AtHome<Lane>, Sender<()>)>,
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// The calling thread's SPDK thread, and what is known of its turns.
pub(crate) fn here() -> Option<(Thread, Rc<Turns>)> {
    HERE.with_borrow(|here| here.as_ref().map(|here| (here.thread.clone(), Rc::clone(&here.turns))))
}

/// Keeps a channel that nobody uses any more until its last request has ended; then `ended` is dropped, too.
pub(crate) fn leave_behind(lane: AtHome<Lane>, ended: Sender<()>) {
    HERE.with_borrow_mut(|here| match here {
        Some(here) => here.leaving.push((lane, ended)),
        None => drop(lane),
    });
}

impl SpdkPoller {
    /// A source of this name. It has no thread before it [enters](SpdkPoller::enter).
    #[must_use]
    pub fn new(name: impl Into<String>) -> SpdkPoller {
        SpdkPoller { name: name.into(), last: Tsc(0), look_ticks: Tsc::ticks(LOOK_AWAKE_NS) }
    }

    /// Makes the SPDK thread, on the poller.
    ///
    /// # Errors
    /// SPDK has no memory for it, or this thread has one.
    pub(crate) fn enter(&self, env: Env) -> Result<(), ThreadError> {
        let here = Here { thread: Thread::create(env, &self.name)?, turns: Rc::default(), leaving: Vec::new() };
        HERE.set(Some(here));
        Ok(())
    }

    /// Ends the SPDK thread, on the poller. Whoever uses a channel there has dropped it, and its requests have ended or do so now.
    pub(crate) fn leave(&mut self) {
        while HERE.with_borrow(|here| here.as_ref().is_some_and(|here| !here.leaving.is_empty())) {
            self.poll(Tsc::now());
        }
        let here = HERE.take();
        drop(here); // not while the cell is borrowed: the thread is polled until it has ended
    }
}

impl Source for SpdkPoller {
    fn poll(&mut self, now: Tsc) -> usize {
        let last = std::mem::replace(&mut self.last, now);
        let due = |here: &Here| {
            let polled = here.turns.polled();
            !here.leaving.is_empty() || (polled < last && now.0.saturating_sub(polled.0) >= self.look_ticks)
        };
        // What is polled here may come back to this cell.
        let thread = HERE.with_borrow(|here| {
            let here = here.as_ref().filter(|here| due(here))?;
            here.turns.take(now);
            Some(here.thread.clone())
        });
        let Some(thread) = thread else { return 0 };
        let mut work = usize::from(thread.poll());
        HERE.with_borrow_mut(|here| {
            let Some(here) = here else { return };
            let before = here.leaving.len();
            if before > 0 {
                here.leaving.retain_mut(|(lane, _)| !lane.get().is_over());
                work += before - here.leaving.len();
            }
        });
        work
    }

    fn arm(&mut self) -> Armed {
        let open = HERE.with_borrow(|here| here.as_ref().is_some_and(|here| here.turns.open() > 0));
        let deadline = (!open).then(|| Tsc(Tsc::now().0 + Tsc::ticks(LOOK_ASLEEP_NS)));
        Armed::MustPoll { deadline }
    }
}

/// How long a message of SPDK's waits on a poller that sleeps and has no channel.
const LOOK_ASLEEP_NS: u64 = 10_000_000;
/// How long it waits on one that is awake and has nothing under way.
const LOOK_AWAKE_NS: u64 = 5_000;
