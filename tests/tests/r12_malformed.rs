//! R12: a request that is too short, or that is for nobody, gets its answer wherever one fits, and the queue goes on.

use std::sync::Arc;

use bdev::testing::{Calls, Recorder};
use tests::device::{Device, FIRST, Message, Noise, Request, Setup, TEST_UNIT_READY, lun, unit};

const FAILURE: u8 = 9;
const BAD_TARGET: u8 = 3;
const NOT_SUPPORTED: (u8, u8, u8) = (0x05, 0x25, 0x00);

fn device() -> (Device, Recorder) {
    let disk = Recorder::new("disk", 1024, 512).unwrap();
    let units = [(0, 0), (0, 5), (7, 300)].map(|(target, number)| unit(target, number, Arc::new(disk.clone())));
    (Device::ready(Setup::of(units)), disk)
}

fn ready() -> Request {
    Request::new(lun(0, 0), &TEST_UNIT_READY)
}

fn no_room(device: &Device) -> u64 {
    device.count(|stats| stats.no_response_room.value())
}

/// Every length of the header with every length of the response area, in one descriptor each.
#[test]
fn r12_every_length_of_header_and_response_is_completed() {
    let (mut device, _) = device();
    let header = ready().header();
    let mut bare = 0;
    for readable in 0..=51 {
        for writable in 0..=108 {
            if readable + writable == 0 {
                continue; // no descriptor, no chain
            }
            let message = Message { readable: header[..readable].to_vec(), writable };
            let chain = device.cut(&message, &[], &[]);
            let reply = device.answer_chain(FIRST, &chain);
            let written = match (readable, writable) {
                (_, 0..12) => {
                    bare += 1;
                    vec![]
                }
                (51, 108) => vec![0; 12],
                _ => vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, FAILURE],
            };
            let what = format!("header of {readable} bytes, room for {writable}");
            assert_eq!(reply.written as usize, written.len(), "{what}");
            assert_eq!(reply.writable[..written.len()], written, "{what}");
            assert!(reply.writable[written.len()..].iter().all(|byte| *byte == 0xa5), "{what}");
            assert_eq!(no_room(&device), bare, "{what}");
        }
    }
    assert!(!device.broken(FIRST));
    device.answer(FIRST, ready()).assert_good(0);
}

/// The same, byte by byte: no length of a descriptor matters.
#[test]
fn r12_every_length_in_descriptors_of_one_byte_is_completed() {
    let disk = Recorder::new("disk", 1024, 512).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk))]);
    setup.ring_size = 256;
    let mut device = Device::ready(setup);
    let header = ready().header();
    for (readable, writable) in (0..=51).map(|len| (len, 108)).chain((0..=108).map(|len| (51, len))) {
        let message = Message { readable: header[..readable].to_vec(), writable };
        let chain = device.cut(&message, &[1; 51], &[1; 108]);
        let reply = device.answer_chain(FIRST, &chain);
        match (readable, writable) {
            (_, 0..12) => assert_eq!(reply.written, 0),
            (51, 108) => reply.assert_good(0),
            _ => reply.assert_transport(FAILURE, 0),
        }
    }
}

#[test]
fn r12_short_requests_touch_no_byte_but_the_answer() {
    let (mut device, disk) = device();
    let write = Request::new(lun(0, 0), &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]).data_out([1; 512]).message();
    for (readable, writable, answer) in [(50, 108 + 512, 12), (1, 108, 12), (563, 107, 12), (563, 12, 12), (563, 11, 0)]
    {
        let token = device.submit(FIRST, Message { readable: write.readable[..readable].to_vec(), writable });
        let before = device.guest.snapshot();
        let reply = device.answer_to(FIRST, token);
        let response = reply.response_addr();
        let allowed = [device.used_ring(FIRST), response..response + answer];
        before.assert_only(&device.guest, &allowed, &format!("{readable} bytes, room for {writable}"));
    }
    assert_eq!(disk.calls(), Calls::default());
}

/// Step 2 of the order of checks comes before the address: with less than a whole response area nothing is looked at.
#[test]
fn r12_response_that_does_not_fit_is_a_failure_whatever_the_address() {
    let (mut device, _) = device();
    for address in [lun(0, 0), lun(9, 0), [0; 8]] {
        let message = Message { readable: Request::new(address, &TEST_UNIT_READY).header(), writable: 60 };
        device.answer(FIRST, message).assert_transport(FAILURE, 0);
    }
}

