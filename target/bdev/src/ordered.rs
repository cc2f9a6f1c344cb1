//! The wrapper that keeps completions in order. Not the requests: those reach the device below at once, and that one
//! works on them in whatever order it likes.

use std::collections::VecDeque;
use std::sync::Arc;

use reactor::clock::Tsc;

use crate::{Bdev, BdevInfo, Channel, Completion, Io, IoChannel, Status, Submitted, Token};

/// A device whose requests complete, on each channel, in the order in which they were submitted. It has the name and
/// the kind of the one below.
///
/// A request that is done early waits for all older ones: the slowest sets the pace. That is what it costs to give
/// completions in order to an initiator that wants them so, or to measure one that does.
pub struct Ordered {
    base: Arc<dyn Bdev>,
}

impl Ordered {
    /// Keeps the completions of `base` in order.
    #[must_use]
    pub fn new(base: Arc<dyn Bdev>) -> Ordered {
        Ordered { base }
    }
}

impl Bdev for Ordered {
    fn info(&self) -> &BdevInfo {
        self.base.info()
    }

    fn block_count(&self) -> u64 {
        self.base.block_count()
    }

    fn open(&self) -> Channel {
        let channel: Box<dyn IoChannel> = Box::new(OrderedChannel {
            base: self.base.open(),
            queue: VecDeque::with_capacity(crate::parked::RESERVED),
            first: 0,
            ended: Vec::with_capacity(crate::parked::RESERVED),
        });
        Channel::from(channel)
    }

    fn reset(&self) {
        self.base.reset();
    }
}

struct OrderedChannel {
    base: Channel,
    /// Requests whose completion is still to be told, the oldest first. The device below knows each by its position,
    /// counted from the first request of the channel.
    queue: VecDeque<Entry>,
    /// Position of the oldest.
    first: u64,
    ended: Vec<Completion>,
}

struct Entry {
    token: Token,
    status: Option<Status>,
}

impl IoChannel for OrderedChannel {
    fn base(&self) -> Option<&Channel> {
        Some(&self.base)
    }

    fn base_mut(&mut self) -> Option<&mut Channel> {
        Some(&mut self.base)
    }

    fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        let position = self.first + self.queue.len() as u64;
        match self.base.submit(&Io { token: Token(position), ..*io }, now) {
            Submitted::Done(status) if self.queue.is_empty() => Submitted::Done(status),
            Submitted::Done(status) => self.keep(io.token, Some(status)),
            Submitted::Pending => self.keep(io.token, None),
        }
    }

    fn abort(&mut self, token: Token) {
        let waits = |entry: &Entry| entry.token == token && entry.status.is_none();
        if let Some(at) = self.queue.iter().position(waits) {
            self.base.abort(Token(self.first + at as u64));
        }
    }

    fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        self.base.poll(now, &mut self.ended);
        for Completion { token, status } in self.ended.drain(..) {
            let entry = token.0.checked_sub(self.first).and_then(|at| self.queue.get_mut(at as usize));
            debug_assert!(entry.is_some(), "a bdev completed {token:?}, which is not in flight");
            if let Some(entry) = entry {
                entry.status = Some(status);
            }
        }
        let before = done.len();
        while let Some(&Entry { token, status: Some(status) }) = self.queue.front() {
            done.push(Completion { token, status });
            self.queue.pop_front();
            self.first += 1;
        }
        done.len() - before
    }

    fn next_deadline(&self) -> Option<Tsc> {
        // The oldest is done already: the next poll tells.
        let told_next = self.queue.front().is_some_and(|entry| entry.status.is_some());
        if told_next { Some(Tsc(0)) } else { self.base.next_deadline() }
    }
}

impl OrderedChannel {
    fn keep(&mut self, token: Token, status: Option<Status>) -> Submitted {
        self.queue.push_back(Entry { token, status });
        Submitted::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Recorder;
    use crate::{FaultPlan, Faulty, Malloc, Op};

    const NOW: Tsc = Tsc(5);

    fn submit(channel: &mut Channel, op: Op, token: u64) -> Submitted {
        channel.submit(&Io::new(op, 0, 0, &[], Token(token)), NOW)
    }

    fn completed(channel: &mut Channel) -> Vec<(u64, Status)> {
        let mut done = Vec::new();
        assert_eq!(channel.poll(NOW, &mut done), done.len());
        done.iter().map(|completion| (completion.token.0, completion.status)).collect()
    }

    /// Writes hang at a gate, everything else is done at once: as much out of order as can be.
    #[test]
    fn ordered_completions_come_in_the_order_of_submission() {
        let plan: FaultPlan = "all writes with hang".parse().unwrap();
        let faulty = Faulty::new("f", Arc::new(Malloc::new("m", 4096, 512).unwrap()), plan);
        let gate = faulty.gate().clone();
        let recorder = Recorder::over(Arc::new(faulty));
        let mut channel = Ordered::new(Arc::new(recorder.clone())).open();
        let write = Op::Write { fua: false };
        assert_eq!(submit(&mut channel, Op::Read, 70), Submitted::Done(Status::Good));
        assert_eq!(channel.next_deadline(), None);
        for (token, op) in [(71, write), (72, Op::Read), (73, write), (74, Op::Flush), (75, Op::Read)] {
            assert_eq!(submit(&mut channel, op, token), Submitted::Pending);
        }
        assert_eq!(recorder.calls().reads, 3, "requests are not held up");
        assert_eq!(completed(&mut channel), []);
        gate.release(1);
        assert_eq!(completed(&mut channel), [(71, Status::Good), (72, Status::Good)]);
        assert_eq!(submit(&mut channel, Op::Read, 76), Submitted::Pending);
        gate.open();
        let rest = [73, 74, 75, 76].map(|token| (token, Status::Good));
        assert_eq!(completed(&mut channel), rest);
        assert_eq!(channel.next_deadline(), None);
        assert_eq!(submit(&mut channel, Op::Read, 77), Submitted::Done(Status::Good));
    }

    #[test]
    fn ordered_failure_keeps_its_place() {
        let plan: FaultPlan = "all writes with hang".parse().unwrap();
        let faulty = Faulty::new("f", Arc::new(Malloc::new("m", 4096, 512).unwrap()), plan);
        let gate = faulty.gate().clone();
        let recorder = Recorder::over(Arc::new(faulty));
        let mut channel = Ordered::new(Arc::new(recorder.clone())).open();
        assert_eq!(submit(&mut channel, Op::Write { fua: false }, 1), Submitted::Pending);
        recorder.fail_next(1, Status::ReadError);
        assert_eq!(submit(&mut channel, Op::Read, 2), Submitted::Pending);
        gate.open();
        assert_eq!(completed(&mut channel), [(1, Status::Good), (2, Status::ReadError)]);
    }
}
