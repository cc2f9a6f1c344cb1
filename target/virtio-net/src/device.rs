//! A net device: its address, limits and counters, its queues of a port, and the shards it makes for each connection.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crossbeam::channel::Sender;
use parking_lot::{Condvar, Mutex};
use port::{AttachError, Attachment, Mac, Port, PortQueue, PortStats, Traits};
use reactor::PollerHandle;
use vhost_user::message::protocol;
use vhost_user::{ConnectionParts, Device, RingReport, RingSet, RingStats};

use crate::session::NetSession;
use crate::shard::Shard;
use crate::stats::ShardStats;
use crate::wire::{self, ConfigSpace, feature};

/// Most queue pairs of a device: with the control queue, every virtqueue has an index in one byte of a vhost-user message.
pub const QUEUE_PAIRS_MAX: u16 = 127;

/// Smallest MTU (virtio 1.3 §5.1.4.1).
pub const MTU_MIN: u16 = 68;

/// What a net device is made of.
#[derive(Clone)]
pub struct NetConfig {
    /// Its name: the metric label and the log field.
    pub name: Arc<str>,
    /// Queue pairs, 1 to [`QUEUE_PAIRS_MAX`].
    pub queue_pairs: u16,
    /// Largest ring that a front-end may set up.
    pub queue_size_max: u16,
    /// The guest's address.
    pub mac: Mac,
    /// Longest frame without its Ethernet header, in bytes.
    pub mtu: u16,
    /// Whether checksums and segmentation may be left to the device, and be left by it to the driver.
    pub offloads: bool,
    /// Exchanges frames with the uplink of a switch only.
    pub isolated: bool,
}

/// A net device, plugged into a port. Lives as long as its socket; connections come and go.
pub struct NetDevice {
    config: NetConfig,
    port: Arc<dyn Port>,
    traits: Traits,
    /// NET_SET_MTU, 0 before.
    mtu_told: AtomicU16,
    queues: Arc<Queues>,
    port_stats: Vec<Arc<PortStats>>,
    /// Counter blocks by shard position; see [`ShardStats`].
    stats: Mutex<Vec<Vec<Arc<ShardStats>>>>,
}

/// The device's queues of its port, while no connection has them.
#[derive(Default)]
pub(crate) struct Queues {
    parked: Mutex<Vec<Option<Box<dyn PortQueue>>>>,
    back: Condvar,
}

/// A queue of the port, borrowed by a shard. Goes back when it is dropped: on a control thread, where shards end.
pub(crate) struct Lease {
    queue: Option<Box<dyn PortQueue>>,
    pair: u16,
    home: Arc<Queues>,
}

impl NetDevice {
    /// A device without connections. `pollers` are those of its connections: queue pairs are dealt out over them in turn.
    ///
    /// # Errors
    /// The port does not take it.
    pub fn new(config: NetConfig, port: Arc<dyn Port>, pollers: &[PollerHandle]) -> Result<NetDevice, AttachError> {
        let pairs = usize::from(config.queue_pairs);
        let port_stats: Vec<Arc<PortStats>> = (0..pairs).map(|_| Arc::default()).collect();
        let queues = port.attach(&Attachment {
            device: Arc::clone(&config.name),
            mac: config.mac,
            mtu: config.mtu,
            pollers: pollers.iter().cycle().take(pairs).cloned().collect(),
            stats: port_stats.clone(),
            isolated: config.isolated,
        })?;
        assert_eq!(queues.len(), pairs, "port {}: one queue for each queue pair", port.name());
        let parked = queues.into_iter().map(Some).collect();
        Ok(NetDevice {
            traits: port.traits(),
            port,
            mtu_told: AtomicU16::new(0),
            queues: Arc::new(Queues { parked: Mutex::new(parked), back: Condvar::new() }),
            port_stats,
            stats: Mutex::default(),
            config,
        })
    }

    /// What it was made of.
    #[must_use]
    pub fn config(&self) -> &NetConfig {
        &self.config
    }

    /// The port that it is plugged into.
    #[must_use]
    pub fn port(&self) -> &Arc<dyn Port> {
        &self.port
    }

    /// The MTU that the front-end told, if it did.
    #[must_use]
    pub fn mtu_told(&self) -> Option<u16> {
        Some(self.mtu_told.load(Ordering::Relaxed)).filter(|mtu| *mtu != 0)
    }

    /// Index of the control queue.
    #[must_use]
    pub fn control_queue(&self) -> u16 {
        2 * self.config.queue_pairs
    }

    /// Every block of counters there is. Sums over them are what the device has done since it was made.
    #[must_use]
    pub fn stats(&self) -> Vec<Arc<ShardStats>> {
        self.stats.lock().iter().flatten().cloned().collect()
    }

