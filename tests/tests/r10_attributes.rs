//! R10: task attributes. SIMPLE, ORDERED and HEAD OF QUEUE are honoured among the commands of one logical unit on one
//! request queue; ACA and what is above it are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bdev::testing::{Calls, Recorder};
use bdev::{Bdev, BdevInfo, Channel, Completion, Io, IoChannel, Submitted};
use reactor::Tsc;
use tests::device::{
    CONTROL, Device, FIRST, Noise, Request, Setup, TEST_UNIT_READY, lun, read_10, task_management, unit, write_10,
};
use virtio_scsi::Limit;

const SIMPLE: u8 = 0;
const ORDERED: u8 = 1;
const HEAD: u8 = 2;
const ACA: u8 = 3;

const INVALID_MESSAGE: (u8, u8, u8) = (0x05, 0x49, 0x00);

/// Units 0 and 1, behind one gate; two request queues on one shard.
fn device() -> (Device, [Recorder; 2]) {
    let gate = bdev::Gate::closed();
    let disks = [0, 1].map(|_| Recorder::gated("disk", 1 << 20, 512, &gate).unwrap());
    let [a, b] = disks.clone().map(Arc::new);
    let mut setup = Setup::of([unit(0, 0, a), unit(0, 1, b)]);
    setup.request_queues = 2;
    setup.gate = gate;
    (Device::ready(setup), disks)
}

/// The block address is a name: the recorder shows it.
fn read(number: u16, name: u32, attribute: u8) -> Request {
    Request::new(lun(0, number), &read_10(name, 1)).data_in(512).attribute(attribute).tag(u64::from(name))
}

/// Names of the commands that have reached the backend, in the order in which they did.
fn arrived(disk: &Recorder) -> Vec<u64> {
    disk.first_calls().iter().map(|call| call.lba).collect()
}

#[test]
fn r10_aca_and_reserved_attributes_are_refused() {
    let (mut device, disks) = device();
    for attribute in [ACA, 4, 5, 0x7f, 0x80, 0xff] {
        device.answer(FIRST, read(0, 1, attribute)).assert_check(INVALID_MESSAGE, 512);
        let write = Request::new(lun(0, 0), &write_10(1, 1)).data_out([0; 512]).attribute(attribute);
        device.answer(FIRST, write).assert_check(INVALID_MESSAGE, 512);
        for cdb in [&TEST_UNIT_READY[..], &[0x12, 0, 0, 0, 36, 0], &[0xff]] {
            device.answer(FIRST, Request::new(lun(0, 0), cdb).attribute(attribute)).assert_check(INVALID_MESSAGE, 0);
        }
        let well_known = Request::new([0xc1, 1, 0, 0, 0, 0, 0, 0], &TEST_UNIT_READY).attribute(attribute);
        device.answer(FIRST, well_known).assert_check(INVALID_MESSAGE, 0);
    }
    assert_eq!(disks[0].calls(), Calls::default());
    assert_eq!(device.in_flight(0), 0, "the slots are back");
}

#[test]
fn r10_simple_ordered_and_head_are_served() {
    let (mut device, disks) = device();
    device.gate.open();
    for attribute in [SIMPLE, ORDERED, HEAD] {
        device.answer(FIRST, read(0, 1, attribute)).assert_good(0);
        let write = Request::new(lun(0, 0), &write_10(1, 1)).data_out([0; 512]).attribute(attribute);
        device.answer(FIRST, write).assert_good(0);
        device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY).attribute(attribute)).assert_good(0);
        let well_known = Request::new([0xc1, 1, 0, 0, 0, 0, 0, 0], &TEST_UNIT_READY).attribute(attribute);
        device.answer(FIRST, well_known).assert_good(0);
    }
    assert_eq!(disks[0].calls(), Calls { reads: 3, writes: 3, flushes: 0, ended: 6 });
}

