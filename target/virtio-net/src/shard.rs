//! A shard: the part of one connection that lives on one poller. It decides the order of a poll; how frames move is
//! `transmit.rs` and `receive.rs`.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use port::{Mac, Offload};
use reactor::{Armed, Source, Tsc};
use vhost_user::{RingSet, Shard as VhostShard};

use crate::announce::Announcement;
use crate::control::ControlQueue;
use crate::device::{Lease, NetConfig};
use crate::header::Rules;
use crate::pair::{Held, Pair, Scratch};
use crate::receive::{Destination, Merge, receive};
use crate::session::NetSession;
use crate::stats::{PairCounters, ShardStats};
use crate::wire::feature;

/// The queue pairs of one connection that one poller owns, and the control queue if it is here.
pub struct Shard {
    /// Dropped before the rings, which hold the memory that their frames lie in.
    pairs: Vec<Pair>,
    rings: RingSet,
    /// Index in `pairs` of the ring in each slot.
    pair_of: Vec<usize>,
    control: Option<ControlQueue>,
    session: Arc<NetSession>,
    features: u64,
    rules: Rules,
    mtu: u16,
    scratch: Scratch,
    merge: Merge,
    /// Dropped after the pairs, which wait for it to be out.
    announcement: Announcement,
    announcing: bool,
    stats: Arc<ShardStats>,
}

impl Shard {
    pub(crate) fn new(
        mut rings: RingSet,
        config: &NetConfig,
        leases: Vec<Lease>,
        session: Arc<NetSession>,
        stats: Arc<ShardStats>,
    ) -> Shard {
        let slots = rings.len();
        let slot = |index| (0..slots).find(|slot| rings.index(*slot) == index).expect("a pair's rings are where it is");
        let held_max = usize::from(config.queue_size_max) + 1;
        let pairs: Vec<Pair> = leases
            .into_iter()
            .zip(&stats.pairs)
            .map(|(port, PairCounters { index, device: pair_stats, .. })| {
                debug_assert_eq!(port.pair(), *index);
                Pair {
                    index: *index,
                    rx_slot: slot(2 * index),
                    tx_slot: slot(2 * index + 1),
                    port,
                    open: false,
                    held: VecDeque::with_capacity(held_max),
                    done: 0,
                    rewrites: true,
                    stats: Arc::clone(pair_stats),
                }
            })
            .collect();
        let pair_of =
            (0..slots).map(|slot| pairs.iter().position(|pair| pair.tx_slot == slot).unwrap_or(NONE)).collect();
        // Receive buffers wait for frames, as long as it takes.
        pairs.iter().for_each(|pair| rings.set_passive(pair.rx_slot, true));
        Shard {
            rings,
            pairs,
            pair_of,
            control: None,
            session,
            features: 0,
            rules: Rules::new(0, config.mtu),
            mtu: config.mtu,
            scratch: Scratch::new(),
            merge: Merge::new(),
            announcement: Announcement::new(),
            announcing: false,
            stats,
        }
    }

    /// What the drivers send.
    #[inline]
    fn poll_drivers(&mut self) -> usize {
        let (mut work, mut at) = (0, 0);
        while let Some(slot) = self.rings.hot(at) {
            if let Some(pair) = self.pairs.get_mut(self.pair_of[slot]) {
                if !pair.held.is_empty() && pair.reap(&mut self.rings) > 0 {
                    self.rings.publish(slot);
                }
                work += pair.transmit(&mut self.rings, &mut self.scratch, &self.rules);
            } else if let Some(control) = self.control.as_mut().filter(|control| control.slot() == slot) {
                work += control.poll(&mut self.rings);
            }
            at += 1;
        }
        work
    }

    /// What the ports have. Frames for a pair that does not receive go to the first one here that does; if only pairs of other
    /// shards do, they are lost, and counted.
    #[inline]
    fn poll_ports(&mut self) -> usize {
        let active = self.session.active_pairs();
        let mut first_open = None;
        for at in (0..self.pairs.len()).rev() {
            if self.look_open(at, active) {
                first_open = Some(at);
            }
        }
        let Some(first_open) = first_open else {
            if self.session.receives() {
                self.pairs.iter_mut().for_each(|pair| pair.discard(&mut self.scratch, 1));
            }
            return 0;
        };
        let mut work = 0;
        for from in 0..self.pairs.len() {
            let to = if self.pairs[from].open { from } else { first_open };
            work += self.receive(from, to);
        }
        work
    }

    /// Whether the driver receives on this pair, now or when it has buffers there.
    #[inline(always)]
    fn look_open(&mut self, at: usize, active: u16) -> bool {
        let pair = &mut self.pairs[at];
        let open = pair.index < active
            && self.rings.fetches(pair.rx_slot)
            && self.control.as_ref().is_none_or(|control| control.slot() != pair.rx_slot);
        if open != pair.open {
            pair.set_open(open, &mut self.scratch);
            self.session.count_open(open);
        }
        open
    }

