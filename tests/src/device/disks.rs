//! Logical units over bdevs, and what is on those. No ring and no request in here.

use std::sync::Arc;

use bdev::{Bdev, Io, Op, Status, Submitted, Token};
use guest_memory::{GuestSlice, Pages, SharedMemory};
use reactor::Tsc;
use scsi::{Identity, LogicalUnit, LogicalUnitConfig, Naa};
use virtio_scsi::{Unit, logical_unit_config};

/// A logical unit over a bdev, with the properties that the bdev tells of.
#[must_use]
pub fn unit(target: u8, lun: u16, bdev: Arc<dyn Bdev>) -> Arc<Unit> {
    unit_with(target, lun, bdev, |_| {})
}

/// A logical unit over a bdev, changed by the test.
///
/// # Panics
/// If there cannot be such a unit.
#[must_use]
pub fn unit_with(target: u8, lun: u16, bdev: Arc<dyn Bdev>, change: impl FnOnce(&mut LogicalUnitConfig)) -> Arc<Unit> {
    let serial = format!("{target}-{lun}");
    let identity = Identity::new("RINGSIDE", "test disk", "1", &serial, Naa::local(u64::from(lun)));
    let identity = identity.expect("a short serial number");
    let mut config = logical_unit_config(identity, bdev.info());
    change(&mut config);
    Arc::new(Unit { target, lun, logical_unit: LogicalUnit::new(config), bdev })
}

/// Everything that a bdev holds.
///
/// # Panics
/// If it does not answer at once.
#[must_use]
pub fn medium(bdev: &dyn Bdev) -> Vec<u8> {
    let info = bdev.info();
    let memory = SharedMemory::create("medium", info.bytes() as usize, Pages::Small).expect("memory for the medium");
    let whole = memory.slice().subslice(0, info.bytes() as usize).expect("as long as the medium");
    access(bdev, Op::Read, &[whole]);
    let mut bytes = vec![0; whole.len()];
    whole.read(&mut bytes);
    bytes
}

/// Fills a bdev with bytes that differ from block to block, and returns them.
///
/// # Panics
/// If it does not answer at once.
#[must_use]
pub fn fill(bdev: &dyn Bdev) -> Vec<u8> {
    let info = bdev.info();
    let bytes: Vec<u8> = (0..info.bytes()).map(|at| (at ^ (at / u64::from(info.block_size) * 7)) as u8 | 1).collect();
    let memory = SharedMemory::create("medium", bytes.len(), Pages::Small).expect("memory for the medium");
    let whole = memory.slice().subslice(0, bytes.len()).expect("as long as the medium");
    whole.write(&bytes);
    access(bdev, Op::Write { fua: false }, &[whole]);
    bytes
}

fn access(bdev: &dyn Bdev, op: Op, buffers: &[GuestSlice]) {
    let blocks = bdev.info().block_count as u32;
    let io = Io::new(op, 0, blocks, buffers, Token(0));
    assert_eq!(bdev.open().submit(&io, Tsc::now()), Submitted::Done(Status::Good));
}
