//! A backend that often has ended commands when their batch has been handed over is asked in the same loop; others in the next.

use std::sync::Arc;

use bdev::{Bdev, BdevInfo, Channel, Completion, Io, IoChannel, Null, Status, Submitted};
use reactor::{Source, Tsc};
use tests::device::{Device, FIRST, Request, Setup, lun, read_10, unit};

/// A disk that ends everything when it is asked.
struct AtPoll {
    base: Null,
    prompt: bool,
}

#[derive(Default)]
struct AtPollChannel {
    held: Vec<Completion>,
    prompt: bool,
}

impl Bdev for AtPoll {
    fn info(&self) -> &BdevInfo {
        self.base.info()
    }

    fn open(&self) -> Channel {
        let channel: Box<dyn IoChannel> = Box::new(AtPollChannel { held: Vec::new(), prompt: self.prompt });
        Channel::from(channel)
    }
}

impl IoChannel for AtPollChannel {
    fn submit(&mut self, io: &Io<'_>, _: Tsc) -> Submitted {
        self.held.push(Completion { token: io.token, status: Status::Good });
        Submitted::Pending
    }

    fn poll(&mut self, _: Tsc, done: &mut Vec<Completion>) -> usize {
        let count = self.held.len();
        done.append(&mut self.held);
        count
    }

    fn is_prompt(&self) -> bool {
        self.prompt
    }

    fn next_deadline(&self) -> Option<Tsc> {
        None
    }
}

#[test]
fn commands_of_a_prompt_backend_end_in_the_loop_that_they_came_in() {
    for (prompt, in_first) in [(true, 5), (false, 0)] {
        let disk = AtPoll { base: Null::new("disk", 64, 512).unwrap(), prompt };
        let mut device = Device::ready(Setup::of([unit(0, 0, Arc::new(disk))]));
        device.submit_many(FIRST, 5, Request::new(lun(0, 0), &read_10(1, 1)).data_in(512));
        device.poll();
        assert_eq!(device.take(FIRST).len(), in_first, "prompt: {prompt}");
        device.poll();
        assert_eq!(device.take(FIRST).len(), 5 - in_first, "prompt: {prompt}");
    }
}

/// A command that ends in the loop that it came in has taken its time, too.
#[test]
fn commands_of_a_prompt_backend_are_timed_to_their_end() {
    let disk = AtPoll { base: Null::new("disk", 64, 512).unwrap(), prompt: true };
    let mut device = Device::ready(Setup::of([unit(0, 0, Arc::new(disk))]));
    let ticks = |device: &Device| device.count(|stats| stats.units[0].read_latency.sum());
    let before = ticks(&device);
    device.submit(FIRST, Request::new(lun(0, 0), &read_10(1, 1)).data_in(512));
    device.shards[0].poll(Tsc::now());
    assert_eq!(device.take(FIRST).len(), 1);
    assert!(ticks(&device) > before);
}