    fn stats_block(&self, position: usize, rings: &[u16], pairs: &[u16]) -> Arc<ShardStats> {
        let mut all = self.stats.lock();
        if all.len() <= position {
            all.resize_with(position + 1, Vec::new);
        }
        if let Some(free) = all[position].iter().find(|block| block.claim()) {
            return Arc::clone(free);
        }
        let pairs: Vec<_> =
            pairs.iter().map(|pair| (*pair, Arc::clone(&self.port_stats[usize::from(*pair)]))).collect();
        let block = Arc::new(ShardStats::new(rings, &pairs));
        all[position].push(Arc::clone(&block));
        block
    }
}

impl Device for NetDevice {
    type Shard = Shard;

    fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    fn features(&self) -> u64 {
        let mut features = feature::VERSION_1
            | feature::VHOST_USER_PROTOCOL
            | feature::INDIRECT_DESC
            | feature::EVENT_IDX
            | feature::RING_PACKED
            | feature::IN_ORDER
            | feature::MRG_RXBUF
            | feature::MTU
            | feature::MAC
            | feature::STATUS
            | feature::SPEED_DUPLEX
            | feature::GUEST_ANNOUNCE
            | feature::CTRL_VQ
            | feature::CTRL_RX
            | feature::CTRL_RX_EXTRA
            | feature::CTRL_VLAN
            | feature::CTRL_MAC_ADDR;
        if self.config.queue_pairs > 1 {
            features |= feature::MQ;
        }
        if self.config.offloads {
            features |= feature::CTRL_GUEST_OFFLOADS;
            features |= wire::offload_features(self.traits.tx_offloads, self.traits.rx_offloads);
        }
        features
    }

    fn protocol_features(&self) -> u64 {
        protocol::RARP | protocol::MTU
    }

    fn queues(&self) -> u16 {
        self.control_queue() + 1
    }

    fn queue_size_max(&self) -> u16 {
        self.config.queue_size_max
    }

    fn config_space(&self) -> Vec<u8> {
        let link = self.port.link();
        ConfigSpace {
            mac: self.config.mac,
            link_up: link.up,
            queue_pairs: self.config.queue_pairs,
            mtu: self.config.mtu,
            speed_mbps: link.speed_mbps,
        }
        .bytes()
        .to_vec()
    }

    /// Waits until the connection before has given the port's queues back.
    fn connect(&self, pollers: &[PollerHandle], reports: &Sender<RingReport>) -> ConnectionParts<Shard> {
        let count = pollers.len().max(1);
        let pairs = self.config.queue_pairs;
        let routes: Vec<usize> =
            (0..self.queues()).map(|ring| if ring == 2 * pairs { 0 } else { usize::from(ring / 2) % count }).collect();
        let mut ring_stats: Vec<Arc<RingStats>> = vec![Arc::default(); routes.len()];
        let session = Arc::new(NetSession::new(pairs, self.config.mac, pollers));
        let shards = (0..count)
            .map(|position| {
                let mine: Vec<u16> = (0..self.queues()).filter(|ring| routes[usize::from(*ring)] == position).collect();
                let pairs: Vec<u16> = (0..pairs).filter(|pair| usize::from(*pair) % count == position).collect();
                let stats = self.stats_block(position, &mine, &pairs);
                for (index, ring) in &stats.rings {
                    ring_stats[usize::from(*index)] = Arc::clone(ring);
                }
                let rings = RingSet::new(Arc::clone(&self.config.name), stats.rings.to_vec(), reports.clone());
                let leases = pairs.into_iter().map(|pair| self.queues.lend(pair)).collect();
                Shard::new(rings, &self.config, leases, Arc::clone(&session), stats)
            })
            .collect();
        ConnectionParts { shards, routes, ring_stats }
    }

    fn set_mtu(&self, mtu: u16) -> Result<(), String> {
        let max = self.config.mtu;
        if !(MTU_MIN..=max).contains(&mtu) {
            return Err(format!("MTU {mtu}: must be {MTU_MIN} to {max}, the device's mtu"));
        }
        self.mtu_told.store(mtu, Ordering::Relaxed);
        Ok(())
    }
}

impl Queues {
    /// Takes the queue of a pair, once whoever has it gives it back.
    fn lend(self: &Arc<Self>, pair: u16) -> Lease {
        let mut parked = self.parked.lock();
        let queue = loop {
            match parked[usize::from(pair)].take() {
                Some(queue) => break queue,
                None => self.back.wait(&mut parked),
            }
        };
        Lease { queue: Some(queue), pair, home: Arc::clone(self) }
    }
}

impl Lease {
    /// Index of its queue pair.
    pub(crate) fn pair(&self) -> u16 {
        self.pair
    }
}

impl Deref for Lease {
    type Target = dyn PortQueue;

    #[inline]
    fn deref(&self) -> &(dyn PortQueue + 'static) {
        &**self.queue.as_ref().expect("it is there until it goes back")
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut (dyn PortQueue + 'static) {
        &mut **self.queue.as_mut().expect("it is there until it goes back")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut queue) = self.queue.take() {
            queue.set_open(false);
            self.home.parked.lock()[usize::from(self.pair)] = Some(queue);
            self.home.back.notify_all();
        }
    }
}
