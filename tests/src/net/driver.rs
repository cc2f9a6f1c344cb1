//! The driver side of one connection to a net device: explicit rings, chains of the test's own making, receive buffers
//! that are posted one by one, and the control queue. What goes wrong on purpose is put there through
//! [`NetDriver::client`], its queues and their [`raw`](crate::live::queue::Queue::raw) fields.

use std::path::Path;

use vhost_user::frontend::Frontend;
use virtqueue::Segment;

use crate::device::{Message, Reply};
use crate::live::client::{Client, Plan};
use crate::live::queue::Queue;
use crate::wire::{HEADER_LEN, rx, tx};

/// How a driver sets itself up.
#[derive(Clone, Debug)]
pub struct NetPlan {
    /// Queue pairs of the device that are set up, from the first on.
    pub pairs: u16,
    /// Index of the control queue, if it is set up: see [`NetPlan::controlled`].
    pub control: Option<u16>,
    /// Features that are taken beside VERSION_1 and EVENT_IDX; the device must offer them.
    pub features: u64,
    /// Whether to take EVENT_IDX.
    pub event_idx: bool,
    /// Descriptors of each ring.
    pub ring_size: u16,
    /// Buffers of each ring.
    pub buffers: usize,
    /// Bytes of each, beside a header.
    pub buffer_len: usize,
    /// Whether the buffers have a memory region of their own, the second one.
    pub own_data_region: bool,
}

/// A front-end. Dropping it closes the socket, as if its process were killed.
pub struct NetDriver {
    /// The connection, its memory and its rings.
    pub client: Client,
    control: Option<u16>,
    mergeable: bool,
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The 12 bytes in front of it.
    pub header: [u8; HEADER_LEN],
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The buffers that it lay in.
    pub buffers: Vec<Reply>,
}

/// VIRTIO_NET_F_MRG_RXBUF.
pub const MRG_RXBUF: u64 = 1 << 15;
/// VIRTIO_NET_F_MQ.
pub const MQ: u64 = 1 << 22;
/// VIRTIO_NET_F_CTRL_VQ.
pub const CTRL_VQ: u64 = 1 << 17;

impl Default for NetPlan {
    /// One queue pair with mergeable buffers, 32 of 2 KiB on each ring.
    fn default() -> NetPlan {
        NetPlan {
            pairs: 1,
            control: None,
            features: MRG_RXBUF,
            event_idx: true,
            ring_size: 64,
            buffers: 32,
            buffer_len: 2048,
            own_data_region: false,
        }
    }
}

impl NetPlan {
    /// With the control queue of a device of so many queue pairs, and these features. Where there are several pairs, MQ is
    /// taken: without it a driver finds the control queue behind the first pair (virtio 1.3 §5.1.2).
    #[must_use]
    pub fn controlled(self, device_pairs: u16, features: u64) -> NetPlan {
        let mq = if device_pairs > 1 { MQ } else { 0 };
        NetPlan { control: Some(2 * device_pairs), features: self.features | CTRL_VQ | mq | features, ..self }
    }

    /// The same of rings, as any front-end sets them up.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan {
            rings: (0..2 * self.pairs).chain(self.control).collect(),
            ring_size: self.ring_size,
            event_idx: self.event_idx,
            features: self.features,
            slots: self.buffers,
            data_len: self.buffer_len + HEADER_LEN,
            own_data_region: self.own_data_region,
            ..Plan::default()
        }
    }
}

impl NetDriver {
    /// Connects to a device that listens and starts every ring of the plan.
    ///
    /// # Panics
    /// If anything of that does not work.
    #[must_use]
    #[track_caller]
    pub fn connect(path: &Path, plan: &NetPlan) -> NetDriver {
        NetDriver::attach(Frontend::connect(path).expect("the device listens"), plan)
    }

    /// Starts every ring of the plan on a connected socket.
    ///
    /// # Panics
    /// If that does not work.
    #[must_use]
    #[track_caller]
    pub fn attach(frontend: Frontend, plan: &NetPlan) -> NetDriver {
        let client = Client::attach(frontend, &plan.plan());
        NetDriver { client, control: plan.control, mergeable: plan.features & MRG_RXBUF != 0 }
    }

    /// The ring that is received on.
    pub fn rx(&mut self, pair: u16) -> &mut Queue {
        self.client.queue(rx(pair))
    }

    /// The ring that is sent on.
    pub fn tx(&mut self, pair: u16) -> &mut Queue {
        self.client.queue(tx(pair))
    }

