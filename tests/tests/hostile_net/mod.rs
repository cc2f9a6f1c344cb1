//! One sequence: which devices there are, what is done to them step by step, and what must add up in the end. What one device
//! owes its driver after each poll is `side.rs`.

mod side;

use std::ops::AddAssign;
use std::sync::{Arc, OnceLock};

use port::{Mac, Port, Switch, SwitchConfig};
use reactor::{IdlePolicy, PollerHandle, Reactor, ReactorConfig};
use tests::device::Noise;
use tests::wire::Wire;

use side::Side;

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    pub received: u64,
    pub halted: u64,
    pub stops: u64,
    pub tables: u64,
    pub commands: u64,
    pub connections: u64,
}

/// A sequence of steps.
pub struct Sequence {
    noise: Noise,
    sides: Vec<Side>,
    wire: Option<Wire>,
    /// Frames put on the wire, for each lane.
    delivered: Vec<u64>,
    steps: u64,
}

impl Sequence {
    /// One device, and a wire that the sequence has the other end of.
    pub fn on_a_wire(seed: u64) -> Sequence {
        let mut noise = Noise::new(seed);
        let wire = Wire::default();
        let (pairs, shards) = (noise.pick(&[1, 1, 2, 3]), noise.pick(&[1, 1, 2]));
        let port: Arc<dyn Port> = Arc::new(wire.clone());
        let side = Side::new(&port, Mac([2, 0, 0, 0, 0, 1]), pairs, shards, &mut noise);
        Sequence { noise, sides: vec![side], wire: Some(wire), delivered: vec![0; usize::from(pairs)], steps: 60 }
    }

    /// Two devices on a switch.
    pub fn on_a_switch(seed: u64) -> Sequence {
        let mut noise = Noise::new(seed);
        let small = noise.once_in(3);
        let config = SwitchConfig {
            frames_max: if small { 8 } else { 1024 },
            inbox_frames: if small { 5 } else { 512 },
            ..SwitchConfig::default()
        };
        let port: Arc<dyn Port> = Arc::new(Switch::new("switch", config, None).expect("a switch"));
        let mut sides = Vec::new();
        for index in 1..=2 {
            let (pairs, shards) = (noise.pick(&[1, 1, 2]), noise.pick(&[1, 1, 2]));
            sides.push(Side::new(&port, Mac([2, 0, 0, 0, 0, index]), pairs, shards, &mut noise));
        }
        Sequence { noise, sides, wire: None, delivered: Vec::new(), steps: 90 }
    }

    /// All steps, and the end.
    pub fn run(mut self) -> Tally {
        for _ in 0..self.steps {
            self.step();
        }
        self.let_go();
        self.sides.iter().for_each(Side::check_done);
        self.check_sums();
        let mut tally = Tally::default();
        self.sides.iter().for_each(|side| tally += side.tally);
        tally
    }

    fn step(&mut self) {
        let at = self.noise.below(self.sides.len() as u64) as usize;
        let to = self.sides[(at + 1) % self.sides.len()].mac;
        let noise = &mut self.noise;
        let side = &mut self.sides[at];
        match noise.below(32) {
            0..6 => side.send(noise, to),
            6..8 => side.send_junk(noise),
            8..13 => side.refill(noise),
            13..17 => self.deliver(),
            17 => side.command(noise),
            18 => side.poison(noise),
            19 => side.announce(noise),
            20 => side.change_features(noise),
            21 => side.drowse(noise),
            22 => self.stop(at),
            23 => self.disable(at),
            24 => self.swap_table(at),
            25 if noise.once_in(3) => self.reconnect(at),
            26..28 => self.toggle_wire(),
            _ => {}
        }
        if !self.noise.once_in(4) {
            self.poll(at);
        }
    }

    fn poll(&mut self, at: usize) {
        self.sides[at].poll(&mut self.noise);
        let Some(wire) = &self.wire else { return };
        (0..self.delivered.len()).flat_map(|lane| wire.take(lane)).for_each(|bytes| self.sides[at].check_sent(&bytes));
    }

