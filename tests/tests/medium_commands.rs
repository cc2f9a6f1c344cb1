//! VERIFY, WRITE AND VERIFY, WRITE SAME, UNMAP, COMPARE AND WRITE and GET LBA STATUS through the device: what reaches
//! the medium, what the initiator is told, and what happens when the backend takes its time. Fields of the CDBs are
//! tested beside their parser.

use std::sync::Arc;

use bdev::testing::{Call, Recorder};
use bdev::{Bdev, Delay, Gate, Malloc, Op, Status};
use tests::device::{CONTROL, Device, FIRST, Reply, Request, Setup, fill, lun, medium, task_management, unit_with};

const BLOCK: usize = 512;
const LBA: usize = 24;
const BLOCKS: usize = 1024;

const VERIFY_10: u8 = 0x2f;
const WRITE_AND_VERIFY_10: u8 = 0x2e;
const BYTCHK: u8 = 0x02;
const WRITE_SAME_10: u8 = 0x41;
const UNMAP_BIT: u8 = 0x08;

/// A memory disk full of data; what reaches it is recorded, and held up at a gate where a test wants that.
struct Fixture {
    device: Device,
    disk: Recorder,
    malloc: Arc<Malloc>,
    content: Vec<u8>,
}

fn fixture(held: bool, write_cache: bool) -> Fixture {
    let malloc = Arc::new(Malloc::new("disk", (BLOCKS * BLOCK) as u64, BLOCK as u32).unwrap());
    let content = fill(&*malloc);
    let disk = Recorder::over(Arc::clone(&malloc) as _);
    let gate = Gate::closed();
    let bdev: Arc<dyn Bdev> = match held {
        true => Arc::new(Delay::held(Arc::new(disk.clone()), &gate)),
        false => Arc::new(disk.clone()),
    };
    let mut setup = Setup::of([unit_with(0, 0, bdev, |config| config.write_cache = write_cache)]);
    setup.gate = gate;
    Fixture { device: Device::ready(setup), disk, malloc, content }
}

/// Both kinds of disk: one that answers at once, and one that does so when it is let.
fn fixtures() -> [Fixture; 2] {
    [fixture(false, false), fixture(true, false)]
}

impl Fixture {
    /// The reply to a command; the gate lets everything pass that comes by.
    #[track_caller]
    fn answer(&mut self, request: Request) -> Reply {
        self.device.gate.release(2);
        self.device.answer(FIRST, request)
    }

    #[track_caller]
    fn send(&mut self, cdb: &[u8], data_out: &[u8]) -> Reply {
        self.answer(Request::new(lun(0, 0), cdb).data_out(data_out))
    }

    /// GET LBA STATUS: LBA, blocks and PROVISIONING STATUS of each descriptor.
    #[track_caller]
    fn lba_status(&mut self, lba: u8) -> Vec<(u64, u32, u8)> {
        let cdb = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 1, 0, 0, 0];
        let reply = self.answer(Request::new(lun(0, 0), &cdb).data_in(256));
        let written = reply.written as usize - 108;
        reply.assert_good((256 - written) as u32);
        let data = &reply.data()[..written];
        assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize, written - 4);
        assert_eq!(data[4..8], [0; 4]);
        let descriptor = |bytes: &[u8]| {
            assert_eq!(bytes[13..16], [0; 3]);
            let lba = u64::from_be_bytes(bytes[..8].try_into().unwrap());
            (lba, u32::from_be_bytes(bytes[8..12].try_into().unwrap()), bytes[12])
        };
        data[8..].chunks_exact(16).map(descriptor).collect()
    }

    fn ops(&self) -> Vec<(Op, u64, u32, u64)> {
        self.disk.first_calls().iter().map(|&Call { op, lba, blocks, bytes, .. }| (op, lba, blocks, bytes)).collect()
    }

    #[track_caller]
    fn assert_medium(&self) {
        assert!(medium(&*self.malloc) == self.content, "the medium");
    }
}

