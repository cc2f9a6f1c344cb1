//! R05: what the device did is what its counters say, and the limits are in config space.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Gate, Status};
use tests::device::{
    CONTROL, Device, FIRST, Message, Noise, Request, Setup, TEST_UNIT_READY, lun, read_10, unit, write_10,
};
use virtio_scsi::{Controller, ControllerConfig, Limit, Limits};

#[test]
fn r05_config_space_has_the_configured_limits() {
    let space = |limits, request_queues, queue_size_max| {
        let config = ControllerConfig {
            name: "c".into(),
            request_queues,
            queue_size_max,
            in_order: false,
            limits,
            units: Vec::new(),
        };
        Controller::new(config).config_space()
    };
    #[rustfmt::skip]
    assert_eq!(space(Limits::default(), 4, 1024), [
        4, 0, 0, 0, // num_queues
        0xfe, 3, 0, 0, // seg_max: queue_size_max - 2
        0xff, 0xff, 0, 0, // max_sectors 65535, as QEMU's default
        128, 0, 0, 0, // cmd_per_lun 128, as QEMU's default
        16, 0, 0, 0, // event_info_size
        96, 0, 0, 0, // sense_size
        32, 0, 0, 0, // cdb_size
        0, 0, // max_channel
        0xff, 0, // max_target
        0xff, 0x3f, 0, 0, // max_lun
    ]);
    let limits = Limits { cmd_per_lun: 7, max_sectors: 0x40_0000, seg_max: Some(126), ..Limits::default() };
    let custom = space(limits, 254, 256);
    assert_eq!(custom[..16], [254, 0, 0, 0, 126, 0, 0, 0, 0, 0, 0x40, 0, 7, 0, 0, 0]);
}

#[test]
fn r05_gauges_follow_the_commands_in_flight() {
    let gate = Gate::closed();
    let disk = Recorder::gated("disk", 64, 512, &gate).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk))]);
    setup.gate = gate;
    let mut device = Device::new(setup);
    let unit = |device: &Device| {
        let stats = &device.stats(0).units[0];
        (stats.in_flight.value(), stats.high_water.value())
    };
    assert_eq!(unit(&device), (0, 0));
    device.answer(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY)); // the unit attention
    assert_eq!(unit(&device), (0, 1));
    device.submit_many(FIRST, 5, Request::new(lun(0, 0), &read_10(0, 1)).data_in(512));
    device.run();
    assert_eq!(unit(&device), (5, 5));
    device.gate.release(3);
    device.run();
    assert_eq!(unit(&device), (2, 5));
    device.submit_many(FIRST, 2, Request::new(lun(0, 0), &read_10(0, 1)).data_in(512));
    device.gate.open();
    device.run();
    assert_eq!((unit(&device), device.take(FIRST).len()), ((0, 5), 7));
}

#[test]
fn r05_task_management_is_counted_by_function_and_response() {
    let disk = Recorder::new("disk", 64, 512).unwrap();
    let mut device = Device::ready(Setup::of([unit(0, 0, Arc::new(disk))]));
    // Subtype, LUN, response: of each as many as its position says.
    let cases = [(0, lun(0, 0), 0), (1, lun(0, 7), 12), (2, lun(0, 0), 11), (5, lun(9, 0), 3), (77, lun(0, 0), 11)];
    for (index, (subtype, lun, code)) in cases.into_iter().enumerate() {
        for _ in 0..=index {
            assert_eq!(device.manage(subtype, lun, 0), code);
        }
    }
    for (function, code, count) in [(0, 0, 1), (1, 12, 2), (2, 11, 3), (5, 3, 4), (8, 11, 5)] {
        assert_eq!(device.stats(0).tmfs[function][code].value(), count, "function {function}, response {code}");
    }
    let all: u64 = device.stats(0).tmfs.iter().flatten().map(|counter| counter.value()).sum();
    assert_eq!(all, 15);
    assert_eq!(device.stats(0).tmf_duration.snapshot().count(), 1, "of those that reached the shards");
}

/// What should have been counted.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    reads: u64,
    writes: u64,
    others: u64,
    read_bytes: u64,
    write_bytes: u64,
    errors: u64,
    refused: [u64; 3],
    absent_refused: [u64; 3],
    responses: [u64; 13],
    no_response_room: u64,
    chains: u64,
    read_latencies: u64,
    write_latencies: u64,
}

impl Tally {
    fn of(device: &Device) -> Tally {
        let units = |counter: fn(&virtio_scsi::UnitStats) -> u64| {
            device.count(|stats| stats.units.iter().map(counter).sum::<u64>())
        };
        Tally {
            reads: units(|unit| unit.reads.value()),
            writes: units(|unit| unit.writes.value()),
            others: units(|unit| unit.others.value()),
            read_bytes: units(|unit| unit.read_bytes.value()),
            write_bytes: units(|unit| unit.write_bytes.value()),
            errors: units(|unit| unit.errors.value()),
            refused: [0, 1, 2].map(|limit| device.count(|stats| stats.units[0].refused[limit].value())),
            absent_refused: [0, 1, 2].map(|limit| device.count(|stats| stats.absent_refused[limit].value())),
            responses: std::array::from_fn(|code| device.responses(code as u8)),
            no_response_room: device.count(|stats| stats.no_response_room.value()),
            chains: device.ring_stats.iter().map(|ring| ring.chains.value()).sum(),
            read_latencies: units(|unit| unit.read_latency.snapshot().count()),
            write_latencies: units(|unit| unit.write_latency.snapshot().count()),
        }
    }
}

const KINDS: u64 = 18;

