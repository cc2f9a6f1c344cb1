//! A gate at which requests wait until another thread lets them pass. Knows nothing of devices and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Lets requests of a [`Delay`](super::Delay) pass on demand. Clones are the same gate; one gate may hold the requests
/// of any number of channels and devices.
///
/// A fresh gate is closed. A poller with requests at a gate keeps polling, because nothing wakes it when the gate opens.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// How many may pass; [`OPEN`]: all of them.
    permits: AtomicU64,
    /// How many wait.
    held: AtomicU64,
}

impl Gate {
    /// A gate that lets nothing pass.
    #[must_use]
    pub fn closed() -> Gate {
        Gate::default()
    }

    /// Lets `count` more requests pass: those that wait, and if they are fewer, the next to come. They pass in the
    /// order of submission on each channel, when its poller looks.
    pub fn release(&self, count: u64) {
        self.update(|permits| if permits == OPEN { OPEN } else { permits.saturating_add(count).min(OPEN - 1) });
    }

    /// Lets everything pass, until the gate is closed again.
    pub fn open(&self) {
        self.update(|_| OPEN);
    }

    /// Lets nothing pass any more, what was released but has not passed included.
    pub fn close(&self) {
        self.update(|_| 0);
    }

    /// How many requests wait at the gate now, over all channels.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Acquire)
    }

    /// Waits, on a control thread, until at least `count` requests wait at the gate; `false` if that did not come about
    /// within `patience`.
    #[must_use]
    pub fn wait_for_held(&self, count: u64, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.held() < count {
            if Instant::now() > end {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    /// One more request waits.
    pub(crate) fn arrived(&self) {
        self.0.held.fetch_add(1, Ordering::Release);
    }

    /// Whether one of the requests that wait may go on; it does not wait any more then.
    pub(crate) fn pass(&self) -> bool {
        if self.0.permits.load(Ordering::Acquire) == 0 {
            return false;
        }
        let pass = self.update(|permits| if permits == OPEN { OPEN } else { permits.saturating_sub(1) }) > 0;
        if pass {
            self.left(1);
        }
        pass
    }

    /// So many requests do not wait any more.
    pub(crate) fn left(&self, count: u64) {
        self.0.held.fetch_sub(count, Ordering::Release);
    }

    /// Returns how many permits there were before.
    fn update(&self, next: impl FnMut(u64) -> u64) -> u64 {
        self.0.permits.update(Ordering::AcqRel, Ordering::Acquire, next)
    }
}

const OPEN: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(gate: &Gate, tries: usize) -> usize {
        (0..tries)
            .filter(|_| {
                gate.arrived();
                gate.pass()
            })
            .count()
    }

    #[test]
    fn gate_lets_pass_as_many_as_were_released() {
        let gate = Gate::closed();
        assert_eq!(passes(&gate, 3), 0);
        assert_eq!(gate.held(), 3);
        gate.clone().release(2);
        assert_eq!(passes(&gate, 3), 2);
        assert_eq!(gate.held(), 4);
    }

    #[test]
    fn gate_open_lets_all_pass_until_it_is_closed() {
        let gate = Gate::closed();
        gate.open();
        gate.release(1);
        assert_eq!(passes(&gate, 1000), 1000);
        gate.close();
        assert_eq!(passes(&gate, 10), 0);
        gate.release(u64::MAX);
        assert_eq!(passes(&gate, 10), 10);
        gate.close();
        assert_eq!(passes(&gate, 1), 0);
    }

    #[test]
    fn gate_wait_sees_requests_of_another_thread_and_gives_up_without() {
        let gate = Gate::closed();
        assert!(!gate.wait_for_held(1, Duration::ZERO));
        thread::scope(|scope| {
            scope.spawn(|| (0..3).for_each(|_| gate.arrived()));
            assert!(gate.wait_for_held(3, Duration::from_secs(60)));
        });
        gate.left(3);
        assert_eq!(gate.held(), 0);
    }
}
