//! What the thread that drives the rings and the thread that watches it tell each other. Neither ever waits for the other
//! through it, except by the two stops.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use stats::Gauge;
use vhost_user::connection::Stop;

/// Written by one side, read by the other.
#[derive(Debug)]
pub(crate) struct Board {
    /// Commands or frames that came back, failed ones included, over all phases.
    pub completed: Gauge,
    /// How many of them failed.
    pub failed: Gauge,
    /// How many are in flight now.
    pub in_flight: Gauge,
    phase: AtomicU8,
    order: AtomicU8,
    /// Ends a sleep of the driving thread: there is a new order.
    pub wake: Stop,
    /// The driving thread is done.
    pub finished: Stop,
}

/// What the driving thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Writing the whole range, so that reads can be verified.
    Filling,
    /// Running before the measurement.
    WarmingUp,
    /// Measuring.
    Measuring,
    /// Waiting for what is in flight.
    Draining,
    /// Reading everything that was written.
    ReadingBack,
}

/// What the watching thread wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Order {
    /// Nothing in particular.
    GoOn,
    /// Send nothing more, and end when everything is back.
    Finish,
    /// End at once: nothing will come back.
    Abandon,
}

impl Board {
    pub(crate) fn new() -> io::Result<Board> {
        Ok(Board {
            completed: Gauge::new(),
            failed: Gauge::new(),
            in_flight: Gauge::new(),
            phase: AtomicU8::new(Phase::Filling as u8),
            order: AtomicU8::new(Order::GoOn as u8),
            wake: Stop::new()?,
            finished: Stop::new()?,
        })
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn phase(&self) -> Phase {
        use Phase::*;
        let all = [Filling, WarmingUp, Measuring, Draining, ReadingBack];
        all[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    pub(crate) fn give(&self, order: Order) {
        self.order.store(order as u8, Ordering::Relaxed);
        self.wake.request();
    }

    pub(crate) fn order(&self) -> Order {
        let all = [Order::GoOn, Order::Finish, Order::Abandon];
        all[usize::from(self.order.load(Ordering::Relaxed))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn board_gives_back_what_was_written() {
        let board = Board::new().unwrap();
        assert_eq!(board.order(), Order::GoOn);
        for order in [Order::Finish, Order::Abandon] {
            board.give(order);
            assert_eq!(board.order(), order);
        }
        assert!(board.wake.requested() && !board.finished.requested());
        for phase in [Phase::Filling, Phase::WarmingUp, Phase::Measuring, Phase::Draining, Phase::ReadingBack] {
            board.set_phase(phase);
            assert_eq!(board.phase(), phase);
        }
    }
}
