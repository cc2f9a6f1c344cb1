//! The thread that watches a load: progress on standard error, the user's interrupt, a device that goes away or stops
//! answering. It tells the load what to do by the board and touches no ring.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags};

use crate::board::{Board, Order, Phase};
use crate::link::{self, Link, Trouble};
use crate::{Finished, cores};

/// What a load is watched for, and how its progress is told.
#[derive(Clone, Copy)]
pub(crate) struct Watched<'a> {
    /// How long nothing may come back while something is in flight.
    pub stall_timeout: Duration,
    /// Progress is for terminals only.
    pub terse: bool,
    /// What is told of what comes back in a second.
    pub rates: &'a dyn Fn(f64) -> String,
}

/// How a load came to its end, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its time was over, or it halted by itself.
    ByItself,
    /// The user wanted it.
    Interrupted,
    /// The device cannot go on.
    Trouble(Trouble),
    /// Nothing came back for this long, which is as long as is allowed.
    Stalled(Duration),
}

/// Runs a load on a thread of its own, pinned to `core`, and watches it from this one. What the load has to say, and how it came
/// to its end.
///
/// # Errors
/// There is no thread, no such core, or nothing to be watched with.
pub(crate) fn drive<R: Send>(
    core: Option<usize>,
    load: impl FnOnce() -> R + Send,
    watched: Watched<'_>,
    board: &Board,
    link: Option<&Link>,
    interrupt: BorrowedFd<'_>,
) -> anyhow::Result<(R, Ended)> {
    let body = || {
        let _finished = Finished(&board.finished);
        if let Some(core) = core {
            cores::pin(core).context("--core")?;
        }
        anyhow::Ok(load())
    };
    thread::scope(|scope| {
        let driving = thread::Builder::new().name("bench".to_owned()).spawn_scoped(scope, body)?;
        let ended = watch(watched, board, link, interrupt);
        if ended.is_err() {
            board.give(Order::Abandon);
        }
        let Ok(report) = driving.join() else { bail!("the driving thread panicked") };
        Ok((report?, ended?))
    })
}

/// Watches until the load is finished. `interrupt` is readable as soon as the user wants an end.
///
/// # Errors
/// Those of `poll`.
fn watch(watched: Watched<'_>, board: &Board, link: Option<&Link>, interrupt: BorrowedFd<'_>) -> anyhow::Result<Ended> {
    let mut ended = Ended::ByItself;
    let mut stall = StallClock::new(watched.stall_timeout);
    let mut progress = Progress::new(watched);
    let period = PERIOD.min(watched.stall_timeout / 4);
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(board.finished.as_fd(), PollFlags::IN)];
        if !ended.is_forced() {
            fds.extend(link.iter().flat_map(|link| link.poll_fds()));
        }
        let device_end = fds.len();
        if ended == Ended::ByItself {
            fds.push(PollFd::from_borrowed_fd(interrupt, PollFlags::IN));
        }
        link::wait(&mut fds, period)?;
        let signalled = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if signalled(&fds[0]) {
            progress.close();
            return Ok(ended);
        }
        if !ended.is_forced() {
            // Being interrupted does not protect from a device that has gone or stopped answering.
            if let Some(trouble) = link.and_then(|link| link.trouble(&fds[1..device_end])) {
                ended = Ended::Trouble(trouble);
            } else if stall.strikes(board) {
                ended = Ended::Stalled(stall.timeout);
            } else if fds[device_end..].iter().any(signalled) {
                ended = Ended::Interrupted;
            }
            match ended {
                Ended::ByItself => {}
                Ended::Interrupted => {
                    board.give(Order::Finish);
                    stall.hurry();
                }
                Ended::Trouble(_) | Ended::Stalled(_) => board.give(Order::Abandon),
            }
        }
        progress.tell(board);
    }
}

impl Ended {
    /// Nothing will come back, so there is nothing left to be seen to.
    fn is_forced(self) -> bool {
        matches!(self, Ended::Trouble(_) | Ended::Stalled(_))
    }
}

