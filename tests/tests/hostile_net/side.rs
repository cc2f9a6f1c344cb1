//! One device, its driver, and what is checked after each poll.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bdev::Gate;
use crossbeam::channel::Receiver;
use guest_memory::MemTable;
use port::{Mac, Port};
use reactor::Source as _;
use tests::device::{Device, Noise, UNWRITTEN};
use tests::wire::{HEADER_LEN, rx, tx};
use vhost_user::{Device as _, Shard as _, Stopped};
use virtio_net::wire::feature;
use virtio_net::{DirectionStats, NetConfig, NetDevice, NetDrop, PairCounters};
use virtqueue::{Features, Segment};

use super::{Tally, poller};

/// A device and its driver.
pub struct Side {
    pub mac: Mac,
    pub tally: Tally,
    device: Device<NetDevice>,
    pairs: u16,
    features: u64,
    /// Of each ring.
    rings: Vec<Ring>,
    /// Frames sent, for each queue pair.
    sequences: Vec<u64>,
    /// The last number of each stream of frames that came.
    last: BTreeMap<(u16, Vec<u8>), u64>,
    /// Frames of a stream may come on several rings, each in order.
    spread: bool,
    returned: u64,
    announced: u64,
    empty: u64,
}

#[derive(Default)]
struct Ring {
    /// Chains that are out, oldest first.
    chains: VecDeque<(usize, Vec<Segment>)>,
    poisoned: bool,
    /// The used ring, as it was when the device had let go.
    frozen: Option<Vec<u8>>,
}

/// What a ring is for, with the features that there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Receive,
    Send,
    Control,
    Unused,
}

impl Side {
    pub fn new(port: &Arc<dyn Port>, mac: Mac, pairs: u16, shards: usize, noise: &mut Noise) -> Side {
        let config = NetConfig {
            name: "test".into(),
            queue_pairs: pairs,
            queue_size_max: 1024,
            mac,
            mtu: 1500,
            offloads: true,
            isolated: false,
        };
        let handles = vec![poller(); shards];
        let device = NetDevice::new(config, Arc::clone(port), &handles).expect("a port that takes it");
        let features = Features { event_idx: noise.once_in(2) };
        let mut side = Side {
            mac,
            tally: Tally::default(),
            device: Device::over(device, 64, features, Gate::closed(), handles, None),
            pairs,
            features: 0,
            rings: (0..=2 * pairs).map(|_| Ring::default()).collect(),
            sequences: vec![0; usize::from(pairs)],
            last: BTreeMap::new(),
            spread: port.name() == "switch",
            returned: 0,
            announced: 0,
            empty: 0,
        };
        side.change_features(noise);
        side.device.poll();
        side
    }

    pub fn rings(&self) -> u16 {
        2 * self.pairs + 1
    }

    pub fn any_ring(&self, noise: &mut Noise) -> u16 {
        noise.below(self.rings().into()) as u16
    }

    fn role(&self, ring: u16) -> Role {
        let control = match self.features {
            features if features & feature::CTRL_VQ == 0 => None,
            features if features & feature::MQ == 0 => Some(2),
            _ => Some(2 * self.pairs),
        };
        match ring {
            ring if Some(ring) == control => Role::Control,
            ring if ring == 2 * self.pairs => Role::Unused,
            ring if ring % 2 == 0 => Role::Receive,
            _ => Role::Send,
        }
    }

    // --- what the driver does ---

    fn room(&self, ring: u16) -> bool {
        let ring = &self.rings[usize::from(ring)];
        !ring.poisoned && ring.chains.len() < CHAINS_MAX
    }

    fn put(&mut self, noise: &mut Noise, ring: u16, segments: Vec<Segment>) {
        let token = if noise.once_in(8) {
            self.device.submit_indirect(ring, &segments)
        } else {
            self.device.submit_chain(ring, &segments)
        };
        self.rings[usize::from(ring)].chains.push_back((token, segments));
    }

    fn readable(&mut self, noise: &mut Noise, mut bytes: &[u8]) -> Vec<Segment> {
        let mut segments = Vec::new();
        for _ in 0..noise.pick(&[0, 0, 1, 2]) {
            let (piece, rest) = bytes.split_at((1 + noise.below(20) as usize).min(bytes.len()));
            if !piece.is_empty() {
                segments.push(self.device.readable(piece));
            }
            bytes = rest;
        }
        if !bytes.is_empty() {
            segments.push(self.device.readable(bytes));
        }
        segments
    }

