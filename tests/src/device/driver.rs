//! The driver side of a [`Device`]: buffers, framing, submitting and taking back.

use std::mem;
use std::ops::Range;

use virtqueue::split::RawSplit;
use virtqueue::{DriverQueue, Segment};

use super::message::{Message, RESPONSE_LEN, Reply, UNWRITTEN, task_management};
use super::rings::ring_at;
use super::{BUFFERS, CONTROL, Device, END, Out};
use vhost_user::Device as Model;

impl<D: Model> Device<D> {
    /// Puts bytes into a fresh buffer that the device is to read.
    pub fn readable(&mut self, bytes: &[u8]) -> Segment {
        let addr = self.buffer(bytes.len());
        self.guest.write(addr, bytes);
        Segment::readable(addr, bytes.len() as u32)
    }

    /// A fresh buffer that the device is to write, filled with [`UNWRITTEN`].
    pub fn writable(&mut self, len: usize) -> Segment {
        let addr = self.buffer(len);
        self.guest.slice(addr, len).fill(UNWRITTEN);
        Segment::writable(addr, len as u32)
    }

    /// Memory for the test's own use, for as long as the device lives.
    pub fn reserve(&mut self, len: usize) -> u64 {
        let addr = self.buffer(len);
        self.loose.pop();
        addr
    }

    /// The usual framing: header and response have a descriptor each, and so has the data.
    pub fn segments(&mut self, message: &Message) -> Vec<Segment> {
        self.cut(message, &[51], &[RESPONSE_LEN])
    }