#[test]
fn r10_priority_and_crn_are_ignored() {
    let (mut device, _) = device();
    device.gate.open();
    for (priority, crn) in [(0, 1), (15, 0), (255, 255)] {
        let mut message = read(0, 1, SIMPLE).message();
        (message.readable[17], message.readable[18]) = (priority, crn);
        device.answer(FIRST, message).assert_good(0);
    }
}

#[test]
fn r10_ordered_waits_for_all_older_ones_and_younger_ones_for_it() {
    let (mut device, [disk, _]) = device();
    for (name, attribute) in [(1, SIMPLE), (2, SIMPLE), (3, ORDERED), (4, SIMPLE), (5, SIMPLE)] {
        device.submit(FIRST, read(0, name, attribute));
    }
    device.run();
    assert_eq!(arrived(&disk), [1, 2]);
    device.gate.release(1);
    device.run();
    assert_eq!((arrived(&disk), device.take(FIRST).len()), (vec![1, 2], 1));
    device.gate.release(1);
    device.run();
    assert_eq!((arrived(&disk), device.take(FIRST).len()), (vec![1, 2, 3], 1));
    device.gate.release(1);
    device.run();
    assert_eq!((arrived(&disk), device.take(FIRST).len()), (vec![1, 2, 3, 4, 5], 1));
    device.gate.open();
    device.run();
    assert_eq!(device.take(FIRST).len(), 2);
}

#[test]
fn r10_head_of_queue_waits_for_none() {
    let (mut device, [disk, _]) = device();
    for (name, attribute) in [(1, SIMPLE), (2, ORDERED), (3, SIMPLE), (4, HEAD), (5, HEAD)] {
        device.submit(FIRST, read(0, name, attribute));
    }
    device.run();
    assert_eq!(arrived(&disk), [1, 4, 5]);
    device.gate.open();
    device.run();
    assert_eq!((arrived(&disk), device.take(FIRST).len()), (vec![1, 4, 5, 2, 3], 5));
}

#[test]
fn r10_simple_behind_a_head_of_queue_waits_for_it() {
    let (mut device, [disk, _]) = device();
    device.submit(FIRST, read(0, 1, HEAD));
    device.submit(FIRST, read(0, 2, SIMPLE));
    device.run();
    assert_eq!(arrived(&disk), [1]);
    device.gate.release(1);
    device.run();
    assert_eq!(arrived(&disk), [1, 2]);
}

#[test]
fn r10_inquiry_report_luns_and_request_sense_are_implicitly_head_of_queue() {
    let (mut device, [disk, _]) = device();
    device.submit(FIRST, read(0, 1, SIMPLE));
    device.submit(FIRST, read(0, 2, ORDERED));
    device.run();
    for cdb in [&[0x12, 0, 0, 0, 36, 0][..], &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], &[3, 0, 0, 0, 18, 0]] {
        for attribute in [SIMPLE, ORDERED, HEAD] {
            let request = Request::new(lun(0, 0), cdb).data_in(64).attribute(attribute);
            assert_eq!(device.answer(FIRST, request).outcome(), (0, 0));
        }
    }
    device.submit(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY));
    device.run();
    assert_eq!((device.take(FIRST), arrived(&disk)), (vec![], vec![1]), "TEST UNIT READY is like any other");
}

#[test]
fn r10_other_units_and_other_queues_are_not_held_up() {
    let (mut device, disks) = device();
    device.submit(FIRST, read(0, 1, SIMPLE));
    device.submit(FIRST, read(0, 2, ORDERED));
    device.run();
    device.submit(FIRST, read(1, 3, SIMPLE));
    device.submit(FIRST + 1, read(0, 4, SIMPLE));
    device.submit(FIRST + 1, read(1, 5, ORDERED));
    device.run();
    assert_eq!((arrived(&disks[0]), arrived(&disks[1])), (vec![1, 4], vec![3, 5]));
}

