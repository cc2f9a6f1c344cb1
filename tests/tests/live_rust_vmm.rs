//! rust-vmm's front-end, which is not ours, against a running target: every message it has, and I/O through its rings.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use tests::device::{Message, Reply, lun, task_management};
use tests::live::client::{FIRST, LOGICAL_UNIT_RESET, Plan, good, lay_out, read, test_unit_ready, write};
use tests::live::memory::Region;
use tests::live::queue::Queue;
use tests::live::rig::{Rig, Setup};
use tests::live::until;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const OFFERED: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_F_EVENT_IDX.
const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29;

/// The front-end, its memory and its rings.
struct Vmm {
    front_end: Frontend,
    regions: Vec<Region>,
    queues: BTreeMap<u16, Queue>,
    events: BTreeMap<u16, Events>,
}

struct Events {
    kick: EventFd,
    call: EventFd,
    err: EventFd,
}

impl Vmm {
    fn connect(rig: &Rig) -> Vmm {
        let mut front_end = Frontend::connect(rig.socket("dut"), 6).unwrap();
        front_end.set_owner().unwrap();
        let offered = front_end.get_features().unwrap();
        assert_eq!(offered & FEATURES, FEATURES);
        let protocol = front_end.get_protocol_features().unwrap();
        assert!(protocol.contains(OFFERED), "{protocol:?}");
        front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        front_end.set_protocol_features(OFFERED).unwrap();
        front_end.set_features(FEATURES).unwrap();
        let (regions, queues) = lay_out(&Plan { own_data_region: true, ..Plan::queues(2) });
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let events =
            queues.keys().map(|index| (*index, Events { kick: event(), call: event(), err: event() })).collect();
        Vmm { front_end, regions, queues, events }
    }

    fn start(&mut self, index: u16) {
        let queue = self.queues.get_mut(&index).unwrap();
        let events = &self.events[&index];
        queue.reset();
        let (ring, addresses) = (usize::from(index), queue.addresses());
        let config = VringConfigData {
            queue_max_size: 256,
            queue_size: queue.size(),
            flags: 0,
            desc_table_addr: addresses.desc_user,
            used_ring_addr: addresses.used_user,
            avail_ring_addr: addresses.avail_user,
            log_addr: None,
        };
        self.front_end.set_vring_num(ring, queue.size()).unwrap();
        self.front_end.set_vring_base(ring, 0).unwrap();
        self.front_end.set_vring_addr(ring, &config).unwrap();
        self.front_end.set_vring_call(ring, &events.call).unwrap();
        self.front_end.set_vring_err(ring, &events.err).unwrap();
        self.front_end.set_vring_kick(ring, &events.kick).unwrap();
        self.front_end.set_vring_enable(ring, true).unwrap();
    }

    fn run(&mut self, index: u16, message: impl Into<Message>) -> Reply {
        let queue = self.queues.get_mut(&index).unwrap();
        queue.put(message);
        if queue.expose() {
            self.events[&index].kick.write(1).unwrap();
        }
        let mut reply = None;
        until("the reply", || {
            reply = queue.take();
            reply.is_some()
        });
        reply.unwrap()
    }
}

fn described(region: &Region) -> VhostUserMemoryRegionInfo {
    let config = region.config();
    VhostUserMemoryRegionInfo {
        guest_phys_addr: config.guest_addr,
        memory_size: config.size,
        userspace_addr: config.user_addr,
        mmap_offset: config.mmap_offset,
        mmap_handle: region.memory().fd().as_raw_fd(),
    }
}

