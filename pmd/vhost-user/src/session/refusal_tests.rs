//! Every refusal: its text, its reply, and that it changed nothing.

use super::testing::*;
use super::*;
use crate::message::{VringAddresses, config_body, vring_state_body};

const OFFERED: &str = "0x140000002";

#[test]
fn set_features_with_bits_not_offered_is_refused() {
    let mut talk = Talk::negotiated();
    assert_eq!(
        talk.set_features(VERSION_1 | 1 << 40),
        format!("-> Ack (SET_FEATURES: bits 0x10000000000 were not offered, must be within {OFFERED})")
    );
    assert_eq!(talk.session.features(), None, "nothing is agreed");
}

#[test]
fn set_features_with_bits_not_offered_leaves_running_rings_alone() {
    let mut talk = Talk::running(2);
    assert!(talk.set_features(1 << 40).contains("were not offered"));
    assert_eq!(talk.session.features(), Some(VERSION_1 | BIT_30));
}

#[test]
fn set_features_that_change_while_rings_run_is_refused() {
    let mut talk = Talk::running(2);
    assert_eq!(
        talk.set_features(VERSION_1 | BIT_30 | HOTPLUG),
        "-> Ack (SET_FEATURES: 0x140000002 while rings run, must stay 0x140000000)"
    );
    assert_eq!(talk.session.features(), Some(VERSION_1 | BIT_30));
}

#[test]
fn set_protocol_features_with_bits_not_offered_is_refused() {
    let mut talk = Talk::new();
    assert_eq!(
        talk.set_protocol_features(1 << 12),
        "-> None (SET_PROTOCOL_FEATURES: bits 0x1000 were not offered, must be within 0x1a209)"
    );
    assert_eq!(
        talk.set_protocol_features(1 << 12 | protocol::REPLY_ACK),
        "-> Ack (SET_PROTOCOL_FEATURES: bits 0x1000 were not offered, must be within 0x1a209)",
        "a front-end that takes REPLY_ACK as agreed is not left waiting"
    );
    assert_eq!(talk.session.protocol_features(), 0);
    assert_eq!(talk.say(3, &[], 0), "-> None");
}

#[test]
fn r16_ring_size_outside_its_bounds_is_refused_and_others_go_on() {
    let mut talk = Talk::running(2);
    for size in [0, 3, 127, 2048, 0x1_0080, u32::MAX] {
        assert_eq!(
            talk.num(0, size),
            format!("-> Ack (SET_VRING_NUM: size {size} of ring 0, must be a power of two from 1 to 1024)")
        );
    }
    assert_eq!(talk.num(0, 1), "-> Ack");
    assert_eq!(talk.num(0, 1024), "-> Ack");
    assert_eq!(talk.kick(2), "kick 2 fd -> Ack", "ring 2 still runs");
}

#[test]
fn ring_size_of_a_packed_ring_need_not_be_a_power_of_two() {
    let mut talk = Talk::with(DeviceInfo { features: VERSION_1 | 1 << 34, ..device() });
    assert!(talk.num(0, 100).contains("power of two"), "before it was agreed");
    talk.set_features(VERSION_1 | 1 << 34);
    assert_eq!(talk.num(0, 100), "-> None");
    assert!(talk.num(0, 1025).contains("from 1 to 1024"));
    assert!(talk.num(0, 0).contains("from 1 to 1024"));
    assert_eq!(talk.base(0, 0x8000_8000), "-> None", "two indices with their wrap counters");
}

#[test]
fn ring_base_beyond_sixteen_bits_is_refused() {
    let mut talk = Talk::negotiated();
    assert_eq!(talk.base(0, 65_535), "-> Ack");
    assert_eq!(talk.base(0, 65_536), "-> Ack (SET_VRING_BASE: base 65536 of ring 0, must be at most 65535)");
    assert_eq!(talk.session.base(0), 65_535);
}

