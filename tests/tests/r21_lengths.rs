//! R21: what moves is what the CDB says, never what the buffers happen to hold.

use std::sync::Arc;

use bdev::Malloc;
use bdev::testing::{Calls, Recorder};
use tests::device::{Device, FIRST, Request, Setup, fill, lun, medium, unit};

const OVERRUN: u8 = 1;

struct Fixture {
    device: Device,
    disk: Recorder,
    malloc: Arc<Malloc>,
    content: Vec<u8>,
}

/// A disk with content, of 512 or 4096 bytes a block.
fn fixture(block_size: u32) -> Fixture {
    let malloc = Arc::new(Malloc::new("disk", 400 * u64::from(block_size), block_size).unwrap());
    let content = fill(&*malloc);
    let disk = Recorder::over(Arc::clone(&malloc) as _);
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.limits.max_sectors = 0x40_0000;
    Fixture { device: Device::ready(setup), disk, malloc, content }
}

impl Fixture {
    fn request(&self, cdb: &[u8]) -> Request {
        Request::new(lun(0, 0), cdb)
    }

    /// The request is an overrun: guest memory, medium and backend have not noticed it.
    #[track_caller]
    fn assert_overrun(&mut self, request: &Request) {
        let data = request.message().readable.len() - 51 + request.message().writable - 108;
        let calls = self.disk.calls();
        let token = self.device.submit(FIRST, request);
        let memory = self.device.guest.snapshot();
        let reply = self.device.answer_to(FIRST, token);
        reply.assert_transport(OVERRUN, data as u32);
        let allowed = [self.device.used_ring(FIRST), reply.response_addr()..reply.response_addr() + 12];
        memory.assert_only(&self.device.guest, &allowed, "an overrun");
        assert_eq!(self.disk.calls(), calls);
        assert!(medium(&*self.malloc) == self.content);
    }
}

/// READ (`read`) or WRITE of every length of CDB.
fn transfers(read: bool, lba: u8, blocks: u8) -> [Vec<u8>; 4] {
    let [six, ten, twelve, sixteen] = if read { [0x08, 0x28, 0xa8, 0x88] } else { [0x0a, 0x2a, 0xaa, 0x8a] };
    [
        vec![six, 0, 0, lba, blocks, 0],
        vec![ten, 0, 0, 0, 0, lba, 0, 0, blocks, 0],
        vec![twelve, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0],
        vec![sixteen, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0],
    ]
}

#[test]
fn r21_read_moves_what_the_cdb_says() {
    for block in [512, 4096] {
        let mut fixture = fixture(block as u32);
        for cdb in transfers(true, 7, 2) {
            let expected = fixture.content[7 * block..9 * block].to_vec();
            for room in [2 * block, 2 * block + 1, 3 * block, 9 * block + 17] {
                let request = fixture.request(&cdb).data_in(room);
                fixture.device.answer(FIRST, request).assert_data(&expected);
            }
            for room in [2 * block - 1, block, 1, 0] {
                let request = fixture.request(&cdb).data_in(room);
                fixture.assert_overrun(&request);
            }
            let wrong = fixture.request(&cdb).data_out(vec![1; 2 * block]);
            fixture.assert_overrun(&wrong);
        }
        assert_eq!(fixture.disk.calls(), Calls { reads: 16, writes: 0, flushes: 0, ended: 16 });
    }
}

#[test]
fn r21_write_moves_what_the_cdb_says() {
    for block in [512, 4096] {
        let mut fixture = fixture(block as u32);
        for (round, cdb) in transfers(false, 7, 2).into_iter().enumerate() {
            for bytes in [2 * block, 2 * block + 1, 3 * block, 9 * block + 17] {
                let data: Vec<u8> = (0..bytes).map(|at| (at * 7 + round + bytes) as u8).collect();
                let request = fixture.request(&cdb).data_out(data.clone());
                let reply = fixture.device.answer(FIRST, request);
                reply.assert_good((bytes - 2 * block) as u32);
                assert_eq!(reply.written, 12);
                fixture.content[7 * block..9 * block].copy_from_slice(&data[..2 * block]);
                assert!(medium(&*fixture.malloc) == fixture.content);
            }
            for bytes in [2 * block - 1, block, 1, 0] {
                let request = fixture.request(&cdb).data_out(vec![0xff; bytes]);
                fixture.assert_overrun(&request);
            }
            let wrong = fixture.request(&cdb).data_in(2 * block);
            fixture.assert_overrun(&wrong);
        }
        assert_eq!(fixture.disk.calls(), Calls { reads: 0, writes: 16, flushes: 0, ended: 16 });
    }
}

