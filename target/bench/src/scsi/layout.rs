//! Where everything lies in the shared memory of a run: rings, the lines of each command, its data. Offsets and sizes;
//! what the bytes mean is `lines.rs`'s and the ring's. Lines and data start at multiples of a page.

use super::Args;
use super::lines::SLOT_LEN;
use crate::memory::{PAGE, Placer, RingPlace};

/// The two queues before the request queues: control and event (virtio 1.3 §5.6.2).
pub(super) const FIRST_REQUEST_RING: u16 = 2;

/// Offsets in the shared memory.
#[derive(Debug)]
pub(super) struct Layout {
    /// Descriptors of each ring.
    pub queue_size: u16,
    /// By ring index: control, event, then one a request queue.
    pub rings: Vec<RingPlace>,
    /// By request queue.
    pub queues: Vec<QueuePlace>,
    /// Distance of the data of two commands in bytes.
    pub data_stride: usize,
    /// Size of all of it in bytes.
    pub len: usize,
}

/// What the commands of one request queue consist of, each by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueuePlace {
    /// Lines of [`SLOT_LEN`] bytes.
    pub lines: usize,
    /// Data, [`Layout::data_stride`] bytes each.
    pub data: usize,
}

impl Layout {
    pub(super) fn new(args: &Args) -> Layout {
        let mut placer = Placer::default();
        let size = args.queue_size;
        let slots = usize::from(args.qd);
        let data_stride = (args.bs as usize).next_multiple_of(PAGE);
        let rings = (0..FIRST_REQUEST_RING + args.queues).map(|_| placer.ring(args.ring.into(), size)).collect();
        let queues = (0..args.queues)
            .map(|_| QueuePlace {
                lines: placer.place(SLOT_LEN * slots, PAGE),
                data: placer.place(data_stride * slots, PAGE),
            })
            .collect();
        Layout { queue_size: size, rings, queues, data_stride, len: placer.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::tests::parse;
    use super::*;

    #[test]
    fn layout_parts_are_aligned_and_do_not_overlap() {
        let args = parse("--socket s --queues 3 --qd 5 --queue-size 64 --bs 6k").unwrap();
        let layout = Layout::new(&args);
        assert_eq!((layout.rings.len(), layout.queues.len(), layout.data_stride), (5, 3, 8192));
        let mut parts = Vec::new();
        for ring in &layout.rings {
            parts.extend([(ring.desc, 1024, 128), (ring.avail, 134, 128), (ring.used, 518, 128)]);
        }
        for queue in &layout.queues {
            parts.extend([(queue.lines, 5 * 384, 4096), (queue.data, 5 * 8192, 4096)]);
        }
        let mut end = 0;
        for (start, len, align) in parts {
            assert!(start >= end && start % align == 0, "{start}");
            end = start + len;
        }
        assert_eq!(end, layout.len);
    }
}
