//! A virtio-scsi controller: its limits, its logical units, its counters, and the shards it makes for each connection.

use std::sync::Arc;

use crossbeam::channel::Sender;
use parking_lot::Mutex;
use reactor::PollerHandle;
use vhost_user::{ConnectionParts, Device, RingReport, RingSet, RingStats};

use crate::address::Address;
use crate::inventory::{Addition, Announcement, Change, ChangeError, Inventory, Place, Removal, unit_parts};
use crate::limits::Limits;
use crate::lun_map::{Addressee, LunMap, Unit};
use crate::nexus::Nexus;
use crate::shard::Shard;
use crate::stats::ShardStats;
use crate::wire::{CONFIG_LEN, ConfigSpace, feature};

/// Index of the control queue (virtio 1.3 §5.6.2).
pub const CONTROL_QUEUE: u16 = 0;
/// Index of the event queue. Its buffers lie there until there is an event.
pub const EVENT_QUEUE: u16 = 1;
/// Index of the first request queue.
pub const FIRST_REQUEST_QUEUE: u16 = 2;

/// What a controller is made of.
pub struct ControllerConfig {
    /// Its name: the metric label and the log field.
    pub name: Arc<str>,
    /// Number of request queues, 1 to 254.
    pub request_queues: u16,
    /// Largest ring that a front-end may set up.
    pub queue_size_max: u16,
    /// Offer VIRTIO_F_IN_ORDER: a driver that takes it finds commands used in the order that it sent them in, so that a quick
    /// one waits for a slow one before it.
    pub in_order: bool,
    /// Transport limits.
    pub limits: Limits,
    /// Logical units.
    pub units: Vec<Arc<Unit>>,
}

/// A controller. Lives as long as its socket; connections, logical units and limits come and go.
pub struct Controller {
    name: Arc<str>,
    request_queues: u16,
    queue_size_max: u16,
    in_order: bool,
    inventory: Mutex<Inventory>,
    /// Counter blocks by shard position; see [`ShardStats`].
    stats: Mutex<Vec<Vec<Arc<ShardStats>>>>,
}

impl Controller {
    /// A controller without connections.
    #[must_use]
    pub fn new(config: ControllerConfig) -> Controller {
        Controller {
            name: config.name,
            request_queues: config.request_queues,
            queue_size_max: config.queue_size_max,
            in_order: config.in_order,
            inventory: Mutex::new(Inventory::new(config.limits, config.units)),
            stats: Mutex::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its limits as they are now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inventory.lock().limits
    }

    /// Its logical units as they are now.
    #[must_use]
    pub fn map(&self) -> Arc<LunMap> {
        Arc::clone(&self.inventory.lock().map)
    }

    /// Where there are counters of logical units: those that are there now, and those that are gone but still end their
    /// commands.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.inventory.lock().places()
    }

    /// All queues: control, event and request.
    #[must_use]
    pub fn queues(&self) -> u16 {
        FIRST_REQUEST_QUEUE + self.request_queues
    }

    /// Largest ring that a front-end may set up.
    #[must_use]
    pub fn queue_size_max(&self) -> u16 {
        self.queue_size_max
    }

    /// The virtio features that the device offers.
    #[must_use]
    pub fn features(&self) -> u64 {
        let in_order = if self.in_order { feature::IN_ORDER } else { 0 };
        in_order
            | feature::VERSION_1
            | feature::VHOST_USER_PROTOCOL
            | feature::INDIRECT_DESC
            | feature::EVENT_IDX
            | feature::RING_PACKED
            | feature::HOTPLUG
            | feature::CHANGE
    }

    /// The config space: the limits as a front-end that asks sees them (R05).
    #[must_use]
    pub fn config_space(&self) -> [u8; CONFIG_LEN] {
        let limits = self.limits();
        let seg_max = limits.seg_max.unwrap_or_else(|| default_seg_max(self.queue_size_max));
        ConfigSpace {
            num_queues: u32::from(self.request_queues),
            seg_max,
            max_sectors: limits.max_sectors,
            cmd_per_lun: limits.cmd_per_lun,
        }
        .bytes()
    }

    /// A new session (R08): one shard for each of these pollers. The first one owns the control and the event queue, the
    /// request queues are dealt out in turn. Opens a channel to every bdev for every shard.
    #[must_use]
    pub fn connect(&self, pollers: &[PollerHandle], reports: &Sender<RingReport>) -> ConnectionParts<Shard> {
        let count = pollers.len().max(1);
        let (limits, map) = (self.limits(), self.map());
        map.reset_modes();
        let nexus = Arc::new(Nexus::new(count, pollers.to_vec()));
        let mut units: Vec<_> = map.units().map(|(index, unit)| unit_parts(index, unit, count).into_iter()).collect();
        let routes: Vec<usize> = (0..self.queues()).map(|index| shard_of(index, count)).collect();
        let mut ring_stats: Vec<Arc<RingStats>> = vec![Arc::default(); routes.len()];
        let mut blocks = Vec::with_capacity(count);
        let shards = (0..count)
            .map(|position| {
                let indices: Vec<u16> =
                    (0..self.queues()).filter(|index| routes[usize::from(*index)] == position).collect();
                let stats = self.stats_block(position, &indices, map.places());
                blocks.push(Arc::clone(&stats));
                for (index, ring) in &stats.rings {
                    ring_stats[usize::from(*index)] = Arc::clone(ring);
                }
                let rings = RingSet::new(Arc::clone(&self.name), stats.rings.to_vec(), reports.clone());
                let units = units.iter_mut().filter_map(Iterator::next);
                Shard::new(rings, Arc::clone(&map), limits, units, Arc::clone(&nexus), stats)
            })
            .collect();
        nexus.set_stats(blocks);
        ConnectionParts { shards, routes, ring_stats }
    }

