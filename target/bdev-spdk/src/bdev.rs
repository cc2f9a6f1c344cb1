//! The device: what its channels share, and how it is opened. What SPDK does to it, it does on the thread that manages SPDK.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bdev::{Abilities, Bdev, BdevInfo, Channel, CounterBlocks, Geometry, IoChannel, Provisioning, Resets};
use parking_lot::Mutex;
use spdk_rs::{Descriptor, Event};

use crate::channel::SpdkChannel;
use crate::config::SpdkError;
use crate::counters::{ChannelCounters, SpdkCounts};
use crate::management::{BdevEvent, Spdk};
use crate::memory::Memory;

/// A bdev of SPDK's as a block device. It is closed when the last of it and of its channels is dropped.
pub struct SpdkBdev {
    shared: Arc<Shared>,
}

/// What all channels of a bdev have in common.
pub(crate) struct Shared {
    pub info: BdevInfo,
    pub opened_as: Geometry,
    pub block_count: AtomicU64,
    /// SPDK takes it away.
    pub removed: AtomicBool,
    /// Channels give up what waits on our side when it is reset.
    pub resets: Resets,
    /// What buffers have to be multiples of, in address and length, less one.
    pub alignment_mask: usize,
    /// It has a cache that is to be flushed for a durable write.
    pub cached: bool,
    /// It can be flushed; for others there is nothing to do.
    pub flushes: bool,
    pub memory: Arc<Memory>,
    pub counters: CounterBlocks<ChannelCounters>,
    descriptor: Mutex<Option<Descriptor>>,
    product: String,
}

impl SpdkBdev {
    /// Opens SPDK's bdev `bdev` as a device of this name.
    ///
    /// # Errors
    /// SPDK has none of that name, or it is claimed, or not one for guests: see [`SpdkError`].
    pub fn open(spdk: &Spdk, name: &str, bdev: &str, read_only: bool) -> Result<SpdkBdev, SpdkError> {
        let (name, bdev) = (name.to_owned(), bdev.to_owned());
        let (memory, events) = (spdk.memory(), spdk.events());
        let shared = spdk.manage(move |thread| {
            // SPDK tells of nothing before this thread is polled again.
            let made: Arc<OnceLock<Arc<Shared>>> = Arc::default();
            let known = Arc::clone(&made);
            let descriptor = Descriptor::open(thread, &bdev, !read_only, move |event| {
                if let Some(shared) = known.get() {
                    shared.happened(event, &*events);
                }
            })?;
            let shared = Arc::new(Shared::of(name, descriptor, read_only, memory)?);
            Ok::<_, SpdkError>(Arc::clone(made.get_or_init(|| shared)))
        })??;
        spdk.opened(&shared);
        Ok(SpdkBdev { shared })
    }

    /// What kind of device it is, in SPDK's words.
    #[must_use]
    pub fn product(&self) -> &str {
        &self.shared.product
    }

    /// Whether SPDK has taken it away: every request fails.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.shared.removed.load(Ordering::Relaxed)
    }

    /// What its channels have counted so far.
    #[must_use]
    pub fn counts(&self) -> SpdkCounts {
        SpdkCounts::sum(&self.shared.counters)
    }
}

impl Bdev for SpdkBdev {
    fn info(&self) -> &BdevInfo {
        &self.shared.info
    }

    fn block_count(&self) -> u64 {
        self.shared.block_count.load(Ordering::Relaxed)
    }

    fn open(&self) -> Channel {
        let channel: Box<dyn IoChannel> = Box::new(SpdkChannel::new(&self.shared));
        Channel::from(channel)
    }
}

impl Drop for SpdkBdev {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn of(name: String, descriptor: Descriptor, read_only: bool, memory: Arc<Memory>) -> Result<Shared, SpdkError> {
        let found = descriptor.info();
        let read_only = read_only || !found.io_types.write();
        let geometry = fit(&found, read_only).map_err(|what| SpdkError::Unfit { name: found.name.clone(), what })?;
        let info = info(name, &found, geometry, read_only);
        Ok(Shared {
            info,
            opened_as: geometry,
            block_count: AtomicU64::new(found.block_count),
            removed: AtomicBool::new(false),
            resets: Resets::default(),
            alignment_mask: found.alignment.next_power_of_two() as usize - 1,
            cached: found.write_cache && found.io_types.flush(),
            flushes: found.io_types.flush(),
            memory,
            counters: CounterBlocks::default(),
            descriptor: Mutex::new(Some(descriptor)),
            product: found.product,
        })
    }

