//! Whole conversations in the orders that real front-ends use, and the life of a ring. No socket.

use super::testing::*;
use super::*;
use crate::message::VringAddresses;

const PROTOCOL: u64 = 0x1_a209;

/// QEMU 10, vhost-user-scsi, one request queue, STATUS and CONFIGURE_MEM_SLOTS taken.
#[test]
fn qemu_scsi_start_stop_and_start_again() {
    let mut talk = Talk::new();
    assert_eq!(talk.say(1, &[], 0), "-> U64(5368709122)", "0x1_4000_0002");
    assert_eq!(talk.say(15, &[], 0), "-> U64(107017)", "0x1a209");
    assert_eq!(talk.set_protocol_features(PROTOCOL), "-> Ack", "REPLY_ACK counts from here on");
    assert_eq!(talk.say(17, &[], 0), "-> U64(3)");
    assert_eq!(talk.say(36, &[], 0), "-> U64(32)");
    assert_eq!(talk.say(3, &[], 0), "-> Ack");
    assert_eq!(talk.say(1, &[], 0), "-> U64(5368709122)");
    for index in 0..3 {
        assert_eq!(talk.call(index), format!("call {index} fd -> Ack"));
        assert_eq!(talk.err(index), format!("err {index} fd -> Ack"));
    }
    qemu_start(&mut talk, 0);

    // Stop: ENABLE 0, GET_VRING_BASE of the rings that were set up, SET_STATUS 0.
    for index in 0..3 {
        assert_eq!(talk.enable(index, false), format!("disable {index} -> Ack"));
    }
    assert_eq!(talk.stop(2), "stop 2 -> VringBase { index: 2 }");
    talk.session.stopped_at(2, 517);
    assert_eq!(talk.session.base(2), 517);
    assert_eq!(talk.set_status(0), "reset -> Ack");
    assert_eq!(talk.say(40, &[], 0), "-> Status");
    assert_eq!(talk.session.status(), 0);

    // The memory stays; QEMU sends only what changes.
    assert_eq!(talk.session.regions, [region(MIB, MIB)]);
    assert_eq!(talk.remove_region(&region(MIB, MIB)), "remove 0x100000+0x0 -> Ack");
    qemu_start(&mut talk, 0);
}

fn qemu_start(talk: &mut Talk, base: u32) {
    for index in 0..3 {
        assert_eq!(talk.enable(index, true), format!("enable {index} -> Ack"), "before anything is set up");
    }
    for _ in 0..2 {
        let features = VERSION_1 | BIT_30 | HOTPLUG | CHANGE;
        assert_eq!(talk.set_features(features), "features 0x140000002 -> Ack", "CHANGE is dropped");
        assert_eq!(talk.set_status(0x0b), "-> Ack");
    }
    assert_eq!(talk.add_region(&region(MIB, MIB)), "add 0x100000 -> Ack");
    assert_eq!(talk.num(2, 128), "-> Ack");
    assert_eq!(talk.base(2, base), "-> Ack");
    assert_eq!(talk.addr(2, &addresses(2)), "-> Ack");
    assert_eq!(talk.kick(2), format!("start 2 size 128 base {base} desc 0x120000 fd -> Ack"));
    assert_eq!(talk.call(2), "call 2 fd -> Ack");
    assert_eq!(talk.enable(2, true), "enable 2 -> Ack");
    assert_eq!(talk.call(2), "call 2 fd -> Ack", "QEMU sends it again after ENABLE");
    assert_eq!(talk.set_status(0x0f), "-> Ack");
    assert_eq!(talk.session.status(), 0x0f);
}

/// QEMU starts logging on running rings: the same addresses with flag 1.
#[test]
fn qemu_log_flag_on_a_running_ring_is_accepted() {
    let mut talk = Talk::running(2);
    let logging = VringAddresses { flags: 1, log_guest: 0x5000, ..addresses(2) };
    assert_eq!(talk.addr(2, &logging), "-> Ack");
    assert_eq!(talk.addr(2, &addresses(2)), "-> Ack");
}

