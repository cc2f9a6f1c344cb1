//! R07 over backends that keep commands for as long as they like: a reset function has them give back what it waits for, an abort
//! asks for single commands. Polls are made one by one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bdev::{
    Abilities, Bdev, BdevInfo, Channel, Completion, Counted, Io, IoChannel, Null, Op, Status, Submitted, Token,
};
use reactor::Tsc;
use tests::device::{CONTROL, Device, FIRST, Request, Setup, TEST_UNIT_READY, lun, read_10, task_management, unit};

const ABORTED: u8 = 2;
const RESET: u8 = 4;
const TRANSPORT_FAILURE: u8 = 6;
const COMPLETE: u8 = 0;
const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const I_T_NEXUS_RESET: u32 = 4;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK_SET: u32 = 7;
const RESET_OCCURRED: (u8, u8, u8) = (0x06, 0x29, 0x03);
const ABORTED_COMMAND: (u8, u8, u8) = (0x0b, 0x00, 0x00);

/// The second request queue, on shard 1 where there are two.
const SECOND: u16 = FIRST + 1;

/// A disk that ends nothing by itself, until it is told to.
#[derive(Clone)]
struct Keeper {
    info: BdevInfo,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    channels: u64,
    /// Commands, by channel, and what has ended.
    held: Vec<(u64, Token)>,
    ended: VecDeque<(u64, Completion)>,
    /// Resets that have begun and not ended: the channel that one came on, and its name.
    resets: Vec<(u64, Token)>,
    /// How many there have been, and how many commands were asked for.
    reset_count: usize,
    aborted: usize,
    /// It refuses resets.
    refuses: bool,
}

struct KeeperChannel {
    number: u64,
    kept: Arc<Mutex<Kept>>,
}

impl Keeper {
    fn new(resets: bool) -> Keeper {
        let info = Null::new("keeper", 64, 512).unwrap().info().clone();
        let can = Abilities { reset: resets, ..info.can };
        Keeper { info: BdevInfo { can, ..info }, kept: Arc::default() }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// Commands that it was asked for, and those that it holds.
    fn asked(&self) -> (usize, usize) {
        let kept = self.kept();
        (kept.aborted, kept.held.len())
    }

    /// Resets so far, and those that have not ended.
    fn resets(&self) -> (usize, usize) {
        let kept = self.kept();
        (kept.reset_count, kept.resets.len())
    }

    /// What it holds goes back.
    fn give_back(&self) {
        let mut kept = self.kept();
        let held = std::mem::take(&mut kept.held);
        kept.ended
            .extend(held.into_iter().map(|(channel, token)| (channel, Completion { token, status: Status::Aborted })));
    }

    fn end_resets(&self, status: Status) {
        let mut kept = self.kept();
        let resets = std::mem::take(&mut kept.resets);
        kept.ended.extend(resets.into_iter().map(|(channel, token)| (channel, Completion { token, status })));
    }
}

impl Bdev for Keeper {
    fn info(&self) -> &BdevInfo {
        &self.info
    }

    fn open(&self) -> Channel {
        let mut kept = self.kept();
        kept.channels += 1;
        let channel: Box<dyn IoChannel> =
            Box::new(KeeperChannel { number: kept.channels, kept: Arc::clone(&self.kept) });
        Channel::from(channel)
    }
}

impl IoChannel for KeeperChannel {
    fn submit(&mut self, io: &Io<'_>, _: Tsc) -> Submitted {
        let mut kept = self.kept.lock().unwrap();
        if io.op != Op::Reset {
            kept.held.push((self.number, io.token));
            return Submitted::Pending;
        }
        assert!(!kept.held.is_empty(), "a reset that gives nothing back disturbs others only");
        kept.reset_count += 1;
        if kept.refuses {
            return Submitted::Done(Status::Busy);
        }
        kept.resets.push((self.number, io.token));
        Submitted::Pending
    }

    fn abort(&mut self, token: Token) {
        let mut kept = self.kept.lock().unwrap();
        let at =
            kept.held.iter().position(|held| *held == (self.number, token)).expect("it is asked on its own channel");
        kept.held.remove(at);
        kept.aborted += 1;
        let completion = Completion { token, status: Status::Aborted };
        kept.ended.push_back((self.number, completion));
    }

    fn poll(&mut self, _: Tsc, done: &mut Vec<Completion>) -> usize {
        let mut kept = self.kept.lock().unwrap();
        let (own, others) = kept.ended.drain(..).partition::<Vec<_>, _>(|(channel, _)| *channel == self.number);
        kept.ended.extend(others);
        done.extend(own.iter().map(|(_, completion)| *completion));
        own.len()
    }

