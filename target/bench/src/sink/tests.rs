//! The sink on a real socket, with our own net client on the other side of it.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use clap::Parser;
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::net::Outcome;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

#[derive(Debug, Parser)]
struct ClientLine {
    #[command(flatten)]
    args: net::Args,
}

fn args(path: &Path, line: &str) -> Args {
    let words = ["sink", "--socket"].into_iter().map(Into::into);
    let words = words.chain([path.as_os_str().to_owned()]).chain(line.split_whitespace().map(Into::into));
    Line::try_parse_from(words).unwrap().args
}

/// A sink until it is dropped.
struct Running {
    directory: tempfile::TempDir,
    interrupt: Arc<OwnedFd>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Running {
    /// One that can be connected to at once.
    fn start(line: &str) -> Running {
        let directory = tempfile::tempdir().unwrap();
        let interrupt = Arc::new(event());
        let (args, its) = (args(&directory.path().join("socket"), line), Arc::clone(&interrupt));
        let listener = Listener::bind(&args.socket).unwrap();
        let thread = thread::spawn(move || serve(&args, &listener, its.as_fd()));
        Running { directory, interrupt, thread: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn drive(&self, line: &str) -> Outcome {
        let line = format!("net --socket {} --time 600 {line}", self.path().display());
        let args = ClientLine::try_parse_from(line.split_whitespace()).unwrap().args;
        net::measure(&args, event().as_fd()).unwrap()
    }

    fn end(&mut self) -> Option<anyhow::Result<()>> {
        rustix::io::write(&*self.interrupt, &1u64.to_ne_bytes()).unwrap();
        self.thread.take().map(|thread| thread.join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

#[test]
fn frames_of_every_driver_are_taken_one_front_end_after_the_other() {
    let sink = Running::start("");
    for ring in ["--ring split", "--ring packed", "--ring packed --queue-size 100"] {
        for line in ["", "--in-order", "--indirect --size 1518", "--interrupt", "--mrg off", "--in-order --interrupt"] {
            let outcome = sink.drive(&format!("--mode tx --frames 1000 {ring} {line}"));
            assert!(outcome.passed(), "{ring} {line}: {outcome:?}");
            assert_eq!((outcome.sent, outcome.lost, outcome.received), (1000, 0, 0), "{ring} {line}");
        }
    }
}

#[test]
fn receive_buffers_hold_frames_of_the_length_that_was_asked_for() {
    for size in [14, 64, 1518, 9018] {
        let sink = Running::start(&format!("--mode rx --size {size}"));
        for ring in ["--ring split", "--ring packed", "--ring packed --in-order", "--ring split --in-order"] {
            for line in ["", "--interrupt", "--mrg off"] {
                let outcome = sink.drive(&format!("--mode rx --frames 1000 --rx-buffer 10000 {ring} {line}"));
                // Of a buffer without the header a client that merges buffers says that it is malformed.
                assert!(outcome.passed(), "{size} {ring} {line}: {outcome:?}");
                assert!(outcome.received >= 1000, "{size} {ring} {line}: {outcome:?}");
                assert_eq!(outcome.rx_bytes, outcome.rx_frames * size, "{size} {ring} {line}");
            }
        }
    }
}

#[test]
fn frames_are_cut_where_receive_buffers_end() {
    let sink = Running::start("--mode rx --size 1518");
    let outcome = sink.drive("--mode rx --frames 100 --rx-buffer 128");
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!(outcome.rx_bytes, outcome.rx_frames * (128 - 12));
}

#[test]
fn sink_that_fills_receive_buffers_takes_frames_as_well() {
    let outcome = Running::start("--mode rx").drive("--mode tx --frames 1000");
    assert!(outcome.passed() && outcome.sent == 1000, "{outcome:?}");
}

#[test]
fn sink_that_only_takes_frames_leaves_receive_buffers_alone() {
    // What comes back otherwise than it was sent is foreign.
    let outcome = Running::start("--mode tx").drive("--mode loop --frames 100 --loss-timeout 0.2");
    assert_eq!((outcome.lost, outcome.foreign, outcome.malformed), (100, 0, 0), "{outcome:?}");
}

#[test]
fn interrupt_ends_the_sink_whoever_is_connected_and_its_path_goes() {
    let mut sink = Running::start("");
    let mut front_end = UnixStream::connect(sink.path()).unwrap();
    sink.end().unwrap().unwrap();
    assert!(!sink.path().exists());
    let end = front_end.read(&mut [0]);
    assert!(matches!(&end, Ok(0)) || end.is_err(), "hung up: {end:?}");
}

#[test]
fn options_out_of_bounds_are_refused_by_name() {
    for (line, what) in [
        ("--size 13", "--size 13: must be 14 to 9018"),
        ("--mode rx --size 9019", "--size 9019: must be 14 to 9018"),
        ("--core 1023", "--core: cores: core 1023 is not in the set"),
    ] {
        let error = format!("{:#}", run(&args(Path::new("/nowhere/socket"), line)).unwrap_err());
        assert!(error.starts_with(what), "{line}: {error}");
    }
    let error = run(&args(Path::new("/nowhere/socket"), "")).unwrap_err().to_string();
    assert!(error.contains("\"/nowhere\" does not exist"), "{error}");
    for line in ["sink", "sink --socket s --mode loop", "sink --socket s --size -1"] {
        assert!(Line::try_parse_from(line.split_whitespace()).is_err(), "{line}");
    }
}