    /// Closes the bdev, when the last channel is closed, too. Its events hold this: closing it lets go of that.
    pub(crate) fn close(&self) {
        let descriptor = self.descriptor.lock().take();
        drop(descriptor);
    }

    /// None once the device is closed.
    pub(crate) fn descriptor(&self) -> Option<Descriptor> {
        self.descriptor.lock().clone()
    }

    /// On the thread that manages SPDK.
    fn happened(&self, event: Event, tell: &(dyn Fn(&str, BdevEvent) + Send + Sync)) {
        let name = &self.info.name;
        match event {
            Event::Remove => {
                self.removed.store(true, Ordering::Relaxed);
                tracing::warn!(bdev = %name, "SPDK takes the bdev away");
                tell(name, BdevEvent::Removed);
            }
            Event::Resize => {
                let Some(found) = self.descriptor().map(|descriptor| descriptor.info()) else { return };
                if Geometry::new(found.block_count, self.info.block_size).is_ok() {
                    self.block_count.store(found.block_count, Ordering::Relaxed);
                    tracing::info!(bdev = %name, blocks = found.block_count, "SPDK's bdev has another size");
                    tell(name, BdevEvent::Resized { block_count: found.block_count });
                }
            }
        }
    }
}

/// # Errors
/// What keeps guests from using it.
fn fit(found: &spdk_rs::BdevInfo, read_only: bool) -> Result<Geometry, String> {
    if found.zoned {
        return Err("is a zoned one".to_owned());
    }
    if found.metadata_size > 0 {
        return Err(format!("has {} bytes of metadata with each block", found.metadata_size));
    }
    if found.write_unit > 1 && !read_only {
        let unit = found.write_unit;
        return Err(format!(
            "takes writes of {unit} blocks only, and guests write single ones (read_only = true serves it)"
        ));
    }
    Geometry::new(found.block_count, found.block_size)
        .map_err(|error| format!("has a geometry that guests cannot use: {error}"))
}

/// What guests are told of it.
fn info(name: String, found: &spdk_rs::BdevInfo, geometry: Geometry, read_only: bool) -> BdevInfo {
    let types = found.io_types;
    let exponent = (found.physical_block_size / found.block_size).max(1).ilog2() as u8;
    let can = Abilities {
        unmap: types.unmap() && !read_only,
        write_zeroes: types.write_zeroes() && !read_only,
        write_same: !read_only,
        compare: true,
        compare_and_write: !read_only && found.compare_write_max > 0,
        verify: true,
        block_status: false,
        reset: types.reset(),
    };
    BdevInfo {
        physical_block_exponent: exponent,
        read_only,
        write_cache: found.write_cache && types.flush(),
        optimal_transfer_blocks: found.optimal_boundary,
        can,
        provisioning: if can.unmap { Provisioning::Thin } else { Provisioning::Full },
        compare_and_write_blocks_max: found.compare_write_max.min(COMPARE_AND_WRITE_BYTES / found.block_size),
        ..BdevInfo::new(name, "spdk", geometry)
    }
}

/// What a buffer of SPDK's pool holds, unless it was made smaller.
const COMPARE_AND_WRITE_BYTES: u32 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bdevs_that_guests_cannot_use_are_told_from_those_that_they_can() {
        let plain = || spdk_rs::BdevInfo {
            name: "B".to_owned(),
            product: "P".to_owned(),
            block_count: 2048,
            block_size: 512,
            physical_block_size: 512,
            metadata_size: 0,
            optimal_boundary: 0,
            write_unit: 1,
            compare_write_max: 1,
            alignment: 1,
            write_cache: false,
            zoned: false,
            lends: false,
            io_types: spdk_rs::IoTypes::default(),
        };
        let text = |found: &spdk_rs::BdevInfo| fit(found, false).unwrap_err();
        assert_eq!(fit(&plain(), false), Geometry::new(2048, 512).map_err(|_| String::new()));
        assert_eq!(text(&spdk_rs::BdevInfo { zoned: true, ..plain() }), "is a zoned one");
        let with_metadata = spdk_rs::BdevInfo { metadata_size: 8, ..plain() };
        assert_eq!(text(&with_metadata), "has 8 bytes of metadata with each block");
        // RAID 5 writes whole stripes.
        let striped = spdk_rs::BdevInfo { write_unit: 256, ..plain() };
        assert!(text(&striped).starts_with("takes writes of 256 blocks only"), "{}", text(&striped));
        assert!(fit(&striped, true).is_ok());
        assert!(text(&spdk_rs::BdevInfo { block_size: 1024, ..plain() }).contains("block_size is 1024"));
    }
}
