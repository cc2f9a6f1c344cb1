//! Ports over DPDK's virtual devices, which need neither hugepages nor privileges: what goes in comes out, and what does not
//! is counted.
#![cfg(feature = "libdpdk")]

mod rig;

use std::time::{Duration, Instant};

use port::{AttachError, BURST, Checksum, DropCause, FrameBatch, Offload, Offloads, Port, Segmentation};
use port_dpdk::{DpdkPort, DpdkPortConfig};
use reactor::{Armed, IdlePolicy, Reactor, ReactorConfig, Source, Tsc};
use rig::{Memory, attachment, checksum_is_right, config, eal, ip4, open, plug, raw, tcp, udp};

fn partial(start: u16, offset: u16) -> Offload {
    Offload { checksum: Checksum::Partial { start, offset }, segmentation: Segmentation::None }
}

#[test]
fn null_port_takes_every_frame_and_counts_frames_and_bytes() {
    let port = open("net_null0");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let frames: Vec<_> = (0..BURST).map(|number| raw(number, 60 + number)).collect();
    let batch = memory.batch(&frames);
    assert_eq!(plugged.send(&batch), BURST);
    let bytes = frames.iter().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(plugged.sent(), (BURST as u64, bytes));
    let far = port.extended_stats();
    assert!(far.contains(&("tx_good_packets".to_owned(), BURST as u64)), "{far:?}");
    assert_eq!((port.name(), port.link().up), ("up", true));
    assert_eq!(plugged.queue.arm(), Armed::MustPoll { deadline: None });
}

#[test]
fn null_port_gives_frames_within_limit_and_bound_until_they_are_done() {
    let port = open("net_null1");
    let mut plugged = plug(&port);
    let mut batch = FrameBatch::new(BURST, BURST);
    assert_eq!(plugged.queue.rx_burst(&mut batch, 5), 5);
    assert_eq!(batch.frame(0).len, 64);
    assert_eq!(plugged.queue.rx_burst(&mut batch, BURST), BURST);
    let mut out = 5 + BURST;
    while let more @ 1.. = plugged.queue.rx_burst(&mut batch, BURST) {
        out += more;
        assert!(out <= 64, "more frames are out than there is room for");
    }
    plugged.queue.rx_done(out);
    assert_eq!(plugged.queue.rx_burst(&mut batch, BURST), BURST);
    assert_eq!(plugged.stats.rx_frames.value(), (out + BURST) as u64);
    assert_eq!(plugged.stats.rx_bytes.value(), 64 * (out + BURST) as u64);
}

#[test]
fn ring_port_returns_frames_of_every_length_and_cut_byte_for_byte_in_order() {
    let port = open("net_ring0");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let mut batch = FrameBatch::new(BURST, 4 * BURST);
    let cuts: [&[usize]; 5] = [&[], &[14], &[1, 13], &[20, 0, 20], &[12, 2, 5, 7]];
    let frames: Vec<_> = [60, 64, 65, 127, 128, 129, 255, 256, 511, 1024, 1499, 1514, 1518]
        .into_iter()
        .enumerate()
        .map(|(number, len)| raw(number, len))
        .collect();
    for (number, frame) in frames.iter().enumerate() {
        memory.push(&mut batch, frame, cuts[number % cuts.len()], Offload::NONE);
    }
    assert_eq!(plugged.send(&batch), frames.len());
    assert_eq!(plugged.bytes(), frames);
    assert_eq!(plugged.stats.rx_frames.value(), frames.len() as u64);
}

