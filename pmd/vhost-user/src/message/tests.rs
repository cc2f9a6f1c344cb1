//! Literal bytes in, requests out; every refusal of the codec; bodies there and back.

use std::os::fd::OwnedFd;

use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};

use super::*;

fn fds(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap()).collect()
}

fn refusal(code: u32, body: &[u8], fd_count: usize) -> String {
    decode(RequestCode(code), body, fds(fd_count)).unwrap_err().to_string()
}

fn request(code: u32, body: &[u8], fd_count: usize) -> Request {
    decode(RequestCode(code), body, fds(fd_count)).unwrap()
}

#[test]
fn header_literal_bytes_decode_and_encode() {
    let bytes = [8, 0, 0, 0, 0x09, 0, 0, 0, 8, 0, 0, 0];
    let header = Header { code: RequestCode::SET_VRING_NUM, reply: false, need_reply: true, size: 8 };
    assert_eq!(Header::decode(&bytes).unwrap(), header);
    assert_eq!(header.encode(), bytes);
    let reply = Header::decode(&[40, 0, 0, 0, 0x05, 0, 0, 0, 8, 0, 0, 0]).unwrap();
    assert!(reply.reply && !reply.need_reply);
    let future = Header::decode(&[1, 0, 0, 0, 0xf1, 0xff, 0xff, 0xff, 0, 0, 0, 0]).unwrap();
    assert!(!future.reply && !future.need_reply, "flag bits above 3 are ignored");
}