    #[inline(always)]
    fn receive(&mut self, from: usize, to: usize) -> usize {
        let (port, (slot, rewrites, stats)) = if from == to {
            let Pair { port, rx_slot, rewrites, stats, .. } = &mut self.pairs[from];
            (port, (*rx_slot, rewrites, &stats.rx))
        } else {
            let [from, to] = self.pairs.get_disjoint_mut([from, to]).expect("two different pairs of this shard");
            (&mut from.port, (to.rx_slot, &mut to.rewrites, &to.stats.rx))
        };
        let destination =
            Destination { rings: &mut self.rings, slot, rewrites, stats, session: &self.session, rules: &self.rules };
        receive(port, destination, &mut self.scratch, &mut self.merge)
    }

    /// Where the control queue is: behind all pairs, or behind the first if the driver knows of no other (virtio 1.3
    /// §5.1.2).
    fn find_control(&mut self, features: u64) {
        let wanted = match features {
            _ if features & feature::CTRL_VQ == 0 => None,
            _ if features & feature::MQ == 0 => Some(2),
            _ => Some(2 * self.session.queue_pairs()),
        };
        let slot = (0..self.rings.len()).find(|slot| Some(self.rings.index(*slot)) == wanted);
        for pair in &self.pairs {
            self.rings.set_passive(pair.rx_slot, Some(pair.rx_slot) != slot);
        }
        for other in 0..self.rings.len() {
            self.rings.set_prompt(other, Some(other) == slot);
        }
        self.control = slot.map(|slot| {
            self.rings.set_cold_start(slot);
            ControlQueue::new(slot, features, Arc::clone(&self.session), Arc::clone(&self.stats))
        });
    }

    /// The shard of the first pair begins what all share.
    fn begin_session(&mut self) {
        if self.pairs.first().is_some_and(|pair| pair.index == 0) {
            let has = |bits| self.features & bits == bits;
            let (steered, vlan_filtered) =
                (has(feature::CTRL_VQ | feature::MQ), has(feature::CTRL_VQ | feature::CTRL_VLAN));
            self.session.begin(self.rules.rx, steered, vlan_filtered);
        }
    }
}

impl Source for Shard {
    fn poll(&mut self, now: Tsc) -> usize {
        self.rings.begin_poll(now);
        let mut work = self.poll_drivers();
        work += self.poll_ports();
        if self.announcing {
            self.end_announcement();
        }
        self.rings.settle(work > 0);
        work
    }

    fn arm(&mut self) -> Armed {
        if self.rings.enable_notifications() {
            return Armed::Ready;
        }
        // Somebody else says when frames are done, and tells nobody.
        let waits = self.pairs.iter().any(|pair| !pair.held.is_empty());
        if waits || !self.rings.can_sleep() {
            return Armed::MustPoll { deadline: None };
        }
        // While the driver receives somewhere, frames for all of its pairs come.
        let receives = self.session.receives();
        let open = self.pairs.iter_mut().filter(|pair| pair.open || receives);
        open.map(|pair| pair.port.arm()).fold(Armed::until(self.rings.next_call()), Armed::sooner)
    }

    fn disarm(&mut self) {
        self.rings.disable_notifications();
        self.pairs.iter_mut().for_each(|pair| pair.port.disarm());
    }

    fn cool(&mut self) {
        self.rings.cool();
    }

    fn warm(&mut self) {
        self.rings.warm();
    }

    fn wake_fds(&self, add: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.rings.kicks(add);
    }

    fn fds_generation(&self) -> u64 {
        self.rings.kicks_generation()
    }
}

impl VhostShard for Shard {
    fn rings(&mut self) -> &mut RingSet {
        &mut self.rings
    }

    fn reset(&mut self) {
        self.begin_session();
    }

    fn set_features(&mut self, features: u64) {
        let started = (0..self.rings.len()).any(|slot| self.rings.ring_size(slot) > 0);
        if features == self.features && started {
            return; // front-ends say it more than once, and the driver may have begun
        }
        self.features = features;
        self.rules = Rules::new(features, self.mtu);
        for pair in &self.pairs {
            self.rings.set_read_only(pair.tx_slot, features & feature::IN_ORDER != 0);
        }
        self.find_control(features);
        self.begin_session();
    }

    fn send_rarp(&mut self, mac: [u8; 6]) {
        let Some(pair) = self.pairs.first_mut().filter(|_| !self.announcing) else { return };
        let Some(frame) = self.announcement.frame(Mac(mac)) else { return };
        self.scratch.frames.clear();
        self.scratch.frames.push(frame, &[], Offload::NONE);
        if pair.port.tx_burst(&self.scratch.frames) == 1 {
            pair.held.push_back(Held::Own);
            self.announcing = true;
            self.end_announcement();
        }
    }
}

impl Shard {
    /// Looks whether the announcement is out.
    #[cold]
    fn end_announcement(&mut self) {
        let pair = &mut self.pairs[0];
        if pair.reap(&mut self.rings) > 0 {
            self.rings.publish(pair.tx_slot);
        }
        self.announcing = pair.held.iter().any(|held| matches!(held, Held::Own));
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.stats.release();
    }
}

/// No pair.
const NONE: usize = usize::MAX;
