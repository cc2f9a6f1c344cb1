//! Messages that no honest front-end sends, on the live socket of a target whose neighbour is under load: each is refused
//! or ends the connection, as its kind says, and nobody else notices. What hostile rings do is in `live_faults.rs`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use guest_memory::Pages;
use rustix::net::Shutdown;
use tests::live::client::{Client, FIRST, NEEDS_RESET, Plan, good, message, read, test_unit_ready, write};
use tests::live::load::Load;
use tests::live::memory::Region;
use tests::live::queue::event;
use tests::live::rig::{Rig, Setup};
use tests::live::{PATIENCE, until};
use vhost_user::frontend::{Frontend, FrontendError};
use vhost_user::message::{
    Header, RequestCode, VringAddresses, mem_table_body, region_body, vring_addr_body, vring_state_body,
};

/// A target with a disk, the neighbour at work.
fn target() -> (Rig, Load) {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let load = rig.load();
    (rig, load)
}

/// A front-end with a ring at work.
fn served(rig: &Rig, plan: &Plan) -> Client {
    let mut client = Client::connect(&rig.socket("dut"), plan);
    client.ready(*plan.rings.last().unwrap(), 0);
    client
}

fn connected(rig: &Rig) -> Frontend {
    let frontend = Frontend::connect(rig.socket("dut")).unwrap();
    frontend.set_reply_timeout(Some(PATIENCE)).unwrap();
    frontend
}

fn refused(rig: &Rig) -> u64 {
    rig.service().stats().refused_messages.load(Ordering::Relaxed)
}

/// Every message that is served, and the size of its body; the shortest for those that vary.
const SIZES: [(RequestCode, usize); 24] = [
    (RequestCode::GET_FEATURES, 0),
    (RequestCode::SET_FEATURES, 8),
    (RequestCode::SET_OWNER, 0),
    (RequestCode::RESET_OWNER, 0),
    (RequestCode::SET_MEM_TABLE, 8),
    (RequestCode::SET_VRING_NUM, 8),
    (RequestCode::SET_VRING_ADDR, 40),
    (RequestCode::SET_VRING_BASE, 8),
    (RequestCode::GET_VRING_BASE, 8),
    (RequestCode::SET_VRING_KICK, 8),
    (RequestCode::SET_VRING_CALL, 8),
    (RequestCode::SET_VRING_ERR, 8),
    (RequestCode::GET_PROTOCOL_FEATURES, 0),
    (RequestCode::SET_PROTOCOL_FEATURES, 8),
    (RequestCode::GET_QUEUE_NUM, 0),
    (RequestCode::SET_VRING_ENABLE, 8),
    (RequestCode::GET_CONFIG, 13),
    (RequestCode::SET_CONFIG, 13),
    (RequestCode::RESET_DEVICE, 0),
    (RequestCode::GET_MAX_MEM_SLOTS, 0),
    (RequestCode::ADD_MEM_REG, 40),
    (RequestCode::REM_MEM_REG, 40),
    (RequestCode::SET_STATUS, 8),
    (RequestCode::GET_STATUS, 0),
];

#[test]
fn body_of_the_wrong_size_is_refused_and_the_connection_goes_on() {
    let (rig, load) = target();
    let mut client = served(&rig, &Plan::default());
    for (code, size) in SIZES {
        for wrong in [0, size.saturating_sub(1), size + 1, 4096].into_iter().filter(|wrong| *wrong != size) {
            let before = refused(&rig);
            client.send_message(code, &vec![0; wrong], &[]);
            let reply = client.frontend.recv_reply().unwrap();
            assert_eq!((reply.header.code, reply.header.reply), (code, true));
            client.in_step();
            assert_eq!(refused(&rig), before + 1, "{code} of {wrong} bytes");
        }
        good(client.run(FIRST, test_unit_ready(0)));
    }
    rig.undisturbed(load);
}