    /// Frames from the wire, of which the driver can tell where they belong.
    fn deliver(&mut self) {
        let Some(wire) = &self.wire else { return };
        let lane = self.noise.below(self.delivered.len() as u64) as usize;
        for _ in 0..=self.noise.below(8) {
            let len = if self.noise.once_in(4) { 3000 } else { 200 };
            let len = side::FRAME_MIN + self.noise.below(len) as usize;
            self.delivered[lane] += 1;
            let from = Mac([2, 0, 0, 0, 9, lane as u8]);
            let bytes = side::frame(self.sides[0].mac, from, lane as u8, self.delivered[lane], len);
            let cut = 1 + self.noise.below(bytes.len() as u64 - 1) as usize;
            let pieces =
                if self.noise.once_in(3) { vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()] } else { vec![bytes] };
            wire.deliver_pieces(lane, pieces, port::Offload::NONE);
        }
    }

    fn toggle_wire(&mut self) {
        let Some(wire) = &self.wire else { return };
        let lane = self.noise.below(self.delivered.len() as u64) as usize;
        match self.noise.below(3) {
            0 => wire.lane(lane).hold ^= true,
            1 => {
                let few = self.noise.below(6) as usize;
                wire.lane(lane).room = self.noise.once_in(2).then_some(few);
            }
            _ => {
                let held = wire.held(lane);
                wire.release(lane, self.noise.below(held as u64 + 1) as usize);
            }
        }
    }

    /// The far side lets go of all that it has: whoever waits for that is answered.
    fn let_go(&mut self) {
        if let Some(wire) = &self.wire {
            for lane in 0..self.delivered.len() {
                (wire.lane(lane).hold, wire.lane(lane).room) = (false, None);
                wire.release(lane, wire.held(lane));
            }
        }
        for _ in 0..10 {
            (0..self.sides.len()).for_each(|at| self.poll(at));
        }
    }

    /// A few polls of anybody while somebody waits.
    fn dawdle(&mut self) {
        for _ in 0..self.noise.below(3) {
            let at = self.noise.below(self.sides.len() as u64) as usize;
            self.poll(at);
        }
    }

    fn stop(&mut self, at: usize) {
        let ring = self.sides[at].any_ring(&mut self.noise);
        let stopped = self.sides[at].stop(ring);
        self.dawdle();
        self.let_go();
        let stopped = stopped.try_recv().expect("a stop is answered once the far side has let go");
        self.sides[at].stopped(ring, &stopped);
        self.deliver();
        (0..3).for_each(|_| self.poll(at));
        self.sides[at].start_again(ring, &stopped);
    }

    fn disable(&mut self, at: usize) {
        let ring = self.sides[at].any_ring(&mut self.noise);
        let disabled = self.sides[at].disable(ring);
        self.dawdle();
        self.let_go();
        disabled.try_recv().expect("a disabling is answered once the far side has let go");
        self.sides[at].disabled(ring);
        self.deliver();
        (0..3).for_each(|_| self.poll(at));
        self.sides[at].enable(ring);
    }

    fn swap_table(&mut self, at: usize) {
        let old = self.sides[at].swap_table();
        self.dawdle();
        self.let_go();
        for table in old {
            // Unmapped here: whoever looks at it after this does so once.
            drop(table.try_recv().expect("an old table comes back once the far side has let go"));
        }
    }

    fn reconnect(&mut self, at: usize) {
        let waits: Vec<_> = (0..self.sides[at].rings()).map(|ring| self.sides[at].stop(ring)).collect();
        self.dawdle();
        self.let_go();
        waits.into_iter().for_each(|wait| drop(wait.try_recv().expect("every ring stops")));
        // On a switch somebody else may have to give it back, which takes its time.
        if self.noise.once_in(if self.wire.is_some() { 2 } else { 40 }) {
            self.sides[at].announce(&mut self.noise); // the last thing that a front-end says
        }
        self.sides[at].reconnect();
    }

    /// Every frame is somewhere.
    fn check_sums(&mut self) {
        self.sides.iter().for_each(Side::check_sums);
        if let Some(wire) = &self.wire {
            let waiting: u64 = (0..self.delivered.len()).map(|lane| wire.waiting(lane) as u64).sum();
            let delivered: u64 = self.delivered.iter().sum();
            assert_eq!(self.sides[0].came_from_port(), delivered - waiting, "frames from the wire");
            return;
        }
        let lent: u64 = self.sides.iter().map(Side::given_to_port).sum();
        let lost: u64 = self.sides.iter().map(Side::lost_in_port).sum();
        let came: u64 = self.sides.iter().map(Side::came_from_port).sum();
        assert_eq!(lent, lost + came, "frames that went into the switch");
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.sent += other.sent;
        self.received += other.received;
        self.halted += other.halted;
        self.stops += other.stops;
        self.tables += other.tables;
        self.commands += other.commands;
        self.connections += other.connections;
    }
}

/// A poller that is only there to be woken.
fn poller() -> PollerHandle {
    static REACTOR: OnceLock<Reactor> = OnceLock::new();
    let start = || {
        let cores = reactor::affinity::allowed().expect("the cores of this process");
        Reactor::start(&ReactorConfig { cores: vec![cores[0]], idle: IdlePolicy::Adaptive }).expect("a poller")
    };
    REACTOR.get_or_init(start).pollers()[0].clone()
}
