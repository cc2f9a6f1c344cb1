//! What the tests of this crate share: frames in shared memory, and builders of packets.

use std::sync::{Arc, OnceLock};

use guest_memory::{GuestSlice, Pages, SharedMemory};
use reactor::{IdlePolicy, PollerHandle, Reactor, ReactorConfig, affinity};

use crate::{Attachment, FrameBatch, Mac, Offload};

/// Bytes in shared memory.
pub(crate) struct Memory {
    memory: SharedMemory,
    len: usize,
}

impl Memory {
    pub(crate) fn of(bytes: &[u8]) -> Memory {
        let memory = SharedMemory::create("port-test", bytes.len().max(1), Pages::Small).expect("memory");
        memory.slice().write(bytes);
        Memory { memory, len: bytes.len() }
    }

    /// A part of them.
    pub(crate) fn at(&self, offset: usize, len: usize) -> GuestSlice {
        self.memory.slice().subslice(offset, len).expect("inside")
    }

    /// All of them in slices of these lengths, one after the other; what is left is the last.
    pub(crate) fn cut(&self, lens: &[usize]) -> Vec<GuestSlice> {
        let (mut slices, mut at) = (Vec::new(), 0);
        for &len in lens {
            let len = len.min(self.len - at);
            slices.push(self.at(at, len));
            at += len;
        }
        slices.push(self.at(at, self.len - at));
        slices
    }
}

/// A batch of one frame.
pub(crate) fn batch_of(segments: &[GuestSlice], offload: Offload) -> FrameBatch {
    let mut batch = FrameBatch::new(1, segments.len());
    batch.push(segments[0], &segments[1..], offload);
    batch
}

/// Which headers a test frame has.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) tags: usize,
    pub(crate) ip6: bool,
    pub(crate) tcp: bool,
    /// Bytes of options (IPv4, TCP) or of a destination options header (IPv6), rounded to what fits.
    pub(crate) options: usize,
}

impl Shape {
    pub(crate) fn l2_len(&self) -> usize {
        14 + 4 * self.tags
    }

    pub(crate) fn l3_len(&self) -> usize {
        if self.ip6 { 40 + self.options / 8 * 8 } else { 20 + (self.options / 4 * 4).min(40) }
    }

    pub(crate) fn l4_len(&self) -> usize {
        if self.tcp { 20 + (self.options / 4 * 4).min(40) } else { 8 }
    }

    /// Offset of the transport checksum in its header.
    pub(crate) fn checksum_offset(&self) -> u16 {
        if self.tcp { 16 } else { 6 }
    }

    /// A frame of this shape with its pseudo header's sum in the transport checksum, as a driver leaves it.
    pub(crate) fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x02, 0, 0, 0, 0, 0x0a, 0x02, 0, 0, 0, 0, 0x0b];
        for tag in 0..self.tags {
            frame.extend_from_slice(if tag == 0 && self.tags > 1 { &[0x88, 0xa8, 0, 7] } else { &[0x81, 0, 0x20, 5] });
        }
        let (protocol, carried) = (if self.tcp { 6 } else { 17 }, self.l4_len() + payload.len());
        let l3 = if self.ip6 { self.ip6_header(protocol, carried) } else { self.ip4_header(protocol, carried) };
        frame.extend_from_slice(if self.ip6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
        frame.extend_from_slice(&l3);
        frame.extend_from_slice(&self.l4_header(payload.len()));
        frame.extend_from_slice(payload);
        let addresses = if self.ip6 { &l3[8..40] } else { &l3[12..20] };
        let mut pseudo = addresses.to_vec();
        pseudo.extend_from_slice(&[0, protocol]);
        pseudo.extend_from_slice(&(carried as u32).to_be_bytes());
        let at = self.l2_len() + self.l3_len() + usize::from(self.checksum_offset());
        frame[at..at + 2].copy_from_slice(&simple_sum(&pseudo).to_be_bytes());
        frame
    }

    fn ip4_header(&self, protocol: u8, carried: usize) -> Vec<u8> {
        let len = self.l3_len();
        let mut header = vec![0x40 | (len / 4) as u8, 0];
        header.extend_from_slice(&((len + carried) as u16).to_be_bytes());
        header.extend_from_slice(&[0xff, 0xfe, 0x00, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 192, 168, 3, 4]);
        header.resize(len, 1); // no operation
        let sum = !simple_sum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ip6_header(&self, protocol: u8, carried: usize) -> Vec<u8> {
        let extension = self.l3_len() - 40;
        let mut header = vec![0x60, 0, 0, 0];
        header.extend_from_slice(&((extension + carried) as u16).to_be_bytes());
        header.extend_from_slice(&[if extension > 0 { 60 } else { protocol }, 64]);
        header.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        header.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xef]);
        if extension > 0 {
            header.extend_from_slice(&[protocol, (extension / 8 - 1) as u8, 1, (extension - 4) as u8]);
            header.resize(40 + extension, 0);
        }
        header
    }

    fn l4_header(&self, payload: usize) -> Vec<u8> {
        if !self.tcp {
            let len = ((8 + payload) as u16).to_be_bytes();
            return vec![0x30, 0x39, 0, 53, len[0], len[1], 0, 0];
        }
        let len = self.l4_len();
        // Flags: CWR, ACK, PSH, FIN.
        let mut header = vec![
            0x30,
            0x39,
            0,
            80,
            0xff,
            0xff,
            0xff,
            0x00,
            0,
            0,
            0,
            9,
            (len / 4 * 16) as u8,
            0x99,
            0x10,
            0,
            0,
            0,
            0,
            0,
        ];
        header.resize(len, 1);
        header
    }
}

/// The ones' complement sum, word by word, as RFC 1071 has it.
pub(crate) fn simple_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A device with so many queue pairs, on a poller of its own that nobody ends before the process does.
pub(crate) fn attachment(name: &str, mac: Mac, queues: usize, isolated: bool) -> Attachment {
    Attachment {
        device: name.into(),
        mac,
        mtu: 1500,
        pollers: vec![poller(); queues],
        stats: (0..queues).map(|_| Arc::default()).collect(),
        isolated,
    }
}

/// A poller that has nothing to poll.
pub(crate) fn poller() -> PollerHandle {
    static POLLER: OnceLock<PollerHandle> = OnceLock::new();
    let start = || {
        let cores = vec![affinity::allowed().expect("cores")[0]];
        let reactor = Reactor::start(&ReactorConfig { cores, idle: IdlePolicy::Adaptive }).expect("a poller");
        let poller = reactor.pollers()[0].clone();
        std::mem::forget(reactor);
        poller
    };
    POLLER.get_or_init(start).clone()
}
