//! A port as control threads see it: opened once, plugged into by one device after the other. Frames are `queue`'s.

use std::sync::Arc;

use dpdk::{Eal, Mempool, MempoolConfig, PortConfig, PortError, PortInfo, QueuePair, RxOffloads, TxOffloads};
use parking_lot::Mutex;
use port::{AttachError, Attachment, Buffers, Link, Mac, Offloads, Port, PortQueue, Traits};
use reactor::{Armed, PollerHandle, Source, Tsc};

use crate::config::{BadValue, DpdkPortConfig, MBUF_CACHE, ROOM};
use crate::pool::Pool;
use crate::queue::{DpdkQueue, Lent};
use crate::spread::Spreader;

/// One Ethernet device of DPDK's.
pub struct DpdkPort {
    config: DpdkPortConfig,
    eal: Eal,
    port: Arc<dpdk::Port>,
    info: PortInfo,
    traits: Traits,
    home: Arc<Home>,
    state: Mutex<State>,
}

/// Where queue pairs are while no device is plugged in.
#[derive(Default)]
pub(crate) struct Home {
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    parked: Vec<QueuePair>,
    lent: usize,
}

/// What is kept from one device to the next.
#[derive(Default)]
struct State {
    /// Of each queue pair.
    pools: Vec<Arc<Pool>>,
    /// What the port was started for last.
    started: Option<(usize, Option<Mac>)>,
    device: Option<Arc<str>>,
    spreader: Option<Spreader>,
}

/// Why a port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A value is out of bounds.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// DPDK does not have it, or refuses.
    #[error("port {name}: {error}")]
    Port {
        /// The port.
        name: String,
        /// What DPDK said.
        error: PortError,
    },
}

impl DpdkPort {
    /// Opens the device of a port, and makes it if it is a virtual one.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(eal: Eal, config: DpdkPortConfig) -> Result<DpdkPort, OpenError> {
        config.check()?;
        let failed = |error| OpenError::Port { name: config.name.clone(), error };
        let port = dpdk::Port::open(eal, &config.device).map_err(failed)?;
        let info = port.info().map_err(failed)?;
        let most = u32::from(info.mtu_max);
        if u32::from(config.mtu) > most {
            let (port, value) = (config.name, u32::from(config.mtu));
            return Err(BadValue { port, field: "mtu", value, least: 68, most }.into());
        }
        let mac = port.mac().ok().map(Mac);
        let mut rx_offloads = Offloads::empty();
        rx_offloads.set(Offloads::CHECKSUM, rx_wanted(&config, &info).contains(RX_CHECKSUMS));
        let traits = Traits {
            tx_offloads: Offloads::all(),
            rx_offloads,
            devices_max: 1,
            queues_max: config.queues.min(info.rx_queues).min(info.tx_queues),
            mtu_max: config.mtu,
            mac,
        };
        tracing::info!(port = config.name, device = config.device, driver = info.driver, "DPDK port");
        let (home, state) = (Arc::default(), Mutex::default());
        Ok(DpdkPort { config, eal, port: Arc::new(port), info, traits, home, state })
    }

    /// The queue that received flows go to, for each entry of the port's table; empty if it has none, or one queue only.
    #[must_use]
    pub fn spreading(&self) -> Vec<u16> {
        self.port.spreading().unwrap_or_default()
    }

    /// A port with these queues, started: as it is, if it is like that already.
    fn started(&self, state: &mut State, queues: usize, mac: Mac) -> Result<Vec<QueuePair>, AttachError> {
        // The address is told to a port that would not receive for it otherwise.
        let address = (!self.config.promiscuous).then_some(mac);
        let mut parked = std::mem::take(&mut self.home.queues.lock().parked);
        if state.started == Some((queues, address)) && parked.len() == queues {
            parked.sort_by_key(|pair| pair.rx.index());
            return Ok(parked);
        }
        state.spreader = None;
        state.started = None;
        drop(parked); // with the last of them the port stops
        self.add_pools(state, queues)?;
        let config = PortConfig {
            queues: queues as u16,
            mtu: self.config.mtu,
            rx_descriptors: self.config.rx_descriptors,
            tx_descriptors: self.config.tx_descriptors,
            rx_offloads: rx_wanted(&self.config, &self.info),
            tx_offloads: tx_wanted(&self.config, &self.info),
            promiscuous: self.config.promiscuous,
            address: address.map(|mac| mac.0),
        };
        let pools: Vec<Mempool> = state.pools.iter().map(|pool| ***pool).collect();
        let pairs = self.port.start(&config, &pools).map_err(|error| self.failed(&error))?;
        state.started = Some((queues, address));
        if queues > 1 && self.info.table > 0 {
            state.spreader = Spreader::new(Arc::clone(&self.port), queues);
        }
        Ok(pairs)
    }

    /// Pools are made when they are needed first, and kept.
    fn add_pools(&self, state: &mut State, queues: usize) -> Result<(), AttachError> {
        let chains =
            self.info.tx_offloads.contains(TxOffloads::SEGMENTS) && self.info.rx_offloads.contains(RxOffloads::SCATTER);
        let room = if chains { ROOM } else { self.config.room_whole() };
        let config = MempoolConfig { mbufs: self.config.mbufs_per_queue(), room, cache: MBUF_CACHE };
        while state.pools.len() < queues {
            let pool = Pool::new(self.eal, config).map_err(|error| self.failed(&error))?;
            state.pools.push(Arc::new(pool));
        }
        Ok(())
    }

    fn check(&self, device: &Attachment, state: &State) -> Result<usize, AttachError> {
        let port = || self.config.name.clone();
        let queues = device.stats.len();
        if self.home.queues.lock().lent > 0 {
            let attached = state.device.as_deref().unwrap_or("another device").to_owned();
            return Err(AttachError::Taken { port: port(), max: 1, attached });
        }
        if queues == 0 || queues > usize::from(self.traits.queues_max) {
            return Err(AttachError::Queues { port: port(), queues, max: self.traits.queues_max });
        }
        if device.mtu > self.traits.mtu_max {
            return Err(AttachError::Mtu { port: port(), mtu: device.mtu, max: self.traits.mtu_max });
        }
        Ok(queues)
    }

    fn failed(&self, error: &dyn std::error::Error) -> AttachError {
        AttachError::Failed { port: self.config.name.clone(), text: error.to_string() }
    }

    fn register(&self, pollers: &[PollerHandle]) -> Result<(), AttachError> {
        let mut cores: Vec<usize> = Vec::new();
        for poller in pollers {
            if cores.contains(&poller.core()) {
                continue;
            }
            cores.push(poller.core());
            register(self.eal, poller).map_err(|text| {
                let text = format!("the poller of core {}: {text}", poller.core());
                AttachError::Failed { port: self.config.name.clone(), text }
            })?;
        }
        Ok(())
    }
}

