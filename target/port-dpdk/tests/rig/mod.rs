//! What the tests of this crate share: one EAL a process, frames in shared memory, and what came out of a port.
#![allow(dead_code, reason = "each test program uses a part of it")]

#[allow(unsafe_code, reason = "a network namespace for the test's thread")]
pub mod network;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use guest_memory::{GuestSlice, Pages, SharedMemory};
use port::{Attachment, BURST, DropCause, FrameBatch, Mac, Offload, Port, PortQueue, PortStats};
use port_dpdk::{DpdkConfig, DpdkPort, DpdkPortConfig, Eal, start_eal};
use reactor::PollerHandle;

/// Plain memory, so that tests need no hugepages.
pub fn eal() -> Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    *EAL.get_or_init(|| {
        let eal_args = ["--no-huge", "--no-shconf", "-m", "192"].map(str::to_owned).to_vec();
        start_eal(&DpdkConfig { eal_args, ..DpdkConfig::default() }, &[], &[]).unwrap().eal
    })
}

/// Small: tests make many of them.
pub fn config(device: &str) -> DpdkPortConfig {
    DpdkPortConfig { rx_descriptors: 256, tx_descriptors: 256, mbufs: Some(2047), ..DpdkPortConfig::new("up", device) }
}

pub fn open(device: &str) -> DpdkPort {
    DpdkPort::open(eal(), config(device)).unwrap()
}

pub fn attachment(queues: usize, pollers: &[PollerHandle]) -> Attachment {
    Attachment {
        device: Arc::from("vm0"),
        mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
        mtu: 1500,
        pollers: pollers.to_vec(),
        stats: (0..queues).map(|_| Arc::new(PortStats::default())).collect(),
        isolated: false,
    }
}

/// One queue, plugged in.
pub struct Plugged {
    pub queue: Box<dyn PortQueue>,
    pub stats: Arc<PortStats>,
}

pub fn plug(port: &DpdkPort) -> Plugged {
    let attachment = Attachment { mtu: port.traits().mtu_max, ..attachment(1, &[]) };
    let queue = port.attach(&attachment).unwrap().remove(0);
    Plugged { queue, stats: Arc::clone(&attachment.stats[0]) }
}

impl Plugged {
    /// Sends all frames; says how many were taken, and that many must be done.
    pub fn send(&mut self, batch: &FrameBatch) -> usize {
        let taken = self.queue.tx_burst(batch);
        assert_eq!(self.queue.tx_done(), taken);
        assert_eq!(self.queue.tx_done(), 0);
        taken
    }

    /// What has come: the bytes of each frame, and the lengths of its segments.
    pub fn receive(&mut self) -> Vec<(Vec<u8>, Vec<usize>)> {
        let mut batch = FrameBatch::new(BURST, BURST);
        let mut all = Vec::new();
        loop {
            let count = self.queue.rx_burst(&mut batch, BURST);
            assert_eq!(count, batch.len());
            for frame in batch.frames() {
                let segments = frame.segments;
                let mut bytes = Vec::new();
                for segment in segments {
                    let mut part = vec![0; segment.len()];
                    segment.read(&mut part);
                    bytes.extend(part);
                }
                assert_eq!(bytes.len(), frame.len as usize);
                all.push((bytes, segments.iter().map(|segment| segment.len()).collect()));
            }
            self.queue.rx_done(count);
            if count == 0 {
                return all;
            }
        }
    }

    pub fn bytes(&mut self) -> Vec<Vec<u8>> {
        self.receive().into_iter().map(|(bytes, _)| bytes).collect()
    }

    /// Receives until `wanted` says that it has come. What else comes (the kernel sends on its interfaces) is left out.
    pub fn await_frame(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(Instant::now() < deadline, "the frame has not come in 10 s");
            if let Some(frame) = self.bytes().into_iter().find(|frame| wanted(frame)) {
                return frame;
            }
        }
    }

    pub fn drops(&self, cause: DropCause) -> u64 {
        self.stats.drops[cause as usize].value()
    }

    /// Frames and bytes that were sent.
    pub fn sent(&self) -> (u64, u64) {
        (self.stats.tx_frames.value(), self.stats.tx_bytes.value())
    }
}

/// Frames in memory as a guest's.
pub struct Memory {
    memory: SharedMemory,
    used: usize,
}

impl Memory {
    pub fn new() -> Memory {
        Memory { memory: SharedMemory::create("port-dpdk-test", 1 << 20, Pages::Small).unwrap(), used: 0 }
    }

    /// These bytes, in slices of the given lengths, the last one with the rest.
    pub fn slices(&mut self, bytes: &[u8], lens: &[usize]) -> Vec<GuestSlice> {
        let all = self.memory.slice().subslice(self.used, bytes.len()).unwrap();
        self.used += bytes.len();
        all.write(bytes);
        let (mut slices, mut rest) = (Vec::new(), all);
        for &len in lens {
            let (slice, more) = rest.split_at(len);
            slices.push(slice);
            rest = more;
        }
        slices.push(rest);
        slices
    }

    pub fn push(&mut self, batch: &mut FrameBatch, bytes: &[u8], lens: &[usize], offload: Offload) {
        let slices = self.slices(bytes, lens);
        batch.push(slices[0], &slices[1..], offload);
    }

    /// A batch of plain frames, each in one slice.
    pub fn batch(&mut self, frames: &[Vec<u8>]) -> FrameBatch {
        let mut batch = FrameBatch::new(BURST, BURST);
        frames.iter().for_each(|frame| self.push(&mut batch, frame, &[], Offload::NONE));
        batch
    }
}

/// A frame that nobody understands, different for each number.
pub fn raw(number: usize, len: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5];
    frame.extend((0..len.saturating_sub(14)).map(|at| (at * 7 + number * 13) as u8));
    frame.truncate(len);
    frame
}

/// The Internet checksum's sum over bytes, the slow way.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An IPv4 frame from 10.0.0.1 to 10.0.0.2 with the pseudo header's sum in the checksum of `transport`, at `field` of it.
pub fn ip4(protocol: u8, mut transport: Vec<u8>, field: usize) -> Vec<u8> {
    let len = transport.len() as u16;
    transport[field..field + 2].fill(0);
    let pseudo = sum(&[&ADDRESSES[..], &[0, protocol], &len.to_be_bytes()].concat());
    transport[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let mut header =
        [&[0x45, 0][..], &(len + 20).to_be_bytes(), &[0, 1, 0, 0, 64, protocol, 0, 0], &ADDRESSES].concat();
    let checksum = !sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&[0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 8, 0][..], &header, &transport].concat()
}

/// Whether the transport checksum of such a frame is right.
pub fn checksum_is_right(frame: &[u8]) -> bool {
    let transport = &frame[34..];
    let len = (transport.len() as u16).to_be_bytes();
    sum(&[&ADDRESSES[..], &[0, frame[23]], &len, transport].concat()) == 0xffff
}

/// A UDP header and payload.
pub fn udp(payload: &[u8]) -> Vec<u8> {
    [&[0x30, 0x39, 0xd4, 0x31][..], &(payload.len() as u16 + 8).to_be_bytes(), &[0, 0], payload].concat()
}

/// A TCP header (ACK, PSH) and payload.
pub fn tcp(payload: &[u8]) -> Vec<u8> {
    [&[0x30, 0x39, 0xd4, 0x31, 0, 0, 1, 0, 0, 0, 0, 9, 0x50, 0x18, 0x10, 0, 0, 0, 0, 0][..], payload].concat()
}

const ADDRESSES: [u8; 8] = [10, 0, 0, 1, 10, 0, 0, 2];
