//! The learning switch: any number of devices and one uplink. VLAN tags are carried as they are, and one table serves all
//! VLANs; no spanning tree, no multicast snooping, no filtering by VLAN.
//!
//! A frame between guests is copied once, by its receiver. The sender's queue lends it: a handle goes into the bounded
//! inbox of each receiver, the receiver copies from the sender's memory, and when all handles have come back the sender's
//! guest gets its buffer back. Nothing on that way waits, locks or allocates:
//!
//! | file | what |
//! |---|---|
//! | `table.rs` | which address is behind which port |
//! | `member.rs` | who is plugged in, and the way to their queues |
//! | `inbox.rs`, `claims.rs` | how a receiver closes, and how a sender takes back, at any time; each with a loom model |
//! | `forward.rs` | the sending half of a queue |
//! | `queue.rs`, `uplink.rs` | a device's queue pair, and the source that polls the uplink |
//!
//! A receiver that leaves frames in its inbox loses them: after 100 ms the sender takes them back, so that no guest waits for
//! another one's poller when it stops.

mod claims;
mod flow;
mod forward;
mod inbox;
mod member;
mod queue;
mod stats;
mod table;
mod uplink;

use std::sync::Arc;
use std::time::Duration;

use reactor::{PollerHandle, Tsc};

use crate::{AttachError, Attachment, Link, Offloads, Port, PortQueue, PortStats, Traits};
use member::{Member, Roster};
use queue::SwitchQueue;
pub use stats::SwitchStats;
use table::{MacTable, PortId};
pub use uplink::Uplink;

/// How a [`Switch`] is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchConfig {
    /// Addresses that it remembers at most: 1 to 1048576.
    pub entries_max: u32,
    /// Addresses that it remembers of one device at most, so that none can fill the table alone: 1 to `entries_max`.
    pub device_entries_max: u32,
    /// An address from which no frame has come for so long is forgotten.
    pub age: Duration,
    /// Devices that may be plugged in, beside the uplink: 1 to 1024.
    pub devices_max: usize,
    /// Frames that each queue may have on their way at once: 1 to 65536.
    pub frames_max: usize,
    /// Frames that wait for one receiver at most: 1 to 65536.
    pub inbox_frames: usize,
    /// Longest frame without its Ethernet header that goes to the uplink in one piece, in bytes: 68 to what the uplink can.
    pub uplink_mtu: u16,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        SwitchConfig {
            entries_max: 4096,
            device_entries_max: 1024,
            age: Duration::from_secs(300),
            devices_max: 64,
            frames_max: 1024,
            inbox_frames: 512,
            uplink_mtu: 1500,
        }
    }
}

/// A value that a [`SwitchConfig`] cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}, must be {min} to {max}")]
pub struct BadSwitch {
    /// Its field.
    pub field: &'static str,
    /// What it is.
    pub value: u64,
    /// The least that it may be.
    pub min: u64,
    /// The most.
    pub max: u64,
}

impl SwitchConfig {
    /// Looks whether all values are in their bounds.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), BadSwitch> {
        let bounds: [(&'static str, u64, u64, u64); 7] = [
            ("entries_max", self.entries_max.into(), 1, 1 << 20),
            ("device_entries_max", self.device_entries_max.into(), 1, self.entries_max.into()),
            ("age", self.age.as_secs(), 1, AGE_SECONDS_MAX),
            ("devices_max", self.devices_max as u64, 1, 1024),
            ("frames_max", self.frames_max as u64, 1, 1 << 16),
            ("inbox_frames", self.inbox_frames as u64, 1, 1 << 16),
            ("uplink_mtu", self.uplink_mtu.into(), 68, u16::MAX.into()),
        ];
        match bounds.into_iter().find(|(_, value, min, max)| value < min || value > max) {
            Some((field, value, min, max)) => Err(BadSwitch { field, value, min, max }),
            None => Ok(()),
        }
    }
}

/// A learning switch.
pub struct Switch {
    name: String,
    shared: Arc<Shared>,
    uplink: Option<Arc<dyn Port>>,
    uplink_port_stats: Arc<PortStats>,
}

/// What all queues of a switch have in common.
pub(crate) struct Shared {
    config: SwitchConfig,
    table: MacTable,
    roster: Roster,
    stats: Arc<SwitchStats>,
    uplink_stats: Arc<PortStats>,
}

impl Switch {
    /// A switch of that name. The uplink carries nothing before [`Switch::uplink_source`] polls it.
    ///
    /// # Errors
    /// If the configuration is out of bounds.
    pub fn new(name: &str, config: SwitchConfig, uplink: Option<Arc<dyn Port>>) -> Result<Switch, BadSwitch> {
        config.check()?;
        let ports = config.devices_max + 1;
        let shared = Shared {
            config,
            table: MacTable::new(config.entries_max, config.device_entries_max, ports, config.age),
            roster: Roster::new(ports),
            stats: Arc::default(),
            uplink_stats: Arc::default(),
        };
        Ok(Switch { name: name.to_owned(), shared: Arc::new(shared), uplink, uplink_port_stats: Arc::default() })
    }

