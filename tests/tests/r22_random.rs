//! R22 under any sequence: units come and go, limits change, functions and resets are asked for, while commands are in
//! flight on two shards. Every chain comes back once, every unit that went is released when its last command has ended,
//! and not before. A failing seed is printed, and `RINGSIDE_SEED=<seed>` runs it alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bdev::Gate;
use bdev::testing::Recorder;
use tests::device::{
    CHANGE, CONTROL, Device, EVENT, FIRST, HOTPLUG, Noise, Request, Setup, TEST_UNIT_READY, lun, read_10, report_luns,
    task_management, unit, write_10,
};
use virtio_scsi::{Limits, Release};

const SEEDS: u64 = 1_000;
const STEPS: u64 = 60;
const LUNS: u16 = 4;

struct Disk {
    recorder: Recorder,
    arc: Weak<Recorder>,
}

struct World {
    noise: Noise,
    device: Device,
    /// Units that are there, by LUN of target 0.
    there: BTreeMap<u16, Disk>,
    gone: Vec<(Release, Disk)>,
    submitted: [usize; 3],
    came_back: [usize; 3],
    event_buffers: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut noise = Noise::new(seed);
        let gate = Gate::closed();
        let mut setup = Setup::of([]);
        setup.request_queues = 2;
        setup.shards = 1 + noise.below(2) as usize;
        setup.gate = gate;
        let mut device = Device::ready(setup);
        device.accept(HOTPLUG | CHANGE);
        let (there, gone) = (BTreeMap::new(), Vec::new());
        World { noise, device, there, gone, submitted: [0; 3], came_back: [0; 3], event_buffers: 0 }
    }

    fn step(&mut self) {
        let number = self.noise.below(LUNS.into()) as u16;
        match self.noise.below(16) {
            0 | 1 => self.plug(number),
            2 => self.unplug(number),
            3 => self.manage(number),
            4 => {
                let limits = Limits {
                    cmd_per_lun: 1 + self.noise.below(12) as u32,
                    max_sectors: 1 + self.noise.below(8) as u32,
                    ..Limits::default()
                };
                self.device.set_limits(limits).unwrap();
            }
            5 if self.event_buffers < 16 => {
                self.event_buffers += 1;
                self.device.post_event_buffer(self.noise.pick(&[1, 16, 16, 16, 24]));
            }
            6 => {
                let _ = self.device.resize(0, number, 1 + self.noise.below(1024)); // it may be gone
            }
            7 | 8 => {
                let count = 1 + self.noise.below(4);
                self.device.gate.release(count);
            }
            9 | 10 => {
                self.device.poll();
            }
            11 => {
                let shard = self.noise.below(self.device.shards.len() as u64) as usize;
                self.device.poll_shard(shard);
            }
            _ => self.submit(number),
        }
        self.take();
        for (release, disk) in &self.gone {
            let calls = disk.recorder.calls();
            let in_flight = calls.reads + calls.writes + calls.flushes - calls.ended;
            assert!(in_flight == 0 || !release.is_over(), "released with {in_flight} requests in flight");
            assert!(!release.is_over() || (disk.arc.strong_count() == 0 && disk.recorder.open_channels() == 0));
        }
    }

    fn plug(&mut self, number: u16) {
        let recorder = Recorder::gated("disk", 1024, 512, &self.device.gate).unwrap();
        let arc = Arc::new(recorder.clone());
        let disk = Disk { recorder, arc: Arc::downgrade(&arc) };
        let result = self.device.plug(unit(0, number, arc));
        assert_eq!(result.is_ok(), !self.there.contains_key(&number));
        if result.is_ok() {
            self.there.insert(number, disk);
        }
    }

    fn unplug(&mut self, number: u16) {
        let result = self.device.unplug(0, number);
        let disk = self.there.remove(&number);
        assert_eq!(result.is_ok(), disk.is_some());
        self.gone.extend(result.ok().zip(disk));
    }

    fn submit(&mut self, number: u16) {
        let queue = self.noise.below(2) as usize;
        let index = FIRST + queue as u16;
        if self.device.outstanding(index) > 20 {
            return;
        }
        let lba = self.noise.below(1030) as u32;
        let request = match self.noise.below(8) {
            0 => Request::new(lun(0, number), &TEST_UNIT_READY),
            1 => Request::new(lun(0, number), &report_luns(64)).data_in(64),
            2 => Request::new(lun(0, number), &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            3 | 4 => Request::new(lun(0, number), &write_10(lba, 1)).data_out([1; 512]),
            _ => Request::new(lun(0, number), &read_10(lba, 2)).data_in(1024),
        };
        let attribute = self.noise.pick(&[0, 0, 0, 0, 1, 2]);
        self.device.submit(index, request.attribute(attribute).tag(self.noise.below(8)));
        self.submitted[queue] += 1;
    }

    fn manage(&mut self, number: u16) {
        if self.device.outstanding(CONTROL) > 10 {
            return;
        }
        let (subtype, tag) = (self.noise.below(9) as u32, self.noise.below(8));
        self.device.submit(CONTROL, task_management(subtype, lun(0, number), tag));
        self.submitted[2] += 1;
    }

    fn take(&mut self) {
        for (place, index) in [FIRST, FIRST + 1, CONTROL].into_iter().enumerate() {
            let replies = self.device.take(index);
            assert!(replies.iter().all(|reply| reply.written > 0), "every one is answered");
            self.came_back[place] += replies.len();
        }
        let events = self.device.take(EVENT);
        self.event_buffers -= events.len();
    }

    fn finish(mut self) {
        self.device.gate.open();
        self.device.run();
        self.take();
        assert_eq!(self.came_back, self.submitted, "commands and functions that came back");
        for (release, disk) in self.gone {
            assert!(release.is_over() && disk.arc.strong_count() == 0 && disk.recorder.open_channels() == 0);
        }
        let shards = self.device.shards.len();
        for disk in self.there.values() {
            assert_eq!((disk.arc.strong_count(), disk.recorder.open_channels()), (1, shards), "still there");
        }
    }
}

#[test]
fn r22_every_chain_comes_back_once_and_every_removed_unit_is_released() {
    let only = std::env::var("RINGSIDE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
            }
            world.finish();
        });
        assert!(result.is_ok(), "seed {seed}");
    }
}
