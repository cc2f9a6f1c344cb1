//! A served socket under hands that are clumsy, hostile or gone: framing, descriptors, replies, ends.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use super::testing::*;
use super::*;
use crate::message::mem_table_body;
use crate::session::DeviceInfo;
use guest_memory::RegionConfig;

#[test]
fn reply_bytes_of_get_features_are_literal() {
    let served = Served::new();
    served.send(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], &[]);
    assert_eq!(served.receive(), [1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0, 0]);
    let closed = served.hang_up();
    assert!(matches!(closed.reason, CloseReason::Disconnected), "{closed:?}");
    assert_eq!((closed.messages, closed.refused), (1, 0));
}

#[test]
fn messages_split_into_single_bytes_are_put_together_with_their_descriptors() {
    let served = Served::new();
    let call = message(13, 1, &[2, 0, 0, 0, 0, 0, 0, 0]);
    // Descriptors may come with any byte of their message.
    for fd_at in [0, 1, 11, 12, 19] {
        for (at, byte) in call.iter().enumerate() {
            let attached = if at == fd_at { fds(1) } else { Vec::new() };
            served.send(&[*byte], &attached);
            served.drained();
        }
        served.in_step();
        assert_eq!(served.device.done(), ["call 2 fd"], "descriptor with byte {fd_at}");
    }
}

#[test]
fn messages_sent_in_one_piece_keep_their_own_descriptors() {
    let served = Served::new();
    let kick = |index: u8| message(12, 1, &[index, 0, 0, 0, 0, 0, 0, 0]);
    let err = |index: u8| message(14, 1, &[index, 0, 0, 0, 0, 0, 0, 0]);
    served.send(&err(0), &fds(1));
    served.send(&err(1), &fds(1));
    served.send(&[kick(0), message(13, 1, &[1, 1, 0, 0, 0, 0, 0, 0])].concat(), &fds(1));
    served.send(&err(3), &fds(1));
    served.in_step();
    assert_eq!(served.device.done(), ["err 0 fd", "err 1 fd", "call 1 none", "err 3 fd"]);
    assert_eq!(served.device.refusals(), [""; 0]);
}

