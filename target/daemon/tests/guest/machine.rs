//! Virtual machines: the ones that `scripts/qemu-guest.sh` starts, and one that is started by hand. What runs in a guest
//! is in `tests/guest`; how it boots and what it says is in `scripts/guest/init`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::process::{Process, until};
use super::root;

/// The program.
pub const QEMU: &str = "qemu-system-x86_64";
/// How long a guest may take from start to end, unless a test says otherwise. The script's own deadline is earlier.
const BOUND: Duration = Duration::from_secs(100);
/// How long before `BOUND` the guest or the script that runs it is to give up, and to say why.
const MARGIN: Duration = Duration::from_secs(20);

/// A guest that is about to be started by `scripts/qemu-guest.sh`.
pub struct ScriptGuest {
    command: Command,
    pid_file: PathBuf,
    extra: Vec<String>,
}

/// A running guest. Ended when dropped.
pub struct Guest {
    process: Process,
    /// Where QEMU writes its process id.
    pid_file: PathBuf,
}

impl ScriptGuest {
    pub(super) fn new(image: &Path, socket: &Path, script: &Path) -> ScriptGuest {
        let mut command = Command::new(root().join("scripts/qemu-guest.sh"));
        command.arg("--image-dir").arg(image).arg("--socket").arg(socket).arg("--run").arg(script);
        command.arg("--timeout").arg((BOUND - MARGIN).as_secs().to_string());
        ScriptGuest { command, pid_file: socket.with_extension("qemu.pid"), extra: Vec::new() }
    }

    /// A variable for the guest's script.
    pub fn env(mut self, name: &str, value: impl ToString) -> ScriptGuest {
        self.command.arg("--env").arg(format!("{name}={}", value.to_string()));
        self
    }

    /// Puts fio into the guest.
    pub fn with_fio(mut self) -> ScriptGuest {
        self.command.arg("--with-fio");
        self
    }

    /// So many virtual CPUs, with a request queue each.
    pub fn cpus(mut self, cpus: u16) -> ScriptGuest {
        self.command.arg("--cpus").arg(cpus.to_string());
        self
    }

    /// Resets the machine so many times.
    pub fn reboots(mut self, reboots: u16) -> ScriptGuest {
        self.command.arg("--reboots").arg(reboots.to_string());
        self
    }

    /// A further controller.
    pub fn and_socket(mut self, socket: &Path) -> ScriptGuest {
        self.extra.extend([
            "-chardev".to_owned(),
            format!("socket,id=vhost1,path={}", socket.display()),
            "-device".to_owned(),
            "vhost-user-scsi-pci,id=scsi1,chardev=vhost1,num_queues=2".to_owned(),
        ]);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Guest {
        let _ = fs::remove_file(&self.pid_file);
        self.command.arg("--").args(self.extra).arg("-pidfile").arg(&self.pid_file);
        Guest { process: Process::start("guest", &mut self.command), pid_file: self.pid_file }
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
        command.args(["-c", &line]).current_dir(dir).env("KERNEL", image.join("vmlinuz"));
        command.env("INITRD", &initrd).env("PID_FILE", &pid_file);
        Guest { process: Process::start("guest", &mut command), pid_file }
    }

    /// Waits for a line of its console that starts like this; the rest of it.
    pub fn line(&mut self, start: &str) -> String {
        let line = self.process.line(start, BOUND, |line| line.starts_with(start));
        line[start.len()..].trim().to_owned()
    }

    /// Types a line on its console. For guests started by [`Guest::boot`].
    pub fn type_line(&mut self, line: &str) {
        writeln!(self.process.input(), "{line}").unwrap();
    }

    /// Kills QEMU as the kernel does when memory is short. All lines of the console until then.
    pub fn kill(mut self) -> Vec<String> {
        let read = || fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok();
        let pid: i32 = until("QEMU's process id", BOUND, read);
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let _ = self.process.wait(BOUND);
        self.process.seen().to_vec()
    }

    /// Waits until its script has succeeded and the machine is off. All lines of the console.
    pub fn finish(mut self) -> Vec<String> {
        let status = self.process.wait(BOUND);
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
    fs::copy(image.join("base.cpio"), initrd).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ls run.sh params | cpio --quiet -o -H newc -R 0:0 >>\"$INITRD\""]);
    let status = command.current_dir(&files).env("INITRD", initrd).status().unwrap();
    assert!(status.success(), "cpio: {status}");
}

/// The version of QEMU, such as 10.0.2.
pub fn qemu_version() -> String {
    let output = Command::new(QEMU).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_once("version ").expect("a version").1;
    version.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap().to_owned()
}