#[test]
fn rust_vmm_front_end_every_message_is_served_or_refused_and_io_works() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let load = rig.load();
    let mut vmm = Vmm::connect(&rig);
    assert_eq!(vmm.front_end.get_queue_num().unwrap(), 6);
    assert_eq!(vmm.front_end.get_max_mem_slots().unwrap(), 509);

    // The data region comes as a slot of its own.
    vmm.front_end.set_mem_table(&[described(&vmm.regions[0])]).unwrap();
    vmm.front_end.add_mem_region(&described(&vmm.regions[1])).unwrap();
    for index in [0, FIRST, FIRST + 1] {
        vmm.start(index);
    }
    assert_eq!(vmm.run(FIRST, test_unit_ready(0)).sense(), Some((6, 0x29, 1)));
    good(vmm.run(FIRST, write(0, 40, &[0x5a; 4096])));
    assert_eq!(good(vmm.run(FIRST + 1, read(0, 40, 8))), [0x5a; 4096]);
    assert_eq!(vmm.run(0, task_management(LOGICAL_UNIT_RESET, lun(0, 0), 0)).byte(), 0);
    assert_eq!(vmm.run(FIRST, test_unit_ready(0)).sense(), Some((6, 0x29, 3)));
    assert!(vmm.events[&FIRST].call.read().unwrap() > 0, "the driver was called");
    vmm.events[&FIRST].err.read().unwrap_err();

    // One ring stops and starts again while the other stays.
    vmm.front_end.set_vring_enable(usize::from(FIRST), false).unwrap();
    assert_eq!(vmm.front_end.get_vring_base(usize::from(FIRST)).unwrap(), 3);
    good(vmm.run(FIRST + 1, read(0, 40, 8)));
    vmm.start(FIRST);
    good(vmm.run(FIRST, read(0, 40, 8)));

    // Without the data region its buffers are nowhere; with it again, and the ring restarted, they are back.
    vmm.front_end.remove_mem_region(&described(&vmm.regions[1])).unwrap();
    assert_eq!(vmm.regions[1].mappings(), 1);
    let queue = vmm.queues.get_mut(&FIRST).unwrap();
    queue.put(read(0, 40, 8));
    if queue.expose() {
        vmm.events[&FIRST].kick.write(1).unwrap();
    }
    until("err is signalled", || vmm.events[&FIRST].err.read().is_ok());
    vmm.front_end.add_mem_region(&described(&vmm.regions[1])).unwrap();
    assert_eq!(vmm.front_end.get_vring_base(usize::from(FIRST)).unwrap(), 1);
    vmm.start(FIRST);
    good(vmm.run(FIRST, read(0, 40, 8)));

    // A device reset takes the rings and leaves the memory.
    vmm.front_end.reset_device().unwrap();
    for index in [0, FIRST, FIRST + 1] {
        vmm.start(index);
    }
    assert_eq!(vmm.run(FIRST, test_unit_ready(0)).sense(), Some((6, 0x29, 1)));
    assert_eq!(good(vmm.run(FIRST, read(0, 40, 8))), [0x5a; 4096], "the data is there");
    vmm.front_end.reset_owner().unwrap();
    rig.undisturbed(load);
}

#[test]
fn rust_vmm_front_end_reads_the_configuration_space_and_may_not_write_it() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let mut vmm = Vmm::connect(&rig);
    let (_, bytes) = vmm.front_end.get_config(0, 36, VhostUserConfigFlags::empty(), &[0; 36]).unwrap();
    #[rustfmt::skip]
    assert_eq!(bytes, [
        4, 0, 0, 0,  254, 0, 0, 0,  0xff, 0xff, 0, 0,  128, 0, 0, 0,  16, 0, 0, 0,  96, 0, 0, 0,  32, 0, 0, 0,
        0, 0,  255, 0,  0xff, 0x3f, 0, 0,
    ]);
    vmm.front_end.set_config(20, VhostUserConfigFlags::empty(), &[96, 0, 0, 0]).unwrap_err();
    assert_eq!(vmm.front_end.get_queue_num().unwrap(), 6, "the connection goes on");
}

#[test]
fn rust_vmm_front_end_messages_that_are_not_offered_are_refused_and_the_connection_goes_on() {
    let rig = Rig::start(Setup::new("dut").disk(0));
    let mut vmm = Vmm::connect(&rig);
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    let log = VhostUserDirtyLogRegion { mmap_size: 4096, mmap_offset: 0, mmap_handle: event.as_raw_fd() };
    let inflight = VhostUserInflight::new(4096, 0, 1, 64);
    vmm.front_end.set_hdr_flags(VhostUserHeaderFlag::empty());
    vmm.front_end.set_log_base(0, Some(log)).unwrap(); // which never looks for the answer
    vmm.front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    vmm.front_end.set_log_fd(event.as_raw_fd()).unwrap_err();
    vmm.front_end.set_backend_request_fd(&event).unwrap_err();
    assert!(vmm.front_end.get_inflight_fd(&inflight).is_err());
    vmm.front_end.set_inflight_fd(&inflight, event.as_raw_fd()).unwrap_err();
    vmm.front_end.check_device_state().unwrap_err();
    vmm.front_end.set_protocol_features(OFFERED | VhostUserProtocolFeatures::INFLIGHT_SHMFD).unwrap_err();
    vmm.front_end.remove_mem_region(&described(&vmm.regions[0])).unwrap_err();
    vmm.front_end.set_vring_num(usize::from(FIRST), 3).unwrap_err();
    assert_eq!(vmm.front_end.get_queue_num().unwrap(), 6);

    // And serves as if nothing had been asked.
    let table: Vec<_> = vmm.regions.iter().map(described).collect();
    vmm.front_end.set_mem_table(&table).unwrap();
    vmm.start(FIRST);
    assert_eq!(vmm.run(FIRST, test_unit_ready(0)).sense(), Some((6, 0x29, 1)));
}