/// A ten-byte CDB for blocks from [`LBA`] on.
fn ten(opcode: u8, flags: u8, blocks: u8) -> [u8; 10] {
    [opcode, flags, 0, 0, 0, LBA as u8, 0, 0, blocks, 0]
}

fn bytes(lba: usize, blocks: usize) -> std::ops::Range<usize> {
    lba * BLOCK..(lba + blocks) * BLOCK
}

fn noise(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (at * 13 + 7) as u8).collect()
}

#[test]
fn verify_reads_the_medium_and_with_bytchk_compares_it() {
    for mut fixture in fixtures() {
        fixture.send(&ten(VERIFY_10, 0, 4), &[]).assert_good(0);
        fixture.send(&ten(VERIFY_10, 0, 4), &[1; 700]).assert_good(700);
        let mut data = fixture.content[bytes(LBA, 4)].to_vec();
        fixture.send(&ten(VERIFY_10, BYTCHK, 4), &data).assert_good(0);
        data[1000] ^= 1;
        let reply = fixture.send(&ten(VERIFY_10, BYTCHK, 4), &data);
        reply.assert_check((0x0e, 0x1d, 0x00), 2048);
        // INFORMATION has the offset of the first byte that differs.
        assert_eq!(reply.sense_bytes()[..8], [0xf0, 0, 0x0e, 0, 0, 0x03, 0xe8, 10]);
        let (lba, none) = (LBA as u64, 0);
        let expected = [
            (Op::Verify, lba, 4, none),
            (Op::Verify, lba, 4, none),
            (Op::Compare, lba, 4, 2048),
            (Op::Compare, lba, 4, 2048),
        ];
        assert_eq!(fixture.ops(), expected);
        fixture.assert_medium();
    }
}

#[test]
fn verify_of_what_cannot_be_read_is_a_medium_error_of_reading() {
    for status in [Status::ReadError, Status::Failed] {
        let mut fixture = fixture(false, false);
        fixture.disk.fail_next(1, status);
        fixture.send(&ten(VERIFY_10, 0, 4), &[]).assert_check((0x03, 0x11, 0x00), 0);
    }
}

#[test]
fn r21_verify_with_bytchk_and_too_little_data_is_an_overrun() {
    let mut fixture = fixture(false, false);
    fixture.send(&ten(VERIFY_10, BYTCHK, 4), &[1; 2047]).assert_transport(1, 2047);
    fixture.send(&ten(WRITE_AND_VERIFY_10, 0, 4), &[1; 2047]).assert_transport(1, 2047);
    fixture.send(&ten(WRITE_SAME_10, 0, 4), &[1; 511]).assert_transport(1, 511);
    let compare_and_write = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, LBA as u8, 0, 0, 0, 1, 0, 0];
    fixture.send(&compare_and_write, &[1; 1023]).assert_transport(1, 1023);
    fixture.send(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &[0; 23]).assert_transport(1, 23);
    assert_eq!(fixture.ops(), []);
    fixture.assert_medium();
}

#[test]
fn write_and_verify_writes_past_the_cache_and_then_looks() {
    for (flags, check, compared) in [(0, Op::Verify, 0), (BYTCHK, Op::Compare, 1024)] {
        for mut fixture in fixtures() {
            let data = noise(2);
            let reply = fixture.send(&ten(WRITE_AND_VERIFY_10, flags, 2), &data);
            reply.assert_good(0);
            assert_eq!(reply.written, 12);
            let lba = LBA as u64;
            assert_eq!(fixture.ops(), [(Op::Write { fua: true }, lba, 2, 1024), (check, lba, 2, compared)]);
            fixture.content[bytes(LBA, 2)].copy_from_slice(&data);
            fixture.assert_medium();
            let stats = fixture.device.stats(0);
            assert_eq!((stats.units[0].writes.value(), stats.units[0].write_bytes.value()), (1, 1024));
            assert_eq!(fixture.device.in_flight(0), 0);
        }
    }
}

