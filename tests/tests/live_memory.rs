//! Guest memory that changes or goes away under a running device: R14, R15 and R17 on a live target. The reply is the
//! moment: before it everything has ended, after it nothing is touched.

use std::os::fd::AsFd;
use std::sync::Arc;

use bdev::{Delay, DelayConfig, Gate};
use guest_memory::Pages;
use tests::live::client::{
    Client, EVENT_IDX, FIRST, LOGICAL_UNIT_RESET, NEEDS_RESET, Plan, VERSION_1, good, read, test_unit_ready, write,
};
use tests::live::memory::Region;
use tests::live::rig::{Rig, Setup, malloc};
use tests::live::{PATIENCE, until};
use vhost_user::message::{F_PROTOCOL_FEATURES, RequestCode, mem_table_body, region_body, vring_state_body};
use virtqueue::SplitLayout;

const RING: u32 = FIRST as u32;

/// Rings in one region, buffers in another.
fn two_regions(rings: Vec<u16>) -> Plan {
    Plan { own_data_region: true, rings, ..Plan::default() }
}

#[test]
fn memory_table_sent_again_under_io_every_command_ends_well() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &two_regions(vec![FIRST]));
    client.ready(FIRST, 0);
    for round in 0..200u8 {
        let queue = client.queue(FIRST);
        let writes: Vec<usize> = (0..8).map(|lba| queue.put(write(0, lba, &[round ^ lba as u8; 512]))).collect();
        queue.publish();
        client.send_table();
        writes.into_iter().for_each(|token| drop(good(client.queue(FIRST).wait_for(token))));
        let queue = client.queue(FIRST);
        let reads: Vec<usize> = (0..8).map(|lba| queue.put(read(0, lba, 1))).collect();
        queue.publish();
        client.send_table();
        for (lba, token) in (0..).zip(reads) {
            assert_eq!(good(client.queue(FIRST).wait_for(token)), [round ^ lba; 512]);
        }
        assert_eq!(client.regions[1].mappings(), 2, "the table before is gone");
    }
    assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, 0);
    rig.undisturbed(load);
}

#[test]
fn memory_table_without_the_ring_halts_it_and_a_restart_recovers_it() {
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &two_regions(vec![FIRST]));
    client.ready(FIRST, 0);
    client.ready(FIRST, 1);
    let held = client.send(FIRST, read(1, 0, 1));
    assert!(gate.wait_for_held(1, PATIENCE));
    let used = client.queue(FIRST).raw().used_index();

    let data = mem_table_body([*client.regions[1].config()].iter());
    let fd = client.regions[1].memory().fd().try_clone_to_owned().unwrap();
    client.send_message(RequestCode::SET_MEM_TABLE, &data, &[fd.as_fd()]);
    client.queue(FIRST).wait_err();
    load.progress(100);
    assert!(!client.has_reply(), "a request still uses the old table");
    gate.open();
    assert_eq!(client.acknowledgement(RequestCode::SET_MEM_TABLE), 0);
    assert_eq!(client.queue(FIRST).raw().used_index(), used + 1, "and is answered in it");
    assert_eq!(client.regions[0].mappings(), 1, "then it is gone");
    good(client.queue(FIRST).wait_for(held));
    assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, NEEDS_RESET);
    let labels = [("controller", "dut"), ("queue", "2"), ("reason", "ring_unmapped")];
    assert_eq!(rig.metrics().sum("ringside_virtqueue_faults_total", &labels), 1.0);

    // The table with the ring does not bring it back by itself: what it missed is nobody's to know.
    client.send_table();
    let missed = client.send(FIRST, test_unit_ready(0));
    load.progress(100);
    assert!(client.queue(FIRST).take().is_none(), "request {missed} is not fetched");
    assert_eq!(client.stop(FIRST), u32::from(used) + 1);
    client.start(FIRST);
    good(client.run(FIRST, read(1, 0, 1)));
    assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, 0);
    rig.undisturbed(load);
}

/// What a front-end says when it takes rings or memory back, and what its reply promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    GetVringBase,
    Disable,
    ResetDevice,
    ResetByStatus,
    RemoveRegion,
    OtherTable,
}

impl End {
    const ALL: [End; 6] =
        [End::GetVringBase, End::Disable, End::ResetDevice, End::ResetByStatus, End::RemoveRegion, End::OtherTable];

