//! R12 and R19 under noise: whatever a driver sends, every chain is completed exactly once or halts its own queue, and
//! a second queue of the same device goes on as if nothing were.

use std::sync::Arc;

use bdev::{Bdev, Delay, Gate, Malloc};
use reactor::Source as _;
use tests::device::{
    CONTROL, Device, FIRST, Message, Noise, Request, Setup, TEST_UNIT_READY, fill, lun, medium, read_10,
    task_management, unit, write_10,
};
use virtqueue::split::RawSplit;

const INPUTS: u32 = 10_000;
const NOISY: u16 = FIRST;
const CLEAN: u16 = FIRST + 1;
const SIZE: u16 = 64;

struct Fixture {
    device: Device,
    /// What LUN 1 holds, which only the clean queue reads.
    content: Vec<u8>,
}

/// Two request queues on one shard; LUN 0 is the noisy queue's, LUN 1 the clean one's. What goes to LUN 0 may end
/// later.
fn fixture(pending: bool) -> Fixture {
    let disks = [0, 1].map(|_| Arc::new(Malloc::new("disk", 64 * 512, 512).unwrap()));
    let content = fill(&*disks[1]);
    let [noisy, clean] = disks;
    let gate = Gate::closed();
    gate.open();
    let noisy: Arc<dyn Bdev> = if pending { Arc::new(Delay::held(noisy, &gate)) } else { noisy };
    let mut setup = Setup::of([unit(0, 0, noisy), unit(0, 1, clean)]);
    setup.request_queues = 2;
    setup.ring_size = SIZE;
    setup.gate = gate;
    Fixture { device: Device::ready(setup), content }
}

impl Fixture {
    fn assert_clean(&mut self, round: u32, what: &str) {
        let lba = round % 63;
        let read = Request::new(lun(0, 1), &read_10(lba, 1)).data_in(512);
        let reply = self.device.answer(CLEAN, read);
        assert_eq!((reply.outcome(), reply.residual()), ((0, 0), 0), "{what}");
        let at = lba as usize * 512;
        assert!(reply.data() == &self.content[at..at + 512], "{what}");
        assert!(!self.device.broken(CLEAN), "{what}");
    }
}

#[test]
fn r12_random_cdbs_are_each_answered_and_disturb_nobody() {
    const SEED: u64 = 1;
    for pending in [false, true] {
        let mut fixture = fixture(pending);
        let mut noise = Noise::new(SEED);
        let mut good = 0;
        for round in 0..INPUTS {
            let mut cdb: [u8; 32] = std::array::from_fn(|_| noise.bits() as u8);
            if noise.once_in(2) {
                // A command that exists, and small numbers, get further.
                cdb[0] = noise.pick(&[
                    0x00, 0x03, 0x08, 0x0a, 0x12, 0x1a, 0x1b, 0x25, 0x28, 0x2a, 0x35, 0x5a, 0x88, 0x8a, 0x91, 0x9e,
                    0xa0, 0xa3, 0xa8, 0xaa,
                ]);
                for byte in &mut cdb[1..16] {
                    *byte = noise.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 16, 63, 255]);
                }
            }
            let request = Request::new(lun(0, 0), &cdb).attribute(noise.pick(&[0, 0, 0, 0, 1, 2, 3, 255]));
            let request = match noise.below(3) {
                0 => request,
                1 => request.data_in(noise.below(3000) as usize),
                _ => request.data_out(vec![noise.bits() as u8; noise.below(3000) as usize]),
            };
            let what = format!("seed {SEED}, round {round}, CDB {cdb:02x?}");
            let data = request.message().readable.len() - 51 + request.message().writable - 108;
            let reply = fixture.device.answer(NOISY, &request);
            let residual = reply.residual() as usize;
            assert!(residual <= data, "{what}");
            let moved = match reply.outcome() {
                (0, 0) => {
                    good += 1;
                    let moved = data - residual;
                    let into = if reply.data().is_empty() { 0 } else { moved };
                    assert_eq!(reply.written as usize, if into == 0 { 12 } else { 108 + into }, "{what}");
                    into
                }
                (0, 2) => {
                    assert_eq!((reply.sense_len(), reply.written, residual), (18, 30, data), "{what}");
                    let (key, _, _) = reply.sense().unwrap();
                    assert!([0x05, 0x06].contains(&key), "{what}: sense key {key:x}");
                    0
                }
                outcome => {
                    assert_eq!((outcome, reply.written, residual), ((1, 0), 12, data), "{what}");
                    0
                }
            };
            assert!(reply.data()[moved..].iter().all(|byte| *byte == 0xa5), "{what}: data behind what was moved");
            if round % 10 == 0 {
                fixture.assert_clean(round, &what);
            }
        }
        assert!(good > 500, "{good} commands were carried out");
        assert!(!fixture.device.broken(NOISY));
    }
}

/// Where the random chains find their buffers.
struct Arena {
    start: u64,
}