#[test]
fn write_and_verify_that_fails_says_in_which_half() {
    for mut fixture in fixtures() {
        fixture.disk.fail_next(1, Status::WriteError);
        fixture.send(&ten(WRITE_AND_VERIFY_10, 0, 2), &noise(2)).assert_check((0x03, 0x0c, 0x00), 1024);
        assert_eq!(fixture.ops().len(), 1, "nothing was written: nothing is looked at");
        fixture.disk.fail_next(1, Status::Good);
        fixture.disk.fail_next(1, Status::ReadError);
        fixture.send(&ten(WRITE_AND_VERIFY_10, 0, 2), &noise(2)).assert_check((0x03, 0x11, 0x00), 1024);
    }
}

/// Between its two halves a WRITE AND VERIFY is one command: a reset ends it, and the second half is not begun.
#[test]
fn r07_write_and_verify_that_is_reset_between_its_halves_does_not_begin_the_second() {
    const LOGICAL_UNIT_RESET: u32 = 5;
    let mut fixture = fixture(true, false);
    let device = &mut fixture.device;
    let request = Request::new(lun(0, 0), &ten(WRITE_AND_VERIFY_10, 0, 2)).data_out(noise(2));
    device.submit(FIRST, request);
    device.run();
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    device.run();
    assert_eq!((device.used(CONTROL), device.in_flight(0)), (0, 1));
    device.gate.release(1);
    device.run();
    assert_eq!(device.take_one(FIRST).code(), 4);
    assert_eq!(device.take_one(CONTROL).byte(), 0);
    assert_eq!(fixture.ops(), [(Op::Write { fua: true }, LBA as u64, 2, 1024)]);
}

#[test]
fn r07_write_and_verify_holds_its_slot_until_both_halves_are_done() {
    const LOGICAL_UNIT_RESET: u32 = 5;
    let mut fixture = fixture(true, false);
    let device = &mut fixture.device;
    device.submit(FIRST, Request::new(lun(0, 0), &ten(WRITE_AND_VERIFY_10, 0, 2)).data_out(noise(2)));
    device.run();
    device.gate.release(1);
    device.run();
    assert_eq!((device.used(FIRST), device.in_flight(0)), (1, 1), "the unit attention before, and no more");
    device.submit(CONTROL, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0));
    device.run();
    assert_eq!(device.used(CONTROL), 0, "the second half is at the backend");
    device.gate.release(1);
    device.run();
    assert_eq!((device.take_one(FIRST).code(), device.take_one(CONTROL).byte()), (4, 0));
}

#[test]
fn write_same_writes_its_block_to_all() {
    for mut fixture in fixtures() {
        let block = noise(1);
        fixture.send(&ten(WRITE_SAME_10, 0, 5), &block).assert_good(0);
        assert_eq!(fixture.ops(), [(Op::WriteSame, LBA as u64, 5, 512)]);
        for lba in LBA..LBA + 5 {
            fixture.content[bytes(lba, 1)].copy_from_slice(&block);
        }
        fixture.assert_medium();
    }
}

#[test]
fn write_same_of_zeroes_is_left_to_the_backend() {
    let sixteen = |flags| [0x93, flags, 0, 0, 0, 0, 0, 0, 0, LBA as u8, 0, 0, 0, 8, 0, 0];
    for (flags, data, unmap) in [(0, 512, false), (UNMAP_BIT, 512, true), (0x01, 0, false), (0x01 | UNMAP_BIT, 0, true)]
    {
        for mut fixture in fixtures() {
            fixture.send(&sixteen(flags), &vec![0; data]).assert_good(0);
            assert_eq!(fixture.ops(), [(Op::WriteZeroes { unmap }, LBA as u64, 8, 0)]);
            fixture.content[bytes(LBA, 8)].fill(0);
            fixture.assert_medium();
            let state = u8::from(unmap);
            assert_eq!(fixture.lba_status(LBA as u8)[0].2, state, "a whole page");
        }
    }
}

