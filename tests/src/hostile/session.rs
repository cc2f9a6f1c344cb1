//! One connection of the hostile driver: its memory, its rings, the shards that serve them, and the control thread, which
//! does one thing at a time as the real one does. Every poll is checked against what was promised: see
//! [`Session::poll_shard`].

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use crossbeam::channel::{self, Receiver, Sender};
use guest_memory::MemTable;
use reactor::{PollerHandle, Source as _, Tsc};
use rustix::event::{EventfdFlags, eventfd};
use vhost_user::{ConnectionParts, Notifier, RingReport, RingSet, Shard as _, Stopped};
use virtio_scsi::{Controller, Limit, Limits, OnCommandLimit, OnTransferLimit, Shard};
use virtqueue::{DeviceQueue, RingFormat};

use super::Seen;
use super::ledger::{BLOCK, content};
use super::ring::{BORDER, END, Kind, Places, Returned, Ring, addresses};
use super::shapes::{self, Bounds, Expect, Function, Poison, Shape, UNITS};
use crate::device::{CONTROL, FIRST, Guest, Message, Noise, RESPONSE_LEN, UNWRITTEN};

/// The event queue.
pub const EVENT: u16 = 1;

/// What all sessions of a sequence have in common.
#[derive(Clone, Copy)]
pub struct Rules {
    pub bounds: Bounds,
    pub cmd_per_lun: u32,
    pub on_cmd_per_lun: OnCommandLimit,
    pub on_max_sectors: OnTransferLimit,
    pub ring_size: u16,
    pub kind: Kind,
}

/// One connection.
pub struct Session {
    rules: Rules,
    guest: Guest,
    places: Places,
    shards: Vec<Shard>,
    routes: Vec<usize>,
    counted: Vec<Arc<vhost_user::RingStats>>,
    rings: Vec<Ring>,
    table: Regions,
    waiting: Waiting,
    /// Commands in flight, by unit.
    pub in_flight: [u32; UNITS as usize],
    /// Functions that were answered, and when.
    answered: Vec<(Function, u32)>,
    next_token: usize,
    /// The step of the sequence.
    now: u32,
}

/// What the device's memory table holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Regions {
    Both,
    Lower,
    Upper,
}

/// What the control thread waits for.
enum Waiting {
    Nothing,
    Stop(u16, Receiver<Stopped>),
    Disable(u16, Receiver<()>),
    Swap(Vec<Receiver<Arc<MemTable>>>),
    Reset(Vec<Receiver<Stopped>>),
    Close(Vec<Receiver<Stopped>>),
    Closed,
}

/// What the driver does with a ring that does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revival {
    /// A new ring, from index 0.
    Renew,
    /// The old one, from where it was.
    Resume,
}

impl Session {
    /// A front-end has connected, and its driver has set every ring up.
    pub fn connect(
        rules: Rules,
        controller: &Controller,
        pollers: &[PollerHandle],
        reports: &Sender<RingReport>,
    ) -> Session {
        let ConnectionParts { shards, routes, ring_stats } = controller.connect(pollers, reports);
        let guest = Guest::new(&[(0, BORDER as usize), (BORDER, (END - BORDER) as usize)]);
        let ring = |index| Ring::new(&guest, index, rules.ring_size, rules.kind, event());
        let rings = (0..controller.queues()).map(ring).collect();
        let mut session = Session {
            rules,
            guest,
            places: Places::new(),
            shards,
            routes,
            counted: ring_stats,
            rings,
            table: Regions::Upper,
            waiting: Waiting::Nothing,
            in_flight: [0; UNITS as usize],
            answered: Vec::new(),
            next_token: 1,
            now: 0,
        };
        session.swap(Regions::Both);
        session.settle_control(0);
        for index in 0..session.rings.len() as u16 {
            session.revive(index, Revival::Renew);
        }
        session
    }

    pub fn shards(&self) -> u64 {
        self.shards.len() as u64
    }

