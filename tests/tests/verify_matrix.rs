//! `ringside bench scsi --verify` over every kind of block device, at both block sizes: a target as a configuration makes
//! it, the load generator as the command line makes it, and every block looked at. Runs are by number of commands, so
//! they are the same on every machine.

use std::os::fd::AsFd;
use std::path::Path;

use bench::scsi::{Args, Outcome, measure};
use clap::Parser;
use rustix::event::{EventfdFlags, eventfd};
use tempfile::TempDir;
use tests::live::host::Fixture;
use tests::live::rig::cores;
use tests::live::running::Running;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// Block devices of a configuration; each of them is a LUN, numbered in order.
struct Disks(Vec<String>);

/// A target with those disks.
struct Rig {
    running: Running,
    luns: Vec<(usize, String)>,
}

/// What is run on each disk: small and large, in order and not, and pieces that lie across pages.
const LOADS: [&str; 9] = [
    "--rw randrw --bs 4k --number-ios 150",
    "--rw randwrite --bs 64k --qd 16 --number-ios 24",
    "--rw write --bs 1m --qd 2 --number-ios 3",
    "--rw randrw --bs 20k --qd 40 --number-ios 80",
    "--rw randread --bs 128k --qd 4 --size 512k --number-ios 20",
    "--rw randrw --bs 4k --ring packed --number-ios 150",
    "--rw randrw --bs 20k --qd 40 --ring packed --indirect --number-ios 80",
    "--rw randrw --bs 4k --in-order --number-ios 150",
    "--rw randrw --bs 4k --in-order --ring packed --number-ios 150",
];
/// The same, of blocks that are no whole pages.
const SMALL_LOADS: [&str; 2] =
    ["--rw randrw --bs 512 --number-ios 150", "--rw randrw --bs 3584 --queues 3 --number-ios 150"];

impl Disks {
    fn new() -> Disks {
        Disks(Vec::new())
    }

    /// One disk more, with blocks of this size.
    fn with(mut self, block_size: u32, keys: &str) -> Disks {
        let size = if keys.contains("base =") { String::new() } else { format!("block_size = {block_size}\n") };
        self.0.push(format!("{size}{keys}"));
        self
    }

    /// `None` where there is no core for a poller.
    fn serve(self) -> Option<Rig> {
        let pollers = cores(1)?;
        let disks = self.0.iter().enumerate();
        let bdevs: String = disks.clone().map(|(n, keys)| format!("[[bdev]]\nname = 'disk{n}'\n{keys}\n")).collect();
        let is_disk = |(_, keys): &(usize, &String)| !keys.contains("# no disk of its own");
        let numbers: Vec<usize> = disks.filter(is_disk).map(|(n, _)| n).collect();
        let luns: String = numbers.iter().map(|n| format!("[[scsi.lun]]\nlun = {n}\nbdev = 'disk{n}'\n")).collect();
        let running = Running::start(|dir| {
            let dir = dir.display();
            format!(
                "[metrics]\nlisten = '127.0.0.1:0'\n[reactor]\ncores = {pollers:?}\n{bdevs}\
                 [[scsi]]\nname = 'vm0'\nsocket = '{dir}/vm0.sock'\nqueues = 4\nin_order = true\npollers = {pollers:?}\n{luns}"
            )
        });
        let luns = numbers.into_iter().map(|n| (n, self.0[n].clone())).collect();
        Some(Rig { running, luns })
    }
}

impl Rig {
    fn run(&self, lun: usize, line: &str) -> Outcome {
        let socket = self.running.path("vm0.sock");
        let words = ["bench", "--verify", "--json", "--time", "600", "--queue-size", "256", "--seed", "7", "--socket"];
        let lun = ["--lun".to_owned(), lun.to_string()];
        let words = words.into_iter().chain(socket.to_str()).chain(lun.iter().map(String::as_str));
        let line = Line::try_parse_from(words.chain(line.split_whitespace())).expect("a command line");
        let never = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
        measure(&line.args, never.as_fd()).unwrap_or_else(|error| panic!("{line:?}: {error:#}"))
    }

    /// Every load on every disk finds every block as it was written.
    fn verify(&self) {
        for (lun, keys) in &self.luns {
            let small = if keys.contains("block_size = 512") { &SMALL_LOADS[..] } else { &[] };
            for load in LOADS.iter().chain(small) {
                let outcome = self.run(*lun, load);
                assert!(outcome.passed(), "{load} on\n{keys}\n{outcome}\n{:?}", outcome.failure);
                assert!(outcome.verified_blocks > 0, "{load} on\n{keys}");
            }
        }
    }
}

