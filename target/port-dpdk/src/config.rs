//! What is configured: DPDK itself, and each port. What becomes of it is in `eal` and `port`.

/// The table `[dpdk]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DpdkConfig {
    /// Further arguments of DPDK's EAL. What they say about memory, cores, devices and telemetry replaces what would have been
    /// chosen.
    pub eal_args: Vec<String>,
    /// Memory in MiB for others that share EAL, where it has to be said from the start.
    pub further_memory_mib: u64,
}

/// One port. [`DpdkPortConfig::new`] fills in what is usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkPortConfig {
    /// Its name: metric label and log field.
    pub name: String,
    /// DPDK's description of the device: `net_af_packet0,iface=eth1`, `net_tap0,iface=tap0`, `0000:3b:00.0`.
    pub device: String,
    /// Longest frame without its Ethernet header, in bytes: 68 to 9600, and what the device can.
    pub mtu: u16,
    /// Queue pairs of the device that is plugged in, at most: 1 to 64, and what the device has. Memory is planned for so many.
    pub queues: u16,
    /// Descriptors of each receive queue: 32 to 16384, and what the device can.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue: as above.
    pub tx_descriptors: u16,
    /// Mbufs of each queue pair. `None`: enough for all descriptors and what is on its way (net_af_xdp takes 2048 at once).
    pub mbufs: Option<u32>,
    /// Receives frames to all addresses; else those to the device that is plugged in, and all multicast.
    pub promiscuous: bool,
    /// Lets the device's hardware do what it can: checksums and segmentation.
    pub offloads: bool,
}

/// A value that a port cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {port}: {field} {value}, must be {least} to {most}")]
pub struct BadValue {
    /// The port.
    pub port: String,
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: u32,
    /// Its lower bound.
    pub least: u32,
    /// Its upper bound.
    pub most: u32,
}

impl DpdkPortConfig {
    /// A port of this name and device, and what is usual otherwise.
    #[must_use]
    pub fn new(name: impl Into<String>, device: impl Into<String>) -> DpdkPortConfig {
        DpdkPortConfig {
            name: name.into(),
            device: device.into(),
            mtu: 1500,
            queues: 4,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mbufs: None,
            promiscuous: true,
            offloads: true,
        }
    }

    /// Checks what can be checked without the device.
    ///
    /// # Errors
    /// The first value that is out of bounds.
    pub fn check(&self) -> Result<(), BadValue> {
        let bound = |field, value: u32, least, most| {
            let port = self.name.clone();
            if (least..=most).contains(&value) { Ok(()) } else { Err(BadValue { port, field, value, least, most }) }
        };
        bound("mtu", u32::from(self.mtu), 68, 9600)?;
        bound("queues", u32::from(self.queues), 1, 64)?;
        bound("rx_descriptors", u32::from(self.rx_descriptors), 32, 16384)?;
        bound("tx_descriptors", u32::from(self.tx_descriptors), 32, 16384)?;
        bound("mbufs", self.mbufs_per_queue(), self.mbufs_least(), 1 << 24)
    }

    /// Mbufs of each queue pair.
    pub(crate) fn mbufs_per_queue(&self) -> u32 {
        self.mbufs.unwrap_or_else(|| (self.mbufs_least() + 512).next_power_of_two() - 1)
    }

    /// Those that descriptors and bursts may hold, and the caches of two threads.
    fn mbufs_least(&self) -> u32 {
        u32::from(self.rx_descriptors) + u32::from(self.tx_descriptors) + 4 * 64 + 2 * (MBUF_CACHE * 3 / 2)
    }

    /// Longest frame that is taken: with an Ethernet header and one VLAN tag.
    pub(crate) fn frame_max(&self) -> u32 {
        u32::from(self.mtu) + 18
    }

    /// Bytes of an mbuf, if a frame of the longest kind must fit one.
    pub(crate) fn room_whole(&self) -> u16 {
        ROOM.max((self.frame_max() as u16).next_multiple_of(64))
    }
}

/// Mbufs that a poller keeps at hand.
pub(crate) const MBUF_CACHE: u32 = 256;
/// Bytes of an mbuf: what drivers expect at least.
pub(crate) const ROOM: u16 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_out_of_bounds_names_field_value_and_bound() {
        let good = DpdkPortConfig::new("up", "net_null0");
        assert_eq!(good.check(), Ok(()));
        assert_eq!(good.mbufs_per_queue(), 4095);
        let text = |config: DpdkPortConfig| config.check().unwrap_err().to_string();
        assert_eq!(text(DpdkPortConfig { mtu: 67, ..good.clone() }), "port up: mtu 67, must be 68 to 9600");
        assert_eq!(text(DpdkPortConfig { queues: 0, ..good.clone() }), "port up: queues 0, must be 1 to 64");
        assert_eq!(
            text(DpdkPortConfig { mbufs: Some(100), ..good.clone() }),
            "port up: mbufs 100, must be 3072 to 16777216"
        );
        assert_eq!(
            text(DpdkPortConfig { rx_descriptors: 16, ..good }),
            "port up: rx_descriptors 16, must be 32 to 16384"
        );
    }
}
