//! The control queue (virtio 1.3 §5.1.6.5), for front-ends that pass it on (R26). Every command is answered; what is not
//! known, or does not fit what was negotiated, with VIRTIO_NET_ERR.

use std::sync::Arc;

use guest_memory::GuestSlice;
use port::{Mac, Offloads};
use vhost_user::RingSet;
use virtqueue::ChainBatch;

use crate::filter::{TABLE_MAX, mode};
use crate::header::rx_offloads;
use crate::session::NetSession;
use crate::stats::ShardStats;
use crate::wire::feature;

/// VIRTIO_NET_OK.
const OK: u8 = 0;
/// VIRTIO_NET_ERR.
const ERR: u8 = 1;

/// Commands popped at once.
const BATCH: usize = 4;

/// Most bytes of a command: two full tables of addresses, of which those behind the first [`TABLE_MAX`] are only counted.
const COMMAND_MAX: usize = 2 + 2 * (4 + 6 * 1024);

/// The control queue of a connection.
pub(crate) struct ControlQueue {
    slot: usize,
    features: u64,
    session: Arc<NetSession>,
    stats: Arc<ShardStats>,
    batch: ChainBatch,
    command: Box<[u8; COMMAND_MAX]>,
}

/// Why a command is answered with VIRTIO_NET_ERR.
struct Refused;

impl ControlQueue {
    /// The control queue in `slot`.
    pub(crate) fn new(slot: usize, features: u64, session: Arc<NetSession>, stats: Arc<ShardStats>) -> ControlQueue {
        let batch = ChainBatch::new(BATCH, 8 * BATCH);
        ControlQueue { slot, features, session, stats, batch, command: Box::new([0; COMMAND_MAX]) }
    }

    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Does the commands that are there. Returns their number.
    pub(crate) fn poll(&mut self, rings: &mut RingSet) -> usize {
        let count = rings.pop(self.slot, BATCH, &mut self.batch);
        if count == 0 {
            return 0;
        }
        for chain in self.batch.chains() {
            let ticket = rings.ticket(self.slot, chain);
            let len = gather(self.batch.readable(chain), &mut self.command[..]);
            let room = self.batch.writable(chain).first();
            // A command that cannot be answered is not done.
            let done = room.is_some()
                && len == chain.readable_bytes as usize
                && execute(&self.session, self.features, &self.command[..len]).is_ok();
            if done {
                self.stats.control_ok.add(1);
            } else {
                self.stats.control_errors.add(1);
            }
            let written = room.map_or(0, |room| room.write(&[if done { OK } else { ERR }]));
            rings.complete(ticket, written as u32);
        }
        rings.publish(self.slot);
        count
    }
}

/// Copies what the driver wrote, once. As many bytes as there is room for.
fn gather(readable: &[GuestSlice], to: &mut [u8]) -> usize {
    readable.iter().fold(0, |filled, slice| filled + slice.read(&mut to[filled..]))
}

fn execute(session: &NetSession, features: u64, command: &[u8]) -> Result<(), Refused> {
    let [class, command, body @ ..] = command else { return Err(Refused) };
    let with = |bit| if features & bit != 0 { Ok(()) } else { Err(Refused) };
    match (class, command) {
        (0, 0..=1) => with(feature::CTRL_RX).and_then(|()| rx_mode(session, *command, body)),
        (0, 2..=5) => with(feature::CTRL_RX_EXTRA).and_then(|()| rx_mode(session, *command, body)),
        (1, 0) => with(feature::CTRL_RX).and_then(|()| mac_tables(session, body)),
        (1, 1) => with(feature::CTRL_MAC_ADDR).and_then(|()| mac_address(session, body)),
        (2, 0..=1) => with(feature::CTRL_VLAN).and_then(|()| vlan(session, *command == 0, body)),
        (3, 0) => with(feature::GUEST_ANNOUNCE), // VIRTIO_NET_CTRL_ANNOUNCE_ACK: nothing of ours waits for it
        (4, 0) => with(feature::MQ).and_then(|()| queue_pairs(session, body)),
        (5, 0) => with(feature::CTRL_GUEST_OFFLOADS).and_then(|()| guest_offloads(session, features, body)),
        _ => Err(Refused),
    }
}

fn rx_mode(session: &NetSession, command: u8, body: &[u8]) -> Result<(), Refused> {
    const BITS: [u8; 6] = [mode::PROMISC, mode::ALLMULTI, mode::ALLUNI, mode::NOMULTI, mode::NOUNI, mode::NOBCAST];
    let [on] = body else { return Err(Refused) };
    session.filter.set_mode(BITS[usize::from(command)], *on != 0);
    Ok(())
}

/// Two tables, each with its number of entries in front: unicast, multicast.
fn mac_tables(session: &NetSession, body: &[u8]) -> Result<(), Refused> {
    let (unicast, rest) = mac_table(body)?;
    let (multicast, rest) = mac_table(rest)?;
    if !rest.is_empty() {
        return Err(Refused);
    }
    session.filter.set_tables(unicast, multicast);
    Ok(())
}

fn mac_table(body: &[u8]) -> Result<(&[[u8; 6]], &[u8]), Refused> {
    let (entries, rest) = body.split_first_chunk::<4>().ok_or(Refused)?;
    let bytes = (u32::from_le_bytes(*entries) as usize).checked_mul(6).ok_or(Refused)?;
    let (table, rest) = rest.split_at_checked(bytes).ok_or(Refused)?;
    Ok((table.as_chunks().0, rest))
}

fn mac_address(session: &NetSession, body: &[u8]) -> Result<(), Refused> {
    let mac = Mac(body.try_into().map_err(|_| Refused)?);
    if mac.is_multicast() {
        return Err(Refused);
    }
    session.filter.set_mac(mac);
    Ok(())
}

fn vlan(session: &NetSession, on: bool, body: &[u8]) -> Result<(), Refused> {
    let vlan = u16::from_le_bytes(body.try_into().map_err(|_| Refused)?);
    if vlan > 4095 {
        return Err(Refused);
    }
    session.filter.set_vlan(vlan, on);
    Ok(())
}

fn queue_pairs(session: &NetSession, body: &[u8]) -> Result<(), Refused> {
    let pairs = u16::from_le_bytes(body.try_into().map_err(|_| Refused)?);
    if !(1..=session.queue_pairs()).contains(&pairs) {
        return Err(Refused);
    }
    session.set_active_pairs(pairs);
    Ok(())
}

fn guest_offloads(session: &NetSession, features: u64, body: &[u8]) -> Result<(), Refused> {
    const BITS: u64 = feature::GUEST_CSUM
        | feature::GUEST_TSO4
        | feature::GUEST_TSO6
        | feature::GUEST_ECN
        | feature::GUEST_UFO
        | feature::GUEST_USO4
        | feature::GUEST_USO6;
    let wanted = u64::from_le_bytes(body.try_into().map_err(|_| Refused)?);
    if wanted & !(features & BITS) != 0 {
        return Err(Refused);
    }
    let offloads = rx_offloads(wanted);
    // virtio 1.3 §5.1.3.1: segmentation without the checksum makes no sense.
    if !offloads.is_empty() && !offloads.contains(Offloads::CHECKSUM) {
        return Err(Refused);
    }
    session.set_rx_offloads(offloads);
    Ok(())
}

const _: () = assert!(TABLE_MAX <= 1024, "a table that is taken whole has to fit into a command");
