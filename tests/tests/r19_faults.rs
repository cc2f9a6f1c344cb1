//! R19: what a driver must never do halts its queue, and only that: each row of the table of faults, as literal
//! descriptors. What halts nothing stands in `r04_framing.rs` and `r12_malformed.rs`.

use std::sync::Arc;

use bdev::Gate;
use bdev::testing::Recorder;
use tests::device::{CONTROL, Device, END, FIRST, Request, Setup, TEST_UNIT_READY, lun, read_10, unit};
use virtqueue::FaultReason::{self, *};
use virtqueue::split::RawSplit;

const SECOND: u16 = FIRST + 1;
const SIZE: u16 = 64;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Descriptors that the driver does not use for its own chains here.
const A: u16 = 50;
const B: u16 = 51;
const C: u16 = 52;

/// Where a chain finds its parts.
#[derive(Clone, Copy)]
struct Places {
    header: u64,
    response: u64,
    data: u64,
    table: u64,
}

/// A fault: makes one chain available that has it.
struct Row {
    name: &'static str,
    reason: FaultReason,
    make: fn(&Device, u16, Places),
}

const fn row(name: &'static str, reason: FaultReason, make: fn(&Device, u16, Places)) -> Row {
    Row { name, reason, make }
}

impl Row {
    /// Whether the fault is in a chain.
    fn has_head(&self) -> bool {
        self.reason != AvailIndexJump
    }
}

/// Puts descriptors into the table, from A on, and the first of them on the ring. Each is address, length, flags, next.
fn chain(device: &Device, index: u16, descriptors: &[(u64, u32, u16, u16)]) {
    let raw = device.raw(index);
    for (at, &(addr, len, flags, next)) in (A..).zip(descriptors) {
        raw.set_descriptor(at, addr, len, flags, next);
    }
    offer(device, index, A);
}

fn offer(device: &Device, index: u16, head: u16) {
    let raw = device.raw(index);
    raw.set_avail_entry(raw.avail_index(), head);
    raw.set_avail_index(raw.avail_index().wrapping_add(1));
}

/// An indirect table of these entries, and a chain that names it with `len` bytes.
fn indirect(device: &Device, index: u16, at: Places, entries: &[(u64, u32, u16, u16)], len: u32) {
    let bytes: Vec<u8> = entries
        .iter()
        .flat_map(|&(addr, len, flags, next)| RawSplit::descriptor_bytes(addr, len, flags, next))
        .collect();
    device.guest.write(at.table, &bytes);
    chain(device, index, &[(at.table, len, INDIRECT, 0)]);
}

