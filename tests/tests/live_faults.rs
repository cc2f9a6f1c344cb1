//! Every row of the fault table on a running target (R19): what halts a queue, and only that queue; what does not; and
//! how a halted one comes back. Every fault is written into real shared memory behind the driver's back.

use std::sync::atomic::Ordering;

use bdev::Gate;
use tests::device::{Message, RESPONSE_LEN, Request, lun};
use tests::live::PATIENCE;
use tests::live::client::{
    ABORT_TASK, Client, FIRST, LOGICAL_UNIT_RESET, NEEDS_RESET, Plan, good, read, test_unit_ready, write,
};
use tests::live::load::Load;
use tests::live::memory::Area;
use tests::live::rig::{Rig, Setup};
use virtio_scsi::Limits;
use virtqueue::split::RawSplit;

/// The queue that breaks, and its neighbour on the same device.
const VICTIM: u16 = FIRST;
const SIBLING: u16 = FIRST + 1;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// What a hostile driver writes to.
struct Hostile {
    ring: RawSplit,
    /// Guest memory that nobody else uses.
    area: Area,
    /// Guest address behind the last region.
    end: u64,
    /// Head of a chain in flight.
    in_flight: u16,
}

/// A descriptor that the honest part of the driver does not use.
const FREE: u16 = 40;
/// Descriptors of the ring.
const SIZE: u16 = 64;

impl Hostile {
    /// Writes descriptors from [`FREE`] on, each naming the next if it has that flag. Returns the head.
    fn chain(&self, descriptors: &[(u64, u32, u16)]) -> u16 {
        for (index, (addr, len, flags)) in (FREE..).zip(descriptors) {
            self.ring.set_descriptor(index, *addr, *len, *flags, index + 1);
        }
        FREE
    }

    /// Writes an indirect table, each entry naming the next if it has that flag; the descriptor of it.
    fn table(&self, entries: &[(u64, u32, u16)]) -> (u64, u32, u16) {
        for (index, (addr, len, flags)) in (0..).zip(entries) {
            let bytes = RawSplit::descriptor_bytes(*addr, *len, *flags, index as u16 + 1);
            self.area.part(16 * index, 16).slice.write(&bytes);
        }
        (self.area.guest_addr, 16 * entries.len() as u32, INDIRECT)
    }

    /// A buffer that is really there.
    fn buffer(&self, flags: u16) -> (u64, u32, u16) {
        (self.area.guest_addr, 16, flags)
    }
}

/// A device with two request queues; a command of the first is at its backend, and one LUN answers at once.
struct Live {
    // In this order they end if a test fails.
    load: Load,
    client: Client,
    rig: Rig,
    gate: Gate,
    held: usize,
}

impl Live {
    fn new() -> Live {
        let gate = Gate::closed();
        let limits = Limits { max_sectors: 8, ..Limits::default() };
        let rig = Rig::start(Setup::new("dut").disk(0).held(1, &gate).limits(limits));
        let load = rig.load();
        let plan = Plan { ring_size: SIZE, slots: 8, data_len: 8192, ..Plan::queues(2) };
        let mut client = Client::connect(&rig.socket("dut"), &plan);
        client.ready(VICTIM, 0);
        client.ready(VICTIM, 1);
        let held = client.send(VICTIM, read(1, 0, 1));
        assert!(gate.wait_for_held(1, PATIENCE));
        Live { load, client, rig, gate, held }
    }

    fn faults(&self, queue: &str, reason: &str) -> f64 {
        let labels = [("controller", "dut"), ("queue", queue), ("reason", reason)];
        self.rig.metrics().sum("ringside_virtqueue_faults_total", &labels)
    }

    fn broken(&self, queue: &str) -> f64 {
        self.rig.metrics().sum("ringside_virtqueue_broken", &[("controller", "dut"), ("queue", queue)])
    }

    /// Everybody but the victim goes on.
    fn others_go_on(&mut self) {
        for lba in 0..20 {
            good(self.client.run(SIBLING, write(0, lba, &[lba as u8; 512])));
            assert_eq!(good(self.client.run(SIBLING, read(0, lba, 1))), [lba as u8; 512]);
        }
        let nobody = self.client.send_tmf(ABORT_TASK, 0, 99);
        assert_eq!(self.client.queue(0).wait_for(nobody).byte(), 0, "function complete");
        self.load.progress(50);
    }