impl Arena {
    const LEN: u64 = 64 << 10;
    const TABLE: u64 = 60 << 10;

    fn new(device: &mut Device) -> Arena {
        let start = device.reserve(Arena::LEN as usize);
        // Headers of all kinds at the start.
        let requests = [
            Request::new(lun(0, 0), &TEST_UNIT_READY),
            Request::new(lun(0, 0), &read_10(3, 1)),
            Request::new(lun(0, 0), &write_10(3, 1)),
            Request::new(lun(0, 0), &[0x12, 0, 0, 0, 255, 0]),
            Request::new(lun(5, 5), &TEST_UNIT_READY),
        ];
        for (request, at) in requests.iter().zip((start..).step_by(64)) {
            device.guest.write(at, &request.header());
        }
        Arena { start }
    }

    /// A descriptor: mostly sensible, and somewhere else in the arena each time.
    fn descriptor(&self, noise: &mut Noise, next: u16) -> (u64, u32, u16, u16) {
        let addr = match noise.below(40) {
            0 => noise.bits(),
            1 => tests::device::END - noise.below(200),
            2 => u64::MAX - noise.below(200),
            3..20 => self.start + noise.below(5) * 64,
            _ => self.start + 1024 + noise.below(Arena::TABLE - 8192),
        };
        let len = match noise.below(40) {
            0 => noise.bits() as u32,
            1 => 0,
            2..10 => noise.below(5000) as u32,
            10..25 => 108,
            25..30 => 512,
            _ => 51,
        };
        let mut flags = noise.pick(&[0, 1, 1, 1, 2, 2, 3, 3, 3]);
        if noise.once_in(30) {
            flags |= 4;
        }
        let next = if noise.once_in(30) { noise.bits() as u16 } else { next };
        (addr, len, flags, next)
    }
}

#[test]
fn r19_random_chains_are_completed_once_or_halt_their_own_queue() {
    const SEED: u64 = 2;
    for pending in [false, true] {
        let mut fixture = fixture(pending);
        let arena = Arena::new(&mut fixture.device);
        let mut noise = Noise::new(SEED);
        let (mut completed, mut halted) = (0, 0);
        for round in 0..INPUTS {
            let what = format!("seed {SEED}, round {round}");
            let raw = fixture.device.raw(NOISY);
            let head = noise.below(u64::from(SIZE) - 8) as u16;
            for at in 0..8 {
                let (addr, len, flags, next) = arena.descriptor(&mut noise, head + at + 1);
                raw.set_descriptor(head + at, addr, len, flags, next);
            }
            if noise.once_in(3) {
                let entries = 1 + noise.below(8) as u16;
                for at in 0..entries {
                    let (addr, len, flags, next) = arena.descriptor(&mut noise, at + 1);
                    let table = arena.start + Arena::TABLE;
                    let bytes = RawSplit::descriptor_bytes(addr, len, flags, next);
                    fixture.device.guest.write(table + 16 * u64::from(at), &bytes);
                }
                let len = 16 * u32::from(entries) + u32::from(noise.once_in(30));
                raw.set_descriptor(head, arena.start + Arena::TABLE, len, 4, 0);
            }
            let offered = if noise.once_in(100) { noise.bits() as u16 } else { head };
            let index = raw.avail_index();
            raw.set_avail_entry(index, offered);
            raw.set_avail_index(index.wrapping_add(if noise.once_in(200) { noise.bits() as u16 } else { 1 }));

            let used = raw.used_index();
            fixture.device.run();
            if fixture.device.broken(NOISY) {
                halted += 1;
                fixture.device.restart(NOISY);
            } else {
                let now = raw.used_index();
                assert_eq!(now.wrapping_sub(used), raw.avail_index().wrapping_sub(index), "{what}");
                if now.wrapping_sub(used) == 1 {
                    assert_eq!(raw.used_element(used).0, u32::from(offered), "{what}");
                }
                completed += 1;
            }
            if round % 10 == 0 {
                fixture.assert_clean(round, &what);
            }
        }
        assert!(completed > 1000 && halted > 1000, "{completed} completed, {halted} halted");
    }
}