    fn code(self) -> RequestCode {
        match self {
            End::GetVringBase => RequestCode::GET_VRING_BASE,
            End::Disable => RequestCode::SET_VRING_ENABLE,
            End::ResetDevice => RequestCode::RESET_DEVICE,
            End::ResetByStatus => RequestCode::SET_STATUS,
            End::RemoveRegion => RequestCode::REM_MEM_REG,
            End::OtherTable => RequestCode::SET_MEM_TABLE,
        }
    }

    /// Says it about the first request queue, or the region of its buffers.
    fn say(self, client: &mut Client) {
        let rings = *client.regions[0].config();
        let body = match self {
            End::GetVringBase | End::Disable => vring_state_body(RING, 0).to_vec(),
            End::ResetDevice => vec![],
            End::ResetByStatus => 0u64.to_le_bytes().to_vec(),
            End::RemoveRegion => region_body(client.regions[1].config()),
            End::OtherTable => mem_table_body([rings].iter()),
        };
        let fd = client.regions[0].memory().fd().try_clone_to_owned().unwrap();
        let fds = [fd.as_fd()];
        client.send_message(self.code(), &body, if self == End::OtherTable { &fds } else { &[] });
    }

    /// Reads the reply.
    fn reply(self, client: &mut Client) {
        let reply = client.frontend.recv_reply().unwrap();
        assert_eq!(reply.header.code, self.code());
        match self {
            End::GetVringBase => {
                let used = client.queue(FIRST).raw().used_index();
                assert_eq!(reply.body, vring_state_body(RING, u32::from(used)), "everything fetched is answered");
            }
            _ => assert_eq!(reply.body, [0; 8], "{self:?}"),
        }
    }

    /// The regions that are not to be touched after the reply.
    fn settles(self) -> &'static [usize] {
        match self {
            End::RemoveRegion | End::OtherTable => &[1],
            _ => &[0, 1],
        }
    }
}

/// Requests hang at the backend: no reply comes, however long everybody else goes on. They end: the reply comes, and they
/// are answered before it.
fn reply_waits(end: End) {
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &two_regions(vec![FIRST]));
    client.ready(FIRST, 1);
    let tokens: Vec<usize> = (0..4).map(|lba| client.send(FIRST, read(1, lba, 2))).collect();
    assert!(gate.wait_for_held(4, PATIENCE));
    let used = client.queue(FIRST).raw().used_index();

    end.say(&mut client);
    until("the wait is seen", || rig.service().stats().quiesce_wait_s() > 0.0);
    load.progress(200);
    assert!(!client.has_reply(), "{end:?}: four requests are at the backend");
    assert_eq!(client.queue(FIRST).raw().used_index(), used);
    assert_eq!(client.regions[1].mappings(), 2, "{end:?}: their memory is there");
    assert!(rig.metrics().sum("ringside_quiesce_wait_seconds", &[("controller", "dut")]) > 0.0);
    gate.release(3);
    until("three have ended", || client.queue(FIRST).raw().used_index() == used + 3);
    load.progress(50);
    assert!(!client.has_reply(), "{end:?}: one request is at the backend");

    gate.open();
    end.reply(&mut client);
    assert_eq!(client.queue(FIRST).raw().used_index(), used + 4, "{end:?}: answered before the reply");
    let mappings = if end.settles() == [1] { 1 } else { 2 };
    assert_eq!(client.regions[1].mappings(), mappings, "{end:?}: a region that went is unmapped");
    tokens.into_iter().for_each(|token| drop(good(client.queue(FIRST).wait_for(token))));
    assert_eq!(rig.service().stats().quiesce_wait_s(), 0.0);
    rig.undisturbed(load);
}

#[test]
fn r14_get_vring_base_replies_after_the_last_request() {
    reply_waits(End::GetVringBase);
}

#[test]
fn r14_disable_replies_after_the_last_request() {
    reply_waits(End::Disable);
}

#[test]
fn r14_reset_device_replies_after_the_last_request() {
    reply_waits(End::ResetDevice);
}

#[test]
fn r14_reset_by_status_replies_after_the_last_request() {
    reply_waits(End::ResetByStatus);
}