#[test]
fn descriptor_received_is_the_one_that_was_sent_and_closes_on_exec() {
    let served = Served::new();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    served.send(&message(14, 1, &[0; 8]), &[theirs.into()]);
    served.in_step();
    let held = served.device.held();
    let flags = rustix::io::fcntl_getfd(&held[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    UnixStream::from(held.into_iter().next().unwrap()).write_all(b"!").unwrap();
    let mut byte = [0];
    ours.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"!");
}

#[test]
fn body_of_the_wrong_size_is_refused_and_the_stream_stays_in_step() {
    let served = Served::new();
    served.negotiate_reply_ack();
    for size in [0usize, 7, 9, 4096] {
        assert_eq!(served.acknowledged(8, &vec![0; size], &[]), 1);
        assert_eq!(served.device.refusals(), [format!("SET_VRING_NUM: body of {size} bytes, must be 8")]);
    }
    served.in_step();
}

#[test]
fn more_than_eight_descriptors_in_one_piece_are_refused() {
    let served = Served::new();
    served.negotiate_reply_ack();
    assert_eq!(served.acknowledged(13, &[0; 8], &fds(30)), 1);
    assert_eq!(
        served.device.refusals(),
        ["SET_VRING_CALL: file descriptors were lost (more than 8 attached, or this process may open no more)"]
    );
    served.in_step();
}

#[test]
fn more_than_eight_descriptors_in_several_pieces_are_refused() {
    let served = Served::new();
    served.negotiate_reply_ack();
    let body = mem_table_body((0..8).map(|_| &EMPTY_REGION).collect::<Vec<_>>().into_iter());
    let bytes = message(5, 9, &body);
    for piece in bytes.chunks(100) {
        served.send(piece, &fds(5));
        served.drained();
    }
    let reply: [u8; 20] = served.receive();
    assert_eq!(reply[12], 1);
    assert!(served.device.refusals()[0].starts_with("SET_MEM_TABLE: file descriptors were lost"));
    served.in_step();
}

const EMPTY_REGION: RegionConfig = RegionConfig { guest_addr: 0, size: 0, user_addr: 0, mmap_offset: 0 };

#[test]
fn eight_regions_in_one_table_pass() {
    let served = Served::new();
    served.negotiate_reply_ack();
    let regions: Vec<_> = (0..8u64)
        .map(|at| RegionConfig { guest_addr: at * MIB, size: MIB, user_addr: at * MIB, mmap_offset: 0 })
        .collect();
    assert_eq!(served.acknowledged(5, &mem_table_body(regions.iter()), &fds(8)), 0);
    assert_eq!(served.device.done(), ["table of 8"]);
}

#[test]
fn acknowledgement_is_sent_only_if_negotiated_and_asked_for() {
    let served = Served::new();
    served.send(&message(3, 9, &[]), &[]);
    served.in_step();
    served.negotiate_reply_ack();
    served.send(&message(3, 1, &[]), &[]);
    served.in_step();
    assert_eq!(served.acknowledged(3, &[], &[]), 0);
    // A message with a reply of its own is not acknowledged on top of it.
    served.send(&message(1, 9, &[]), &[]);
    let reply: [u8; 20] = served.receive();
    assert_eq!(reply[0], 1);
    served.in_step();
}

#[test]
fn unknown_requests_are_refused_and_the_connection_goes_on() {
    let served = Served::new();
    served.negotiate_reply_ack();
    assert_eq!(served.acknowledged(200, &[0; 99], &fds(3)), 1);
    assert_eq!(served.device.refusals(), ["request 200: not supported"]);
    let closed = served.hang_up();
    assert_eq!((closed.messages, closed.refused), (3, 1));
}

#[test]
fn refusals_beyond_the_log_budget_are_all_counted_and_answered() {
    let served = Served::new();
    served.negotiate_reply_ack();
    for _ in 0..100 {
        assert_eq!(served.acknowledged(200, &[], &[]), 1);
    }
    assert_eq!(served.device.refusals().len(), 100);
    assert_eq!(served.hang_up().refused, 100);
}

#[test]
fn get_vring_base_answers_with_what_the_device_said_and_remembers_it() {
    let served = Served::new();
    start_ring_2(&served);
    let stop = message(11, 1, &[2, 0, 0, 0, 0, 0, 0, 0]);
    for _ in 0..2 {
        served.send(&stop, &[]);
        let reply = [11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0xea, 3, 0, 0];
        assert_eq!(served.receive(), reply, "1002");
    }
    served.send(&message(12, 1, &[2, 0, 0, 0, 0, 0, 0, 0]), &fds(1));
    served.in_step();
    let done = served.device.done();
    assert_eq!(done[done.len() - 2..], ["StopRing { index: 2 }", "start 2 size 64 base 1002 kick fd"]);
}

fn start_ring_2(served: &Served) {
    served.negotiate_reply_ack();
    assert_eq!(served.acknowledged(2, &(VERSION_1 | BIT_30).to_le_bytes(), &[]), 0);
    assert_eq!(served.acknowledged(8, &[2, 0, 0, 0, 64, 0, 0, 0], &[]), 0);
    let mut addresses = [0; 40];
    addresses[0] = 2;
    assert_eq!(served.acknowledged(9, &addresses, &[]), 0);
    assert_eq!(served.acknowledged(12, &[2, 0, 0, 0, 0, 0, 0, 0], &fds(1)), 0);
    let region = RegionConfig { guest_addr: 0, size: MIB, user_addr: 0, mmap_offset: 0 };
    assert_eq!(served.acknowledged(5, &mem_table_body([&region].into_iter()), &fds(1)), 0);
}

#[test]
fn get_vring_base_of_a_device_that_fails_is_answered_with_the_old_base() {
    let served = Served::new();
    start_ring_2(&served);
    served.device.fail(Some("StopRing"));
    served.send(&message(11, 1, &[2, 0, 0, 0, 0, 0, 0, 0]), &[]);
    assert_eq!(served.receive(), [11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn failed_table_is_acknowledged_as_an_error_and_starts_no_ring() {
    let served = Served::new();
    served.device.fail(Some("table"));
    served.negotiate_reply_ack();
    served.acknowledged(2, &(VERSION_1 | BIT_30).to_le_bytes(), &[]);
    served.acknowledged(8, &[2, 0, 0, 0, 64, 0, 0, 0], &[]);
    let mut addresses = [0; 40];
    addresses[0] = 2;
    served.acknowledged(9, &addresses, &[]);
    served.acknowledged(12, &[2, 0, 0, 0, 0, 0, 0, 0], &fds(1));
    let region = RegionConfig { guest_addr: 0, size: MIB, user_addr: 0, mmap_offset: 0 };
    let table = mem_table_body([&region].into_iter());
    assert_eq!(served.acknowledged(5, &table, &fds(1)), 1);
    assert_eq!(served.device.done(), ["SetFeatures(5368709120)"]);
    assert_eq!(served.device.refusals(), [""; 0], "the message was right");
    served.device.fail(None);
    assert_eq!(served.acknowledged(5, &table, &fds(1)), 0);
    assert_eq!(served.device.done(), ["table of 1", "start 2 size 64 base 0 kick fd"], "the kick was kept");
}

#[test]
fn get_config_is_cut_out_of_the_space_and_padded_with_zeros() {
    let served = Served::new();
    let mut request = vec![34, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0];
    request.extend_from_slice(&[0xff; 4]);
    served.send(&message(24, 1, &request), &[]);
    let reply: [u8; 28] = served.receive();
    assert_eq!(reply[..12], [24, 0, 0, 0, 5, 0, 0, 0, 16, 0, 0, 0]);
    assert_eq!(reply[12..], [34, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 34, 35, 0, 0]);
}

#[test]
fn get_config_refused_is_answered_with_size_zero() {
    let served = Served::new();
    served.send(&message(24, 1, &[0; 12]), &[]);
    let reply: [u8; 24] = served.receive();
    assert_eq!(reply, [24, 0, 0, 0, 5, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    served.in_step();
}

#[test]
fn r19_status_of_a_broken_device_says_needs_reset() {
    let served = Served::new();
    served.negotiate_reply_ack();
    served.acknowledged(39, &[3, 0, 0, 0, 0, 0, 0, 0], &[]);
    let status = || {
        served.send(&message(40, 1, &[]), &[]);
        let reply: [u8; 20] = served.receive();
        assert_eq!(reply[..12], [40, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0]);
        reply[12]
    };
    assert_eq!(status(), 0x03);
    served.device.broken.store(true, Ordering::Relaxed);
    assert_eq!(status(), 0x43);
}

#[test]
fn effect_that_the_device_fails_is_acknowledged_as_an_error() {
    let served = Served::new();
    served.negotiate_reply_ack();
    served.device.fail(Some("SetConfig"));
    assert_eq!(served.acknowledged(25, &[20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 96], &[]), 1);
    assert_eq!(served.acknowledged(34, &[], &[]), 0);
    assert_eq!(served.device.done(), ["ResetDevice"]);
}

fn broken(bytes: &[u8]) -> String {
    let served = Served::new();
    served.send(bytes, &[]);
    let closed = served.hang_up();
    assert!(matches!(closed.reason, CloseReason::Broken(_)), "{closed:?}");
    closed.reason.to_string()
}

#[test]
fn broken_streams_end_the_connection_with_their_reason() {
    assert_eq!(
        broken(&[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]),
        "broken stream: GET_FEATURES: version 2 in the header flags, must be 1"
    );
    assert_eq!(
        broken(&[5, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        "broken stream: SET_MEM_TABLE: body of 4294967295 bytes announced, at most 4096"
    );
    assert_eq!(
        broken(&[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]),
        "broken stream: GET_FEATURES: the reply flag is set, but nothing was asked on this socket"
    );
    assert_eq!(broken(&[1, 0, 0]), "broken stream: the stream ended 9 bytes before the end of a message");
    assert_eq!(
        broken(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1, 2]),
        "broken stream: the stream ended 6 bytes before the end of a message"
    );
    assert_eq!(
        broken(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0]),
        "broken stream: the stream ended 8 bytes before the end of a message"
    );
}

#[test]
fn stop_requested_ends_a_connection_that_waits_for_a_message() {
    let served = Served::new();
    served.in_step();
    served.stop.request();
    assert!(matches!(served.closed().reason, CloseReason::Stopped));
}

#[test]
fn stop_requested_ends_a_connection_that_waits_for_the_rest_of_a_message() {
    let served = Served::new();
    served.send(&[1, 0, 0], &[]);
    served.drained();
    served.stop.request();
    assert!(matches!(served.closed().reason, CloseReason::Stopped));
}

#[test]
fn stop_requested_ends_a_reply_that_the_front_end_never_reads() {
    let (_peer, stream) = UnixStream::pair().unwrap();
    let stop = Stop::new().unwrap();
    stop.request();
    let link = Link { stream, stop: &stop };
    assert!(link.write(&[1; 20]).is_ok(), "there is room, nothing to wait for");
    assert!(matches!(link.write(&vec![0; 16 << 20]), Err(CloseReason::Stopped)));
}

#[test]
fn reply_larger_than_the_socket_buffer_arrives_whole() {
    let (mut peer, stream) = UnixStream::pair().unwrap();
    let stop = Stop::new().unwrap();
    let bytes: Vec<u8> = (0..16u32 << 20).map(|at| (at % 251) as u8).collect();
    let mut received = vec![0; bytes.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| Link { stream, stop: &stop }.write(&bytes).unwrap());
        peer.read_exact(&mut received).unwrap();
    });
    assert_eq!(received, bytes);
}

#[test]
fn front_end_gone_before_its_reply_is_a_disconnection() {
    let (peer, stream) = UnixStream::pair().unwrap();
    (&peer).write_all(&GET_QUEUE_NUM).unwrap();
    drop(peer);
    let session = Session::new(DeviceInfo { queues: 1, ..device_info() });
    let closed = serve(stream, session, &mut Recorder::default(), &Stop::new().unwrap());
    assert!(matches!(closed.reason, CloseReason::Disconnected), "{closed:?}");
    assert_eq!(closed.messages, 1);
}

#[test]
fn backend_behind_a_trait_object_is_served() {
    let (peer, stream) = UnixStream::pair().unwrap();
    drop(peer);
    let backend: &mut dyn Backend = &mut Recorder::default();
    let closed = serve(stream, Session::new(device_info()), backend, &Stop::new().unwrap());
    assert_eq!(closed.messages, 0);
}

/// Random bytes, with valid headers often enough to get through; whatever comes, the connection ends by itself.
#[test]
fn random_streams_end_without_panic() {
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let eventfd = fds(1);
    for _ in 0..300 {
        let (peer, stream) = UnixStream::pair().unwrap();
        for _ in 0..20 {
            let code = (random() % 48) as u8;
            let size = [0, 8, 8, 40, 13, random() % 64][(random() % 6) as usize];
            let body: Vec<u8> = (0..size).map(|_| if random() % 3 == 0 { random() as u8 } else { 0 }).collect();
            let mut bytes = message(code, [1, 9][(random() % 2) as usize], &body);
            if random() % 40 == 0 {
                bytes[(random() % 12) as usize] = random() as u8;
            }
            let attached = vec![eventfd[0].as_fd(); (random() % 3) as usize];
            send(&peer, &bytes, &attached, SendFlags::NOSIGNAL).unwrap();
        }
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let closed = serve(stream, Session::new(device_info()), &mut Recorder::default(), &Stop::new().unwrap());
        assert!(matches!(closed.reason, CloseReason::Disconnected | CloseReason::Broken(_)), "{closed:?}");
    }
}
