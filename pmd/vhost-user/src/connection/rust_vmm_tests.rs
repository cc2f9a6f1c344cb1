//! rust-vmm's front-end, as an independent client, through every message it has.

use std::os::fd::AsRawFd;
use std::thread;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use super::testing::*;
use super::*;

const ALL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// Connects rust-vmm's front-end to a listening socket and lets it talk.
fn with_front_end(talk: impl FnOnce(&mut Frontend, &Recorder)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let stop = Stop::new().unwrap();
    let device = Recorder::default();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let stream = listener.accept(&stop).unwrap().unwrap();
            serve(stream, Session::new(device_info()), &mut device.clone(), &stop)
        });
        // Hang up whatever happens, so that a failed assertion is seen and not waited for.
        let mut front_end = Frontend::connect(&path, 4).unwrap();
        talk(&mut front_end, &device);
        drop(front_end);
        assert!(matches!(server.join().unwrap().reason, CloseReason::Disconnected));
    });
}

fn negotiate(front_end: &mut Frontend) {
    let features = front_end.get_features().unwrap();
    assert_eq!(features, VERSION_1 | BIT_30);
    assert_eq!(front_end.get_protocol_features().unwrap().bits() & ALL.bits(), ALL.bits());
    front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    front_end.set_protocol_features(ALL).unwrap();
    front_end.set_features(features).unwrap();
}

fn memory_region(at: u64, file: &impl AsRawFd) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: at * MIB,
        memory_size: MIB,
        userspace_addr: at * MIB,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

fn ring() -> VringConfigData {
    VringConfigData {
        queue_max_size: 256,
        queue_size: 64,
        flags: 0,
        desc_table_addr: 0x1000,
        used_ring_addr: 0x2000,
        avail_ring_addr: 0x3000,
        log_addr: None,
    }
}

#[test]
fn rust_vmm_front_end_every_message_is_served() {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, MIB).unwrap();
    let event = EventFd::new(0).unwrap();
    with_front_end(|front_end, device| {
        front_end.set_owner().unwrap();
        negotiate(front_end);
        assert_eq!(device.done(), ["SetFeatures(5368709120)"]);

        assert_eq!(front_end.get_queue_num().unwrap(), 4);
        assert_eq!(front_end.get_max_mem_slots().unwrap(), 16);
        front_end.set_mem_table(&[memory_region(0, &file), memory_region(1, &file)]).unwrap();
        front_end.add_mem_region(&memory_region(2, &file)).unwrap();
        front_end.remove_mem_region(&memory_region(2, &file)).unwrap();
        assert_eq!(device.done(), ["table of 2", "add 0x200000 fd", "remove 0x200000"]);

        front_end.set_vring_num(3, 64).unwrap();
        front_end.set_vring_base(3, 7).unwrap();
        front_end.set_vring_addr(3, &ring()).unwrap();
        front_end.set_vring_call(3, &event).unwrap();
        front_end.set_vring_err(3, &event).unwrap();
        front_end.set_vring_kick(3, &event).unwrap();
        front_end.set_vring_enable(3, true).unwrap();
        let started = ["call 3 fd", "err 3 fd", "start 3 size 64 base 7 kick fd"];
        assert_eq!(device.done()[..3], started);

        front_end.set_vring_enable(3, false).unwrap();
        assert_eq!(front_end.get_vring_base(3).unwrap(), 1003);
        assert_eq!(device.done(), ["EnableRing { index: 3, enabled: false }", "StopRing { index: 3 }"]);

        front_end.set_backend_request_fd(&event).unwrap();
        front_end.reset_device().unwrap();
        front_end.reset_owner().unwrap();
        assert_eq!(device.done(), ["backend request fd", "ResetDevice"]);
        assert_eq!(device.refusals(), [""; 0]);
    });
}

#[test]
fn rust_vmm_front_end_reads_and_writes_configuration() {
    with_front_end(|front_end, device| {
        negotiate(front_end);
        let flags = VhostUserConfigFlags::empty();
        let (_, bytes) = front_end.get_config(4, 8, flags, &[0; 8]).unwrap();
        assert_eq!(bytes, [4, 5, 6, 7, 8, 9, 10, 11]);
        front_end.set_config(20, flags, &[96]).unwrap();
        // Its flag for an ordinary write is what the protocol calls live migration.
        front_end.set_config(20, VhostUserConfigFlags::WRITABLE, &[97]).unwrap();
        let done = device.done();
        assert_eq!(done[1], "SetConfig { offset: 20, migration: false, bytes: [96] }");
        assert_eq!(done[2], "SetConfig { offset: 20, migration: true, bytes: [97] }");
    });
}

#[test]
fn rust_vmm_front_end_refusals_arrive_and_the_connection_goes_on() {
    let event = EventFd::new(0).unwrap();
    with_front_end(|front_end, device| {
        negotiate(front_end);
        device.done();
        front_end.set_vring_num(0, 3).unwrap_err();
        front_end.set_vring_num(0, 512).unwrap_err();
        front_end.set_log_fd(event.as_raw_fd()).unwrap_err();
        let region = memory_region(0, &event);
        front_end.remove_mem_region(&region).unwrap_err();
        assert_eq!(device.refusals().len(), 4);
        assert_eq!(front_end.get_queue_num().unwrap(), 4);
        assert_eq!(device.done(), [""; 0]);
    });
}

#[test]
fn rust_vmm_front_end_without_acknowledgements_is_served() {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    let event = EventFd::new(0).unwrap();
    with_front_end(|front_end, device| {
        front_end.set_owner().unwrap();
        front_end.set_features(VERSION_1).unwrap();
        front_end.set_mem_table(&[memory_region(0, &file)]).unwrap();
        front_end.set_vring_num(0, 64).unwrap();
        front_end.set_vring_addr(0, &ring()).unwrap();
        front_end.set_vring_kick(0, &event).unwrap();
        assert_eq!(front_end.get_vring_base(0).unwrap(), 1000);
        assert_eq!(
            device.done(),
            [
                "SetFeatures(4294967296)",
                "table of 1",
                "EnableRing { index: 0, enabled: true }",
                "start 0 size 64 base 0 kick fd",
                "StopRing { index: 0 }",
            ]
        );
    });
}

#[test]
fn rust_vmm_front_end_protocol_features_not_offered_are_refused_without_a_hang() {
    with_front_end(|front_end, device| {
        front_end.get_features().unwrap();
        front_end.get_protocol_features().unwrap();
        front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        front_end.set_protocol_features(ALL | VhostUserProtocolFeatures::INFLIGHT_SHMFD).unwrap_err();
        assert_eq!(device.refusals().len(), 1);
    });
}
