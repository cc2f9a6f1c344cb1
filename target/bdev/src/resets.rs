//! How channels of a device learn that it was reset. What they give up then is their own business.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the resets of one device.
#[derive(Clone, Debug, Default)]
pub struct Resets(Arc<AtomicU64>);

/// One channel's view of it.
#[derive(Debug)]
pub struct ResetWatch {
    resets: Resets,
    seen: u64,
}

impl Resets {
    /// A view for a new channel, which has nothing to give up yet.
    #[must_use]
    pub fn watch(&self) -> ResetWatch {
        ResetWatch { resets: self.clone(), seen: self.0.load(Ordering::Acquire) }
    }

    /// The device is reset, from now on.
    pub fn begin(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl ResetWatch {
    /// Whether the device has been reset since this was asked last. One load.
    #[inline]
    pub fn was_reset(&mut self) -> bool {
        let resets = self.resets.0.load(Ordering::Acquire);
        std::mem::replace(&mut self.seen, resets) != resets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_is_seen_once_by_each_channel_that_was_there() {
        let resets = Resets::default();
        let mut watches = [resets.watch(), resets.watch()];
        assert!(!watches[0].was_reset());
        resets.begin();
        resets.begin();
        assert!(!resets.watch().was_reset(), "it comes after both");
        for watch in &mut watches {
            assert!(watch.was_reset());
            assert!(!watch.was_reset());
        }
    }
}
