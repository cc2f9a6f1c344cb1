//! The short way that READ and WRITE take (`virtio-scsi/src/request/quick.rs`) ends every request as the long way does. Devices
//! over the same kind of memory get the same requests: two whose commands may go the short way, as their disk ends them at once, or
//! is not known to, though it does; one whose commands all go the long way, as their headers come in two pieces; and, in one
//! test, one whose disk keeps everything until it is asked.

use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Bdev, Delay, Gate, Malloc};
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
    /// A disk that keeps commands takes part. So nothing may depend on when a command ends: no limit, no attributes, no second steps,
    /// one poller, one of the units.
    kept: bool,
}

struct Peers {
    short: Device,
    /// What has to be the same with these, in every respect.
    others: [Device; 2],
    /// Only what drivers see, in any order, and what there is on the disk.
    kept: Option<Device>,
    disks: Vec<Arc<Malloc>>,
}

/// A request, and how it lies in memory.
struct Case {
    message: Message,
    /// Lengths of the first pieces in each direction.
    cuts: [Vec<usize>; 2],
    indirect: bool,
}

impl Peers {
    fn new(theme: Theme) -> Peers {
        let disk = |_| Arc::new(Malloc::new("disk", BLOCKS * 512, 512).unwrap());
        let disks: Vec<_> = (0..4).map(disk).collect();
        disks.iter().for_each(|disk| drop(fill(&**disk)));
        let device = |bdev: Arc<dyn Bdev>| {
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
        };
        let gate = Gate::closed();
        gate.open();
        Peers {
            short: device(disks[0].clone()),
            others: [device(Arc::new(Recorder::over(disks[1].clone()))), device(disks[2].clone())],
            kept: theme.kept.then(|| device(Arc::new(Delay::held(disks[3].clone(), &gate)))),
            disks,
        }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Device> {
        [&mut self.short].into_iter().chain(&mut self.others).chain(&mut self.kept)
    }

    /// The same batch to all, and the same replies from all.
    fn round(&mut self, batch: &[(u16, Case)], what: &str) {
        let long = &raw const self.others[1];
        let replies: Vec<_> = self
            .each()
            .map(|device| {
                let long = std::ptr::eq(device, long);
                batch.iter().for_each(|(queue, case)| submit(device, FIRST + queue, case, long));
                device.run();
                [device.take(FIRST), device.take(FIRST + 1)]
            })
            .collect();
        let seen =
            |replies: &[Vec<Reply>; 2]| replies.each_ref().map(|replies| replies.iter().map(seen).collect::<Vec<_>>());
        let short = seen(&replies[0]);
        for (other, replies) in self.others.iter().zip(&replies[1..]) {
            assert!(short == seen(replies), "{what}: replies differ");
            assert_eq!(counters(&self.short), counters(other), "{what}");
        }
        if let (Some(replies), Some(kept)) = (replies.get(3), &self.kept) {
            let sorted = |mut replies: [Vec<_>; 2]| {
                replies.iter_mut().for_each(|replies| replies.sort());
                replies
            };
            assert!(sorted(short) == sorted(seen(replies)), "{what}: replies differ");
            let but_high_water = |device| {
                let high_water = |at: usize| at >= 13 && (at - 13) % 12 == 9;
                counters(device).into_iter().enumerate().filter(move |&(at, _)| !high_water(at))
            };
            assert!(but_high_water(&self.short).eq(but_high_water(kept)), "{what}: counters differ");
        }
        for device in self.each() {
            assert_eq!((device.in_flight(0), device.in_flight(1)), (0, 0), "{what}");
        }
        let used = if self.kept.is_some() { 4 } else { 3 };
        let first = medium(&*self.disks[0]);
        assert!(self.disks[1..used].iter().all(|disk| medium(&**disk) == first), "{what}: the disks differ");
    }
}

/// What a driver sees of a reply.
fn seen(reply: &Reply) -> (usize, u32, Vec<u8>) {
    (reply.token, reply.written, reply.writable.clone())
}

/// `long`: in the form that is not the usual one.
fn submit(device: &mut Device, queue: u16, case: &Case, long: bool) {
    let readable = match case.cuts[0].split_first() {
        Some((51, rest)) if long => [&[20, 31], rest].concat(),
        _ => case.cuts[0].clone(),
    };
    let segments = device.cut(&case.message, &readable, &case.cuts[1]);
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
fn case(noise: &mut Noise, &Theme { odd, kept, .. }: &Theme) -> Case {
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
        cdb[0] = noise.pick(&[0x08, 0x0a, 0xa8, 0xaa, 0x00, 0x2f, 0x12, 0xff, if kept { 0x28 } else { 0x2e }]);
    }
    if turn(noise) {
        cdb[1] |= noise.pick(&[0x08, 0x10, 0x18, 0x20, 0x40, 0xe0, 0x01]);
    }
    if turn(noise) {
        cdb[noise.pick(&[9, 15])] |= noise.pick(&[0x04, 0x01, 0xc0]);
    }
    let address = match turn(noise) {
        false => lun(0, noise.below(2) as u16 * u16::from(noise.once_in(4) && !kept)),
        true if kept => noise.pick(&[lun(0, 5), lun(3, 0), [0; 8]]),
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
    let attribute = if turn(noise) && !kept { noise.pick(&[1, 2, 3, 4]) } else { 0 };
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
    let mut peers = Peers::new(theme);
    let mut noise = Noise::new(seed);
    for round in 0..ROUNDS {
        let count = 1 + noise.below(24);
        let batch: Vec<_> = (0..count).map(|_| (noise.below(2) as u16, case(&mut noise, &theme))).collect();
        peers.round(&batch, &format!("{theme:?}, seed {seed}, round {round}"));
    }
}

fn theme() -> Theme {
    Theme { limits: Limits::default(), odd: 2, read_only: false, shards: 1, kept: false }
}

#[test]
fn quick_commands_end_as_all_others_do() {
    compare(theme(), 1);
    compare(Theme { odd: 30, ..theme() }, 2);
    compare(Theme { odd: 1, shards: 2, ..theme() }, 3);
}

#[test]
fn quick_commands_that_a_disk_keeps_end_as_all_others_do() {
    for (odd, seed) in [(2, 7), (30, 8), (1000, 9)] {
        compare(Theme { kept: true, odd, ..theme() }, seed);
    }
    let limits = Limits { max_sectors: 6, seg_max: Some(5), ..Limits::default() };
    compare(Theme { kept: true, odd: 8, limits, ..theme() }, 10);
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
    let mut peers = Peers::new(theme());
    let usual = |write: bool| {
        let request = Request::new(lun(0, 0), &if write { write_10(120, 8) } else { read_10(120, 8) });
        let request = if write { request.data_out([7; 4096]) } else { request.data_in(4096) };
        Case { message: request.message(), cuts: [vec![51], vec![108]], indirect: false }
    };
    let step = |peers: &mut Peers, what: &str| {
        let batch: Vec<_> = (0..6).map(|index| (0, usual(index % 3 == 1))).collect();
        peers.round(&batch, what);
    };
    step(&mut peers, "as it was");
    for blocks in [124, BLOCKS] {
        for device in peers.each() {
            let announcement = device.controller.resize(0, 0, blocks).unwrap();
            device.shards[0].announce(announcement);
        }
        step(&mut peers, "another capacity");
        let errors = peers.short.count(|stats| stats.units[0].errors.value());
        assert_eq!(errors, if blocks == 124 { 1 + 6 } else { 1 + 6 + 1 }, "POWER ON, then the attention or the range");
    }
    for device in peers.each() {
        device.submit(FIRST, Request::new(lun(0, 0), &TEST_UNIT_READY));
        assert_eq!(device.manage(5, lun(0, 0), 0), 0, "LOGICAL UNIT RESET");
        let _ = device.take(FIRST);
    }
    step(&mut peers, "after a reset");
}
