//! What is plugged into a switch, as senders see it: the inboxes of every device's queues, and a list of all devices that
//! changes as a whole. Who is in the list is the business of `switch.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use guest_memory::GuestSlice;
use parking_lot::Mutex;
use reactor::PollerHandle;

use super::claims::Claims;
use super::inbox::Inbox;
use super::table::PortId;
use crate::Offload;

/// A frame in its sender's memory, on its way to one receiver or several. Each inbox that it is in has a handle of it.
#[derive(Debug)]
pub(super) struct Loan {
    pub(super) claims: Claims,
    pub(super) len: u32,
    pub(super) offload: Offload,
    pub(super) segments: Vec<GuestSlice>,
}

impl Loan {
    pub(super) fn new() -> Loan {
        Loan { claims: Claims::new(), len: 0, offload: Offload::NONE, segments: Vec::with_capacity(SEGMENTS_USUAL) }
    }

    /// For whoever takes it out of an inbox for nobody: whether it is theirs to count as lost. One that its sender has taken
    /// back is counted there.
    fn give_up(&self) -> bool {
        let claimed = self.claims.claim();
        if claimed {
            self.claims.release();
        }
        claimed
    }
}

/// The way to one queue of a device.
pub(super) struct Lane {
    pub(super) inbox: Inbox<Arc<Loan>>,
    /// Whether its poller may sleep, or not look at it for other reasons, and has to be woken.
    pub(super) armed: AtomicBool,
    poller: PollerHandle,
}

impl Lane {
    /// Ends a burst of pushes to its inbox. Frames that are lost, because it has been closed meanwhile.
    #[inline]
    pub(super) fn settle(&self) -> usize {
        let mut lost = 0;
        // The full fence in `settle` lies between the pushes and the look at the flag, as one lies between `arm` and the last
        // look at the inbox: one of the two sees the other.
        if self.inbox.settle(|loan| lost += usize::from(loan.give_up())) && self.armed.load(Ordering::Relaxed) {
            self.poller.wake();
        }
        lost
    }
}

/// A device that is plugged in, or the uplink.
pub(super) struct Member {
    pub(super) isolated: bool,
    /// One for each queue pair.
    pub(super) lanes: Vec<Lane>,
    /// Which queue pairs receive, a bit for each.
    pub(super) open: AtomicU64,
    /// Queues that have not been dropped.
    pub(super) queues_left: AtomicUsize,
}

impl Member {
    pub(super) fn new(isolated: bool, pollers: &[PollerHandle], inbox_frames: usize) -> Member {
        let lane = |poller: &PollerHandle| Lane {
            inbox: Inbox::new(inbox_frames),
            armed: AtomicBool::new(false),
            poller: poller.clone(),
        };
        Member {
            isolated,
            lanes: pollers.iter().map(lane).collect(),
            open: AtomicU64::new(0),
            queues_left: AtomicUsize::new(pollers.len()),
        }
    }

    /// The queue pair that frames of a flow go to; `None` if none receives. `flow` is asked only where there is a choice.
    #[inline]
    pub(super) fn pick(&self, flow: impl FnOnce() -> u32) -> Option<usize> {
        let mut open = self.open.load(Ordering::Relaxed);
        match open.count_ones() {
            0 => return None,
            1 => {}
            pairs => {
                // Clears as many of the lowest bits as the hash says.
                let skipped = (u64::from(flow()) * u64::from(pairs)) >> 32;
                (0..skipped).for_each(|_| open &= open - 1);
            }
        }
        Some(open.trailing_zeros() as usize)
    }

    /// Frames that are lost with it.
    #[must_use]
    pub(super) fn set_open(&self, queue: usize, open: bool) -> usize {
        let (bit, mut lost) = (1 << queue, 0);
        if open {
            self.lanes[queue].inbox.open();
            self.open.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.open.fetch_and(!bit, Ordering::Relaxed);
            self.lanes[queue].inbox.close(|loan| lost += usize::from(loan.give_up()));
        }
        lost
    }
}

/// Everybody, by port number.
pub(super) type Members = Vec<Option<Arc<Member>>>;

/// The list as it is now. Control threads replace it; queues keep a copy of the handle and look at the generation once a burst.
pub(super) struct Roster {
    generation: AtomicU64,
    lists: Mutex<Lists>,
}

struct Lists {
    current: Arc<Members>,
    /// Old ones that queues may still have: they are freed in here, on control threads, not by a poller that lets go of one.
    retired: Vec<Arc<Members>>,
}

impl Roster {
    pub(super) fn new(ports: usize) -> Roster {
        let current = Arc::new((0..ports).map(|_| None).collect());
        Roster { generation: AtomicU64::new(1), lists: Mutex::new(Lists { current, retired: Vec::new() }) }
    }

    /// Changes the list. Control threads only.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Members) -> R) -> R {
        let mut lists = self.lists.lock();
        let mut members = (*lists.current).clone();
        let result = change(&mut members);
        let old = std::mem::replace(&mut lists.current, Arc::new(members));
        lists.retired.push(old);
        lists.retired.retain(|list| Arc::strong_count(list) > 1);
        self.generation.fetch_add(1, Ordering::Release);
        result
    }

    /// The list as it is now. Control threads only.
    pub(super) fn members(&self) -> Arc<Members> {
        Arc::clone(&self.lists.lock().current)
    }
}

/// One queue's copy of the list.
pub(super) struct Snapshot {
    generation: u64,
    members: Arc<Members>,
}

impl Snapshot {
    pub(super) fn new(roster: &Roster) -> Snapshot {
        Snapshot { generation: 0, members: roster.members() }
    }

    /// Looks for a newer list, once a burst: one load while there is none. Takes the old one for another burst if somebody is
    /// changing it.
    #[inline]
    pub(super) fn refresh(&mut self, roster: &Roster) {
        let generation = roster.generation.load(Ordering::Acquire);
        if generation != self.generation
            && let Some(lists) = roster.lists.try_lock()
        {
            self.members = Arc::clone(&lists.current);
            self.generation = generation;
        }
    }

    #[inline]
    pub(super) fn member(&self, port: PortId) -> Option<&Member> {
        self.members.get(usize::from(port.0))?.as_deref()
    }

    /// One more than the highest port number.
    #[inline]
    pub(super) fn ports(&self) -> u16 {
        self.members.len() as u16
    }
}

/// Segments of a frame that there is room for from the start: as many as Linux sends (17 fragments, and what comes before
/// them). Others find room once.
const SEGMENTS_USUAL: usize = 20;
