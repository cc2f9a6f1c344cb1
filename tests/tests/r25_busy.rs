//! R25: `S_BUSY` tells the guest that the same request may do better later. It is used for that only: for a command beyond
//! `cmd_per_lun`, which succeeds once one in flight has ended. Nothing else that is refused or fails is called busy.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Gate, Status};
use tests::device::{Device, FIRST, Request, Setup, TEST_UNIT_READY, lun, read_10, unit};
use virtio_scsi::{Limits, OnTransferLimit};

const BUSY: u8 = 5;

fn device(limits: Limits) -> (Device, Recorder) {
    let gate = Gate::closed();
    let disk = Recorder::gated("disk", 1024, 512, &gate).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.limits = limits;
    setup.gate = gate;
    (Device::ready(setup), disk)
}

fn read(blocks: u16) -> Request {
    Request::new(lun(0, 0), &read_10(0, blocks)).data_in(512 * usize::from(blocks))
}

#[test]
fn r25_request_that_was_busy_succeeds_when_one_in_flight_has_ended() {
    for cmd_per_lun in [1, 2, 30] {
        let (mut device, _) = device(Limits { cmd_per_lun, ..Limits::default() });
        device.submit_many(FIRST, cmd_per_lun as usize, read(1));
        device.run();
        for _ in 0..3 {
            device.answer(FIRST, read(1)).assert_transport(BUSY, 512);
        }
        device.gate.release(1);
        device.run();
        device.take_one(FIRST).assert_good(0);
        let retried = device.submit(FIRST, read(1));
        device.gate.open();
        device.run();
        let replies = device.take(FIRST);
        assert!(replies.iter().any(|reply| reply.token == retried));
        replies.iter().for_each(|reply| reply.assert_good(0));
        assert_eq!(device.responses(BUSY), 3);
    }
}

#[test]
fn r25_nothing_else_is_busy() {
    for on_max_sectors in [OnTransferLimit::Transport, OnTransferLimit::Scsi] {
        let limits = Limits { max_sectors: 4, seg_max: Some(2), on_max_sectors, ..Limits::default() };
        let (mut device, disk) = device(limits);
        device.gate.open();
        device.answer(FIRST, read(5)); // max_sectors
        let mut segments = device.segments(&read(3).message());
        let (header, response) = (segments[0], segments[1]);
        segments = vec![header, response, device.writable(512), device.writable(512), device.writable(512)];
        device.answer_chain(FIRST, &segments); // seg_max
        device.answer(FIRST, Request::new(lun(0, 9), &TEST_UNIT_READY)); // no such LUN
        device.answer(FIRST, Request::new(lun(9, 0), &TEST_UNIT_READY)); // no such target
        device.answer(FIRST, Request::new([0; 8], &TEST_UNIT_READY)); // no address
        device.answer(FIRST, Request::new(lun(0, 0), &[0xff])); // no such command
        device.answer(FIRST, Request::new(lun(0, 0), &read_10(2000, 1)).data_in(512)); // no such block
        device.answer(FIRST, read(2).data_in(512)); // overrun
        for status in [Status::Busy, Status::Failed, Status::NoSpace, Status::Gone, Status::Aborted] {
            disk.fail_next(1, status);
            let reply = device.answer(FIRST, read(1));
            assert_eq!(reply.outcome(), (0, 2), "{status:?}: a logical unit answers by SCSI");
        }
        device.unplug(0, 0).unwrap();
        device.answer(FIRST, read(1)); // unplugged
        assert_eq!(device.responses(BUSY), 0);
    }
}