#[test]
fn r21_transfer_of_no_blocks_is_good_and_all_is_residual() {
    let mut fixture = fixture(512);
    for cdb in [true, false].into_iter().flat_map(|read| transfers(read, 7, 0).into_iter().skip(1)) {
        for request in
            [fixture.request(&cdb), fixture.request(&cdb).data_in(700), fixture.request(&cdb).data_out([1; 700])]
        {
            let residual = if request.message() == fixture.request(&cdb).message() { 0 } else { 700 };
            let reply = fixture.device.answer(FIRST, request);
            reply.assert_good(residual);
            assert!(reply.data_untouched());
            assert_eq!(reply.written, 12);
        }
    }
    assert_eq!(fixture.disk.calls(), Calls::default());
}

#[test]
fn r21_six_byte_transfer_of_0_blocks_means_256() {
    let mut fixture = fixture(512);
    let read = fixture.request(&[0x08, 0, 0, 3, 0, 0]).data_in(256 * 512);
    let expected = fixture.content[3 * 512..259 * 512].to_vec();
    fixture.device.answer(FIRST, read).assert_data(&expected);
    let short = fixture.request(&[0x08, 0, 0, 3, 0, 0]).data_in(255 * 512);
    fixture.assert_overrun(&short);
    let none = fixture.request(&[0x0a, 0, 0, 3, 0, 0]);
    fixture.assert_overrun(&none);
}

