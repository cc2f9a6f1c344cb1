//! Where everything lies in the shared memory of a run: rings, frames to be sent, receive buffers. Offsets and sizes only.

use super::Args;
use super::frame::Frames;
use crate::memory::{PAGE, Placer, RingPlace};

/// Offsets in the shared memory.
#[derive(Debug)]
pub(super) struct Layout {
    /// Descriptors of each ring.
    pub queue_size: u16,
    /// By ring index: receive and transmit ring of each pair (virtio 1.3 §5.1.2).
    pub rings: Vec<RingPlace>,
    /// By queue pair.
    pub pairs: Vec<PairPlace>,
    /// Distance of two frames to be sent in bytes.
    pub tx_stride: usize,
    /// Distance of two receive buffers in bytes.
    pub rx_stride: usize,
    /// Size of all of it in bytes.
    pub len: usize,
}

/// What belongs to a queue pair beside its rings, one of each for each descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PairPlace {
    /// Frames to be sent, header first.
    pub tx: usize,
    /// Indirect tables of two entries.
    pub tables: usize,
    /// Receive buffers.
    pub rx: usize,
}

/// Bytes of an indirect table.
pub(super) const TABLE_LEN: usize = 32;

impl Layout {
    pub(super) fn new(args: &Args, frames: &Frames) -> Layout {
        let mut placer = Placer::default();
        let count = usize::from(args.queue_size);
        let tx_stride = frames.len().next_multiple_of(LINE);
        let rx_stride = (args.rx_buffer as usize).next_multiple_of(LINE);
        let rings = (0..2 * args.queues).map(|_| placer.ring(args.ring.into(), args.queue_size)).collect();
        let pairs = (0..args.queues)
            .map(|_| PairPlace {
                tx: placer.place(tx_stride * count, PAGE),
                tables: placer.place(TABLE_LEN * count, PAGE),
                rx: placer.place(rx_stride * count, PAGE),
            })
            .collect();
        Layout { queue_size: args.queue_size, rings, pairs, tx_stride, rx_stride, len: placer.len() }
    }
}

const LINE: usize = 64;