impl Port for DpdkPort {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn traits(&self) -> Traits {
        self.traits
    }

    fn link(&self) -> Link {
        let link = self.port.link().unwrap_or(dpdk::Link { up: false, speed_mbps: None });
        Link { up: link.up, speed_mbps: link.speed_mbps }
    }

    fn attach(&self, device: &Attachment) -> Result<Vec<Box<dyn PortQueue>>, AttachError> {
        let mut state = self.state.lock();
        let queues = self.check(device, &state)?;
        self.register(&device.pollers)?;
        let pairs = self.started(&mut state, queues, device.mac)?;
        state.device = Some(Arc::clone(&device.device));
        self.home.queues.lock().lent = queues;
        let queue = |((index, pair), stats): ((usize, QueuePair), &Arc<_>)| {
            let opener = state.spreader.as_ref().and_then(|spreader| spreader.opener(index));
            let pool = Arc::clone(&state.pools[index]);
            let queue = DpdkQueue::new(pair, pool, Arc::clone(stats), self.config.frame_max(), opener);
            Box::new(Lent::new(queue, Arc::clone(&self.home))) as Box<dyn PortQueue>
        };
        Ok(pairs.into_iter().enumerate().zip(&device.stats).map(queue).collect())
    }

    fn buffers(&self) -> Option<Buffers> {
        let state = self.state.lock();
        let free: u64 = state.pools.iter().map(|pool| u64::from(pool.available())).sum();
        let all: u64 = state.pools.iter().map(|pool| u64::from(pool.config().mbufs)).sum();
        (all > 0).then(|| Buffers { used: all.saturating_sub(free), free })
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        self.port.extended_statistics().unwrap_or_default()
    }
}

impl Home {
    pub(crate) fn take_back(&self, pair: QueuePair) {
        let mut queues = self.queues.lock();
        queues.parked.push(pair);
        queues.lent -= 1;
    }
}

/// Drivers whose offloads are software of their own, or only a promise of the peer's: what is here does it better.
const SOFTWARE: [&str; 4] = ["net_tap", "net_vhost", "net_virtio_user", "net_virtio"];
const RX_CHECKSUMS: RxOffloads = RxOffloads::TCP_CHECKSUM.union(RxOffloads::UDP_CHECKSUM);

fn hardware(config: &DpdkPortConfig, info: &PortInfo) -> bool {
    config.offloads && !SOFTWARE.contains(&info.driver.as_str())
}

fn rx_wanted(config: &DpdkPortConfig, info: &PortInfo) -> RxOffloads {
    let checksums = if hardware(config, info) { RX_CHECKSUMS } else { RxOffloads::empty() };
    let scatter = if config.frame_max() > u32::from(ROOM) { RxOffloads::SCATTER } else { RxOffloads::empty() };
    info.rx_offloads & (checksums | scatter)
}

fn tx_wanted(config: &DpdkPortConfig, info: &PortInfo) -> TxOffloads {
    let wanted = if hardware(config, info) { TxOffloads::all() } else { TxOffloads::SEGMENTS };
    info.tx_offloads & wanted
}

/// Something that a poller can be asked to do something by. Polls nothing.
struct Errand;

impl Source for Errand {
    fn poll(&mut self, _now: Tsc) -> usize {
        0
    }

    fn arm(&mut self) -> Armed {
        Armed::Sleep
    }
}

fn register(eal: Eal, poller: &PollerHandle) -> Result<(), String> {
    let errand = poller.add(Errand);
    let registered = errand.call(move |_| dpdk::register_thread(eal)).map_err(|gone| gone.to_string());
    let _: Result<Errand, _> = errand.remove(); // gone is as good
    registered?.map_err(|errno| errno.to_string())
}
