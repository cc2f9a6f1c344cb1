//! Changes of a [`Device`] while it is running, as a daemon makes them: logical units that come and go, other limits,
//! and the driver's side of the event queue.

use std::sync::Arc;

use vhost_user::Shard as _;
use virtio_scsi::{Announcement, ChangeError, Limits, Release, Unit};

use super::message::Reply;
use super::{Device, EVENT};

/// VIRTIO_SCSI_F_HOTPLUG (virtio 1.3 §5.6.3).
pub const HOTPLUG: u64 = 1 << 1;
/// VIRTIO_SCSI_F_CHANGE (virtio 1.3 §5.6.3).
pub const CHANGE: u64 = 1 << 2;

impl Device {
    /// The driver has accepted these features.
    pub fn accept(&mut self, features: u64) {
        self.shards.iter_mut().for_each(|shard| shard.set_features(features));
    }

    /// A logical unit comes.
    ///
    /// # Errors
    /// It cannot.
    pub fn plug(&mut self, unit: Arc<Unit>) -> Result<(), ChangeError> {
        let addition = self.controller.add(unit)?;
        let parts = addition.for_connection(self.shards.len());
        for (shard, part) in self.shards.iter_mut().zip(parts) {
            shard.add_unit(part);
        }
        self.announce(addition.announcement());
        Ok(())
    }

    /// A logical unit goes. What is returned says when nothing of it is left.
    ///
    /// # Errors
    /// There is none.
    pub fn unplug(&mut self, target: u8, lun: u16) -> Result<Release, ChangeError> {
        let removal = self.controller.remove(target, lun)?;
        for shard in &mut self.shards {
            shard.remove_unit(removal.for_shard());
        }
        self.announce(removal.announcement());
        Ok(removal.into_release())
    }

    /// Other limits.
    ///
    /// # Errors
    /// One is outside its bounds.
    pub fn set_limits(&mut self, limits: Limits) -> Result<(), ChangeError> {
        let Device { controller, shards, .. } = self;
        controller.set_limits(limits, || shards.iter_mut().for_each(|shard| shard.set_limits(limits)))
    }

    /// A logical unit gets another number of blocks.
    ///
    /// # Errors
    /// There is none, or the number is outside its bounds.
    pub fn resize(&mut self, target: u8, lun: u16, block_count: u64) -> Result<(), ChangeError> {
        let announcement = self.controller.resize(target, lun, block_count)?;
        self.announce(announcement);
        Ok(())
    }

    /// The driver posts a buffer for an event, of so many bytes.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn post_event_buffer(&mut self, len: usize) {
        let segment = self.writable(len);
        self.submit_chain(EVENT, &[segment]);
    }

    /// Events that have arrived: event, lun, reason. Buffers that came back without one are left out.
    ///
    /// # Panics
    /// If something came back that is no event.
    pub fn events(&mut self) -> Vec<(u32, [u8; 8], u32)> {
        let replies = self.take(EVENT);
        replies.iter().filter(|reply| reply.written != 0).map(event_of).collect()
    }

    fn announce(&mut self, announcement: Announcement) {
        self.shards[0].announce(announcement);
    }
}

/// What stands in a buffer for an event: event, lun, reason.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn event_of(reply: &Reply) -> (u32, [u8; 8], u32) {
    assert_eq!(reply.written, 16, "an event has 16 bytes");
    let word = |at: usize| u32::from_le_bytes(reply.writable[at..at + 4].try_into().expect("four bytes"));
    (word(0), reply.writable[4..12].try_into().expect("eight bytes"), word(12))
}

/// REPORT LUNS with room for so many bytes.
#[must_use]
pub fn report_luns(len: u32) -> [u8; 12] {
    let [a, b, c, d] = len.to_be_bytes();
    [0xa0, 0, 0, 0, 0, 0, a, b, c, d, 0, 0]
}

/// INQUIRY of standard data, with room for 36 bytes.
pub const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 36, 0];