    /// Good frames.
    pub fn send(&mut self, noise: &mut Noise, to: Mac) {
        let pair = noise.below(self.pairs.into()) as u16;
        for _ in 0..=noise.below(8) {
            if !self.room(tx(pair)) {
                return;
            }
            let to = match noise.below(16) {
                0 => Mac::BROADCAST,
                1 => Mac([2, 0, 0, 0, 7, 7]),
                2 => self.mac,
                _ => to,
            };
            let sequence = &mut self.sequences[usize::from(pair)];
            *sequence += 1;
            let bytes = frame(to, self.mac, pair as u8, *sequence, FRAME_MIN + noise.below(1400) as usize);
            let segments = self.readable(noise, &[&[0; HEADER_LEN], &bytes[..]].concat());
            self.put(noise, tx(pair), segments);
            self.tally.sent += 1;
        }
    }

    /// Chains that are no frame, or ask for what may not be.
    pub fn send_junk(&mut self, noise: &mut Noise) {
        let pair = noise.below(self.pairs.into()) as u16;
        if !self.room(tx(pair)) {
            return;
        }
        let len = noise.pick(&[0, 1, 13, 14, 60, 300, 1600]) + noise.below(2) as usize;
        let mut bytes: Vec<u8> = (0..HEADER_LEN + len).map(|_| noise.bits() as u8).collect();
        bytes[0] = noise.pick(&[0, 1, 2, 3, 0xff]);
        bytes[1] = noise.pick(&[0, 1, 3, 4, 5, 0x80, 0x81]);
        if noise.once_in(2) {
            bytes[6..10].copy_from_slice(&[noise.below(64) as u8, 0, noise.below(32) as u8, 0]);
        }
        if noise.once_in(3) {
            bytes.truncate(noise.below(HEADER_LEN as u64) as usize + 1);
        }
        let mut segments = if noise.once_in(6) { Vec::new() } else { self.readable(noise, &bytes) };
        if segments.is_empty() || noise.once_in(6) {
            segments.push(self.device.writable(100));
        }
        self.put(noise, tx(pair), segments);
    }

    /// Buffers of all shapes.
    pub fn refill(&mut self, noise: &mut Noise) {
        let ring = rx(noise.below(self.pairs.into()) as u16);
        for _ in 0..=noise.below(10) {
            if !self.room(ring) {
                return;
            }
            let mut segments = Vec::new();
            match noise.below(16) {
                0 => segments.push(self.device.readable(&[1; 40])),
                1 => segments.push(self.device.writable(1 + noise.below(30) as usize)),
                2..5 => {
                    let lens = [noise.below(40), noise.below(100), noise.below(1500)];
                    segments.extend(lens.map(|len| self.device.writable(1 + len as usize)));
                }
                _ => segments.push(self.device.writable(1530)),
            }
            self.put(noise, ring, segments);
        }
    }

    /// Something on the control queue.
    pub fn command(&mut self, noise: &mut Noise) {
        let Some(ring) = (0..self.rings()).find(|ring| self.role(*ring) == Role::Control) else { return };
        if !self.room(ring) {
            return;
        }
        let (class, command) = (noise.below(7) as u8, noise.below(7) as u8);
        let data: Vec<u8> = match noise.below(4) {
            0 => vec![noise.below(2) as u8],
            1 => vec![noise.below(5) as u8, 0],
            2 => self.mac.0.to_vec(),
            _ => (0..noise.below(40)).map(|_| noise.below(3) as u8).collect(),
        };
        let mut segments = self.readable(noise, &[&[class, command], &data[..]].concat());
        if !noise.once_in(10) {
            segments.push(self.device.writable(1 + noise.below(4) as usize));
        }
        self.put(noise, ring, segments);
    }

