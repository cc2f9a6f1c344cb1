//! One testpmd: how it is started, told what to do, and asked what it has counted. What its numbers should be is the tests'
//! business.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Process, until};

pub const PROGRAM: &str = "dpdk-testpmd";

/// Everything that testpmd does at once is quick; this is for a busy machine.
const BOUND: Duration = Duration::from_secs(20);

/// A running testpmd. Ended when dropped.
pub struct Testpmd {
    process: Process,
    marks: u32,
}

/// How a testpmd is started.
pub struct Setup<'a> {
    /// Options of its virtio-user device beside path and queues, as `mrg_rxbuf=0`.
    pub options: &'a str,
    /// Queue pairs.
    pub pairs: u16,
    pub memory: Memory,
    /// Options of testpmd itself.
    pub arguments: &'a str,
    /// A device that becomes its port 0; the virtio-user device is port 1 then.
    pub other_device: Option<&'a str>,
}

/// Where its memory is.
#[derive(Clone, Copy)]
pub enum Memory {
    /// Ordinary pages, as much as it will need.
    Ordinary,
    /// Huge pages, more of them whenever it needs more.
    Growing,
}

pub const PLAIN: Setup<'_> =
    Setup { options: "queue_size=256", pairs: 1, memory: Memory::Ordinary, arguments: "", other_device: None };

/// What testpmd has counted of a port, by the names that DPDK gives it.
pub struct Xstats(BTreeMap<String, u64>);

impl Testpmd {
    pub fn spawn(core: usize, socket: &Path, setup: &Setup<'_>) -> Testpmd {
        let Setup { options, pairs, memory, arguments, other_device } = setup;
        // Its output is buffered otherwise. The thread that reads commands sleeps, the other one polls.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", PROGRAM, "--no-pci", "--no-telemetry", "--lcores", &format!("0@{core},1@{core}")]);
        // One region of memory: virtio-user cannot have more than eight.
        command.args(match memory {
            Memory::Ordinary => ["--no-huge", "--no-shconf", "-m", "128"].as_slice(),
            Memory::Growing => ["--in-memory", "--single-file-segments", "--iova-mode=va"].as_slice(),
        });
        if let Some(device) = other_device {
            command.args(["--vdev", device]);
        }
        let socket = socket.display();
        command.args(["--vdev", &format!("net_virtio_user0,path={socket},queues={pairs},{options}")]);
        command.args(["--", "-i", "--total-num-mbufs=8192", "--nb-cores=1"]);
        command.args([format!("--rxq={pairs}"), format!("--txq={pairs}")]);
        Testpmd { process: Process::start("testpmd", command.args(arguments.split_whitespace())), marks: 0 }
    }

    /// Waits until it takes commands.
    pub fn ready(&mut self) {
        self.run("");
    }

    /// Runs commands, one a line, and returns what it said.
    pub fn run(&mut self, commands: &str) -> Vec<String> {
        self.marks += 1;
        // A comment is echoed, after everything that was said before.
        let mark = format!("# {}", self.marks);
        let input = self.process.input();
        input.write_all(format!("{commands}\n{mark}\n").as_bytes()).unwrap();
        let before = self.process.seen().len();
        self.process.line(&mark, BOUND, |line| line.ends_with(&mark));
        self.process.seen()[before..].to_vec()
    }

    /// Forwards as `mode` says until `done`, and for no longer.
    pub fn forward(&mut self, mode: &str, start: &str, what: &str, mut done: impl FnMut(&mut Testpmd) -> bool) {
        self.run(&format!("set fwd {mode}\n{start}"));
        until(what, BOUND, || done(self).then_some(()));
        self.run("stop");
    }

    /// What it has counted so far of one of its ports.
    pub fn xstats(&mut self, port: u16) -> Xstats {
        let said = self.run(&format!("show port xstats {port}"));
        let pairs = said.iter().filter_map(|line| line.split_once(": "));
        let stats: BTreeMap<String, u64> =
            pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect();
        assert!(!stats.is_empty(), "no counters of port {port}");
        Xstats(stats)
    }

    /// Kills it: no goodbye to the other side.
    pub fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(BOUND);
    }

    /// Ends it as a user does, and checks how.
    pub fn quit(mut self) {
        self.process.input().write_all(b"quit\n").unwrap();
        assert_eq!(self.process.wait(BOUND).code(), Some(0), "exit status of testpmd");
    }
}

impl Xstats {
    pub fn of(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// Frames that it gave to the device.
    pub fn sent(&self) -> u64 {
        self.of("tx_good_packets")
    }

    /// Frames that it took from the device.
    pub fn received(&self) -> u64 {
        self.of("rx_good_packets")
    }
}