#[test]
fn write_same_with_unmap_of_what_is_not_zero_writes_it() {
    let mut fixture = fixture(false, false);
    let mut block = vec![0; BLOCK];
    block[511] = 1;
    fixture.send(&ten(WRITE_SAME_10, UNMAP_BIT, 8), &block).assert_good(0);
    assert_eq!(fixture.ops(), [(Op::WriteSame, LBA as u64, 8, 512)]);
}

/// An UNMAP parameter list.
fn unmap_list(extents: &[(u64, u32)]) -> Vec<u8> {
    let len = extents.len() as u16 * 16;
    let mut list = [(len + 6).to_be_bytes(), len.to_be_bytes(), [0; 2], [0; 2]].concat();
    for (lba, blocks) in extents {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn unmap_cdb(list: &[u8]) -> [u8; 10] {
    [0x42, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0]
}

#[test]
fn unmap_gives_blocks_back_and_get_lba_status_tells() {
    for mut fixture in fixtures() {
        assert_eq!(fixture.lba_status(0), [(0, 1024, 0)]);
        let list = unmap_list(&[(16, 8), (17, 0), (32, 16)]);
        fixture.send(&unmap_cdb(&list), &list).assert_good(0);
        fixture.content[bytes(16, 8)].fill(0);
        fixture.content[bytes(32, 16)].fill(0);
        fixture.assert_medium();
        let all = [(0, 16, 0), (16, 8, 1), (24, 8, 0), (32, 16, 1), (48, 976, 0)];
        assert_eq!(fixture.lba_status(0), all);
        assert_eq!(fixture.lba_status(20), [(20, 4, 1), all[2], all[3], all[4]]);
        let write = Request::new(lun(0, 0), &[0x2a, 0, 0, 0, 0, 17, 0, 0, 1, 0]).data_out(noise(1));
        fixture.answer(write).assert_good(0);
        assert_eq!(fixture.lba_status(16)[0], (16, 16, 0), "written again");
    }
}

#[test]
fn unmap_with_an_extent_beyond_the_end_gives_nothing_back() {
    let mut fixture = fixture(false, false);
    let list = unmap_list(&[(16, 8), (1020, 5)]);
    fixture.send(&unmap_cdb(&list), &list).assert_check((0x05, 0x21, 0x00), 40);
    assert_eq!(fixture.ops(), []);
    fixture.assert_medium();
}

#[test]
fn get_lba_status_with_too_little_room_moves_nothing() {
    for mut fixture in fixtures() {
        let cdb = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        let reply = fixture.answer(Request::new(lun(0, 0), &cdb).data_in(23));
        reply.assert_transport(1, 23);
        assert!(reply.data_untouched());
        let cut = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
        fixture.answer(Request::new(lun(0, 0), &cut).data_in(8)).assert_data(&[0, 0, 0, 20, 0, 0, 0, 0]);
    }
}

#[test]
fn compare_and_write_writes_only_where_all_is_equal() {
    let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, LBA as u8, 0, 0, 0, 2, 0, 0];
    for mut fixture in fixtures() {
        let equal = fixture.content[bytes(LBA, 2)].to_vec();
        let new = noise(2);
        let mut wrong = equal.clone();
        wrong[513] ^= 0x80;
        let reply = fixture.send(&cdb, &[wrong, new.clone()].concat());
        reply.assert_check((0x0e, 0x1d, 0x00), 2048);
        assert_eq!(reply.sense_bytes()[3..7], [0, 0, 0x02, 0x01]);
        fixture.assert_medium();
        fixture.send(&cdb, &[equal, new.clone()].concat()).assert_good(0);
        fixture.content[bytes(LBA, 2)].copy_from_slice(&new);
        fixture.assert_medium();
        let op = Op::CompareAndWrite { fua: false };
        assert_eq!(fixture.ops(), [(op, LBA as u64, 2, 2048); 2]);
    }
}

/// 256 blocks do not fit the one byte that says how many.
#[test]
fn compare_and_write_of_no_blocks_is_good_without_data_and_refused_with_some() {
    let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, LBA as u8, 0, 0, 0, 0, 0, 0];
    let mut fixture = fixture(false, false);
    fixture.send(&cdb, &[]).assert_good(0);
    let reply = fixture.send(&cdb, &[1; 1024]);
    reply.assert_check((0x05, 0x24, 0x00), 1024);
    assert_eq!(reply.sense_bytes()[15..18], [0xc0, 0, 13], "the field");
    assert_eq!(fixture.ops(), []);
}