    /// A message whose first bytes are cut to these lengths, in each direction; what is left is one more descriptor.
    /// Lengths of 0 make descriptors of no bytes.
    pub fn cut(&mut self, message: &Message, readable: &[usize], writable: &[usize]) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut rest = &message.readable[..];
        for len in pieces(message.readable.len(), readable) {
            let (part, after) = rest.split_at(len);
            segments.push(self.readable(part));
            rest = after;
        }
        for len in pieces(message.writable, writable) {
            segments.push(self.writable(len));
        }
        segments
    }

    /// Puts a chain of the usual framing on a ring. Returns its token.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn submit(&mut self, index: u16, message: impl Into<Message>) -> usize {
        let segments = self.segments(&message.into());
        self.submit_chain(index, &segments)
    }

    /// Submits the same message a number of times.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn submit_many(&mut self, index: u16, count: usize, message: impl Into<Message>) {
        let message = message.into();
        for _ in 0..count {
            self.submit(index, message.clone());
        }
    }

    /// Puts a chain of these descriptors on a ring. Returns its token.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn submit_chain(&mut self, index: u16, segments: &[Segment]) -> usize {
        let token = self.token();
        let queue = &mut self.queues[usize::from(index)];
        queue.driver.add(segments, token).expect("room on the ring");
        queue.driver.publish();
        queue.out.insert(token, Out { segments: segments.to_vec(), buffers: mem::take(&mut self.loose) });
        token
    }

    /// Puts a chain on a ring whose descriptors are in an indirect table. Returns its token.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn submit_indirect(&mut self, index: u16, segments: &[Segment]) -> usize {
        let token = self.token();
        let table_addr = self.buffer(16 * segments.len());
        let table = self.guest.slice(table_addr, 16 * segments.len());
        let queue = &mut self.queues[usize::from(index)];
        queue.driver.add_indirect(segments, table_addr, table, token).expect("room on the ring");
        queue.driver.publish();
        queue.out.insert(token, Out { segments: segments.to_vec(), buffers: mem::take(&mut self.loose) });
        token
    }

    /// Chains that came back, in the order of the used ring.
    ///
    /// # Panics
    /// If the device broke the rules of the used ring.
    pub fn take(&mut self, index: u16) -> Vec<Reply> {
        let queue = &mut self.queues[usize::from(index)];
        let mut replies = Vec::new();
        while let Some(used) = queue.driver.pop_used() {
            let Out { segments, buffers } = queue.out.remove(&used.token).expect("a chain that is out");
            for addr in buffers {
                self.live.remove(&addr);
            }
            let mut bytes = Vec::new();
            for segment in segments.iter().filter(|segment| segment.writable) {
                bytes.extend_from_slice(&self.guest.read(segment.addr, segment.len as usize));
            }
            let (token, head, written) = (used.token, used.head, used.written);
            replies.push(Reply { token, head, written, writable: bytes, segments });
        }
        assert_eq!(queue.driver.fault(), None, "what the device did to the used ring of queue {index}");
        replies
    }

    /// The only chain that came back.
    ///
    /// # Panics
    /// If there is another number of them.
    #[track_caller]
    pub fn take_one(&mut self, index: u16) -> Reply {
        let mut replies = self.take(index);
        assert_eq!(replies.len(), 1, "chains that came back on queue {index}");
        replies.remove(0)
    }

    /// Submits a message, polls until the device is quiet, and takes the answer.
    ///
    /// # Panics
    /// If nothing or something else came back.
    #[track_caller]
    pub fn answer(&mut self, index: u16, message: impl Into<Message>) -> Reply {
        let token = self.submit(index, message);
        self.answer_to(index, token)
    }

    /// As [`Device::answer`], for a chain that was framed otherwise.
    ///
    /// # Panics
    /// As [`Device::answer`].
    #[track_caller]
    pub fn answer_chain(&mut self, index: u16, segments: &[Segment]) -> Reply {
        let token = self.submit_chain(index, segments);
        self.answer_to(index, token)
    }

    /// A task management function, up to its response.
    ///
    /// # Panics
    /// As [`Device::answer`].
    #[track_caller]
    pub fn manage(&mut self, subtype: u32, lun: [u8; 8], tag: u64) -> u8 {
        let reply = self.answer(CONTROL, task_management(subtype, lun, tag));
        assert_eq!(reply.written, 1);
        reply.byte()
    }

    /// Polls until the device is quiet, and takes the answer to a submitted chain, which must be the only one.
    ///
    /// # Panics
    /// If nothing or something else came back.
    #[track_caller]
    pub fn answer_to(&mut self, index: u16, token: usize) -> Reply {
        self.run();
        let reply = self.take_one(index);
        assert_eq!(reply.token, token);
        reply
    }

    /// Chains that were submitted and did not come back.
    #[must_use]
    pub fn outstanding(&self, index: u16) -> usize {
        self.queues[usize::from(index)].out.len()
    }

    /// The fields of a split ring, to be written as no driver would.
    ///
    /// # Panics
    /// If it is a packed one.
    #[must_use]
    pub fn raw(&self, index: u16) -> RawSplit {
        match &self.queues[usize::from(index)].driver {
            DriverQueue::Split(driver) => driver.raw(),
            DriverQueue::Packed(_) => panic!("a packed ring"),
        }
    }

    /// How many used entries the device has published on a split ring.
    #[must_use]
    pub fn used(&self, index: u16) -> u16 {
        self.raw(index).used_index()
    }

    /// Guest addresses of a used ring: what the device writes to complete a chain, beside the chain's own buffers.
    #[must_use]
    pub fn used_ring(&self, index: u16) -> Range<u64> {
        let [_, _, (addr, len)] = ring_at(self.kind.format, index, self.queues[usize::from(index)].driver.size());
        addr..addr + len as u64
    }

    fn token(&mut self) -> usize {
        self.next_token += 1;
        self.next_token
    }

    /// Memory that nothing lives in. It belongs to the next chain that is submitted.
    fn buffer(&mut self, len: usize) -> u64 {
        /// Between buffers, so that nothing is hit by what runs over the end of another.
        const GAP: u64 = 64;
        let wanted = (len as u64).next_multiple_of(16) + GAP;
        let mut addr = self.next_buffer;
        let mut wrapped = false;
        loop {
            let before = self.live.range(..addr + wanted).next_back().filter(|(_, end)| **end > addr);
            match before {
                Some((_, end)) => addr = *end,
                None if addr + wanted <= END => break,
                None => {
                    assert!(!wrapped, "no room in guest memory for a buffer of {len} bytes");
                    wrapped = true;
                    addr = BUFFERS;
                }
            }
        }
        self.next_buffer = addr + wanted;
        self.live.insert(addr, addr + wanted);
        self.loose.push(addr);
        addr
    }
}

/// The lengths given, as far as there are bytes, and one for what is left.
fn pieces(total: usize, lengths: &[usize]) -> Vec<usize> {
    let mut rest = total;
    let mut pieces = Vec::new();
    for len in lengths {
        if rest > 0 {
            pieces.push(rest.min(*len));
            rest -= rest.min(*len);
        }
    }
    if rest > 0 {
        pieces.push(rest);
    }
    pieces
}
