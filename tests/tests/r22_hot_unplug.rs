//! R22: logical units that come and go while the device is in use. What is in flight on one that goes ends with
//! `S_TRANSPORT_FAILURE` when its backend has let go of the buffers, what comes later finds nobody, and nothing of the unit
//! is left when its last command has ended.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use bdev::Gate;
use bdev::testing::Recorder;
use tests::device::{
    CONTROL, Device, EVENT, FIRST, HOTPLUG, INQUIRY, Request, Setup, TEST_UNIT_READY, lun, read_10, report_luns,
    task_management, unit, write_10,
};
use virtio_scsi::{ChangeError, Release};

const TRANSPORT_FAILURE: u8 = 6;
const BAD_TARGET: u8 = 3;
const INCORRECT_LUN: u8 = 12;
const COMPLETE: u8 = 0;
const LOGICAL_UNIT_RESET: u32 = 5;
const I_T_NEXUS_RESET: u32 = 4;
const ORDERED: u8 = 1;

const NEW_SESSION: (u8, u8, u8) = (0x06, 0x29, 0x01);
const LUNS_CHANGED: (u8, u8, u8) = (0x06, 0x3f, 0x0e);
const NOT_SUPPORTED: (u8, u8, u8) = (0x05, 0x25, 0x00);

/// EVENT TRANSPORT_RESET, and its reasons.
const TRANSPORT_RESET: u32 = 1;
const RESCAN: u32 = 1;
const REMOVED: u32 = 2;

struct Disk {
    recorder: Recorder,
    /// The device as the unit has it.
    arc: Weak<Recorder>,
}

impl Disk {
    /// Whether nothing of it is in use.
    fn is_released(&self) -> bool {
        self.recorder.open_channels() == 0 && self.arc.strong_count() == 0
    }
}

fn disk(gate: &Gate) -> (Disk, Arc<Recorder>) {
    let recorder = Recorder::gated("disk", 1024, 512, gate).unwrap();
    let arc = Arc::new(recorder.clone());
    (Disk { recorder, arc: Arc::downgrade(&arc) }, arc)
}

/// Units 0 and 1 of target 0 behind one gate, two request queues, four event buffers.
fn device_on(shards: usize) -> (Device, [Disk; 2]) {
    let gate = Gate::closed();
    let ((a, arc_a), (b, arc_b)) = (disk(&gate), disk(&gate));
    let mut setup = Setup::of([unit(0, 0, arc_a), unit(0, 1, arc_b)]);
    setup.request_queues = 2;
    setup.shards = shards;
    setup.gate = gate;
    let mut device = Device::ready(setup);
    device.accept(HOTPLUG);
    for _ in 0..4 {
        device.post_event_buffer(16);
    }
    (device, [a, b])
}

fn device() -> (Device, [Disk; 2]) {
    device_on(1)
}

fn read(number: u16) -> Request {
    Request::new(lun(0, number), &read_10(0, 1)).data_in(512)
}

fn ready(number: u16) -> Request {
    Request::new(lun(0, number), &TEST_UNIT_READY)
}

/// The LUNs that REPORT LUNS lists.
fn inventory(device: &mut Device, number: u16) -> Vec<u8> {
    let reply = device.answer(FIRST, Request::new(lun(0, number), &report_luns(64)).data_in(64));
    assert_eq!(reply.outcome(), (0, 0));
    let len = usize::from(reply.data()[3]);
    reply.data()[8..8 + len].chunks(8).map(|entry| entry[1]).collect()
}

/// The event that a guest gets of a unit below 256: the LUN as REPORT LUNS has it.
fn event(number: u8, reason: u32) -> (u32, [u8; 8], u32) {
    (TRANSPORT_RESET, [1, 0, 0, number, 0, 0, 0, 0], reason)
}

fn finish(release: Release) {
    assert!(release.is_over());
    release.wait();
}