#[test]
fn r10_waiting_commands_are_in_flight_and_count() {
    let gate = bdev::Gate::closed();
    let disk = Recorder::gated("disk", 64, 512, &gate).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.gate = gate;
    setup.limits.cmd_per_lun = 3;
    let mut device = Device::ready(setup);
    for (name, attribute) in [(1, SIMPLE), (2, ORDERED), (3, SIMPLE)] {
        device.submit(FIRST, read(0, name, attribute));
    }
    device.run();
    assert_eq!((device.in_flight(0), arrived(&disk)), (3, vec![1]));
    device.answer(FIRST, read(0, 4, HEAD)).assert_transport(5, 512);
    assert_eq!(device.refused(0, Limit::CmdPerLun), 1);
    let stopped = device.stop(FIRST);
    device.gate.release(1);
    device.run();
    assert!(stopped.try_recv().is_err(), "a ring with waiting commands has not stopped");
    device.gate.open();
    device.run();
    assert!(stopped.try_recv().is_ok());
    assert_eq!((device.take(FIRST).len(), arrived(&disk)), (3, vec![1, 2, 3]));
}

/// A waiting command that has nothing to do at the backend lets those behind it go on.
#[test]
fn r10_chain_of_waiting_commands_runs_through() {
    let (mut device, [disk, _]) = device();
    device.submit(FIRST, read(0, 1, SIMPLE));
    device.submit(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY).attribute(ORDERED));
    device.submit(FIRST, Request::new(lun(0, 0), &[0xff]).attribute(ORDERED));
    device.submit(FIRST, read(0, u32::MAX, ORDERED));
    device.submit(FIRST, read(0, 2, SIMPLE));
    device.run();
    assert_eq!(device.take(FIRST), []);
    device.gate.release(1);
    device.run();
    let outcomes: Vec<(u8, u8)> = device.take(FIRST).iter().map(|reply| reply.outcome()).collect();
    assert_eq!((outcomes, arrived(&disk)), (vec![(0, 0), (0, 0), (0, 2), (0, 2)], vec![1, 2]));
}

#[test]
fn r10_task_management_ends_waiting_commands_undispatched() {
    for (subtype, tag, ended) in [(0, 2, vec![2]), (0, 3, vec![3]), (1, 0, vec![2, 3]), (5, 0, vec![2, 3])] {
        let (mut device, [disk, _]) = device();
        let tokens: BTreeMap<usize, u64> = [(1, SIMPLE), (2, ORDERED), (3, SIMPLE)]
            .into_iter()
            .map(|(name, attribute)| (device.submit(FIRST, read(0, name, attribute)), u64::from(name)))
            .collect();
        device.run();
        device.submit(CONTROL, task_management(subtype, lun(0, 0), tag));
        device.run();
        let code = if subtype == 5 { 4 } else { 2 };
        let names: Vec<u64> = device
            .take(FIRST)
            .iter()
            .map(|reply| {
                reply.assert_transport(code, 512);
                tokens[&reply.token]
            })
            .collect();
        assert_eq!((names, arrived(&disk)), (ended, vec![1]), "subtype {subtype}, tag {tag}");
        device.gate.open();
        device.run();
        assert_eq!(device.take_one(CONTROL).byte(), 0);
        assert!(arrived(&disk).iter().all(|name| tag == 0 || *name != tag));
    }
}

#[test]
fn r10_query_finds_waiting_commands() {
    let (mut device, _) = device();
    device.submit(FIRST, read(0, 1, SIMPLE));
    device.submit(FIRST, read(0, 2, ORDERED));
    device.run();
    assert_eq!(device.manage(6, lun(0, 0), 2), 10);
    device.gate.open();
    device.run();
    assert_eq!(device.take(FIRST).iter().map(|reply| reply.code()).collect::<Vec<_>>(), [0, 0]);
}

/// A backend that counts how often it is asked for completions.
struct Asked {
    base: Arc<dyn Bdev>,
    polls: Arc<AtomicUsize>,
}

struct AskedChannel {
    base: Channel,
    polls: Arc<AtomicUsize>,
}

impl Bdev for Asked {
    fn info(&self) -> &BdevInfo {
        self.base.info()
    }