#[test]
fn messages_in_single_bytes_are_served() {
    let (rig, load) = target();
    for fds_with_last_byte in [false, true] {
        let mut client = Client::negotiated(connected(&rig), &Plan::default());
        let table: Vec<_> = client.regions.iter().map(|region| *region.config()).collect();
        let memory: Vec<OwnedFd> =
            client.regions.iter().map(|region| region.memory().fd().try_clone_to_owned().unwrap()).collect();
        let queue = client.queue(FIRST);
        let size = u32::from(queue.size());
        let addresses = vring_addr_body(u32::from(FIRST), &queue.addresses());
        let own = |fd: BorrowedFd<'_>| vec![fd.try_clone_to_owned().unwrap()];
        let (call, kick) = (own(queue.call_fd()), own(queue.kick_fd()));
        let ring = u64::from(FIRST).to_le_bytes();
        let state = |value| vring_state_body(u32::from(FIRST), value);
        let messages: [(RequestCode, &[u8], Vec<OwnedFd>); 7] = [
            (RequestCode::SET_MEM_TABLE, &mem_table_body(table.iter()), memory),
            (RequestCode::SET_VRING_NUM, &state(size), vec![]),
            (RequestCode::SET_VRING_BASE, &state(0), vec![]),
            (RequestCode::SET_VRING_ADDR, &addresses, vec![]),
            (RequestCode::SET_VRING_CALL, &ring, call),
            (RequestCode::SET_VRING_KICK, &ring, kick),
            (RequestCode::SET_VRING_ENABLE, &state(1), vec![]),
        ];
        for (code, body, fds) in messages {
            let bytes = message(code, body);
            let with = if fds_with_last_byte { bytes.len() - 1 } else { 0 };
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            for (at, byte) in bytes.iter().enumerate() {
                let fds = if at == with { &fds[..] } else { &[] };
                client.frontend.send_raw(&[*byte], fds).unwrap();
            }
            assert_eq!(client.acknowledgement(code), 0, "{code}");
        }
        client.ready(FIRST, 0);
        good(client.run(FIRST, write(0, 9, &[3; 512])));
        assert_eq!(good(client.run(FIRST, read(0, 9, 1))), [3; 512]);
        drop(client);
        until("the connection has ended", || rig.service().stats().live() == 0);
    }
    rig.undisturbed(load);
}

#[test]
fn missing_and_surplus_descriptors_are_refused_and_closed() {
    let (rig, load) = target();
    let mut client = served(&rig, &Plan::default());
    let extra = Region::create(5, 4096, Pages::Small).unwrap();
    let fd = extra.memory().fd();
    let table = mem_table_body([*extra.config()].iter());
    let region = region_body(extra.config());
    let ring = 3u64.to_le_bytes();
    let no_descriptor = (3u64 | 0x100).to_le_bytes();
    let state = vring_state_body(3, 64);
    let cases: [(RequestCode, &[u8], &[usize]); 9] = [
        (RequestCode::SET_MEM_TABLE, &table, &[0, 2, 8, 9, 64, 253]),
        (RequestCode::ADD_MEM_REG, &region, &[0, 2, 9]),
        (RequestCode::REM_MEM_REG, &region, &[2]),
        (RequestCode::SET_VRING_KICK, &ring, &[0, 2, 9, 253]),
        (RequestCode::SET_VRING_CALL, &ring, &[0, 2, 9, 253]),
        (RequestCode::SET_VRING_ERR, &ring, &[0, 2, 9, 253]),
        (RequestCode::SET_VRING_CALL, &no_descriptor, &[1, 2]),
        (RequestCode::SET_VRING_NUM, &state, &[1, 253]),
        (RequestCode::SET_OWNER, &[], &[1, 253]),
    ];
    for (code, body, counts) in cases {
        for count in counts {
            let before = refused(&rig);
            assert_eq!(client.acknowledged(code, body, &vec![fd; *count]), 1, "{code} with {count} descriptors");
            assert_eq!(refused(&rig), before + 1);
            assert_eq!(extra.descriptors(), 1, "{code} with {count} descriptors: all closed");
        }
        good(client.run(FIRST, test_unit_ready(0)));
    }
    assert_eq!(extra.mappings(), 1, "never mapped");
    rig.undisturbed(load);
}

