//! A shard: the part of one connection that lives on one poller. It decides the order of a poll.

use std::sync::Arc;

use reactor::{Source, Tsc};
use vhost_user::{RingSet, Shard as VhostShard};

use crate::device::{Lease, NetConfig};
use crate::session::NetSession;
use crate::stats::ShardStats;

/// The queue pairs of one connection that one poller owns.
pub struct Shard {
    rings: RingSet,
    leases: Vec<Lease>,
    session: Arc<NetSession>,
    stats: Arc<ShardStats>,
}

impl Shard {
    pub(crate) fn new(
        rings: RingSet,
        _config: &NetConfig,
        leases: Vec<Lease>,
        session: Arc<NetSession>,
        stats: Arc<ShardStats>,
    ) -> Shard {
        Shard { rings, leases, session, stats }
    }
}

impl Source for Shard {
    fn poll(&mut self, _now: Tsc) -> usize {
        self.rings.settle(false);
        0
    }
}

impl VhostShard for Shard {
    fn rings(&mut self) -> &mut RingSet {
        &mut self.rings
    }

    fn reset(&mut self) {}
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.stats.release();
    }
}