    fn needs_reset(&mut self) -> bool {
        self.client.frontend.status().unwrap() & NEEDS_RESET != 0
    }
}

/// Lets `write` put a chain into the ring whose head it returns (or move the available index itself), then checks that
/// the queue halts for this `reason`, and nothing else does; then that it comes back.
fn halts(reason: &str, write: impl FnOnce(&Hostile) -> Option<u16>) {
    let mut live = Live::new();
    let area = live.client.regions[0].take(16 * 70);
    let region = *live.client.regions[0].config();
    let in_flight = 0; // drivers take the first free descriptor, and the first two requests have come back
    let hostile =
        Hostile { ring: live.client.queue(VICTIM).raw(), area, end: region.guest_addr + region.size, in_flight };
    let (ring, available) = (hostile.ring, hostile.ring.avail_index());
    let used = ring.used_index();
    assert_eq!(available, used + 1);
    if let Some(head) = write(&hostile) {
        // Behind it, a chain that nobody could object to.
        ring.set_descriptor(SIZE - 1, area.guest_addr, 16, WRITE, 0);
        ring.set_avail_entry(available, head);
        ring.set_avail_entry(available + 1, SIZE - 1);
        ring.set_avail_index(available + 2);
    }
    live.client.queue(VICTIM).kick();

    live.client.queue(VICTIM).wait_err();
    assert!(live.needs_reset());
    let report = live.rig.wait_report();
    assert_eq!((&*report.device, report.ring, report.fault.reason.as_str()), ("dut", VICTIM, reason));
    assert_eq!((live.faults("2", reason), live.broken("2"), live.broken("3"), live.broken("0")), (1.0, 1.0, 0.0, 0.0));
    live.others_go_on();
    assert_eq!(ring.used_index(), used, "nothing is fetched behind the fault");

    // What was in flight is answered.
    live.gate.open();
    let held = live.held;
    good(live.client.queue(VICTIM).wait_for(held));
    assert_eq!(ring.used_index(), used + 1);
    live.others_go_on();
    assert!(live.needs_reset(), "it stays halted");
    assert_eq!(live.client.queue(VICTIM).drain_errs(), 0, "err is signalled once");

    assert_eq!(live.client.stop(VICTIM), u32::from(available), "the faulty chain was never fetched");
    assert!(!live.needs_reset());
    live.client.start(VICTIM);
    for lba in 0..5 {
        good(live.client.run(VICTIM, read(1, lba, 1)));
    }
    live.others_go_on();
    assert_eq!((live.faults("2", reason), live.broken("2")), (1.0, 0.0));
    assert_eq!(live.rig.report(), None);
    live.rig.undisturbed(live.load);
}

macro_rules! halting {
    ($($name:ident: $reason:literal, $write:expr;)*) => {$(
        #[test]
        fn $name() {
            halts($reason, $write);
        }
    )*};
}