#[test]
fn r16_ring_size_that_cannot_be_is_refused_and_other_queues_are_unharmed() {
    let (rig, load) = target();
    let mut client = served(&rig, &Plan::default());
    for size in [0, 3, 255, 257, 512, 65_536, 65_536 + 64, u32::MAX] {
        assert_eq!(client.acknowledged(RequestCode::SET_VRING_NUM, &vring_state_body(3, size), &[]), 1, "size {size}");
        good(client.run(FIRST, test_unit_ready(0)));
    }
    for size in [1, 2, 64, 256] {
        assert_eq!(client.acknowledged(RequestCode::SET_VRING_NUM, &vring_state_body(3, size), &[]), 0, "size {size}");
    }
    // On a ring that runs, no size at all is taken.
    let same = vring_state_body(u32::from(FIRST), 64);
    assert_eq!(client.acknowledged(RequestCode::SET_VRING_NUM, &same, &[]), 1);
    good(client.run(FIRST, test_unit_ready(0)));
    assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, 0);
    rig.undisturbed(load);
}

#[test]
fn ring_index_out_of_range_is_refused() {
    let (rig, load) = target();
    let mut client = served(&rig, &Plan::default());
    let fd = event();
    for ring in [6, 7, 255, 256, 65_535, 65_536, 65_536 + 2, u32::MAX] {
        for code in [RequestCode::SET_VRING_NUM, RequestCode::SET_VRING_BASE, RequestCode::SET_VRING_ENABLE] {
            assert_eq!(client.acknowledged(code, &vring_state_body(ring, 1), &[]), 1, "{code} {ring}");
        }
        let addresses = vring_addr_body(ring, &VringAddresses::default());
        assert_eq!(client.acknowledged(RequestCode::SET_VRING_ADDR, &addresses, &[]), 1, "SET_VRING_ADDR {ring}");
        assert_eq!(client.frontend.vring_base(ring).unwrap(), 0, "an answer there has to be");
        if ring < 256 {
            for code in [RequestCode::SET_VRING_KICK, RequestCode::SET_VRING_CALL, RequestCode::SET_VRING_ERR] {
                let body = u64::from(ring).to_le_bytes();
                assert_eq!(client.acknowledged(code, &body, &[fd.as_fd()]), 1, "{code} {ring}");
            }
        }
        good(client.run(FIRST, test_unit_ready(0)));
    }
    rig.undisturbed(load);
}

#[test]
fn r16_ring_that_does_not_map_does_not_start_until_it_is_set_up_again() {
    let (rig, load) = target();
    let mut client = served(&rig, &Plan { rings: vec![0, FIRST + 1, FIRST], ..Plan::default() });
    client.stop(FIRST + 1);
    let mut faults = 0.0;
    for part in ["desc", "avail", "used"] {
        for somewhere in [0, 0x1000, u64::MAX - 8, client.regions[0].config().user_addr - 16] {
            let queue = client.queue(FIRST + 1);
            queue.reset();
            queue.put(test_unit_ready(0));
            let mut addresses = queue.addresses();
            let address = match part {
                "desc" => &mut addresses.desc_user,
                "avail" => &mut addresses.avail_user,
                _ => &mut addresses.used_user,
            };
            *address = somewhere;
            let kick = queue.kick_fd().try_clone_to_owned().unwrap();
            queue.publish();
            client.frontend.set_vring_addr(u32::from(FIRST + 1), &addresses).unwrap();
            client.frontend.set_vring_kick(FIRST as u8 + 1, Some(kick.as_fd())).unwrap();
            client.queue(FIRST + 1).wait_err();
            assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, NEEDS_RESET, "{part} at {somewhere:#x}");
            faults += 1.0;
            let metrics = rig.metrics();
            let labels = [("controller", "dut"), ("queue", "3"), ("reason", "ring_unmapped")];
            assert_eq!(metrics.sum("ringside_virtqueue_faults_total", &labels), faults);
            assert_eq!(metrics.sum("ringside_virtqueue_broken", &labels[..2]), 1.0);
            assert_eq!(rig.wait_report().ring, 3);
            good(client.run(FIRST, test_unit_ready(0)));
            assert!(client.queue(FIRST + 1).take().is_none(), "it does not run");

            client.stop(FIRST + 1);
            assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, 0, "stopped, it is whole");
        }
    }
    client.start(FIRST + 1);
    good(client.run(FIRST + 1, test_unit_ready(0)));
    rig.undisturbed(load);
}