#[test]
fn batch_of_long_frames_goes_in_runs_and_a_port_that_fills_up_takes_what_it_has_room_for() {
    let port = open("net_ring8");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    // More bytes than are copied at a time, and frames that need another way between them.
    let frames: Vec<_> = (0..BURST).map(|number| raw(number, 1518 - number)).collect();
    let mut batch = FrameBatch::new(BURST, 2 * BURST);
    for (number, frame) in frames.iter().enumerate() {
        let cut: &[usize] = if [11, 12, 30].contains(&number) { &[700] } else { &[] };
        memory.push(&mut batch, frame, cut, Offload::NONE);
    }
    assert_eq!(plugged.send(&batch), BURST);
    assert_eq!(plugged.bytes(), frames);
    // A ring of 1024 has room for 1023: the last batch stops in the middle of a run.
    let batch = memory.batch(&frames);
    for _ in 0..1023 / BURST {
        assert_eq!(plugged.send(&batch), BURST);
    }
    assert_eq!(plugged.send(&batch), 1023 % BURST);
    let bytes = |frames: &[Vec<u8>]| frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
    let rounds = (1 + 1023 / BURST) as u64;
    assert_eq!(plugged.sent(), (32 + 1023, rounds * bytes(&frames) + bytes(&frames[..1023 % BURST])));
    assert_eq!(plugged.bytes(), frames.iter().cycle().take(1023).cloned().collect::<Vec<_>>());
}

#[test]
fn jumbo_frames_are_carried_whole_up_to_the_mtu() {
    let port = DpdkPort::open(eal(), DpdkPortConfig { mtu: 9000, ..config("net_ring1") }).unwrap();
    assert_eq!(port.traits().mtu_max, 9000);
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let frames = [raw(1, 9018), raw(2, 5000), raw(3, 9019)];
    let mut batch = FrameBatch::new(BURST, BURST);
    frames.iter().for_each(|frame| memory.push(&mut batch, frame, &[100, 3000], Offload::NONE));
    assert_eq!(plugged.send(&batch), 3);
    assert_eq!(plugged.bytes(), frames[..2]);
    assert_eq!(plugged.drops(DropCause::Length), 1);
}

#[test]
fn checksum_left_open_is_completed_wherever_it_is() {
    let port = open("net_ring2");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let mut batch = FrameBatch::new(BURST, 4 * BURST);
    for len in [0, 1, 17, 1000, 1400] {
        let payload: Vec<u8> = (0..len).map(|at| (at * 5) as u8).collect();
        memory.push(&mut batch, &ip4(17, udp(&payload), 6), &[34, 3], partial(34, 6));
        memory.push(&mut batch, &ip4(6, tcp(&payload), 16), &[], partial(34, 16));
    }
    // Of a protocol that nobody knows, at an odd place.
    let strange = raw(1, 100);
    memory.push(&mut batch, &strange, &[], partial(21, 10));
    assert_eq!(plugged.send(&batch), 11);
    let frames = plugged.bytes();
    for frame in &frames[..10] {
        assert!(checksum_is_right(frame), "{frame:02x?}");
    }
    let expected = !rig::sum(&strange[21..]);
    assert_eq!(frames[10][31..33], expected.to_be_bytes());
    assert_eq!(frames[10][33..], strange[33..]);
}

#[test]
fn udp_checksum_that_sums_up_to_zero_is_sent_as_ones() {
    let port = open("net_ring3");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    // The payload's two bytes are what is missing to make the sum ffff.
    let mut frame = ip4(17, udp(&[0, 0]), 6);
    let missing = 0xffff - rig::sum(&frame[34..]);
    frame[42..44].copy_from_slice(&missing.to_be_bytes());
    let mut batch = FrameBatch::new(1, 1);
    memory.push(&mut batch, &frame, &[], partial(34, 6));
    assert_eq!(plugged.send(&batch), 1);
    assert_eq!(plugged.bytes()[0][40..42], [0xff, 0xff]);
}

