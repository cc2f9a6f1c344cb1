//! The bounded queue in front of a receiver, which it may close at any time: nothing stays in one that is closed. What is in it
//! is the caller's; who wakes the receiver, too.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

#[cfg(not(loom))]
use crossbeam::queue::ArrayQueue;
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};

#[cfg(loom)]
use self::model::ArrayQueue;

/// Items in the order that they were pushed. Any thread pushes; the receiver pops.
pub(super) struct Inbox<T> {
    items: ArrayQueue<T>,
    open: AtomicBool,
}

impl<T> Inbox<T> {
    /// Closed, with room for `capacity` items.
    pub(super) fn new(capacity: usize) -> Inbox<T> {
        Inbox { items: ArrayQueue::new(capacity), open: AtomicBool::new(false) }
    }

    /// Adds an item; gives it back if there is no room. Whoever pushed must [`settle`](Self::settle) before it does anything
    /// else: until then the item may stay in an inbox that is closed.
    #[inline]
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        self.items.push(item)
    }

    /// Ends a burst of pushes. Whether the inbox is open; if not, nothing is in it, and what was goes to `lost`. A full fence:
    /// what the caller looks at afterwards, it looks at after its items can be seen.
    #[inline]
    pub(super) fn settle(&self, lost: impl FnMut(T)) -> bool {
        // Against `close`: either its last look finds the items, or this look finds it closed.
        fence(Ordering::SeqCst);
        let open = self.open.load(Ordering::Relaxed);
        if !open {
            self.discard(lost);
        }
        open
    }

    /// The oldest item. Receiver only.
    #[inline]
    pub(super) fn pop(&self) -> Option<T> {
        if self.items.is_empty() { None } else { self.items.pop() }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Receiver only: items may come.
    pub(super) fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// Receiver only: those that are in it are `lost`, and so are, for who pushes them, those that come from now on.
    pub(super) fn close(&self, lost: impl FnMut(T)) {
        self.open.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.discard(lost);
    }

    fn discard(&self, mut lost: impl FnMut(T)) {
        while let Some(item) = self.items.pop() {
            lost(item);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn inbox_gives_what_it_got_in_order_up_to_its_bound() {
        let inbox = Inbox::new(2);
        inbox.open();
        assert_eq!((inbox.push(1), inbox.push(2), inbox.push(3)), (Ok(()), Ok(()), Err(3)));
        assert!(inbox.settle(drop));
        assert_eq!((inbox.pop(), inbox.pop(), inbox.pop()), (Some(1), Some(2), None));
    }

    #[test]
    fn inbox_pushed_to_when_closed_keeps_nothing() {
        let (inbox, token) = (Inbox::new(4), Arc::new(()));
        inbox.push(Arc::clone(&token)).unwrap();
        assert!(!inbox.settle(drop));
        assert_eq!((Arc::strong_count(&token), inbox.is_empty()), (1, true));
        inbox.open();
        inbox.push(Arc::clone(&token)).unwrap();
        inbox.close(drop);
        assert_eq!((Arc::strong_count(&token), inbox.is_empty()), (1, true));
    }

    #[test]
    fn inbox_closed_while_pushed_to_keeps_nothing() {
        let (inbox, token) = (Inbox::new(64), Arc::new(()));
        inbox.open();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let _ = inbox.push(Arc::clone(&token));
                        inbox.settle(drop);
                    }
                });
            }
            for _ in 0..1_000 {
                inbox.open();
                inbox.pop();
                inbox.close(drop);
            }
        });
        assert_eq!((Arc::strong_count(&token), inbox.is_empty()), (1, true));
    }
}

#[cfg(loom)]
mod model {
    use loom::sync::Mutex;
    use loom::sync::atomic::{AtomicBool, Ordering};

    /// In place of crossbeam's, which loom does not know. Keeps no order, and orders nothing else either: who looks into an
    /// empty slot touches one flag, so that whatever `settle` and `close` need beyond that is theirs.
    pub(super) struct ArrayQueue<T>(Vec<Slot<T>>);

    struct Slot<T> {
        full: AtomicBool,
        item: Mutex<Option<T>>,
    }

    impl<T> ArrayQueue<T> {
        pub(super) fn new(capacity: usize) -> ArrayQueue<T> {
            let slot = |_| Slot { full: AtomicBool::new(false), item: Mutex::new(None) };
            ArrayQueue((0..capacity).map(slot).collect())
        }

        pub(super) fn push(&self, item: T) -> Result<(), T> {
            for slot in &self.0 {
                let mut place = slot.item.lock().unwrap();
                if place.is_none() {
                    *place = Some(item);
                    slot.full.store(true, Ordering::Release);
                    return Ok(());
                }
            }
            Err(item)
        }

        pub(super) fn pop(&self) -> Option<T> {
            let taken = |slot: &Slot<T>| {
                let mut place = slot.item.lock().unwrap();
                slot.full.store(false, Ordering::Relaxed);
                place.take()
            };
            // One that somebody else empties meanwhile says nothing about the next.
            self.0.iter().filter(|slot| slot.full.load(Ordering::Acquire)).find_map(taken)
        }

        pub(super) fn is_empty(&self) -> bool {
            !self.0.iter().any(|slot| slot.full.load(Ordering::Acquire))
        }
    }

    #[cfg(test)]
    mod tests {
        use loom::sync::Arc;

        use super::super::Inbox;

        /// Senders against a receiver that closes, and perhaps opens again: in the end nothing is left inside. Schedules with
        /// three preemptions at most: more take hours.
        fn closed_at_any_time(count: usize, reopens: bool) {
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(3);
            builder.check(move || {
                let (inbox, token) = (Arc::new(Inbox::new(2)), Arc::new(()));
                inbox.open();
                let senders: Vec<_> = (0..count)
                    .map(|_| {
                        let (inbox, token) = (Arc::clone(&inbox), Arc::clone(&token));
                        loom::thread::spawn(move || {
                            let _ = inbox.push(token);
                            inbox.settle(drop);
                        })
                    })
                    .collect();
                inbox.close(drop);
                if reopens {
                    inbox.open();
                    inbox.close(drop);
                }
                senders.into_iter().for_each(|sender| sender.join().unwrap());
                assert!(inbox.is_empty());
                assert_eq!(Arc::strong_count(&token), 1);
            });
        }

        #[test]
        fn loom_inbox_closed_while_pushed_to_keeps_nothing() {
            closed_at_any_time(2, false);
        }

        #[test]
        fn loom_inbox_reopened_while_pushed_to_keeps_nothing_when_closed() {
            closed_at_any_time(1, true);
        }
    }
}
