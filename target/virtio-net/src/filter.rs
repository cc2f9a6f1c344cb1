//! Which frames the driver receives, as it has said on the control queue (virtio 1.3 §5.1.6.5.1 to §5.1.6.5.3). A driver
//! whose control queue stays with the front-end has no filter: that is the front-end's, or nobody's.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use guest_memory::GuestSlice;
use port::{Mac, peek};

/// Addresses in each of the two tables. A driver that sets more receives all frames of that kind.
pub(crate) const TABLE_MAX: usize = 64;

/// Bits of the RX mode.
pub(crate) mod mode {
    /// Everything.
    pub(crate) const PROMISC: u8 = 1;
    /// All multicast.
    pub(crate) const ALLMULTI: u8 = 1 << 1;
    /// All unicast.
    pub(crate) const ALLUNI: u8 = 1 << 2;
    /// No multicast.
    pub(crate) const NOMULTI: u8 = 1 << 3;
    /// No unicast.
    pub(crate) const NOUNI: u8 = 1 << 4;
    /// No broadcast.
    pub(crate) const NOBCAST: u8 = 1 << 5;
    /// Only the VLANs that were added (VIRTIO_NET_F_CTRL_VLAN). Not a bit of the driver's.
    pub(crate) const VLANS: u8 = 1 << 7;
}

/// The filter. Values change one by one: a frame that comes meanwhile may see some of each.
#[derive(Debug)]
pub(crate) struct Filter {
    mode: AtomicU8,
    mac: AtomicU64,
    unicast: Table,
    multicast: Table,
    /// A bit for each VLAN.
    vlans: [AtomicU64; 64],
}

#[derive(Debug)]
struct Table {
    len: AtomicUsize,
    macs: [AtomicU64; TABLE_MAX],
}

impl Filter {
    /// One that everything passes.
    pub(crate) fn open(mac: Mac) -> Filter {
        let table = || Table { len: AtomicUsize::new(0), macs: [const { AtomicU64::new(0) }; TABLE_MAX] };
        Filter {
            mode: AtomicU8::new(mode::PROMISC),
            mac: AtomicU64::new(word(mac.0)),
            unicast: table(),
            multicast: table(),
            vlans: [const { AtomicU64::new(0) }; 64],
        }
    }

    /// A driver begins: everything passes until it says something else; of VLANs none, if it has negotiated to name them.
    pub(crate) fn begin(&self, mac: Mac, vlan_filtered: bool) {
        let vlans = if vlan_filtered { mode::VLANS } else { 0 };
        self.mode.store(mode::PROMISC | vlans, Ordering::Relaxed);
        self.set_mac(mac);
        self.unicast.set(&[]);
        self.multicast.set(&[]);
        self.vlans.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    pub(crate) fn set_mode(&self, bit: u8, on: bool) {
        let mode = self.mode.load(Ordering::Relaxed);
        self.mode.store(if on { mode | bit } else { mode & !bit }, Ordering::Relaxed);
    }

    pub(crate) fn set_mac(&self, mac: Mac) {
        self.mac.store(word(mac.0), Ordering::Relaxed);
    }

    /// Addresses beside the device's own. More than [`TABLE_MAX`] of a kind mean all of that kind.
    pub(crate) fn set_tables(&self, unicast: &[[u8; 6]], multicast: &[[u8; 6]]) {
        self.unicast.set(unicast);
        self.multicast.set(multicast);
    }

    pub(crate) fn set_vlan(&self, vlan: u16, on: bool) {
        let slot = &self.vlans[usize::from(vlan >> 6) % 64];
        let (bits, bit) = (slot.load(Ordering::Relaxed), 1 << (vlan & 63));
        slot.store(if on { bits | bit } else { bits & !bit }, Ordering::Relaxed);
    }

    /// Whether every frame passes, so that none has to be looked at.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.mode.load(Ordering::Relaxed) & (mode::PROMISC | mode::VLANS) == mode::PROMISC
    }