const ROWS: &[Row] = &[
    row("readable after writable", ReadableAfterWritable, |device, index, at| {
        chain(device, index, &[(at.response, 108, WRITE | NEXT, B), (at.header, 51, 0, 0)]);
    }),
    row("readable after writable, further on", ReadableAfterWritable, |device, index, at| {
        chain(device, index, &[(at.header, 51, NEXT, B), (at.response, 108, WRITE | NEXT, C), (at.data, 512, 0, 0)]);
    }),
    row("readable after writable in a table", ReadableAfterWritable, |device, index, at| {
        indirect(
            device,
            index,
            at,
            &[(at.header, 51, NEXT, 1), (at.response, 108, WRITE | NEXT, 2), (at.data, 512, 0, 0)],
            48,
        );
    }),
    row("nested indirect", NestedIndirect, |device, index, at| {
        indirect(device, index, at, &[(at.header, 51, NEXT, 1), (at.table, 32, INDIRECT, 0)], 32);
    }),
    row("nested indirect at once", NestedIndirect, |device, index, at| {
        indirect(device, index, at, &[(at.table, 16, INDIRECT, 0)], 16);
    }),
    row("INDIRECT and NEXT", IndirectWithNext, |device, index, at| {
        indirect(device, index, at, &[(at.header, 51, NEXT, 1), (at.response, 108, WRITE, 0)], 32);
        device.raw(index).set_descriptor(A, at.table, 32, INDIRECT | NEXT, B);
        device.raw(index).set_descriptor(B, at.data, 512, WRITE, 0);
    }),
    row("loop of one", Loop, |device, index, at| {
        chain(device, index, &[(at.header, 51, NEXT, A)]);
    }),
    row("loop of two", Loop, |device, index, at| {
        chain(device, index, &[(at.header, 51, NEXT, B), (at.header, 51, NEXT, A)]);
    }),
    row("loop that the head is not in", Loop, |device, index, at| {
        chain(
            device,
            index,
            &[(at.header, 51, NEXT, B), (at.response, 108, WRITE | NEXT, C), (at.data, 512, WRITE | NEXT, B)],
        );
    }),
    row("loop of no bytes", Loop, |device, index, _| {
        chain(device, index, &[(0, 0, NEXT, B), (0, 0, NEXT, A)]);
    }),
    row("loop in a table", Loop, |device, index, at| {
        indirect(device, index, at, &[(at.header, 51, NEXT, 1), (at.response, 108, WRITE | NEXT, 1)], 32);
    }),
    row("chain longer than the ring", ChainTooLong, |device, index, at| {
        let mut entries: Vec<(u64, u32, u16, u16)> = (1..=SIZE).map(|next| (at.header, 1, NEXT, next)).collect();
        entries.push((at.response, 108, WRITE, 0));
        indirect(device, index, at, &entries, 16 * u32::from(SIZE + 1));
    }),
    row("chain longer than the ring with a table at its end", ChainTooLong, |device, index, at| {
        let mut entries: Vec<(u64, u32, u16, u16)> = (1..SIZE).map(|next| (at.header, 1, NEXT, next)).collect();
        entries.push((at.response, 108, WRITE, 0));
        indirect(device, index, at, &entries, 16 * u32::from(SIZE));
        device.raw(index).set_descriptor(A, at.header, 1, NEXT, B);
        device.raw(index).set_descriptor(B, at.table, 16 * u32::from(SIZE), INDIRECT, 0);
    }),
    row("head is the size", HeadOutOfRange, |device, index, _| offer(device, index, SIZE)),
    row("head is the largest number", HeadOutOfRange, |device, index, _| offer(device, index, u16::MAX)),
    row("head in flight", HeadInFlight, |device, index, _| offer(device, index, 0)),
    row("head twice in a batch", HeadInFlight, |device, index, at| {
        chain(device, index, &[(at.header, 51, NEXT, B), (at.response, 108, WRITE, 0)]);
        offer(device, index, A);
    }),
    row("available index jumps", AvailIndexJump, |device, index, _| {
        let raw = device.raw(index);
        raw.set_avail_index(raw.avail_index().wrapping_add(SIZE + 1));
    }),
    row("available index goes back", AvailIndexJump, |device, index, _| {
        let raw = device.raw(index);
        raw.set_avail_index(raw.avail_index().wrapping_sub(2)); // behind what was fetched
    }),
    row("next is the size", NextOutOfRange, |device, index, at| {
        chain(device, index, &[(at.header, 51, NEXT, SIZE)]);
    }),
    row("next is the largest number", NextOutOfRange, |device, index, at| {
        chain(device, index, &[(at.header, 51, NEXT, B), (at.response, 108, WRITE | NEXT, u16::MAX)]);
    }),
    row("next leads out of a table", NextOutOfRange, |device, index, at| {
        indirect(device, index, at, &[(at.header, 51, NEXT, 1), (at.response, 108, WRITE | NEXT, 2)], 32);
    }),
    row("address and length overflow", AddressOverflow, |device, index, _| {
        chain(device, index, &[(u64::MAX - 50, 52, 0, 0)]);
    }),
    row("address and length overflow, writable", AddressOverflow, |device, index, at| {
        chain(device, index, &[(at.header, 51, NEXT, B), (u64::MAX, u32::MAX, WRITE, 0)]);
    }),
    row("address and length of a table overflow", AddressOverflow, |device, index, _| {
        chain(device, index, &[(u64::MAX - 15, 32, INDIRECT, 0)]);
    }),
    row("behind memory", Unmapped, |device, index, _| {
        chain(device, index, &[(END, 51, 0, 0)]);
    }),
    row("one byte behind memory", Unmapped, |device, index, at| {
        chain(device, index, &[(at.header, 51, NEXT, B), (END - 107, 108, WRITE, 0)]);
    }),
    row("data outside memory", Unmapped, |device, index, at| {
        chain(
            device,
            index,
            &[(at.header, 51, NEXT, B), (at.response, 108, WRITE | NEXT, C), (1 << 40, 512, WRITE, 0)],
        );
    }),
    row("longer than memory", Unmapped, |device, index, at| {
        chain(device, index, &[(at.header, 51, NEXT, B), (0, u32::MAX, WRITE, 0)]);
    }),
    row("buffer of a table outside memory", Unmapped, |device, index, at| {
        indirect(device, index, at, &[(at.header, 51, NEXT, 1), (END, 108, WRITE, 0)], 32);
    }),
    row("last byte of the address space", Unmapped, |device, index, _| {
        chain(device, index, &[(u64::MAX, 1, 0, 0)]);
    }),
    row("table outside memory", IndirectUnmapped, |device, index, _| {
        chain(device, index, &[(END, 32, INDIRECT, 0)]);
    }),
    row("table that ends outside memory", IndirectUnmapped, |device, index, _| {
        chain(device, index, &[(END - 16, 32, INDIRECT, 0)]);
    }),
    row("table of no entries", IndirectLength, |device, index, at| {
        chain(device, index, &[(at.table, 0, INDIRECT, 0)]);
    }),
    row("table of less than an entry", IndirectLength, |device, index, at| {
        chain(device, index, &[(at.table, 15, INDIRECT, 0)]);
    }),
    row("table of one and a half entries", IndirectLength, |device, index, at| {
        indirect(device, index, at, &[(at.header, 51, NEXT, 1), (at.response, 108, WRITE, 0)], 33);
    }),
];

