//! The `[[port]]` sections: what net devices are plugged into, who is plugged into what, and uplinks. The ports themselves are
//! in the crates `port` and `port-dpdk`.

use std::collections::BTreeMap;

use port::Mac;

use super::dpdk::{self, DPDK_BUILT};
use super::name::Name;
use super::problem::Reason;
use super::reader::{Place, Problems, Section, Unique};
use super::served::check_core;

/// A port, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, unique among the ports.
    pub name: Name,
    /// What it is.
    pub kind: PortKind,
}

/// The kinds of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A DPDK ethdev.
    Dpdk(DpdkPort),
    /// Gives a device its own frames back.
    Loopback(Loopback),
    /// A learning switch between devices, with or without an uplink.
    Switch(Switch),
}

/// A DPDK ethdev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkPort {
    /// What DPDK calls it: a PCI address, or a virtual device with its arguments (`net_af_packet0,iface=eth1`).
    pub device: String,
    /// Longest frame without its Ethernet header, 68 to 9216 bytes; default 1500.
    pub mtu: u16,
    /// Descriptors of each receive queue, 32 to 16384; default 1024. The driver of the device may round it.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue, in the same way.
    pub tx_descriptors: u16,
    /// Packet buffers of each queue pair, at most 16777216; none, the default, means enough for descriptors and bursts.
    pub mbufs: Option<u32>,
    /// Whether it receives frames to all addresses, not only to that of its device; default true.
    pub promiscuous: bool,
    /// Whether its hardware does what it can: checksums and segmentation; default true.
    pub offloads: bool,
}

/// A loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loopback {
    /// Frames that it holds for each queue pair, 1 to 32768; default 1024.
    pub depth: u16,
}

/// A learning switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The port to the rest of the world, of another kind; none by default.
    pub uplink: Option<Name>,
    /// Addresses that it keeps, 1 to 1048576; default 4096.
    pub table_size: u32,
    /// Addresses that it keeps of one device, 1 to `table_size`, so that none fills the table alone; default a quarter of
    /// `table_size`, and at least 1.
    pub device_table_size: u32,
    /// Seconds until an address that was not seen is forgotten, 1 to 1000000; default 300.
    pub ageing_s: u32,
    /// Core of the poller that moves the uplink's frames; default the reactor's first.
    pub poller: usize,
}

impl PortKind {
    /// The word of the configuration for this kind.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Dpdk(_) => DPDK,
            Self::Loopback(_) => LOOPBACK,
            Self::Switch(_) => SWITCH,
        }
    }

    /// The port below this one.
    pub fn uplink(&self) -> Option<&Name> {
        match self {
            Self::Switch(switch) => switch.uplink.as_ref(),
            Self::Dpdk(_) | Self::Loopback(_) => None,
        }
    }

    /// Its longest frame without the Ethernet header, if it has a bound of its own.
    pub fn mtu(&self) -> Option<u16> {
        match self {
            Self::Dpdk(port) => Some(port.mtu),
            Self::Loopback(_) | Self::Switch(_) => None,
        }
    }
}

/// The ports as they are read: which names exist, who is plugged in, and with which address.
#[derive(Debug)]
pub(super) struct Ports<'t> {
    list: Vec<Port>,
    names: BTreeMap<Name, Entry<'t>>,
    users: BTreeMap<Name, Place<'t>>,
    macs: Unique<'t, (Name, Mac)>,
}

/// What is known of a name, even if its section has problems.
#[derive(Debug)]
struct Entry<'t> {
    place: Place<'t>,
    kind: Option<&'static str>,
    mtu: Option<u16>,
    uplink: Option<Name>,
}

impl<'t> Ports<'t> {
    /// Reads every `[[port]]` of the text. `cores` are the reactor's, unless those are wrong themselves.
    pub(super) fn read(root: &mut Section<'t>, cores: Option<&[usize]>, problems: &mut Problems) -> Self {
        let mut ports = Self { list: Vec::new(), names: BTreeMap::new(), users: BTreeMap::new(), macs: Unique::new() };
        let mut uplinks = Vec::new();
        let mut devices = Unique::new();
        for section in root.tables("port", problems) {
            ports.read_one(section, cores, &mut uplinks, &mut devices, problems);
        }
        for (uplink, place) in &uplinks {
            ports.claim(uplink, place, true, problems);
        }
        ports
    }

    /// The ports without problems, in the order of the text.
    pub(super) fn into_list(self) -> Vec<Port> {
        self.list
    }

    /// Plugs the device at `place` into `name`; notes a missing port, and a second user of one that takes one.
    pub(super) fn plug(&mut self, name: &Name, place: &Place<'t>, problems: &mut Problems) {
        self.claim(name, place, false, problems);
    }