/// SPDK's initiator: only MQ and CONFIG, no REPLY_ACK, ENABLE before memory, CALL before KICK.
#[test]
fn spdk_initiator_enable_before_everything_starts_enabled() {
    let mut talk = Talk::new();
    assert_eq!(talk.say(3, &[], 0), "-> None");
    talk.say(1, &[], 0);
    talk.say(15, &[], 0);
    assert_eq!(talk.set_protocol_features(protocol::MQ | protocol::CONFIG), "-> None");
    assert_eq!(talk.say(17, &[], 0), "-> U64(3)");
    assert_eq!(talk.set_features(VERSION_1 | BIT_30), "features 0x140000000 -> None");
    for index in 0..3 {
        assert_eq!(talk.enable(index, true), format!("enable {index} -> None"));
    }
    assert_eq!(talk.set_mem_table(&[region(MIB, MIB)]), "table [0x100000] -> None");
    for index in 0..3u8 {
        assert_eq!(talk.call(index), format!("call {index} fd -> None"));
        assert_eq!(talk.num(index.into(), 512), "-> None");
        assert_eq!(talk.base(index.into(), 0), "-> None");
        assert_eq!(talk.addr(index.into(), &addresses(index.into())), "-> None");
        let desc = addresses(index.into()).desc_user;
        assert_eq!(talk.kick(index), format!("start {index} size 512 base 0 desc {desc:#x} fd -> None"));
    }
    assert_eq!(talk.stop(0), "stop 0 -> VringBase { index: 0 }");
}

/// virtio-user as a client, STATUS and REPLY_ACK taken; the table comes again between ENABLE 0 and ENABLE 1.
#[test]
fn virtio_user_client_start_grow_memory_and_stop() {
    let mut talk = Talk::new();
    talk.say(3, &[], 0);
    virtio_user_negotiate(&mut talk);
    virtio_user_start(&mut talk);

    assert_eq!(talk.enable(0, false), "disable 0 -> Ack");
    assert_eq!(
        talk.set_mem_table(&[region(MIB, MIB), region(4 * MIB, MIB)]),
        "table [0x100000 0x400000] -> Ack",
        "started rings are translated again by whoever performs it"
    );
    assert_eq!(talk.enable(0, true), "enable 0 -> Ack");

    for index in 0..2 {
        assert_eq!(talk.enable(index, false), format!("disable {index} -> Ack"));
    }
    for index in 0..2 {
        assert_eq!(talk.stop(index), format!("stop {index} -> VringBase {{ index: {index} }}"));
    }
}

/// virtio-user as a server, after the back-end was restarted: no SET_OWNER, the rings are stopped first.
#[test]
fn virtio_user_server_reconnection_begins_with_disable_and_stop() {
    let mut talk = Talk::new();
    for index in 0..2 {
        assert_eq!(talk.enable(index, false), format!("disable {index} -> None"));
    }
    for index in 0..2 {
        assert_eq!(talk.stop(index), format!("-> VringBase {{ index: {index} }}"), "nothing runs");
        assert_eq!(talk.session.base(index), 0);
    }
    virtio_user_negotiate(&mut talk);
    virtio_user_start(&mut talk);
}

fn virtio_user_negotiate(talk: &mut Talk) {
    talk.say(1, &[], 0);
    talk.say(15, &[], 0);
    assert_eq!(talk.set_protocol_features(0x10009), "-> Ack");
    for index in 0..2 {
        assert_eq!(talk.call(index), format!("call {index} fd -> Ack"), "before SET_FEATURES");
    }
    assert_eq!(talk.set_features(VERSION_1 | BIT_30), "features 0x140000000 -> Ack");
    assert_eq!(talk.set_status(0x0b), "-> Ack");
    assert_eq!(talk.session.status() & 0x08, 0x08, "it insists on FEATURES_OK");
}