/// A unit behind the gate, and one that answers at once.
fn device(event_idx: bool) -> (Device, Recorder) {
    let gate = Gate::closed();
    let disk = Recorder::gated("disk", 64, 512, &gate).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.request_queues = 2;
    setup.ring_size = SIZE;
    setup.event_idx = event_idx;
    setup.gate = gate;
    (Device::ready(setup), disk)
}

fn places(device: &mut Device) -> Places {
    let header = device.reserve(64);
    device.guest.write(header, &Request::new(lun(0, 0), &TEST_UNIT_READY).header());
    let (response, data, table) = (device.reserve(108), device.reserve(512), device.reserve(16 * 128));
    Places { header, response, data, table }
}

fn read() -> Request {
    Request::new(lun(0, 0), &read_10(0, 1)).data_in(512)
}

fn ready() -> Request {
    Request::new(lun(0, 0), &TEST_UNIT_READY)
}

#[test]
fn r19_every_fault_halts_its_queue_and_nothing_else() {
    for (row, event_idx) in ROWS.iter().flat_map(|row| [(row, false), (row, true)]) {
        let what = row.name;
        let (mut device, disk) = device(event_idx);
        let at = places(&mut device);
        let errs = [device.err(FIRST), device.err(SECOND)];
        let call = device.call(FIRST);
        // Head 0 goes to the backend, and another one is served in the batch of the faulty chain.
        device.submit(FIRST, read());
        device.run();
        let served = device.submit(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY));
        (row.make)(&device, FIRST, at);
        device.run();

        assert!(device.broken(FIRST), "{what}");
        let ring = &device.ring_stats[usize::from(FIRST)];
        let counted = FaultReason::ALL.map(|reason| ring.faults[reason as usize].value());
        let expected = FaultReason::ALL.map(|reason| u64::from(reason == row.reason));
        assert_eq!(counted, expected, "{what}: reasons in the order of FaultReason::ALL");
        assert_eq!((errs[0].drain(), errs[1].drain()), (1, 0), "{what}: err descriptors");
        let report = device.reports.try_recv().unwrap();
        assert_eq!((report.ring, report.fault.reason), (FIRST, row.reason), "{what}");
        assert_eq!(report.fault.head.is_some(), row.has_head(), "{what}");
        assert!(device.reports.try_recv().is_err(), "{what}: told once");

        // What came before it was served; a jump of the index hides that.
        let before = device.used(FIRST);
        if row.has_head() {
            let twice = row.name == "head twice in a batch";
            assert_eq!(before, 2 + u16::from(twice), "{what}: unit attention, the chain before the fault");
            if !twice {
                assert_eq!(device.take(FIRST)[0].token, served, "{what}");
            }
        }

        // Nothing further is read, whatever the driver does to the ring.
        let raw = device.raw(FIRST);
        raw.set_descriptor(A, at.header, 51, NEXT, B);
        raw.set_descriptor(B, at.response, 108, WRITE, 0);
        offer(&device, FIRST, A);
        let memory = device.guest.snapshot();
        call.drain();
        device.run();
        memory.assert_untouched(&device.guest, what);
        assert_eq!((call.drain(), errs[0].drain()), (0, 0), "{what}");

        // The siblings go on, and what is in flight ends.
        device.answer(SECOND, ready()).assert_good(0);
        assert_eq!(device.manage(6, lun(0, 0), 0), 10, "{what}");
        device.gate.open();
        device.run();
        assert_eq!((device.used(FIRST), disk.calls().ended), (before + 1, 1), "{what}: the read ended");
        // With event indices the driver has not asked for another call.
        assert_eq!(call.drain(), u64::from(!event_idx), "{what}");

        // GET_VRING_BASE and a new ring recover it.
        let stopped = device.stop(FIRST).try_recv().unwrap();
        assert_eq!(stopped.fault.unwrap().reason, row.reason, "{what}");
        device.renew(FIRST, SIZE);
        device.start(FIRST, 0);
        assert!(!device.broken(FIRST), "{what}");
        device.answer(FIRST, ready()).assert_good(0);
        device.answer(FIRST, read()).assert_good(0);
        assert_eq!(errs[0].drain(), 0, "{what}");
    }
}