#[test]
fn r14_rem_mem_reg_replies_after_the_last_request() {
    reply_waits(End::RemoveRegion);
}

#[test]
fn r14_set_mem_table_replies_after_the_last_request_of_the_old_table() {
    reply_waits(End::OtherTable);
}

/// R14 and R15 under load, round after round: all of guest memory as it is when the reply arrives is all of guest memory
/// later on, and nobody was called. What the reply is not about goes on.
#[test]
fn r15_nothing_is_written_and_nobody_called_after_the_reply_in_1020_rounds() {
    const ROUNDS: usize = 1020;
    const SIBLING: u16 = FIRST + 1;
    let slow = Delay::new("slow", malloc("slow", 1 << 20), DelayConfig::timed(60, 200)).unwrap();
    let rig = Rig::start(Setup::new("dut").on(0, Arc::new(slow)));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &two_regions(vec![FIRST, SIBLING]));
    client.ready(FIRST, 0);
    let mut answered = 0;
    for round in 0..ROUNDS {
        let end = End::ALL[round % End::ALL.len()];
        let siblings: Vec<usize> = (0..4).map(|lba| client.queue(SIBLING).put(read(0, lba, 8))).collect();
        client.queue(SIBLING).publish();
        let queue = client.queue(FIRST);
        (0..12).for_each(|lba| _ = queue.put(read(0, lba, 8)));
        let before = queue.raw().used_index();
        queue.publish();
        // Not always the same moment: the first requests are fetched, or the first of them have ended.
        let begun = (round % 4) as u16;
        until("requests have ended", || queue.raw().used_index().wrapping_sub(before) >= begun);
        end.say(&mut client);
        end.reply(&mut client);
        if matches!(end, End::GetVringBase | End::Disable) {
            siblings.into_iter().for_each(|token| drop(good(client.queue(SIBLING).wait_for(token))));
            good(client.run(SIBLING, read(0, 3, 1)));
        }
        let calls = |client: &mut Client| [FIRST, SIBLING].map(|index| client.queue(index).drain_calls());
        calls(&mut client);
        // A sibling that runs is told whether to kick: in its own used ring, and nowhere else.
        let used = (client.queue(SIBLING).addresses().used_user - client.regions[0].config().user_addr) as usize;
        let runs = matches!(end, End::GetVringBase | End::Disable);
        let settled = |client: &Client| -> Vec<Vec<u8>> {
            let mut bytes: Vec<_> = end.settles().iter().map(|region| client.regions[*region].bytes()).collect();
            if runs {
                bytes[0][used..used + SplitLayout::used_len(64)].fill(0);
            }
            bytes
        };
        let before_the_wait = settled(&client);
        load.progress(16);
        assert!(settled(&client) == before_the_wait, "round {round}: {end:?} replied, then memory changed");
        if end.settles().len() == 2 {
            assert_eq!(calls(&mut client), [0, 0], "round {round}: {end:?} replied, then called");
        }
        answered += usize::from(client.queue(FIRST).raw().used_index().wrapping_sub(before));
        client.stop(FIRST);
        client.stop(SIBLING);
        if end == End::ResetByStatus {
            client.frontend.set_features(VERSION_1 | EVENT_IDX | F_PROTOCOL_FEATURES).unwrap();
        }
        client.send_table();
        client.start(FIRST);
        client.start(SIBLING);
        // A reset is a new session with a unit attention; nothing else is.
        client.run(FIRST, test_unit_ready(0));
        good(client.run(FIRST, test_unit_ready(0)));
    }
    assert!(answered > ROUNDS, "requests were under way: {answered} answered");
    rig.undisturbed(load);
}

