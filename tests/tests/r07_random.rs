//! R07 under random interleavings of submissions, polls of single shards and backend completions: when a task
//! management function is answered, nothing that came before it is left, and nothing that came after it was touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use bdev::testing::Recorder;
use bdev::{Gate, Null};
use tests::device::{
    CONTROL, Device, FIRST, Noise, Request, Setup, TEST_UNIT_READY, lun, read_10, task_management, unit,
};

const OPERATIONS: u32 = 6000;
const QUEUES: u16 = 3;

/// A command that has not been answered.
struct Command {
    unit: u16,
    tag: u64,
    submitted: u32,
}

/// A function that has not been answered.
#[derive(Clone, Copy)]
struct Function {
    subtype: u32,
    unit: u16,
    tag: u64,
    submitted: u32,
}

impl Function {
    fn covers(&self, command: &Command) -> bool {
        let all = matches!(self.subtype, 1 | 3 | 5);
        self.subtype == 4 || (command.unit == self.unit && (all || command.tag == self.tag))
    }

    /// What it makes of a command.
    fn ends_with(&self) -> u8 {
        if matches!(self.subtype, 4 | 5) { 4 } else { 2 }
    }
}

struct Run {
    device: Device,
    noise: Noise,
    now: u32,
    commands: [BTreeMap<usize, Command>; QUEUES as usize],
    functions: BTreeMap<usize, Function>,
    /// Those that were answered, and when.
    answered: Vec<(Function, u32)>,
    ended: [u64; 13],
    what: String,
}

impl Run {
    fn new(shards: usize, seed: u64) -> Run {
        let gate = Gate::closed();
        let held = Recorder::gated("held", 64, 512, &gate).unwrap();
        let instant = Null::new("instant", 64, 512).unwrap();
        let second = Recorder::gated("held", 64, 512, &gate).unwrap();
        let units = [unit(0, 0, Arc::new(held)), unit(0, 1, Arc::new(second)), unit(0, 2, Arc::new(instant))];
        let mut setup = Setup::of(units);
        setup.request_queues = QUEUES;
        setup.shards = shards;
        setup.gate = gate;
        Run {
            device: Device::ready(setup),
            noise: Noise::new(seed),
            now: 0,
            commands: Default::default(),
            functions: BTreeMap::new(),
            answered: Vec::new(),
            ended: [0; 13],
            what: format!("seed {seed}, {shards} shards"),
        }
    }

    fn step(&mut self, shards: usize) {
        self.now += 1;
        match self.noise.below(16) {
            0..6 => self.submit(),
            6 => self.manage(),
            7..9 => self.device.gate.release(self.noise.below(16)),
            _ => {
                self.device.poll_shard(self.noise.below(shards as u64) as usize);
            }
        }
        self.look();
    }

    fn look(&mut self) {
        // The control queue first: what was answered before the function must be on the used rings by then.
        let functions = self.device.take(CONTROL);
        (0..QUEUES).for_each(|queue| self.take(queue));
        for reply in functions {
            let function = self.functions.remove(&reply.token).expect("answered once");
            assert_eq!(reply.byte(), 0, "{}: {}", self.what, self.now);
            for command in self.commands.iter().flat_map(BTreeMap::values) {
                let left = function.covers(command) && command.submitted < function.submitted;
                assert!(!left, "{}, operation {}: tag {} is left", self.what, self.now, command.tag);
            }
            self.answered.push((function, self.now));
        }
    }

    /// A command, or now and then more of them than a shard takes from a ring at once.
    fn submit(&mut self) {
        let queue = self.noise.below(u64::from(QUEUES)) as u16;
        let count = if self.noise.once_in(30) { 50 } else { 1 };
        if self.device.outstanding(FIRST + queue) + count > 60 {
            return;
        }
        for _ in 0..count {
            let (unit, tag) = (self.noise.below(3) as u16, self.noise.below(8));
            let request = match self.noise.once_in(3) {
                true => Request::new(lun(0, unit), &TEST_UNIT_READY),
                false => Request::new(lun(0, unit), &read_10(0, 1)).data_in(512),
            };
            let chain = self.device.cut(&request.tag(tag).message(), &[], &[]);
            let token = self.device.submit_chain(FIRST + queue, &chain);
            self.commands[usize::from(queue)].insert(token, Command { unit, tag, submitted: self.now });
        }
    }

    fn manage(&mut self) {
        if self.functions.len() == 5 {
            return;
        }
        let function = Function {
            subtype: self.noise.pick(&[0, 0, 1, 3, 4, 5]),
            unit: self.noise.below(3) as u16,
            tag: self.noise.below(8),
            submitted: self.now,
        };
        let message = task_management(function.subtype, lun(0, function.unit), function.tag);
        let token = self.device.submit(CONTROL, message);
        self.functions.insert(token, function);
    }

    fn take(&mut self, queue: u16) {
        for reply in self.device.take(FIRST + queue) {
            let command = self.commands[usize::from(queue)].remove(&reply.token).expect("answered once");
            let code = reply.code();
            self.ended[usize::from(code)] += 1;
            if code == 0 {
                continue;
            }
            // Some function that was not over when the command was submitted has ended it.
            let over = self.answered.iter().filter(|(_, answered)| *answered > command.submitted);
            let by = self.functions.values().chain(over.map(|(function, _)| function));
            let mut by = by.filter(|function| function.covers(&command));
            assert!(by.any(|function| function.ends_with() == code), "{}, {}: response {code}", self.what, self.now);
        }
    }

    fn finish(&mut self, shards: usize) {
        self.device.gate.open();
        for _ in 0..1000 {
            if self.functions.is_empty() && self.commands.iter().all(BTreeMap::is_empty) {
                return;
            }
            self.now += 1;
            for shard in 0..shards {
                self.device.poll_shard(shard);
            }
            self.look();
        }
        panic!("{}: something was never answered", self.what);
    }
}

fn run(shards: usize) {
    for seed in 1..=5 {
        let mut run = Run::new(shards, seed);
        for _ in 0..OPERATIONS {
            run.step(shards);
        }
        run.finish(shards);
        assert!(run.ended[0] > 100 && run.ended[2] > 20 && run.ended[4] > 20, "{:?}", run.ended);
        assert!(run.answered.len() > 30, "{}", run.answered.len());
    }
}

#[test]
fn r07_random_interleavings_on_one_shard_leave_nothing_behind_a_function() {
    run(1);
}

#[test]
fn r07_random_interleavings_on_two_shards_leave_nothing_behind_a_function() {
    run(2);
}

#[test]
fn r07_random_interleavings_on_three_shards_leave_nothing_behind_a_function() {
    run(3);
}