#[test]
fn r16_started_ring_keeps_size_base_and_addresses() {
    let mut talk = Talk::running(2);
    let started = |name| format!("-> Ack ({name}: ring 2 is started, must be stopped by GET_VRING_BASE first)");
    assert_eq!(talk.num(2, 128), started("SET_VRING_NUM"));
    assert_eq!(talk.base(2, 0), started("SET_VRING_BASE"));
    for other in [
        VringAddresses { desc_user: 0, ..addresses(2) },
        VringAddresses { avail_user: 0, ..addresses(2) },
        VringAddresses { used_user: 0, ..addresses(2) },
    ] {
        assert_eq!(talk.addr(2, &other), started("SET_VRING_ADDR"));
    }
}

#[test]
fn r16_ring_addresses_of_zero_are_addresses() {
    let mut talk = Talk::negotiated();
    talk.num(0, 128);
    assert_eq!(talk.addr(0, &VringAddresses::default()), "-> Ack");
    assert_eq!(talk.kick(0), "start 0 size 128 base 0 desc 0x0 fd -> Ack");
}

#[test]
fn ring_index_beyond_the_queues_is_refused_by_every_ring_message() {
    let mut talk = Talk::negotiated();
    let refused = |name: &str, index: u32| format!("-> Ack ({name}: ring index {index}, must be below 3)");
    assert_eq!(talk.num(3, 128), refused("SET_VRING_NUM", 3));
    assert_eq!(talk.num(0x1_0000, 128), refused("SET_VRING_NUM", 65_536));
    assert_eq!(talk.addr(3, &addresses(3)), refused("SET_VRING_ADDR", 3));
    assert_eq!(talk.base(u32::MAX, 0), refused("SET_VRING_BASE", u32::MAX));
    assert_eq!(talk.kick(3), refused("SET_VRING_KICK", 3));
    assert_eq!(talk.call(255), refused("SET_VRING_CALL", 255));
    assert_eq!(talk.err(3), refused("SET_VRING_ERR", 3));
    assert_eq!(talk.enable(3, true), refused("SET_VRING_ENABLE", 3));
}

#[test]
fn get_vring_base_of_a_missing_ring_is_answered() {
    let mut talk = Talk::negotiated();
    assert_eq!(talk.stop(3), "-> VringBase { index: 3 } (GET_VRING_BASE: ring index 3, must be below 3)");
    assert_eq!(talk.session.base(3), 0);
    assert_eq!(talk.say(11, &[], 0), "-> VringBase { index: 4294967295 } (GET_VRING_BASE: body of 0 bytes, must be 8)");
}

#[test]
fn malformed_questions_are_answered_all_the_same() {
    let mut talk = Talk::negotiated();
    for (code, name) in
        [(1, "GET_FEATURES"), (15, "GET_PROTOCOL_FEATURES"), (17, "GET_QUEUE_NUM"), (36, "GET_MAX_MEM_SLOTS")]
    {
        assert_eq!(talk.say(code, &[0], 0), format!("-> U64(0) ({name}: body of 1 bytes, must be 0)"));
        assert_eq!(talk.say(code, &[], 1), format!("-> U64(0) ({name}: 1 file descriptors attached, must be 0)"));
    }
    assert_eq!(talk.say(40, &[0], 0), "-> Status (GET_STATUS: body of 1 bytes, must be 0)");
    assert_eq!(talk.say(24, &[0; 12], 0), "-> ConfigError (GET_CONFIG: size is 0x0, must be at least 1)");
}

#[test]
fn malformed_orders_are_acknowledged_only_after_reply_ack() {
    let mut talk = Talk::new();
    assert_eq!(talk.say(8, &[0; 7], 0), "-> None (SET_VRING_NUM: body of 7 bytes, must be 8)");
    talk.set_protocol_features(protocol::REPLY_ACK);
    assert_eq!(talk.say(8, &[0; 7], 0), "-> Ack (SET_VRING_NUM: body of 7 bytes, must be 8)");
    assert_eq!(talk.say(12, &[0; 8], 0), "-> Ack (SET_VRING_KICK: 0 file descriptors attached, must be 1)");
}