    fn open(&self) -> Channel {
        let channel: Box<dyn IoChannel> =
            Box::new(AskedChannel { base: self.base.open(), polls: Arc::clone(&self.polls) });
        Channel::from(channel)
    }
}

impl IoChannel for AskedChannel {
    fn submit(&mut self, io: &Io<'_>, now: Tsc) -> Submitted {
        self.base.submit(io, now)
    }

    fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.base.poll(now, done)
    }

    fn next_deadline(&self) -> Option<Tsc> {
        None
    }
}

/// A driver that never lets the queue run dry of ORDERED commands costs no more per poll as time goes by.
#[test]
fn r10_backend_is_asked_once_a_poll_however_long_ordered_commands_come() {
    let gate = bdev::Gate::closed();
    let polls = Arc::new(AtomicUsize::new(0));
    let base = Arc::new(Recorder::gated("disk", 64, 512, &gate).unwrap());
    let mut setup = Setup::of([unit(0, 0, Arc::new(Asked { base, polls: Arc::clone(&polls) }))]);
    setup.gate = gate;
    let mut device = Device::ready(setup);
    device.submit_many(FIRST, 3, read(0, 1, ORDERED));
    device.run();
    for _ in 0..200 {
        device.gate.release(1);
        device.submit(FIRST, read(0, 1, ORDERED));
        device.poll();
        assert_eq!(device.take(FIRST).len(), 1);
    }
    polls.store(0, Ordering::Relaxed);
    device.poll();
    assert_eq!(polls.load(Ordering::Relaxed), 1);
}

/// A command of the random test, and what has become of it.
#[derive(Clone, Copy)]
struct Sent {
    queue: u16,
    unit: u16,
    attribute: u8,
    ended: bool,
}

#[test]
fn r10_random_commands_never_overtake_what_they_wait_for() {
    for seed in 1..=5 {
        let (mut device, disks) = device();
        let mut noise = Noise::new(seed);
        let mut sent: Vec<Sent> = Vec::new();
        let mut tokens: BTreeMap<usize, usize> = BTreeMap::new();
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        for operation in 0..3000 {
            match noise.below(8) {
                0..4 if sent.iter().filter(|sent| !sent.ended).count() < 60 => {
                    let (queue, unit) = (noise.below(2) as u16, noise.below(2) as u16);
                    if device.outstanding(FIRST + queue) < 40 {
                        let attribute = noise.pick(&[SIMPLE, SIMPLE, SIMPLE, ORDERED, HEAD]);
                        let name = sent.len();
                        tokens.insert(device.submit(FIRST + queue, read(unit, name as u32, attribute)), name);
                        sent.push(Sent { queue, unit, attribute, ended: false });
                    }
                }
                4 => device.gate.release(noise.below(3)),
                5 if noise.once_in(20) && device.outstanding(CONTROL) == 0 => {
                    let tag = noise.below(sent.len() as u64 + 1);
                    let function = task_management(noise.pick(&[0, 1, 5]), lun(0, noise.below(2) as u16), tag);
                    device.submit(CONTROL, function);
                }
                _ => {
                    device.poll_shard(0);
                }
            }
            device.take(CONTROL);
            for index in [FIRST, FIRST + 1] {
                for reply in device.take(index) {
                    sent[tokens[&reply.token]].ended = true;
                }
            }
            for (unit, disk) in disks.iter().enumerate() {
                for name in arrived(disk).into_iter().map(|name| name as usize).filter(|name| seen.insert(*name)) {
                    let this = sent[name];
                    assert_eq!(usize::from(this.unit), unit);
                    let mut older = sent[..name].iter().filter(|older| {
                        let waits = match this.attribute {
                            SIMPLE => older.attribute != SIMPLE,
                            ORDERED => true,
                            _ => false,
                        };
                        waits && (older.queue, older.unit) == (this.queue, this.unit)
                    });
                    assert!(older.all(|older| older.ended), "seed {seed}, operation {operation}, command {name}");
                }
            }
        }
        assert!(seen.len() > 300, "{}", seen.len());
    }
}