/// Everything at once on two shards: requests of all kinds, attributes, functions, rings that pause and stop. In the
/// end every chain has come back, once.
#[test]
fn r12_every_chain_comes_back_exactly_once() {
    for (seed, shards) in [(1, 1), (2, 2), (3, 2), (4, 3)] {
        let gate = Gate::closed();
        let malloc = Arc::new(Malloc::new("disk", 64 * 512, 512).unwrap());
        let held = Delay::held(Arc::clone(&malloc) as Arc<dyn Bdev>, &gate);
        let mut setup = Setup::of([unit(0, 0, Arc::new(held)), unit(0, 1, malloc)]);
        setup.request_queues = 3;
        setup.shards = shards;
        setup.event_idx = seed % 2 == 0;
        setup.limits.cmd_per_lun = 8;
        setup.limits.max_sectors = 2;
        setup.limits.seg_max = Some(3);
        setup.gate = gate;
        let mut device = Device::ready(setup);
        let mut noise = Noise::new(seed);
        let mut out = 0;
        let mut paused = [None, None, None];
        for _ in 0..INPUTS {
            let queue = noise.below(3) as usize;
            let index = FIRST + queue as u16;
            match noise.below(12) {
                0..5 if device.outstanding(index) < 18 => {
                    let message = random_message(&mut noise);
                    let cuts = [noise.below(60) as usize, noise.below(300) as usize];
                    let chain = device.cut(&message, &cuts, &cuts);
                    if !chain.is_empty() {
                        device.submit_chain(index, &chain);
                        out += 1;
                    }
                }
                5 if device.outstanding(CONTROL) < 20 => {
                    let subtype = noise.below(9) as u32;
                    let function = task_management(subtype, lun(0, noise.below(3) as u16), noise.below(4));
                    device.submit(CONTROL, function);
                    out += 1;
                }
                6 => device.gate.release(noise.below(3)),
                7 if noise.once_in(10) => match paused[queue].take() {
                    None => paused[queue] = Some(device.stop(index)),
                    Some(stopped) => match stopped.try_recv() {
                        Ok(stopped) => device.start(index, stopped.base.unwrap()),
                        Err(_) => paused[queue] = Some(stopped),
                    },
                },
                8 => {
                    // A poller that tries to sleep looks once more before it does, and then wakes.
                    let shard = noise.below(shards as u64) as usize;
                    device.shards[shard].arm();
                    device.poll_shard(shard);
                    device.shards[shard].disarm();
                }
                _ => {
                    device.poll_shard(noise.below(shards as u64) as usize);
                }
            }
            for index in [CONTROL, FIRST, FIRST + 1, FIRST + 2] {
                out -= device.take(index).len();
            }
        }
        device.gate.open();
        device.run();
        for (queue, stopped) in paused.into_iter().enumerate() {
            if let Some(stopped) = stopped {
                device.start(FIRST + queue as u16, stopped.try_recv().unwrap().base.unwrap());
            }
        }
        device.run();
        for index in [CONTROL, FIRST, FIRST + 1, FIRST + 2] {
            out -= device.take(index).len();
            assert_eq!(device.outstanding(index), 0, "seed {seed}, {shards} shards, queue {index}");
        }
        assert_eq!(out, 0);
        let popped: u64 = device.ring_stats.iter().map(|ring| ring.chains.value()).sum();
        let used: u64 = (0..device.controller.queues()).map(|index| u64::from(device.used(index))).sum();
        assert_eq!(popped, used, "seed {seed}, {shards} shards");
    }
}

fn random_message(noise: &mut Noise) -> Message {
    let address = [lun(0, 0), lun(0, 0), lun(0, 1), lun(0, 2), lun(1, 0), [0xc1, 1, 0, 0, 0, 0, 0, 0], [0; 8]];
    let address = noise.pick(&address);
    let (lba, blocks) = (noise.below(70) as u32, noise.below(4) as u16);
    let request = match noise.below(6) {
        0 => Request::new(address, &TEST_UNIT_READY),
        1 => Request::new(address, &[0x12, 0, 0, 0, 96, 0]).data_in(96),
        2 => Request::new(address, &[noise.bits() as u8]),
        3 => Request::new(address, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        4 => Request::new(address, &write_10(lba, blocks)).data_out(vec![1; noise.below(1600) as usize]),
        _ => Request::new(address, &read_10(lba, blocks)).data_in(noise.below(1600) as usize),
    };
    let request = request.tag(noise.below(4)).attribute(noise.pick(&[0, 0, 0, 0, 1, 2, 3]));
    let mut message = request.message();
    if noise.once_in(10) {
        message.readable.truncate(noise.below(52) as usize);
    }
    if noise.once_in(10) {
        message.writable = noise.below(109) as usize;
    }
    message
}

#[test]
fn r12_medium_of_a_read_only_unit_survives_every_cdb() {
    let malloc = Arc::new(Malloc::new("disk", 64 * 512, 512).unwrap());
    let content = fill(&*malloc);
    let units = [tests::device::unit_with(0, 0, Arc::clone(&malloc) as _, |config| config.read_only = true)];
    let mut device = Device::ready(Setup::of(units));
    let mut noise = Noise::new(3);
    for _ in 0..2000 {
        let mut cdb: [u8; 32] = std::array::from_fn(|_| noise.pick(&[0, 0, 1, 2, 8]));
        cdb[0] = noise.pick(&[0x0a, 0x2a, 0x8a, 0xaa, 0x04, 0x2e, 0x3b, 0x41, 0x42, 0x55, 0x89, 0x93, 0x9f]);
        device.answer(FIRST, Request::new(lun(0, 0), &cdb).data_out([0; 4096]));
    }
    assert!(medium(&*malloc) == content);
}