halting! {
    r19_readable_after_writable_halts_its_queue_only: "readable_after_writable", |hostile| {
        Some(hostile.chain(&[hostile.buffer(NEXT), hostile.buffer(WRITE | NEXT), hostile.buffer(0)]))
    };
    r19_nested_indirect_halts_its_queue_only: "nested_indirect", |hostile| {
        let inner = hostile.buffer(INDIRECT);
        Some(hostile.chain(&[hostile.table(&[inner])]))
    };
    r19_indirect_with_next_halts_its_queue_only: "indirect_with_next", |hostile| {
        let (addr, len, flags) = hostile.table(&[hostile.buffer(0)]);
        Some(hostile.chain(&[(addr, len, flags | NEXT), hostile.buffer(WRITE)]))
    };
    r19_loop_halts_its_queue_only: "loop", |hostile| {
        let (addr, len, _) = hostile.buffer(0);
        hostile.ring.set_descriptor(FREE, addr, len, NEXT, FREE + 1);
        hostile.ring.set_descriptor(FREE + 1, addr, len, NEXT, FREE);
        Some(FREE)
    };
    r19_descriptor_that_names_itself_halts_its_queue_only: "loop", |hostile| {
        let (addr, len, _) = hostile.buffer(0);
        hostile.ring.set_descriptor(FREE, addr, len, NEXT, FREE);
        Some(FREE)
    };
    r19_chain_longer_than_the_ring_halts_its_queue_only: "chain_too_long", |hostile| {
        let mut entries = vec![hostile.buffer(NEXT); usize::from(SIZE)];
        entries.push(hostile.buffer(0));
        Some(hostile.chain(&[hostile.table(&entries)]))
    };
    r19_head_out_of_range_halts_its_queue_only: "head_out_of_range", |_| Some(SIZE);
    r19_head_of_all_ones_halts_its_queue_only: "head_out_of_range", |_| Some(u16::MAX);
    r19_next_out_of_range_halts_its_queue_only: "next_out_of_range", |hostile| {
        let (addr, len, _) = hostile.buffer(0);
        hostile.ring.set_descriptor(FREE, addr, len, NEXT, SIZE);
        Some(FREE)
    };
    r19_next_out_of_an_indirect_table_halts_its_queue_only: "next_out_of_range", |hostile| {
        Some(hostile.chain(&[hostile.table(&[hostile.buffer(NEXT)])]))
    };
    r19_head_in_flight_halts_its_queue_only: "head_in_flight", |hostile| Some(hostile.in_flight);
    r19_available_index_jump_halts_its_queue_only: "avail_index_jump", |hostile| {
        hostile.ring.set_avail_index(hostile.ring.avail_index() + SIZE + 1);
        None
    };
    r19_available_index_that_goes_back_halts_its_queue_only: "avail_index_jump", |hostile| {
        hostile.ring.set_avail_index(hostile.ring.avail_index() - 1);
        None
    };
    r19_address_overflow_halts_its_queue_only: "address_overflow", |hostile| {
        Some(hostile.chain(&[(u64::MAX - 7, 16, 0)]))
    };
    r19_buffer_outside_of_memory_halts_its_queue_only: "unmapped", |hostile| {
        Some(hostile.chain(&[hostile.buffer(NEXT), (0x1000, 16, WRITE)]))
    };
    r19_buffer_that_reaches_out_of_memory_halts_its_queue_only: "unmapped", |hostile| {
        Some(hostile.chain(&[(hostile.end - 15, 16, 0)]))
    };
    r19_buffer_of_4_gib_halts_its_queue_only: "unmapped", |hostile| {
        Some(hostile.chain(&[(hostile.area.guest_addr, u32::MAX, 0)]))
    };
    r19_indirect_table_of_no_entries_halts_its_queue_only: "indirect_length", |hostile| {
        Some(hostile.chain(&[(hostile.area.guest_addr, 0, INDIRECT)]))
    };
    r19_indirect_table_of_17_bytes_halts_its_queue_only: "indirect_length", |hostile| {
        Some(hostile.chain(&[(hostile.area.guest_addr, 17, INDIRECT)]))
    };
    r19_indirect_table_outside_of_memory_halts_its_queue_only: "indirect_unmapped", |hostile| {
        Some(hostile.chain(&[(hostile.end, 16, INDIRECT)]))
    };
}

#[test]
fn r19_halted_queues_come_back_with_a_device_reset() {
    let mut live = Live::new();
    live.gate.open();
    for (round, by_status) in [false, true].into_iter().enumerate() {
        for queue in [0, VICTIM, SIBLING] {
            let ring = live.client.queue(queue).raw();
            ring.set_avail_index(ring.avail_index() + SIZE + 1);
            live.client.queue(queue).kick();
            live.client.queue(queue).wait_err();
        }
        assert!(live.needs_reset());
        // Rings stay as they are: not VIRTIO_F_RING_PACKED.
        let features = live.client.frontend.features().unwrap() & !(1 << 34);
        if by_status {
            live.client.frontend.set_status(0).unwrap();
            live.client.frontend.set_features(features).unwrap();
        } else {
            live.client.frontend.reset_device().unwrap();
        }
        assert!(!live.needs_reset());
        [0, VICTIM, SIBLING].into_iter().for_each(|queue| live.client.start(queue));
        live.client.ready(SIBLING, 0);
        live.client.ready(VICTIM, 1);
        let reset = live.client.send_tmf(LOGICAL_UNIT_RESET, 0, 0);
        assert_eq!(live.client.queue(0).wait_for(reset).byte(), 0);
        let resets = live.rig.service().stats().resets.load(Ordering::Relaxed);
        assert_eq!(resets, round as u64 + 1);
    }
    live.rig.undisturbed(live.load);
}

