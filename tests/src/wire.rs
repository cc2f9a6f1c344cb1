//! A port whose far side is the test's: what the device sends is recorded, what it receives is what the test put there, and
//! when frames are done is up to the test. And a net device plugged into it, polled by hand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bdev::Gate;
use guest_memory::{Pages, SharedMemory};
use port::{AttachError, Attachment, FrameBatch, Link, Mac, Offload, Offloads, Port, PortQueue, Traits};
use vhost_user::Shard as _;
use virtio_net::{DirectionStats, NetConfig, NetDevice, NetDrop, ShardStats};
use virtqueue::{Features, Segment};

use crate::device::{Device, Reply};

/// Address of the device.
pub const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

/// The port. Clones are the same port.
#[derive(Clone, Default)]
pub struct Wire(Arc<Mutex<Vec<Lane>>>);

/// The far side of one queue.
#[derive(Default)]
pub struct Lane {
    /// What the device has sent: bytes as they were when the port took them, and what was left to be done.
    pub sent: Vec<(Vec<u8>, Offload)>,
    /// Frames that it takes before it is full; `None` for any number.
    pub room: Option<usize>,
    /// Whether frames that were taken are kept until [`Wire::release`].
    pub hold: bool,
    /// Whether the device receives.
    pub open: bool,
    held: usize,
    done: usize,
    incoming: VecDeque<(Vec<Vec<u8>>, Offload)>,
    out: VecDeque<SharedMemory>,
}

struct Queue {
    wire: Wire,
    at: usize,
}

impl Wire {
    /// The far side of a queue.
    ///
    /// # Panics
    /// If there is no such queue.
    #[must_use]
    pub fn lane(&self, queue: usize) -> impl std::ops::DerefMut<Target = Lane> {
        struct At<'a>(MutexGuard<'a, Vec<Lane>>, usize);
        impl std::ops::Deref for At<'_> {
            type Target = Lane;
            fn deref(&self) -> &Lane {
                &self.0[self.1]
            }
        }
        impl std::ops::DerefMut for At<'_> {
            fn deref_mut(&mut self) -> &mut Lane {
                &mut self.0[self.1]
            }
        }
        At(self.0.lock().expect("no test panics with the lock"), queue)
    }

    /// A frame for the device, in one piece.
    pub fn deliver(&self, queue: usize, frame: &[u8]) {
        self.deliver_pieces(queue, vec![frame.to_vec()], Offload::NONE);
    }

    /// A frame for the device, in pieces, with something left to be done.
    pub fn deliver_pieces(&self, queue: usize, pieces: Vec<Vec<u8>>, offload: Offload) {
        self.lane(queue).incoming.push_back((pieces, offload));
    }

    /// Frames that were sent since the last call.
    #[must_use]
    pub fn take(&self, queue: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.lane(queue).sent).into_iter().map(|(bytes, _)| bytes).collect()
    }

    /// Frames for the device that it has not taken.
    #[must_use]
    pub fn waiting(&self, queue: usize) -> usize {
        self.lane(queue).incoming.len()
    }

    /// Frames that were taken and are kept.
    #[must_use]
    pub fn held(&self, queue: usize) -> usize {
        self.lane(queue).held
    }

    /// The oldest frames that are kept are done.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn release(&self, queue: usize, frames: usize) {
        let mut lane = self.lane(queue);
        lane.held = lane.held.checked_sub(frames).expect("frames that are kept");
        lane.done += frames;
    }
}

impl Port for Wire {
    fn name(&self) -> &str {
        "wire"
    }

    fn traits(&self) -> Traits {
        Traits {
            tx_offloads: Offloads::all(),
            rx_offloads: Offloads::all(),
            devices_max: 1,
            queues_max: 16,
            mtu_max: 9000,
            mac: None,
        }
    }

    fn link(&self) -> Link {
        Link { up: true, speed_mbps: Some(10_000) }
    }

