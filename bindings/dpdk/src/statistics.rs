//! What a port counted: the few numbers that all have, and the many that its driver has.

use std::ffi::CStr;
use std::mem;

use dpdk_sys::{rte_eth_stats, rte_eth_xstat, rte_eth_xstat_name};

use crate::{Port, PortError};

/// Numbers of a port since it was made or they were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes in them.
    pub rx_bytes: u64,
    /// Frames that found no descriptor.
    pub rx_missed: u64,
    /// Frames received with errors.
    pub rx_errors: u64,
    /// Times that there was no mbuf.
    pub rx_no_mbuf: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes in them.
    pub tx_bytes: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
}

impl Port {
    /// The numbers that all ports have.
    ///
    /// # Errors
    /// The driver does not count.
    pub fn statistics(&self) -> Result<Statistics, PortError> {
        let _control = self.device.control.lock();
        // SAFETY: numbers only.
        let mut raw: rte_eth_stats = unsafe { mem::zeroed() };
        // SAFETY: `raw` is written to.
        self.device.check("statistics", unsafe { dpdk_sys::rte_eth_stats_get(self.device.id, &mut raw) })?;
        Ok(Statistics {
            rx_frames: raw.ipackets,
            rx_bytes: raw.ibytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            rx_no_mbuf: raw.rx_nombuf,
            tx_frames: raw.opackets,
            tx_bytes: raw.obytes,
            tx_errors: raw.oerrors,
        })
    }

    /// The driver's own numbers, by the names that it gives them.
    ///
    /// # Errors
    /// The driver does not tell.
    pub fn extended_statistics(&self) -> Result<Vec<(String, u64)>, PortError> {
        let _control = self.device.control.lock();
        let (device, id) = (&self.device, self.device.id);
        // SAFETY: with no array it tells how many there are.
        let count = device
            .check("extended statistics", unsafe { dpdk_sys::rte_eth_xstats_get_names(id, std::ptr::null_mut(), 0) })?;
        let room = count as u32;
        let mut names = vec![rte_eth_xstat_name { name: [0; 64] }; room as usize];
        let mut values = vec![rte_eth_xstat { id: 0, value: 0 }; room as usize];
        // SAFETY: arrays of `room` entries each, which are written to.
        let (named, valued) = unsafe {
            (
                dpdk_sys::rte_eth_xstats_get_names(id, names.as_mut_ptr(), room),
                dpdk_sys::rte_eth_xstats_get(id, values.as_mut_ptr(), room),
            )
        };
        device.check("names of extended statistics", named)?;
        device.check("extended statistics", valued)?;
        // Neither grows while the lock is held; were it so, the arrays would not have been filled.
        values.truncate(valued as usize);
        let name = |entry: &rte_eth_xstat| {
            let raw: &[_; 64] = &names.get(usize::try_from(entry.id).ok()?)?.name;
            let bytes: Vec<u8> = raw.iter().map(|&byte| byte as u8).collect();
            Some((CStr::from_bytes_until_nul(&bytes).ok()?.to_string_lossy().into_owned(), entry.value))
        };
        Ok(values.iter().filter_map(name).collect())
    }
}