#[test]
fn r19_fault_on_the_control_queue_halts_the_control_queue() {
    for row in ROWS.iter().filter(|row| row.reason != HeadInFlight) {
        let (mut device, _) = device(false);
        let at = places(&mut device);
        assert_eq!(device.manage(6, lun(0, 0), 0), 0);
        (row.make)(&device, CONTROL, at);
        device.run();
        assert!(device.broken(CONTROL), "{}", row.name);
        assert_eq!(device.ring_stats[0].faults[row.reason as usize].value(), 1, "{}", row.name);
        device.answer(FIRST, ready()).assert_good(0);
        assert!(!device.broken(FIRST));
        device.restart(CONTROL);
        assert_eq!(device.manage(6, lun(0, 0), 0), 0, "{}", row.name);
    }
}

#[test]
fn r19_available_index_may_be_a_whole_ring_ahead() {
    let (mut device, _) = device(false);
    let chain = |device: &mut Device| device.segments(&ready().message());
    for _ in 0..SIZE {
        let segments = chain(&mut device);
        device.submit_indirect(FIRST, &segments);
    }
    device.run();
    assert_eq!(device.take(FIRST).len(), usize::from(SIZE));
    assert!(!device.broken(FIRST));
}

#[test]
fn r19_chain_as_long_as_the_ring_is_served() {
    let (mut device, _) = device(false);
    let message = ready().message();
    let cuts = [vec![1; 40], vec![1; usize::from(SIZE) - 42]];
    let segments = device.cut(&message, &cuts[0], &cuts[1]);
    assert_eq!(segments.len(), usize::from(SIZE));
    device.answer_chain(FIRST, &segments).assert_good(0);
    let token = device.submit_indirect(FIRST, &segments);
    device.answer_to(FIRST, token).assert_good(0);
}

