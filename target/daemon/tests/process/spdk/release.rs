//! Which SPDK the program was built with, and what that one cannot do: tests leave it out, and say so. The tests in a guest use
//! this file, too.

use std::io::Write;
use std::process::Command;

/// Year and month: "24.09".
fn release() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ringside")).arg("--version").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let spdk = said.lines().find_map(|line| line.strip_prefix("SPDK v"));
    spdk.unwrap_or_else(|| panic!("no SPDK in {said:?}")).to_owned()
}

/// Before, SPDK takes memory in whole huge pages, which front-ends of tests do not have: it is copied, with a word in the log.
pub fn takes_small_memory() -> bool {
    *release() >= *"25.09"
}

/// Before, clients of newer releases ask for the configuration with a parameter that SPDK refuses.
pub fn saves_for_newer_clients() -> bool {
    since("26.05", "save_config of a newer spdk-rpc (SPDK_RPC may name SPDK's own)")
}

fn since(first: &str, what: &str) -> bool {
    let release = release();
    let has = *release >= *first;
    if !has {
        // Not by `eprintln!`: the test harness would keep the line to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: SPDK {release} is older than {first}");
    }
    has
}

/// The kind of a bdev over a file, whose test is that of `uring`. Before, that module looks for the file among block devices, to see
/// whether it has zones, and does not take it.
pub fn uring_or_aio() -> &'static str {
    if since("25.09", "uring bdevs over files") { "uring" } else { "aio" }
}

/// Before, the error bdev has one failure, which has no NVMe status of its own.
pub fn errors_have_a_status() -> bool {
    since("26.05", "NVMe statuses of the error bdev")
}