    /// A logical unit comes. The shards of connections that there are have to be given their parts before another one
    /// begins.
    ///
    /// # Errors
    /// There is one at its address, there are too many, or no block of it fits through the limits.
    pub fn add(&self, unit: Arc<Unit>) -> Result<Addition, ChangeError> {
        let mut inventory = self.inventory.lock();
        let addition = inventory.add(unit)?;
        let index = usize::from(addition.index());
        for block in self.stats() {
            block.units.grow(index + 1);
            block.units[index].reset(); // nobody counts here: the last shard has let go of what was there before
        }
        Ok(addition)
    }

    /// A logical unit goes. The shards of connections that there are have to be given their parts before another one
    /// begins.
    ///
    /// # Errors
    /// There is none at that address.
    pub fn remove(&self, target: u8, lun: u16) -> Result<Removal, ChangeError> {
        self.inventory.lock().remove(target, lun)
    }

    /// Other limits, of the connections to come. The shards of those that there are have to be told by `tell`, which
    /// returns when they have been.
    ///
    /// # Errors
    /// One of the limits is outside its bounds.
    pub fn set_limits(&self, limits: Limits, tell: impl FnOnce()) -> Result<(), ChangeError> {
        let (commands_max, seg_max_bound) =
            (u32::from(self.request_queues) * u32::from(self.queue_size_max), default_seg_max(self.queue_size_max));
        let mut inventory = self.inventory.lock();
        let before = inventory.limits;
        inventory.set_limits(limits, commands_max, seg_max_bound)?;
        // R03: while some shards have the one limit and some the other, units promise the smaller one.
        inventory.bound_transfers(&Limits { max_sectors: limits.max_sectors.min(before.max_sectors), ..limits });
        drop(inventory);
        tell();
        self.inventory.lock().bound_transfers(&limits);
        Ok(())
    }

    /// A logical unit gets another capacity, at most what its block device has. The first shard of each connection has to
    /// announce it.
    ///
    /// # Errors
    /// There is no such unit, or the capacity is outside its bounds.
    pub fn resize(&self, target: u8, lun: u16, block_count: u64) -> Result<Announcement, ChangeError> {
        let map = self.map();
        let Some(Addressee::Unit(index)) = map.find(Address::Unit { target, lun }) else {
            return Err(ChangeError::Absent { target, lun });
        };
        let unit = map.unit(index).ok_or(ChangeError::Absent { target, lun })?;
        let max = unit.bdev.block_count();
        if !(1..=max).contains(&block_count) {
            return Err(ChangeError::OutOfRange { field: "block_count", value: block_count, min: 1, max });
        }
        unit.logical_unit.set_block_count(block_count);
        Ok(Announcement { target, lun, change: Change::Resized })
    }

    /// Every block of counters there is. Sums over them are what the controller has done since it was made.
    #[must_use]
    pub fn stats(&self) -> Vec<Arc<ShardStats>> {
        self.stats.lock().iter().flatten().cloned().collect()
    }

    fn stats_block(&self, position: usize, rings: &[u16], units: usize) -> Arc<ShardStats> {
        let mut all = self.stats.lock();
        if all.len() <= position {
            all.resize_with(position + 1, Vec::new);
        }
        if let Some(free) = all[position].iter().find(|block| block.claim()) {
            return Arc::clone(free);
        }
        let block = Arc::new(ShardStats::new(units, rings));
        all[position].push(Arc::clone(&block));
        block
    }
}

impl Device for Controller {
    type Shard = Shard;

    fn name(&self) -> &Arc<str> {
        self.name()
    }

    fn features(&self) -> u64 {
        self.features()
    }

    fn queues(&self) -> u16 {
        self.queues()
    }

    fn queue_size_max(&self) -> u16 {
        self.queue_size_max()
    }

    fn config_space(&self) -> Vec<u8> {
        self.config_space().to_vec()
    }

    fn connect(&self, pollers: &[PollerHandle], reports: &Sender<RingReport>) -> ConnectionParts<Shard> {
        self.connect(pollers, reports)
    }
}

/// Data segments per direction that a ring of this size has room for beside the two headers.
#[must_use]
pub fn default_seg_max(ring_size: u16) -> u32 {
    u32::from(ring_size).saturating_sub(2).max(1)
}

fn shard_of(index: u16, shards: usize) -> usize {
    usize::from(index.saturating_sub(FIRST_REQUEST_QUEUE)) % shards * usize::from(index >= FIRST_REQUEST_QUEUE)
}