#[test]
fn requests_that_are_not_served_are_answered_where_somebody_waits() {
    let mut talk = Talk::negotiated();
    for (code, name) in [
        (6, "SET_LOG_BASE"),
        (7, "SET_LOG_FD"),
        (23, "SET_VRING_ENDIAN"),
        (27, "CLOSE_CRYPTO_SESSION"),
        (29, "POSTCOPY_LISTEN"),
        (32, "SET_INFLIGHT_FD"),
        (33, "GPU_SET_SOCKET"),
        (35, "VRING_KICK"),
        (77, "request 77"),
    ] {
        assert_eq!(talk.say(code, &[], 0), format!("-> Ack ({name}: not supported)"));
    }
    for (code, name) in [
        (22, "IOTLB_MSG"),
        (26, "CREATE_CRYPTO_SESSION"),
        (28, "POSTCOPY_ADVISE"),
        (30, "POSTCOPY_END"),
        (31, "GET_INFLIGHT_FD"),
        (41, "GET_SHARED_OBJECT"),
        (42, "SET_DEVICE_STATE_FD"),
        (43, "CHECK_DEVICE_STATE"),
        (44, "GET_SHMEM_CONFIG"),
    ] {
        assert_eq!(talk.say(code, &[], 0), format!("-> U64(1) ({name}: not supported)"));
    }
}

#[test]
fn messages_of_features_that_are_not_offered_are_refused() {
    let mut talk = Talk::with(DeviceInfo { protocol_features: protocol::REPLY_ACK, ..device() });
    talk.set_protocol_features(protocol::REPLY_ACK);
    let refused = |name: &str, bit: u32| format!("({name}: needs protocol feature bit {bit}, which is not offered)");
    assert_eq!(talk.say(19, &[0; 8], 0), format!("-> Ack {}", refused("SEND_RARP", 2)));
    assert_eq!(talk.say(20, &[0; 8], 0), format!("-> Ack {}", refused("NET_SET_MTU", 4)));
    assert_eq!(talk.say(21, &[], 1), format!("-> Ack {}", refused("SET_BACKEND_REQ_FD", 5)));
    let config = config_body(0, 0, &[0]);
    assert_eq!(talk.say(24, &config, 0), format!("-> ConfigError {}", refused("GET_CONFIG", 9)));
    assert_eq!(talk.say(25, &config, 0), format!("-> Ack {}", refused("SET_CONFIG", 9)));
    assert_eq!(talk.say(34, &[], 0), format!("-> Ack {}", refused("RESET_DEVICE", 13)));
    assert_eq!(talk.add_region(&region(0, MIB)), format!("-> Ack {}", refused("ADD_MEM_REG", 15)));
    assert_eq!(talk.remove_region(&region(0, MIB)), format!("-> Ack {}", refused("REM_MEM_REG", 15)));
    assert_eq!(talk.set_status(0), format!("-> Ack {}", refused("SET_STATUS", 16)));
    assert_eq!(talk.say(40, &[], 0), "-> Status");
}

#[test]
fn memory_table_with_a_bad_region_leaves_the_old_one() {
    let mut talk = Talk::negotiated();
    let good = region(8 * MIB, MIB);
    let table = |talk: &mut Talk, bad: RegionConfig| talk.set_mem_table(&[good, bad]);
    assert_eq!(
        table(&mut talk, region(MIB, 0)),
        "-> Ack (SET_MEM_TABLE: size 0 of the region at guest address 0x100000, must be at least 1)"
    );
    let overflow = |field: &str| {
        format!("-> Ack (SET_MEM_TABLE: {field} 0xffffffffffffffff + size 0x100000 of a region, must be below 2^64)")
    };
    let bad = RegionConfig { guest_addr: u64::MAX, ..region(MIB, MIB) };
    assert_eq!(table(&mut talk, bad), overflow("guest address"));
    let bad = RegionConfig { user_addr: u64::MAX, ..region(MIB, MIB) };
    assert_eq!(table(&mut talk, bad), overflow("user address"));
    let bad = RegionConfig { mmap_offset: u64::MAX, ..region(MIB, MIB) };
    assert_eq!(table(&mut talk, bad), overflow("mmap offset"));
    assert_eq!(
        table(&mut talk, region(9 * MIB - 1, 2)),
        "-> Ack (SET_MEM_TABLE: region at guest address 0x8fffff, size 0x2, overlaps the one at 0x800000, \
         size 0x100000)"
    );
    assert_eq!(talk.session.regions, [region(MIB, MIB)]);
}

