//! A process that a test has started: its output line by line, waits that have a bound, and an end in any case. What it
//! is for is not known here.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(15);

/// A running process. Ended when dropped: by SIGTERM, or SIGKILL if that is not enough.
pub struct Process {
    name: &'static str,
    child: Child,
    pidfd: OwnedFd,
    lines: Receiver<String>,
    seen: Vec<String>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it. What it writes to standard output and standard error becomes lines.
    pub fn start(name: &'static str, command: &mut Command) -> Process {
        let (reader, writer) = io::pipe().unwrap();
        command.stdin(Stdio::piped()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        // Its ends of the pipe are ours no more: the lines end with the process.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = io::BufReader::new(reader);
            let mut line = Vec::new();
            while io::BufRead::read_until(&mut reader, b'\n', &mut line).is_ok_and(|length| length > 0) {
                let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
        Process { name, child, pidfd, lines, seen: Vec::new(), ended: None }
    }

    /// Waits for a line that `matches`, and returns it. Lines that were there before are not looked at again.
    ///
    /// # Panics
    /// If there is none within `bound`, or the process ends before.
    pub fn line(&mut self, what: &str, bound: Duration, matches: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + bound;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if matches(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("{}: {what} not seen within {bound:?}", self.name),
                Err(RecvTimeoutError::Disconnected) => panic!("{}: ended without {what}", self.name),
            }
        }
    }

    /// Every line so far that was waited for or passed by.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it reads.
    pub fn input(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.pidfd, signal).unwrap();
    }

    /// Waits for its end and for its last line.
    ///
    /// # Panics
    /// If it takes longer than `bound`.
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        let deadline = Instant::now() + bound;
        assert!(self.ends_within(bound), "{}: has not ended after {bound:?}", self.name);
        let status = self.child.wait().unwrap();
        self.ended = Some(status);
        self.drain(deadline);
        status
    }

    /// Takes the lines that are left. A grandchild may hold the pipe open: then what has come by `deadline` is all.
    fn drain(&mut self, deadline: Instant) {
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(line);
        }
    }

    fn ends_within(&self, bound: Duration) -> bool {
        let timeout = Timespec { tv_sec: bound.as_secs().cast_signed(), tv_nsec: bound.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            for signal in [Signal::TERM, Signal::KILL] {
                let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
                if self.ends_within(GRACE) {
                    break;
                }
            }
            let _ = self.child.wait();
            self.drain(Instant::now() + Duration::from_secs(1));
        }
        // The test harness shows it if the test fails.
        eprintln!("--- all that {} said:", self.name);
        self.seen.iter().for_each(|line| eprintln!("{line}"));
    }
}

/// Says that a test is not run, and why. Not by `eprintln!`: the test harness would keep the line to itself. In one
/// write, because other threads write too.
pub fn skip(test: &str, reason: &str) {
    let _ = std::io::stderr().write_all(format!("SKIPPED: {test}: {reason}\n").as_bytes());
}

/// Asks until the answer is there.
///
/// # Panics
/// If that takes longer than `bound`.
pub fn until<T>(what: &str, bound: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    /// Between two questions: the one asked is another process, so there is nothing to wait on.
    const PAUSE: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + bound;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {bound:?}");
        thread::sleep(PAUSE);
    }
}
