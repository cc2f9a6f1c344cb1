//! A poller that sleeps is woken by completions, and by nothing else.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// Whether the channel's descriptor becomes readable within the time.
pub(super) fn woken(channel: &Channel, patience: Duration) -> bool {
    let wake = channel.wake_fd().expect("files wake");
    let mut fds = [PollFd::new(&wake, PollFlags::IN)];
    let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
    poll(&mut fds, Some(&timeout)).unwrap() > 0
}

#[test]
fn file_completion_wakes_an_armed_poller() {
    for place in places() {
        let file = open(&FileConfig { direct: true, ..new_file(&place, "f", 16 << 20) });
        let (mut channel, guest) = (file.open(), Guest::new(1 << 20));
        let mut done = Vec::new();
        for round in 0..40u64 {
            let buffers = [guest.at(0, 1 << 20)];
            let io = Io::new(Op::Write { fua: true }, round % 8 * 2048, 2048, &buffers, Token(round));
            assert_eq!(channel.submit(&io, NOW), Submitted::Pending);
            channel.flush_submissions();
            // as the reactor does it: arm, look once more, sleep
            while done.is_empty() {
                channel.arm();
                let idle = channel.poll(NOW, &mut done) == 0 && channel.next_deadline().is_none();
                if idle {
                    assert!(woken(&channel, PATIENCE), "a lost wake-up in round {round}");
                }
                channel.disarm();
                channel.poll(NOW, &mut done);
            }
            assert_eq!(done.pop().map(|completion| completion.status), Some(Status::Good));
        }
    }
}

#[test]
fn file_completion_does_not_signal_a_poller_that_is_awake() {
    let place = &places()[0];
    let file = open(&new_file(place, "f", 1 << 20));
    let (mut channel, guest) = (file.open(), Guest::new(4096));
    for lba in 0..100 {
        assert_eq!(run(&mut channel, WRITE, lba * 8, 8, &[guest.at(0, 4096)]), Status::Good);
    }
    let wake = channel.wake_fd().unwrap().as_fd().try_clone_to_owned().unwrap();
    let mut count = [0u8; 8];
    assert_eq!(rustix::io::read(&wake, &mut count), Err(rustix::io::Errno::AGAIN));
    assert_eq!(channel.next_deadline(), None);
}
