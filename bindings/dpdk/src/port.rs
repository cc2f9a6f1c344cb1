//! An Ethernet device: found or made, asked, closed. How it is started is in `start`, its queues are in `queue`.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use dpdk_sys::{rte_eth_dev_info, rte_ether_addr};
use parking_lot::Mutex;

use crate::log::{self, Complaints};
use crate::start::Running;
use crate::{Eal, Errno};

/// An Ethernet port. Dropping it closes the device, once its queues are gone; a virtual device is removed then.
pub struct Port {
    pub(crate) device: Arc<Device>,
}

/// What a port and its queues share.
pub(crate) struct Device {
    pub(crate) id: u16,
    name: String,
    /// Held for everything but bursts: DPDK leaves it to the caller that one thread at a time configures a port.
    pub(crate) control: Mutex<Weak<Running>>,
}

/// Ports that somebody has.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// What the driver says that a port can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Name of the driver.
    pub driver: String,
    /// Receive queues, at most.
    pub rx_queues: u16,
    /// Transmit queues, at most.
    pub tx_queues: u16,
    /// Longest frame without its Ethernet header, in bytes.
    pub mtu_max: u16,
    /// Longest frame that it receives, in bytes.
    pub rx_frame_max: u32,
    /// What it can do to received frames.
    pub rx_offloads: RxOffloads,
    /// What it can do to frames that it sends.
    pub tx_offloads: TxOffloads,
    /// Entries of the table that spreads flows over queues; 0 if there is none.
    pub table: u16,
    /// Kinds of headers that it can spread by, as `RTE_ETH_RSS_*`.
    pub(crate) hashes: u64,
    /// NUMA node, if it has one.
    pub socket: Option<u32>,
}

bitflags! {
    /// What a port can do to received frames.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RxOffloads: u64 {
        /// Check the UDP checksum.
        const UDP_CHECKSUM = dpdk_sys::SHIM_RX_OFFLOAD_UDP_CKSUM;
        /// Check the TCP checksum.
        const TCP_CHECKSUM = dpdk_sys::SHIM_RX_OFFLOAD_TCP_CKSUM;
        /// Use several mbufs for a frame.
        const SCATTER = dpdk_sys::SHIM_RX_OFFLOAD_SCATTER;
    }

    /// What a port can do to frames that it sends.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct TxOffloads: u64 {
        /// Complete the IPv4 header's checksum.
        const IP_CHECKSUM = dpdk_sys::SHIM_TX_OFFLOAD_IPV4_CKSUM;
        /// Complete the UDP checksum.
        const UDP_CHECKSUM = dpdk_sys::SHIM_TX_OFFLOAD_UDP_CKSUM;
        /// Complete the TCP checksum.
        const TCP_CHECKSUM = dpdk_sys::SHIM_TX_OFFLOAD_TCP_CKSUM;
        /// Cut TCP into segments.
        const TCP_SEGMENTS = dpdk_sys::SHIM_TX_OFFLOAD_TCP_TSO;
        /// Take frames of several mbufs.
        const SEGMENTS = dpdk_sys::SHIM_TX_OFFLOAD_MULTI_SEGS;
    }
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether frames go through.
    pub up: bool,
    /// Mbit/s, if it is known.
    pub speed_mbps: Option<u32>,
}

/// Why something could not be done to a port. Texts name the port, the value and the bound.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device could not be made or found.
    #[error("device '{devargs}': {errno}{complaints}")]
    Probe {
        /// What was asked for.
        devargs: String,
        /// DPDK's reason.
        errno: Errno,
        /// What DPDK said.
        complaints: Complaints,
    },
    /// The description cannot be passed on.
    #[error("device '{devargs}': empty, or has a NUL character in it")]
    Devargs {
        /// What was asked for.
        devargs: String,
    },
    /// Somebody has it.
    #[error("device '{devargs}' is in use")]
    Taken {
        /// What was asked for.
        devargs: String,
    },
    /// It is started.
    #[error("port {port}: queues of it are still in use")]
    Running {
        /// The port.
        port: String,
    },
    /// A number is out of bounds.
    #[error("port {port}: {what} {value}, must be {least} to {most}")]
    Bound {
        /// The port.
        port: String,
        /// Which number.
        what: &'static str,
        /// What was asked for.
        value: u32,
        /// Its lower bound.
        least: u32,
        /// Its upper bound.
        most: u32,
    },
    /// A call failed.
    #[error("port {port}: {what}: {errno}{complaints}")]
    Failed {
        /// The port.
        port: String,
        /// What was being done.
        what: &'static str,
        /// DPDK's reason.
        errno: Errno,
        /// What DPDK said.
        complaints: Complaints,
    },
}