#[test]
fn r21_largest_transfers_overrun_and_do_not_overflow() {
    for block in [512, 4096] {
        let mut fixture = fixture(block);
        for cdb in [
            [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0].as_slice(),
            &[0x8a, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
            &[0xa8, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
            &[0x2a, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0],
        ] {
            let into = fixture.request(cdb).data_in(4096);
            fixture.assert_overrun(&into);
            let out = fixture.request(cdb).data_out([0; 4096]);
            fixture.assert_overrun(&out);
        }
    }
}

/// A CDB with an allocation length, put together for one.
type WithAllocation = fn(u16) -> Vec<u8>;

/// Commands that answer with parameter data, and how much of it there is.
const PARAMETER_DATA: [(&str, WithAllocation, usize); 9] = [
    ("INQUIRY", |len| vec![0x12, 0, 0, (len >> 8) as u8, len as u8, 0], 96),
    ("INQUIRY, page 80h", |len| vec![0x12, 1, 0x80, (len >> 8) as u8, len as u8, 0], 7),
    ("INQUIRY, page B0h", |len| vec![0x12, 1, 0xb0, (len >> 8) as u8, len as u8, 0], 64),
    ("REPORT LUNS", |len| vec![0xa0, 0, 0, 0, 0, 0, 0, 0, (len >> 8) as u8, len as u8, 0, 0], 16),
    ("REQUEST SENSE", |len| vec![0x03, 0, 0, 0, len as u8, 0], 18),
    ("MODE SENSE (6)", |len| vec![0x1a, 0, 0x3f, 0, len as u8, 0], 44),
    ("MODE SENSE (10)", |len| vec![0x5a, 0, 0x3f, 0, 0, 0, 0, (len >> 8) as u8, len as u8, 0], 48),
    ("READ CAPACITY (16)", |len| vec![0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (len >> 8) as u8, len as u8, 0, 0], 32),
    (
        "REPORT SUPPORTED OPERATION CODES",
        |len| vec![0xa3, 0x0c, 1, 0x28, 0, 0, 0, 0, (len >> 8) as u8, len as u8, 0, 0],
        14,
    ),
];

#[test]
fn r21_parameter_data_is_cut_to_the_allocation_length_and_must_fit() {
    let mut fixture = fixture(512);
    for (name, cdb, produced) in PARAMETER_DATA {
        let whole = fixture.request(&cdb(250)).data_in(250);
        let reply = fixture.device.answer(FIRST, whole);
        assert_eq!(250 - reply.residual() as usize, produced, "{name}");
        let whole = reply.data()[..produced].to_vec();
        reply.assert_data(&whole);
        for allocation in [1, 4, produced - 1, produced, produced + 1, 250] {
            let moves = allocation.min(produced);
            let cdb = cdb(allocation as u16);
            for room in [moves, moves + 1, 250] {
                let request = fixture.request(&cdb).data_in(room);
                fixture.device.answer(FIRST, request).assert_data(&whole[..moves]);
            }
            for room in [moves - 1, 0] {
                let request = fixture.request(&cdb).data_in(room);
                fixture.assert_overrun(&request);
            }
            let wrong = fixture.request(&cdb).data_out([0; 300]);
            fixture.assert_overrun(&wrong);
        }
        for request in
            [fixture.request(&cdb(0)), fixture.request(&cdb(0)).data_in(40), fixture.request(&cdb(0)).data_out([7; 40])]
        {
            let residual = request.message().readable.len() - 51 + request.message().writable - 108;
            let reply = fixture.device.answer(FIRST, request);
            reply.assert_good(residual as u32);
            assert!(reply.data_untouched(), "{name}");
        }
    }
}

/// READ CAPACITY (10) has no allocation length: it is always eight bytes.
#[test]
fn r21_read_capacity_10_moves_eight_bytes() {
    let mut fixture = fixture(512);
    for room in [8, 9, 100] {
        let request = fixture.request(&[0x25]).data_in(room);
        fixture.device.answer(FIRST, request).assert_data(&[0, 0, 1, 0x8f, 0, 0, 2, 0]);
    }
    for room in [0, 1, 7] {
        let request = fixture.request(&[0x25]).data_in(room);
        fixture.assert_overrun(&request);
    }
    let wrong = fixture.request(&[0x25]).data_out([0; 8]);
    fixture.assert_overrun(&wrong);
}

#[test]
fn r21_commands_without_data_leave_every_buffer_alone() {
    let mut fixture = fixture(512);
    for cdb in [
        [0x00].as_slice(),
        &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x1b, 0, 0, 0, 0, 0],
        &[0x1b, 0, 0, 0, 1, 0],
    ] {
        for request in
            [fixture.request(cdb), fixture.request(cdb).data_in(600), fixture.request(cdb).data_out([9; 600])]
        {
            let residual = request.message().readable.len() - 51 + request.message().writable - 108;
            let reply = fixture.device.answer(FIRST, request);
            reply.assert_good(residual as u32);
            assert!(reply.data_untouched());
            assert_eq!(reply.written, 12);
        }
    }
    assert!(medium(&*fixture.malloc) == fixture.content);
}

/// What the CDB does not ask for is left over, wherever the driver has put the borders.
#[test]
fn r21_residual_counts_what_is_left_in_any_framing() {
    let mut fixture = fixture(512);
    let message = fixture.request(&[0x28, 0, 0, 0, 0, 7, 0, 0, 1, 0]).data_in(2000).message();
    let expected = fixture.content[7 * 512..8 * 512].to_vec();
    for cuts in [vec![108, 512], vec![108, 500, 24], vec![620], vec![108, 1, 1, 1, 509, 512], vec![50, 500]] {
        let chain = fixture.device.cut(&message, &[51], &cuts);
        fixture.device.answer_chain(FIRST, &chain).assert_data(&expected);
    }
}

/// Data in the wrong direction only is no data at all, whatever moves data.
#[test]
fn r21_data_in_the_wrong_direction_only_is_an_overrun() {
    let mut fixture = fixture(512);
    let out: Vec<Vec<u8>> = [
        transfers(false, 3, 1).to_vec(),
        vec![vec![0x15, 0x10, 0, 0, 24, 0]],             // MODE SELECT (6)
        vec![vec![0x55, 0x10, 0, 0, 0, 0, 0, 0, 28, 0]], // MODE SELECT (10)
        vec![vec![0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]],    // UNMAP
        vec![vec![0x2e, 0, 0, 0, 0, 3, 0, 0, 1, 0]],     // WRITE AND VERIFY (10)
        vec![vec![0x41, 0, 0, 0, 0, 3, 0, 0, 1, 0]],     // WRITE SAME (10)
    ]
    .concat();
    for cdb in &out {
        fixture.assert_overrun(&fixture.request(cdb).data_in(512));
        fixture.assert_overrun(&fixture.request(cdb));
    }
    let into: Vec<Vec<u8>> = [
        transfers(true, 3, 1).to_vec(),
        vec![vec![0x12, 0, 0, 0, 96, 0]],                  // INQUIRY
        vec![vec![0x1a, 0, 0x3f, 0, 255, 0]],              // MODE SENSE (6)
        vec![vec![0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]],       // READ CAPACITY (10)
        vec![vec![0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]], // REPORT LUNS
        vec![vec![0x03, 0, 0, 0, 18, 0]],                  // REQUEST SENSE
    ]
    .concat();
    for cdb in &into {
        fixture.assert_overrun(&fixture.request(cdb).data_out([0x77; 512]));
        fixture.assert_overrun(&fixture.request(cdb));
    }
}

/// A parameter list that is longer than what there is to be read is not read at all; one that is shorter leaves a residual.
#[test]
fn r21_parameter_list_longer_than_data_out_is_an_overrun() {
    let mut fixture = fixture(512);
    for (cdb, len) in [
        (&[0x15, 0x10, 0, 0, 24, 0][..], 24),
        (&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 28, 0], 28),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], 24),
    ] {
        for room in [1, 8, len - 1] {
            fixture.assert_overrun(&fixture.request(cdb).data_out(vec![0; room]));
        }
    }
    // An UNMAP without descriptors, eight bytes of header, in a buffer of 20.
    let reply = fixture.device.answer(FIRST, fixture.request(&[0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0]).data_out([0; 20]));
    reply.assert_good(12);
}
