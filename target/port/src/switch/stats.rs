//! What a switch counts as a whole. What its ports count is their `PortStats`.

use std::sync::atomic::{AtomicU64, Ordering};

use stats::{Counter, Gauge};

/// Counters of a switch. Read by anyone. All but `floods` are written by whoever writes the table of addresses, one at a time.
#[derive(Debug, Default)]
pub struct SwitchStats {
    /// Addresses in the table, old ones included until they are cleared away.
    pub entries: Gauge,
    /// Addresses that it learned.
    pub learned: Counter,
    /// Addresses that turned up behind another port.
    pub moved: Counter,
    /// Addresses cleared away because no frame had come from them.
    pub aged: Counter,
    /// Times that an address could not be learned: the table was full, or its device had as many as it may.
    pub table_full: Counter,
    floods: AtomicU64,
}

impl SwitchStats {
    /// Frames to one address that was not in the table, and so went to everybody.
    #[must_use]
    pub fn floods(&self) -> u64 {
        self.floods.load(Ordering::Relaxed)
    }

    /// Any thread, once a burst.
    #[inline]
    pub(crate) fn flooded(&self, frames: u64) {
        if frames > 0 {
            self.floods.fetch_add(frames, Ordering::Relaxed);
        }
    }

    /// All of them by name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("entries", self.entries.value()),
            ("learned", self.learned.value()),
            ("moved", self.moved.value()),
            ("aged", self.aged.value()),
            ("floods", self.floods()),
            ("table_full", self.table_full.value()),
        ]
    }
}
