//! Tests of what ends a sleep and what does not, on real eventfds. `Some(0)` as the time to wait asks without blocking.

use super::*;
use std::os::fd::{AsFd, BorrowedFd};

/// A source that only shows fds.
struct Fds(Vec<OwnedFd>);

impl Source for Fds {
    fn poll(&mut self, _now: Tsc) -> usize {
        0
    }

    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.0.iter().for_each(|fd| add(fd.as_fd()));
    }
}

fn bell() -> Arc<Bell> {
    Arc::new(Bell::new().expect("an epoll instance"))
}

fn kick_fd() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd")
}

fn kick(fd: &OwnedFd) {
    write(fd, &1u64.to_ne_bytes()).expect("written");
}

#[test]
fn wait_without_a_ring_meets_its_deadline() {
    let bell = bell();
    assert!(!bell.wait(Some(0)).any());
    assert!(!bell.wait(Some(Tsc::ticks(100_000))).any());
}

#[test]
fn ring_ends_one_wait_only() {
    let bell = bell();
    for _ in 0..3 {
        bell.ring();
        assert!(bell.wait(None).any());
        assert!(!bell.wait(Some(0)).any());
    }
}

#[test]
fn kick_never_read_ends_a_wait_each_time() {
    let (bell, fds) = (bell(), Fds(vec![kick_fd(), kick_fd()]));
    let _watch = bell.watch(SourceId(7), &fds).expect("watched");
    for fd in [&fds.0[0], &fds.0[1], &fds.0[0]] {
        kick(fd);
        assert!(bell.wait(None).any());
        assert!(!bell.wait(Some(0)).any());
    }
}

#[test]
fn wait_names_the_sources_that_rang_and_never_the_poller_itself() {
    let (bell, fds) = (bell(), [Fds(vec![kick_fd()]), Fds(vec![kick_fd(), kick_fd()]), Fds(vec![kick_fd()])]);
    let _watches: Vec<_> = (0..3).map(|id| bell.watch(SourceId(id), &fds[id as usize]).expect("watched")).collect();
    kick(&fds[1].0[1]);
    kick(&fds[2].0[0]);
    bell.ring();
    let mut rung: Vec<_> = bell.wait(Some(0)).sources().collect();
    rung.sort_by_key(|id| id.0);
    assert_eq!(rung, [SourceId(1), SourceId(2)]);
    assert_eq!(bell.wait(Some(0)).sources().count(), 0);
}

#[test]
fn kicks_of_more_sources_than_one_wait_takes_are_all_named_in_the_end() {
    let (bell, fds) = (bell(), (0..100).map(|_| Fds(vec![kick_fd()])).collect::<Vec<_>>());
    let _watches: Vec<_> =
        fds.iter().zip(0..).map(|(fds, id)| bell.watch(SourceId(id), fds).expect("watched")).collect();
    fds.iter().for_each(|fds| kick(&fds.0[0]));
    let mut named: Vec<u64> =
        (0..4).flat_map(|_| bell.wait(Some(0)).sources().collect::<Vec<_>>()).map(|id| id.0).collect();
    named.sort_unstable();
    assert_eq!(named, (0..100).collect::<Vec<_>>());
}

#[test]
fn kick_before_the_watch_ends_a_wait() {
    let (bell, fds) = (bell(), Fds(vec![kick_fd()]));
    kick(&fds.0[0]);
    let _watch = bell.watch(SourceId(7), &fds).expect("watched");
    assert!(bell.wait(None).any());
}

#[test]
fn kick_after_the_watch_ended_is_not_heard() {
    let (bell, fds) = (bell(), Fds(vec![kick_fd()]));
    // The front-end's end of the same eventfd, which keeps the open file alive.
    let peer = fds.0[0].try_clone().expect("cloned");
    let watch = bell.watch(SourceId(7), &fds).expect("watched");
    drop(fds);
    kick(&peer);
    assert!(bell.wait(None).any(), "the source closed its fd, the watch has its own");
    drop(watch);
    kick(&peer);
    assert!(!bell.wait(Some(0)).any());
}

#[test]
fn watch_of_an_fd_that_cannot_be_polled_fails_and_leaves_nothing() {
    let bell = bell();
    let file = std::fs::File::open("/proc/self/exe").expect("a regular file");
    let fds = Fds(vec![kick_fd(), file.into()]);
    assert!(bell.watch(SourceId(7), &fds).is_err());
    kick(&fds.0[0]);
    assert!(!bell.wait(Some(0)).any());
}
