//! R03: the transport's limits and those of a logical unit are two layers. The first answers with a transport response,
//! the second with sense data.

use std::sync::Arc;

use bdev::testing::{Calls, Recorder};
use ringside::assemble::{self, Bdevs};
use ringside::config::Config;
use ringside::spdk::Spdk;
use tests::device::{Device, FIRST, Request, Setup, lun, read_10, unit_with, write_10};
use virtio_scsi::Limit;

const INVALID_FIELD_IN_CDB: (u8, u8, u8) = (0x05, 0x24, 0x00);
const FAILURE: u8 = 9;

/// max_sectors 64, 32 KiB; a unit of 512-byte blocks and one of 4096-byte blocks, both of which take 8 KiB.
fn device() -> (Device, [Recorder; 2]) {
    let disks = [512, 4096].map(|block_size| Recorder::new("disk", 1024, block_size).unwrap());
    let units = [(0, 16), (1, 2)].map(|(number, blocks)| {
        unit_with(0, number, Arc::new(disks[usize::from(number)].clone()), |config| config.max_transfer_blocks = blocks)
    });
    let mut setup = Setup::of(units);
    setup.limits.max_sectors = 64;
    (Device::ready(setup), disks)
}

#[test]
fn r03_block_limits_page_tells_what_the_unit_takes() {
    let (mut device, _) = device();
    for (number, blocks) in [(0, 16u32), (1, 2)] {
        let page = Request::new(lun(0, number), &[0x12, 1, 0xb0, 0, 64, 0]).data_in(64);
        let reply = device.answer(FIRST, page);
        reply.assert_good(0);
        assert_eq!(reply.data()[..4], [0, 0xb0, 0, 0x3c]);
        assert_eq!(reply.data()[8..12], blocks.to_be_bytes(), "MAXIMUM TRANSFER LENGTH");
        assert!(u64::from(blocks) * [512, 4096][usize::from(number)] <= 64 * 512, "not more than the transport takes");
    }
}

#[test]
fn r03_transfer_longer_than_the_unit_takes_is_answered_by_scsi() {
    let (mut device, disks) = device();
    for (number, blocks, bytes) in [(0, 17, 17 * 512), (1, 3, 3 * 4096)] {
        let read = Request::new(lun(0, number), &read_10(0, blocks)).data_in(bytes);
        device.answer(FIRST, read).assert_check(INVALID_FIELD_IN_CDB, bytes as u32);
        let write = Request::new(lun(0, number), &write_10(0, blocks)).data_out(vec![1; bytes]);
        device.answer(FIRST, write).assert_check(INVALID_FIELD_IN_CDB, bytes as u32);
        assert_eq!(disks[usize::from(number)].calls(), Calls::default());
        assert_eq!(device.refused(usize::from(number), Limit::MaxSectors), 0, "the transport had no objection");
        let read = Request::new(lun(0, number), &read_10(0, blocks - 1)).data_in(bytes);
        assert_eq!(device.answer(FIRST, read).outcome(), (0, 0));
        assert_eq!(disks[usize::from(number)].calls().reads, 1);
    }
}

#[test]
fn r03_transfer_longer_than_both_take_is_answered_by_the_transport() {
    let (mut device, disks) = device();
    let read = Request::new(lun(0, 0), &read_10(0, 65)).data_in(65 * 512);
    device.answer(FIRST, read).assert_transport(FAILURE, 65 * 512);
    assert_eq!(disks[0].calls(), Calls::default());
    assert_eq!(device.refused(0, Limit::MaxSectors), 1);
}

/// Whatever is configured: what a unit promises is never more than what the transport lets through, and never nothing.
#[test]
fn r03_configured_units_promise_no_more_than_max_sectors() {
    for (block_size, smallest) in [(512, 1), (4096u32, 8u32)] {
        for max_sectors in [smallest, smallest + 1, 15, 16, 17, 65535, 4_194_304] {
            let text = format!(
                "[[bdev]]\nname = 'disk'\nkind = 'null'\nsize = '8GiB'\nblock_size = {block_size}\n\
                 [[scsi]]\nname = 'vm'\nsocket = '/run/vm'\nmax_sectors = {max_sectors}\n\
                 [[scsi.lun]]\ntarget = 0\nlun = 0\nbdev = 'disk'\n"
            );
            let config = Config::parse(&text, "text").unwrap();
            let bdevs = Bdevs::build(&config, Spdk::default()).unwrap();
            let controller = assemble::controller(&config.controllers[0], &bdevs);
            let blocks = controller.map().unit(0).expect("the only one").logical_unit.max_transfer_blocks();
            let promised = u64::from(blocks) * u64::from(block_size);
            let limit = u64::from(max_sectors) * 512;
            assert!(blocks > 0, "0 would be no limit");
            assert!(promised <= limit && promised + u64::from(block_size) > limit, "{blocks} blocks of {block_size}");
        }
    }
}