/// A request of some kind, and what it adds to the counters; the response that it gets.
fn request(kind: u64, disk: &Recorder, tally: &mut Tally) -> (Message, u8) {
    let command = |cdb: &[u8]| Request::new(lun(0, 0), cdb);
    let read = |lba, blocks: u16| command(&read_10(lba, blocks)).data_in(usize::from(blocks) * 512);
    let write = |lba, blocks: u16| command(&write_10(lba, blocks)).data_out(vec![1; usize::from(blocks) * 512]);
    let (reads, writes) = ((1, 0, 0), (0, 1, 0));
    let others = (0, 0, 1);
    let ((read_count, write_count, other_count), message, code) = match kind {
        0 => {
            tally.read_bytes += 3 * 512;
            (reads, read(7, 3).message(), 0)
        }
        1 => {
            tally.write_bytes += 1024;
            (writes, write(7, 2).message(), 0)
        }
        2 => (others, command(&TEST_UNIT_READY).message(), 0),
        3 => (others, command(&[0x12, 0, 0, 0, 36, 0]).data_in(36).message(), 0),
        4 => (others, command(&[0x35]).message(), 0),
        5 => {
            tally.errors += 1;
            (reads, read(1024, 1).message(), 0)
        }
        6 => {
            tally.errors += 1;
            (others, command(&[0xee]).message(), 0)
        }
        7 => (reads, command(&read_10(0, 2)).data_in(512).message(), 1),
        8 => (writes, command(&write_10(0, 1)).message(), 1),
        9 => ((0, 0, 0), Request::new(lun(3, 0), &TEST_UNIT_READY).message(), 3),
        10 => ((0, 0, 0), Request::new(lun(0, 3), &TEST_UNIT_READY).message(), 0),
        11 => {
            tally.refused[Limit::MaxSectors as usize] += 1;
            ((0, 0, 0), read(0, 9).message(), 9)
        }
        12 => {
            tally.absent_refused[Limit::MaxSectors as usize] += 1;
            ((0, 0, 0), Request::new(lun(0, 3), &read_10(0, 9)).data_in(9 * 512).message(), 9)
        }
        13 => ((0, 0, 0), read(0, 1).data_out([0; 512]).message(), 9),
        14 => ((0, 0, 0), Message { readable: vec![1; 50], writable: 108 }, 9),
        15 => {
            tally.no_response_room += 1;
            return (Message { readable: read(0, 1).message().readable, writable: 11 }, 0);
        }
        16 => {
            disk.fail_next(1, Status::ReadError);
            tally.errors += 1;
            (reads, read(0, 1).message(), 0)
        }
        _ => ((0, 0, 0), Request::new([0xc1, 1, 0, 0, 0, 0, 0, 0], &TEST_UNIT_READY).message(), 0),
    };
    tally.reads += read_count;
    tally.writes += write_count;
    tally.others += other_count;
    tally.read_latencies += read_count;
    tally.write_latencies += write_count;
    tally.responses[usize::from(code)] += 1;
    (message, code)
}

#[test]
fn r05_counters_equal_what_happened_over_random_requests() {
    const SEED: u64 = 5;
    for (shards, instant) in [(1, true), (2, true), (1, false), (2, false)] {
        let gate = Gate::closed();
        gate.open();
        let disk = match instant {
            true => Recorder::new("disk", 1024, 512).unwrap(),
            false => Recorder::gated("disk", 1024, 512, &gate).unwrap(),
        };
        let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
        setup.limits.max_sectors = 8;
        setup.request_queues = 2;
        setup.shards = shards;
        setup.gate = gate;
        let mut device = Device::ready(setup);
        let mut expected = Tally { others: 1, errors: 1, chains: 1, ..Tally::default() }; // the unit attention
        expected.responses[0] = 1;
        let mut noise = Noise::new(SEED);
        for round in 0..2000 {
            let index = FIRST + noise.below(2) as u16;
            let kind = noise.below(KINDS);
            let (message, code) = request(kind, &disk, &mut expected);
            expected.chains += 1;
            let reply = device.answer(index, message);
            if reply.writable.len() >= 12 {
                assert_eq!(reply.code(), code, "kind {kind}, seed {SEED}, round {round}");
            }
            if round % 100 == 99 {
                assert_eq!(Tally::of(&device), expected, "seed {SEED}, round {round}, {shards} shards");
            }
        }
    }
}

#[test]
fn r05_ring_counters_tell_chains_batches_and_calls() {
    let disk = Recorder::new("disk", 64, 512).unwrap();
    let mut device = Device::ready(Setup::of([unit(0, 0, Arc::new(disk))]));
    let ring = Arc::clone(&device.ring_stats[usize::from(FIRST)]);
    let call = device.call(FIRST);
    call.drain();
    let (chains, batches, calls) = (ring.chains.value(), ring.batches(), ring.calls.value());
    device.submit_many(FIRST, 5, Request::new(lun(0, 0), &TEST_UNIT_READY));
    device.run();
    assert_eq!((ring.chains.value(), ring.batches()), (chains + 5, batches + 1));
    assert_eq!((ring.calls.value(), call.drain()), (calls + 1, 1), "one call for the batch");
    let suppressed = ring.calls_suppressed.value();
    device.raw(FIRST).set_avail_flags(1); // NO_INTERRUPT
    device.submit_many(FIRST, 5, Request::new(lun(0, 0), &TEST_UNIT_READY));
    device.run();
    assert_eq!((ring.calls.value(), ring.calls_suppressed.value(), call.drain()), (calls + 1, suppressed + 1, 0));
    assert_eq!((ring.size.value(), ring.broken.value()), (128, 0));
    assert_eq!(device.take(FIRST).len(), 10);
    assert_eq!(device.manage(5, lun(0, 0), 0), 0);
    assert_eq!(device.ring_stats[usize::from(CONTROL)].chains.value(), 1);
}
