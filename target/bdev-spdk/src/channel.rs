//! A channel as the trait has it: it comes from a control thread, is used on a poller, and is dropped on a control thread. What
//! SPDK gives the poller stays there (`lane`).

use std::mem;
use std::sync::Arc;
use std::sync::mpsc;

use bdev::{Completion, Io, IoChannel, Status, Submitted, Token};
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
    fn open(&mut self) -> Result<&mut Lane, Status> {
        match Lane::open(&self.shared, &self.counters) {
            Ok(lane) => {
                self.home = Some(lane.thread().handle());
                Ok(self.lane.insert(AtHome::new(lane)).get())
            }
            Err(error) => {
                // The next request tries again, and then it is not said again.
                if !mem::replace(&mut self.refused, true) {
                    tracing::error!(bdev = %self.shared.info.name, "no channel: {error}");
                }
                Err(error.status())
            }
        }
    }
}

impl IoChannel for SpdkChannel {
    fn submit(&mut self, io: &Io<'_>, _: Tsc) -> Submitted {
        let lane = match &mut self.lane {
            Some(lane) => lane.get(),
            None => match self.open() {
                Ok(lane) => lane,
                Err(status) => return Submitted::Done(status),
            },
        };
        lane.submit(io)
    }

    fn poll(&mut self, now: Tsc, done: &mut Vec<Completion>) -> usize {
        self.lane.as_mut().map_or(0, |lane| lane.get().poll(now, done))
    }

    fn abort(&mut self, token: Token) {
        if let Some(lane) = &mut self.lane {
            lane.get().abort(token);
        }
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
