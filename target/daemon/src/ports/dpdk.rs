//! Ports of kind `dpdk`, as far as the wiring goes: what the crate `port-dpdk` is told, and when DPDK is started.

use std::sync::Arc;

use port::Port;
use port_dpdk::{DpdkConfig, DpdkPort, DpdkPortConfig, StartedEal, start_eal};

use super::OpenError;
use crate::config::{self, Config, PortKind};

/// DPDK, if a port needs it.
pub(super) struct Dpdk {
    eal: Option<StartedEal>,
    ports: Vec<DpdkPortConfig>,
}

impl Dpdk {
    /// Starts DPDK if the configuration has a port of it. Its own threads keep off the pollers' cores where there are others.
    pub(super) fn start(config: &Config) -> Result<Dpdk, OpenError> {
        let ports: Vec<DpdkPortConfig> =
            config.ports.iter().filter_map(|port| port_config(port, queue_pairs(config, port))).collect();
        if ports.is_empty() {
            return Ok(Dpdk { eal: None, ports });
        }
        let dpdk = DpdkConfig { eal_args: config.dpdk.eal_args.clone(), further_memory_mib: spdk_memory_mib(config) };
        let eal = start_eal(&dpdk, &ports, &control_cores(&config.reactor.cores))
            .map_err(|error| OpenError { key: "dpdk".to_owned(), text: error.to_string() })?;
        Ok(Dpdk { eal: Some(eal), ports })
    }

    /// The environment, if it was started.
    pub(super) fn started(&self) -> Option<StartedEal> {
        self.eal
    }

    /// Opens the device of a port.
    pub(super) fn open(&self, index: usize, port: &config::Port) -> Result<Arc<dyn Port>, OpenError> {
        let config = self.ports.iter().find(|config| config.name == port.name.as_str());
        let (eal, config) = self.eal.zip(config).expect("it was started for this port");
        let opened = DpdkPort::open(eal.eal, config.clone()).map_err(|error| OpenError::new(index, error))?;
        Ok(Arc::new(opened))
    }
}

fn port_config(port: &config::Port, queues: u16) -> Option<DpdkPortConfig> {
    let PortKind::Dpdk(config) = &port.kind else { return None };
    let config::DpdkPort { device, mtu, rx_descriptors, tx_descriptors, mbufs, promiscuous, offloads } = config;
    Some(DpdkPortConfig {
        name: port.name.as_str().to_owned(),
        device: device.clone(),
        mtu: *mtu,
        queues,
        rx_descriptors: *rx_descriptors,
        tx_descriptors: *tx_descriptors,
        mbufs: *mbufs,
        promiscuous: *promiscuous,
        offloads: *offloads,
    })
}

/// What its one user has: the queue pairs of the net device, or the one of a switch.
fn queue_pairs(config: &Config, port: &config::Port) -> u16 {
    config.nets.iter().find(|net| net.port == port.name).map_or(1, |net| net.queue_pairs)
}

/// What SPDK takes of the environment that it shares.
fn spdk_memory_mib(config: &Config) -> u64 {
    if !crate::spdk::is_wanted(config) {
        return 0;
    }
    config.spdk.memory.map_or(SPDK_MEMORY_MIB, |size| size.bytes() >> 20)
}

/// SPDK's pools as they are by default, and room for a few small bdevs.
const SPDK_MEMORY_MIB: u64 = 512;

/// Cores that no poller has; none if pollers have all.
fn control_cores(pollers: &[usize]) -> Vec<usize> {
    let allowed = reactor::affinity::allowed().unwrap_or_default();
    allowed.into_iter().filter(|core| !pollers.contains(core)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "test").unwrap()
    }

    #[test]
    fn ports_are_planned_for_the_queue_pairs_of_their_users() {
        let config = config(
            "[[port]]\nname = 'a'\nkind = 'dpdk'\ndevice = 'net_null0'\n\
             [[port]]\nname = 'b'\nkind = 'dpdk'\ndevice = 'net_null1'\n\
             [[port]]\nname = 'sw'\nkind = 'switch'\nuplink = 'b'\n\
             [[net]]\nname = 'n'\nsocket = 's'\nport = 'a'\nqueue_pairs = 3\n\
             [[net]]\nname = 'm'\nsocket = 't'\nport = 'sw'\nqueue_pairs = 5\n",
        );
        let queues: Vec<u16> = config.ports[..2].iter().map(|port| queue_pairs(&config, port)).collect();
        assert_eq!(queues, [3, 1]);
    }

    /// What the configuration accepts at its bounds, the port accepts, too.
    #[test]
    fn bounds_of_the_configuration_are_those_of_the_port() {
        let port = |keys: &str| {
            let text = format!("[[port]]\nname = 'a'\nkind = 'dpdk'\ndevice = 'net_null0'\n{keys}");
            port_config(&config(&text).ports[0], 64).unwrap()
        };
        for keys in [
            "",
            "mtu = 68\nrx_descriptors = 32\ntx_descriptors = 32\nmbufs = 1088\n",
            "mtu = 9216\nrx_descriptors = 16384\ntx_descriptors = 16384\nmbufs = 16777216\n",
        ] {
            assert_eq!(port(keys).check(), Ok(()), "{keys}");
        }
        let least = DpdkPortConfig { mbufs: Some(1087), ..port("rx_descriptors = 32\ntx_descriptors = 32\n") };
        assert!(least.check().is_err());
        assert_eq!(port(""), DpdkPortConfig { queues: 64, ..DpdkPortConfig::new("a", "net_null0") });
    }
}