    /// The control queue.
    ///
    /// # Panics
    /// If the plan has none.
    pub fn control(&mut self) -> &mut Queue {
        self.client.queue(self.control.expect("a plan with a control queue"))
    }

    /// Puts a chain of any descriptors on any ring of the plan. Returns its token.
    pub fn send_chain(&mut self, ring: u16, segments: &[Segment]) -> usize {
        let queue = self.client.queue(ring);
        let token = queue.put_segments(segments);
        queue.publish();
        token
    }

    /// Sends a frame, header and frame in one descriptor. Returns its token.
    pub fn send(&mut self, pair: u16, header: [u8; HEADER_LEN], frame: &[u8]) -> usize {
        self.send_cut(pair, header, frame, &[])
    }

    /// Sends header and frame with their first bytes in descriptors of these lengths, the rest in one more.
    pub fn send_cut(&mut self, pair: u16, header: [u8; HEADER_LEN], frame: &[u8], lengths: &[usize]) -> usize {
        let queue = self.tx(pair);
        let message = Message { readable: [&header[..], frame].concat(), writable: 0 };
        let token = queue.put_pieces(message, lengths, &[]);
        queue.publish();
        token
    }

    /// Sends a frame with nothing to be done, and waits until the device has taken it.
    ///
    /// # Panics
    /// If it does not, or says that it wrote something.
    #[track_caller]
    pub fn sent(&mut self, pair: u16, frame: &[u8]) {
        let token = self.send(pair, [0; HEADER_LEN], frame);
        let reply = self.tx(pair).wait_for(token);
        assert_eq!(reply.written, 0, "a device writes nothing into what is sent");
    }

    /// Posts receive buffers of one descriptor each.
    pub fn post(&mut self, pair: u16, count: usize, len: usize) {
        self.post_cut(pair, count, len, &[]);
    }

    /// Posts receive buffers with their first bytes in descriptors of these lengths, the rest in one more.
    pub fn post_cut(&mut self, pair: u16, count: usize, len: usize, lengths: &[usize]) {
        let queue = self.rx(pair);
        for _ in 0..count {
            queue.put_pieces(Message { readable: Vec::new(), writable: len }, &[], lengths);
        }
        queue.publish();
    }

    /// Waits, asleep until the device calls, for the next frame, of as many buffers as its header says.
    ///
    /// # Panics
    /// If none comes, or header and buffers do not fit.
    #[track_caller]
    pub fn receive(&mut self, pair: u16) -> Frame {
        let mergeable = self.mergeable;
        let queue = self.rx(pair);
        let first = queue.wait();
        let mut bytes = written(&first).to_vec();
        assert!(bytes.len() >= HEADER_LEN, "a used buffer of {} bytes has no header", bytes.len());
        let header: [u8; HEADER_LEN] = std::array::from_fn(|at| bytes[at]);
        let num_buffers = u16::from_le_bytes([header[10], header[11]]);
        assert!(num_buffers == 1 || mergeable && num_buffers > 1, "num_buffers {num_buffers}");
        let mut buffers = vec![first];
        for _ in 1..num_buffers {
            let next = queue.wait();
            bytes.extend_from_slice(written(&next));
            buffers.push(next);
        }
        Frame { header, bytes: bytes.split_off(HEADER_LEN), buffers }
    }

    /// Puts a command on the control queue: class and command, its data, and a byte for the answer (virtio 1.3 §5.1.6.5),
    /// each in a descriptor of its own. Returns its token.
    pub fn send_command(&mut self, class: u8, command: u8, data: &[u8]) -> usize {
        let queue = self.control();
        let message = Message { readable: [&[class, command], data].concat(), writable: 1 };
        let token = queue.put_pieces(message, &[2], &[]);
        queue.publish();
        token
    }

    /// Runs a command: 0 is OK, 1 is ERR.
    ///
    /// # Panics
    /// If it is not answered.
    #[track_caller]
    pub fn command(&mut self, class: u8, command: u8, data: &[u8]) -> u8 {
        let token = self.send_command(class, command, data);
        let reply = self.control().wait_for(token);
        assert_eq!(reply.written, 1, "the answer is a byte");
        reply.byte()
    }
}

/// The bytes that a used entry says were written.
fn written(reply: &Reply) -> &[u8] {
    let len = reply.written as usize;
    assert!(len <= reply.writable.len(), "{len} bytes written into a buffer of {}", reply.writable.len());
    &reply.writable[..len]
}
