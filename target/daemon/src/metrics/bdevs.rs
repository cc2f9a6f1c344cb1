//! The families of block devices: what each did, whoever uses it, and what files say of themselves.

use bdev::{Bdev, OpKind};
use bdev_file::FileCounts;

use super::families::{Families, Family, Kind};
use crate::bdevs::Device;
use crate::spdk::{Counts, Spdk};

pub(super) fn collect(devices: &[Device], families: &mut Families) {
    describe(devices, families);
    count(devices, families);
    files(devices, families);
    spdk(devices, families);
}

/// Memory of front-ends, as far as SPDK knows it; nothing where there is no SPDK.
pub(super) fn spdk_memory(spdk: &Spdk, families: &mut Families) {
    let Some(memory) = spdk.memory() else { return };
    let mut family = Family::new(
        "ringside_spdk_guest_memory_bytes",
        "Memory of front-ends: mapped, and registered with SPDK, whose devices reach that without a copy.",
        Kind::Gauge,
    );
    family.sample(&[("state", "mapped")], memory.mapped as f64);
    family.sample(&[("state", "registered")], memory.registered as f64);
    families.add(family);
}

fn describe(devices: &[Device], families: &mut Families) {
    let mut kinds = Family::new("ringside_bdev_info", "1, with the kind of a block device.", Kind::Gauge);
    let mut size = Family::new("ringside_bdev_size_bytes", "Size of a block device.", Kind::Gauge);
    for device in devices {
        let info = device.bdev.info();
        kinds.sample(&[("bdev", &info.name), ("kind", info.kind)], 1.0);
        let bytes = device.bdev.block_count().saturating_mul(u64::from(info.block_size));
        size.sample(&[("bdev", &info.name)], bytes as f64);
    }
    families.extend([kinds, size]);
}

fn count(devices: &[Device], families: &mut Families) {
    let mut requests =
        Family::new("ringside_bdev_requests_total", "Requests that a block device has ended.", Kind::Counter);
    let mut errors =
        Family::new("ringside_bdev_errors_total", "Requests that a block device did not end well.", Kind::Counter);
    let mut bytes = Family::new("ringside_bdev_bytes_total", "Bytes that a block device moved.", Kind::Counter);
    let mut pending = Family::new(
        "ringside_bdev_pending_seconds",
        "How long requests were pending at a block device; those that it did at once are not in here.",
        Kind::Histogram,
    );
    for device in devices {
        let name = ("bdev", device.bdev.info().name.as_str());
        let totals = device.bdev.totals();
        for kind in OpKind::ALL {
            let labels = [name, ("op", kind.name())];
            requests.sample(&labels, totals.ended[kind as usize] as f64);
            errors.sample(&labels, totals.errors[kind as usize] as f64);
        }
        bytes.sample(&[name, ("op", "read")], totals.read_bytes as f64);
        bytes.sample(&[name, ("op", "write")], totals.written_bytes as f64);
        pending.histogram(&[name, ("op", "read")], &totals.read_ticks);
        pending.histogram(&[name, ("op", "write")], &totals.write_ticks);
    }
    families.extend([requests, errors, bytes, pending]);
}

fn spdk(devices: &[Device], families: &mut Families) {
    type Count = fn(&Counts) -> u64;
    let counts: [(&str, &str, Count); 4] = [
        ("ringside_bdev_spdk_direct_total", "Transfers whose buffers SPDK was given as they are.", |counts| {
            counts.direct
        }),
        (
            "ringside_bdev_spdk_bounced_total",
            "Transfers through SPDK's pool, because SPDK could not take the guest's memory.",
            |counts| counts.bounced,
        ),
        ("ringside_bdev_spdk_starved_total", "How often a transfer waited for SPDK's pool.", |counts| counts.starved),
        ("ringside_bdev_spdk_waited_total", "How often a request waited until SPDK had room for it.", |counts| {
            counts.waited
        }),
    ];
    let devices = devices.iter().filter_map(|device| Some((device, device.spdk.as_ref()?)));
    let devices: Vec<_> = devices.map(|(device, spdk)| (device.bdev.info().name.as_str(), spdk.counts())).collect();
    for (name, help, count) in counts {
        let mut family = Family::new(name, help, Kind::Counter);
        for (bdev, counts) in &devices {
            family.sample(&[("bdev", bdev)], count(counts) as f64);
        }
        families.add(family);
    }
}

fn files(devices: &[Device], families: &mut Families) {
    type Count = fn(&FileCounts) -> u64;
    let counts: [(&str, &str, Count); 6] = [
        (
            "ringside_bdev_file_bounced_total",
            "Transfers over a bounce buffer, because a guest's buffers were not aligned.",
            |counts| counts.bounced,
        ),
        ("ringside_bdev_file_continued_total", "Transfers that the kernel did in part first.", |counts| {
            counts.continued
        }),
        ("ringside_bdev_file_retried_total", "System calls that were tried again (EAGAIN).", |counts| counts.retried),
        ("ringside_bdev_file_sync_failures_total", "Flushes and FUA writes that failed.", |counts| {
            counts.sync_failures
        }),
        ("ringside_bdev_file_enters_total", "Calls of io_uring_enter.", |counts| counts.enters),
        ("ringside_bdev_file_enter_failures_total", "Calls of io_uring_enter that failed.", |counts| {
            counts.enter_failures
        }),
    ];
    let mut failed = Family::new(
        "ringside_bdev_file_sync_failed",
        "1 after a flush that failed: every flush fails until the device is reset.",
        Kind::Gauge,
    );
    let mut direct =
        Family::new("ringside_bdev_file_direct", "1 if a file is served past the page cache of the host.", Kind::Gauge);
    let files: Vec<_> = devices.iter().filter_map(|device| device.file.as_ref()).collect();
    for file in &files {
        let label = [("bdev", file.info().name.as_str())];
        failed.sample(&label, f64::from(u8::from(file.sync_failed())));
        direct.sample(&label, f64::from(u8::from(file.is_direct())));
    }
    for (name, help, count) in counts {
        let mut family = Family::new(name, help, Kind::Counter);
        for file in &files {
            family.sample(&[("bdev", file.info().name.as_str())], count(&file.counts()) as f64);
        }
        families.add(family);
    }
    families.extend([failed, direct]);
}