fn virtio_user_start(talk: &mut Talk) {
    assert_eq!(talk.set_mem_table(&[region(MIB, MIB)]), "table [0x100000] -> Ack");
    for index in 0..2u8 {
        talk.num(index.into(), 256);
        talk.base(index.into(), 0);
        talk.addr(index.into(), &addresses(index.into()));
        let desc = addresses(index.into()).desc_user;
        assert_eq!(talk.kick(index), format!("start {index} size 256 base 0 desc {desc:#x} fd -> Ack"));
    }
    for index in 0..2 {
        assert_eq!(talk.enable(index, true), format!("enable {index} -> Ack"));
    }
    assert_eq!(talk.set_status(0x0f), "-> Ack");
}

/// A front-end of before protocol features: "the ring starts directly in the enabled state".
#[test]
fn ring_without_bit_30_is_enabled_when_it_starts() {
    let mut talk = Talk::new();
    assert_eq!(talk.set_features(VERSION_1), "features 0x100000000 -> None");
    talk.set_mem_table(&[region(MIB, MIB)]);
    talk.num(0, 128);
    talk.addr(0, &addresses(0));
    assert_eq!(talk.kick(0), "enable 0, start 0 size 128 base 0 desc 0x100000 fd -> None");
    assert_eq!(talk.stop(0), "stop 0 -> VringBase { index: 0 }");
    assert_eq!(talk.kick(0), "start 0 size 128 base 0 desc 0x100000 fd -> None", "still enabled");
}

#[test]
fn ring_kicked_first_starts_with_whatever_comes_last() {
    let table = [region(MIB, MIB)];
    type Step<'a> = &'a dyn Fn(&mut Talk) -> String;
    let steps: [Step; 4] = [
        &|talk| talk.num(1, 64),
        &|talk| talk.addr(1, &addresses(1)),
        &|talk| talk.set_features(VERSION_1 | BIT_30),
        &|talk| talk.set_mem_table(&table),
    ];
    for last in 0..steps.len() {
        let mut talk = Talk::new();
        assert_eq!(talk.kick(1), "-> None");
        for (_, step) in steps.iter().enumerate().filter(|(at, _)| *at != last) {
            assert!(!step(&mut talk).contains("start"), "{last}");
        }
        let answer = steps[last](&mut talk);
        assert!(answer.ends_with("start 1 size 64 base 0 desc 0x110000 fd -> None"), "{last}: {answer}");
    }
}

#[test]
fn ring_polled_starts_without_a_descriptor() {
    let mut talk = Talk::negotiated();
    talk.num(0, 128);
    talk.addr(0, &addresses(0));
    assert_eq!(talk.say(12, &[0, 1, 0, 0, 0, 0, 0, 0], 0), "start 0 size 128 base 0 desc 0x100000 polled -> Ack");
    assert_eq!(talk.say(13, &[0, 1, 0, 0, 0, 0, 0, 0], 0), "call 0 polled -> Ack");
    assert_eq!(talk.say(14, &[0, 1, 0, 0, 0, 0, 0, 0], 0), "err 0 polled -> Ack");
}

#[test]
fn ring_kicked_while_started_changes_its_descriptor() {
    let mut talk = Talk::running(0);
    assert_eq!(talk.kick(0), "kick 0 fd -> Ack");
    assert_eq!(talk.say(12, &[0, 1, 0, 0, 0, 0, 0, 0], 0), "kick 0 polled -> Ack");
}

#[test]
fn ring_stopped_while_waiting_forgets_the_kick() {
    let mut talk = Talk::new();
    talk.kick(0);
    assert_eq!(talk.stop(0), "-> VringBase { index: 0 }");
    talk.num(0, 128);
    talk.addr(0, &addresses(0));
    talk.set_features(VERSION_1 | BIT_30);
    assert_eq!(talk.set_mem_table(&[region(MIB, MIB)]), "table [0x100000] -> None");
}

#[test]
fn r16_ring_stopped_and_kicked_again_goes_on_where_it_stood() {
    let mut talk = Talk::running(2);
    assert_eq!(talk.stop(2), "stop 2 -> VringBase { index: 2 }");
    talk.session.stopped_at(2, 40_000);
    assert_eq!(talk.stop(2), "-> VringBase { index: 2 }", "asked twice, the same base");
    assert_eq!(talk.session.base(2), 40_000);
    assert_eq!(talk.kick(2), "start 2 size 128 base 40000 desc 0x120000 fd -> Ack");
}

