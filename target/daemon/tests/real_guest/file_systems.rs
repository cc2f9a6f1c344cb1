//! ext4 and xfs on disks of memory and on files: what is written stays, and what is removed and trimmed goes back to the
//! host.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::guest::{Guest, Lab, Ringside};

/// What a guest writes and removes.
const LARGE: u64 = 32 << 20;
/// What may differ from that in the host's eyes: journals, metadata, allocation by extents.
const SLACK: u64 = 6 << 20;
/// xfs wants 300 MiB at least.
const CONFIG: &str = "
    [[bdev]]\nname = 'memory'\nkind = 'malloc'\nsize = '304MiB'
    [[bdev]]\nname = 'file'\nkind = 'file'\npath = 'disk.img'\nsize = '304MiB'
    [[scsi]]\nname = 'vm0'\nsocket = 'vm0.sock'
    [[scsi.lun]]\ntarget = 0\nbdev = 'memory'
    [[scsi.lun]]\ntarget = 1\nbdev = 'file'";

/// Bytes of the host's disk that a file takes.
fn on_disk(file: &Path) -> u64 {
    fs::metadata(file).unwrap().blocks() * 512
}

/// Bytes of ordinary memory that the target holds. (What it has mapped of the guest is not its own, and not anonymous.)
fn memory(ringside: &Ringside) -> u64 {
    let status = ringside.proc("status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line about memory");
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Whether the target's memory disk is made of huge pages, which stay with it.
fn has_huge_pages(ringside: &Ringside) -> bool {
    let status = ringside.proc("status");
    let line = status.lines().find_map(|line| line.strip_prefix("HugetlbPages:")).expect("a line about huge pages");
    line.trim() != "0 kB"
}

/// What the host sees of a disk before and after its guest trims it.
fn around_trim(guest: &mut Guest, file_system: &str, disk: &str, size: impl Fn() -> u64) -> (u64, u64) {
    guest.line(&format!("FILLED {file_system} {disk}"));
    let before = size();
    guest.type_line("go on");
    let trimmed = guest.line(&format!("TRIMMED {file_system} {disk}")).parse::<u64>().unwrap();
    assert!(trimmed >= LARGE, "{file_system} on {disk}: {trimmed} bytes trimmed");
    let after = size();
    guest.type_line("go on");
    (before, after)
}

#[test]
fn real_guest_trims_ext4_and_xfs_and_the_host_gets_the_space() {
    let Some(lab) = Lab::enter("real_guest_trims_ext4_and_xfs_and_the_host_gets_the_space") else { return };
    let ringside = lab.serve(CONFIG);
    let file = lab.path("disk.img");
    let script = lab.guest("vm0", "file-system.sh").env("FILE_SYSTEMS", "ext4 xfs").env("DISKS", "0:0 1:0");
    let mut guest = script.start();
    for file_system in ["ext4", "xfs"] {
        let (before, after) = around_trim(&mut guest, file_system, "0:0", || memory(&ringside));
        if !has_huge_pages(&ringside) {
            assert!(before - after >= LARGE - SLACK, "{file_system}: {before} bytes of memory, {after} after trimming");
        }
        let (before, after) = around_trim(&mut guest, file_system, "1:0", || on_disk(&file));
        assert!(before >= LARGE, "{file_system}: the file takes {before} bytes");
        assert!(before - after >= LARGE - SLACK, "{file_system}: {before} bytes on disk, {after} after trimming");
    }
    guest.finish();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    for bdev in ["memory", "file"] {
        let unmaps = metrics.sum("ringside_bdev_requests_total", &[("bdev", bdev), ("op", "unmap")]);
        assert!(unmaps > 0.0, "{bdev}");
        assert_eq!(metrics.sum("ringside_bdev_errors_total", &[("bdev", bdev)]), 0.0, "{bdev}");
    }
    let flushes = metrics.sum("ringside_bdev_requests_total", &[("bdev", "file"), ("op", "flush")]);
    assert!(flushes > 0.0, "memory has no write cache, the file has one");
    ringside.stop();
}