#[test]
fn tcp_longer_than_the_link_is_cut_into_segments_with_right_checksums() {
    let port = open("net_ring4");
    assert!(port.traits().tx_offloads.contains(Offloads::TCP4 | Offloads::CHECKSUM));
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let payload: Vec<u8> = (0..60_000u32).map(|at| (at * 3) as u8).collect();
    let mut batch = FrameBatch::new(BURST, 4 * BURST);
    let offload = Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        segmentation: Segmentation::Tcp4 { size: 536, ecn: false },
    };
    memory.push(&mut batch, &raw(1, 60), &[], Offload::NONE);
    memory.push(&mut batch, &ip4(6, tcp(&payload), 16), &[54, 30_000], offload);
    memory.push(&mut batch, &raw(2, 60), &[], Offload::NONE);
    assert_eq!(plugged.send(&batch), 3);
    let frames = plugged.bytes();
    assert_eq!(frames.len(), 2 + 60_000usize.div_ceil(536));
    assert_eq!((&frames[0], &frames[frames.len() - 1]), (&raw(1, 60), &raw(2, 60)));
    let segments = &frames[1..frames.len() - 1];
    assert!(segments.iter().all(|segment| checksum_is_right(segment) && segment.len() <= 54 + 536));
    assert_eq!(segments.iter().flat_map(|segment| segment[54..].to_vec()).collect::<Vec<_>>(), payload);
    assert_eq!(plugged.sent().0, frames.len() as u64);
}

#[test]
fn frames_that_cannot_go_are_counted_by_cause_and_their_neighbours_go() {
    let port = open("net_ring5");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let mut batch = FrameBatch::new(BURST, 4 * BURST);
    let segmentation = Segmentation::Tcp4 { size: 500, ecn: false };
    let cut = |start, offset| Offload { segmentation, ..partial(start, offset) };
    let tcp_frame = ip4(6, tcp(&[7; 2000]), 16);
    memory.push(&mut batch, &raw(0, 60), &[], Offload::NONE);
    memory.push(&mut batch, &raw(9, 13), &[], Offload::NONE); // shorter than Ethernet
    memory.push(&mut batch, &raw(9, 1519), &[], Offload::NONE); // longer than the link
    memory.push(&mut batch, &raw(9, 1519), &[700], partial(34, 6));
    memory.push(&mut batch, &[], &[], Offload::NONE);
    memory.push(&mut batch, &raw(1, 61), &[], Offload::NONE);
    memory.push(&mut batch, &raw(9, 100), &[], partial(98, 1)); // beyond the end
    memory.push(&mut batch, &raw(9, 100), &[], partial(u16::MAX, u16::MAX));
    memory.push(&mut batch, &raw(9, 1000), &[], cut(34, 16)); // no TCP
    memory.push(&mut batch, &tcp_frame, &[], cut(34, 6)); // not where TCP has it
    memory.push(
        &mut batch,
        &tcp_frame,
        &[],
        Offload { segmentation: Segmentation::Tcp4 { size: 0, ecn: false }, ..partial(34, 16) },
    );
    memory.push(
        &mut batch,
        &tcp_frame,
        &[],
        Offload { segmentation: Segmentation::Tcp4 { size: 1900, ecn: false }, ..partial(34, 16) },
    ); // pieces longer than the link
    memory.push(&mut batch, &raw(2, 62), &[], Offload::NONE);
    assert_eq!(plugged.send(&batch), 13);
    assert_eq!(plugged.bytes(), [raw(0, 60), raw(1, 61), raw(2, 62)]);
    assert_eq!(plugged.drops(DropCause::Length), 5);
    assert_eq!(plugged.drops(DropCause::Offload), 5);
    assert_eq!(plugged.sent(), (3, 60 + 61 + 62));
}

#[test]
fn port_without_room_takes_the_first_frames_only_and_loses_none_of_those() {
    let port = open("net_ring6");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let mut sent = Vec::new();
    let mut taken = BURST;
    while taken == BURST {
        let frames: Vec<_> = (0..BURST).map(|number| raw(sent.len() + number, 100)).collect();
        memory = Memory::new();
        taken = plugged.send(&memory.batch(&frames));
        sent.extend_from_slice(&frames[..taken]);
    }
    assert_eq!(plugged.sent().0, sent.len() as u64);
    // Again with frames of two slices, which go another way; and a bad one behind them, which has not been looked at.
    let mut batch = FrameBatch::new(BURST, BURST);
    memory.push(&mut batch, &raw(0, 100), &[50], Offload::NONE);
    memory.push(&mut batch, &raw(0, 10), &[5], Offload::NONE);
    assert_eq!(plugged.send(&batch), 0);
    assert_eq!(DropCause::ALL.map(|cause| plugged.drops(cause)), [0; 5]);
    assert_eq!(plugged.bytes(), sent);
    assert_eq!(plugged.send(&batch), 2);
    assert_eq!(plugged.drops(DropCause::Length), 1);
}

