//! The built target as an operator runs it: `ringside serve`, its log, its metrics, its end by SIGTERM.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::metrics::Metrics;
use super::process::Process;

/// Starting and draining are quick; this is for a busy machine.
const BOUND: Duration = Duration::from_secs(20);

/// A running `ringside serve`. Ended when dropped.
pub struct Ringside {
    process: Process,
    config: PathBuf,
    metrics: SocketAddr,
}

impl Ringside {
    /// Starts it in `dir` and waits until it is ready. `config` says all but where the metrics are; sockets in it are
    /// named relative to `dir`.
    pub fn start(dir: &Path, config: &str) -> Ringside {
        let path = dir.join("ringside.toml");
        write_config(&path, config);
        Ringside::serve(path)
    }

    /// Starts it with a configuration that an earlier one had, and waits until it is ready.
    pub fn serve(config: PathBuf) -> Ringside {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
        command.args(["serve", "--config"]).arg(&config).env("RINGSIDE_LOG", "info");
        let mut process = Process::start("ringside", command.current_dir(config.parent().unwrap()));
        let line = process.line("the metrics' address", BOUND, |line| line.contains("metrics: http://"));
        let address = line.split_once("http://").unwrap().1.strip_suffix("/metrics").unwrap();
        let metrics = address.parse().unwrap();
        process.line("ready", BOUND, |line| line.ends_with(" ready"));
        Ringside { process, config, metrics }
    }

    /// Kills it and starts it again with the same configuration.
    #[must_use]
    pub fn kill_and_restart(self) -> Ringside {
        self.kill_and_restart_after(|| ())
    }

    /// Kills it, lets something be done while there is none, and starts it again with the same configuration.
    #[must_use]
    pub fn kill_and_restart_after(mut self, meanwhile: impl FnOnce()) -> Ringside {
        self.process.signal(Signal::KILL);
        let _ = self.process.wait(BOUND);
        meanwhile();
        Ringside::serve(self.config.clone())
    }

    /// Ends it as an operator does, and starts it with another configuration.
    #[must_use]
    pub fn restart_with(self, config: &str) -> Ringside {
        let path = self.stop();
        write_config(&path, config);
        Ringside::serve(path)
    }

    /// Gives it another configuration while it runs, and waits until it says that it did this of it.
    pub fn reload(&mut self, config: &str, expected: &str) {
        write_config(&self.config, config);
        self.process.signal(Signal::HUP);
        let said = self.process.line("what SIGHUP did", BOUND, |line| line.contains("SIGHUP: "));
        assert!(said.contains(expected), "{said}");
    }

    /// What it has counted so far.
    pub fn metrics(&self) -> Metrics {
        Metrics::scrape(self.metrics)
    }

    /// A file of its directory in `/proc`.
    pub fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.process.id())).unwrap()
    }

    /// Whether its thread of that name waits for something: one that polls is running, or about to.
    pub fn blocks(&self, thread: &str) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let stats = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
        // proc_pid_stat(5): the name in parentheses, then the state.
        let state = stats.filter_map(|stat| stat.split_once(&format!("({thread}) ")).map(|(_, rest)| rest.to_owned()));
        state.map(|rest| rest.starts_with('S')).next().expect("a thread of that name")
    }

    /// What `ringside qemu-args` prints for `controller` of this configuration.
    pub fn qemu_args(&self, controller: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
        command.arg("qemu-args").arg("--config").arg(&self.config).args(arguments).arg(controller);
        let output = command.current_dir(self.config.parent().unwrap()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends it as an operator does, and checks how: drained, status 0, and no error in the log. Returns what it was started
    /// with, for [`Ringside::serve`].
    pub fn stop(self) -> PathBuf {
        self.stop_despite(&[])
    }

    /// The same, but errors with one of these texts are known ones.
    pub fn stop_despite(mut self, known: &[&str]) -> PathBuf {
        self.process.signal(Signal::TERM);
        let status = self.process.wait(BOUND);
        assert_eq!(status.code(), Some(0), "exit status of ringside");
        let log = self.process.seen();
        assert!(log.last().is_some_and(|line| line.ends_with("drained")), "the last line is another one");
        let is_known = |line: &&String| known.iter().any(|text| line.contains(text));
        let mut errors = log.iter().filter(|line| line.contains("ERROR") || line.contains("panicked"));
        let error = errors.find(|line| !is_known(line));
        assert_eq!(error, None, "the target reports an error");
        self.config.clone()
    }
}

/// `config` says all but where the metrics are.
fn write_config(path: &Path, config: &str) {
    fs::write(path, format!("{config}\n[metrics]\nlisten = '127.0.0.1:0'\n")).unwrap();
}
