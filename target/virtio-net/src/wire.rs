//! Wire layout of virtio-net (virtio 1.3 §5.1): feature bits, the header in front of every frame, config space, control
//! commands. All integers are little endian. No decision is made here.

use port::{Mac, Offloads};

/// Feature bits (§5.1.3, §6).
pub mod feature {
    /// Checksums of frames from the driver may be left to the device.
    pub const CSUM: u64 = 1;
    /// Checksums of frames to the driver may be left to it.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// CTRL_GUEST_OFFLOADS_SET.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// The MTU is in the config space.
    pub const MTU: u64 = 1 << 3;
    /// The MAC address is in the config space.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes long TCP/IPv4 frames.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The driver takes long TCP/IPv6 frames.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver takes long frames with ECN.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The driver takes long UDP frames (UFO).
    pub const GUEST_UFO: u64 = 1 << 10;
    /// The device takes long TCP/IPv4 frames.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The device takes long TCP/IPv6 frames.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The device takes long frames with ECN.
    pub const HOST_ECN: u64 = 1 << 13;
    /// The device takes long UDP frames (UFO).
    pub const HOST_UFO: u64 = 1 << 14;
    /// A received frame may be in several buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The link status is in the config space.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// RX mode commands.
    pub const CTRL_RX: u64 = 1 << 18;
    /// VLAN filter commands.
    pub const CTRL_VLAN: u64 = 1 << 19;
    /// More RX mode commands.
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    /// The driver can announce itself.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// Several queue pairs.
    pub const MQ: u64 = 1 << 22;
    /// The address can be set.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    /// Descriptors may be in tables of their own.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Event indices.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// VHOST_USER_F_PROTOCOL_FEATURES.
    pub const VHOST_USER_PROTOCOL: u64 = 1 << 30;
    /// Virtio 1.
    pub const VERSION_1: u64 = 1 << 32;
    /// Packed rings.
    pub const RING_PACKED: u64 = 1 << 34;
    /// Buffers are used in the order that they were made available in.
    pub const IN_ORDER: u64 = 1 << 35;
    /// The driver takes long UDP/IPv4 frames (USO).
    pub const GUEST_USO4: u64 = 1 << 54;
    /// The driver takes long UDP/IPv6 frames (USO).
    pub const GUEST_USO6: u64 = 1 << 55;
    /// The device takes long UDP frames (USO).
    pub const HOST_USO: u64 = 1 << 56;
    /// Speed and duplex are in the config space.
    pub const SPEED_DUPLEX: u64 = 1 << 63;
}

/// The offload features of a device whose port takes `tx` and gives `rx`.
#[must_use]
pub fn offload_features(tx: Offloads, rx: Offloads) -> u64 {
    const TX: [(Offloads, u64); 5] = [
        (Offloads::TCP4, feature::HOST_TSO4),
        (Offloads::TCP6, feature::HOST_TSO6),
        (Offloads::ECN, feature::HOST_ECN),
        (Offloads::UDP4.union(Offloads::UDP6), feature::HOST_USO),
        (Offloads::UDP_FRAGMENTS, feature::HOST_UFO),
    ];
    const RX: [(Offloads, u64); 6] = [
        (Offloads::TCP4, feature::GUEST_TSO4),
        (Offloads::TCP6, feature::GUEST_TSO6),
        (Offloads::ECN, feature::GUEST_ECN),
        (Offloads::UDP4, feature::GUEST_USO4),
        (Offloads::UDP6, feature::GUEST_USO6),
        (Offloads::UDP_FRAGMENTS, feature::GUEST_UFO),
    ];
    // A checksum that is known to be right is worth GUEST_CSUM, too.
    let mut features = feature::GUEST_CSUM;
    if tx.contains(Offloads::CHECKSUM) {
        features |= feature::CSUM;
        features |= TX.iter().filter(|(offload, _)| tx.contains(*offload)).fold(0, |all, (_, bit)| all | bit);
    }
    if rx.contains(Offloads::CHECKSUM) {
        features |= RX.iter().filter(|(offload, _)| rx.contains(*offload)).fold(0, |all, (_, bit)| all | bit);
    }
    features
}

/// The config space (§5.1.4), as far as the device's features make it valid.
#[derive(Clone, Copy, Debug)]
pub struct ConfigSpace {
    /// Address of the driver.
    pub mac: Mac,
    /// Whether frames go through.
    pub link_up: bool,
    /// Queue pairs that there are.
    pub queue_pairs: u16,
    /// Longest frame without its Ethernet header, in bytes.
    pub mtu: u16,
    /// Speed of the link, if it is known; full duplex then.
    pub speed_mbps: Option<u32>,
}

impl ConfigSpace {
    /// As it lies there: mac, status, max_virtqueue_pairs, mtu, speed, duplex.
    #[must_use]
    pub fn bytes(&self) -> [u8; CONFIG_LEN] {
        let mut bytes = [0; CONFIG_LEN];
        bytes[..6].copy_from_slice(&self.mac.0);
        bytes[6..8].copy_from_slice(&u16::from(self.link_up).to_le_bytes());
        bytes[8..10].copy_from_slice(&self.queue_pairs.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.speed_mbps.unwrap_or(u32::MAX).to_le_bytes());
        bytes[16] = if self.speed_mbps.is_some() { 1 } else { 0xff };
        bytes
    }
}

/// Length of `struct virtio_net_config` up to and with `duplex` (§5.1.4).
pub const CONFIG_LEN: usize = 17;