    fn attach(&self, device: &Attachment) -> Result<Vec<Box<dyn PortQueue>>, AttachError> {
        let mut lanes = self.0.lock().expect("no test panics with the lock");
        *lanes = device.stats.iter().map(|_| Lane::default()).collect();
        let queue = |at| -> Box<dyn PortQueue> { Box::new(Queue { wire: self.clone(), at }) };
        Ok((0..lanes.len()).map(queue).collect())
    }
}

impl PortQueue for Queue {
    fn tx_burst(&mut self, batch: &FrameBatch) -> usize {
        let mut lane = self.wire.lane(self.at);
        let taken = batch.len().min(lane.room.unwrap_or(usize::MAX));
        for frame in batch.frames().take(taken) {
            let mut bytes = vec![0; frame.len as usize];
            assert_eq!(port::peek(frame.segments, &mut bytes), bytes.len());
            lane.sent.push((bytes, frame.offload));
        }
        if let Some(room) = &mut lane.room {
            *room -= taken;
        }
        if lane.hold {
            lane.held += taken;
        } else {
            lane.done += taken;
        }
        taken
    }

    fn tx_done(&mut self) -> usize {
        std::mem::take(&mut self.wire.lane(self.at).done)
    }

    fn rx_burst(&mut self, batch: &mut FrameBatch, limit: usize) -> usize {
        let mut lane = self.wire.lane(self.at);
        batch.clear();
        while batch.len() < limit
            && let Some((pieces, offload)) = lane.incoming.pop_front()
        {
            let len = pieces.iter().map(|piece| piece.len() + 64).sum();
            let memory = SharedMemory::create("frame", len, Pages::Small).expect("a little memory");
            let mut rest = memory.slice();
            let mut segments = Vec::new();
            for piece in pieces {
                let (segment, after) = rest.split_at(piece.len());
                segment.write(&piece);
                segments.push(segment);
                rest = after.split_at(1).1;
            }
            batch.push(segments[0], &segments[1..], offload);
            lane.out.push_back(memory);
        }
        batch.len()
    }

    fn rx_done(&mut self, frames: usize) {
        let mut lane = self.wire.lane(self.at);
        assert!(frames == usize::MAX || frames <= lane.out.len(), "more frames done than are out");
        let frames = frames.min(lane.out.len());
        lane.out.drain(..frames);
    }

    fn set_open(&mut self, open: bool) {
        self.wire.lane(self.at).open = open;
    }
}

/// Length of the header in front of frames (virtio 1.3 §5.1.6).
pub const HEADER_LEN: usize = 12;

/// A net device that the test polls, plugged into a [`Wire`].
pub struct NetSetup {
    /// Queue pairs.
    pub queue_pairs: u16,
    /// Shards that they are dealt out over.
    pub shards: usize,
    /// Size of every ring in descriptors.
    pub ring_size: u16,
    /// Longest frame without its Ethernet header.
    pub mtu: u16,
    /// The features that the driver accepts.
    pub features: u64,
}

impl Default for NetSetup {
    fn default() -> NetSetup {
        use virtio_net::wire::feature;
        let features = feature::VERSION_1 | feature::MRG_RXBUF;
        NetSetup { queue_pairs: 1, shards: 1, ring_size: 64, mtu: 1500, features }
    }
}

/// Index of the ring that the driver receives on.
#[must_use]
pub fn rx(pair: u16) -> u16 {
    2 * pair
}

/// Index of the ring that the driver sends on.
#[must_use]
pub fn tx(pair: u16) -> u16 {
    2 * pair + 1
}