#[test]
fn header_version_other_than_one_breaks_the_stream() {
    for version in [0, 2, 3] {
        let error = Header::decode(&[1, 0, 0, 0, version, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
        let text = format!("GET_FEATURES: version {version} in the header flags, must be 1");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn header_body_above_the_bound_breaks_the_stream() {
    assert!(Header::decode(&[5, 0, 0, 0, 1, 0, 0, 0, 0x00, 0x10, 0, 0]).is_ok());
    let error = Header::decode(&[5, 0, 0, 0, 1, 0, 0, 0, 0x01, 0x10, 0, 0]).unwrap_err();
    assert_eq!(error.to_string(), "SET_MEM_TABLE: body of 4097 bytes announced, at most 4096");
}

#[test]
fn reply_flags_are_exactly_version_and_reply() {
    // SPDK and virtio-user compare the flags with 0x5.
    assert_eq!(
        reply(RequestCode::GET_FEATURES, &[1, 2, 3, 4, 5, 6, 7, 8]),
        [1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    );
}

#[test]
fn decode_bare_messages_yield_their_requests() {
    assert!(matches!(request(1, &[], 0), Request::GetFeatures));
    assert!(matches!(request(3, &[], 0), Request::SetOwner));
    assert!(matches!(request(4, &[], 0), Request::ResetOwner));
    assert!(matches!(request(15, &[], 0), Request::GetProtocolFeatures));
    assert!(matches!(request(17, &[], 0), Request::GetQueueNum));
    assert!(matches!(request(34, &[], 0), Request::ResetDevice));
    assert!(matches!(request(36, &[], 0), Request::GetMaxMemSlots));
    assert!(matches!(request(40, &[], 0), Request::GetStatus));
}

#[test]
fn decode_number_messages_yield_their_values() {
    assert!(matches!(request(2, &[0, 0, 0, 0x40, 1, 0, 0, 0], 0), Request::SetFeatures(0x1_4000_0000)));
    assert!(matches!(request(16, &[9, 0, 1, 0, 0, 0, 0, 0], 0), Request::SetProtocolFeatures(0x10009)));
    assert!(matches!(request(39, &[0x0f, 0, 0, 0, 0, 0, 0, 0], 0), Request::SetStatus(0x0f)));
    assert!(matches!(request(20, &[0xdc, 5, 0, 0, 0, 0, 0, 0], 0), Request::NetSetMtu(1500)));
    let rarp = request(19, &[0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0], 0);
    assert!(matches!(rarp, Request::SendRarp([0x52, 0x54, 0, 0x12, 0x34, 0x56])));
}

#[test]
fn decode_vring_state_messages_yield_index_and_number() {
    let body = [3, 0, 0, 0, 0x80, 0, 0, 0];
    assert!(matches!(request(8, &body, 0), Request::SetVringNum { index: 3, size: 128 }));
    assert!(matches!(request(10, &body, 0), Request::SetVringBase { index: 3, base: 128 }));
    assert!(matches!(request(11, &body, 0), Request::GetVringBase { index: 3 }));
    let enable = |num| request(18, &[3, 0, 0, 0, num, 0, 0, 0], 0);
    assert!(matches!(enable(1), Request::SetVringEnable { index: 3, enabled: true }));
    assert!(matches!(enable(0), Request::SetVringEnable { index: 3, enabled: false }));
}

#[test]
fn decode_vring_addr_takes_used_before_available() {
    let mut body = vec![2, 0, 0, 0, 1, 0, 0, 0];
    for field in [0x10u8, 0x20, 0x30, 0x40] {
        body.extend_from_slice(&[field, 0, 0, 0, 0, 0, 0, 0x7f]);
    }
    let Request::SetVringAddr { index, addresses } = request(9, &body, 0) else { panic!() };
    assert_eq!(index, 2);
    let expected = VringAddresses {
        desc_user: 0x7f00_0000_0000_0010,
        used_user: 0x7f00_0000_0000_0020,
        avail_user: 0x7f00_0000_0000_0030,
        log_guest: 0x7f00_0000_0000_0040,
        flags: 1,
    };
    assert_eq!(addresses, expected);
    assert_eq!(vring_addr_body(2, &expected).as_slice(), body);
}

#[test]
fn decode_vring_fd_messages_take_a_descriptor_or_the_flag() {
    let with = [5, 0, 0, 0, 0, 0, 0, 0];
    let without = [5, 1, 0, 0, 0, 0, 0, 0];
    assert!(matches!(request(12, &with, 1), Request::SetVringKick { index: 5, fd: Some(_) }));
    assert!(matches!(request(12, &without, 0), Request::SetVringKick { index: 5, fd: None }));
    assert!(matches!(request(13, &with, 1), Request::SetVringCall { index: 5, fd: Some(_) }));
    assert!(matches!(request(13, &without, 0), Request::SetVringCall { index: 5, fd: None }));
    assert!(matches!(request(14, &with, 1), Request::SetVringErr { index: 5, fd: Some(_) }));
    assert!(matches!(request(14, &without, 0), Request::SetVringErr { index: 5, fd: None }));
}

/// Region of 2 MiB at guest 1 MiB, user 0x7f0000000000, offset 0x1000, as it stands on the wire.
const REGION: [u8; 32] =
    [0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];

fn expected_region() -> RegionConfig {
    RegionConfig { guest_addr: 0x10_0000, size: 0x20_0000, user_addr: 0x7f00_0000_0000, mmap_offset: 0x1000 }
}

#[test]
fn decode_mem_table_pairs_regions_with_descriptors_in_order() {
    let mut body = vec![2, 0, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&REGION);
    body.extend_from_slice(&[0xff; 32]);
    let sent = fds(2);
    let raw: Vec<_> = sent.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
    let Ok(Request::SetMemTable(table)) = decode(RequestCode(5), &body, sent) else { panic!() };
    assert_eq!(table[0].0, expected_region());
    assert_eq!(table[1].0.guest_addr, u64::MAX);
    let got: Vec<_> = table.iter().map(|(_, fd)| std::os::fd::AsRawFd::as_raw_fd(fd)).collect();
    assert_eq!(got, raw);
    let Request::SetMemTable(empty) = request(5, &[0; 8], 0) else { panic!() };
    assert!(empty.is_empty());
}

#[test]
fn decode_single_regions_skip_their_padding() {
    let mut body = vec![0xaa; 8];
    body.extend_from_slice(&REGION);
    let Request::AddMemReg(added, _) = request(37, &body, 1) else { panic!() };
    assert_eq!(added, expected_region());
    for attached in [0, 1] {
        let Request::RemMemReg(removed) = request(38, &body, attached) else { panic!() };
        assert_eq!(removed, expected_region());
    }
}

#[test]
fn decode_config_messages_take_exactly_the_bytes_they_announce() {
    let Request::GetConfig { offset, size, flags } = request(24, &[4, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0xaa, 0xbb], 0)
    else {
        panic!()
    };
    assert_eq!((offset, size, flags), (4, 2, 7));
    let Request::SetConfig { offset, migration, bytes } =
        request(25, &[4, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0xaa, 0xbb], 0)
    else {
        panic!()
    };
    assert_eq!((offset, migration, bytes.as_slice()), (4, true, [0xaa, 0xbb].as_slice()));
    assert_eq!(config_body(4, 1, &[0xaa, 0xbb]), [4, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0xaa, 0xbb]);
}

#[test]
fn decode_backend_request_fd_takes_one_descriptor() {
    assert!(matches!(request(21, &[], 1), Request::SetBackendReqFd(_)));
    assert_eq!(refusal(21, &[], 0), "SET_BACKEND_REQ_FD: 0 file descriptors attached, must be 1");
    assert_eq!(refusal(21, &[], 2), "SET_BACKEND_REQ_FD: 2 file descriptors attached, must be 1");
    assert_eq!(refusal(21, &[0], 1), "SET_BACKEND_REQ_FD: body of 1 bytes, must be 0");
}

#[test]
fn decode_codes_that_are_not_served_are_values() {
    for code in [0, 6, 7, 22, 23, 26, 27, 28, 29, 30, 31, 32, 33, 35, 41, 42, 43, 44, 45, 0xffff_ffff] {
        let Request::Unknown(unknown) = request(code, &[1, 2, 3], 3) else { panic!("{code}") };
        assert_eq!(unknown, RequestCode(code));
    }
}

/// Every served code with the body that it takes (all 0 is valid for most) and the number of descriptors.
const SERVED: [(u32, usize, usize); 27] = [
    (1, 0, 0),
    (2, 8, 0),
    (3, 0, 0),
    (4, 0, 0),
    (5, 8, 0),
    (8, 8, 0),
    (9, 40, 0),
    (10, 8, 0),
    (11, 8, 0),
    (12, 8, 1),
    (13, 8, 1),
    (14, 8, 1),
    (15, 0, 0),
    (16, 8, 0),
    (17, 0, 0),
    (18, 8, 0),
    (19, 8, 0),
    (20, 8, 0),
    (21, 0, 1),
    (24, 13, 0),
    (25, 13, 0),
    (34, 0, 0),
    (36, 0, 0),
    (37, 40, 1),
    (38, 40, 0),
    (39, 8, 0),
    (40, 0, 0),
];

fn minimal_body(code: u32, size: usize) -> Vec<u8> {
    let mut body = vec![0; size];
    if matches!(code, 24 | 25) {
        body[4] = 1;
    }
    body
}

#[test]
fn decode_every_served_code_with_any_other_size_is_refused() {
    for (code, size, fd_count) in SERVED {
        request(code, &minimal_body(code, size), fd_count);
        for wrong in (0..64).filter(|wrong| *wrong != size) {
            let mut body = minimal_body(code, size);
            body.resize(wrong, 0);
            let error = decode(RequestCode(code), &body, fds(fd_count)).unwrap_err();
            assert!(matches!(error, DecodeError::Size { size, .. } if size == wrong), "{code}: {error}");
            assert_eq!(error.code(), RequestCode(code));
        }
    }
}

#[test]
fn decode_every_served_code_with_any_other_number_of_descriptors_is_refused() {
    for (code, size, fd_count) in SERVED {
        for wrong in (0..=FDS_MAX).filter(|wrong| *wrong != fd_count) {
            let result = decode(RequestCode(code), &minimal_body(code, size), fds(wrong));
            if code == 38 && wrong == 1 {
                assert!(result.is_ok(), "REM_MEM_REG: one descriptor is tolerated");
                continue;
            }
            let error = result.unwrap_err();
            let DecodeError::Descriptors { count, expected, .. } = error else { panic!("{code}: {error}") };
            assert_eq!((count, expected), (wrong, fd_count), "{code}");
        }
    }
}

#[test]
fn decode_mem_table_with_wrong_counts_is_refused() {
    assert_eq!(refusal(5, &[9, 0, 0, 0, 0, 0, 0, 0], 0), "SET_MEM_TABLE: number of regions is 0x9, must be at most 8");
    assert_eq!(refusal(5, &[1, 0, 0, 0, 0, 0, 0, 0], 1), "SET_MEM_TABLE: body of 8 bytes, must be 40");
    assert_eq!(refusal(5, &[1, 0, 0, 0], 1), "SET_MEM_TABLE: body of 4 bytes, must be 8");
    let mut two = vec![2, 0, 0, 0, 0, 0, 0, 0];
    two.extend_from_slice(&[0; 64]);
    assert_eq!(refusal(5, &two, 1), "SET_MEM_TABLE: 1 file descriptors attached, must be 2");
    assert_eq!(refusal(5, &two, 3), "SET_MEM_TABLE: 3 file descriptors attached, must be 2");
}

#[test]
fn decode_values_outside_their_range_are_refused_with_their_bound() {
    assert_eq!(refusal(18, &[0, 0, 0, 0, 2, 0, 0, 0], 0), "SET_VRING_ENABLE: num is 0x2, must be 0 or 1");
    assert_eq!(
        refusal(12, &[0, 2, 0, 0, 0, 0, 0, 0], 1),
        "SET_VRING_KICK: payload is 0x200, must be a ring index in bits 0-7 and a flag in bit 8"
    );
    let mut addr = [0; 40];
    addr[4] = 2;
    assert_eq!(refusal(9, &addr, 0), "SET_VRING_ADDR: flags is 0x2, must be 0 or 1 (log)");
    assert_eq!(refusal(39, &[0, 1, 0, 0, 0, 0, 0, 0], 0), "SET_STATUS: status is 0x100, must be at most 0xff");
    assert_eq!(refusal(20, &[0, 0, 1, 0, 0, 0, 0, 0], 0), "NET_SET_MTU: MTU is 0x10000, must be at most 0xffff");
}

#[test]
fn decode_config_ranges_outside_the_space_are_refused() {
    assert_eq!(refusal(24, &[0; 12], 0), "GET_CONFIG: size is 0x0, must be at least 1");
    let range = |offset: u32, size: u32| config_body(offset, 0, &vec![0; size as usize]);
    assert!(decode(RequestCode(24), &range(0, 256), Vec::new()).is_ok());
    assert_eq!(refusal(24, &range(0, 257), 0), "GET_CONFIG: offset + size is 0x101, must be at most 0x100");
    assert_eq!(refusal(25, &range(256, 1), 0), "SET_CONFIG: offset + size is 0x101, must be at most 0x100");
    assert_eq!(refusal(24, &range(u32::MAX, 1), 0), "GET_CONFIG: offset + size is 0x100000000, must be at most 0x100");
    assert_eq!(
        refusal(25, &[0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0], 0),
        "SET_CONFIG: flags is 0x2, must be 0 or 1 (live migration)"
    );
}

#[test]
fn request_code_unknown_prints_its_number() {
    assert_eq!(RequestCode(12).to_string(), "SET_VRING_KICK");
    assert_eq!(RequestCode(77).to_string(), "request 77");
}

proptest! {
    #[test]
    fn decode_any_bytes_and_descriptors_never_panics(
        code in 0u32..50,
        body in proptest::collection::vec(any::<u8>(), 0..300),
        fd_count in 0usize..=8,
    ) {
        if let Err(error) = decode(RequestCode(code), &body, fds(fd_count)) {
            prop_assert_eq!(error.code(), RequestCode(code));
        }
    }

    #[test]
    fn header_any_bytes_survive_the_way_back(code: u32, reply: bool, need_reply: bool, size in 0..=BODY_MAX) {
        let header = Header { code: RequestCode(code), reply, need_reply, size };
        prop_assert_eq!(Header::decode(&header.encode()).unwrap(), header);
    }

    #[test]
    fn mem_table_any_regions_survive_the_way_back(
        fields in proptest::collection::vec(any::<[u64; 4]>(), 0..=8),
    ) {
        let regions: Vec<_> = fields
            .iter()
            .map(|&[guest_addr, size, user_addr, mmap_offset]| RegionConfig { guest_addr, size, user_addr, mmap_offset })
            .collect();
        let body = mem_table_body(regions.iter());
        let Ok(Request::SetMemTable(table)) = decode(RequestCode(5), &body, fds(regions.len())) else {
            return Err(TestCaseError::fail("not a table"));
        };
        let got: Vec<_> = table.into_iter().map(|(region, _)| region).collect();
        prop_assert_eq!(got, regions);
    }
}