#[test]
fn r22_removal_with_64_commands_in_flight_answers_each_once_and_releases_the_bdev_last() {
    for shards in [1, 2] {
        let (mut device, [_, disk]) = device_on(shards);
        let mut tokens = BTreeSet::new();
        for k in 0..64u32 {
            let request =
                if k % 2 == 0 { read(1) } else { Request::new(lun(0, 1), &write_10(k, 1)).data_out([1; 512]) };
            tokens.insert(device.submit(FIRST + (k % 2) as u16, request));
            device.run();
        }
        assert_eq!((disk.recorder.calls().reads, disk.recorder.calls().writes), (32, 32));
        let memory = device.guest.snapshot();
        let release = device.unplug(0, 1).unwrap();
        device.run();
        let allowed = [device.used_ring(EVENT), tests::device::BUFFERS..tests::device::END];
        memory.assert_only(&device.guest, &allowed, "removal, while the backend has the buffers");
        assert_eq!(device.events(), [event(1, REMOVED)]);
        assert!(!release.is_over() && !disk.is_released());
        assert_eq!(device.take(FIRST), []);
        assert_eq!(device.take(FIRST + 1), []);

        for left in (0..64).rev() {
            device.gate.release(1);
            device.run();
            let replies = [device.take(FIRST), device.take(FIRST + 1)].concat();
            assert_eq!(replies.len(), 1);
            replies[0].assert_transport(TRANSPORT_FAILURE, 512);
            assert!(tokens.remove(&replies[0].token), "once");
            assert_eq!(release.is_over(), left == 0);
            assert_eq!(disk.is_released(), left == 0);
        }
        assert!(tokens.is_empty());
        assert_eq!(device.responses(TRANSPORT_FAILURE), 64);
        finish(release);
        assert_eq!(disk.recorder.calls().ended, 64);
        // The neighbour has not noticed more than that the inventory changed.
        assert_eq!(device.answer(FIRST, ready(0)).sense(), Some(LUNS_CHANGED));
        device.gate.open();
        device.answer(FIRST, read(0)).assert_good(0);
    }
}

#[test]
fn r22_removal_of_an_idle_unit_releases_its_bdev_at_once() {
    let (mut device, [_, disk]) = device();
    let release = device.unplug(0, 1).unwrap();
    device.run();
    finish(release);
    assert!(disk.is_released());
    assert_eq!(device.unplug(0, 1).err(), Some(ChangeError::Absent { target: 0, lun: 1 }));
}

/// Not a command that is in flight: those answer when they are answered.
#[test]
fn r22_commands_after_the_removal_get_the_answers_of_an_absent_lun() {
    let (mut device, [_, disk]) = device();
    device.submit(FIRST, read(1));
    device.run();
    let release = device.unplug(0, 1).unwrap();
    device.answer(FIRST, read(1)).assert_check(NOT_SUPPORTED, 512);
    device.answer(FIRST, ready(1)).assert_check(NOT_SUPPORTED, 0);
    let inquiry = device.answer(FIRST, Request::new(lun(0, 1), &INQUIRY).data_in(36));
    inquiry.assert_good(0);
    assert_eq!(inquiry.data()[0], 0x7f);
    assert_eq!(inventory(&mut device, 1), [0], "REPORT LUNS answers for it");
    assert_eq!(disk.recorder.calls().reads, 1, "none of these reached the backend");
    device.gate.open();
    device.run();
    device.take_one(FIRST).assert_transport(TRANSPORT_FAILURE, 512);
    finish(release);
}

#[test]
fn r22_commands_after_the_removal_of_the_last_lun_get_bad_target() {
    let (mut device, disks) = device();
    let releases = [device.unplug(0, 0).unwrap(), device.unplug(0, 1).unwrap()];
    for request in [read(0), read(1)] {
        device.answer(FIRST, request).assert_transport(BAD_TARGET, 512);
    }
    device.answer(FIRST, Request::new(lun(0, 1), &INQUIRY).data_in(36)).assert_transport(BAD_TARGET, 36);
    assert_eq!(device.manage(LOGICAL_UNIT_RESET, lun(0, 1), 0), BAD_TARGET);
    assert_eq!(device.events(), [event(0, REMOVED), event(1, REMOVED)]);
    releases.into_iter().for_each(finish);
    assert!(disks.iter().all(Disk::is_released));
}

#[test]
fn r22_commands_that_wait_in_the_task_set_end_at_once_and_are_never_dispatched() {
    let (mut device, [_, disk]) = device();
    let first = device.submit(FIRST, read(1));
    device.submit(FIRST, read(1).attribute(ORDERED));
    device.submit(FIRST, read(1));
    device.run();
    assert_eq!(disk.recorder.calls().reads, 1);
    let release = device.unplug(0, 1).unwrap();
    let replies = device.take(FIRST);
    assert_eq!(replies.len(), 2, "before any poll");
    replies.iter().for_each(|reply| reply.assert_transport(TRANSPORT_FAILURE, 512));
    device.gate.open();
    device.run();
    let last = device.take_one(FIRST);
    assert_eq!(last.token, first);
    last.assert_transport(TRANSPORT_FAILURE, 512);
    assert_eq!(disk.recorder.calls().reads, 1);
    finish(release);
}