    /// Something that breaks the ring as soon as it is looked at.
    pub fn poison(&mut self, noise: &mut Noise) {
        let ring = self.any_ring(noise);
        if !self.room(ring) {
            return;
        }
        self.rings[usize::from(ring)].poisoned = true;
        let raw = self.device.raw(ring);
        match noise.below(3) {
            0 => raw.set_avail_index(raw.avail_index().wrapping_add(65)),
            1 => {
                raw.set_avail_entry(raw.avail_index(), 64);
                raw.set_avail_index(raw.avail_index().wrapping_add(1));
            }
            _ => {
                let segments = vec![Segment::writable(0x7fff_0000, 2000)];
                let token = self.device.submit_chain(ring, &segments);
                self.rings[usize::from(ring)].chains.push_back((token, Vec::new()));
            }
        }
    }

    // --- what the front-end does ---

    pub fn announce(&mut self, noise: &mut Noise) {
        let count = |counters: &PairCounters| counters.port.tx_frames.value() + all(&counters.port.drops);
        let before = self.sum(count);
        self.device.shards[0].send_rarp([2, 0, 0, 0, 8, noise.below(4) as u8]);
        self.announced += u64::from(self.sum(count) > before);
    }

    pub fn change_features(&mut self, noise: &mut Noise) {
        let often = [feature::MRG_RXBUF, feature::CTRL_VQ, feature::CTRL_RX, feature::IN_ORDER];
        let some = [
            feature::MQ,
            feature::CTRL_RX_EXTRA,
            feature::CTRL_VLAN,
            feature::CTRL_MAC_ADDR,
            feature::CTRL_GUEST_OFFLOADS,
            feature::GUEST_CSUM,
            feature::GUEST_TSO4,
            feature::CSUM,
            feature::HOST_TSO4,
            feature::HOST_USO,
            feature::HOST_UFO,
        ];
        let often = often.into_iter().filter(|_| !noise.once_in(4)).fold(0, |all, bit| all | bit);
        let some = some.into_iter().filter(|_| noise.once_in(2)).fold(0, |all, bit| all | bit);
        self.features = feature::VERSION_1 | often | some;
        let features = self.features;
        self.device.shards.iter_mut().for_each(|shard| shard.set_features(features));
    }

    /// What a poller does with a source that has nothing to do.
    pub fn drowse(&mut self, noise: &mut Noise) {
        for shard in &mut self.device.shards {
            let _ = shard.arm();
            shard.disarm();
            if noise.once_in(2) {
                shard.cool();
            }
            shard.warm();
        }
    }

    pub fn stop(&mut self, ring: u16) -> Receiver<Stopped> {
        self.device.stop(ring)
    }

    /// The ring has been stopped, so they say.
    pub fn stopped(&mut self, ring: u16, stopped: &Stopped) {
        assert_eq!(stopped.base, Some(u32::from(self.device.used(ring))), "ring {ring}: nothing is in flight");
        self.tally.stops += 1;
        self.tally.halted += u64::from(stopped.fault.is_some());
        assert!(stopped.fault.is_none() || self.rings[usize::from(ring)].poisoned, "ring {ring}: {stopped:?}");
        self.freeze(ring);
    }

    pub fn start_again(&mut self, ring: u16, stopped: &Stopped) {
        self.thaw(ring);
        if self.rings[usize::from(ring)].poisoned {
            self.rings[usize::from(ring)] = Ring::default();
            self.device.renew(ring, 64);
            self.device.start(ring, 0);
        } else {
            self.device.start(ring, stopped.base.expect("it was started"));
        }
    }

    pub fn disable(&mut self, ring: u16) -> Receiver<()> {
        self.device.disable(ring)
    }

    pub fn disabled(&mut self, ring: u16) {
        self.freeze(ring);
    }

    pub fn enable(&mut self, ring: u16) {
        self.thaw(ring);
        self.device.rings(ring).enable(ring);
    }

    pub fn swap_table(&mut self) -> Vec<Receiver<Arc<MemTable>>> {
        self.tally.tables += 1;
        self.device.swap_table(self.device.guest.table())
    }

    /// All rings are stopped.
    pub fn reconnect(&mut self) {
        self.device.reconnect();
        self.tally.connections += 1;
        self.rings.iter_mut().for_each(|ring| *ring = Ring::default());
        let features = self.features;
        self.device.shards.iter_mut().for_each(|shard| shard.set_features(features));
    }

