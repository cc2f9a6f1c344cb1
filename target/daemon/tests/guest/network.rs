//! A network namespace of the host, as the other end of a guest's network card: how a port reaches it, and programs and sockets
//! inside. It goes with the process that holds it, and all its interfaces with it, even if the test is killed. What is sent to
//! and fro is not in here.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::{Process, skip};

/// Its address in every network of these tests.
pub const HOST: &str = "198.18.0.1";
/// The same with IPv6.
pub const HOST6: &str = "fd00::1";

/// Making a namespace takes no time; this is for a busy machine.
const BOUND: Duration = Duration::from_secs(20);
/// Programs that are needed, with the packages that have them.
const TOOLS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("iperf3", "iperf3"),
    ("nsenter", "util-linux"),
];

/// A namespace. It ends when dropped.
pub struct Network {
    holder: Process,
}

impl Drop for Network {
    /// The kernel removes interfaces with their namespace, which connections without an owner keep for minutes.
    fn drop(&mut self) {
        let mut command = Command::new("ip");
        command.args(["link", "delete", &self.interface("v")]).stderr(Stdio::null());
        let _ = command.status();
    }
}

impl Network {
    /// A namespace for the test of that name; `None` where there cannot be one, which is said on standard error.
    #[must_use]
    pub fn enter(test: &str) -> Option<Network> {
        if let Err(reason) = networks_are_made_here() {
            skip(test, &reason);
            return None;
        }
        // What holds it ends when it can read the end of its input: when this process is no more.
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo ready; exec cat"]);
        let mut holder = Process::start("the network namespace", &mut command);
        holder.line("ready", BOUND, |line| line == "ready");
        let network = Network { holder };
        network.run("ip link set lo up");
        Some(network)
    }

    /// A veth pair with one end inside; the name of the other one, which carries no traffic of the host's own.
    pub fn veth(&self) -> String {
        let near = self.interface("v");
        host(&format!("ip link add {near} type veth peer name far0 netns {}", self.holder.id()));
        host(&format!("ip link set {near} addrgenmode none up"));
        self.configure();
        near
    }

    /// A name for an interface that nobody else on this machine has.
    pub fn interface(&self, kind: &str) -> String {
        format!("rs{}{kind}", self.holder.id())
    }

    /// Takes an interface of the host inside.
    pub fn take(&self, interface: &str) {
        host(&format!("ip link set {interface} netns {} name far0", self.holder.id()));
        self.configure();
    }

    /// Sums are made before frames leave: what a packet socket gets is what is on the wire.
    fn configure(&self) {
        self.run("ethtool -K far0 tx off");
        self.run(&format!("ip addr add {HOST}/24 dev far0"));
        self.run("ip link set far0 up");
        self.run(&format!("ip -6 addr add {HOST6}/64 dev far0 nodad"));
    }

    /// What a program inside prints.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, line: &str) -> String {
        output(self.command(line), line)
    }

    /// A program that runs inside until it is dropped.
    pub fn start(&self, name: &'static str, line: &str) -> Process {
        Process::start(name, &mut self.command(line))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).args(["setpriv", "--pdeathsig", "KILL"]);
        command.args(line.split(' '));
        command
    }

    /// Listens inside, for both versions of IP.
    pub fn listen(&self) -> TcpListener {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        let bind = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            TcpListener::bind("[::]:0").unwrap()
        };
        // A thread is in one namespace, a socket stays in the one that it was made in.
        thread::scope(|scope| scope.spawn(bind).join().unwrap())
    }

    /// Sends so many echo requests, with further arguments of ping, all of which must be answered.
    pub fn ping(&self, address: &str, count: u32, arguments: &str) {
        // Without a deadline (-w): with one, ping goes on until so many were answered, and may send more.
        let said = self.run(&format!("ping -c {count} -W 10 -q {arguments} {address}"));
        assert!(said.contains(&format!(" {count} received")), "{said}");
    }

    /// Whether one echo request is answered.
    pub fn reaches(&self, address: &str) -> bool {
        let mut command = self.command(&format!("ping -c 1 -W 1 -q {address}"));
        command.stdout(Stdio::null()).status().unwrap().success()
    }
}

/// What a program outside prints.
fn host(line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    output(command, line)
}

fn output(mut command: Command, line: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{line}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn networks_are_made_here() -> Result<(), String> {
    if !cfg!(feature = "dpdk") {
        return Err("built without DPDK".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (tool, package) in TOOLS {
        let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        if !folders.any(|folder| fs::exists(folder.join(tool)).unwrap_or(false)) {
            return Err(format!("no {tool} (package {package}; scripts/setup.sh --only guest)"));
        }
    }
    let made = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    if made.is_ok_and(|status| status.success()) {
        Ok(())
    } else {
        Err("no network namespace: it wants root".to_owned())
    }
}