#[test]
fn frame_cut_in_pieces_of_which_the_port_takes_some_is_taken_and_counted_as_lost() {
    let port = open("net_ring7");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let offload = Offload { segmentation: Segmentation::Tcp4 { size: 250, ecn: false }, ..partial(34, 16) };
    let mut batch = FrameBatch::new(BURST, BURST);
    for _ in 0..6 {
        memory.push(&mut batch, &ip4(6, tcp(&[1; 60_000]), 16), &[], offload);
    }
    // 240 pieces each, and room for 1023.
    let room = 1023;
    assert_eq!(plugged.send(&batch), 5);
    assert_eq!(plugged.sent().0, room);
    assert_eq!(plugged.drops(DropCause::Full), 1);
    assert_eq!(plugged.bytes().len() as u64, room);
}

#[test]
fn queues_handed_back_are_attached_again_without_restart_and_others_with() {
    let port = open("net_ring8");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let error = port.attach(&attachment(1, &[])).err().unwrap();
    assert_eq!(error.to_string(), "port up takes 1 device(s), and vm0 has it");
    plugged.send(&memory.batch(&[raw(1, 60)]));
    drop(plugged);
    // A restart would have lost what is in the ring.
    let mut plugged = plug(&port);
    assert_eq!(plugged.bytes(), [raw(1, 60)]);
    drop(plugged);
    let null = open("net_null2");
    for queues in [2, 1, 4, 4] {
        let queues_out = null.attach(&attachment(queues, &[])).unwrap();
        assert_eq!(queues_out.len(), queues);
    }
}

#[test]
fn device_with_too_many_queues_or_too_long_frames_is_refused_with_the_bound() {
    let port = open("net_null3");
    let text = |error: Option<AttachError>| error.unwrap().to_string();
    assert_eq!(text(port.attach(&attachment(5, &[])).err()), "port up: 5 queue pairs, must be at most 4");
    let long = port::Attachment { mtu: 1501, ..attachment(1, &[]) };
    assert_eq!(text(port.attach(&long).err()), "port up: MTU 1501, must be at most 1500");
    assert_eq!(plug(&port).send(&Memory::new().batch(&[raw(0, 60)])), 1);
}

#[test]
fn port_that_cannot_be_opened_names_port_device_and_reason() {
    let error = DpdkPort::open(eal(), config("net_no_such0")).err().unwrap().to_string();
    assert!(error.starts_with("port up: device 'net_no_such0': "), "{error}");
    let error = DpdkPort::open(eal(), DpdkPortConfig { mtu: 10, ..config("net_null9") }).err().unwrap();
    assert_eq!(error.to_string(), "port up: mtu 10, must be 68 to 9600");
}

#[test]
fn flows_go_to_open_queues_only() {
    let port = open("net_null4");
    let mut queues = port.attach(&attachment(4, &[])).unwrap();
    queues[1].set_open(true);
    queues[3].set_open(true);
    await_spreading(&port, &[1, 3]);
    queues[3].set_open(false);
    await_spreading(&port, &[1]);
    queues[1].set_open(false);
    queues[0].set_open(true);
    await_spreading(&port, &[0]);
}

fn await_spreading(port: &DpdkPort, wanted: &[u16]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut queues = port.spreading();
        queues.sort_unstable();
        queues.dedup();
        if queues == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "flows go to {queues:?}, not {wanted:?}");
        std::thread::yield_now();
    }
}