/// A new file for every way to serve one.
fn files(place: &Path) -> Disks {
    let mut disks = Disks::new();
    for block_size in [512, 4096] {
        for direct in [true, false] {
            for cache in ["writeback", "writethrough", "none"] {
                if cache == "none" && !direct {
                    continue; // the same as with it
                }
                let path = place.join(format!("{block_size}-{direct}-{cache}"));
                disks = disks.with(
                    block_size,
                    &format!(
                        "kind = 'file'\npath = '{}'\nsize = '8MiB'\ndirect = {direct}\ncache = '{cache}'",
                        path.display()
                    ),
                );
            }
        }
    }
    disks
}

#[test]
fn verified_loads_pass_on_memory() {
    let mut disks = Disks::new();
    for block_size in [512, 4096] {
        let memory = "kind = 'malloc'\nsize = '8MiB'";
        disks = disks.with(block_size, &format!("{memory}\nin_order = true"));
        disks = disks.with(block_size, memory).with(block_size, &format!("{memory} # no disk of its own"));
        let base = disks.0.len() - 1;
        disks = disks.with(block_size, &format!("kind = 'delay'\nbase = 'disk{base}'\nlatency_us = 50\np99_us = 300"));
        disks = disks.with(block_size, &format!("{memory} # no disk of its own"));
        let base = disks.0.len() - 1;
        let fail = "every 4000000000 writes with lost";
        disks = disks.with(block_size, &format!("kind = 'error'\nbase = 'disk{base}'\nfail = '{fail}'"));
    }
    let Some(rig) = disks.serve() else { return };
    assert_eq!(rig.luns.len(), 8);
    rig.verify();
}

#[test]
fn verified_loads_pass_on_files_on_the_disk() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(rig) = files(place.path()).serve() else { return };
    assert_eq!(rig.luns.len(), 10);
    rig.verify();
}

#[test]
fn verified_loads_pass_on_files_in_memory() {
    let Ok(place) = tempfile::tempdir_in("/dev/shm") else { return eprintln!("SKIPPED: tmpfs: no /dev/shm") };
    let Some(rig) = files(place.path()).serve() else { return };
    rig.verify();
}

#[test]
fn verified_loads_pass_on_block_devices() {
    let place = TempDir::new().unwrap();
    let mut disks = Disks::new();
    let mut devices = Vec::new();
    for (device_block, block_size) in [(512, 512), (512, 4096), (4096, 4096), (4096, 512)] {
        for direct in [true, false] {
            let backing = place.path().join(format!("{device_block}-{block_size}-{direct}"));
            let Some(device) = Fixture::loop_device(&backing, 8 << 20, device_block) else { return };
            let path = device.path().display();
            disks = disks.with(block_size, &format!("kind = 'file'\npath = '{path}'\ndirect = {direct}"));
            devices.push(device);
        }
    }
    let Some(rig) = disks.serve() else { return };
    rig.verify();
    drop((rig, devices));
}

/// What would be found if blocks were wrong is found.
#[test]
fn verified_loads_find_what_a_device_gets_wrong() {
    let place = TempDir::new().unwrap();
    let file = format!("kind = 'file'\npath = '{}'\nsize = '8MiB'", place.path().join("f").display());
    for fail in ["every 50 writes with lost", "every 50 reads with corruption"] {
        let disks = Disks::new()
            .with(512, &format!("{file} # no disk of its own"))
            .with(512, &format!("kind = 'error'\nbase = 'disk0'\nfail = '{fail}'"));
        let Some(rig) = disks.serve() else { return };
        let outcome = rig.run(1, "--rw write --bs 4k --number-ios 200");
        assert!(!outcome.passed() && outcome.mismatched_blocks > 0 && outcome.failure.is_none(), "{fail}\n{outcome}");
    }
}

#[test]
fn verified_loads_on_a_null_device_say_that_there_is_nothing_to_verify() {
    let Some(rig) = Disks::new().with(512, "kind = 'null'\nsize = '8MiB'").serve() else { return };
    for load in ["--rw randrw --bs 4k --number-ios 100", "--rw randread --bs 64k --number-ios 100"] {
        let outcome = rig.run(0, load);
        assert!(!outcome.passed());
        assert_eq!((outcome.errors, outcome.mismatched_blocks), (0, 0));
        let failure = outcome.failure.expect("a reason");
        assert!(failure.contains("the LUN keeps no data (a null bdev?), there is nothing to verify"), "{failure}");
    }
}
