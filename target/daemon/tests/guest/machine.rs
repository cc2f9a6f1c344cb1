//! Virtual machines: the ones that `scripts/qemu-guest.sh` starts, and one that is started by hand. What runs in a guest
//! is in `tests/guest`; how it boots and what it says is in `scripts/guest/init`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::process::{Process, until};
use super::qmp::Qmp;
use super::root;

/// The program.
pub const QEMU: &str = "qemu-system-x86_64";
/// How long a guest may take from start to end, unless a test says otherwise. The script's own deadline is earlier.
const BOUND: Duration = Duration::from_secs(100);
/// How long before its bound the guest or the script that runs it is to give up, and to say why.
const MARGIN: Duration = Duration::from_secs(20);

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
    /// Starts QEMU by a shell, with `arguments` as they are and those that a quick boot of the image takes.
    pub(super) fn boot(dir: &Path, image: &Path, arguments: &str, script: &Path) -> Guest {
        let (initrd, pid_file) = (dir.join("initrd"), dir.join("qemu.pid"));
        make_initrd(dir, image, script, &initrd);
        let line = format!(
            "exec {QEMU} {} -accel tcg,thread=multi -cpu max,la57=off -smp 2 -machine q35,usb=off -nodefaults \
             -no-user-config -nographic -no-reboot -serial stdio -pidfile \"$PID_FILE\" \
             -kernel \"$KERNEL\" -initrd \"$INITRD\" -append 'console=ttyS0 panic=-1 quiet nokaslr mitigations=off'",
            arguments.trim_end(),
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]).current_dir(dir).env("KERNEL", image.join("kernel/vmlinuz"));
        command.env("INITRD", &initrd).env("PID_FILE", &pid_file);
        let process = Process::start("guest", &mut command);
        Guest { process, pid_file, qmp: PathBuf::new(), bound: BOUND }
    }

    /// Waits for a line of its console that starts like this; the rest of it.
    pub fn line(&mut self, start: &str) -> String {
        let line = self.process.line(start, self.bound, |line| line.starts_with(start));
        line[start.len()..].trim().to_owned()
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

/// The image's files and, in an archive of its own, the script and its parameters.
fn make_initrd(dir: &Path, image: &Path, script: &Path, initrd: &Path) {
    let files = dir.join("initrd.files");
    fs::create_dir_all(&files).unwrap();
    fs::copy(script, files.join("run.sh")).unwrap();
    fs::write(files.join("params"), format!("GUEST_TIMEOUT={}\n", (BOUND - MARGIN).as_secs())).unwrap();
    let mut command = Command::new("sh");
    let archives =
        "(cat base.cpio kernel/modules.cpio; cd \"$FILES\"; ls run.sh params | cpio --quiet -o -H newc -R 0:0)";
    command.args(["-c", &format!("{archives} >\"$INITRD\"")]).current_dir(image).env("FILES", &files);
    let status = command.env("INITRD", initrd).status().unwrap();
    assert!(status.success(), "cpio: {status}");
}

/// The version of QEMU, such as 10.0.2.
pub fn qemu_version() -> String {
    let output = Command::new(QEMU).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_once("version ").expect("a version").1;
    version.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap().to_owned()
}