/// The last bytes of memory are memory.
#[test]
fn r19_buffers_at_the_very_end_of_memory_are_served() {
    let (mut device, _) = device(false);
    device.guest.write(END - 51, &ready().header());
    let response = device.writable(108);
    device.answer_chain(FIRST, &[virtqueue::Segment::readable(END - 51, 51), response]).assert_good(0);
    let header = device.readable(&ready().header());
    device.guest.write(END - 108, &[0xa5; 108]);
    device.answer_chain(FIRST, &[header, virtqueue::Segment::writable(END - 108, 108)]).assert_good(0);
}

/// A descriptor of no bytes says nothing: neither its address nor its direction is looked at.
#[test]
fn r19_descriptors_of_no_bytes_are_ignored() {
    let (mut device, _) = device(false);
    let at = places(&mut device);
    chain(
        &device,
        FIRST,
        &[
            (u64::MAX, 0, WRITE | NEXT, B),
            (at.header, 51, NEXT, C),
            (at.response, 108, WRITE | NEXT, C + 1),
            (END, 0, NEXT, C + 2),
            (1 << 50, 0, 0, 0),
        ],
    );
    device.run();
    assert_eq!(device.raw(FIRST).used_element(1), (u32::from(A), 12));
    assert_eq!(device.guest.read(at.response, 12), [0; 12]);
    assert!(!device.broken(FIRST));
}

/// A chain of nothing but such descriptors has no room for an answer.
#[test]
fn r19_chain_of_no_bytes_gets_a_bare_used_entry() {
    let (mut device, _) = device(false);
    chain(&device, FIRST, &[(0, 0, NEXT, B), (0, 0, WRITE, 0)]);
    device.run();
    assert_eq!(device.raw(FIRST).used_element(1), (u32::from(A), 0));
    assert_eq!(device.stats(0).no_response_room.value(), 1);
    chain(&device, CONTROL, &[(0, 0, NEXT, B), (0, 0, WRITE, 0)]);
    device.run();
    assert_eq!(device.raw(CONTROL).used_element(0), (u32::from(A), 0));
    assert_eq!(device.stats(0).no_response_room.value(), 2);
}

/// WRITE on the descriptor that names an indirect table means nothing (virtio 1.3 §2.7.5.3.2).
#[test]
fn r19_indirect_with_write_is_no_fault() {
    let (mut device, _) = device(false);
    let at = places(&mut device);
    indirect(&device, FIRST, at, &[(at.header, 51, NEXT, 1), (at.response, 108, WRITE, 0)], 32);
    device.raw(FIRST).set_descriptor(A, at.table, 32, INDIRECT | WRITE, 0);
    device.run();
    assert_eq!(device.raw(FIRST).used_element(1), (u32::from(A), 12));
}

#[test]
fn r19_err_descriptor_that_comes_after_the_fault_is_signalled_at_once() {
    let (mut device, _) = device(false);
    offer(&device, FIRST, SIZE);
    device.run();
    assert_eq!(device.err(FIRST).drain(), 1);
    device.restart(FIRST);
    assert_eq!(device.err(FIRST).drain(), 0);
}

#[test]
fn r19_faults_are_counted_each_time() {
    let (mut device, _) = device(false);
    for times in 1..=5 {
        offer(&device, FIRST, SIZE);
        device.run();
        let ring = &device.ring_stats[usize::from(FIRST)];
        assert_eq!(ring.faults[HeadOutOfRange as usize].value(), times);
        device.restart(FIRST);
    }
}
