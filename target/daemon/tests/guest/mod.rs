//! What tests with real guests share: whether guests can be run here, and the place that one test works in. Processes
//! are `process`'s, the target `ringside`'s, virtual machines `machine`'s, `direct`'s and `qmp`'s, counters `metrics`'s, and what
//! is at the other end of a guest's network card `network`'s and `transfer`'s.

mod direct;
mod machine;
mod metrics;
mod network;
mod process;
mod qmp;
mod ringside;
mod transfer;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

pub use direct::DirectGuest;
pub use machine::{Firmware, Guest, ScriptGuest, qemu_version};
pub use metrics::Metrics;
pub use network::{HOST, HOST6, Network};
pub use process::{Process, skip, until};
pub use ringside::Ringside;
pub use transfer::Data;

/// What one test works with. Of the tests in one process, one at a time has it: guests on emulated CPUs fight for the
/// cores otherwise. (`scripts/nextest.toml` does the same for tests that are processes.)
pub struct Lab {
    dir: TempDir,
    image: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Lab {
    /// For the test of that name; `None` if guests cannot be run here, which is said on standard error.
    #[must_use]
    pub fn enter(test: &str) -> Option<Lab> {
        let image = std::env::var_os("GUEST_DIR").map_or_else(|| root().join(".build/guest"), PathBuf::from);
        if let Err(reason) = guests_run_here(&image) {
            skip(test, &reason);
            return None;
        }
        // A test that failed has ended what it started.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Lab { dir: tempfile::tempdir().unwrap(), image, _turn: turn })
    }

    /// A path in a directory that goes with the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Path of a controller's socket, as the configurations of these tests have it.
    pub fn socket(&self, controller: &str) -> PathBuf {
        self.path(&format!("{controller}.sock"))
    }

    /// Starts the target; see [`Ringside::start`].
    pub fn serve(&self, config: &str) -> Ringside {
        Ringside::start(self.dir.path(), config)
    }

    /// A guest that `scripts/qemu-guest.sh` boots on the socket of `controller`, to run a script of `tests/guest`.
    pub fn guest(&self, controller: &str, script: &str) -> ScriptGuest {
        ScriptGuest::new(&self.image, &self.socket(controller), &guest_script(script))
    }

    /// Makes a disk of that name, which firmware boots the guest from to run a script of `tests/guest`.
    pub fn boot_disk(&self, name: &str, script: &str, env: &[(&str, &str)]) -> PathBuf {
        let disk = self.path(name);
        let mut command = Command::new(root().join("scripts/guest/boot-disk.sh"));
        command.arg("--image-dir").arg(&self.image).arg("--run").arg(guest_script(script)).arg("--timeout").arg("80");
        for (key, value) in env {
            command.arg("--env").arg(format!("{key}={value}"));
        }
        let output = command.arg(&disk).output().unwrap();
        assert!(output.status.success(), "boot-disk.sh: {}", String::from_utf8_lossy(&output.stderr));
        disk
    }

    /// A guest that firmware boots from the disk of `controller`.
    pub fn firmware_guest(&self, firmware: Firmware, controller: &str) -> ScriptGuest {
        ScriptGuest::of_firmware(firmware, &self.socket(controller))
    }

    /// A file of the guest's image.
    pub fn image(&self, name: &str) -> PathBuf {
        self.image.join(name)
    }

    /// A guest whose QEMU is started with `arguments` as a shell reads them, and not by our script.
    pub fn direct(&self, arguments: &str, script: &str) -> DirectGuest {
        DirectGuest::new(self.dir.path(), &self.image, arguments, &guest_script(script))
    }

    /// Boots such a guest.
    pub fn boot(&self, arguments: &str, script: &str) -> Guest {
        self.direct(arguments, script).start()
    }
}

/// Cores that pollers of these tests may use: at most two of those that this process may run on.
pub fn cores() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).take(2).collect()
}

/// The project's root directory.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn guest_script(name: &str) -> PathBuf {
    root().join("tests/guest").join(name)
}

fn guests_run_here(image: &Path) -> Result<(), String> {
    if std::env::var_os("REAL_GUESTS").is_some_and(|value| value == "off") {
        return Err("REAL_GUESTS=off".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder.join(machine::QEMU).exists()) {
        return Err(format!("no {} (scripts/setup.sh --only guest)", machine::QEMU));
    }
    for file in ["kernel/vmlinuz", "base.cpio", "fio.cpio"] {
        if !image.join(file).exists() {
            return Err(format!("no {file} in {0} (scripts/guest/build.sh --with-fio {0})", image.display()));
        }
    }
    Ok(())
}
