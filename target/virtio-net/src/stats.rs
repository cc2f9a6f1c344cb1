//! What one shard counts. Written by its poller only, read by anyone; a block outlives its shard and serves the next one,
//! so that counters never go back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::stats::Counter;
use port::PortStats;
use vhost_user::RingStats;

/// Upper bounds of the classes of frame sizes in bytes, inclusive, as in RFC 2819; what is longer is in one class more.
pub const SIZE_EDGES: [u32; 6] = [64, 127, 255, 511, 1023, 1518];

/// Counters of one shard.
#[derive(Debug)]
pub struct ShardStats {
    in_use: AtomicBool,
    /// Per virtqueue of the shard: its index in the device, and its counters.
    pub rings: Box<[(u16, Arc<RingStats>)]>,
    /// Per queue pair of the shard.
    pub pairs: Box<[PairCounters]>,
    /// Control commands that were done.
    pub control_ok: Counter,
    /// Control commands that were answered with VIRTIO_NET_ERR.
    pub control_errors: Counter,
}

/// Where the counters of a queue pair are.
#[derive(Clone, Debug)]
pub struct PairCounters {
    /// Index of the pair in the device.
    pub index: u16,
    /// What the device counts.
    pub device: Arc<PairStats>,
    /// What the pair's queue of the port counts.
    pub port: Arc<PortStats>,
}

/// Counters of one queue pair, for each direction. What the port made of the frames is in [`PortStats`].
#[derive(Debug, Default)]
pub struct PairStats {
    /// From the driver to the port.
    pub tx: DirectionStats,
    /// From the port to the driver.
    pub rx: DirectionStats,
}

/// Counters of one direction of a queue pair.
#[derive(Debug, Default)]
pub struct DirectionStats {
    /// Frames that were moved.
    pub frames: Counter,
    /// Bytes in them, from the destination address on, without FCS.
    pub bytes: Counter,
    /// Frames by size, in the classes of [`SIZE_EDGES`].
    pub sizes: [Counter; SIZE_EDGES.len() + 1],
    /// Frames that were lost here, by [`NetDrop`].
    pub drops: [Counter; NetDrop::ALL.len()],
    /// Frames that the driver does not want, as it has said on the control queue. None is sent.
    pub filtered: Counter,
}

/// Why a frame was lost between the driver and the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetDrop {
    /// The driver has no buffer there.
    NoGuestBuffer,
    /// The port takes no more.
    PortFull,
    /// Longer than the driver's buffer, or than a frame can be.
    Oversize,
    /// The chain is no frame: no room for a header, or buffers of the wrong direction.
    BadDescriptor,
    /// The header asks for what cannot be, or was not negotiated.
    BadOffload,
    /// Nobody receives on this queue pair.
    QueueDisabled,
}

impl NetDrop {
    /// All, in the order of [`DirectionStats::drops`].
    pub const ALL: [NetDrop; 6] = [
        NetDrop::NoGuestBuffer,
        NetDrop::PortFull,
        NetDrop::Oversize,
        NetDrop::BadDescriptor,
        NetDrop::BadOffload,
        NetDrop::QueueDisabled,
    ];

    /// Its name: a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NetDrop::NoGuestBuffer => "no_guest_buffer",
            NetDrop::PortFull => "port_full",
            NetDrop::Oversize => "oversize",
            NetDrop::BadDescriptor => "bad_descriptor",
            NetDrop::BadOffload => "bad_offload",
            NetDrop::QueueDisabled => "queue_disabled",
        }
    }
}

impl DirectionStats {
    /// Counts lost frames.
    #[inline]
    pub fn dropped(&self, cause: NetDrop, frames: usize) {
        self.drops[cause as usize].add(frames as u64);
    }
}

impl ShardStats {
    pub(crate) fn new(rings: &[u16], pairs: &[(u16, Arc<PortStats>)]) -> ShardStats {
        ShardStats {
            in_use: AtomicBool::new(true),
            rings: rings.iter().map(|index| (*index, Arc::default())).collect(),
            pairs: pairs
                .iter()
                .map(|(index, port)| PairCounters { index: *index, device: Arc::default(), port: Arc::clone(port) })
                .collect(),
            control_ok: Counter::default(),
            control_errors: Counter::default(),
        }
    }

    /// Takes the block for a new shard; false if one has it.
    pub(crate) fn claim(&self) -> bool {
        !self.in_use.swap(true, Ordering::Acquire)
    }

    /// The shard is gone.
    pub(crate) fn release(&self) {
        self.in_use.store(false, Ordering::Release);
    }
}
