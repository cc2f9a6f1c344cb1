//! The two halves of every port: the one that control threads see, and the queue that lives on a poller.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use reactor::{Armed, PollerHandle};

use crate::{FrameBatch, Offloads, PortStats};

/// A port, as control threads see it. Lives as long as the process; queues are handed out and come back.
pub trait Port: Send + Sync {
    /// Its name: the metric label and the log field.
    fn name(&self) -> &str;

    /// What it can do. Does not change.
    fn traits(&self) -> Traits;

    /// The state of its link as it is now.
    fn link(&self) -> Link;

    /// Plugs a device in: one queue for each of its queue pairs, in their order. Queues go back by being dropped, on a
    /// control thread; then a device may be attached again.
    ///
    /// # Errors
    /// See [`AttachError`].
    fn attach(&self, device: &Attachment) -> Result<Vec<Box<dyn PortQueue>>, AttachError>;

    /// Its packet buffers, if it has such of its own.
    fn buffers(&self) -> Option<Buffers> {
        None
    }

    /// Counters of the far side by name, as it names them: a DPDK port's extended statistics. May take a while.
    fn extended_stats(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// What a port can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// What frames that are sent to it may leave to be done. Whatever it lacks in hardware it does in software.
    pub tx_offloads: Offloads,
    /// What frames that come from it may have left to be done: what a device offers its driver to be spared of.
    pub rx_offloads: Offloads,
    /// Devices that may be attached at once.
    pub devices_max: usize,
    /// Queues of one device, at most.
    pub queues_max: u16,
    /// Longest frame without its Ethernet header that it carries in one piece, in bytes.
    pub mtu_max: u16,
    /// Its own address, if it has one.
    pub mac: Option<Mac>,
}

/// Packet buffers of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Those that hold frames, or wait in rings of the hardware for some.
    pub used: u64,
    /// Those that can be had.
    pub free: u64,
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether frames go through.
    pub up: bool,
    /// Mbit/s, if it is known.
    pub speed_mbps: Option<u32>,
}

/// A device that is plugged in.
#[derive(Clone)]
pub struct Attachment {
    /// The device's name.
    pub device: Arc<str>,
    /// Its address.
    pub mac: Mac,
    /// Longest frame without its Ethernet header that it sends in one piece, in bytes.
    pub mtu: u16,
    /// The poller of each queue, in their order.
    pub pollers: Vec<PollerHandle>,
    /// Counters of each queue, in their order; they outlive it.
    pub stats: Vec<Arc<PortStats>>,
    /// Exchanges frames with the uplink of a switch only, not with its other devices.
    pub isolated: bool,
}

/// Why a device cannot be plugged in. Texts name the value and the bound.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It has as many devices as it takes.
    #[error("port {port} takes {max} device(s), and {attached} has it")]
    Taken {
        /// The port.
        port: String,
        /// Its bound.
        max: usize,
        /// Who has it, or how many.
        attached: String,
    },
    /// Too many queue pairs.
    #[error("port {port}: {queues} queue pairs, must be at most {max}")]
    Queues {
        /// The port.
        port: String,
        /// What was asked for.
        queues: usize,
        /// Its bound.
        max: u16,
    },
    /// Frames too long.
    #[error("port {port}: MTU {mtu}, must be at most {max}")]
    Mtu {
        /// The port.
        port: String,
        /// What was asked for.
        mtu: u16,
        /// Its bound.
        max: u16,
    },
    /// Something underneath failed.
    #[error("port {port}: {text}")]
    Failed {
        /// The port.
        port: String,
        /// What it said.
        text: String,
    },
}

/// One queue pair's way through a port. Lives on one poller: must not block, lock, allocate, log or enter the kernel more than
/// once a burst.
pub trait PortQueue: Send {
    /// Sends frames, oldest first, and says how many it took: always the first ones. Those that it took belong to it until
    /// they are done ([`PortQueue::tx_done`]); it counts what becomes of them, errors included. Those that it did not take
    /// found it full; the caller may try again or drop them.
    fn tx_burst(&mut self, batch: &FrameBatch) -> usize;

    /// How many frames, oldest first, are done since the last call: their memory is no longer looked at.
    fn tx_done(&mut self) -> usize;

    /// Receives up to `limit` frames into `batch`, which is cleared first. Their memory stays as it is until they are done
    /// ([`PortQueue::rx_done`]); frames of several bursts may be out at once, within a bound of the port's own, beyond which
    /// it gives none. Returns their number.
    ///
    /// A device that has no room for frames takes them all the same and drops them: left in here they hold up who sent them.
    fn rx_burst(&mut self, batch: &mut FrameBatch, limit: usize) -> usize;

    /// So many frames, the oldest of those that are out, have been copied, or are not wanted. All of them, if there are fewer.
    fn rx_done(&mut self, frames: usize);

    /// Whether its device can receive now. A queue starts closed, and one that is closed is given no frames that another
    /// could take.
    fn set_open(&mut self, open: bool);

    /// As [`reactor::Source::arm`]: whether the poller may sleep. Whoever has frames for this queue wakes the poller then.
    fn arm(&mut self) -> Armed {
        Armed::MustPoll { deadline: None }
    }

    /// As [`reactor::Source::disarm`].
    fn disarm(&mut self) {}
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether it names a group: broadcast included.
    #[must_use]
    #[inline]
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Not an Ethernet address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an Ethernet address: six bytes in hexadecimal with colons, as 52:54:00:00:00:01")]
pub struct BadMac(String);

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Mac, BadMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()));
            *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(|| BadMac(text.to_owned()))?;
        }
        if parts.next().is_some() { Err(BadMac(text.to_owned())) } else { Ok(Mac(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_reads_what_it_prints_and_nothing_else() {
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        assert_eq!(mac.to_string(), "52:54:00:00:00:01");
        assert_eq!("52:54:00:00:00:01".parse(), Ok(mac));
        for bad in
            ["", "52:54:00:00:00", "52:54:00:00:00:01:02", "52:54:0:0:0:1", "+2:54:00:00:00:01", "52-54-00-00-00-01"]
        {
            assert_eq!(bad.parse::<Mac>(), Err(BadMac(bad.to_owned())), "{bad}");
        }
    }
}