#[test]
fn r14_ring_disabled_alone_leaves_its_siblings() {
    let mut talk = Talk::running(2);
    assert_eq!(talk.enable(2, false), "disable 2 -> Ack");
    assert_eq!(talk.enable(2, true), "enable 2 -> Ack");
    assert_eq!(talk.enable(2, true), "enable 2 -> Ack", "said again, performed again");
}

#[test]
fn reset_owner_disables_the_enabled_rings_only() {
    let mut talk = Talk::running(2);
    talk.enable(0, true);
    talk.enable(2, true);
    assert_eq!(talk.say(4, &[], 0), "disable 0, disable 2 -> Ack");
    assert_eq!(talk.say(4, &[], 0), "-> Ack");
}

#[test]
fn r14_reset_device_stops_then_disables_then_resets_and_keeps_the_connection() {
    let mut talk = Talk::running(2);
    talk.num(1, 128);
    talk.addr(1, &addresses(1));
    talk.kick(1);
    talk.enable(0, true);
    talk.enable(2, true);
    talk.set_status(0x0f);
    assert_eq!(talk.say(34, &[], 0), "stop 1, stop 2, disable 0, disable 2, reset -> Ack");
    assert_eq!(talk.session.status(), 0);
    assert_eq!(talk.session.features(), Some(VERSION_1 | BIT_30));
    assert_eq!(talk.session.regions.len(), 1);
    assert_eq!(talk.kick(2), "-> Ack", "the old size and addresses are gone");
    assert_eq!(talk.session.base(2), 0);
}

#[test]
fn r15_status_zero_resets_and_asks_for_features_again() {
    let mut talk = Talk::running(2);
    assert_eq!(talk.set_status(0), "stop 2, reset -> Ack");
    assert_eq!(talk.session.features(), None);
    talk.num(2, 128);
    talk.addr(2, &addresses(2));
    assert_eq!(talk.kick(2), "-> Ack");
    assert_eq!(
        talk.set_features(VERSION_1 | BIT_30),
        "features 0x140000000, start 2 size 128 base 0 desc 0x120000 fd -> Ack"
    );
}

#[test]
fn status_features_ok_without_features_is_not_granted() {
    let mut talk = Talk::new();
    talk.set_status(0x0b);
    assert_eq!(talk.session.status(), 0x03);
    talk.set_features(VERSION_1);
    talk.set_status(0x0b);
    assert_eq!(talk.session.status(), 0x0b);
    talk.set_features(1 << 63);
    assert_eq!(talk.session.status(), 0x03, "refused features take it back");
}

#[test]
fn r19_needs_reset_written_back_by_a_front_end_does_not_stick() {
    let mut talk = Talk::negotiated();
    talk.set_status(0x4f);
    assert_eq!(talk.session.status(), 0x0f);
}

#[test]
fn features_said_again_while_rings_run_change_nothing() {
    let mut talk = Talk::running(2);
    assert_eq!(talk.set_features(VERSION_1 | BIT_30), "-> Ack");
    assert_eq!(talk.set_features(VERSION_1 | BIT_30 | CHANGE), "-> Ack", "the tolerated bit does not count");
}

#[test]
fn memory_regions_come_and_go_one_by_one() {
    let mut talk = Talk::negotiated();
    let odd = RegionConfig { mmap_offset: 0x2000, ..region(8 * MIB, MIB) };
    assert_eq!(talk.add_region(&odd), "add 0x800000 -> Ack");
    let without_offset = region(8 * MIB, MIB);
    assert_eq!(talk.remove_region(&without_offset), "remove 0x800000+0x2000 -> Ack", "the offset is ignored");
    assert_eq!(talk.set_mem_table(&[region(2 * MIB, MIB)]), "table [0x200000] -> Ack");
    assert_eq!(talk.set_mem_table(&[]), "table [] -> Ack");
    assert_eq!(talk.add_region(&region(2 * MIB, MIB)), "add 0x200000 -> Ack");
}

