//! The command line of the built program: exit status, and which stream gets what. The texts themselves are tested
//! beside the modules that make them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use ringside::config::Config;
use tempfile::TempDir;

fn ringside(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringside")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A configuration file in a directory of its own.
fn file(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringside.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

const GOOD: &str = "\
[[bdev]]
name = 'disk0'
kind = 'malloc'
size = '1MiB'
[[scsi]]
name = 'vm0'
socket = 'no-such-directory/vm0.sock'
cmd_per_lun = 8
[[scsi.lun]]
bdev = 'disk0'
";

#[test]
fn check_of_a_good_file_prints_what_reads_back_and_exits_0() {
    let (_dir, path) = file(GOOD);
    let output = ringside(&["check", "--no-host", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    assert_eq!(Config::parse(stdout(&output), "stdout").unwrap(), Config::load(&path).unwrap());
    assert!(stdout(&output).contains("# note: scsi[0].cmd_per_lun = 8: below"), "{}", stdout(&output));
}

#[test]
fn check_of_a_bad_file_tells_standard_error_and_exits_2() {
    let (_dir, path) = file("[reactor]\ncores = []\ncolour = 'red'\n");
    let output = ringside(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    let expected = format!(
        "{0}:2: reactor.cores = []: must not be empty\n{0}:3: reactor.colour: unknown key; known here: cores, idle\n",
        path.display()
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn check_of_a_missing_file_names_it_and_exits_2() {
    let output = ringside(&["check", "--config", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), "/no/such/file: No such file or directory (os error 2)\n");
}

#[test]
fn check_of_a_core_that_is_not_allowed_names_the_key_and_exits_2() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let outside = (0..rustix::thread::CpuSet::MAX_CPU).find(|core| !allowed.is_set(*core)).unwrap();
    let (_dir, path) = file(&format!("[reactor]\ncores = [{outside}]\n"));
    let output = ringside(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let start = format!("reactor.cores[0] = {outside}: this process may only use cores ");
    assert!(stderr(&output).starts_with(&start), "{output:?}");
    assert_eq!(ringside(&["check", "--no-host", "--config", path.to_str().unwrap()]).status.code(), Some(0));
}

#[test]
fn check_without_a_file_prints_the_embedded_configuration() {
    let output = ringside(&["check", "--no-host", "--run-dir", "/run/x"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(Config::parse(stdout(&output), "stdout").unwrap(), Config::embedded("/run/x").unwrap());
}

#[test]
fn qemu_args_without_a_terminal_are_one_line() {
    let (_dir, path) = file(GOOD);
    let output = ringside(&["qemu-args", "--config", path.to_str().unwrap(), "vm0", "--memory", "512M"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "-m 512M -object memory-backend-memfd,id=mem,size=512M,share=on -machine memory-backend=mem \
         -chardev socket,id=vhost-vm0,path=no-such-directory/vm0.sock \
         -device vhost-user-scsi-pci,id=scsi-vm0,chardev=vhost-vm0,num_queues=4,virtqueue_size=1024,cmd_per_lun=8,\
         max_sectors=65535\n"
    );
}

#[test]
fn qemu_args_of_an_unknown_controller_name_the_known_ones_and_exit_2() {
    let (_dir, path) = file(GOOD);
    let output = ringside(&["qemu-args", "--config", path.to_str().unwrap(), "vm1"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!((stdout(&output), stderr(&output)), ("", "no controller or net device \"vm1\"; known: vm0\n"));
}

#[test]
fn qemu_args_with_memory_that_is_no_whole_mib_exit_2() {
    for (memory, reason) in [
        ("1000", "must be a whole number of MiB, at least one"),
        ("0", "must be a whole number of MiB, at least one"),
        ("much", "must be a whole number with or without a unit"),
    ] {
        let output = ringside(&["qemu-args", "vm0", "--memory", memory]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[test]
fn arguments_that_exclude_each_other_exit_2() {
    let output = ringside(&["check", "--config", "f", "--run-dir", "d"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot be used with"), "{}", stderr(&output));
}