    /// Whether a frame in these segments passes.
    pub(crate) fn passes(&self, segments: &[GuestSlice]) -> bool {
        let mut start = [0; 16];
        let read = peek(segments, &mut start);
        let mode = self.mode.load(Ordering::Relaxed);
        if mode & mode::VLANS != 0 && read == start.len() && matches!(start[12..14], [0x81, 0x00] | [0x88, 0xa8]) {
            let vlan = u16::from_be_bytes([start[14] & 0xf, start[15]]);
            let bits = self.vlans[usize::from(vlan >> 6)].load(Ordering::Relaxed);
            if bits & (1 << (vlan & 63)) == 0 {
                return false;
            }
        }
        if mode & mode::PROMISC != 0 {
            return true;
        }
        let to = Mac(start.first_chunk().copied().unwrap_or_default());
        if to == Mac::BROADCAST {
            return mode & mode::NOBCAST == 0;
        }
        let to_word = word(to.0);
        if to.is_multicast() {
            return mode & mode::NOMULTI == 0 && (mode & mode::ALLMULTI != 0 || self.multicast.has(to_word));
        }
        mode & mode::NOUNI == 0
            && (mode & mode::ALLUNI != 0 || to_word == self.mac.load(Ordering::Relaxed) || self.unicast.has(to_word))
    }
}

impl Table {
    fn set(&self, macs: &[[u8; 6]]) {
        for (slot, mac) in self.macs.iter().zip(macs) {
            slot.store(word(*mac), Ordering::Relaxed);
        }
        self.len.store(macs.len(), Ordering::Relaxed);
    }

    fn has(&self, mac: u64) -> bool {
        let len = self.len.load(Ordering::Relaxed);
        len > TABLE_MAX || self.macs[..len].iter().any(|slot| slot.load(Ordering::Relaxed) == mac)
    }
}

fn word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_memory::{Pages, SharedMemory};

    const OWN: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    fn passes(filter: &Filter, to: [u8; 6], vlan: Option<u16>) -> bool {
        let memory = SharedMemory::create("frame", 4096, Pages::Small).unwrap();
        let mut frame = vec![0; 64];
        frame[..6].copy_from_slice(&to);
        if let Some(vlan) = vlan {
            frame[12..14].copy_from_slice(&[0x81, 0]);
            frame[14..16].copy_from_slice(&vlan.to_be_bytes());
        }
        memory.slice().write(&frame);
        filter.passes(&[memory.slice().subslice(0, 64).unwrap()])
    }

    #[test]
    fn r26_filter_begins_open_and_narrows_to_what_the_driver_named() {
        let filter = Filter::open(OWN);
        assert!(filter.is_open() && passes(&filter, [2; 6], None));
        filter.set_mode(mode::PROMISC, false);
        assert!(!filter.is_open());
        assert!(passes(&filter, OWN.0, None) && passes(&filter, [0xff; 6], None));
        assert!(!passes(&filter, [2; 6], None) && !passes(&filter, [0x33, 0x33, 0, 0, 0, 1], None));
        filter.set_tables(&[[2; 6]], &[[0x33, 0x33, 0, 0, 0, 1]]);
        assert!(passes(&filter, [2; 6], None) && passes(&filter, [0x33, 0x33, 0, 0, 0, 1], None));
        filter.set_mode(mode::NOBCAST, true);
        filter.set_mode(mode::NOMULTI, true);
        filter.set_mode(mode::NOUNI, true);
        assert!(!passes(&filter, [0xff; 6], None) && !passes(&filter, [0x33, 0x33, 0, 0, 0, 1], None));
        assert!(!passes(&filter, OWN.0, None));
    }

    #[test]
    fn r26_more_addresses_than_the_table_holds_mean_all_of_that_kind() {
        let filter = Filter::open(OWN);
        filter.set_mode(mode::PROMISC, false);
        filter.set_tables(&vec![[2, 0, 0, 0, 0, 9]; TABLE_MAX + 1], &[]);
        assert!(passes(&filter, [4; 6], None));
        assert!(!passes(&filter, [0x33, 0x33, 0, 0, 0, 1], None));
    }

    #[test]
    fn r26_vlans_pass_when_they_were_added_and_untagged_frames_always() {
        let filter = Filter::open(OWN);
        filter.begin(OWN, true);
        assert!(passes(&filter, [2; 6], None) && !passes(&filter, [2; 6], Some(100)));
        filter.set_vlan(100, true);
        filter.set_vlan(4095, true);
        assert!(passes(&filter, [2; 6], Some(100)) && passes(&filter, [2; 6], Some(0xffff)));
        assert!(!passes(&filter, [2; 6], Some(101)));
        filter.set_vlan(100, false);
        assert!(!passes(&filter, [2; 6], Some(100)));
    }
}