#[test]
fn r22_task_management_that_waits_completes_after_the_removed_commands() {
    for subtype in [LOGICAL_UNIT_RESET, I_T_NEXUS_RESET] {
        let (mut device, [_, disk]) = device();
        device.submit(FIRST + 1, read(1));
        device.submit(CONTROL, task_management(subtype, lun(0, 1), 0));
        device.run();
        let release = device.unplug(0, 1).unwrap();
        device.run();
        assert_eq!(device.take(CONTROL), []);
        device.gate.release(1);
        device.run();
        device.take_one(FIRST + 1).assert_transport(TRANSPORT_FAILURE, 512);
        assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
        finish(release);
        assert!(disk.is_released());
        // The function's unit attentions are those of units that are there.
        let expected = if subtype == I_T_NEXUS_RESET { (0x06, 0x29, 0x07) } else { LUNS_CHANGED };
        assert_eq!(device.answer(FIRST, ready(0)).sense(), Some(expected));
    }
}

#[test]
fn r22_task_management_after_the_removal_finds_no_unit_but_still_waits_for_the_target() {
    let (mut device, _) = device();
    device.submit(FIRST, read(1));
    device.run();
    let release = device.unplug(0, 1).unwrap();
    assert_eq!(device.manage(LOGICAL_UNIT_RESET, lun(0, 1), 0), INCORRECT_LUN);
    device.submit(CONTROL, task_management(I_T_NEXUS_RESET, lun(0, 0), 0));
    device.run();
    assert_eq!(device.take(CONTROL), [], "a command of the target is at its backend");
    device.gate.open();
    device.run();
    device.take_one(FIRST).assert_transport(TRANSPORT_FAILURE, 512);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    finish(release);
}

#[test]
fn r22_unit_that_comes_is_found_on_every_queue_and_reports_a_new_session_first() {
    for shards in [1, 2] {
        let (mut device, _) = device_on(shards);
        device.gate.open();
        let (new, arc) = disk(&Gate::closed());
        device.answer(FIRST, ready(7)).assert_check(NOT_SUPPORTED, 0);
        device.plug(unit(0, 7, arc)).unwrap();
        assert_eq!(device.events(), [event(7, RESCAN)]);
        assert_eq!(new.recorder.open_channels(), shards);
        // Whoever is asked first tells of the change, and REPORT LUNS settles it for all.
        device.answer(FIRST, ready(0)).assert_check(LUNS_CHANGED, 0);
        assert_eq!(inventory(&mut device, 0), [0, 1, 7]);
        device.answer(FIRST, ready(1)).assert_good(0);
        device.answer(FIRST + 1, ready(7)).assert_check(NEW_SESSION, 0);
        device.answer(FIRST, ready(7)).assert_good(0);
        assert_eq!(new.recorder.calls().reads, 0);
        let release = device.unplug(0, 7).unwrap();
        device.run();
        finish(release);
        assert!(new.is_released());
    }
}

#[test]
fn r22_first_lun_of_a_new_target_makes_the_target() {
    let (mut device, _) = device();
    let inquiry = Request::new(lun(9, 300), &INQUIRY).data_in(36);
    device.answer(FIRST, inquiry.clone()).assert_transport(BAD_TARGET, 36);
    device.plug(unit(9, 300, disk(&Gate::closed()).1)).unwrap();
    assert_eq!(device.events(), [(TRANSPORT_RESET, [1, 9, 0x41, 0x2c, 0, 0, 0, 0], RESCAN)]);
    assert_eq!(device.answer(FIRST, inquiry).data()[0], 0);
    device.answer(FIRST, ready(0)).assert_good(0); // another target's inventory is none of its business
}

#[test]
fn r22_address_that_is_taken_is_refused_and_nothing_changes() {
    let (mut device, disks) = device();
    let (new, arc) = disk(&Gate::closed());
    assert_eq!(device.plug(unit(0, 1, arc)), Err(ChangeError::Taken { target: 0, lun: 1 }));
    device.run();
    assert_eq!((device.events(), new.recorder.open_channels()), (vec![], 0));
    assert!(new.is_released());
    device.answer(FIRST, ready(1)).assert_good(0);
    assert_eq!(disks[1].recorder.open_channels(), 1);
}