    fn freeze(&mut self, ring: u16) {
        self.rings[usize::from(ring)].frozen = Some(self.used_ring(ring));
    }

    fn thaw(&mut self, ring: u16) {
        let before = self.rings[usize::from(ring)].frozen.take();
        assert!(before == Some(self.used_ring(ring)), "ring {ring}: written after the device had let go of it");
        self.check_untouched();
    }

    fn used_ring(&self, ring: u16) -> Vec<u8> {
        let Range { start, end } = self.device.used_ring(ring);
        self.device.guest.read(start, (end - start) as usize)
    }

    // --- what comes back ---

    /// Polls once, and looks at what came of it.
    pub fn poll(&mut self, noise: &mut Noise) {
        if noise.once_in(1000) {
            let snapshot = self.device.guest.snapshot();
            self.device.poll();
            let written = (0..self.rings()).map(|ring| self.device.used_ring(ring));
            let allowed: Vec<_> = written.chain(self.writable()).collect();
            snapshot.assert_only(&self.device.guest, &allowed, "a poll");
        } else {
            self.device.poll();
        }
        (0..self.rings()).for_each(|ring| self.take(ring));
        if noise.once_in(8) {
            self.check_untouched();
        }
    }

    fn writable(&self) -> impl Iterator<Item = Range<u64>> {
        let segments = self.rings.iter().flat_map(|ring| &ring.chains).flat_map(|(_, segments)| segments);
        segments.filter(|segment| segment.writable).map(|segment| segment.addr..segment.addr + u64::from(segment.len))
    }

    fn check_untouched(&self) {
        for range in self.writable() {
            let bytes = self.device.guest.read(range.start, (range.end - range.start) as usize);
            assert!(is_untouched(&bytes), "a buffer at {range:x?} that was not given back");
        }
    }

    fn take(&mut self, ring: u16) {
        let mut pieces: Vec<u8> = Vec::new();
        let mut more = 0;
        for reply in self.device.take(ring) {
            let (token, segments) = self.rings[usize::from(ring)].chains.pop_front().expect("a chain that is out");
            assert_eq!(reply.token, token, "ring {ring}: out of order");
            let written = reply.written as usize;
            assert!(written <= reply.writable.len(), "ring {ring}: {written} bytes in {}", reply.writable.len());
            assert!(is_untouched(&reply.writable[written..]), "ring {ring}: more than it says");
            // Whoever looks at it now, looks too late.
            for segment in segments {
                self.device.guest.slice(segment.addr, segment.len as usize).fill(0xee);
            }
            match self.role(ring) {
                Role::Unused => panic!("ring {ring}: nobody serves it"),
                Role::Send => {
                    assert_eq!(written, 0);
                    self.returned += 1;
                }
                Role::Control => {
                    assert!(
                        written == usize::from(!reply.writable.is_empty()) && (written == 0 || reply.writable[0] < 2)
                    );
                    self.tally.commands += 1;
                }
                Role::Receive if written == 0 => {
                    assert_eq!(more, 0, "ring {ring}: a frame with an empty buffer in it");
                    self.empty += 1;
                }
                Role::Receive => {
                    if more == 0 {
                        more = u16::from_le_bytes([reply.writable[10], reply.writable[11]]);
                        assert!(more == 1 || more > 1 && self.features & feature::MRG_RXBUF != 0, "{more} buffers");
                    }
                    more -= 1;
                    pieces.extend_from_slice(&reply.writable[..written]);
                    if more == 0 {
                        let bytes = pieces.split_off(HEADER_LEN);
                        self.came(ring, &bytes);
                        pieces.clear();
                    }
                }
            }
        }
        assert_eq!(more, 0, "ring {ring}: half a frame");
    }

    fn came(&mut self, ring: u16, bytes: &[u8]) {
        self.tally.received += 1;
        let ring = if self.spread { ring } else { 0 };
        check_frame(bytes, ring, &mut self.last);
    }

    /// What the port has got.
    pub fn check_sent(&mut self, bytes: &[u8]) {
        check_frame(bytes, u16::MAX, &mut self.last);
    }

    // --- the end ---

