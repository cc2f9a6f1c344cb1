//! R17: memory that goes away under a running device (its file is truncated) stops that device with an error. The
//! process and the other devices live on.

use std::sync::Arc;

use bdev::{Bdev, Delay, Gate, Malloc};
use tests::device::{Device, FIRST, Request, Setup, TEST_UNIT_READY, fill, lun, medium, read_10, unit, write_10};
use virtqueue::FaultReason;

const SECOND: u16 = FIRST + 1;
/// Regions of the guest: the rings are in the first one, buffers in the second.
const RINGS: usize = 0;
const BUFFERS: usize = 1;
/// After so many polls an idle device has found out as well.
const POLLS: usize = 300;

fn device() -> (Device, Arc<Malloc>) {
    let malloc = Arc::new(Malloc::new("disk", 64 << 10, 512).unwrap());
    let gate = Gate::closed();
    let held = Delay::held(Arc::clone(&malloc) as Arc<dyn Bdev>, &gate);
    let mut setup = Setup::of([unit(0, 0, Arc::new(held))]);
    setup.request_queues = 2;
    setup.gate = gate;
    (Device::ready(setup), malloc)
}

fn ready() -> Request {
    Request::new(lun(0, 0), &TEST_UNIT_READY)
}

fn assert_lost(device: &Device) {
    for (index, ring) in device.ring_stats.iter().enumerate() {
        assert_eq!(ring.broken.value(), 1, "ring {index}");
        assert_eq!(ring.faults[FaultReason::MemoryLost as usize].value(), 1, "ring {index}");
    }
    let mut rings: Vec<u16> = device
        .reports
        .try_iter()
        .map(|report| {
            assert_eq!(report.fault.to_string(), "guest memory went away");
            report.ring
        })
        .collect();
    rings.sort_unstable();
    assert_eq!(rings, [0, 1, 2, 3], "each told once");
}

#[test]
fn r17_lost_buffers_stop_the_device_and_nobody_else() {
    let (mut victim, _) = device();
    let (mut neighbour, _) = device();
    let err = victim.err(SECOND);
    victim.submit(FIRST, ready());
    victim.guest.truncate(BUFFERS);
    victim.run();
    assert_lost(&victim);
    assert_eq!(err.drain(), 1, "every ring's, not only that of the request");

    // Nothing further is read: not even the chains that are on the ring.
    let used = victim.used(SECOND);
    let header = tests::device::BUFFERS / 2;
    victim.guest.write(header, &ready().header());
    let segments = [virtqueue::Segment::readable(header, 51), virtqueue::Segment::writable(header + 64, 108)];
    victim.submit_chain(SECOND, &segments);
    for _ in 0..POLLS {
        victim.poll();
    }
    assert_eq!(victim.used(SECOND), used);

    neighbour.answer(FIRST, ready()).assert_good(0);
    assert!(neighbour.ring_stats.iter().all(|ring| ring.broken.value() == 0));
}

#[test]
fn r17_lost_rings_stop_the_device_even_if_it_is_idle() {
    let (mut victim, _) = device();
    let (mut neighbour, _) = device();
    victim.guest.truncate(RINGS);
    for _ in 0..POLLS {
        victim.poll();
    }
    assert_lost(&victim);
    neighbour.answer(FIRST, ready()).assert_good(0);
}

#[test]
fn r17_memory_lost_with_requests_at_the_backend_lets_them_end() {
    for region in [RINGS, BUFFERS] {
        let (mut victim, malloc) = device();
        let content = fill(&*malloc);
        victim.submit(FIRST, Request::new(lun(0, 0), &read_10(0, 4)).data_in(2048));
        victim.submit(SECOND, Request::new(lun(0, 0), &write_10(8, 1)).data_out([0x11; 512]));
        victim.run();
        assert_eq!(victim.in_flight(0), 2);
        victim.guest.truncate(region);
        victim.gate.open();
        for _ in 0..POLLS {
            victim.poll();
        }
        assert_eq!(victim.in_flight(0), 0);
        assert_lost(&victim);
        let after = medium(&*malloc);
        // The write had its data in memory that is no more, or not: it ended, and touched no other block.
        assert!(after[..8 * 512] == content[..8 * 512] && after[9 * 512..] == content[9 * 512..]);
        let written = if region == RINGS { 0x11 } else { 0 };
        assert!(after[8 * 512..9 * 512].iter().all(|byte| *byte == written));
    }
}

#[test]
fn r17_stop_of_a_device_that_lost_its_memory_is_answered() {
    let (mut victim, _) = device();
    victim.submit(FIRST, Request::new(lun(0, 0), &read_10(0, 4)).data_in(2048));
    victim.run();
    let stopped = victim.stop(FIRST);
    victim.guest.truncate(RINGS);
    victim.guest.truncate(BUFFERS);
    for _ in 0..POLLS {
        victim.poll();
    }
    assert!(stopped.try_recv().is_err());
    victim.gate.open();
    victim.run();
    let stopped = stopped.try_recv().unwrap();
    assert_eq!(stopped.fault.unwrap().reason, FaultReason::MemoryLost);
}

#[test]
fn r17_device_with_new_memory_works_again() {
    let (mut device, malloc) = device();
    let content = fill(&*malloc);
    device.submit(FIRST, ready());
    device.guest.truncate(BUFFERS);
    device.run();
    assert_lost(&device);
    device.replace_memory();
    device.gate.open();
    let read = Request::new(lun(0, 0), &read_10(7, 2)).data_in(1024);
    device.answer(FIRST, read).assert_data(&content[7 * 512..9 * 512]);
    device.answer(SECOND, ready()).assert_good(0);
    assert!(device.ring_stats.iter().all(|ring| ring.broken.value() == 0));
}