/// Answers it, or takes it back, and goes on: the command at the backend, the sibling and the next request are served.
fn goes_on(message: impl Into<Message>, check: impl FnOnce(&Rig, tests::device::Reply)) {
    let mut live = Live::new();
    let reply = live.client.run(VICTIM, message);
    check(&live.rig, reply);
    good(live.client.run(VICTIM, read(0, 0, 1)));
    live.others_go_on();
    live.gate.open();
    let held = live.held;
    good(live.client.queue(VICTIM).wait_for(held));
    assert!(!live.needs_reset());
    assert_eq!(live.client.queue(VICTIM).drain_errs(), 0);
    live.rig.undisturbed(live.load);
}

#[test]
fn r12_header_of_one_byte_is_answered_and_the_queue_goes_on() {
    let message = Message { readable: vec![1], writable: RESPONSE_LEN };
    goes_on(message, |_, reply| reply.assert_transport(9, 0));
}

#[test]
fn r12_address_of_no_target_is_answered_and_the_queue_goes_on() {
    goes_on(Request::new([0; 8], &[0; 6]), |_, reply| reply.assert_transport(3, 0));
}

#[test]
fn r01_transfer_over_the_limit_is_answered_and_the_queue_goes_on() {
    goes_on(read(0, 0, 9), |rig, reply| {
        reply.assert_transport(9, 9 * 512);
        let labels = [("controller", "dut"), ("target", "0"), ("lun", "0"), ("limit", "max_sectors")];
        assert_eq!(rig.metrics().sum("ringside_scsi_refused_total", &labels), 1.0);
    });
}

#[test]
fn r12_no_room_for_a_response_is_a_bare_used_entry_and_the_queue_goes_on() {
    let message = Message { readable: test_unit_ready(0).header(), writable: 11 };
    goes_on(message, |rig, reply| {
        assert_eq!(reply.written, 0);
        assert!(reply.writable.iter().all(|byte| *byte == tests::device::UNWRITTEN));
        let labels = [("controller", "dut")];
        assert_eq!(rig.metrics().sum("ringside_scsi_no_response_room_total", &labels), 1.0);
    });
}

#[test]
fn r19_descriptors_of_no_bytes_are_ignored_and_the_queue_goes_on() {
    let mut live = Live::new();
    let area = live.client.regions[0].take(256);
    let header = test_unit_ready(0).header();
    area.slice.write(&header);
    let ring = live.client.queue(VICTIM).raw();
    let response = area.part(64, RESPONSE_LEN);
    // Nowhere, in the wrong order, and of no bytes.
    ring.set_descriptor(FREE, 0, 0, WRITE | NEXT, FREE + 1);
    ring.set_descriptor(FREE + 1, area.guest_addr, header.len() as u32, NEXT, FREE + 2);
    ring.set_descriptor(FREE + 2, u64::MAX, 0, WRITE | NEXT, FREE + 3);
    ring.set_descriptor(FREE + 3, u64::MAX, 0, NEXT, FREE + 4);
    ring.set_descriptor(FREE + 4, response.guest_addr, RESPONSE_LEN as u32, WRITE, 0);
    response.slice.fill(0xff);
    let (available, used) = (ring.avail_index(), ring.used_index());
    ring.set_avail_entry(available, FREE);
    ring.set_avail_index(available + 1);
    live.client.queue(VICTIM).kick();
    tests::live::until("it is answered", || ring.used_index() == used + 1);
    assert_eq!(ring.used_element(used), (u32::from(FREE), 12));
    assert_eq!(response.slice.read_array::<12>(), Some([0; 12]), "GOOD");
    live.others_go_on();
    assert!(!live.needs_reset());
    live.gate.open();
    tests::live::until("what was in flight is answered", || ring.used_index() == used + 2);
    live.rig.undisturbed(live.load);
}

#[test]
fn r12_random_cdbs_are_all_answered_and_the_queue_goes_on() {
    let mut live = Live::new();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..2_000 {
        let cdb: Vec<u8> = (0..32)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if state >> 62 == 0 { state as u8 } else { 0 }
            })
            .collect();
        let reply = live.client.run(VICTIM, Request::new(lun(0, 0), &cdb).data_in(512));
        assert!(matches!(reply.code(), 0 | 1), "cdb {cdb:x?}: response {}", reply.code());
    }
    good(live.client.run(VICTIM, read(0, 0, 1)));
    live.others_go_on();
    assert!(!live.needs_reset());
    live.gate.open();
    live.rig.undisturbed(live.load);
}
