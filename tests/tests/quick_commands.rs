//! The short way that READ and WRITE take (`virtio-scsi/src/request/quick.rs`) ends every request as the long way does. Two
//! devices get the same requests: one over memory, whose commands may go the short way, and one over the same kind of memory
//! behind a device that is not known to end anything at once, whose commands all go the long way.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Bdev, Malloc};
use tests::device::{
    Device, FIRST, Message, Noise, Reply, Request, Setup, TEST_UNIT_READY, fill, lun, medium, read_10, unit_with,
    write_10,
};
use virtio_scsi::{Limit, Limits, OnCommandLimit, OnTransferLimit};

const BLOCKS: u64 = 128;
const ROUNDS: u32 = 400;

/// What a round of requests is about.
#[derive(Clone, Copy, Debug)]
struct Theme {
    limits: Limits,
    /// One request in so many is not as usual.
    odd: u64,
    read_only: bool,
    shards: usize,
}

struct Pair {
    short: Device,
    long: Device,
    disks: [Arc<Malloc>; 2],
}

/// A request, and how it lies in memory.
struct Case {
    message: Message,
    /// Lengths of the first pieces in each direction.
    cuts: [Vec<usize>; 2],
    indirect: bool,
}

impl Pair {
    fn new(theme: Theme) -> Pair {
        let disks = [0, 1].map(|_| Arc::new(Malloc::new("disk", BLOCKS * 512, 512).unwrap()));
        disks.iter().for_each(|disk| drop(fill(&**disk)));
        let bdevs: [Arc<dyn Bdev>; 2] = [disks[0].clone(), Arc::new(Recorder::over(disks[1].clone()))];
        let [short, long] = bdevs.map(|bdev| {
            let unit = |number| {
                unit_with(0, number, Arc::clone(&bdev), |config| {
                    config.read_only = theme.read_only;
                    config.max_transfer_blocks = 40 * u32::from(number);
                })
            };
            let mut setup = Setup::of([unit(0), unit(1)]);
            setup.limits = theme.limits;
            setup.request_queues = 2;
            setup.shards = theme.shards;
            Device::ready(setup)
        });
        Pair { short, long, disks }
    }

    /// The same batch to both, and the same replies from both.
    fn round(&mut self, batch: &[(u16, Case)], what: &str) {
        let [short, long] = [&mut self.short, &mut self.long].map(|device| {
            batch.iter().for_each(|(queue, case)| submit(device, FIRST + queue, case));
            device.run();
            [device.take(FIRST), device.take(FIRST + 1)]
        });
        for (short, long) in short.iter().flatten().zip(long.iter().flatten()) {
            assert_eq!(seen(short), seen(long), "{what}");
        }
        assert_eq!(short.map(|replies| replies.len()), long.map(|replies| replies.len()), "{what}");
        assert_eq!(counters(&self.short), counters(&self.long), "{what}");
        assert_eq!((self.short.in_flight(0), self.short.in_flight(1)), (0, 0), "{what}");
        assert!(medium(&*self.disks[0]) == medium(&*self.disks[1]), "{what}: the disks differ");
    }
}

/// What a driver sees of a reply.
fn seen(reply: &Reply) -> (usize, u32, &[u8]) {
    (reply.token, reply.written, &reply.writable)
}

fn submit(device: &mut Device, queue: u16, case: &Case) {
    let segments = device.cut(&case.message, &case.cuts[0], &case.cuts[1]);
    if case.indirect {
        device.submit_indirect(queue, &segments);
    } else {
        device.submit_chain(queue, &segments);
    }
}

