//! The built program as a process of its own: started with a configuration, listened to, signalled, and waited for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::live::exposition::{self, Exposition};
use tests::live::{PATIENCE, until};

/// A process that serves. Killed when dropped.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    metrics: SocketAddr,
    passed: Vec<String>,
}

/// The directory for a configuration and its sockets.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the configuration, in which `{dir}` stands for this directory.
    pub fn write(&self, text: &str) {
        fs::write(self.path("ringside.toml"), text.replace("{dir}", self.0.path().to_str().unwrap())).unwrap();
    }

    /// Writes the configuration and starts `ringside serve` with it.
    fn command(&self, text: &str) -> Command {
        self.write(text);
        let file = self.path("ringside.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
        command.args([Path::new("serve"), Path::new("--config"), &file]).env_remove("RINGSIDE_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it says that it is ready.
    pub fn serve(&self, text: &str) -> Process {
        let mut child = self.command(text).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut process = Process { child, lines, metrics: SocketAddr::from(([127, 0, 0, 1], 0)), passed: Vec::new() };
        let line = process.wait_line("metrics: http");
        let (_, address) = line.split_once("://").unwrap();
        process.metrics = address.strip_suffix("/metrics").unwrap().parse().unwrap();
        process.wait_line("ready");
        process
    }

    /// Runs it in the expectation that it ends by itself.
    pub fn fails(&self, text: &str) -> Output {
        let child = self.command(text).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (sender, ended) = channel();
        thread::spawn(move || sender.send(child.wait_with_output()));
        let output = ended.recv_timeout(PATIENCE);
        if output.is_err() {
            kill_process(pid, Signal::KILL).unwrap();
        }
        output.expect("it ends").unwrap()
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line that contains `text`.
    pub fn wait_line(&mut self, text: &str) -> String {
        self.lines_until(text).pop().unwrap()
    }

    /// Log lines up to the first that contains `text`.
    pub fn lines_until(&mut self, text: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while !lines.last().is_some_and(|line| line.contains(text)) {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no line with {text:?}: {error}"));
            self.passed.push(line.clone());
            lines.push(line);
        }
        lines
    }

    /// Log lines up to the last one that was waited for.
    pub fn passed(&self) -> &[String] {
        &self.passed
    }

    /// Log lines that are there and were not waited for.
    pub fn lines(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics
    }

    pub fn scrape(&self) -> Exposition {
        exposition::scrape(self.metrics)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // gone already in every test that passes
        let _ = self.child.wait();
    }
}

/// `[metrics]` on any port, and one controller `vm0` whose LUN 0 is a disk in memory; LUN 1 is one that answers after
/// `latency_us`.
pub fn one_controller(latency_us: u32) -> String {
    format!(
        "[metrics]\nlisten = '127.0.0.1:0'\n\
         [reactor]\ncores = [{core}]\n\
         [[bdev]]\nname = 'disk0'\nkind = 'malloc'\nsize = '1MiB'\n\
         [[bdev]]\nname = 'below'\nkind = 'malloc'\nsize = '1MiB'\n\
         [[bdev]]\nname = 'slow'\nkind = 'delay'\nbase = 'below'\nlatency_us = {latency_us}\n\
         [[scsi]]\nname = 'vm0'\nsocket = '{{dir}}/vm0.sock'\nqueue_size_max = 256\npollers = [{core}]\n\
         [[scsi.lun]]\nlun = 0\nbdev = 'disk0'\n\
         [[scsi.lun]]\nlun = 1\nbdev = 'slow'\n",
        core = tests::live::rig::cores(1).unwrap()[0]
    )
}