#[test]
fn pollers_are_registered_with_dpdk_when_a_device_is_plugged_in() {
    struct Nothing;
    impl Source for Nothing {
        fn poll(&mut self, _now: Tsc) -> usize {
            0
        }
    }
    let cores = vec![reactor::affinity::allowed().unwrap()[0]];
    let port = open("net_null5");
    let reactor = Reactor::start(&ReactorConfig { cores, idle: IdlePolicy::Adaptive }).unwrap();
    let poller = reactor.pollers()[0].clone();
    let ask = poller.add(Nothing);
    assert_eq!(ask.call(|_| dpdk::thread_is_registered()), Ok(false));
    let queues = port.attach(&attachment(2, &[poller.clone(), poller])).unwrap();
    assert_eq!(ask.call(|_| dpdk::thread_is_registered()), Ok(true));
    drop(queues);
    reactor.shutdown();
}

#[test]
fn bursts_in_both_directions_allocate_nothing() {
    let port = open("net_ring9");
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    let plain = memory.batch(&(0..BURST).map(|number| raw(number, 64)).collect::<Vec<_>>());
    let mut others = FrameBatch::new(BURST, BURST);
    memory.push(&mut others, &ip4(17, udp(&[1; 100]), 6), &[20], partial(34, 6));
    let offload = Offload { segmentation: Segmentation::Tcp4 { size: 1000, ecn: false }, ..partial(34, 16) };
    memory.push(&mut others, &ip4(6, tcp(&[1; 20_000]), 16), &[], offload);
    let mut back = FrameBatch::new(BURST, BURST);
    let counted = allocation_counter::measure(|| {
        for batch in [&plain, &others] {
            assert_eq!(plugged.send(batch), batch.len());
            while let count @ 1.. = plugged.queue.rx_burst(&mut back, BURST) {
                plugged.queue.rx_done(count);
            }
        }
    });
    assert_eq!(counted.count_total, 0);
    assert_eq!(plugged.stats.rx_frames.value(), (BURST + 1 + 20) as u64);
}

#[test]
fn pcap_port_reads_one_file_and_writes_another() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.pcap"), folder.path().join("to.pcap"));
    let frames = [raw(1, 60), raw(2, 1514)];
    // Version 2.4, 65535 bytes of each frame, Ethernet; then of each frame seconds, microseconds and its length twice.
    let mut file = [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65535, 1].map(u32::to_le_bytes).concat();
    for frame in &frames {
        file.extend([0, 0, frame.len() as u32, frame.len() as u32].map(u32::to_le_bytes).concat());
        file.extend(frame);
    }
    std::fs::write(&from, &file).unwrap();
    let port = open(&format!("net_pcap0,rx_pcap={},tx_pcap={}", from.display(), to.display()));
    let (mut memory, mut plugged) = (Memory::new(), plug(&port));
    assert_eq!(plugged.bytes(), frames);
    assert_eq!(plugged.send(&memory.batch(&frames)), 2);
    drop((plugged, port)); // which closes the file
    let written = std::fs::read(&to).unwrap();
    for frame in &frames {
        assert!(written.windows(frame.len()).any(|bytes| bytes == frame), "a frame of {} bytes", frame.len());
    }
}

#[test]
fn memif_ports_of_two_ends_carry_frames_to_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("memif.sock");
    let device =
        |number, role| format!("net_memif{number},role={role},id=7,socket={},socket-abstract=no", socket.display());
    let (server, client) = (open(&device(0, "server")), open(&device(1, "client")));
    let (mut near, mut far) = (plug(&server), plug(&client));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !(server.link().up && client.link().up) {
        assert!(Instant::now() < deadline, "memif has not connected in 10 s");
        std::thread::yield_now();
    }
    // The client gives the server room to send to when it receives.
    assert_eq!(far.bytes(), Vec::<Vec<u8>>::new());
    let mut memory = Memory::new();
    let frames: Vec<_> = (0..BURST).map(|number| raw(number, 60 + 40 * number)).collect();
    assert_eq!(near.send(&memory.batch(&frames)), BURST);
    assert_eq!(far.bytes(), frames);
    assert_eq!(far.send(&memory.batch(&frames[..3])), 3);
    assert_eq!(near.bytes(), frames[..3]);
}
