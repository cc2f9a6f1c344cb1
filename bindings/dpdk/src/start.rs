//! Starting a port: configured, its queues set up, and started; stopped when the last queue is gone.

use std::mem;
use std::ptr;
use std::sync::Arc;

use dpdk_sys::{SHIM_RSS_IP, SHIM_RSS_TCP, SHIM_RSS_UDP, rte_eth_conf, rte_eth_dev_info, rte_ether_addr};

use crate::port::Device;
use crate::{Errno, Mempool, Port, PortError, RxOffloads, RxQueue, TxOffloads, TxQueue};

/// How a port is started. Offloads that the port lacks are left out: see [`QueuePair`].
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Receive and transmit queues, of each so many: at least 1. With more than one, flows are spread by IP address and port
    /// where the port can do that.
    pub queues: u16,
    /// Longest frame without its Ethernet header, in bytes. What a driver with a fixed one has stays as it is.
    pub mtu: u16,
    /// Descriptors of a receive queue; the driver's bounds apply.
    pub rx_descriptors: u16,
    /// Descriptors of a transmit queue; the driver's bounds apply.
    pub tx_descriptors: u16,
    /// What is wanted of the port for received frames.
    pub rx_offloads: RxOffloads,
    /// What is wanted of the port for frames that it sends.
    pub tx_offloads: TxOffloads,
    /// Receives frames to any address. What a driver cannot do here is left out, with a message.
    pub promiscuous: bool,
    /// Receives frames to this address, beside its own.
    pub address: Option<[u8; 6]>,
}

/// One receive and one transmit queue.
#[derive(Debug)]
pub struct QueuePair {
    /// Frames from the port.
    pub rx: RxQueue,
    /// Frames to the port.
    pub tx: TxQueue,
}

/// A started port. Its queues hold it.
#[derive(Debug)]
pub(crate) struct Running {
    device: Arc<Device>,
    pub(crate) rx_offloads: RxOffloads,
    pub(crate) tx_offloads: TxOffloads,
}

impl Port {
    /// Configures and starts the port, and hands out its queues. They receive into mbufs of `pools`, one for each, or in turns if
    /// there are fewer. When the last of the queues is dropped, the port is stopped and may be started again.
    ///
    /// # Errors
    /// [`PortError::Running`], [`PortError::Bound`], or a driver's refusal.
    ///
    /// # Panics
    /// If there is no pool.
    pub fn start(&self, config: &PortConfig, pools: &[Mempool]) -> Result<Vec<QueuePair>, PortError> {
        let device = &self.device;
        let mut control = device.control.lock();
        if control.strong_count() > 0 {
            return Err(device.in_use());
        }
        let info = device.raw_info()?;
        let most = info.max_rx_queues.min(info.max_tx_queues);
        device.bound("queues", u32::from(config.queues), 1, u32::from(most))?;
        let rx_offloads = config.rx_offloads & RxOffloads::from_bits_truncate(info.rx_offload_capa);
        let tx_offloads = config.tx_offloads & TxOffloads::from_bits_truncate(info.tx_offload_capa);
        device.configure(config, &info, rx_offloads, tx_offloads)?;
        device.set_up_queues(config, pools)?;
        device.set_mtu(config.mtu)?;
        // SAFETY: configured, queues set up, and nobody else does anything to it (the lock).
        device.check_with("starting", || unsafe { dpdk_sys::rte_eth_dev_start(device.id) })?;
        let running = Arc::new(Running { device: Arc::clone(device), rx_offloads, tx_offloads });
        device.open_filters(config);
        *control = Arc::downgrade(&running);
        Ok((0..config.queues)
            .map(|queue| QueuePair {
                rx: RxQueue::new(Arc::clone(&running), device.id, queue),
                tx: TxQueue::new(Arc::clone(&running), device.id, queue),
            })
            .collect())
    }
}