#[test]
fn r12_addresses_that_do_not_exist_are_bad_targets() {
    let (mut device, disk) = device();
    #[rustfmt::skip]
    let addresses = [
        [0, 0, 0, 0, 0, 0, 0, 0], // the no-op of old devices
        [0, 0, 0x40, 0, 0, 0, 0, 0],
        [2, 0, 0x40, 0, 0, 0, 0, 0], // unknown first byte
        [0xff; 8],
        [1, 1, 0x40, 0, 0, 0, 0, 0], // no such target
        [1, 255, 0x40, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0xc1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0, 0, 0], // peripheral addressing of another bus
        [1, 0, 0x3f, 0, 0, 0, 0, 0],
        [1, 0, 0x80, 0, 0, 0, 0, 0], // logical unit addressing
        [1, 0, 0xc0, 0, 0, 0, 0, 0], // extended addressing, but not the REPORT LUNS unit
        [1, 0, 0xc1, 0, 0, 0, 0, 0],
        [1, 0, 0xc1, 2, 0, 0, 0, 0],
        [1, 0, 0xff, 0xff, 0, 0, 0, 0],
        [1, 0, 0x40, 0, 1, 0, 0, 0], // a second level
        [1, 0, 0x40, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 1, 0, 0],
        [0xc1, 0, 0, 0, 0, 0, 0, 0],
        [0xc1, 1, 1, 0, 0, 0, 0, 0],
        [0xc1, 1, 0, 0, 0, 0, 0, 1],
    ];
    for address in addresses {
        for cdb in [&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], &[0x12, 0, 0, 0, 36, 0], &[0xa0], &[3], &[0xff]] {
            let reply = device.answer(FIRST, Request::new(address, cdb).data_in(512));
            reply.assert_transport(BAD_TARGET, 512);
        }
    }
    assert_eq!(disk.calls(), Calls::default());
    assert_eq!(device.responses(BAD_TARGET), addresses.len() as u64 * 5);
}

#[test]
fn r12_absent_lun_answers_inquiry_report_luns_and_request_sense() {
    let (mut device, _) = device();
    for address in [lun(0, 1), lun(0, 16383), lun(7, 0), [1, 0, 0, 9, 0, 0, 0, 0]] {
        let reply = device.answer(FIRST, Request::new(address, &[0x12, 0, 0, 0, 36, 0]).data_in(36));
        reply.assert_good(0);
        assert_eq!(reply.data()[0], 0x7f);
        let page = Request::new(address, &[0x12, 1, 0, 0, 36, 0]).data_in(36);
        device.answer(FIRST, page).assert_check((0x05, 0x24, 0x00), 36);

        let report = Request::new(address, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]).data_in(32);
        let reply = device.answer(FIRST, report);
        match address[1] {
            0 => reply.assert_data(&[0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]),
            _ => reply.assert_data(&[0, 0, 0, 8, 0, 0, 0, 0, 0x41, 0x2c, 0, 0, 0, 0, 0, 0]),
        }

        let sense = Request::new(address, &[3, 0, 0, 0, 18, 0]).data_in(18);
        device.answer(FIRST, sense).assert_data(&[0x70, 0, 5, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn r12_absent_lun_refuses_every_other_operation_code() {
    let (mut device, disk) = device();
    for opcode in (0..=255).filter(|opcode| ![0x03, 0x12, 0xa0].contains(opcode)) {
        let request = Request::new(lun(0, 1), &[opcode, 0, 0, 0, 0, 0, 0, 0, 1, 0]).data_in(512);
        device.answer(FIRST, request).assert_check(NOT_SUPPORTED, 512);
    }
    assert_eq!(disk.calls(), Calls::default());
}

/// Whatever the LUN field, exactly one of four answers comes, and it is the right one.
#[test]
fn r12_random_lun_fields_are_answered() {
    const SEED: u64 = 12;
    let (mut device, _) = device();
    let mut noise = Noise::new(SEED);
    let mut seen = [0; 3];
    for round in 0..5000 {
        let mut address = [1, noise.pick(&[0, 7, 9]), noise.pick(&[0, 0x40, 0x41, 0x7f, 0xc1, 1, 0x80]), 0, 0, 0, 0, 0];
        address[3] = noise.pick(&[0, 1, 5, 0x2c, 0xff]);
        if noise.once_in(4) {
            address[noise.below(8) as usize] = noise.bits() as u8;
        }
        let reply = device.answer(FIRST, Request::new(address, &TEST_UNIT_READY));
        let number = match address[2] {
            0 => Some(u16::from(address[3])),
            0x40..=0x7f => Some(u16::from_be_bytes([address[2] & 0x3f, address[3]])),
            _ => None,
        };
        let plain = address[0] == 1 && address[4..] == [0; 4] && [0, 7].contains(&address[1]);
        let well_known = (plain && address[2..4] == [0xc1, 1]) || address == [0xc1, 1, 0, 0, 0, 0, 0, 0];
        let exists = number.is_some_and(|number| [(0, 0), (0, 5), (7, 300)].contains(&(address[1], number)));
        let what = format!("seed {SEED}, round {round}: {address:02x?}");
        if well_known || (plain && exists) {
            assert_eq!(reply.outcome(), (0, 0), "{what}");
            seen[0] += 1;
        } else if plain && number.is_some() {
            assert_eq!(reply.sense(), Some(NOT_SUPPORTED), "{what}");
            seen[1] += 1;
        } else {
            assert_eq!(reply.code(), BAD_TARGET, "{what}");
            seen[2] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}