/// What an operator sees.
fn counters(device: &Device) -> Vec<u64> {
    let mut all: Vec<u64> = (0..13).map(|code| device.responses(code)).collect();
    for unit in 0..2 {
        all.extend([Limit::CmdPerLun, Limit::MaxSectors, Limit::SegMax].map(|limit| device.refused(unit, limit)));
        all.extend([
            device.count(|stats| stats.units[unit].reads.value()),
            device.count(|stats| stats.units[unit].writes.value()),
            device.count(|stats| stats.units[unit].others.value()),
            device.count(|stats| stats.units[unit].read_bytes.value()),
            device.count(|stats| stats.units[unit].write_bytes.value()),
            device.count(|stats| stats.units[unit].errors.value()),
            device.count(|stats| stats.units[unit].high_water.value()),
            device.count(|stats| stats.units[unit].read_latency.snapshot().count()),
            device.count(|stats| stats.units[unit].write_latency.snapshot().count()),
        ]);
    }
    all
}

/// A request as drivers nearly always send them, with nothing, one thing or several things about it that are not.
fn case(noise: &mut Noise, odd: u64) -> Case {
    let turn = |noise: &mut Noise| noise.once_in(odd * 12);
    let lba = noise.below(BLOCKS - 8) as u32;
    let blocks = 1 + noise.below(8) as u16;
    let lba = if turn(noise) { noise.pick(&[127, 128, 129, u32::MAX]) } else { lba };
    let blocks = if turn(noise) { noise.pick(&[0, 9, 17, 41, 129]) } else { blocks };
    let write = noise.once_in(2);
    let mut cdb = [0; 16];
    if noise.once_in(3) {
        cdb[0] = if write { 0x8a } else { 0x88 };
        cdb[6..10].copy_from_slice(&lba.to_be_bytes());
        cdb[12..14].copy_from_slice(&blocks.to_be_bytes());
        if turn(noise) {
            cdb[2 + noise.below(4) as usize] = 1; // beyond 32 bits
        }
    } else {
        let short = if write { write_10(lba, blocks) } else { read_10(lba, blocks) };
        cdb[..10].copy_from_slice(&short);
    }
    if turn(noise) {
        cdb[0] = noise.pick(&[0x08, 0x0a, 0xa8, 0xaa, 0x00, 0x2f, 0x2e, 0x12, 0xff]);
    }
    if turn(noise) {
        cdb[1] |= noise.pick(&[0x08, 0x10, 0x18, 0x20, 0x40, 0xe0, 0x01]);
    }
    if turn(noise) {
        cdb[noise.pick(&[9, 15])] |= noise.pick(&[0x04, 0x01, 0xc0]);
    }
    let address = match turn(noise) {
        false => lun(0, noise.below(2) as u16 * u16::from(noise.once_in(4))),
        true => noise.pick(&[lun(0, 5), lun(3, 0), [1, 0, 0, 1, 0, 0, 0, 0], [0; 8], [0xc1, 1, 0, 0, 0, 0, 0, 0]]),
    };
    let mut bytes = usize::from(blocks.min(60)) * 512;
    if turn(noise) {
        bytes = noise.pick(&[0, 1, 511, bytes + 1, bytes + 512, bytes.saturating_sub(512)]);
    }
    let (mut out, mut into) = if write { (bytes, 0) } else { (0, bytes) };
    if turn(noise) {
        (out, into) = noise.pick(&[(into, out), (512, into), (out, 512)]);
    }
    let attribute = if turn(noise) { noise.pick(&[1, 2, 3, 4]) } else { 0 };
    let data = vec![noise.bits() as u8; out];
    let mut message =
        Request::new(address, &cdb).tag(noise.bits()).attribute(attribute).data_out(data).data_in(into).message();
    if turn(noise) {
        message.readable.truncate(noise.pick(&[0, 1, 19, 50]));
    }
    if turn(noise) {
        message.writable = noise.pick(&[1, 11, 12, 107]);
    }
    let mut cuts = [vec![51], vec![108]];
    for cut in &mut cuts {
        if turn(noise) {
            *cut = noise
                .pick(&[&[][..], &[20, 31], &[50], &[52], &[109], &[12, 96], &[51, 0], &[108, 0], &[0, 51]])
                .into();
        }
        if turn(noise) {
            cut.extend(vec![512; noise.pick(&[1, 2, 3, 5])]);
        }
    }
    Case { message, cuts, indirect: noise.once_in(3) }
}

