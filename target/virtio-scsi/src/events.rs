//! The event queue (virtio 1.3 §5.6.6.3): what the device tells the driver of its own accord. The driver posts buffers that
//! wait there; an event that finds none is lost, and the next buffer says so (R23). Which events there are is decided
//! elsewhere.

use std::sync::Arc;

use vhost_user::RingSet;
use virtqueue::ChainBatch;

use crate::data;
use crate::inventory::{Announcement, Change};
use crate::stats::ShardStats;
use crate::wire::{event, feature};

/// Buffers that are too short for an event and are given back in one go, at most.
const SHORT_MAX: usize = 16;

/// The event queue of a device, on the shard that owns it.
pub(crate) struct EventQueue {
    slot: usize,
    batch: ChainBatch,
    /// What was negotiated.
    features: u64,
    /// Events were lost that the driver has not been told of.
    missed: bool,
    stats: Arc<ShardStats>,
}

impl EventQueue {
    pub(crate) fn new(slot: usize, stats: Arc<ShardStats>) -> EventQueue {
        EventQueue { slot, batch: ChainBatch::new(1, 16), features: 0, missed: false, stats }
    }

    /// The driver starts from nothing, and so it has missed nothing.
    pub(crate) fn begin_session(&mut self, rings: &mut RingSet) {
        self.set_missed(rings, false);
    }

    pub(crate) fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    /// Tells the driver, if it wants to be told.
    pub(crate) fn announce(&mut self, rings: &mut RingSet, announcement: Announcement) {
        let Announcement { target, lun, change } = announcement;
        let (wanted, event, reason) = match change {
            Change::Plugged => (feature::HOTPLUG, event::TRANSPORT_RESET, event::RESCAN),
            Change::Unplugged => (feature::HOTPLUG, event::TRANSPORT_RESET, event::REMOVED),
            Change::Resized => (feature::CHANGE, event::PARAM_CHANGE, CAPACITY_CHANGED),
        };
        if self.features & wanted == 0 {
            return;
        }
        // The LUN stands as in the data of REPORT LUNS: drivers look the unit up by that.
        let [high, low, ..] = scsi::encode_lun(lun);
        if !self.send(rings, event, [1, target, high, low, 0, 0, 0, 0], reason) {
            self.stats.events_missed.add(1);
            self.set_missed(rings, true);
        }
        rings.publish(self.slot);
    }

    /// Whether the driver has to be told of missed events as soon as it posts a buffer.
    #[inline]
    pub(crate) fn owes(&self) -> bool {
        self.missed
    }

    /// Tells the driver that it has missed events, if there is a buffer now. Returns the buffers used.
    #[cold]
    pub(crate) fn poll(&mut self, rings: &mut RingSet) -> usize {
        let told = self.send(rings, event::NO_EVENT, [0; 8], 0);
        rings.publish(self.slot);
        usize::from(told)
    }

    /// Fills the next buffer that has room for an event. False if there is none.
    fn send(&mut self, rings: &mut RingSet, event: u32, lun: [u8; 8], reason: u32) -> bool {
        for _ in 0..SHORT_MAX {
            if rings.pop(self.slot, 1, &mut self.batch) == 0 {
                return false;
            }
            let chain = &self.batch.chains()[0];
            let (ticket, buffers) = (rings.ticket(self.slot, chain), self.batch.writable(chain));
            if chain.writable_bytes < event::LEN as u64 {
                rings.complete(ticket, 0);
                continue;
            }
            let flag = if self.missed { event::EVENTS_MISSED } else { 0 };
            let mut bytes = [0; event::LEN];
            bytes[..4].copy_from_slice(&(event | flag).to_le_bytes());
            bytes[4..12].copy_from_slice(&lun);
            bytes[12..].copy_from_slice(&reason.to_le_bytes());
            data::scatter(buffers, &bytes);
            rings.complete(ticket, event::LEN as u32);
            self.stats.events[name_of(event, reason)].add(1);
            self.set_missed(rings, false);
            return true;
        }
        false
    }

    /// Buffers that wait for events are no work; buffers that are waited for are.
    fn set_missed(&mut self, rings: &mut RingSet, missed: bool) {
        self.missed = missed;
        rings.set_passive(self.slot, !missed);
    }
}

/// Additional sense code and qualifier of CAPACITY DATA HAS CHANGED, in bits 0 to 7 and 8 to 15.
const CAPACITY_CHANGED: u32 = 0x2a | 0x09 << 8;

/// Position in [`event::NAMES`].
fn name_of(event: u32, reason: u32) -> usize {
    match (event, reason) {
        (event::TRANSPORT_RESET, event::RESCAN) => 1,
        (event::TRANSPORT_RESET, _) => 2,
        (event::PARAM_CHANGE, _) => 3,
        _ => 0,
    }
}
