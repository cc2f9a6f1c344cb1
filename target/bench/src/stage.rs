//! How far a load is in its time, and what its thread sleeps on if it does. What is done meanwhile is the load's.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use reactor::Tsc;
use rustix::event::{PollFd, PollFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::board::Board;
use crate::link::{self, RingFds};

/// How far a phase is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// Goes on as long as there is work.
    Untimed,
    WarmingUp {
        until: Tsc,
    },
    Measuring {
        since: Tsc,
        until: Tsc,
    },
    /// Nothing more is sent.
    Draining,
}

/// What a thread sleeps on that waits for interrupts.
pub(crate) struct Sleeper<'a>(Vec<PollFd<'a>>);

impl Stage {
    #[inline(always)]
    pub(crate) fn sends(self) -> bool {
        !matches!(self, Stage::Draining)
    }

    /// When it ends by itself.
    pub(crate) fn until(self) -> Tsc {
        match self {
            Stage::WarmingUp { until } | Stage::Measuring { until, .. } => until,
            Stage::Untimed | Stage::Draining => Tsc(u64::MAX),
        }
    }
}

impl<'a> Sleeper<'a> {
    pub(crate) fn new(fds: &'a [Arc<RingFds>], board: &'a Board) -> Sleeper<'a> {
        let calls = fds.iter().map(|fds| PollFd::new(&fds.call, PollFlags::IN));
        let wake = PollFd::from_borrowed_fd(board.wake.as_fd(), PollFlags::IN);
        Sleeper(calls.chain([wake]).collect())
    }

    /// Sleeps until a call or an order, at most for so many ticks.
    pub(crate) fn sleep(&mut self, ticks: u64) {
        // Its only error is want of kernel memory, and then the thread polls.
        let _ = link::wait(&mut self.0, Duration::from_nanos(Tsc::nanos(ticks)));
    }
}

/// A time in ticks of the clock.
pub(crate) fn ticks(time: Duration) -> u64 {
    Tsc::ticks(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// Processor time of the calling thread.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How often a polling thread looks up from its rings.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// The same for one that sleeps.
pub(crate) const SLEEPING_TICK: Duration = Duration::from_millis(50);