fn compare(theme: Theme, seed: u64) {
    let mut pair = Pair::new(theme);
    let mut noise = Noise::new(seed);
    for round in 0..ROUNDS {
        let count = 1 + noise.below(24);
        let batch: Vec<_> = (0..count).map(|_| (noise.below(2) as u16, case(&mut noise, theme.odd))).collect();
        pair.round(&batch, &format!("{theme:?}, seed {seed}, round {round}"));
    }
}

fn theme() -> Theme {
    Theme { limits: Limits::default(), odd: 2, read_only: false, shards: 1 }
}

#[test]
fn quick_commands_end_as_all_others_do() {
    compare(theme(), 1);
    compare(Theme { odd: 30, ..theme() }, 2);
    compare(Theme { odd: 1, shards: 2, ..theme() }, 3);
}

#[test]
fn r01_quick_commands_are_measured_by_max_sectors_and_seg_max() {
    for (on_max_sectors, seed) in [(OnTransferLimit::Transport, 4), (OnTransferLimit::Scsi, 5)] {
        let limits = Limits { max_sectors: 6, on_max_sectors, ..Limits::default() };
        compare(Theme { limits, odd: 8, ..theme() }, seed);
    }
    for seg_max in [1, 2, 3, 4, 5] {
        compare(Theme { limits: Limits { seg_max: Some(seg_max), ..Limits::default() }, ..theme() }, seg_max.into());
    }
}

#[test]
fn r02_quick_commands_are_counted_as_all_others_are() {
    for (on_cmd_per_lun, limit) in
        [(OnCommandLimit::Transport, 1), (OnCommandLimit::Failure, 5), (OnCommandLimit::Scsi, 9)]
    {
        for shards in [1, 2] {
            let limits = Limits { cmd_per_lun: limit, on_cmd_per_lun, ..Limits::default() };
            compare(Theme { limits, shards, odd: 10, ..theme() }, limit.into());
        }
    }
}

#[test]
fn quick_commands_to_a_read_only_unit_end_as_all_others_do() {
    compare(Theme { read_only: true, ..theme() }, 6);
}

/// What a unit has to report, and what an initiator has asked of it, holds for the very next command.
#[test]
fn quick_commands_see_attentions_modes_and_sizes_at_once() {
    let mut pair = Pair::new(theme());
    let usual = |write: bool| {
        let request = Request::new(lun(0, 0), &if write { write_10(120, 8) } else { read_10(120, 8) });
        let request = if write { request.data_out([7; 4096]) } else { request.data_in(4096) };
        Case { message: request.message(), cuts: [vec![51], vec![108]], indirect: false }
    };
    let step = |pair: &mut Pair, what: &str| {
        let batch: Vec<_> = (0..6).map(|index| (0, usual(index % 3 == 1))).collect();
        pair.round(&batch, what);
    };
    step(&mut pair, "as it was");
    for blocks in [124, BLOCKS] {
        for device in [&mut pair.short, &mut pair.long] {
            let announcement = device.controller.resize(0, 0, blocks).unwrap();
            device.shards[0].announce(announcement);
        }
        step(&mut pair, "another capacity");
        let errors = pair.short.count(|stats| stats.units[0].errors.value());
        assert_eq!(errors, if blocks == 124 { 1 + 6 } else { 1 + 6 + 1 }, "POWER ON, then the attention or the range");
    }
    for device in [&mut pair.short, &mut pair.long] {
        device.submit(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY));
        assert_eq!(device.manage(5, lun(0, 0), 0), 0, "LOGICAL UNIT RESET");
        let _ = device.take(FIRST);
    }
    step(&mut pair, "after a reset");
}
