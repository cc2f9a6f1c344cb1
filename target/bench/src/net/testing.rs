//! A small vhost-user-net device for tests: an echo behind a real socket and real rings, or a source of frames, which does
//! to chosen frames what no device should. It follows the specification where it is not told otherwise.

use std::path::Path;

use guest_memory::{MemTable, Pages, SharedMemory};
use vhost_user::message::protocol;
use vhost_user::session::DeviceInfo;
use virtqueue::{ChainBatch, DeviceQueue};

use super::responder::Delivery;
use crate::testing::{self, Behaviour, Ring, Side, Wires};

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twist {
    /// It goes back as it came.
    None,
    /// It is taken, and does not go back.
    Lose,
    /// It goes back twice.
    Twice,
    /// It goes back after the next one.
    Later,
    /// It goes back with a byte changed, counted from its first.
    Flip { at: usize },
    /// It goes back without its last byte.
    Cut,
    /// It goes back with these flags in its header.
    Flags { flags: u8 },
    /// It goes back, and says to lie in this many buffers.
    Buffers { num_buffers: u16 },
    /// Before it comes a buffer with so many bytes written.
    Stub { written: u32 },
    /// Before it comes one of somebody else.
    Foreign,
    /// It is never taken.
    Hang,
    /// The ring reports that it is broken.
    Break,
    /// The connection is closed.
    Close,
}

/// Decides about each frame, by its number since the device was started.
pub(super) type Script = Box<dyn FnMut(u64) -> Twist + Send>;

/// How a device is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub features: u64,
    pub side: Side,
    /// Makes frames up, of this many bytes, instead of sending back.
    pub source: Option<usize>,
}

/// A device until it is dropped.
pub(super) struct Device(testing::Device);

struct Echo {
    script: Script,
    source: Option<usize>,
    frames: u64,
    /// Frames that wait for the next one.
    kept: Vec<Vec<u8>>,
    batch: ChainBatch,
    rx: ChainBatch,
}

/// What a chain of the transmit ring comes to.
enum Verdict {
    Taken,
    Kept,
    Closed,
}

/// VERSION_1, MRG_RXBUF, MQ, INDIRECT_DESC, EVENT_IDX, CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4.
pub(super) const OFFERED: u64 = 1 << 32 | 1 << 15 | 1 << 22 | 1 << 28 | 1 << 29 | 1 | 1 << 1 | 1 << 7 | 1 << 11;
/// VIRTIO_NET_F_MRG_RXBUF.
pub(super) const MRG_RXBUF: u64 = 1 << 15;
const PAIRS: u16 = 2;

impl Kind {
    pub(super) const ECHO: Kind = Kind { features: OFFERED, side: Side::Server, source: None };
}

impl Device {
    pub(super) fn start(kind: Kind, script: impl FnMut(u64) -> Twist + Send + 'static) -> Device {
        let info = DeviceInfo {
            features: kind.features,
            tolerated_features: 0,
            protocol_features: protocol::MQ | protocol::REPLY_ACK | protocol::STATUS,
            queues: 2 * PAIRS,
            queue_size_max: 1024,
            max_mem_slots: 8,
        };
        let echo = Echo {
            script: Box::new(script),
            source: kind.source,
            frames: 0,
            kept: Vec::new(),
            batch: ChainBatch::new(8, 64),
            rx: ChainBatch::new(1, 8),
        };
        Device(testing::Device::start(info, kind.side, echo))
    }

    pub(super) fn honest() -> Device {
        Device::start(Kind::ECHO, |_| Twist::None)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Rings that were stopped one by one.
    pub(super) fn stopped(&self) -> usize {
        self.0.stopped()
    }
}

impl Behaviour for Echo {
    fn poll(&mut self, wires: &mut Wires) -> bool {
        let mergeable = wires.features & MRG_RXBUF != 0;
        let table = &wires.table;
        wires.rings.as_chunks_mut::<2>().0.iter_mut().any(|[rx, tx]| match self.source {
            Some(len) => {
                self.make_up(rx, table, len, mergeable);
                false
            }
            None => self.echo(rx, tx, table, mergeable),
        })
    }
}

impl Echo {
    fn make_up(&mut self, ring: &mut Ring, table: &MemTable, len: usize, mergeable: bool) {
        let Some(rx) = ring.running() else { return };
        let mut frame = vec![0xa5; 12 + len];
        frame[..12].fill(0);
        self.frames += u64::from(self.deliver(rx, table, &frame, mergeable));
        ring.publish();
    }

    fn echo(&mut self, rx: &mut Ring, tx: &mut Ring, table: &MemTable, mergeable: bool) -> bool {
        let (Some(into), Some(from)) = (rx.running(), tx.running()) else { return false };
        let mut batch = std::mem::replace(&mut self.batch, ChainBatch::new(8, 64));
        from.pop(table, 8, &mut batch);
        let mut closed = false;
        for chain in batch.chains() {
            let mut bytes = Vec::new();
            for part in batch.readable(chain) {
                let at = bytes.len();
                bytes.resize(at + part.len(), 0);
                part.read(&mut bytes[at..]);
            }
            let twist = (self.script)(self.frames);
            self.frames += 1;
            match self.twisted(twist, into, table, bytes, mergeable) {
                Verdict::Taken => tx.queue.as_mut().unwrap().complete(chain.head, 0),
                Verdict::Kept if twist == Twist::Break => tx.report_broken(),
                Verdict::Kept => {}
                Verdict::Closed => closed = true,
            }
        }
        self.batch = batch;
        rx.publish();
        tx.publish();
        closed
    }

    fn twisted(
        &mut self,
        twist: Twist,
        rx: &mut DeviceQueue,
        table: &MemTable,
        mut frame: Vec<u8>,
        mergeable: bool,
    ) -> Verdict {
        match twist {
            Twist::None => {}
            Twist::Lose => return Verdict::Taken,
            Twist::Twice => {
                self.deliver(rx, table, &frame, mergeable);
            }
            Twist::Later => {
                self.kept.push(frame);
                return Verdict::Taken;
            }
            Twist::Flip { at } => frame[12 + at] ^= 1,
            Twist::Cut => {
                frame.pop();
            }
            Twist::Flags { flags } => frame[0] = flags,
            Twist::Buffers { num_buffers } => {
                rx.pop(table, 1, &mut self.rx);
                let chain = self.rx.chains()[0];
                frame[10..12].copy_from_slice(&num_buffers.to_le_bytes());
                self.rx.writable(&chain)[0].write(&frame);
                rx.complete(chain.head, frame.len() as u32);
                return Verdict::Taken;
            }
            Twist::Stub { written } => {
                rx.pop(table, 1, &mut self.rx);
                rx.complete(self.rx.chains()[0].head, written);
            }
            Twist::Foreign => {
                self.deliver(rx, table, &[0; 80], mergeable);
            }
            Twist::Hang | Twist::Break => return Verdict::Kept,
            Twist::Close => return Verdict::Closed,
        }
        self.deliver(rx, table, &frame, mergeable);
        for late in std::mem::take(&mut self.kept) {
            self.deliver(rx, table, &late, mergeable);
        }
        Verdict::Taken
    }

    fn deliver(&mut self, rx: &mut DeviceQueue, table: &MemTable, frame: &[u8], mergeable: bool) -> bool {
        let memory = SharedMemory::create("frame", frame.len(), Pages::Small).unwrap();
        memory.slice().write(frame);
        let bytes = memory.slice().split_at(frame.len()).0;
        Delivery::new(rx, table, &mut self.rx).deliver(&[bytes], mergeable)
    }
}