/// Strikes when something is in flight and nothing comes back for too long.
#[derive(Debug)]
struct StallClock {
    timeout: Duration,
    seen: u64,
    since: Instant,
}

impl StallClock {
    fn new(timeout: Duration) -> StallClock {
        StallClock { timeout, seen: 0, since: Instant::now() }
    }

    /// Somebody waits for the end.
    fn hurry(&mut self) {
        self.timeout = self.timeout.min(HURRIED);
    }

    fn strikes(&mut self, board: &Board) -> bool {
        let completed = board.completed.value();
        if completed != self.seen || board.in_flight.value() == 0 {
            self.seen = completed;
            self.since = Instant::now();
        }
        self.since.elapsed() >= self.timeout
    }
}

/// A line once a second: over and over the same on a terminal, one after the other elsewhere.
struct Progress<'a> {
    wanted: bool,
    terminal: bool,
    rates: &'a dyn Fn(f64) -> String,
    begun: Instant,
    told: Instant,
    completed: u64,
    line: String,
}

impl<'a> Progress<'a> {
    fn new(watched: Watched<'a>) -> Progress<'a> {
        let terminal = io::stderr().is_terminal();
        let now = Instant::now();
        Progress {
            wanted: terminal || !watched.terse,
            terminal,
            rates: watched.rates,
            begun: now,
            told: now,
            completed: 0,
            line: String::new(),
        }
    }

    fn tell(&mut self, board: &Board) {
        let past = self.told.elapsed();
        if !self.wanted || past < Duration::from_secs(1) {
            return;
        }
        let completed = board.completed.value();
        let rate = (completed - self.completed) as f64 / past.as_secs_f64();
        self.told += past;
        self.completed = completed;
        self.line.clear();
        // A String takes any text, and standard error that is gone is no reason to stop.
        let _ = write_line(&mut self.line, self.begun.elapsed(), &(self.rates)(rate), board);
        let (start, end) = if self.terminal { ("\r", "\x1b[K") } else { ("", "\n") };
        let _ = write!(io::stderr(), "{start}{}{end}", self.line);
    }

    fn close(&self) {
        if self.wanted && self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn write_line(line: &mut String, past: Duration, rates: &str, board: &Board) -> std::fmt::Result {
    let phase = match board.phase() {
        Phase::Filling => "filling: ",
        Phase::WarmingUp => "warming up: ",
        Phase::Measuring | Phase::Draining => "",
        Phase::ReadingBack => "reading back: ",
    };
    write!(line, "{:4} s  {phase}{rates}  errors {}", past.as_secs(), board.failed.value())
}

/// How long what is in flight may keep a user who wants an end.
pub(crate) const HURRIED: Duration = Duration::from_secs(2);
/// How long nothing has to be seen to.
const PERIOD: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_line_tells_phase_rates_and_errors() {
        let board = Board::new().unwrap();
        board.set_phase(Phase::ReadingBack);
        board.failed.set(3);
        let mut line = String::new();
        write_line(&mut line, Duration::from_secs(12), "256000 IOPS  1000.0 MiB/s", &board).unwrap();
        assert_eq!(line, "  12 s  reading back: 256000 IOPS  1000.0 MiB/s  errors 3");
    }

    #[test]
    fn stall_clock_strikes_only_while_commands_are_in_flight() {
        let board = Board::new().unwrap();
        let mut clock = StallClock::new(Duration::ZERO);
        assert!(clock.strikes(&board), "a time-out of nothing is over at once");
        let mut clock = StallClock::new(Duration::from_secs(3600));
        clock.since -= Duration::from_secs(3600);
        board.in_flight.set(1);
        assert!(clock.strikes(&board), "an hour with the same count");
        board.in_flight.set(0);
        assert!(!clock.strikes(&board), "nothing to wait for");
        board.in_flight.set(1);
        clock.since -= Duration::from_secs(3600);
        board.completed.set(1);
        assert!(!clock.strikes(&board), "something came back");
    }
}