impl Port {
    /// The port of a device: `net_null0`, `net_tap0,iface=x`, a PCI address. Makes the device unless it is there. Of a device
    /// with several ports, the first.
    ///
    /// # Errors
    /// [`PortError::Probe`], [`PortError::Devargs`], [`PortError::Taken`].
    pub fn open(_eal: Eal, devargs: &str) -> Result<Port, PortError> {
        let text = CString::new(devargs).ok().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| PortError::Devargs { devargs: devargs.to_owned() })?;
        let mut taken = TAKEN.lock();
        let id = match find(&text) {
            Some(id) => id,
            None => probe(&text, devargs)?,
        };
        if !taken.insert(id) {
            return Err(PortError::Taken { devargs: devargs.to_owned() });
        }
        let name = devargs.split(',').next().unwrap_or_default().to_owned();
        Ok(Port { device: Arc::new(Device { id, name, control: Mutex::new(Weak::new()) }) })
    }

    /// The device's name: its description up to the first comma.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// What it can do.
    ///
    /// # Errors
    /// The device is gone.
    pub fn info(&self) -> Result<PortInfo, PortError> {
        let _control = self.device.control.lock();
        Ok(read_info(&self.device.raw_info()?, self.device.id))
    }

    /// Its own address.
    ///
    /// # Errors
    /// The device is gone.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        let _control = self.device.control.lock();
        let mut mac = rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: `mac` is written to.
        let status = unsafe { dpdk_sys::rte_eth_macaddr_get(self.device.id, &mut mac) };
        self.device.check("its address", status)?;
        Ok(mac.addr_bytes)
    }

    /// State of its link, as known now.
    ///
    /// # Errors
    /// The device is gone, or does not tell.
    pub fn link(&self) -> Result<Link, PortError> {
        let _control = self.device.control.lock();
        let mut link = dpdk_sys::shim_link { speed: 0, up: false };
        // SAFETY: `link` is written to.
        let status = unsafe { dpdk_sys::shim_link(self.device.id, &mut link) };
        self.device.check("its link", status)?;
        let speed_mbps = (link.speed != 0 && link.speed != u32::MAX).then_some(link.speed);
        Ok(Link { up: link.up, speed_mbps })
    }
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("name", &self.device.name).field("id", &self.device.id).finish()
    }
}

impl Device {
    pub(crate) fn raw_info(&self) -> Result<rte_eth_dev_info, PortError> {
        let mut info = MaybeUninit::<rte_eth_dev_info>::zeroed();
        // SAFETY: `info` is written to.
        let status = unsafe { dpdk_sys::rte_eth_dev_info_get(self.id, info.as_mut_ptr()) };
        self.check("its capabilities", status)?;
        // SAFETY: numbers and pointers, zero or written.
        Ok(unsafe { info.assume_init() })
    }

    pub(crate) fn check(&self, what: &'static str, status: i32) -> Result<i32, PortError> {
        self.check_with(what, || status)
    }

    /// Does what may fail, and names it if it does.
    pub(crate) fn check_with(&self, what: &'static str, call: impl FnOnce() -> i32) -> Result<i32, PortError> {
        let (status, complaints) = log::listen(call);
        Errno::check(status).map_err(|errno| PortError::Failed { port: self.name.clone(), what, errno, complaints })
    }

    /// A number within bounds, or an error that names them.
    pub(crate) fn bound(&self, what: &'static str, value: u32, least: u32, most: u32) -> Result<(), PortError> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(PortError::Bound { port: self.name.clone(), what, value, least, most })
    }

    pub(crate) fn in_use(&self) -> PortError {
        PortError::Running { port: self.name.clone() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock();
        let parent = self.raw_info().map_or(std::ptr::null_mut(), |info| info.device);
        // SAFETY: nothing of the port is in use: queues hold the device. The parent lives until it is removed.
        unsafe {
            let status = dpdk_sys::rte_eth_dev_close(self.id);
            if status != 0 {
                tracing::warn!(port = self.name, errno = %Errno::of(status), "the port could not be closed");
            }
            let alone = u32::from(dpdk_sys::rte_eth_find_next_of(0, parent)) >= dpdk_sys::RTE_MAX_ETHPORTS;
            if !parent.is_null() && alone && dpdk_sys::rte_dev_remove(parent) != 0 {
                tracing::warn!(port = self.name, "the device could not be removed");
            }
        }
        taken.remove(&self.id);
    }
}

fn find(devargs: &CStr) -> Option<u16> {
    let mut id = 0;
    // SAFETY: the string lives through the call; `id` is written to.
    (unsafe { dpdk_sys::shim_port_of(devargs.as_ptr(), &mut id) } == 0).then_some(id)
}

fn probe(text: &CStr, devargs: &str) -> Result<u16, PortError> {
    let (found, complaints) = log::listen(|| {
        // SAFETY: EAL runs (the caller has a token), and the string lives through the call, which copies it. TAKEN is held, so
        // devices come and go one at a time.
        let status = unsafe { dpdk_sys::rte_dev_probe(text.as_ptr()) };
        Errno::check(status).and_then(|_| find(text).ok_or(Errno::of(rustix::io::Errno::NODEV.raw_os_error())))
    });
    found.map_err(|errno| PortError::Probe { devargs: devargs.to_owned(), errno, complaints })
}

fn read_info(info: &rte_eth_dev_info, id: u16) -> PortInfo {
    let driver = if info.driver_name.is_null() {
        String::new()
    } else {
        // SAFETY: a string of the driver's, which lives as long as the process.
        unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
    };
    // SAFETY: takes any port number.
    let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(id) };
    PortInfo {
        driver,
        rx_queues: info.max_rx_queues,
        tx_queues: info.max_tx_queues,
        mtu_max: if info.max_mtu == 0 { u16::MAX } else { info.max_mtu },
        rx_frame_max: info.max_rx_pktlen,
        rx_offloads: RxOffloads::from_bits_truncate(info.rx_offload_capa),
        tx_offloads: TxOffloads::from_bits_truncate(info.tx_offload_capa),
        table: info.reta_size,
        hashes: info.flow_type_rss_offloads,
        socket: u32::try_from(socket).ok(),
    }
}