    pub fn rings(&self) -> u64 {
        self.rings.len() as u64
    }

    /// Whether the control thread waits for nothing.
    pub fn idle(&self) -> bool {
        matches!(self.waiting, Waiting::Nothing)
    }

    /// Whether the connection is over and nothing of it is left.
    pub fn closed(&self) -> bool {
        matches!(self.waiting, Waiting::Closed)
    }

    /// A ring that does not run, though it could, if there is one.
    pub fn at_rest(&self, noise: &mut Noise) -> Option<u16> {
        let resting: Vec<u16> = self.rings.iter().filter(|ring| !ring.fetches()).map(|ring| ring.index).collect();
        (!resting.is_empty()).then(|| noise.pick(&resting))
    }

    // --- the driver ---

    /// Makes requests available on one ring: a few, or now and then more than a shard takes at once.
    pub fn submit(&mut self, noise: &mut Noise, step: u32) {
        let requests = (self.rings.len() - usize::from(FIRST)) as u64;
        let index = FIRST + noise.below(requests) as u16;
        let count = if noise.once_in(40) { 64 } else { 1 + noise.below(4) };
        for _ in 0..count {
            let Shape { message, expect, tag, cuts } = shapes::request(noise, self.rules.bounds);
            self.send(noise, index, &message, cuts.as_ref(), (expect, tag, step));
        }
    }

    /// Makes a request of the control queue available.
    pub fn control(&mut self, noise: &mut Noise, step: u32) {
        let (message, expect) = shapes::control(noise);
        self.send(noise, CONTROL, &message, None, (expect, 0, step));
    }

    /// Gives the device a buffer for events.
    pub fn post_event(&mut self, noise: &mut Noise, step: u32) {
        let message = Message { readable: vec![], writable: 16 };
        self.send(noise, EVENT, &message, None, (Expect::Event, 0, step));
    }

    fn send(
        &mut self,
        noise: &mut Noise,
        index: u16,
        message: &Message,
        cuts: Option<&(Vec<usize>, Vec<usize>)>,
        what: (Expect, u64, u32),
    ) {
        let ring = &mut self.rings[usize::from(index)];
        if ring.poison.is_some() || ring.broken {
            return;
        }
        let Some(place) = self.places.take(noise, self.table != Regions::Both) else { return };
        let segments = shapes::cut(noise, place, message, cuts);
        let indirect = noise.once_in(3) || ring.sent.len() > 8;
        let token = self.next_token;
        self.next_token += 1;
        if !ring.send(&self.guest, place, token, &message.readable, segments, what, indirect) {
            self.places.give_back(place);
        }
    }

    /// Does what no driver may to a ring.
    pub fn poison(&mut self, noise: &mut Noise) {
        let ring = &mut self.rings[noise.below(self.routes.len() as u64) as usize];
        if ring.poison.is_some() || ring.index == EVENT {
            return;
        }
        let Some(place) = self.places.take(noise, true) else { return };
        let poison = noise.pick(&Poison::ALL);
        let taken = ring.send_poison(&self.guest, place, poison);
        if !taken {
            self.places.give_back(place);
        }
    }

    // --- the control thread ---

    /// GET_VRING_BASE.
    pub fn stop(&mut self, index: u16) {
        let (back, stopped) = channel::bounded(1);
        self.set_of(index).stop(index, back);
        self.rings[usize::from(index)].waited_for = true;
        self.waiting = Waiting::Stop(index, stopped);
    }

    /// SET_VRING_ENABLE 0.
    pub fn disable(&mut self, index: u16) {
        let (back, disabled) = channel::bounded(1);
        self.set_of(index).disable(index, back);
        let ring = &mut self.rings[usize::from(index)];
        (ring.enabled, ring.waited_for) = (false, true);
        self.waiting = Waiting::Disable(index, disabled);
    }

    /// RESET_DEVICE, SET_STATUS 0.
    pub fn reset(&mut self) {
        self.waiting = Waiting::Reset(self.stop_all());
    }

