//! The client against the served session, and against replies that no back-end should send.

use std::io::{Read, Write};

use super::*;
use crate::connection::CloseReason;
use crate::connection::testing::{BIT_30, MIB, Served, VERSION_1, device_info, fds};

fn served() -> (Served, Frontend) {
    let served = Served::new();
    let frontend = Frontend::from_stream(served.peer.try_clone().unwrap());
    (served, frontend)
}

fn region(at: u64) -> RegionConfig {
    RegionConfig { guest_addr: at * MIB, size: MIB, user_addr: at * MIB, mmap_offset: 0 }
}

#[test]
fn frontend_every_method_reaches_the_device() {
    let (served, mut frontend) = served();
    let device = served.device.clone();
    frontend.set_owner().unwrap();
    let negotiated = frontend.negotiate(u64::MAX, u64::MAX).unwrap();
    assert_eq!(negotiated.features, VERSION_1 | BIT_30);
    assert_eq!(negotiated.protocol_features, device_info().protocol_features);
    assert_eq!(frontend.queue_num().unwrap(), 4);
    assert_eq!(frontend.max_mem_slots().unwrap(), 16);

    let fd = fds(1).remove(0);
    frontend.set_mem_table(&[(region(0), fd.as_fd()), (region(1), fd.as_fd())]).unwrap();
    frontend.add_region(&region(2), fd.as_fd()).unwrap();
    frontend.remove_region(&region(0)).unwrap();
    assert_eq!(device.done(), ["SetFeatures(5368709120)", "table of 2", "add 0x200000 fd", "remove 0x0"]);

    frontend.set_vring_num(1, 128).unwrap();
    frontend.set_vring_base(1, 5).unwrap();
    frontend.set_vring_addr(1, &VringAddresses { desc_user: 0x1000, ..VringAddresses::default() }).unwrap();
    frontend.set_vring_call(1, Some(fd.as_fd())).unwrap();
    frontend.set_vring_err(1, None).unwrap();
    frontend.set_vring_kick(1, None).unwrap();
    frontend.set_vring_enable(1, true).unwrap();
    let enabled = "EnableRing { index: 1, enabled: true }";
    assert_eq!(device.done(), ["call 1 fd", "err 1 none", "start 1 size 128 base 5 kick none", enabled]);

    assert_eq!(frontend.vring_base(1).unwrap(), 1001);
    frontend.set_backend_request_fd(fd.as_fd()).unwrap();
    assert_eq!(frontend.config(30, 8).unwrap(), [30, 31, 32, 33, 34, 35, 0, 0]);
    frontend.set_config(20, &[96]).unwrap();
    frontend.set_status(0x0f).unwrap();
    assert_eq!(frontend.status().unwrap(), 0x0f);
    frontend.set_status(0).unwrap();
    assert_eq!(frontend.status().unwrap(), 0);
    frontend.reset_device().unwrap();
    frontend.reset_owner().unwrap();
    assert_eq!(
        device.done(),
        [
            "StopRing { index: 1 }",
            "backend request fd",
            "SetConfig { offset: 20, migration: false, bytes: [96] }",
            "EnableRing { index: 1, enabled: false }",
            "ResetDevice",
            "ResetDevice",
        ]
    );
    drop(frontend);
    assert!(matches!(served.hang_up().reason, CloseReason::Disconnected));
}

#[test]
fn frontend_refused_message_is_an_error_and_the_next_one_works() {
    let (_served, mut frontend) = served();
    frontend.negotiate(VERSION_1, protocol::REPLY_ACK).unwrap();
    let error = frontend.set_vring_num(0, 3).unwrap_err();
    assert_eq!(error.to_string(), "SET_VRING_NUM: the back-end acknowledged with 1, must be 0");
    frontend.set_vring_num(0, 4).unwrap();
    let error = frontend.config(0, 257).unwrap_err();
    assert_eq!(error.to_string(), "GET_CONFIG: reply of 12 bytes, must be 269");
}

