//! Pieces of the host that fail for real: a file system without room, and loop devices over a file of it. Whoever may make
//! neither is told so, loudly.

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
    /// A tmpfs of 1 MiB. `None` without the right to mount.
    pub fn full_soon(place: &TempDir) -> Option<Fixture> {
        let path = place.path().join("small");
        std::fs::create_dir(&path).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path);
        output(&mut mount).map(|_| Fixture { path, undo: ["umount", "--lazy"] })
    }

    /// A loop device over a new sparse file of this size. `None` without the right to make one.
    pub fn loop_device(backing: &Path, size: u64) -> Option<Fixture> {
        File::create(backing).and_then(|file| file.set_len(size)).expect("a file");
        let made = output(Command::new("losetup").args(["--find", "--show"]).arg(backing))?;
        Some(Fixture { path: made.trim().into(), undo: ["losetup", "--detach"] })
    }

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
    eprintln!("SKIPPED: a host that fails: {:?}: {why}", command.get_program());
    None
}
