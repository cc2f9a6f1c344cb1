//! What is counted of one port queue. Written by the poller that owns it, read by anyone.

use stats::Counter;

/// Counters of one queue of a port.
#[derive(Debug, Default)]
pub struct PortStats {
    /// Frames that it sent on.
    pub tx_frames: Counter,
    /// Bytes in them.
    pub tx_bytes: Counter,
    /// Frames that it gave to its device.
    pub rx_frames: Counter,
    /// Bytes in them.
    pub rx_bytes: Counter,
    /// Frames that it lost, by [`DropCause`].
    pub drops: [Counter; DropCause::ALL.len()],
}

/// Why a port lost a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// The far side had no room.
    Full,
    /// Longer than the link takes, or shorter than an Ethernet header.
    Length,
    /// Its headers do not fit what it asked to be done.
    Offload,
    /// No memory to copy it to.
    NoMemory,
    /// Nobody it could go to: isolated, or the device that sent it.
    NoDestination,
}

impl DropCause {
    /// All, in the order of [`PortStats::drops`].
    pub const ALL: [DropCause; 5] =
        [DropCause::Full, DropCause::Length, DropCause::Offload, DropCause::NoMemory, DropCause::NoDestination];

    /// Its name: a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DropCause::Full => "port_full",
            DropCause::Length => "bad_length",
            DropCause::Offload => "bad_offload",
            DropCause::NoMemory => "no_memory",
            DropCause::NoDestination => "no_destination",
        }
    }
}

impl PortStats {
    /// Counts `frames` lost frames.
    #[inline]
    pub fn dropped(&self, cause: DropCause, frames: usize) {
        self.drops[cause as usize].add(frames as u64);
    }
}
