//! R06, as far as the device goes: limits at the ends of their ranges. That a configuration keeps to those ranges is
//! tested where configurations are read.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Gate, Null};
use tests::device::{BUFFERS, Device, END, FIRST, Request, Setup, TEST_UNIT_READY, lun, read_10, unit};
use virtio_scsi::Limit;
use virtqueue::Segment;

/// The effective limit is what the rings hold: every command that there is room for is accepted.
#[test]
fn r06_limit_above_what_the_rings_hold_refuses_nothing() {
    let gate = Gate::closed();
    let disk = Recorder::gated("disk", 64, 512, &gate).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.limits.cmd_per_lun = 1_000_000;
    setup.request_queues = 2;
    setup.ring_size = 16;
    setup.gate = gate;
    let mut device = Device::ready(setup);
    let read = Request::new(lun(0, 0), &read_10(0, 1)).data_in(512).message();
    for index in [FIRST, FIRST + 1] {
        for _ in 0..16 {
            let chain = device.segments(&read);
            device.submit_indirect(index, &chain);
        }
    }
    device.run();
    assert_eq!((disk.calls().reads, device.in_flight(0)), (32, 32));
    assert_eq!(device.refused(0, Limit::CmdPerLun), 0);
}

#[test]
fn r06_limit_of_one_serves_one_command_at_a_time() {
    let mut setup = Setup::of([unit(0, 0, Arc::new(Null::new("null", 64, 512).unwrap()))]);
    setup.limits.cmd_per_lun = 1;
    setup.limits.max_sectors = 1;
    setup.limits.seg_max = Some(1);
    let mut device = Device::ready(setup);
    for _ in 0..100 {
        device.answer(FIRST, Request::new(lun(0, 0), &read_10(0, 1)).data_in(512)).assert_good(0);
    }
    assert_eq!(device.count(|stats| stats.units[0].refused.iter().map(|limit| limit.value()).sum()), 0);
}

/// 65535 sectors, the default, are 32 MiB less 512 bytes: more than this guest has, but buffers may overlap.
#[test]
fn r06_default_max_sectors_is_exact_to_the_byte() {
    const PIECE: u32 = (END - BUFFERS) as u32;
    let null = Null::new("null", 1 << 20, 512).unwrap();
    let mut device = Device::ready(Setup::of([unit(0, 0, Arc::new(null))]));
    for (last, accepted) in [(PIECE - 512, true), (PIECE - 511, false)] {
        let mut chain = device.cut(&Request::new(lun(0, 0), &read_10(0, 65535)).message(), &[51], &[108]);
        // The header's buffers lie where the data goes, but the null device moves none.
        chain.extend([Segment::writable(BUFFERS, PIECE)].repeat(31));
        chain.push(Segment::writable(BUFFERS, last));
        let reply = chain[1].addr;
        device.submit_chain(FIRST, &chain);
        device.run();
        assert_eq!(device.take(FIRST).len(), 1);
        let code = device.guest.read(reply, 12)[11];
        assert_eq!(code, if accepted { 0 } else { 9 });
    }
    assert_eq!(device.refused(0, Limit::MaxSectors), 1);
}

#[test]
fn r06_smallest_ring_that_can_carry_a_command_works() {
    let mut setup = Setup::of([unit(0, 0, Arc::new(Null::new("null", 64, 512).unwrap()))]);
    setup.ring_size = 2;
    let mut device = Device::ready(setup);
    for _ in 0..10 {
        device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY)).assert_good(0);
        let read = Request::new(lun(0, 0), &read_10(0, 1)).data_in(512).message();
        let merged = device.cut(&read, &[], &[]);
        device.answer_chain(FIRST, &merged).assert_good(0);
    }
}
