//! Virtual machines whose QEMU is started with arguments as a shell reads them (those that `ringside qemu-args` prints), and
//! not by `scripts/qemu-guest.sh`. What runs in the guest, and what a running guest is asked, is not in here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::{BOUND, Guest, MARGIN, QEMU};
use super::process::Process;
use super::root;

/// A machine that is about to be started.
pub struct DirectGuest {
    dir: PathBuf,
    image: PathBuf,
    arguments: String,
    script: PathBuf,
    kernel: &'static str,
    archives: Vec<&'static str>,
    parameters: String,
    cpus: u16,
    boots: u16,
}

impl DirectGuest {
    /// A machine of the image with these arguments and this script; `dir` is the tests' own, `name` unique in it.
    pub(super) fn new(dir: &Path, image: &Path, arguments: &str, script: &Path) -> DirectGuest {
        DirectGuest {
            dir: dir.to_owned(),
            image: image.to_owned(),
            arguments: arguments.trim_end().to_owned(),
            script: script.to_owned(),
            kernel: "kernel",
            archives: Vec::new(),
            parameters: String::new(),
            cpus: 2,
            boots: 1,
        }
    }

    /// A variable for the guest's script.
    pub fn env(mut self, name: &str, value: impl ToString) -> DirectGuest {
        self.parameters += &format!("{name}='{}'\n", value.to_string());
        self
    }

    /// Puts iperf3 and ethtool into the guest.
    pub fn with_net(mut self) -> DirectGuest {
        self.archives.push("net.cpio");
        self
    }

    /// Another kernel: a folder of the image, such as `kernels/6.12`.
    pub fn kernel(mut self, folder: &'static str) -> DirectGuest {
        self.kernel = folder;
        self
    }

    /// How often it may boot: by resets beyond the first.
    pub fn boots(mut self, boots: u16) -> DirectGuest {
        self.boots = boots;
        self
    }

    /// Starts it.
    pub fn start(self) -> Guest {
        // A file that says who it belongs to: tests have several machines in one directory.
        let files = tempfile::tempdir_in(&self.dir).unwrap().keep();
        let (initrd, pid_file, qmp) = (files.join("initrd"), files.join("qemu.pid"), files.join("qmp"));
        self.make_initrd(&files, &initrd);
        let no_reboot = if self.boots > 1 { "" } else { "-no-reboot" };
        let line = format!(
            ". \"$LIB\"; exec {QEMU} {} -accel tcg,thread=multi -cpu max,la57=off -smp {} -machine q35,usb=off,sata=off,smbus=off \
             -nodefaults -no-user-config -nographic {no_reboot} -serial stdio -pidfile \"$PID_FILE\" \
             -qmp \"unix:$QMP,server=on,wait=off\" {} -initrd \"$INITRD\" \
             -append \"$KERNEL_ARGS quiet\"",
            self.arguments,
            self.cpus,
            self.boot_arguments(),
        );
        let mut command = Command::new("bash");
        command.args(["-c", &line]).current_dir(&self.dir).env("INITRD", &initrd);
        command.env("LIB", root().join("scripts/lib/guest.sh"));
        command.env("PID_FILE", &pid_file).env("QMP", &qmp).env("KERNEL", self.image.join(self.kernel));
        let process = Process::start("guest", &mut command);
        Guest::started(process, pid_file, qmp)
    }

    /// The kernel: entered by PVH where there is one that can be, which is quicker.
    fn boot_arguments(&self) -> &'static str {
        if self.image.join(self.kernel).join("vmlinux").exists() && has_qboot() {
            "-bios qboot.rom -kernel \"$KERNEL/vmlinux\""
        } else {
            "-kernel \"$KERNEL/vmlinuz\""
        }
    }

    /// The image's files and, in an archive of its own, the script and its parameters.
    fn make_initrd(&self, files: &Path, initrd: &Path) {
        fs::copy(&self.script, files.join("run.sh")).unwrap();
        let own = format!("GUEST_TIMEOUT={}\nGUEST_BOOTS={}\n", (BOUND - MARGIN).as_secs(), self.boots);
        fs::write(files.join("params"), own + &self.parameters).unwrap();
        let archives = format!(
            "(cat base.cpio {}/modules.cpio {}; cd \"$FILES\"; ls run.sh params | cpio --quiet -o -H newc -R 0:0)",
            self.kernel,
            self.archives.join(" "),
        );
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{archives} >\"$INITRD\"")]).current_dir(&self.image).env("FILES", files);
        let status = command.env("INITRD", initrd).status().unwrap();
        assert!(status.success(), "cpio: {status}");
    }
}

/// Whether QEMU's package brought the minimal firmware that enters an ELF kernel by PVH.
fn has_qboot() -> bool {
    let output = Command::new(QEMU).args(["-L", "help"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().any(|folder| Path::new(folder).join("qboot.rom").exists())
}