/// R08: one block device in two units is refused, as it is in a configuration.
#[test]
fn r08_bdev_of_another_unit_is_refused() {
    let (mut device, _) = device();
    let (new, arc) = disk(&Gate::closed());
    device.plug(unit(0, 2, Arc::clone(&arc) as Arc<dyn bdev::Bdev>)).unwrap();
    let error = ChangeError::Shared { target: 3, lun: 0, other_target: 0, other_lun: 2 };
    assert_eq!(device.plug(unit(3, 0, arc)), Err(error));
    assert_eq!(new.recorder.open_channels(), 1);
    device.answer(FIRST, Request::new(lun(3, 0), &TEST_UNIT_READY)).assert_transport(BAD_TARGET, 0);
}

/// The place of a unit is free at once; its commands end as they would have ended.
#[test]
fn r22_another_unit_in_the_place_of_one_that_still_drains_is_another_unit() {
    let (mut device, [_, old]) = device();
    device.submit(FIRST, read(1));
    device.run();
    let release = device.unplug(0, 1).unwrap();
    let (new, arc) = disk(&device.gate);
    device.plug(unit(0, 1, arc)).unwrap();
    device.answer(FIRST, ready(1)).assert_check(NEW_SESSION, 0);
    device.submit(FIRST, read(1));
    device.run();
    assert_eq!((old.recorder.calls().reads, new.recorder.calls().reads), (1, 1));
    let places = device.controller.places();
    assert_eq!(places.iter().filter(|place| (place.target, place.lun) == (0, 1)).count(), 1);
    device.gate.open();
    device.run();
    let replies = device.take(FIRST);
    assert_eq!(replies.len(), 2);
    let mut codes: Vec<u8> = replies.iter().map(|reply| reply.code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, TRANSPORT_FAILURE]);
    assert!(release.is_over() && old.is_released() && !new.is_released());
}

/// Memory does not grow with the number of changes, and a unit's counters are its own.
#[test]
fn r22_index_of_a_released_unit_is_used_again_with_counters_at_zero() {
    let (mut device, _) = device();
    device.gate.open();
    for round in 0..200u16 {
        let (new, arc) = disk(&Gate::closed());
        device.plug(unit(0, 2 + round, arc)).unwrap();
        let place = *device.controller.places().iter().find(|place| place.lun == 2 + round).unwrap();
        let index = usize::from(place.index);
        assert!(index <= 3, "index {index}");
        assert_eq!(device.stats(0).units[index].others.value(), 0);
        device.answer(FIRST, ready(2 + round)).assert_check(NEW_SESSION, 0);
        assert_eq!(device.stats(0).units[index].others.value(), 1);
        assert_eq!(device.stats(0).units[index].errors.value(), 1);
        let release = device.unplug(0, 2 + round).unwrap();
        device.run();
        finish(release);
        assert!(new.is_released());
    }
}

#[test]
fn r22_new_session_has_the_units_of_now() {
    let (mut device, [_, old]) = device();
    let (new, arc) = disk(&Gate::closed());
    device.plug(unit(3, 5, arc)).unwrap();
    let release = device.unplug(0, 1).unwrap();
    device.run();
    finish(release);
    device.reconnect();
    assert_eq!((old.recorder.open_channels(), new.recorder.open_channels()), (0, 1));
    device.answer(FIRST, Request::new(lun(3, 5), &TEST_UNIT_READY)).assert_check(NEW_SESSION, 0);
    device.answer(FIRST, Request::new(lun(3, 5), &TEST_UNIT_READY)).assert_good(0);
    device.answer(FIRST, ready(1)).assert_check(NOT_SUPPORTED, 0);
    device.answer(FIRST, ready(0)).assert_check(NEW_SESSION, 0);
}

#[test]
fn r22_removal_while_a_function_sweeps_another_queue_loses_nothing() {
    let (mut device, [_, disk]) = device_on(2);
    device.submit(FIRST, read(1));
    device.submit(FIRST + 1, read(1));
    device.run();
    // Shard 1 has not looked yet: the function waits for it, and in its ring lies a command that nobody has seen.
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 1), 0));
    device.submit(FIRST + 1, read(1));
    device.poll_shard(0);
    let release = device.unplug(0, 1).unwrap();
    device.gate.open();
    device.run();
    device.take_one(FIRST).assert_transport(TRANSPORT_FAILURE, 512);
    let replies = device.take(FIRST + 1);
    assert_eq!(replies.len(), 2);
    assert_eq!(replies.iter().filter(|reply| reply.code() == TRANSPORT_FAILURE).count(), 1);
    assert_eq!(replies.iter().filter(|reply| reply.sense() == Some(NOT_SUPPORTED)).count(), 1);
    assert_eq!(device.take_one(CONTROL).byte(), COMPLETE);
    finish(release);
    assert!(disk.is_released());
}
