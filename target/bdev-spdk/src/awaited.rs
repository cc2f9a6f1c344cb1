//! Bdevs that SPDK does not have yet, and that somebody would open if it had.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use spdk_rs::{Presence, Registrations, Thread};

use crate::management::{BdevEvent, Events};

/// A bdev that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The name of the device that it is for.
    pub device: String,
    /// What SPDK will call it: a name or an alias.
    pub bdev: String,
}

/// The list of them. Anybody changes it; the thread that manages SPDK looks.
pub(crate) struct Waiting {
    list: Mutex<List>,
    events: Arc<Events>,
}

#[derive(Default)]
struct List {
    awaited: Vec<Awaited>,
    /// There are some that nobody has looked for.
    fresh: bool,
}

/// When it was looked.
#[derive(Default)]
pub(crate) struct Looked {
    registrations: Registrations,
    last: Option<Instant>,
}

impl Waiting {
    pub(crate) fn new(events: Arc<Events>) -> Waiting {
        Waiting { list: Mutex::default(), events }
    }

    /// From now on it is these.
    pub(crate) fn set(&self, awaited: Vec<Awaited>) {
        let mut list = self.list.lock();
        list.fresh |= awaited.iter().any(|one| !list.awaited.contains(one));
        list.awaited = awaited;
    }

    /// Tells of those that are there: when there are new ones in the list, when SPDK has got bdevs, and now and then, because
    /// SPDK does not tell of an alias that a bdev gets later, and of a claim that ends.
    pub(crate) fn look(&self, thread: &Thread, looked: &mut Looked) {
        let mut list = self.list.lock();
        if list.awaited.is_empty() {
            return;
        }
        let due = looked.last.is_none_or(|last| last.elapsed() >= NOW_AND_THEN);
        let news = looked.registrations.any(thread) | mem::take(&mut list.fresh);
        if !(news || due) {
            return;
        }
        looked.last = Some(Instant::now());
        for one in &list.awaited {
            let told = match Presence::of(thread, &one.bdev) {
                Presence::Absent => false,
                Presence::Claimed => news, // once: it is said why it is not opened
                Presence::Free => true,
            };
            if told {
                (self.events)(&one.device, BdevEvent::Appeared);
            }
        }
    }
}

const NOW_AND_THEN: Duration = Duration::from_secs(1);