/// With WCE cleared by MODE SELECT nothing may stay in a cache: what has FUA gets it, what has none is flushed.
#[test]
fn write_through_holds_for_every_command_that_changes_the_medium() {
    for held in [false, true] {
        let mut fixture = fixture(held, true);
        let mut list = vec![0, 0, 0, 0, 0x08, 18];
        list.extend([0; 18]);
        fixture.send(&[0x15, 0x10, 0, 0, 24, 0], &list).assert_good(0);
        fixture.send(&ten(WRITE_SAME_10, 0, 5), &noise(1)).assert_good(0);
        let list = unmap_list(&[(16, 8)]);
        fixture.send(&unmap_cdb(&list), &list).assert_good(0);
        let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, LBA as u8, 0, 0, 0, 1, 0, 0];
        fixture.send(&cdb, &[noise(1), noise(1)].concat()).assert_good(0);
        let ops: Vec<Op> = fixture.ops().iter().map(|call| call.0).collect();
        let fua = true;
        assert_eq!(ops, [Op::Flush, Op::WriteSame, Op::Flush, Op::Unmap, Op::Flush, Op::CompareAndWrite { fua }]);
    }
}

#[test]
fn r12_commands_on_the_medium_of_an_absent_lun_are_refused() {
    let mut fixture = fixture(false, false);
    for cdb in [&ten(VERIFY_10, 0, 1)[..], &ten(WRITE_SAME_10, 0, 1), &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]] {
        let reply = fixture.device.answer(FIRST, Request::new(lun(0, 1), cdb).data_out([0; 512]));
        reply.assert_check((0x05, 0x25, 0x00), 512);
    }
}

/// The General Statistics and Performance log page is the unit's, not that of the shard that answers.
#[test]
fn log_sense_adds_up_what_all_shards_have_done() {
    let malloc = Arc::new(Malloc::new("disk", (BLOCKS * BLOCK) as u64, BLOCK as u32).unwrap());
    let mut setup = Setup::of([unit_with(0, 0, malloc, |_| {})]);
    (setup.shards, setup.request_queues) = (2, 2);
    let mut device = Device::ready(setup);
    let read = |blocks: usize| {
        let cdb = [0x28, 0, 0, 0, 0, 0, 0, 0, blocks as u8, 0];
        Request::new(lun(0, 0), &cdb).data_in(blocks * BLOCK)
    };
    device.answer(FIRST, read(3)).assert_good(0);
    device.answer(FIRST + 1, read(5)).assert_good(0);
    let write = Request::new(lun(0, 0), &[0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0]).data_out(noise(2));
    device.answer(FIRST + 1, write).assert_good(0);
    for queue in [FIRST, FIRST + 1] {
        let cdb = [0x4d, 0, 0x59, 0, 0, 0, 0, 0, 96, 0];
        let reply = device.answer(queue, Request::new(lun(0, 0), &cdb).data_in(96));
        reply.assert_good(0);
        let field = |at: usize| u64::from_be_bytes(reply.data()[8 + at * 8..16 + at * 8].try_into().unwrap());
        assert_eq!(reply.data()[..8], [0x99, 0, 0, 92, 0, 1, 0x03, 64]);
        assert_eq!([field(0), field(1), field(2), field(3)], [2, 1, 2, 8], "reads, writes, blocks written and read");
        assert_eq!(field(6), 3);
        assert_eq!(field(7), field(4).wrapping_add(field(5)));
    }
}