impl NetSetup {
    /// The device and its port.
    ///
    /// # Panics
    /// If the setup makes no sense.
    #[must_use]
    pub fn start(self) -> (Device<NetDevice>, Wire) {
        let NetSetup { queue_pairs, shards, ring_size, mtu, features } = self;
        let wire = Wire::default();
        let config = NetConfig {
            name: "test".into(),
            queue_pairs,
            queue_size_max: 1024,
            mac: MAC,
            mtu,
            offloads: true,
            isolated: false,
        };
        let (handles, reactor) = crate::device::handles(shards);
        let device = NetDevice::new(config, Arc::new(wire.clone()), &handles).expect("a port that takes it");
        let event_idx = features & virtio_net::wire::feature::EVENT_IDX != 0;
        let mut device = Device::over(device, ring_size, Features { event_idx }, Gate::closed(), handles, reactor);
        device.shards.iter_mut().for_each(|shard| shard.set_features(features));
        device.run(); // from here on, frames are for the driver
        (device, wire)
    }
}

impl Device<NetDevice> {
    /// Sends a frame in the usual framing: the header and the frame in one buffer. Returns its token.
    pub fn send(&mut self, pair: u16, header: &[u8], frame: &[u8]) -> usize {
        let segment = self.readable(&[header, frame].concat());
        self.submit_chain(tx(pair), &[segment])
    }

    /// Sends a frame with nothing to be done.
    pub fn send_plain(&mut self, pair: u16, frame: &[u8]) -> usize {
        self.send(pair, &[0; HEADER_LEN], frame)
    }

    /// Makes receive buffers of this length available.
    pub fn refill(&mut self, pair: u16, buffers: usize, len: usize) {
        for _ in 0..buffers {
            let segment = self.writable(len);
            self.submit_chain(rx(pair), &[segment]);
        }
    }

    /// Frames that came, each with its header, put together from as many buffers as the header says.
    ///
    /// # Panics
    /// If headers and buffers do not fit.
    pub fn received(&mut self, pair: u16) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut replies: VecDeque<Reply> = self.take(rx(pair)).into();
        let mut frames = Vec::new();
        while let Some(first) = replies.pop_front() {
            let mut bytes = first.writable[..first.written as usize].to_vec();
            assert!(bytes.len() >= HEADER_LEN, "a used buffer of {} bytes has no header", bytes.len());
            for _ in 1..u16::from_le_bytes([bytes[10], bytes[11]]) {
                let next = replies.pop_front().expect("as many buffers as num_buffers says");
                bytes.extend_from_slice(&next.writable[..next.written as usize]);
            }
            let frame = bytes.split_off(HEADER_LEN);
            frames.push((bytes, frame));
        }
        frames
    }

    /// Sum of a counter over all pairs.
    pub fn sum(&self, counter: impl Fn(&ShardStats) -> u64) -> u64 {
        self.controller.stats().iter().map(|stats| counter(stats)).sum()
    }

    /// Frames of what the driver sends that were lost for this reason.
    #[must_use]
    pub fn tx_dropped(&self, cause: NetDrop) -> u64 {
        self.dropped(cause, |stats| &stats.tx)
    }

    /// Frames for the driver that were lost for this reason.
    #[must_use]
    pub fn rx_dropped(&self, cause: NetDrop) -> u64 {
        self.dropped(cause, |stats| &stats.rx)
    }

    /// Frames lost, for whatever reason.
    #[must_use]
    pub fn all_dropped(&self) -> u64 {
        NetDrop::ALL.into_iter().map(|cause| self.tx_dropped(cause) + self.rx_dropped(cause)).sum()
    }

    fn dropped(&self, cause: NetDrop, direction: impl Fn(&virtio_net::PairStats) -> &DirectionStats) -> u64 {
        self.sum(|stats| stats.pairs.iter().map(|pair| direction(&pair.device).drops[cause as usize].value()).sum())
    }
}

/// A segment list as one line, for messages of failing tests.
#[must_use]
pub fn shape(segments: &[Segment]) -> String {
    let each = |segment: &Segment| format!("{}{}", if segment.writable { 'w' } else { 'r' }, segment.len);
    segments.iter().map(each).collect::<Vec<_>>().join(" ")
}