#[test]
fn r16_ring_that_did_not_map_starts_when_the_memory_comes() {
    let (rig, load) = target();
    let mut client = Client::negotiated(connected(&rig), &Plan { own_data_region: true, ..Plan::default() });
    // Only the data region yet: the ring is nowhere.
    let data = (*client.regions[1].config(), client.regions[1].memory().fd().try_clone_to_owned().unwrap());
    client.frontend.set_mem_table(&[(data.0, data.1.as_fd())]).unwrap();
    client.start(FIRST);
    client.queue(FIRST).wait_err();
    client.send_table();
    client.ready(FIRST, 0);
    assert_eq!(client.frontend.status().unwrap() & NEEDS_RESET, 0);
    rig.undisturbed(load);
}

#[test]
fn r16_ring_at_address_zero_is_served() {
    let (rig, load) = target();
    let mut client = served(&rig, &Plan { at_zero: true, rings: vec![FIRST], ..Plan::default() });
    assert_eq!(client.queue(FIRST).addresses().desc_user, 0);
    good(client.run(FIRST, write(0, 1, &[9; 512])));
    assert_eq!(good(client.run(FIRST, read(0, 1, 1))), [9; 512]);
    rig.undisturbed(load);
}

#[test]
fn enable_before_features_and_rings_before_memory_are_served() {
    let (rig, load) = target();
    let mut frontend = connected(&rig);
    frontend.set_vring_enable(u32::from(FIRST), true).unwrap();
    let mut client = Client::negotiated(frontend, &Plan { rings: vec![FIRST], ..Plan::default() });
    client.start(FIRST);
    client.send_table();
    client.ready(FIRST, 0);
    rig.undisturbed(load);
}

#[test]
fn get_vring_base_as_the_first_message_answers_0() {
    let (rig, load) = target();
    let mut frontend = connected(&rig);
    for ring in 0..6 {
        assert_eq!(frontend.vring_base(ring).unwrap(), 0);
    }
    let mut client = Client::attach(frontend, &Plan::default());
    client.ready(FIRST, 0);
    assert_eq!(client.stop(FIRST), 2, "two commands were fetched");
    rig.undisturbed(load);
}

#[test]
fn unknown_request_is_refused_and_the_connection_goes_on() {
    let (rig, load) = target();
    let mut client = served(&rig, &Plan::default());
    for code in [0, 6, 7, 22, 26, 33, 45, 99, 1 << 16, u32::MAX] {
        for body in [0, 8, 4096] {
            let before = refused(&rig);
            assert_ne!(client.acknowledged(RequestCode(code), &vec![0; body], &[]), 0, "request {code}");
            assert_eq!(refused(&rig), before + 1);
        }
        good(client.run(FIRST, test_unit_ready(0)));
    }
    rig.undisturbed(load);
}

#[test]
fn bytes_that_are_no_messages_end_the_connection_and_the_next_is_served() {
    let (rig, load) = target();
    let header =
        |code: u32, flags: u32, size: u32| [code.to_le_bytes(), flags.to_le_bytes(), size.to_le_bytes()].concat();
    let broken: [(&str, Vec<u8>); 9] = [
        ("a body of 4097 bytes", header(5, 1, 4097)),
        ("a body of 4 GiB", header(5, 1, u32::MAX)),
        ("version 0", header(1, 0, 0)),
        ("version 2", header(1, 2, 0)),
        ("version 3", header(1, 3, 0)),
        ("a reply", header(1, 5, 0)),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("ones", vec![0xff; 64]),
        ("zeroes", vec![0; 64]),
    ];
    for (what, bytes) in broken {
        let mut client = served(&rig, &Plan::default());
        client.send_message(RequestCode::SET_OWNER, &[], &[]);
        assert_eq!(client.acknowledgement(RequestCode::SET_OWNER), 0);
        client.frontend.send_raw(&bytes, &[]).unwrap();
        let end = client.frontend.recv_reply();
        assert!(matches!(end, Err(FrontendError::Closed { .. })), "{what}: {end:?}");
    }
    rig.undisturbed(load);
}

