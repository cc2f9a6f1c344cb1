//! Blocks of counters, one per channel, and their sum. What is counted is the owner's business.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counters of all channels of a device. Each channel's poller is the only writer of its block. A block outlives
/// its channel and goes to the next one, so that counts never go back and do not pile up.
#[derive(Debug, Default)]
pub struct CounterBlocks<T>(Mutex<Vec<Arc<T>>>);

impl<T: Default> CounterBlocks<T> {
    /// A block for a new channel. For control threads.
    #[must_use]
    pub fn join(&self) -> Arc<T> {
        let mut blocks = self.lock();
        // One that nobody but this list holds has lost its channel.
        if let Some(block) = blocks.iter_mut().find_map(|block| Arc::get_mut(block).is_some().then_some(block)) {
            return Arc::clone(block);
        }
        let block = Arc::new(T::default());
        blocks.push(Arc::clone(&block));
        block
    }

    /// Adds up what `value` is for each block.
    #[must_use]
    pub fn sum(&self, value: impl Fn(&T) -> u64) -> u64 {
        self.lock().iter().map(|block| value(block)).sum()
    }

    /// Looks at each block.
    pub fn each(&self, look: impl FnMut(&T)) {
        self.lock().iter().map(|block| &**block).for_each(look);
    }

    /// The list is whole between any two calls on it, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use stats::Counter;

    use super::*;

    #[test]
    fn blocks_are_used_again_and_keep_their_counts() {
        let blocks = CounterBlocks::<Counter>::default();
        let (one, other) = (blocks.join(), blocks.join());
        one.add(1);
        other.add(20);
        drop(one);
        let next = blocks.join();
        next.add(300);
        assert_eq!(blocks.sum(Counter::value), 321);
        let mut count = 0;
        blocks.each(|_| count += 1);
        assert_eq!(count, 2);
    }
}