    /// Nothing waits that could have been done.
    pub fn check_done(&self) {
        for ring in 0..self.rings() {
            let state = &self.rings[usize::from(ring)];
            if !state.poisoned && matches!(self.role(ring), Role::Send | Role::Control) {
                assert!(state.chains.is_empty(), "ring {ring}: {} chains wait", state.chains.len());
            }
        }
    }

    fn sum(&self, of: impl Fn(&PairCounters) -> u64) -> u64 {
        self.device.sum(|stats| stats.pairs.iter().map(&of).sum())
    }

    /// Frames that the port took.
    pub fn given_to_port(&self) -> u64 {
        self.sum(|pair| pair.device.tx.frames.value()) + self.announced
    }

    pub fn lost_in_port(&self) -> u64 {
        self.sum(|pair| all(&pair.port.drops))
    }

    /// Frames that the port gave, whatever became of them.
    pub fn came_from_port(&self) -> u64 {
        let bad = |stats: &DirectionStats| stats.drops[NetDrop::BadDescriptor as usize].value();
        self.sum(|pair| {
            let rx = &pair.device.rx;
            rx.frames.value() + rx.filtered.value() + all(&rx.drops) - bad(rx)
        })
    }

    pub fn check_sums(&self) {
        let tx = self.sum(|pair| pair.device.tx.frames.value() + all(&pair.device.tx.drops));
        assert_eq!(tx, self.returned, "chains of what was sent");
        assert_eq!(self.sum(|pair| pair.device.rx.frames.value()), self.tally.received, "frames that came");
        let bad = self.sum(|pair| pair.device.rx.drops[NetDrop::BadDescriptor as usize].value());
        assert!(bad <= self.empty && (bad > 0) == (self.empty > 0), "{bad} bad buffers, {} empty", self.empty);
        let commands = self.device.sum(|stats| stats.control_ok.value() + stats.control_errors.value());
        assert_eq!(commands, self.tally.commands);
        if self.spread {
            assert_eq!(self.sum(|pair| pair.port.rx_frames.value()), self.came_from_port());
        }
        assert_eq!(self.device.controller.stats().len(), self.device.shards.len(), "blocks of counters are used again");
        assert_eq!(self.device.controller.queues(), self.rings());
    }
}

fn is_untouched(bytes: &[u8]) -> bool {
    const UNTOUCHED: [u8; 2048] = [UNWRITTEN; 2048];
    *bytes == UNTOUCHED[..bytes.len()]
}

fn all(drops: &[stats::Counter]) -> u64 {
    drops.iter().map(stats::Counter::value).sum()
}

/// A frame that says whose and which it is, and is filled from that.
pub fn frame(to: Mac, from: Mac, lane: u8, sequence: u64, len: usize) -> Vec<u8> {
    let mut bytes = [&to.0[..], &from.0, &[0x88, 0xb5], MAGIC, &[lane], &sequence.to_le_bytes()].concat();
    bytes.extend((bytes.len()..len).map(|at| (at as u64 * 31 + sequence * 7) as u8));
    bytes
}

/// Frames of ours are as they were made, and later than the one before of their stream.
fn check_frame(bytes: &[u8], ring: u16, last: &mut BTreeMap<(u16, Vec<u8>), u64>) {
    assert!(bytes.iter().any(|byte| *byte != 0xee), "a frame was looked at after its memory had been given back");
    if bytes.len() < FRAME_MIN || bytes[14..18] != *MAGIC {
        return;
    }
    let mac = |at: usize| Mac(*bytes[at..].first_chunk().expect("long enough"));
    let sequence = u64::from_le_bytes(*bytes[19..].first_chunk().expect("long enough"));
    assert!(bytes == frame(mac(0), mac(6), bytes[18], sequence, bytes.len()), "a frame was changed on its way");
    // On a switch, frames to several addresses are several flows.
    let stream = (ring, if ring == u16::MAX { vec![bytes[18]] } else { [&bytes[..12], &[bytes[18]]].concat() });
    let before = last.insert(stream, sequence).unwrap_or(0);
    assert!(before < sequence, "frame {sequence} after {before}");
}

/// Shortest frame that says what it is.
pub const FRAME_MIN: usize = 27;
const MAGIC: &[u8] = b"mine";
/// Chains of a ring that are out at once: all rings have to fit into memory, also those of connections that are gone.
const CHAINS_MAX: usize = 12;
