//! What of a configuration only a start looks at: found here, told with the key, and refused by `reload.rs`.

use std::fmt::Debug;

use crate::config::{Config, Controller, DpdkPort, Loopback, Metrics, Net, Port, PortKind, Switch};

/// Every difference that cannot be made while the target runs: a text with key, new and present value.
pub(super) fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Differences(Vec::new());
    found.value("reactor.cores", &old.reactor.cores, &new.reactor.cores);
    found.value("reactor.idle", &old.reactor.idle.as_str(), &new.reactor.idle.as_str());
    found.value("metrics.listen", &old.metrics.listen, &new.metrics.listen);
    if found.0.is_empty() {
        found.rest("reactor", &old.reactor, &new.reactor);
        // Token and certificate are read anew with every reload.
        let Metrics { listen: _, token_file: _, tls: _ } = &new.metrics;
    }
    for (index, controller) in new.controllers.iter().enumerate() {
        match old.controller(&controller.name) {
            Some(before) => found.controller(index, before, controller),
            None => found.0.push(format!(
                "scsi[{index}].name = \"{}\": the running target has no such controller; {RESTART}",
                controller.name
            )),
        }
    }
    for controller in old.controllers.iter().filter(|controller| new.controller(&controller.name).is_none()) {
        found.0.push(format!("scsi: the controller \"{}\" is missing; {RESTART}", controller.name));
    }
    found.value("dpdk.eal_args", &old.dpdk.eal_args, &new.dpdk.eal_args);
    if old.spdk != new.spdk {
        found.0.push(format!("spdk: is looked at by a start only; {RESTART}"));
    }
    found.ports(old, new);
    found.nets(old, new);
    found.0
}

struct Differences(Vec<String>);

impl Differences {
    fn controller(&mut self, index: usize, old: &Controller, new: &Controller) {
        let before = self.0.len();
        let key = |name: &str| format!("scsi[{index}].{name}");
        self.value(&key("socket"), &old.socket, &new.socket);
        self.value(&key("mode"), &old.mode.as_str(), &new.mode.as_str());
        self.value(&key("queues"), &old.queues, &new.queues);
        self.value(&key("queue_size_max"), &old.queue_size_max, &new.queue_size_max);
        self.value(&key("pollers"), &old.pollers, &new.pollers);
        self.value(&key("in_order"), &old.in_order, &new.in_order);
        if self.0.len() == before {
            let (limits, coalescing, luns) = (new.limits, new.coalescing, new.luns.clone());
            let with = Controller { limits, coalescing, luns, ..old.clone() };
            self.rest(&format!("scsi[{index}]"), &with, new);
        }
    }

    fn ports(&mut self, old: &Config, new: &Config) {
        for (index, port) in new.ports.iter().enumerate() {
            match old.port(&port.name) {
                Some(before) => self.port(index, before, port),
                None => self.new_one("port", index, &port.name),
            }
        }
        for port in old.ports.iter().filter(|port| new.port(&port.name).is_none()) {
            self.0.push(format!("port: the port \"{}\" is missing; {RESTART}", port.name));
        }
    }

    fn port(&mut self, index: usize, old: &Port, new: &Port) {
        let key = |name: &str| format!("port[{index}].{name}");
        match (&old.kind, &new.kind) {
            (PortKind::Dpdk(old), PortKind::Dpdk(new)) => {
                let DpdkPort { device, mtu, rx_descriptors, tx_descriptors, mbufs, promiscuous, offloads } = new;
                self.value(&key("device"), &old.device, device);
                self.value(&key("mtu"), &old.mtu, mtu);
                self.value(&key("rx_descriptors"), &old.rx_descriptors, rx_descriptors);
                self.value(&key("tx_descriptors"), &old.tx_descriptors, tx_descriptors);
                self.value(&key("mbufs"), &old.mbufs.unwrap_or(0), &mbufs.unwrap_or(0));
                self.value(&key("promiscuous"), &old.promiscuous, promiscuous);
                self.value(&key("offloads"), &old.offloads, offloads);
            }
            (PortKind::Loopback(old), PortKind::Loopback(Loopback { depth })) => {
                self.value(&key("depth"), &old.depth, depth);
            }
            (PortKind::Switch(old), PortKind::Switch(new)) => {
                let Switch { uplink, table_size, device_table_size, ageing_s, poller } = new;
                let uplink_of = |uplink: &Option<crate::config::Name>| uplink.as_deref().unwrap_or("").to_owned();
                self.value(&key("uplink"), &uplink_of(&old.uplink), &uplink_of(uplink));
                self.value(&key("table_size"), &old.table_size, table_size);
                self.value(&key("device_table_size"), &old.device_table_size, device_table_size);
                self.value(&key("ageing_s"), &old.ageing_s, ageing_s);
                self.value(&key("poller"), &old.poller, poller);
            }
            (old, new) => self.value(&key("kind"), &old.as_str(), &new.as_str()),
        }
    }

    fn nets(&mut self, old: &Config, new: &Config) {
        for (index, net) in new.nets.iter().enumerate() {
            match old.net(&net.name) {
                Some(before) => self.net(index, before, net),
                None => self.new_one("net", index, &net.name),
            }
        }
        for net in old.nets.iter().filter(|net| new.net(&net.name).is_none()) {
            self.0.push(format!("net: the net device \"{}\" is missing; {RESTART}", net.name));
        }
    }

    fn net(&mut self, index: usize, old: &Net, new: &Net) {
        let key = |name: &str| format!("net[{index}].{name}");
        let Net {
            name: _, socket, mode, queue_pairs, queue_size_max, pollers, port, mac, mtu, offloads, isolated, ..
        } = new;
        self.value(&key("socket"), &old.socket, socket);
        self.value(&key("mode"), &old.mode.as_str(), &mode.as_str());
        self.value(&key("queue_pairs"), &old.queue_pairs, queue_pairs);
        self.value(&key("queue_size_max"), &old.queue_size_max, queue_size_max);
        self.value(&key("pollers"), &old.pollers, pollers);
        self.value(&key("port"), &old.port.as_str(), &port.as_str());
        self.value(&key("mac"), &old.mac.to_string(), &mac.to_string());
        self.value(&key("mtu"), &old.mtu, mtu);
        self.value(&key("offloads"), &old.offloads, offloads);
        self.value(&key("isolated"), &old.isolated, isolated);
    }

    fn new_one(&mut self, section: &str, index: usize, name: &str) {
        self.0.push(format!("{section}[{index}].name = {name:?}: the running target has none of that name; {RESTART}"));
    }

    fn value<T: PartialEq + Debug>(&mut self, key: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(format!("{key} = {new:?}: is {old:?} in the running target; {RESTART}"));
        }
    }

    /// Differences in something that has no text of its own above.
    fn rest<T: PartialEq>(&mut self, section: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(format!(
                "{section}: differs from the running target in more than LUNs, limits and coalescing; {RESTART}"
            ));
        }
    }
}

const RESTART: &str = "that takes a restart";
