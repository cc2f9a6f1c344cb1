//! Pieces of the host that need its permission: a file system with little room, and block devices over a file. Whoever
//! may not make one is told so, loudly, and skips.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use tempfile::TempDir;

/// A mounted file system of a bounded size, or a loop device; gone when it is dropped.
pub struct Fixture {
    path: PathBuf,
    undo: [&'static str; 2],
}

impl Fixture {
    /// A tmpfs of 1 MiB, mounted in a directory. `None` without the right to mount.
    ///
    /// # Panics
    /// If the directory cannot be written to.
    #[must_use]
    pub fn small_tmpfs(place: &TempDir) -> Option<Fixture> {
        let path = place.path().join("small");
        std::fs::create_dir(&path).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path);
        output(&mut mount).map(|_| Fixture { path, undo: ["umount", "--lazy"] })
    }

    /// A loop device with blocks of this many bytes, over a new sparse file. `None` without the right to make one.
    ///
    /// # Panics
    /// If the file cannot be made.
    #[must_use]
    pub fn loop_device(backing: &Path, size: u64, block_size: u32) -> Option<Fixture> {
        File::create(backing).and_then(|file| file.set_len(size)).expect("a file");
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show", "--sector-size", &block_size.to_string()]).arg(backing);
        let made = output(&mut losetup)?;
        Some(Fixture { path: made.trim().into(), undo: ["losetup", "--detach"] })
    }

    /// The mount point, or the device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let [command, argument] = self.undo;
        let undone = Command::new(command).arg(argument).arg(&self.path).status();
        assert!(thread::panicking() || undone.is_ok_and(|status| status.success()), "{:?} stays", self.path);
    }
}

fn output(command: &mut Command) -> Option<String> {
    let why = match command.output() {
        Ok(output) if output.status.success() => return Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("SKIPPED: {:?}: {why}", command.get_program());
    None
}
