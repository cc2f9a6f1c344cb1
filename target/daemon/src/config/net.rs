//! The `[[net]]` sections: net devices with their sockets, queue pairs, addresses, and the port that each is plugged into.

use std::path::PathBuf;

use port::Mac;
use vhost_user::Coalescing;

use super::identity::fnv_1a;
use super::name::Name;
use super::port::{self as ports, Ports};
use super::problem::Reason;
use super::reader::{Place, Problems, Section};
use super::served::{self, Served};
use super::words::Mode;

/// One vhost-user net device: a socket, and a port behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// Its name, unique among the devices.
    pub name: Name,
    /// Path of the vhost-user socket, at most 107 bytes.
    pub socket: PathBuf,
    /// Which side listens; default [`Mode::Server`].
    pub mode: Mode,
    /// Queue pairs, 1 to 127, on a switch or a DPDK port 1 to 64; default 1.
    pub queue_pairs: u16,
    /// Largest ring, a power of two from 4 to 32768; default 1024.
    pub queue_size_max: u16,
    /// Cores of the pollers that serve it, each in [`Reactor::cores`](super::Reactor::cores), none twice; queue pairs are
    /// dealt out over them in turn, the first owns the control queue. Default: the reactor's first core.
    pub pollers: Vec<usize>,
    /// How calls to its driver are coalesced; default [`Coalescing::OFF`].
    pub coalescing: Coalescing,
    /// The port that it is plugged into.
    pub port: Name,
    /// The guest's address, no group; default [`derived_mac`].
    pub mac: Mac,
    /// Longest frame without its Ethernet header, 68 to 9216 bytes and no more than the port's; default 1500.
    pub mtu: u16,
    /// Whether checksums and segmentation are left to each other; default true.
    pub offloads: bool,
    /// Whether it exchanges frames with the uplink of its switch only, not with other isolated devices; default false.
    pub isolated: bool,
}

const QUEUE_PAIRS_DEFAULT: u16 = 1;

/// The address of a device that is given none: locally administered, from a hash of its name, so that it is the same after a
/// restart and on the other host of a live migration. It must never change, or guests would see another network card.
#[must_use]
pub fn derived_mac(name: &Name) -> Mac {
    const LOCALLY_ADMINISTERED: u8 = 0x02;
    let [_, _, a, b, c, d, e, f] = fnv_1a(b"net/".iter().copied().chain(name.bytes())).to_be_bytes();
    Mac([a & 0xfc | LOCALLY_ADMINISTERED, b, c, d, e, f])
}

/// Reads every `[[net]]` of the text; a device with problems is left out. `cores` are the reactor's, unless those are wrong
/// themselves.
pub(super) fn read<'t>(
    root: &mut Section<'t>,
    cores: Option<&[usize]>,
    ports: &mut Ports<'t>,
    served: &mut Served<'t>,
    problems: &mut Problems,
) -> Vec<Net> {
    let sections = root.tables("net", problems);
    sections.into_iter().filter_map(|section| read_one(section, cores, ports, served, problems)).collect()
}

fn read_one<'t>(
    mut section: Section<'t>,
    cores: Option<&[usize]>,
    ports: &mut Ports<'t>,
    served: &mut Served<'t>,
    problems: &mut Problems,
) -> Option<Net> {
    let name = served.name(&mut section, problems);
    let socket = served.socket(&mut section, problems);
    let mode = served::mode(&mut section, problems);
    let given_pairs = section.take("queue_pairs");
    let queue_size_max = served::queue_size_max(&mut section, problems);
    let pollers = served::pollers(&mut section, cores, problems);
    let coalescing = served::coalescing(&mut section, problems);
    let port = section.require("port", problems).and_then(|field| {
        let port = field.name(problems)?;
        ports.plug(&port, field.place(), problems);
        Some(port)
    });
    let queue_pairs = match given_pairs {
        None => Some(QUEUE_PAIRS_DEFAULT),
        Some(field) => match port.as_ref().and_then(|port| ports.queue_pairs_max(port)) {
            Some(max) => field.integer_because(1..=max, "the port's", problems),
            None => field.integer(1..=virtio_net::QUEUE_PAIRS_MAX, problems),
        },
    };
    let mac = read_mac(&mut section, name.as_ref(), problems);
    if let Some((port, (mac, place))) = port.as_ref().zip(mac.as_ref()) {
        ports.claim_mac(port, *mac, place, problems);
    }
    let mtu = read_mtu(&mut section, port.as_ref().and_then(|port| ports.mtu(port)), problems);
    let offloads = section.take("offloads").map_or(Some(true), |field| field.boolean(problems));
    let isolated = read_isolated(&mut section, port.as_ref().is_some_and(|port| ports.is_no_switch(port)), problems);
    section.finish(problems);

    Some(Net {
        name: name?,
        socket: socket?,
        mode: mode?,
        queue_pairs: queue_pairs?,
        queue_size_max: queue_size_max?,
        pollers: pollers?,
        coalescing: coalescing?,
        port: port?,
        mac: mac?.0,
        mtu: mtu?,
        offloads: offloads?,
        isolated: isolated?,
    })
}

/// The address, and where it comes from.
fn read_mac<'t>(section: &mut Section<'t>, name: Option<&Name>, problems: &mut Problems) -> Option<(Mac, Place<'t>)> {
    let Some(field) = section.take("mac") else { return Some((derived_mac(name?), section.place().clone())) };
    let reason = match field.string(problems)?.parse::<Mac>() {
        Err(_) => Reason::NotAMac,
        Ok(mac) if mac.is_multicast() => Reason::MacIsAGroup,
        Ok(Mac([0, 0, 0, 0, 0, 0])) => Reason::MacIsZero,
        Ok(mac) => return Some((mac, field.place().clone())),
    };
    problems.at(field.place(), reason);
    None
}

/// The MTU, which the port's own bounds.
fn read_mtu(section: &mut Section<'_>, port: Option<u16>, problems: &mut Problems) -> Option<u16> {
    let Some(field) = section.take("mtu") else {
        return Some(port.map_or(ports::MTU_DEFAULT, |port| port.min(ports::MTU_DEFAULT)));
    };
    match port {
        Some(port) => field.integer_because(ports::MTU_MIN..=port, "the mtu of the port", problems),
        None => field.integer(ports::MTU_MIN..=ports::MTU_MAX, problems),
    }
}

fn read_isolated(section: &mut Section<'_>, no_switch: bool, problems: &mut Problems) -> Option<bool> {
    let Some(field) = section.take("isolated") else { return Some(false) };
    let isolated = field.boolean(problems)?;
    if isolated && no_switch {
        problems.at(field.place(), Reason::IsolatedWithoutASwitch);
        return None;
    }
    Some(isolated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_derived_from_a_name_is_pinned_and_locally_administered() {
        // Guests name their interfaces after it: it must not change between versions.
        let of = |name: &str| derived_mac(&Name::new(name).unwrap());
        assert_eq!(of("vm0net").to_string(), "16:eb:0f:c0:e7:8f");
        assert_ne!(of("vm0net"), of("vm1net"));
        for index in 0..1000 {
            let Mac([first, ..]) = of(&format!("net{index}"));
            assert_eq!(first & 0b11, 0b10, "locally administered, no group");
        }
    }
}
