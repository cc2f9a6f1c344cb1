//! The table by which a port spreads received flows over its queues.

use dpdk_sys::rte_eth_rss_reta_entry64;

use crate::{Port, PortError};

/// Entries in one of DPDK's groups.
const GROUP: usize = 64;

impl Port {
    /// Spreads flows over `queues` only, in turns. `false` if the port has no such table, or is not started.
    ///
    /// # Errors
    /// The driver's refusal; a queue that there is not is one.
    ///
    /// # Panics
    /// If `queues` is empty.
    pub fn spread(&self, queues: &[u16]) -> Result<bool, PortError> {
        assert!(!queues.is_empty(), "flows go to at least one queue");
        let control = self.device.control.lock();
        let entries = usize::from(self.device.raw_info()?.reta_size);
        if entries == 0 || control.strong_count() == 0 {
            return Ok(false);
        }
        let mut groups = table(entries, queues);
        // SAFETY: as many groups as `entries` needs; the lock is held.
        self.device.check_with("spreading flows over queues", || unsafe {
            dpdk_sys::rte_eth_dev_rss_reta_update(self.device.id, groups.as_mut_ptr(), entries as u16)
        })?;
        Ok(true)
    }
}

impl Port {
    /// The queue of each entry of the table; empty if there is none, or the driver does not tell.
    ///
    /// # Errors
    /// The device is gone.
    pub fn spreading(&self) -> Result<Vec<u16>, PortError> {
        let _control = self.device.control.lock();
        let entries = usize::from(self.device.raw_info()?.reta_size);
        let mut groups = table(entries, &[0]);
        // SAFETY: as many groups as `entries` needs, which are written to; the lock is held.
        let status =
            unsafe { dpdk_sys::rte_eth_dev_rss_reta_query(self.device.id, groups.as_mut_ptr(), entries as u16) };
        if entries == 0 || status != 0 {
            return Ok(Vec::new());
        }
        Ok(groups.iter().flat_map(|group| group.reta).take(entries).collect())
    }
}

fn table(entries: usize, queues: &[u16]) -> Vec<rte_eth_rss_reta_entry64> {
    let mut groups = vec![rte_eth_rss_reta_entry64 { mask: 0, reta: [0; GROUP] }; entries.div_ceil(GROUP)];
    for (entry, queue) in (0..entries).zip(queues.iter().cycle()) {
        let group = &mut groups[entry / GROUP];
        group.mask |= 1 << (entry % GROUP);
        group.reta[entry % GROUP] = *queue;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_only_the_queues_given_in_turns_and_every_entry() {
        let groups = table(100, &[2, 5]);
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[0].mask, groups[1].mask), (u64::MAX, (1 << 36) - 1));
        assert_eq!(groups[0].reta[..4], [2, 5, 2, 5]);
        assert_eq!(groups[1].reta[34..37], [2, 5, 0]);
    }
}