    fn next_deadline(&self) -> Option<Tsc> {
        Some(Tsc(0))
    }
}

/// Two units of target 0, counted as the daemon has them, on so many shards.
fn fixture(shards: usize, resets: bool) -> (Device, [Keeper; 2]) {
    let disks = [(); 2].map(|()| Keeper::new(resets));
    let [a, b] = disks.clone().map(|disk| Arc::new(Counted::new(Arc::new(disk))));
    let mut setup = Setup::of([unit(0, 0, a), unit(0, 1, b)]);
    setup.request_queues = 2;
    setup.shards = shards;
    (Device::ready(setup), disks)
}

fn read(number: u16) -> Request {
    Request::new(lun(0, number), &read_10(0, 1)).data_in(512)
}

fn poll(device: &mut Device, shard: usize, times: usize) {
    for _ in 0..times {
        device.poll_shard(shard);
    }
}

fn codes(device: &mut Device, index: u16) -> Vec<u8> {
    device.take(index).iter().map(|reply| reply.code()).collect()
}

#[test]
fn r07_lun_reset_resets_the_backend_once_when_every_shard_has_joined() {
    let (mut device, [disk, other]) = fixture(2, true);
    for index in [FIRST, SECOND] {
        device.submit_many(index, 2, read(0));
        device.submit(index, read(1));
    }
    device.run();
    assert_eq!((disk.kept().held.len(), other.kept().held.len()), (4, 2));
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    poll(&mut device, 0, 10);
    assert_eq!(disk.resets(), (0, 0), "shard 1 may still give it commands");
    device.submit(SECOND, read(0)); // before the function, as far as shard 1 can tell
    device.poll_shard(1);
    assert_eq!(codes(&mut device, SECOND), [RESET]);
    assert_eq!(disk.resets(), (0, 0), "shard 0 does it");
    poll(&mut device, 0, 10);
    device.poll_shard(1);
    assert_eq!((disk.resets(), disk.kept().held.len()), ((1, 1), 4));

    // What comes now is not the function's, and shares the backend's fate.
    device.submit(FIRST, read(0));
    device.poll_shard(0);
    disk.give_back();
    for shard in [0, 1, 0] {
        device.poll_shard(shard);
    }
    assert_eq!(codes(&mut device, SECOND), [RESET; 2]);
    let replies = device.take(FIRST);
    assert_eq!(replies.iter().map(|reply| reply.code()).collect::<Vec<_>>(), [RESET, RESET, 0]);
    assert_eq!(replies[2].sense(), Some(ABORTED_COMMAND));
    assert_eq!(device.used(CONTROL), 0, "the backend is still at it");
    disk.end_resets(Status::Good);
    device.poll_shard(0);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    assert_eq!((disk.resets(), disk.asked()), ((1, 0), (0, 0)));

    // The other unit has not noticed.
    assert_eq!((other.resets(), other.kept().held.len(), device.in_flight(1)), ((0, 0), 2, 2));
    assert_eq!(device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY)).sense(), Some(RESET_OCCURRED));
    other.give_back();
    device.run();
    assert_eq!(codes(&mut device, FIRST), [0]);
    assert_eq!(codes(&mut device, SECOND), [0]);
}

#[test]
fn r07_reset_of_units_without_commands_leaves_their_backends_alone() {
    let (mut device, [disk, other]) = fixture(2, true);
    device.submit(SECOND, read(1));
    device.run();
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    device.run();
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    // That of the target is for the unit that has one.
    device.submit(CONTROL, task_management(I_T_NEXUS_RESET, lun(0, 0), 0));
    device.run();
    assert_eq!((disk.resets(), other.resets()), ((0, 0), (1, 1)));
    other.give_back();
    other.end_resets(Status::Good);
    device.run();
    assert_eq!(codes(&mut device, SECOND), [RESET]);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
}

#[test]
fn r07_reset_that_the_backend_cannot_do_waits_for_the_commands() {
    for (resets, refuses, asked) in [(false, false, 0), (true, true, 1), (true, false, 1)] {
        let (mut device, [disk, _]) = fixture(1, resets);
        disk.kept().refuses = refuses;
        device.submit(FIRST, read(0));
        device.run();
        device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
        poll(&mut device, 0, 20);
        disk.end_resets(Status::Failed);
        poll(&mut device, 0, 20);
        assert_eq!((disk.resets(), device.used(CONTROL), device.used(FIRST)), ((asked, 0), 0, 2));
        disk.give_back();
        device.run();
        assert_eq!(codes(&mut device, FIRST), [RESET]);
        assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    }
}

#[test]
fn r07_abort_asks_for_its_commands_where_they_are() {
    let (mut device, [disk, other]) = fixture(2, true);
    for (index, tag) in [(FIRST, 1), (FIRST, 2), (SECOND, 3), (SECOND, 4)] {
        device.submit(index, read(0).tag(tag));
        device.submit(index, read(1).tag(tag));
    }
    device.run();
    device.submit(CONTROL, task_management(QUERY_TASK_SET, lun(0, 0), 0));
    device.run();
    let _ = device.take_one(CONTROL);
    assert_eq!(disk.asked(), (0, 4));
    device.submit(CONTROL, task_management(ABORT_TASK, lun(0, 0), 3));
    device.run();
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    assert_eq!((codes(&mut device, SECOND), disk.asked()), (vec![ABORTED], (1, 3)));
    device.submit(CONTROL, task_management(ABORT_TASK_SET, lun(0, 0), 0));
    device.run();
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    assert_eq!((codes(&mut device, FIRST), codes(&mut device, SECOND)), (vec![ABORTED; 2], vec![ABORTED]));
    assert_eq!((disk.asked(), disk.resets(), other.asked()), ((4, 0), (0, 0), (0, 4)));
    other.give_back();
    device.run();
    let _ = (device.take(FIRST), device.take(SECOND));
}

#[test]
fn r22_unit_that_goes_while_its_backend_is_reset_waits_for_that() {
    let (mut device, [disk, _]) = fixture(1, true);
    device.submit(FIRST, read(0));
    device.run();
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    poll(&mut device, 0, 5);
    assert_eq!(disk.resets(), (1, 1));
    let release = device.unplug(0, 0).unwrap();
    disk.give_back();
    poll(&mut device, 0, 5);
    assert_eq!(codes(&mut device, FIRST), [TRANSPORT_FAILURE]);
    assert!(!release.is_over() && device.used(CONTROL) == 0, "its channel is in use");
    disk.end_resets(Status::Good);
    device.run();
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    assert!(release.is_over());
}