#[test]
fn stream_that_ends_inside_of_a_message_ends_the_connection_and_the_next_is_served() {
    let (rig, load) = target();
    let bytes = message(RequestCode::SET_VRING_NUM, &vring_state_body(3, 64));
    for cut in 1..bytes.len() {
        let mut client = served(&rig, &Plan::default());
        client.frontend.send_raw(&bytes[..cut], &[]).unwrap();
        rustix::net::shutdown(&client.frontend, Shutdown::Write).unwrap();
        let end = client.frontend.recv_reply();
        assert!(matches!(end, Err(FrontendError::Closed { .. })), "cut at {cut}: {end:?}");
    }
    rig.undisturbed(load);
}

/// Xorshift: the same messages in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A body that gets past the first check often enough: usual sizes, small numbers.
    fn body(&mut self) -> Vec<u8> {
        let size = [0, 8, 8, 8, 40, 40, 13, self.below(300)][self.below(8) as usize];
        (0..size).map(|_| if self.below(4) == 0 { self.next() as u8 } else { 0 }).collect()
    }
}

#[test]
fn ten_thousand_random_messages_each_end_in_a_reply_or_a_close() {
    let (rig, load) = target();
    let mut random = Random(0x1234_5678_9abc_def1);
    let memory = Region::create(3, 1 << 16, Pages::Small).unwrap();
    let eventfd = event();
    let (mut sent, mut closed) = (0, 0);
    while sent < 10_000 {
        let mut client = Client::negotiated(connected(&rig), &Plan::default());
        while sent < 10_000 {
            sent += 1;
            let (code, body) = (RequestCode(random.below(48) as u32), random.body());
            if random.below(100) == 0 {
                // Not even a header; whatever it announces does not come.
                let garbage: Vec<u8> = (0..1 + random.below(40)).map(|_| random.next() as u8).collect();
                let _ = client.frontend.send_raw(&garbage, &[]);
                let _ = rustix::net::shutdown(&client.frontend, Shutdown::Write);
                while client.frontend.recv_reply().is_ok() {}
                closed += 1;
                break;
            }
            let fds: Vec<BorrowedFd<'_>> = (0..random.below(3))
                .map(|_| if random.below(2) == 0 { memory.memory().fd() } else { eventfd.as_fd() })
                .collect();
            client.send_message(code, &body, &fds);
            ended(&mut client, code);
        }
    }
    let stats = rig.service().stats();
    until("no connection is left", || stats.live() == 0);
    assert!(closed > 50, "{closed} were no messages");
    assert!(refused(&rig) > 5_000, "{} were refused", refused(&rig));
    assert_eq!((memory.descriptors(), memory.mappings()), (1, 1));
    let mut client = served(&rig, &Plan::default());
    good(client.run(FIRST, test_unit_ready(0)));
    rig.undisturbed(load);
}

/// Reads what a message was answered with, at most one reply: the question behind it gets the last.
fn ended(client: &mut Client, code: RequestCode) {
    let question = RequestCode::GET_QUEUE_NUM;
    let header = Header { code: question, reply: false, need_reply: false, size: 0 };
    client.frontend.send_raw(&header.encode(), &[]).unwrap();
    let first = client.frontend.recv_reply().unwrap();
    if code != question && first.header.code == question {
        return; // it took REPLY_ACK back
    }
    assert_eq!(first.header.code, code);
    let last = client.frontend.recv_reply().unwrap();
    assert_eq!((last.header.code, last.body), (question, 6u64.to_le_bytes().to_vec()));
}