#[test]
fn memory_region_added_over_another_one_is_refused() {
    let mut talk = Talk::negotiated();
    for overlapping in [region(MIB, MIB), region(0, MIB + 1), region(2 * MIB - 1, 1), region(0, 16 * MIB)] {
        assert!(talk.add_region(&overlapping).contains("overlaps the one at 0x100000"));
    }
    assert_eq!(talk.session.regions, [region(MIB, MIB)]);
}

#[test]
fn memory_regions_beyond_the_slots_are_refused() {
    let mut talk = Talk::negotiated();
    for slot in 1..32 {
        assert!(talk.add_region(&region((slot + 8) * MIB, MIB)).starts_with("add"));
    }
    assert_eq!(talk.add_region(&region(0, MIB)), "-> Ack (ADD_MEM_REG: 33 regions, must be at most 32)");
    assert!(talk.remove_region(&region(MIB, MIB)).starts_with("remove"));
    assert!(talk.add_region(&region(0, MIB)).starts_with("add"));
}

#[test]
fn memory_region_that_is_not_there_cannot_be_removed() {
    let mut talk = Talk::negotiated();
    let known = region(MIB, MIB);
    for unknown in [
        RegionConfig { guest_addr: 0, ..known },
        RegionConfig { user_addr: 0, ..known },
        RegionConfig { size: MIB / 2, ..known },
    ] {
        let RegionConfig { guest_addr, size, user_addr, .. } = unknown;
        assert_eq!(
            talk.remove_region(&unknown),
            format!(
                "-> Ack (REM_MEM_REG: no region at guest address {guest_addr:#x}, user address {user_addr:#x}, \
                 size {size:#x})"
            )
        );
    }
    assert_eq!(talk.session.regions, [known]);
}

#[test]
fn refused_message_closes_the_descriptors_it_brought() {
    use std::os::unix::net::UnixStream;
    let mut talk = Talk::negotiated();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let request = message_with_fd(12, &[9, 0, 0, 0, 0, 0, 0, 0], theirs.into());
    let outcome = talk.session.on(request);
    assert!(outcome.refused.is_some());
    let read = std::io::Read::read(&mut ours, &mut [0]).unwrap();
    assert_eq!(read, 0, "the other end was closed");
}

fn message_with_fd(code: u32, body: &[u8], fd: std::os::fd::OwnedFd) -> Request {
    crate::message::decode(RequestCode(code), body, vec![fd]).unwrap()
}

#[test]
fn refusal_knows_the_request_it_refused() {
    let mut talk = Talk::running(2);
    let state = vring_state_body(2, 0);
    let cases: [(u32, &[u8]); 6] = [(2, &[0; 8]), (16, &[0xff; 8]), (8, &state), (10, &state), (77, &[]), (40, &[0])];
    for (code, body) in cases {
        let refusal = talk.outcome(code, body, 0).refused.unwrap();
        assert_eq!(refusal.code(), RequestCode(code));
    }
}

#[test]
#[should_panic(expected = "queues: 257")]
fn session_with_more_queues_than_indices_is_a_bug() {
    Session::new(DeviceInfo { queues: 257, ..device() });
}

#[test]
#[should_panic(expected = "queue_size_max: 1000")]
fn session_with_an_odd_queue_size_is_a_bug() {
    Session::new(DeviceInfo { queue_size_max: 1000, ..device() });
}
