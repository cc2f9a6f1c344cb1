//! Virtual machines: those that `scripts/qemu-guest.sh` starts, and what any running one can be asked. What runs in a guest is
//! in `tests/guest`; how it boots and what it says is in `scripts/guest/init`; those that are started without that script are
//! in `direct`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::process::{Process, until};
use super::qmp::Qmp;
use super::root;

/// The program.
pub const QEMU: &str = "qemu-system-x86_64";
/// How long a guest may take from start to end, unless a test says otherwise. The script's own deadline is earlier.
pub(super) const BOUND: Duration = Duration::from_secs(100);
/// How long before its bound the guest or the script that runs it is to give up, and to say why.
pub(super) const MARGIN: Duration = Duration::from_secs(20);

/// A guest that is about to be started by `scripts/qemu-guest.sh`.
pub struct ScriptGuest {
    command: Command,
    pid_file: PathBuf,
    qmp: PathBuf,
    bound: Duration,
    extra: Vec<String>,
}

/// A running guest. Ended when dropped.
pub struct Guest {
    process: Process,
    /// Where QEMU writes its process id.
    pid_file: PathBuf,
    /// Its machine protocol, if the script started it.
    qmp: PathBuf,
    bound: Duration,
}

/// Firmware that loads a kernel from a disk.
#[derive(Clone, Copy)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

impl Firmware {
    /// As scripts call it.
    pub fn name(self) -> &'static str {
        match self {
            Firmware::Bios => "bios",
            Firmware::Uefi => "uefi",
        }
    }
}

impl ScriptGuest {
    /// A guest of the image with a script.
    pub(super) fn new(image: &Path, socket: &Path, script: &Path) -> ScriptGuest {
        let mut guest = ScriptGuest::bare(socket);
        guest.command.arg("--image-dir").arg(image).arg("--run").arg(script);
        guest
    }

    /// A guest whose firmware loads what the disk has.
    pub(super) fn of_firmware(firmware: Firmware, socket: &Path) -> ScriptGuest {
        let mut guest = ScriptGuest::bare(socket);
        guest.command.arg("--boot").arg(firmware.name());
        guest
    }

    fn bare(socket: &Path) -> ScriptGuest {
        let (pid_file, qmp) = (socket.with_extension("qemu.pid"), socket.with_extension("qmp"));
        let mut command = Command::new(root().join("scripts/qemu-guest.sh"));
        command.arg("--socket").arg(socket).arg("--qmp").arg(&qmp).arg("--type-stdin");
        ScriptGuest { command, pid_file, qmp, bound: BOUND, extra: Vec::new() }
    }

    /// An option of the script, with its value.
    pub fn option(mut self, name: &str, value: impl ToString) -> ScriptGuest {
        self.command.arg(name).arg(value.to_string());
        self
    }

    /// An option of the script that has no value.
    pub fn flag(mut self, name: &str) -> ScriptGuest {
        self.command.arg(name);
        self
    }

    /// An argument of QEMU, with its value.
    pub fn qemu(mut self, name: &str, value: &str) -> ScriptGuest {
        self.extra.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// More time than usual.
    pub fn within(mut self, bound: Duration) -> ScriptGuest {
        self.bound = bound;
        self
    }

    /// A variable for the guest's script.
    pub fn env(mut self, name: &str, value: impl ToString) -> ScriptGuest {
        self.command.arg("--env").arg(format!("{name}={}", value.to_string()));
        self
    }

    /// Puts fio into the guest.
    pub fn with_fio(self) -> ScriptGuest {
        self.flag("--with-fio")
    }

    /// So many virtual CPUs, with a request queue each.
    pub fn cpus(self, cpus: u16) -> ScriptGuest {
        self.option("--cpus", cpus)
    }

    /// Resets the machine so many times.
    pub fn reboots(self, reboots: u16) -> ScriptGuest {
        self.option("--reboots", reboots)
    }

    /// A further controller.
    pub fn and_socket(self, socket: &Path) -> ScriptGuest {
        self.qemu("-chardev", &format!("socket,id=vhost1,path={}", socket.display()))
            .qemu("-device", "vhost-user-scsi-pci,id=scsi1,chardev=vhost1,num_queues=2")
    }

    /// Starts it.
    pub fn start(mut self) -> Guest {
        let _ = fs::remove_file(&self.pid_file);
        self.command.arg("--timeout").arg((self.bound - MARGIN).as_secs().to_string());
        self.command.arg("--").args(self.extra).arg("-pidfile").arg(&self.pid_file);
        let process = Process::start("guest", &mut self.command);
        Guest { process, pid_file: self.pid_file, qmp: self.qmp, bound: self.bound }
    }

    /// Starts it, and waits until its script has succeeded.
    pub fn run(self) -> Vec<String> {
        self.start().finish()
    }
}

impl Guest {
    /// One whose QEMU was started with these paths.
    pub(super) fn started(process: Process, pid_file: PathBuf, qmp: PathBuf) -> Guest {
        Guest { process, pid_file, qmp, bound: BOUND }
    }

    /// Waits for a line of its console that starts like this; the rest of it.
    pub fn line(&mut self, start: &str) -> String {
        let line = self.process.line(start, self.bound, |line| line.starts_with(start));
        line[start.len()..].trim().to_owned()
    }

    /// Types a command for a script that does what the console says (`net.sh`), and waits until it is done. What it said.
    ///
    /// # Panics
    /// If the command fails.
    pub fn ask(&mut self, command: &str) -> Vec<String> {
        let (before, started) = (self.process.seen().len(), Instant::now());
        self.type_line(command);
        let status = self.line("DONE ");
        eprintln!("{:?} for: {command}", started.elapsed());
        assert_eq!(status, "0", "{command}");
        self.process.seen()[before..].to_vec()
    }

    /// Types a line on its console.
    pub fn type_line(&mut self, line: &str) {
        writeln!(self.process.input(), "{line}").unwrap();
    }

    /// QEMU's process id.
    pub fn qemu_pid(&self) -> i32 {
        let read = || fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok();
        until("QEMU's process id", self.bound, read)
    }

    /// QEMU's machine protocol.
    pub fn qmp(&self) -> Qmp {
        Qmp::connect(&self.qmp)
    }

    /// Kills QEMU as the kernel does when memory is short. All lines of the console until then.
    pub fn kill(self) -> Vec<String> {
        let pid = Pid::from_raw(self.qemu_pid()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        self.gone()
    }

    /// Waits until the machine is no more, however that comes about. All lines of the console.
    pub fn gone(mut self) -> Vec<String> {
        let _ = self.process.wait(self.bound);
        self.process.seen().to_vec()
    }

    /// Waits until its script has succeeded and the machine is off. All lines of the console.
    pub fn finish(mut self) -> Vec<String> {
        let status = self.process.wait(self.bound);
        let result = self.process.seen().iter().find(|line| line.starts_with("GUEST-RESULT:"));
        assert_eq!(result.map(String::as_str), Some("GUEST-RESULT: 0"), "{status}");
        assert!(status.success(), "the guest's QEMU: {status}");
        self.process.seen().to_vec()
    }
}

/// The version of QEMU, such as 10.0.2.
pub fn qemu_version() -> String {
    let output = Command::new(QEMU).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_once("version ").expect("a version").1;
    version.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap().to_owned()
}
