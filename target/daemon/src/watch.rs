//! The thread that says what pollers may not: faults of virtqueues, and limits that the rings cannot hold; and that tells
//! guests when the link of their port goes down or comes up. Its clock is also that of the target's health.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::select;
use port::Link;
use vhost_user::RingReport;

use crate::health::Health;
use crate::service::{NetService, ScsiService};

/// At most one line per ring in this time.
const QUIET: Duration = Duration::from_secs(1);
/// How often rings are compared with limits, and links and pollers are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The running thread.
pub struct Watch {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

impl Watch {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(
        faults: Receiver<RingReport>,
        health: Arc<Health>,
        services: Vec<Arc<ScsiService>>,
        nets: Vec<Arc<NetService>>,
    ) -> io::Result<Watch> {
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("ringside-watch".into()).spawn(move || {
            let mut log = FaultLog::default();
            let mut capacities = Capacities { seen: vec![0; services.len()], told: vec![(0, 0); services.len()] };
            let mut links = Links(nets.iter().map(|net| net.device().port().link()).collect());
            let mut next = Instant::now() + TICK;
            loop {
                select! {
                    recv(faults) -> report => match report {
                        Ok(report) => log.report(&report, Instant::now()),
                        Err(_) => break,
                    },
                    recv(stopped) -> _ => break,
                    default(next.saturating_duration_since(Instant::now())) => {
                        capacities.look(&services);
                        links.look(&nets);
                        health.look();
                        next = Instant::now() + TICK;
                    }
                }
            }
        })?;
        Ok(Watch { thread, stop })
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// Logs faults, one line a ring and second (R19).
#[derive(Default)]
struct FaultLog {
    last: HashMap<(Arc<str>, u16), (Instant, u64)>,
}

impl FaultLog {
    fn report(&mut self, report: &RingReport, now: Instant) {
        if let Some(left_out) = self.spend(report, now) {
            tracing::error!(
                controller = %report.device, queue = report.ring, reason = report.fault.reason.as_str(), left_out,
                "virtqueue halted: {}; the driver has to reset it", report.fault
            );
        }
    }

    /// Whether there is to be a line; if so, how many there were not since the last one.
    fn spend(&mut self, report: &RingReport, now: Instant) -> Option<u64> {
        match self.last.entry((Arc::clone(&report.device), report.ring)) {
            Entry::Occupied(mut last) if now - last.get().0 < QUIET => {
                last.get_mut().1 += 1;
                None
            }
            Entry::Occupied(mut last) => Some(last.insert((now, 0)).1),
            Entry::Vacant(first) => {
                first.insert((now, 0));
                Some(0)
            }
        }
    }
}

/// R06: rings that hold fewer commands than `cmd_per_lun` make the limit smaller. Said once a change.
struct Capacities {
    seen: Vec<u64>,
    /// Capacity, and the limit at that time.
    told: Vec<(u64, u64)>,
}

impl Capacities {
    fn look(&mut self, services: &[Arc<ScsiService>]) {
        for (index, service) in services.iter().enumerate() {
            let capacity = service.stats().request_ring_capacity();
            let settled = std::mem::replace(&mut self.seen[index], capacity) == capacity;
            let limit = u64::from(service.controller().limits().cmd_per_lun);
            if !settled || (capacity, limit) == self.told[index] {
                continue;
            }
            self.told[index] = (capacity, limit);
            if capacity > 0 && capacity < limit {
                tracing::warn!(
                    controller = %service.controller().name(),
                    "cmd_per_lun {limit}: the rings that the front-end has set up hold {capacity} commands, \
                     so {capacity} is the limit in effect"
                );
            }
        }
    }
}

/// The link of each net device's port, as its guest was told.
struct Links(Vec<Link>);

impl Links {
    fn look(&mut self, nets: &[Arc<NetService>]) {
        for (net, told) in nets.iter().zip(&mut self.0) {
            let port = net.device().port();
            let link = port.link();
            if link == *told {
                continue;
            }
            let state = if link.up { "up" } else { "down" };
            tracing::info!(controller = %net.device().config().name, port = port.name(), "link {state}");
            net.config_changed();
            *told = link;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtqueue::{Fault, FaultReason};

    #[test]
    fn r19_thousand_faults_of_a_ring_are_a_line_a_second_that_tells_how_many() {
        let report =
            |ring| RingReport { device: "vm0".into(), ring, fault: Fault { reason: FaultReason::Loop, head: Some(1) } };
        let start = Instant::now();
        let mut log = FaultLog::default();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let lines: Vec<u64> = (0..1000).filter_map(|ms| log.spend(&report(2), at(ms))).collect();
        assert_eq!(lines, [0]);
        assert_eq!(log.spend(&report(3), at(999)), Some(0), "another ring has lines of its own");
        assert_eq!(log.spend(&report(2), at(1000)), Some(999));
        assert_eq!(log.spend(&report(2), at(1500)), None);
        assert_eq!(log.spend(&report(2), at(2000)), Some(1));
    }
}
