//! Whether a target does its work: front-ends can connect to every device, and every poller turns. A poller that is held up
//! cannot say so; somebody else has to look now and then whether it has got on. Who asks is `http.rs` and the exporter, who
//! looks is `watch.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reactor::PollerHandle;
use vhost_user::Device;

use crate::service::{NetService, ScsiService};

/// The devices; and the pollers, as they were at the last looks.
#[derive(Default)]
pub struct Health {
    pollers: Vec<Pulse>,
    controllers: Vec<Arc<ScsiService>>,
    nets: Vec<Arc<NetService>>,
}

#[derive(Debug)]
struct Pulse {
    poller: PollerHandle,
    /// Loops at the last look.
    loops: AtomicU64,
    /// Looks in a row that found it where it had been.
    still: AtomicU64,
}

/// A poller that was found at the same loop so often does not turn: looks are a second apart.
const STILL_MAX: u64 = 2;

impl Health {
    /// Of these pollers, all of which turn, and of these devices.
    #[must_use]
    pub fn new(pollers: &[PollerHandle], controllers: &[Arc<ScsiService>], nets: &[Arc<NetService>]) -> Health {
        let pulse = |poller: &PollerHandle| Pulse {
            poller: poller.clone(),
            loops: AtomicU64::new(poller.stats().loops.value()),
            still: AtomicU64::new(0),
        };
        let pollers = pollers.iter().map(pulse).collect();
        Health { pollers, controllers: controllers.to_vec(), nets: nets.to_vec() }
    }

    /// Looks at each poller. By one thread.
    pub fn look(&self) {
        self.pollers.iter().for_each(Pulse::look);
    }

    /// Why the target is not ready, each reason in a line; none if it is.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let controllers = self.controllers.iter().map(|scsi| (scsi.device().name(), scsi.stats().is_listening()));
        let nets = self.nets.iter().map(|net| (net.device().name(), net.stats().is_listening()));
        let deaf = controllers.chain(nets).filter(|(_, listening)| !listening);
        let deaf = deaf.map(|(name, _)| format!("{name}: front-ends cannot connect"));
        let stuck = self.pollers().filter(|(_, turning)| !turning);
        deaf.chain(stuck.map(|(poller, _)| format!("the poller of core {} does not turn", poller.core()))).collect()
    }

    /// Each poller, and whether it turns, or sleeps.
    pub fn pollers(&self) -> impl Iterator<Item = (&PollerHandle, bool)> {
        self.pollers.iter().map(|pulse| (&pulse.poller, pulse.still.load(Ordering::Relaxed) < STILL_MAX))
    }
}

impl Pulse {
    fn look(&self) {
        let stats = self.poller.stats();
        let loops = stats.loops.value();
        let moved = self.loops.swap(loops, Ordering::Relaxed) != loops || stats.asleep.value() != 0;
        let still = if moved { 0 } else { self.still.load(Ordering::Relaxed) + 1 };
        self.still.store(still, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crossbeam::channel::{Sender, bounded};
    use reactor::{Armed, IdlePolicy, Reactor, ReactorConfig, Source, Tsc};
    use rustix::thread::sched_getcpu;

    use super::*;

    struct Nothing;

    impl Source for Nothing {
        fn poll(&mut self, _now: Tsc) -> usize {
            0
        }

        fn arm(&mut self) -> Armed {
            Armed::Sleep
        }
    }

    /// A poller that sleeps when it has nothing to do.
    pub(crate) fn reactor() -> Reactor {
        Reactor::start(&ReactorConfig { cores: vec![sched_getcpu()], idle: IdlePolicy::Adaptive }).unwrap()
    }

    /// Holds a poller up until what it returns is dropped.
    pub(crate) fn hold(poller: &PollerHandle) -> Sender<()> {
        let (release, held) = bounded::<()>(0);
        let (there, is_there) = bounded(1);
        poller.add(Nothing).run(move |_| {
            there.send(()).unwrap();
            let _ = held.recv();
        });
        is_there.recv().unwrap();
        release
    }

    fn turning(health: &Health) -> bool {
        health.pollers().all(|(_, turning)| turning)
    }

    fn wait_asleep(poller: &PollerHandle) {
        while poller.stats().asleep.value() == 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn poller_that_sleeps_turns_and_one_that_is_held_up_does_not() {
        let reactor = reactor();
        let poller = &reactor.pollers()[0];
        let health = Health::new(reactor.pollers(), &[], &[]);
        wait_asleep(poller);
        (0..5).for_each(|_| health.look());
        assert!(turning(&health), "asleep");

        let release = hold(poller);
        // Whether it has got on between the last look and being held is chance.
        let looks = (1..10).find(|_| {
            health.look();
            !turning(&health)
        });
        assert!(looks == Some(2) || looks == Some(3), "{looks:?}");
        assert_eq!(health.unready(), [format!("the poller of core {} does not turn", poller.core())]);

        drop(release);
        wait_asleep(poller);
        health.look();
        assert!(turning(&health) && health.unready().is_empty(), "released");
    }
}
