//! What a device type is to whoever runs its sockets: one trait, so that sessions, pollers and counters of connections are
//! looked after in one place for all of them.

use std::sync::Arc;

use crossbeam::channel::Sender;
use reactor::PollerHandle;

use crate::endpoint::Shard;
use crate::ring_set::RingReport;
use crate::ring_stats::RingStats;

/// A device behind a socket. Lives as long as that; connections come and go.
pub trait Device: Send + Sync + 'static {
    /// The part of a connection that lives on a poller.
    type Shard: Shard;

    /// Its name: the metric label and the log field.
    fn name(&self) -> &Arc<str>;

    /// The virtio features that it offers.
    fn features(&self) -> u64;

    /// Protocol features that it offers beside those that every device has ([`message::protocol`](crate::message::protocol)).
    fn protocol_features(&self) -> u64 {
        0
    }

    /// All its virtqueues.
    fn queues(&self) -> u16;

    /// Largest ring that a front-end may set up.
    fn queue_size_max(&self) -> u16;

    /// Its config space as it is now.
    fn config_space(&self) -> Vec<u8>;

    /// A new connection: one shard for each of these pollers. May wait until the connection before has let go of what only
    /// one can have.
    fn connect(&self, pollers: &[PollerHandle], reports: &Sender<RingReport>) -> ConnectionParts<Self::Shard>;

    /// NET_SET_MTU.
    ///
    /// # Errors
    /// Why not, naming value and bound.
    fn set_mtu(&self, mtu: u16) -> Result<(), String> {
        Err(format!("MTU {mtu}: this device has none"))
    }
}

/// The parts of a new connection, before they are put on pollers.
pub struct ConnectionParts<S> {
    /// One shard a poller, in the order that the pollers were given in.
    pub shards: Vec<S>,
    /// Which shard owns each ring, by ring index.
    pub routes: Vec<usize>,
    /// Counters of each ring, by ring index.
    pub ring_stats: Vec<Arc<RingStats>>,
}