    /// The socket is closed.
    pub fn close(&mut self) {
        self.waiting = Waiting::Close(self.stop_all());
    }

    /// SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG: the whole of memory anew, or a part of it.
    pub fn change_memory(&mut self, noise: &mut Noise) {
        let to = match self.table {
            Regions::Both => noise.pick(&[Regions::Both, Regions::Both, Regions::Lower, Regions::Upper]),
            _ => Regions::Both,
        };
        self.swap(to);
    }

    fn swap(&mut self, to: Regions) {
        let regions = match to {
            Regions::Both => 0..2,
            Regions::Lower => 0..1,
            Regions::Upper => 1..2,
        };
        let table = Arc::new(self.guest.table_of(regions));
        let size = self.rules.ring_size;
        let known = |ring: &Ring| addresses(&table, ring.index, size).map(|addresses| (ring.index, addresses));
        let rings: Vec<_> = self.rings.iter().filter(|ring| ring.started).filter_map(known).collect();
        let swap = |shard: &mut Shard| {
            let (back, old) = channel::bounded(1);
            shard.rings().swap_table(Arc::clone(&table), &rings, back);
            old
        };
        self.waiting = Waiting::Swap(self.shards.iter_mut().map(swap).collect());
        self.table = to;
        for ring in &mut self.rings {
            ring.lost |= to == Regions::Upper && ring.started;
            ring.doubtful |= to != Regions::Both;
        }
    }

    /// Lets a ring run that does not: starts it, or enables it. One that is broken is stopped first.
    pub fn revive(&mut self, index: u16, revival: Revival) {
        let ring = &self.rings[usize::from(index)];
        if ring.started && (ring.broken || ring.lost) {
            return self.stop(index);
        }
        if self.table == Regions::Upper {
            return; // its memory is not there: the control half would refuse to start it
        }
        self.rings[usize::from(index)].thaw(&self.guest);
        if !ring_started(&self.rings, index) {
            self.start(index, revival);
        }
        self.set_of(index).enable(index);
        self.rings[usize::from(index)].enabled = true;
    }

    fn start(&mut self, index: u16, revival: Revival) {
        let (guest, places) = (&self.guest, &mut self.places);
        let ring = &mut self.rings[usize::from(index)];
        if revival == Revival::Renew {
            ring.renew(guest, places);
        }
        let base = ring.fetched;
        ring.started = true;
        let call = ring.call.as_fd().try_clone_to_owned().expect("a descriptor more");
        let table = Arc::clone(self.set_of(index).table());
        let addresses = addresses(&table, index, self.rules.ring_size).expect("the memory is there");
        let Rules { ring_size, kind, .. } = self.rules;
        let queue =
            DeviceQueue::new(RingFormat::Split, ring_size, addresses, base.into(), kind.features).expect("a ring");
        let queue = if kind.in_order { queue.in_order() } else { queue };
        assert_eq!(queue.resumed_at(), None, "base and used index agree when nothing is in flight");
        drop(self.set_of(index).set_call(index, Some(Notifier::new(call))));
        drop(self.set_of(index).start(index, queue, Some(event())));
    }

    fn stop_all(&mut self) -> Vec<Receiver<Stopped>> {
        let mut all = Vec::new();
        for index in 0..self.rings.len() as u16 {
            let (back, stopped) = channel::bounded(1);
            self.set_of(index).stop(index, back);
            self.rings[usize::from(index)].waited_for = true;
            all.push(stopped);
        }
        all
    }

    fn set_of(&mut self, index: u16) -> &mut RingSet {
        self.shards[self.routes[usize::from(index)]].rings()
    }