#[test]
fn frontend_without_reply_ack_does_not_wait() {
    let (served, mut frontend) = served();
    frontend.negotiate(VERSION_1, protocol::MQ).unwrap();
    frontend.set_vring_num(0, 3).unwrap();
    assert_eq!(frontend.queue_num().unwrap(), 4);
    assert_eq!(served.device.refusals().len(), 1);
}

#[test]
fn frontend_raw_bytes_and_their_reply_pass_untouched() {
    let (_served, mut frontend) = served();
    frontend.send_raw(&[17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    let reply = frontend.recv_reply().unwrap();
    assert_eq!(reply.header.code, RequestCode::GET_QUEUE_NUM);
    assert_eq!(reply.body, [4, 0, 0, 0, 0, 0, 0, 0]);
    frontend.send_raw(&[17, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    assert!(matches!(frontend.recv_reply(), Err(FrontendError::Closed { .. })));
}

#[test]
fn frontend_socket_that_nobody_listens_on_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let error = Frontend::connect(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot connect to {path:?}: No such file")), "{error}");
}

/// What GET_FEATURES makes of a reply that is these bytes.
fn features_from(reply: &[u8]) -> Result<u64> {
    let (stream, mut backend) = UnixStream::pair().unwrap();
    backend.write_all(reply).unwrap();
    backend.shutdown(std::net::Shutdown::Write).unwrap();
    Frontend::from_stream(stream).features()
}

#[test]
fn frontend_replies_that_answer_something_else_are_errors() {
    let good = [1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(features_from(&good).unwrap(), 0x1_0000_0002);
    let error = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        features_from(&bytes).unwrap_err().to_string()
    };
    assert_eq!(
        error(0, 15),
        "GET_FEATURES: reply with request GET_PROTOCOL_FEATURES and reply flag true, must be GET_FEATURES and true"
    );
    assert_eq!(
        error(4, 1),
        "GET_FEATURES: reply with request GET_FEATURES and reply flag false, must be GET_FEATURES and true"
    );
    assert_eq!(error(4, 6), "broken reply: GET_FEATURES: version 2 in the header flags, must be 1");
    assert_eq!(error(8, 4), "GET_FEATURES: reply of 4 bytes, must be 8");
    assert_eq!(error(9, 0x11), "broken reply: GET_FEATURES: body of 4360 bytes announced, at most 4096");
    let short = features_from(&good[..19]).unwrap_err().to_string();
    assert_eq!(short, "GET_FEATURES: the back-end closed the connection");
}

#[test]
fn frontend_vring_base_of_another_ring_is_an_error() {
    let (stream, mut backend) = UnixStream::pair().unwrap();
    backend.write_all(&[11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0]).unwrap();
    let error = Frontend::from_stream(stream).vring_base(2).unwrap_err();
    assert_eq!(error.to_string(), "GET_VRING_BASE: reply about 3, asked for 2");
}

#[test]
fn frontend_reply_timeout_ends_the_waiting() {
    let (stream, _backend) = UnixStream::pair().unwrap();
    let mut frontend = Frontend::from_stream(stream);
    frontend.set_reply_timeout(Some(Duration::from_millis(1))).unwrap();
    let FrontendError::Socket { code, source } = frontend.features().unwrap_err() else { panic!() };
    assert_eq!((code, source.kind()), (RequestCode::GET_FEATURES, io::ErrorKind::WouldBlock));
}

#[test]
fn frontend_back_end_gone_is_said_so() {
    let (stream, backend) = UnixStream::pair().unwrap();
    drop(backend);
    let mut frontend = Frontend::from_stream(stream);
    assert!(matches!(frontend.set_owner(), Err(FrontendError::Closed { code: RequestCode::SET_OWNER })));
}

#[test]
fn frontend_message_on_the_wire_is_literal() {
    let (stream, mut backend) = UnixStream::pair().unwrap();
    let mut frontend = Frontend::from_stream(stream);
    frontend.set_vring_kick(2, None).unwrap();
    let mut bytes = [0; 20];
    backend.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [12, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
}
