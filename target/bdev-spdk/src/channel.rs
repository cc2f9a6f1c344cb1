//! A channel as the trait has it: it comes from a control thread, is used on a poller, and is dropped on a control thread. What
//! SPDK gives the poller stays there (`lane`).

use std::sync::Arc;
use std::sync::mpsc;

use bdev::{Completion, Io, IoChannel, Status, Submitted};
use reactor::clock::Tsc;
use spdk_rs::ThreadHandle;

use crate::bdev::Shared;
use crate::counters::ChannelCounters;
use crate::home::AtHome;
use crate::lane::Lane;
use crate::poller;

pub(crate) struct SpdkChannel {
    shared: Arc<Shared>,
    counters: Arc<ChannelCounters>,
    /// Opened by the first request.
    lane: Option<AtHome<Lane>>,
    /// Its thread.
    home: Option<ThreadHandle>,
    /// It could not be opened, and that was said.
    refused: bool,
}

impl SpdkChannel {
    pub(crate) fn new(shared: &Arc<Shared>) -> SpdkChannel {
        let counters = shared.counters.join();
        SpdkChannel { shared: Arc::clone(shared), counters, lane: None, home: None, refused: false }
    }

    #[cold]
    fn open(&mut self) -> Option<&mut Lane> {
        if self.refused {
            return None;
        }
        match Lane::open(&self.shared, &self.counters) {
            Ok(lane) => {
                self.home = Some(lane.thread().handle());
                Some(self.lane.insert(AtHome::new(lane)).get())
            }
            Err(error) => {
                self.refused = true;
                tracing::error!(bdev = %self.shared.info.name, "no channel: {error}");
                None
            }
        }
    }
}

impl IoChannel for SpdkChannel {
    fn submit(&mut self, io: &Io<'_>, _: Tsc) -> Submitted {
        let lane = match &mut self.lane {
            Some(lane) => lane.get(),
            None => match self.open() {
                Some(lane) => lane,
                None => return Submitted::Done(Status::Gone),
            },
        };
        lane.submit(io)
    }

    fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        self.lane.as_mut().map_or(0, |lane| lane.get().poll(now, done))
    }

    fn is_prompt(&self) -> bool {
        true // SPDK's bdevs in memory end everything at the next poll of the thread
    }

    fn next_deadline(&self) -> Option<Tsc> {
        // The poller looks at its SPDK thread all the time while a channel is open, and asks here when a request is outstanding.
        self.lane.as_ref().map(|_| Tsc(0))
    }
}

impl Drop for SpdkChannel {
    fn drop(&mut self) {
        let Some(mut lane) = self.lane.take() else { return };
        if lane.is_here() {
            // Nobody else polls this thread meanwhile.
            let thread = lane.get().thread().clone();
            while !lane.get().is_over() {
                thread.poll();
            }
            return;
        }
        let (ended, waiting) = mpsc::channel();
        let Some(home) = &self.home else { return };
        if home.send(move || poller::leave_behind(lane, ended)).is_ok() {
            // Until the last request has ended; or the poller has, with all that it had.
            let _ = waiting.recv();
        }
    }
}
