//! Programs that the tests of this folder run, where they are, and what it means that one is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::process::skip;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A file of `dashboards/`.
pub fn dashboards(name: &str) -> PathBuf {
    root().join("dashboards").join(name)
}

/// Files in a folder of `dashboards/` with that ending, in the order of their names.
///
/// # Panics
/// If there is none.
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dashboards(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|has| has == ending)).collect();
    files.sort();
    assert!(!files.is_empty(), "no .{ending} in {folder:?}");
    files
}

/// Whether these programs are there; if not, the test of that name is skipped, which is said on standard error.
pub fn has(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing =
        programs.iter().find(|program| !std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    if let Some(program) = missing {
        skip(test, &format!("no {program} (scripts/setup.sh --only dashboards)"));
    }
    missing.is_none()
}

/// Python with Grafana's types, to run this script of `dashboards/`; `None` if there is none, and the test is skipped.
pub fn python(test: &str, script: &str) -> Option<Command> {
    let program = root().join(".build/dashboards/bin/python");
    if !program.exists() {
        skip(test, "no .build/dashboards (scripts/setup.sh --only dashboards)");
        return None;
    }
    let mut command = Command::new(program);
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(dashboards(script));
    Some(command)
}

/// `promtool` with these arguments, in `dashboards/`.
pub fn promtool(arguments: &[&str], files: &[PathBuf]) -> Output {
    Command::new("promtool").args(arguments).args(files).current_dir(dashboards("")).output().unwrap()
}

/// What a program said, if it ended well.
///
/// # Panics
/// If it did not, with all that it said.
pub fn succeeded(output: &Output) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}