#[test]
fn memory_regions_that_touch_do_not_overlap() {
    let mut talk = Talk::new();
    let touching = [region(MIB, MIB), region(2 * MIB, MIB), region(0, MIB)];
    assert_eq!(talk.set_mem_table(&touching), "table [0x100000 0x200000 0x0] -> None");
}

#[test]
fn memory_seen_twice_by_the_guest_is_accepted() {
    let mut talk = Talk::new();
    let alias = RegionConfig { guest_addr: 16 * MIB, ..region(MIB, MIB) };
    assert_eq!(talk.set_mem_table(&[region(MIB, MIB), alias]), "table [0x100000 0x1000000] -> None");
}

#[test]
fn failed_table_leaves_the_old_one_and_the_ring_waiting_with_its_kick() {
    let mut talk = Talk::new();
    talk.set_features(VERSION_1 | BIT_30);
    talk.num(0, 128);
    talk.addr(0, &addresses(0));
    talk.kick(0);
    let body = message_table(&[region(MIB, MIB)]);
    let mut effects = talk.outcome(5, &body, 1).effects;
    let start = effects.pop().unwrap();
    assert!(matches!(effects[..], [Effect::SetMemTable(_)]));
    talk.session.take_back(vec![start]);
    assert!(talk.session.regions.is_empty());
    assert_eq!(
        talk.set_mem_table(&[region(MIB, MIB)]),
        "table [0x100000], start 0 size 128 base 0 desc 0x100000 fd -> None"
    );
}

#[test]
fn failed_features_leave_the_old_ones() {
    let mut talk = Talk::negotiated();
    talk.set_features(VERSION_1 | BIT_30 | HOTPLUG);
    talk.session.take_back(Vec::new());
    assert_eq!(talk.session.features(), Some(VERSION_1 | BIT_30));
}

#[test]
fn failed_region_changes_leave_the_old_table() {
    let mut talk = Talk::negotiated();
    talk.add_region(&region(8 * MIB, MIB));
    talk.session.take_back(Vec::new());
    assert_eq!(talk.session.regions, [region(MIB, MIB)]);
    talk.remove_region(&region(MIB, MIB));
    talk.session.take_back(Vec::new());
    assert_eq!(talk.session.regions, [region(MIB, MIB)]);
}

fn message_table(regions: &[RegionConfig]) -> Vec<u8> {
    crate::message::mem_table_body(regions.iter())
}

#[test]
fn config_messages_name_their_range() {
    let mut talk = Talk::negotiated();
    let read = crate::message::config_body(0, 0, &[0; 36]);
    assert_eq!(talk.say(24, &read, 0), "-> Config { offset: 0, size: 36, flags: 0 }");
    let write = crate::message::config_body(20, 0, &[96, 0, 0, 0]);
    assert_eq!(talk.say(25, &write, 0), "config 20 false [96, 0, 0, 0] -> Ack");
}

#[test]
fn net_messages_are_effects_where_they_are_offered() {
    let net = DeviceInfo { protocol_features: protocol::RARP | protocol::MTU | protocol::BACKEND_REQ, ..device() };
    let mut talk = Talk::with(net);
    assert_eq!(talk.say(19, &[1, 2, 3, 4, 5, 6, 0, 0], 0), "rarp [1, 2, 3, 4, 5, 6] -> None");
    assert_eq!(talk.say(20, &1500u64.to_le_bytes(), 0), "mtu 1500 -> None");
    assert_eq!(talk.say(21, &[], 1), "backend request fd -> None");
}

#[test]
fn features_without_protocol_features_offered_lack_bit_30() {
    let mut talk = Talk::with(DeviceInfo { protocol_features: 0, ..device() });
    assert_eq!(talk.say(1, &[], 0), "-> U64(4294967298)", "0x1_0000_0002");
    assert_eq!(talk.set_protocol_features(0), "-> None");
}

#[test]
fn most_queues_have_their_last_index() {
    let mut talk = Talk::with(DeviceInfo { queues: 256, ..device() });
    assert_eq!(talk.call(255), "call 255 fd -> None");
    assert_eq!(talk.num(255, 1024), "-> None");
    assert_eq!(talk.say(17, &[], 0), "-> U64(256)");
}