impl Device {
    fn configure(
        &self,
        config: &PortConfig,
        info: &rte_eth_dev_info,
        rx_offloads: RxOffloads,
        tx_offloads: TxOffloads,
    ) -> Result<(), PortError> {
        // SAFETY: numbers and null pointers; zero means the default of each.
        let mut conf: rte_eth_conf = unsafe { mem::zeroed() };
        conf.rxmode.mtu = u32::from(config.mtu);
        conf.rxmode.offloads = rx_offloads.bits();
        conf.txmode.offloads = tx_offloads.bits();
        let hashes = (SHIM_RSS_IP | SHIM_RSS_TCP | SHIM_RSS_UDP) & info.flow_type_rss_offloads;
        if config.queues > 1 && hashes != 0 {
            conf.rxmode.mq_mode = dpdk_sys::SHIM_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = hashes;
        }
        // SAFETY: `conf` is copied; the port is stopped, and the caller holds its lock.
        let configure = |conf: &rte_eth_conf| unsafe {
            dpdk_sys::rte_eth_dev_configure(self.id, config.queues, config.queues, conf)
        };
        if configure(&conf) == 0 {
            return Ok(());
        }
        // Some drivers refuse every MTU but the one that they have.
        conf.rxmode.mtu = 0;
        self.check_with("configuring", || configure(&conf))?;
        let mut mtu = 0;
        // SAFETY: `mtu` is written to.
        self.check("its MTU", unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id, &mut mtu) })?;
        self.bound("MTU", u32::from(config.mtu), u32::from(info.min_mtu), u32::from(mtu))
    }

    fn set_up_queues(&self, config: &PortConfig, pools: &[Mempool]) -> Result<(), PortError> {
        let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: two numbers, which are adjusted to what the driver takes.
        self.check("descriptors", unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx, &mut tx) })?;
        let socket = dpdk_sys::SHIM_SOCKET_ANY;
        assert!(!pools.is_empty(), "frames are received into mbufs of a pool");
        for (queue, pool) in (0..config.queues).zip(pools.iter().cycle()) {
            // SAFETY: configured for so many queues, and stopped; the caller holds the lock. The pool lives for ever.
            self.check_with("setting up a receive queue", || unsafe {
                dpdk_sys::rte_eth_rx_queue_setup(self.id, queue, rx, socket, ptr::null(), pool.raw())
            })?;
            // SAFETY: as above.
            self.check_with("setting up a transmit queue", || unsafe {
                dpdk_sys::rte_eth_tx_queue_setup(self.id, queue, tx, socket, ptr::null())
            })?;
        }
        Ok(())
    }

    /// Beyond what configuring did: a kernel interface behind the port learns of it.
    fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        let mut now = 0;
        // SAFETY: `now` is written to; the port is stopped, and the caller holds the lock.
        let status = unsafe {
            dpdk_sys::rte_eth_dev_get_mtu(self.id, &mut now);
            dpdk_sys::rte_eth_dev_set_mtu(self.id, mtu)
        };
        match Errno::check(status) {
            Err(errno) if now == mtu || errno.is_unsupported() => Ok(()),
            _ => self.check("setting its MTU", status).map(|_| ()),
        }
    }

    fn open_filters(&self, config: &PortConfig) {
        let note = |what: &str, status: i32| {
            if let Err(errno) = Errno::check(status) {
                tracing::info!(port = self.name(), %errno, "{what}");
            }
        };
        // SAFETY: a port that is started, by number; the caller holds the lock.
        unsafe {
            if config.promiscuous {
                note("no promiscuous mode", dpdk_sys::rte_eth_promiscuous_enable(self.id));
            }
            note("no mode that receives all multicast", dpdk_sys::rte_eth_allmulticast_enable(self.id));
        }
        if let Some(addr_bytes) = config.address {
            let mut address = rte_ether_addr { addr_bytes };
            // SAFETY: as above; the address is copied.
            let status = unsafe { dpdk_sys::rte_eth_dev_mac_addr_add(self.id, &mut address, 0) };
            note("no further address", status);
        }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("name", &self.name()).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _control = self.device.control.lock();
        // SAFETY: the last queue is gone, and the lock is held.
        let status = unsafe { dpdk_sys::rte_eth_dev_stop(self.device.id) };
        if status != 0 {
            tracing::warn!(port = self.device.name(), errno = %Errno::of(status), "the port could not be stopped");
        }
    }
}
