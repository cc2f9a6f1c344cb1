//! The SPDK thread of a poller, and the source that polls it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc::Sender;

use reactor::clock::Tsc;
use reactor::{Armed, Source};
use spdk_rs::{Env, Thread, ThreadError};

use crate::home::AtHome;
use crate::lane::Lane;

/// Polls the SPDK thread of its poller. The thread itself stays on the operating system's thread that made it.
///
/// While a channel is open the poller does not sleep: SPDK tells nobody when there is something to do. Otherwise it looks now and
/// then, for what SPDK sends to all of its threads.
#[derive(Debug)]
pub struct SpdkPoller {
    name: String,
}

/// What a poller has of SPDK.
struct Here {
    thread: Thread,
    /// Channels that are open.
    open: Rc<Cell<usize>>,
    /// Those of them whose users are gone, until their last request has ended.
    leaving: Vec<(AtHome<Lane>, Sender<()>)>,
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// The calling thread's SPDK thread, and the count of channels that are open on it.
pub(crate) fn here() -> Option<(Thread, Rc<Cell<usize>>)> {
    HERE.with_borrow(|here| here.as_ref().map(|here| (here.thread.clone(), Rc::clone(&here.open))))
}

/// Keeps a channel that nobody uses any more until its last request has ended; then `ended` is dropped, too.
pub(crate) fn leave_behind(lane: AtHome<Lane>, ended: Sender<()>) {
    HERE.with_borrow_mut(|here| match here {
        Some(here) => here.leaving.push((lane, ended)),
        None => drop(lane),
    });
}

impl SpdkPoller {
    /// A source of this name. It has no thread before [`Spdk::join`](crate::Spdk::join) gives it one.
    #[must_use]
    pub fn new(name: impl Into<String>) -> SpdkPoller {
        SpdkPoller { name: name.into() }
    }

    /// Makes the SPDK thread, on the poller.
    ///
    /// # Errors
    /// SPDK has no memory for it, or this thread has one.
    pub(crate) fn enter(&self, env: Env) -> Result<(), ThreadError> {
        let here = Here { thread: Thread::create(env, &self.name)?, open: Rc::default(), leaving: Vec::new() };
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
    fn poll(&mut self, _: Tsc) -> usize {
        // What is polled here may come back to this cell.
        let thread = HERE.with_borrow(|here| here.as_ref().map(|here| here.thread.clone()));
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
        let open = HERE.with_borrow(|here| here.as_ref().is_some_and(|here| here.open.get() > 0));
        let deadline = (!open).then(|| Tsc(Tsc::now().0 + Tsc::ticks(LOOK_NS)));
        Armed::MustPoll { deadline }
    }
}

/// How long a message of SPDK's waits on a poller that sleeps and has no channel.
const LOOK_NS: u64 = 10_000_000;