    /// Plugs the uplink in. What comes back is to be given to `poller` and to stay there; `None` if the switch has no uplink.
    ///
    /// # Errors
    /// What the uplink said, or that it is plugged in already.
    pub fn uplink_source(&self, poller: &PollerHandle) -> Result<Option<Uplink>, AttachError> {
        let Some(uplink) = &self.uplink else { return Ok(None) };
        let pollers = std::slice::from_ref(poller);
        let member = Arc::new(Member::new(false, pollers, self.shared.config.inbox_frames));
        self.shared.roster.change(|members| match &members[0] {
            Some(_) => Err(self.failed("its uplink is plugged in already")),
            None => {
                members[0] = Some(Arc::clone(&member));
                Ok(())
            }
        })?;
        match self.plug_into(&**uplink, poller) {
            Ok(queue) => Ok(Some(Uplink::new(&self.shared, queue, member))),
            Err(error) => {
                self.shared.unplug(forward::UPLINK);
                Err(error)
            }
        }
    }

    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<SwitchStats> {
        &self.shared.stats
    }

    /// What the uplink counts of the switch, which is a device to it: *tx* is what the switch sent to it.
    #[must_use]
    pub fn uplink_port_stats(&self) -> &Arc<PortStats> {
        &self.uplink_port_stats
    }

    /// What the switch counts of its uplink, which is a device to it: *tx* is what came from the uplink.
    #[must_use]
    pub fn uplink_stats(&self) -> &Arc<PortStats> {
        &self.shared.uplink_stats
    }

    fn plug_into(&self, uplink: &dyn Port, poller: &PollerHandle) -> Result<Box<dyn PortQueue>, AttachError> {
        let traits = uplink.traits();
        let device = Attachment {
            device: self.name.as_str().into(),
            mac: traits.mac.unwrap_or_default(),
            mtu: self.shared.config.uplink_mtu,
            pollers: vec![poller.clone()],
            stats: vec![Arc::clone(&self.uplink_port_stats)],
            isolated: false,
        };
        let mut queues = uplink.attach(&device)?;
        let failed = || AttachError::Failed { port: uplink.name().to_owned(), text: "it gave no queue".to_owned() };
        queues.pop().ok_or_else(failed)
    }

    fn failed(&self, text: &str) -> AttachError {
        AttachError::Failed { port: self.name.clone(), text: text.to_owned() }
    }
}

impl Port for Switch {
    fn name(&self) -> &str {
        &self.name
    }

    fn traits(&self) -> Traits {
        Traits {
            // Receivers do what is left, each in its own way; so does the uplink.
            tx_offloads: Offloads::all(),
            rx_offloads: Offloads::all(),
            devices_max: self.shared.config.devices_max,
            queues_max: QUEUES_MAX,
            mtu_max: self.uplink.as_ref().map_or(u16::MAX, |uplink| uplink.traits().mtu_max),
            mac: None,
        }
    }

    /// Up, whatever the uplink's is: the other devices can be reached.
    fn link(&self) -> Link {
        Link { up: true, speed_mbps: self.uplink.as_ref().and_then(|uplink| uplink.link().speed_mbps) }
    }

    fn attach(&self, device: &Attachment) -> Result<Vec<Box<dyn PortQueue>>, AttachError> {
        assert_eq!(device.pollers.len(), device.stats.len(), "queue pairs of '{}'", device.device);
        let (queues, mtu_max) = (device.pollers.len(), self.traits().mtu_max);
        if queues == 0 {
            return Ok(Vec::new());
        }
        if queues > usize::from(QUEUES_MAX) {
            return Err(AttachError::Queues { port: self.name.clone(), queues, max: QUEUES_MAX });
        }
        if device.mtu > mtu_max {
            return Err(AttachError::Mtu { port: self.name.clone(), mtu: device.mtu, max: mtu_max });
        }
        let inbox_frames = self.shared.config.inbox_frames;
        let member = Arc::new(Member::new(device.isolated, &device.pollers, inbox_frames));
        let free = self.shared.roster.change(|members| {
            let free = (1..members.len()).find(|port| members[*port].is_none());
            free.inspect(|port| members[*port] = Some(Arc::clone(&member)))
        });
        let taken = || AttachError::Taken {
            port: self.name.clone(),
            max: self.shared.config.devices_max,
            attached: "another device".to_owned(),
        };
        let port = PortId(free.ok_or_else(taken)? as u16);
        let queue = |(queue, stats)| SwitchQueue::new(&self.shared, port, &member, queue, stats);
        Ok(device.stats.iter().enumerate().map(|pair| Box::new(queue(pair)) as Box<dyn PortQueue>).collect())
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        self.shared.table.sweep(Tsc::now(), &self.shared.stats);
        let own = self.shared.stats.named().into_iter().map(|(name, value)| (name.to_owned(), value));
        let uplink = self.uplink.as_ref().map(|uplink| uplink.extended_stats()).unwrap_or_default();
        own.chain(uplink.into_iter().map(|(name, value)| (format!("uplink_{name}"), value))).collect()
    }
}

impl Shared {
    /// The last queue of a device is gone. Control threads only.
    fn unplug(&self, port: PortId) {
        self.table.forget_port(port, &self.stats);
        self.roster.change(|members| members[usize::from(port.0)] = None);
    }
}

/// Queue pairs of one device: a bit each in one word.
const QUEUES_MAX: u16 = 64;
/// A year.
const AGE_SECONDS_MAX: u64 = 31_536_000;

#[cfg(test)]
mod tests;
