//! Notes on ports and net devices.

use std::collections::BTreeSet;

use super::Note;
use crate::config::{Config, Idle, Name, Net, Port, PortKind};
use crate::qemu_args::NET_QUEUE_SIZES;

pub(super) fn notes(config: &Config) -> Vec<Note> {
    let mut notes = unused_ports(config);
    notes.extend(config.ports.iter().enumerate().filter_map(|(index, port)| {
        let (key, text) = never_sleeps(config, port)?;
        Some(Note { key: format!("port[{index}].{key}"), text })
    }));
    for (index, net) in config.nets.iter().enumerate() {
        let of_net = [idle_pollers(net), ring_size(net), alone(config, net), super::coalescing(net.coalescing)];
        notes.extend(of_net.into_iter().flatten().map(|(key, text)| Note { key: format!("net[{index}].{key}"), text }));
    }
    notes
}

fn unused_ports(config: &Config) -> Vec<Note> {
    let by_nets = config.nets.iter().map(|net| &net.port);
    let by_switches = config.ports.iter().filter_map(|port| port.kind.uplink());
    let used: BTreeSet<&Name> = by_nets.chain(by_switches).collect();
    let unused = config.ports.iter().enumerate().filter(|(_, port)| !used.contains(&port.name));
    unused
        .map(|(index, port)| Note {
            key: format!("port[{index}].name = \"{}\"", port.name),
            text: "no net device and no switch uses this one".to_owned(),
        })
        .collect()
}

/// A DPDK port tells nobody that it has received something.
fn never_sleeps(config: &Config, port: &Port) -> Option<(String, String)> {
    let PortKind::Dpdk(dpdk) = &port.kind else { return None };
    if config.reactor.idle == Idle::Busy {
        return None;
    }
    let users = config.nets.iter().filter(|net| net.port == port.name).flat_map(|net| &net.pollers);
    let switches = config.ports.iter().filter_map(|other| match &other.kind {
        PortKind::Switch(switch) if switch.uplink.as_ref() == Some(&port.name) => Some(&switch.poller),
        _ => None,
    });
    let cores: BTreeSet<&usize> = users.chain(switches).collect();
    if cores.is_empty() {
        return None;
    }
    let cores: Vec<String> = cores.into_iter().map(usize::to_string).collect();
    let text = format!(
        "a DPDK port does not tell when frames have come, so the pollers on these cores never sleep while it is in use, \
         although reactor.idle is \"adaptive\": {}",
        cores.join(", ")
    );
    Some((format!("device = {:?}", dpdk.device), text))
}

fn idle_pollers(net: &Net) -> Option<(String, String)> {
    let (pollers, pairs) = (net.pollers.len(), net.queue_pairs);
    let text = format!("{pollers} pollers for {pairs} queue pairs: some of them will have none");
    (pollers > usize::from(pairs)).then(|| ("pollers".to_owned(), text))
}

fn ring_size(net: &Net) -> Option<(String, String)> {
    let (size, least, most) = (net.queue_size_max, NET_QUEUE_SIZES.start(), NET_QUEUE_SIZES.end());
    let text = if size < *least {
        format!("QEMU's smallest rx_queue_size and tx_queue_size are {least}, which would be refused")
    } else if size > *most {
        format!("QEMU's largest rx_queue_size and tx_queue_size are {most}")
    } else {
        return None;
    };
    Some((format!("queue_size_max = {size}"), text))
}

fn alone(config: &Config, net: &Net) -> Option<(String, String)> {
    let has_uplink = config.port(&net.port)?.kind.uplink().is_some();
    let text = format!("the switch \"{}\" has no uplink, so this device exchanges frames with nobody", net.port);
    (net.isolated && !has_uplink).then(|| ("isolated = true".to_owned(), text))
}
