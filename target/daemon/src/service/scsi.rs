//! What can be done to a controller while it is served: logical units come and go and change their size, limits change.
//! Every shard of every connection is told, then the guests. When to do it is `reload.rs`'s.

use std::sync::Arc;

use virtio_scsi::{Announcement, ChangeError, Controller, Limits, Release, Shard, Unit};

use super::{ScsiService, ServiceStats};

impl ScsiService {
    /// The controller.
    #[must_use]
    pub fn controller(&self) -> &Arc<Controller> {
        self.device()
    }

    /// A logical unit comes. When this returns, every request queue finds it, and guests have been told.
    ///
    /// # Errors
    /// It cannot be: its address is taken, or no block of it fits through the limits.
    pub fn add_lun(&self, unit: Arc<Unit>) -> Result<(), ChangeError> {
        let _alone = self.changing.lock();
        let addition = self.device.add(unit)?;
        self.tell(|shards| {
            let parts = addition.for_connection(shards).into_iter();
            parts.map(|part| move |shard: &mut Shard| shard.add_unit(part)).collect()
        });
        self.announce(addition.announcement());
        Ok(())
    }

    /// A logical unit goes (R22). When this returns, no request queue finds it any more, and guests have been told; its
    /// block device is in use until the [`Release`] is over.
    ///
    /// # Errors
    /// There is none at that address.
    pub fn remove_lun(&self, target: u8, lun: u16) -> Result<Release, ChangeError> {
        let _alone = self.changing.lock();
        let removal = self.device.remove(target, lun)?;
        self.tell(|shards| {
            let parts = (0..shards).map(|_| removal.for_shard());
            parts.map(|part| move |shard: &mut Shard| shard.remove_unit(part)).collect()
        });
        self.announce(removal.announcement());
        Ok(removal.into_release())
    }

    /// Other limits. When this returns they hold on every request queue; what is in flight beyond them ends in its own
    /// time. Front-ends that can be told hear that the configuration space has changed (R18).
    ///
    /// # Errors
    /// One of them is outside its bounds.
    pub fn set_limits(&self, limits: Limits) -> Result<(), ChangeError> {
        let _alone = self.changing.lock();
        let before = self.device.config_space();
        self.device.set_limits(limits, || {
            self.tell(|shards| (0..shards).map(|_| move |shard: &mut Shard| shard.set_limits(limits)).collect());
        })?;
        if self.device.config_space() != before {
            let live = self.stats.live.lock();
            let told = live.iter().filter(|live| live.requests.config_changed()).count();
            tracing::debug!(controller = %self.device.name(), told, "the configuration space has changed");
        }
        Ok(())
    }

    /// A logical unit gets another capacity, at most what its block device has (R18). Guests are told.
    ///
    /// # Errors
    /// There is no such unit, or the capacity is outside its bounds.
    pub fn resize_lun(&self, target: u8, lun: u16, block_count: u64) -> Result<(), ChangeError> {
        let _alone = self.changing.lock();
        self.announce(self.device.resize(target, lun, block_count)?);
        Ok(())
    }

    /// Tells the front-end. Connections that only wait for their last requests have nobody to be told.
    fn announce(&self, announcement: Announcement) {
        let live = self.stats.live.lock();
        for live in live.iter().filter(|live| live.is_connected()) {
            if let Some(first) = live.shards.first() {
                first.run(move |shard| shard.announce(announcement));
            }
        }
    }
}

impl ServiceStats<Shard> {
    /// Descriptors of the request rings that the connected front-end has started.
    #[must_use]
    pub fn request_ring_capacity(&self) -> u64 {
        let live = self.live.lock();
        let connected = live.iter().filter(|live| live.is_connected());
        let rings = connected.flat_map(|live| &live.rings[usize::from(virtio_scsi::FIRST_REQUEST_QUEUE)..]);
        rings.map(|ring| ring.size.value()).sum()
    }
}