    /// Notes an address that two devices on `name` have, if that is a switch, which could not tell them apart.
    pub(super) fn claim_mac(&mut self, name: &Name, mac: Mac, place: &Place<'t>, problems: &mut Problems) {
        if self.kind(name) == Some(SWITCH) {
            self.macs.claim((name.clone(), mac), place, problems);
        }
    }

    /// Longest frame of `name` without the Ethernet header, if it or its uplink bounds it.
    pub(super) fn mtu(&self, name: &Name) -> Option<u16> {
        let entry = self.names.get(name)?;
        let uplink = entry.uplink.as_ref().and_then(|uplink| self.names.get(uplink));
        entry.mtu.or_else(|| uplink?.mtu)
    }

    /// Most queue pairs of a device on `name`, if it bounds them.
    pub(super) fn queue_pairs_max(&self, name: &Name) -> Option<u16> {
        self.kind(name).filter(|kind| *kind != LOOPBACK).map(|_| QUEUE_PAIRS_MAX)
    }

    /// Whether `name` is known to be of another kind than a switch.
    pub(super) fn is_no_switch(&self, name: &Name) -> bool {
        self.kind(name).is_some_and(|kind| kind != SWITCH)
    }

    fn kind(&self, name: &Name) -> Option<&'static str> {
        self.names.get(name)?.kind
    }

    fn claim(&mut self, name: &Name, place: &Place<'t>, as_uplink: bool, problems: &mut Problems) {
        let reason = match (self.names.contains_key(name), self.kind(name), self.users.get(name)) {
            (false, ..) => Reason::NoSuchPort { known: self.known() },
            (_, Some(SWITCH), _) if as_uplink => Reason::UplinkIsASwitch,
            (_, Some(DPDK), Some(first)) => Reason::PortTaken { first: first.named() },
            (_, Some(DPDK), None) => {
                self.users.insert(name.clone(), place.clone());
                return;
            }
            _ => return,
        };
        problems.at(place, reason);
    }

    fn read_one(
        &mut self,
        mut section: Section<'t>,
        cores: Option<&[usize]>,
        uplinks: &mut Vec<(Name, Place<'t>)>,
        devices: &mut Unique<'t, String>,
        problems: &mut Problems,
    ) {
        let name = section.require("name", problems).and_then(|field| {
            let name = field.name(problems)?;
            Some((name, field.place().clone()))
        });
        let (word, kind) = match read_kind(&mut section, problems) {
            None => (None, None),
            Some(DPDK) => (Some(DPDK), read_dpdk(&mut section, devices, problems).map(PortKind::Dpdk)),
            Some(LOOPBACK) => (Some(LOOPBACK), read_loopback(&mut section, problems).map(PortKind::Loopback)),
            Some(_) => (Some(SWITCH), read_switch(&mut section, cores, uplinks, problems).map(PortKind::Switch)),
        };
        section.finish(problems);

        let Some((name, place)) = name else { return };
        if let Some(first) = self.names.get(&name) {
            problems.at(&place, Reason::Duplicate { first: first.place.named() });
            return;
        }
        let mtu = kind.as_ref().and_then(PortKind::mtu);
        let uplink = kind.as_ref().and_then(PortKind::uplink).cloned();
        self.names.insert(name.clone(), Entry { place, kind: word, mtu, uplink });
        self.list.extend(kind.map(|kind| Port { name, kind }));
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.names.keys().map(Name::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

const DPDK: &str = "dpdk";
const LOOPBACK: &str = "loopback";
const SWITCH: &str = "switch";
const KINDS: [&str; 3] = [DPDK, LOOPBACK, SWITCH];

/// Lower bound of every `mtu` (virtio 1.3 §5.1.4.1).
pub(super) const MTU_MIN: u16 = 68;
/// Upper bound of every `mtu`: jumbo frames of network cards.
pub const MTU_MAX: u16 = 9216;
pub(super) const MTU_DEFAULT: u16 = 1500;

/// Queue pairs of one device on a switch or a DPDK port.
const QUEUE_PAIRS_MAX: u16 = 64;

const DESCRIPTORS_MIN: u16 = 32;
const DESCRIPTORS_MAX: u16 = 16384;
const DESCRIPTORS_DEFAULT: u16 = 1024;
/// Packet buffers beside those that descriptors hold: bursts, and what threads keep at hand.
const MBUFS_BESIDE: u32 = 1024;
const MBUFS_MAX: u32 = 1 << 24;
const DEPTH_MAX: u16 = 32768;
const DEPTH_DEFAULT: u16 = 1024;
const TABLE_MAX: u32 = 1 << 20;
const TABLE_DEFAULT: u32 = 4096;
/// IEEE 802.1Q: the longest ageing time, and its default.
const AGEING_S_MAX: u32 = 1_000_000;
const AGEING_S_DEFAULT: u32 = 300;

fn read_kind(section: &mut Section<'_>, problems: &mut Problems) -> Option<&'static str> {
    let field = section.require("kind", problems);
    let reason = field.as_ref().and_then(|field| {
        let word = field.string(problems)?;
        Some(KINDS.into_iter().find(|kind| *kind == word).ok_or(Reason::NotOneOf { known: KINDS.join(", ") }))
    });
    let kind = match reason {
        Some(Ok(DPDK)) if !DPDK_BUILT => Some(Err(Reason::WithoutDpdk)),
        other => other,
    };
    match (kind, field) {
        (Some(Ok(kind)), _) => return Some(kind),
        (Some(Err(reason)), Some(field)) => problems.at(field.place(), reason),
        _ => {}
    }
    // Which other keys there may be depends on the kind.
    section.skip_rest();
    None
}

fn read_dpdk<'t>(
    section: &mut Section<'t>,
    devices: &mut Unique<'t, String>,
    problems: &mut Problems,
) -> Option<DpdkPort> {
    let device = section.require("device", problems).and_then(|field| {
        let device = dpdk::argument(&field, problems)?;
        let name = device.split(',').next().unwrap_or_default().to_owned();
        devices.claim(name, field.place(), problems);
        Some(device)
    });
    let mtu = mtu(section, problems);
    let mut descriptors = |key| {
        let field = section.take(key);
        field.map_or(Some(DESCRIPTORS_DEFAULT), |field| field.integer(DESCRIPTORS_MIN..=DESCRIPTORS_MAX, problems))
    };
    let (rx_descriptors, tx_descriptors) = (descriptors("rx_descriptors"), descriptors("tx_descriptors"));
    let mbufs = match section.take("mbufs") {
        None => Some(None),
        Some(field) => {
            let held = u32::from(rx_descriptors.unwrap_or(0)) + u32::from(tx_descriptors.unwrap_or(0));
            let why = "at least rx_descriptors + tx_descriptors + 1024";
            field.integer_because(held + MBUFS_BESIDE..=MBUFS_MAX, why, problems).map(Some)
        }
    };
    let mut switched_on = |key| section.take(key).map_or(Some(true), |field| field.boolean(problems));
    let (promiscuous, offloads) = (switched_on("promiscuous"), switched_on("offloads"));
    Some(DpdkPort {
        device: device?,
        mtu: mtu?,
        rx_descriptors: rx_descriptors?,
        tx_descriptors: tx_descriptors?,
        mbufs: mbufs?,
        promiscuous: promiscuous?,
        offloads: offloads?,
    })
}

/// The `mtu` of a section.
pub(super) fn mtu(section: &mut Section<'_>, problems: &mut Problems) -> Option<u16> {
    section.take("mtu").map_or(Some(MTU_DEFAULT), |field| field.integer(MTU_MIN..=MTU_MAX, problems))
}

fn read_loopback(section: &mut Section<'_>, problems: &mut Problems) -> Option<Loopback> {
    let depth = section.take("depth").map_or(Some(DEPTH_DEFAULT), |field| field.integer(1..=DEPTH_MAX, problems));
    Some(Loopback { depth: depth? })
}

/// The uplink goes to `uplinks` even if another key is wrong.
fn read_switch<'t>(
    section: &mut Section<'t>,
    cores: Option<&[usize]>,
    uplinks: &mut Vec<(Name, Place<'t>)>,
    problems: &mut Problems,
) -> Option<Switch> {
    let uplink = match section.take("uplink") {
        None => Some(None),
        Some(field) => field.name(problems).map(|name| {
            uplinks.push((name.clone(), field.place().clone()));
            Some(name)
        }),
    };
    let table_size =
        section.take("table_size").map_or(Some(TABLE_DEFAULT), |field| field.integer(1..=TABLE_MAX, problems));
    let device_table_size = match section.take("device_table_size") {
        None => table_size.map(|size| (size / 4).max(1)),
        Some(field) => field.integer_because(1..=table_size.unwrap_or(TABLE_MAX), "table_size", problems),
    };
    let ageing_s =
        section.take("ageing_s").map_or(Some(AGEING_S_DEFAULT), |field| field.integer(1..=AGEING_S_MAX, problems));
    let poller = match section.take("poller") {
        None => cores.map(|cores| cores[0]),
        Some(field) => field.integer(super::reactor::CORES, problems).map(|core| {
            check_core(core.into(), field.place(), cores, problems);
            core.into()
        }),
    };
    Some(Switch {
        uplink: uplink?,
        table_size: table_size?,
        device_table_size: device_table_size?,
        ageing_s: ageing_s?,
        poller: poller?,
    })
}