#[test]
fn r14_sibling_rings_go_on_while_one_ring_stops() {
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate));
    let load = rig.load();
    let mut client = Client::connect(&rig.socket("dut"), &Plan::queues(2));
    client.ready(FIRST, 0);
    client.ready(FIRST, 1);
    for end in [End::GetVringBase, End::Disable] {
        gate.close();
        let held = client.send(FIRST, read(1, 0, 1));
        assert!(gate.wait_for_held(1, PATIENCE));
        end.say(&mut client);
        until("the stop waits", || rig.service().stats().quiesce_wait_s() > 0.0);
        for lba in 0..100 {
            good(client.run(FIRST + 1, write(0, lba, &[lba as u8; 512])));
        }
        // Nor does the waiting ring fetch any more.
        let late = client.send(FIRST, test_unit_ready(0));
        load.progress(50);
        assert_eq!(client.queue(FIRST).in_flight(), 2, "requests {held} and {late}");
        assert!(!client.has_reply());
        gate.open();
        end.reply(&mut client);
        good(client.queue(FIRST).wait_for(held));
        if end == End::GetVringBase {
            client.start(FIRST);
        } else {
            // R16: enabled again, it goes on where it was.
            client.frontend.set_vring_enable(RING, true).unwrap();
            good(client.queue(FIRST).wait_for(late));
        }
        good(client.run(FIRST, test_unit_ready(0)));
    }
    let tmf = client.send_tmf(LOGICAL_UNIT_RESET, 0, 0);
    assert_eq!(client.queue(0).wait_for(tmf).byte(), 0);
    rig.undisturbed(load);
}

/// What is taken away from under the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// Buffers, while requests are at the backend.
    Data,
    /// The ring, while nothing happens on it.
    Ring,
}

/// R17: the memfd is truncated. The device stops with an error, everybody else lives on.
fn truncated(lost: Lost, pages: Pages) {
    if let Err(error) = Region::create(9, 4 << 20, pages) {
        eprintln!("SKIPPED {lost:?} on {pages:?} pages: {error}");
        return;
    }
    let gate = Gate::closed();
    let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate));
    let load = rig.load();
    let plan = Plan { pages, own_data_region: true, ..Plan::queues(2) };
    let mut client = Client::connect(&rig.socket("dut"), &plan);
    client.ready(FIRST, 0);
    client.ready(FIRST, 1);
    match lost {
        Lost::Data => {
            client.send(FIRST, read(1, 0, 1));
            client.send(FIRST + 1, read(1, 1, 1));
            assert!(gate.wait_for_held(2, PATIENCE));
            client.regions[1].truncate();
            gate.open();
        }
        Lost::Ring => {
            client.regions[0].truncate();
            client.queue(FIRST).kick();
        }
    }
    for queue in [FIRST, FIRST + 1, 0] {
        client.queue(queue).wait_err();
    }
    assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, NEEDS_RESET);
    let labels = [("controller", "dut"), ("reason", "memory_lost")];
    assert_eq!(rig.metrics().sum("ringside_virtqueue_faults_total", &labels), 3.0, "{lost:?}: each ring once");
    load.progress(500);
    // The front-end is still listened to, and can let go.
    client.frontend.reset_device().unwrap();
    drop(client);

    gate.open();
    let mut next = Client::connect(&rig.socket("dut"), &Plan { pages, ..Plan::default() });
    next.ready(FIRST, 0);
    next.ready(FIRST, 1);
    good(next.run(FIRST, read(1, 0, 1)));
    rig.undisturbed(load);
}

#[test]
fn r17_buffers_truncated_under_requests_only_that_device_stops() {
    truncated(Lost::Data, Pages::Small);
}

#[test]
fn r17_ring_truncated_only_that_device_stops() {
    truncated(Lost::Ring, Pages::Small);
}

#[test]
fn r17_buffers_on_huge_pages_truncated_under_requests_only_that_device_stops() {
    truncated(Lost::Data, Pages::Huge);
}

#[test]
fn r17_ring_on_huge_pages_truncated_only_that_device_stops() {
    truncated(Lost::Ring, Pages::Huge);
}

#[test]
fn region_of_a_file_that_is_too_short_is_refused_and_the_old_table_stays() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let mut client = Client::connect(&rig.socket("dut"), &two_regions(vec![FIRST]));
    client.ready(FIRST, 0);
    let short = Region::create(6, 8192, Pages::Small).unwrap();
    let mut config = *short.config();
    config.size += 1;
    let fd = short.memory().fd();
    assert_eq!(client.acknowledged(RequestCode::ADD_MEM_REG, &region_body(&config), &[fd]), 1);
    assert_eq!(client.acknowledged(RequestCode::SET_MEM_TABLE, &mem_table_body([config].iter()), &[fd]), 1);
    good(client.run(FIRST, test_unit_ready(0)));
    assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, 0);
    assert_eq!(short.mappings(), 1);
}