    /// Goes on if what the control thread waits for has happened.
    pub fn settle_control(&mut self, step: u32) {
        self.now = step;
        self.note_broken();
        match std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            Waiting::Stop(index, stopped) => match stopped.try_recv() {
                Ok(answer) => self.stopped(index, &answer),
                Err(_) => self.waiting = Waiting::Stop(index, stopped),
            },
            Waiting::Disable(index, disabled) => match disabled.try_recv() {
                Ok(()) => {
                    let ring = &mut self.rings[usize::from(index)];
                    (ring.waited_for, ring.idle) = (false, step);
                    ring.freeze(&self.guest);
                }
                Err(_) => self.waiting = Waiting::Disable(index, disabled),
            },
            Waiting::Swap(mut tables) => {
                tables.retain(|table| table.is_empty());
                if !tables.is_empty() {
                    self.waiting = Waiting::Swap(tables);
                }
            }
            Waiting::Reset(rings) => match all_stopped(&rings) {
                true => self.have_reset(&rings, step),
                false => self.waiting = Waiting::Reset(rings),
            },
            Waiting::Close(rings) => match all_stopped(&rings) {
                true => {
                    self.all_stopped(&rings);
                    self.shards.clear();
                    self.waiting = Waiting::Closed;
                }
                false => self.waiting = Waiting::Close(rings),
            },
            Waiting::Closed => self.waiting = Waiting::Closed,
            Waiting::Nothing => {}
        }
    }

    fn stopped(&mut self, index: u16, answer: &Stopped) {
        let ring = &mut self.rings[usize::from(index)];
        assert_eq!(answer.base, ring.started.then_some(u32::from(ring.fetched)), "the base of ring {index}");
        assert_eq!(answer.fault.is_some(), ring.broken, "the fault of ring {index}");
        if let (Some(fault), Some((poison, _)), false) = (answer.fault, ring.poison, ring.doubtful || ring.lost) {
            assert_eq!(fault.reason, poison.reason(), "ring {index}");
        }
        (ring.started, ring.waited_for, ring.lost, ring.broken) = (false, false, false, false);
        ring.idle = self.now;
        ring.freeze(&self.guest);
    }

    fn all_stopped(&mut self, rings: &[Receiver<Stopped>]) {
        for (index, stopped) in (0..).zip(rings) {
            let answer = stopped.try_recv().expect("it has been looked");
            self.stopped(index, &answer);
        }
    }

    /// R15: the reply is the moment. Not a byte changes after it, and nobody is called.
    fn have_reset(&mut self, rings: &[Receiver<Stopped>], step: u32) {
        self.all_stopped(rings);
        self.shards.iter_mut().for_each(vhost_user::Shard::reset);
        let after = self.guest.snapshot();
        for _ in 0..3 {
            self.shards.iter_mut().for_each(|shard| _ = shard.poll(Tsc::now()));
        }
        after.assert_untouched(&self.guest, &format!("step {step}: after the reply to a reset"));
        assert_eq!(self.rings.iter().map(|ring| ring.call.drain()).sum::<u64>(), 0, "calls after the reply");
        assert_eq!(self.in_flight, [0; UNITS as usize]);
    }

    /// Looks which rings have been halted.
    fn note_broken(&mut self) {
        if self.shards.is_empty() {
            return;
        }
        for ring in &mut self.rings {
            let broken = self.counted[usize::from(ring.index)].broken.value() == 1;
            if broken && !ring.broken {
                let cause = ring.poison.is_some() || ring.doubtful || ring.lost;
                assert!(cause, "ring {} was halted, and the driver had done nothing", ring.index);
                ring.broken = true;
            }
            // The gauge goes back when the ring is stopped, which is when the answer is there: `stopped` looks at it.
        }
    }

    // --- polling ---

    /// What the idle protocol does.
    pub fn arm(&mut self, shard: usize) {
        let _ = self.shards[shard].arm();
        self.shards[shard].disarm();
    }

    /// What a poller does now and then: rings that nothing came from wait for a kick from then on.
    pub fn cool(&mut self, shard: usize) {
        self.shards[shard].cool();
    }

    /// Another `cmd_per_lun`, from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.rules.cmd_per_lun = limits.cmd_per_lun;
        self.shards.iter_mut().for_each(|shard| shard.set_limits(limits));
    }

    /// Polls a shard and checks everything that came of it. Returns the work done.
    pub fn poll_shard(&mut self, shard: usize, step: u32, seen: &mut Seen) -> usize {
        let mine: Vec<usize> = (0..self.rings.len()).filter(|index| self.routes[*index] == shard).collect();
        let before: Vec<u64> = mine.iter().map(|index| self.counted[*index].chains.value()).collect();
        for ring in &mut self.rings {
            if !ring.fetches() || ring.poison.is_some() {
                ring.idle = step;
            }
        }
        // The poller hears of kicks that were asked for, and of no others.
        if mine.iter().filter(|index| std::mem::take(&mut self.rings[**index].kick)).count() > 0 {
            self.shards[shard].warm();
        }
        let work = self.shards[shard].poll(Tsc::now());
        self.note_broken();

        // Requests first, then the control queue: its answers come after what they are about.
        let (control, requests): (Vec<usize>, Vec<usize>) =
            (0..mine.len()).partition(|at| mine[*at] == usize::from(CONTROL));
        let returned: Vec<Vec<Returned>> = requests.iter().map(|at| self.rings[mine[*at]].take(&self.guest)).collect();
        // What was fetched by an earlier poll ended before this one fetched anything.
        for chain in returned.iter().flatten().filter(|chain| chain.sent.counts) {
            if let Expect::Command { unit, .. } = chain.sent.expect {
                self.in_flight[usize::from(unit)] -= 1;
            }
        }
        for (at, returned) in requests.into_iter().zip(returned) {
            let fetched = self.counted[mine[at]].chains.value() - before[at];
            self.check(mine[at], fetched, returned, step, seen);
        }
        for at in control {
            let returned = self.rings[mine[at]].take(&self.guest);
            let fetched = self.counted[mine[at]].chains.value() - before[at];
            self.check(mine[at], fetched, returned, step, seen);
        }
        for ring in &mut self.rings {
            if !ring.fetches() {
                ring.idle = step;
            }
        }
        work
    }

    /// Everything that one poll did to one ring: `count` chains were fetched, and these came back.
    fn check(&mut self, at: usize, count: u64, returned: Vec<Returned>, step: u32, seen: &mut Seen) {
        let ring = &mut self.rings[at];
        assert!(count == 0 || !ring.waited_for && ring.started && ring.enabled, "fetched from ring {at}, which rests");
        ring.fetched = ring.fetched.wrapping_add(count as u16);
        // By token: those that were fetched now and have not come back, and those that have.
        let mut fresh: Vec<(usize, Option<&Returned>)> =
            ring.sent.iter().filter(|(_, sent)| sent.fetched.is_none()).map(|(token, _)| (*token, None)).collect();
        fresh.extend(
            returned.iter().filter(|chain| chain.sent.fetched.is_none()).map(|chain| (chain.token, Some(chain))),
        );
        fresh.sort_by_key(|(token, _)| *token);
        assert!(fresh[count as usize..].iter().all(|(_, back)| back.is_none()), "ring {at}: answered, not fetched");
        let mut ended = [0; UNITS as usize];
        for (token, back) in &fresh[..count as usize] {
            let expect = match back {
                Some(chain) => chain.sent.expect.clone(),
                None => {
                    let sent = self.rings[at].sent.get_mut(token).expect("it is out");
                    sent.fetched = Some(step);
                    sent.counts = matches!(sent.expect, Expect::Command { .. });
                    sent.expect.clone()
                }
            };
            match (&expect, back) {
                (Expect::Command { unit, .. }, None) => self.accept(*unit),
                (Expect::Command { unit, .. }, Some(chain)) => match code_of(chain) {
                    Some(2 | 4) => {} // swept: it held no slot
                    _ if self.is_refusal(chain) => {
                        let full = self.in_flight[usize::from(*unit)];
                        assert!(full >= self.rules.cmd_per_lun, "refused with {full} in flight");
                        seen.refused(Some(*unit), Limit::CmdPerLun);
                    }
                    _ => {
                        self.accept(*unit);
                        ended[usize::from(*unit)] += 1;
                    }
                },
                (Expect::Function(_) | Expect::Event, None) => {}
                (_, None) if self.rules.kind.in_order => {} // it may have been, and waits for an older one
                (expect, None) => panic!("ring {at}: {expect:?} was fetched and not answered at once"),
                _ => {}
            }
        }
        (0..UNITS as usize).for_each(|unit| self.in_flight[unit] -= ended[unit]);
        for chain in returned {
            self.judge(at, &chain, step, seen);
            self.places.give_back(chain.sent.place);
        }
    }

    fn accept(&mut self, unit: u16) {
        let count = &mut self.in_flight[usize::from(unit)];
        // In order, what was refused or has ended may be among them: only the block devices know how many are there.
        assert!(*count < self.rules.cmd_per_lun || self.rules.kind.in_order, "accepted with {count} in flight");
        *count += 1;
    }

    fn is_refusal(&self, chain: &Returned) -> bool {
        let outcome = (chain.writable[11], chain.writable[10]);
        match self.rules.on_cmd_per_lun {
            OnCommandLimit::Transport => outcome.0 == 5,
            OnCommandLimit::Failure => outcome.0 == 9,
            OnCommandLimit::Scsi => outcome == (0, 0x28),
        }
    }

    /// Whether this is what had to become of the chain.
    fn judge(&mut self, at: usize, chain: &Returned, step: u32, seen: &mut Seen) {
        match &chain.sent.expect {
            Expect::Command { unit, blocks } => {
                if chain.sent.fetched.is_some() && self.is_refusal(chain) {
                    assert!(self.rules.kind.in_order, "step {step}: refused later than it was fetched");
                    seen.refused(Some(*unit), Limit::CmdPerLun);
                }
                self.judge_sweep(*unit, chain, step);
                self.judge_command(chain, blocks.clone());
                seen.response(chain.writable[11]);
            }
            Expect::Refused { unit, limit } => {
                let code = chain.writable[11];
                if matches!(code, 2 | 4) {
                    self.judge_sweep(*unit, chain, step);
                } else {
                    let scsi = *limit == Limit::MaxSectors && self.rules.on_max_sectors == OnTransferLimit::Scsi;
                    let outcome = (code, chain.writable[10]);
                    assert_eq!(outcome, if scsi { (0, 2) } else { (9, 0) }, "step {step}: refused by {limit:?}");
                    seen.refused(Some(*unit), *limit);
                }
                assert_untouched(chain, RESPONSE_LEN);
                seen.response(code);
            }
            Expect::Code(code) => {
                assert_eq!(chain.writable[11], *code, "step {step}: the response of ring {at}");
                assert_untouched(chain, RESPONSE_LEN);
                seen.response(*code);
            }
            Expect::Instant => seen.response(chain.writable[11]),
            Expect::Bare => {
                assert_eq!(chain.written, 0);
                assert_untouched(chain, 0);
                seen.bare += 1;
            }
            Expect::Notice(code) => {
                assert_eq!(chain.writable.last(), Some(code), "step {step}: on the control queue");
                seen.response(*code);
            }
            Expect::Function(function) => self.judge_function(*function, chain, step, seen),
            Expect::Event => panic!("an event, and nothing has happened"),
        }
    }

    fn judge_command(&self, chain: &Returned, blocks: Option<std::ops::Range<u64>>) {
        let good = (chain.writable[11], chain.writable[10]) == (0, 0);
        let Some(blocks) = blocks else { return };
        if chain.sent.fetched.is_some() && matches!(chain.writable[11], 2 | 4) {
            return; // ended by a function when its backend had let go of it, which may have moved the data
        }
        let expected: Vec<u8> = match good {
            true => blocks.flat_map(|lba| [content(lba); BLOCK]).collect(),
            false => Vec::new(),
        };
        let data = &chain.writable[RESPONSE_LEN..];
        assert!(data[..expected.len()] == expected, "what a READ has read");
        assert_untouched(chain, RESPONSE_LEN + expected.len());
    }

    /// R08: only a function that was not over when the command was sent can have ended it.
    fn judge_sweep(&self, unit: u16, chain: &Returned, step: u32) {
        let code = chain.writable[11];
        if !matches!(code, 2 | 4) {
            return;
        }
        let over =
            self.answered.iter().filter(|(_, answered)| *answered > chain.sent.since).map(|(function, _)| *function);
        let out = self.rings[usize::from(CONTROL)].sent.values();
        let out =
            out.filter_map(|sent| if let Expect::Function(function) = sent.expect { Some(function) } else { None });
        let by = over.chain(out).any(|function| function.covers(unit, chain.sent.tag) && function.ends_with() == code);
        assert!(by, "step {step}: response {code}, and no function says so");
    }

    /// R07: what came before the function, and what it is about, is over.
    fn judge_function(&mut self, function: Function, chain: &Returned, step: u32, seen: &mut Seen) {
        let response = chain.writable[0];
        assert!(function.may_answer(response), "step {step}: {function:?} was answered with {response}");
        assert_eq!(chain.written, 1);
        for ring in &self.rings[usize::from(FIRST)..] {
            for sent in ring.sent.values().filter(|sent| sent.since < chain.sent.since) {
                let covered = match sent.expect {
                    Expect::Command { unit, .. } => function.covers(unit, sent.tag),
                    _ => false,
                };
                // What nobody fetches is not there for a function. It may have been fetched since.
                let excused = sent.fetched.is_none_or(|at| at > chain.sent.since) && ring.idle >= chain.sent.since;
                assert!(
                    !covered || excused,
                    "step {step}: {function:?} of step {} is over, tag {} of step {} on ring {} is left, fetched: {:?}, idle: {}",
                    chain.sent.since,
                    sent.tag,
                    sent.since,
                    ring.index,
                    sent.fetched,
                    ring.idle
                );
            }
        }
        self.answered.push((function, step));
        seen.function(function.subtype, response);
    }

    // --- the end ---

    /// When nothing happens any more: what is left has to be there for a reason.
    pub fn check_quiet(&self) {
        assert!(self.idle() || self.closed(), "the control thread waits for ever");
        assert_eq!(self.in_flight, [0; UNITS as usize]);
        for ring in &self.rings {
            let left = ring.sent.values().filter(|sent| !matches!(sent.expect, Expect::Event)).count();
            assert!(
                !ring.sent.values().any(|sent| sent.fetched.is_some()),
                "ring {}: a chain is in flight for ever",
                ring.index
            );
            match ring.poison {
                Some((poison, _)) => assert!(!ring.fetches(), "ring {} goes on in spite of {poison:?}", ring.index),
                None => assert!(left == 0 || !ring.fetches(), "ring {}: {left} chains never fetched", ring.index),
            }
        }
    }
}

fn ring_started(rings: &[Ring], index: u16) -> bool {
    rings[usize::from(index)].started
}

fn all_stopped(rings: &[Receiver<Stopped>]) -> bool {
    rings.iter().all(|ring| !ring.is_empty())
}

fn code_of(chain: &Returned) -> Option<u8> {
    chain.writable.get(11).copied()
}

/// Nothing was written from here on.
fn assert_untouched(chain: &Returned, from: usize) {
    let rest = chain.writable.get(from..).unwrap_or_default();
    assert!(rest.iter().all(|byte| *byte == UNWRITTEN), "{:?}: written where nothing is to be", chain.sent.expect);
}

fn event() -> Notifier {
    let fd: OwnedFd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    Notifier::new(fd)
}
