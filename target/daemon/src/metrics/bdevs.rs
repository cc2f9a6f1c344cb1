//! The metrics of block devices: what each did, whoever uses it, and what files say of themselves.

use bdev::{Bdev, OpKind};
use bdev_file::File;
use guest_memory::Backing;

use super::catalogue::bdevs as the;
use super::families::Families;
use crate::bdevs::{Bdevs, Device};
use crate::spdk::{Counts, Spdk};

pub(super) fn collect(bdevs: &Bdevs, families: &mut Families) {
    let (devices, awaited) = (bdevs.devices(), bdevs.awaited());
    for device in &devices {
        describe(device, families);
        count(device, families);
        if let Some(device) = &device.file {
            file(device, families);
        }
        if let Some(counts) = device.spdk.as_ref().map(|device| device.counts()) {
            let name = &device.bdev.info().name;
            spdk(name, &counts, families);
            if !awaited.contains(name) {
                families.sample(&the::SPDK_AWAITED, &[name], 0.0);
            }
        }
    }
    // One of these may be on its way out, and among the devices, too.
    awaited.iter().for_each(|name| families.sample(&the::SPDK_AWAITED, &[name], 1.0));
}

/// What of the front-ends' memory SPDK's devices reach without a copy.
pub(super) fn spdk_memory(spdk: &Spdk, families: &mut Families) {
    let Some(memory) = spdk.memory() else { return };
    families.sample(&the::SPDK_MEMORY, &["mapped"], memory.mapped as f64);
    families.sample(&the::SPDK_MEMORY, &["registered"], memory.registered as f64);
}

fn describe(device: &Device, families: &mut Families) {
    let info = device.bdev.info();
    families.info(&the::INFO, &[&info.name, info.kind]);
    // As it is now: SPDK's devices grow and shrink.
    let bytes = device.bdev.block_count().saturating_mul(u64::from(info.block_size));
    families.sample(&the::SIZE, &[&info.name], bytes as f64);
    if let Some(backing) = device.backing {
        let backing = match backing {
            Backing::Huge => "huge",
            Backing::Plain => "plain",
        };
        families.sample(&the::MEMORY, &[&info.name, backing], info.bytes() as f64);
    }
}

fn count(device: &Device, families: &mut Families) {
    let (name, totals) = (device.bdev.info().name.as_str(), device.bdev.totals());
    for kind in OpKind::ALL {
        let labels = [name, kind.name()];
        families.sample(&the::REQUESTS, &labels, totals.ended[kind as usize] as f64);
        families.sample(&the::ERRORS, &labels, totals.errors[kind as usize] as f64);
    }
    families.sample(&the::BYTES, &[name, "read"], totals.read_bytes as f64);
    families.sample(&the::BYTES, &[name, "write"], totals.written_bytes as f64);
    families.durations(&the::PENDING, &[name, "read"], &totals.read_ticks);
    families.durations(&the::PENDING, &[name, "write"], &totals.write_ticks);
}

fn file(file: &File, families: &mut Families) {
    let (name, counts) = ([file.info().name.as_str()], file.counts());
    for (metric, count) in [
        (&the::BOUNCED, counts.bounced),
        (&the::CONTINUED, counts.continued),
        (&the::RETRIED, counts.retried),
        (&the::SYNC_FAILURES, counts.sync_failures),
        (&the::ENTERS, counts.enters),
        (&the::ENTER_FAILURES, counts.enter_failures),
    ] {
        families.sample(metric, &name, count as f64);
    }
    families.sample(&the::SYNC_FAILED, &name, f64::from(u8::from(file.sync_failed())));
    families.sample(&the::DIRECT, &name, f64::from(u8::from(file.is_direct())));
}

fn spdk(name: &str, counts: &Counts, families: &mut Families) {
    for (metric, count) in [
        (&the::SPDK_DIRECT, counts.direct),
        (&the::SPDK_LENT, counts.lent),
        (&the::SPDK_BOUNCED, counts.bounced),
        (&the::SPDK_STARVED, counts.starved),
        (&the::SPDK_WAITED, counts.waited),
    ] {
        families.sample(metric, &[name], count as f64);
    }
}
