//! Different machines: kernels, and what guest memory is made of.

use std::fs;

use crate::guest::{Lab, ScriptGuest, skip};
use crate::one_disk;

/// A kernel of that series finds its disk, keeps files on it, and verifies random I/O.
fn on_linux(test: &str, series: &str) {
    let Some(lab) = Lab::enter(test) else { return };
    if !lab.image(&format!("kernels/{series}/vmlinuz")).exists() {
        return skip(test, &format!("apt knows no Linux {series} for the guest's image"));
    }
    let ringside = lab.serve(&one_disk("queues = 2"));
    let guest = lab.guest("vm0", "disk.sh").option("--kernel", series).env("KERNEL", series);
    let console = guest.env("SIZE_BYTES", 192 << 20).env("SERIAL", "REAL-GUEST-1").run();
    assert!(console.contains(&format!("kernel: {series}")));
    lab.guest("vm0", "fio-verify.sh").option("--kernel", series).with_fio().env("JOBS", 2).env("JOB_MIB", 12).run();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    assert_eq!(metrics.sum("ringside_scsi_refused_total", &[]), 0.0);
    assert_eq!(metrics.sum("ringside_sessions_total", &[]), 2.0);
    let written = metrics.sum("ringside_scsi_bytes_total", &[("op", "write")]);
    assert!(written >= f64::from(6 << 20), "{written} bytes were written");
    ringside.stop();
}

#[test]
fn real_guest_with_linux_6_1_keeps_its_data() {
    on_linux("real_guest_with_linux_6_1_keeps_its_data", "6.1");
}

#[test]
fn real_guest_with_linux_6_12_keeps_its_data() {
    on_linux("real_guest_with_linux_6_12_keeps_its_data", "6.12");
}

/// A guest whose memory is a file like `backing` (as /proc names it) of pages of so many KiB: the target has it mapped,
/// with the same pages, and what the guest writes it reads.
fn in_memory_of(test: &str, page_kib: usize, backing: &str, memory: impl FnOnce(ScriptGuest) -> ScriptGuest) {
    let Some(lab) = Lab::enter(test) else { return };
    let free = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or_default();
    if page_kib > 4 && free.trim().parse::<u32>().unwrap_or(0) < 128 {
        return skip(test, "fewer than 128 free huge pages (scripts/setup.sh --only hugepages)");
    }
    let ringside = lab.serve(&one_disk("").replace("'malloc'", "'file'\npath = 'disk.img'"));
    let mut guest = memory(lab.guest("vm0", "held.sh").option("--memory", "256M")).start();
    guest.line("HELD");
    let smaps = ringside.proc("smaps");
    let mapping = smaps.split_once(backing).unwrap_or_else(|| panic!("no mapping of {backing}")).1;
    let pages = mapping.lines().find_map(|line| line.strip_prefix("KernelPageSize:")).unwrap();
    assert_eq!(pages.split_whitespace().next(), Some(page_kib.to_string().as_str()), "pages of the guest's memory");
    guest.type_line("stop");
    guest.finish();
    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    for op in ["read", "write"] {
        let bytes = metrics.sum("ringside_scsi_bytes_total", &[("op", op)]);
        assert!(bytes >= f64::from(8 << 20), "{op}: {bytes} bytes");
    }
    ringside.stop();
}

#[test]
fn real_guest_in_a_memfd_keeps_its_data() {
    in_memory_of("real_guest_in_a_memfd_keeps_its_data", 4, "/memfd:memory-backend-memfd", |guest| guest);
}

#[test]
fn real_guest_in_a_memfd_of_huge_pages_keeps_its_data() {
    let test = "real_guest_in_a_memfd_of_huge_pages_keeps_its_data";
    in_memory_of(test, 2048, "/memfd:memory-backend-memfd", |guest| guest.flag("--hugepages"));
}

#[test]
fn real_guest_in_a_file_of_huge_pages_keeps_its_data() {
    let test = "real_guest_in_a_file_of_huge_pages_keeps_its_data";
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let Some(folder) = mounts.lines().find(|line| line.contains(" hugetlbfs ")).and_then(|line| line.split(' ').nth(1))
    else {
        return skip(test, "no hugetlbfs is mounted (scripts/setup.sh --only hugepages)");
    };
    in_memory_of(test, 2048, &format!("{folder}/"), |guest| guest.option("--memory-path", folder));
}
