//! A small vhost-user-scsi device for tests: a disk in memory behind a real socket and real rings, which does to chosen
//! commands what no device should. It follows the standards where it is not told otherwise.

use std::path::Path;

use guest_memory::{GuestSlice, MemTable};
use vhost_user::message::protocol;
use vhost_user::session::DeviceInfo;
use virtio_scsi::wire::{ConfigSpace, feature};
use virtqueue::ChainBatch;

use crate::testing::{self, Behaviour, Ring, Side, Wires};

/// What happens to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twist {
    /// What the standards say.
    None,
    /// This response and status, and nothing moves.
    Answer { response: u8, status: u8 },
    /// CHECK CONDITION with this sense key and code.
    Sense { key: u8, asc: u8 },
    /// GOOD, and nothing moves.
    Lose,
    /// What it says, at another LBA.
    At { lba: u64 },
    /// Nothing at all, and it never comes back.
    Hang,
    /// The ring reports that it is broken.
    Break,
    /// The connection is closed.
    Close,
}

/// A command as a test sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub opcode: u8,
    pub lba: u64,
    /// Commands before it with data to move.
    pub transfers: u64,
}

/// Decides about each command.
pub(super) type Script = Box<dyn FnMut(Seen) -> Twist + Send>;

/// A device that listens on a socket until it is dropped.
pub(super) struct Device(testing::Device);

/// The disk.
struct Disk {
    script: Script,
    bytes: Vec<u8>,
    transfers: u64,
}

pub(super) const BLOCK: usize = 512;
/// 1 MiB.
pub(super) const BLOCKS: u64 = 2048;
/// Control, event and this many request queues.
pub(super) const REQUEST_QUEUES: u16 = 4;
const OFFERED: u64 = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC | feature::IN_ORDER;
const QUEUES: u16 = 2 + REQUEST_QUEUES;
const QUEUE_SIZE_MAX: u16 = 256;

impl Device {
    pub(super) fn start(script: impl FnMut(Seen) -> Twist + Send + 'static) -> Device {
        let disk = Disk { script: Box::new(script), bytes: vec![0; BLOCKS as usize * BLOCK], transfers: 0 };
        Device(testing::Device::start(info(OFFERED), Side::Server, disk))
    }

    /// A device that does not offer these features.
    pub(super) fn without(features: u64) -> Device {
        let disk = Disk { script: Box::new(|_| Twist::None), bytes: vec![0; BLOCKS as usize * BLOCK], transfers: 0 };
        Device(testing::Device::start(info(OFFERED & !features), Side::Server, disk))
    }

    pub(super) fn honest() -> Device {
        Device::start(|_| Twist::None)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Rings that were stopped one by one.
    pub(super) fn stopped(&self) -> usize {
        self.0.stopped()
    }
}

fn info(features: u64) -> DeviceInfo {
    DeviceInfo {
        features,
        tolerated_features: 0,
        protocol_features: protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG | protocol::STATUS,
        queues: QUEUES,
        queue_size_max: QUEUE_SIZE_MAX,
        max_mem_slots: 8,
    }
}

impl Behaviour for Disk {
    /// Serves what is on the request rings.
    fn poll(&mut self, wires: &mut Wires) -> bool {
        let mut batch = ChainBatch::new(8, 64);
        let Wires { table, rings, .. } = wires;
        rings[2..].iter_mut().any(|ring| self.poll_ring(ring, table, &mut batch))
    }

    fn config(&self) -> Vec<u8> {
        let num_queues = REQUEST_QUEUES.into();
        ConfigSpace { num_queues, seg_max: 126, max_sectors: 128, cmd_per_lun: 64 }.bytes().to_vec()
    }
}

impl Disk {
    fn poll_ring(&mut self, ring: &mut Ring, table: &MemTable, batch: &mut ChainBatch) -> bool {
        let Some(queue) = ring.running() else { return false };
        queue.pop(table, 8, batch);
        for chain in batch.chains() {
            let (readable, writable) = (batch.readable(chain), batch.writable(chain));
            let header: [u8; 51] = readable[0].read_array().unwrap();
            match self.serve(&header, readable.get(1).copied(), writable) {
                Twist::Close => return true,
                Twist::Break => ring.report_broken(),
                Twist::Hang => {}
                _ => ring.queue.as_mut().unwrap().complete(chain.head, chain.writable_bytes as u32),
            }
        }
        ring.publish();
        false
    }

    fn serve(&mut self, header: &[u8; 51], data_out: Option<GuestSlice>, writable: &[GuestSlice]) -> Twist {
        let cdb = &header[19..];
        let opcode = cdb[0];
        let long = matches!(opcode, 0x88 | 0x8a);
        let lba_bytes = if long { &cdb[2..10] } else { &cdb[2..6] };
        let lba = lba_bytes.iter().fold(0, |lba, byte| lba << 8 | u64::from(*byte));
        let transfer = matches!(opcode, 0x28 | 0x2a | 0x88 | 0x8a);
        let twist = (self.script)(Seen { opcode, lba, transfers: self.transfers });
        self.transfers += u64::from(transfer);
        let mut response = [0; 12];
        match twist {
            Twist::Answer { response: code, status } => (response[11], response[10]) = (code, status),
            Twist::Sense { key, asc } => {
                response[10] = 2;
                response[0] = 18;
                let sense = [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, 0, 0, 0, 0, 0];
                writable[0].subslice(12, 18).unwrap().write(&sense);
            }
            Twist::None if header[1] != 0 => response[11] = 3, // one target only
            Twist::None | Twist::At { .. } => {
                let lba = if let Twist::At { lba } = twist { lba } else { lba };
                self.perform(header, lba, data_out, writable.get(1).copied());
            }
            Twist::Lose | Twist::Hang | Twist::Break | Twist::Close => {}
        }
        writable[0].write(&response);
        twist
    }

    fn perform(&mut self, header: &[u8; 51], lba: u64, data_out: Option<GuestSlice>, data_in: Option<GuestSlice>) {
        let at = lba as usize * BLOCK;
        match header[19] {
            0x12 => {
                let there = header[2] & 0x3f == 0 && header[3] == 0;
                data_in.unwrap().write(&[if there { 0 } else { 0x7f }]);
            }
            0x9e => {
                let mut capacity = [0; 32];
                capacity[..8].copy_from_slice(&(BLOCKS - 1).to_be_bytes());
                capacity[8..12].copy_from_slice(&(BLOCK as u32).to_be_bytes());
                data_in.unwrap().write(&capacity);
            }
            0x28 | 0x88 => {
                let slice = data_in.unwrap();
                slice.write(&self.bytes[at..at + slice.len()]);
            }
            0x2a | 0x8a => {
                let slice = data_out.unwrap();
                slice.read(&mut self.bytes[at..at + slice.len()]);
            }
            _ => {}
        }
    }
}
