//! Values that cannot leave their thread, in boxes that can: whoever carries such a box elsewhere can only send it home.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};

/// A value that only the thread that made it may touch. It can be anywhere; [`get`](AtHome::get) works at home only.
///
/// Dropped elsewhere, it is lost, and the log says so.
pub(crate) struct AtHome<T> {
    value: ManuallyDrop<T>,
    home: u64,
}

// SAFETY: the value is touched on the thread that made it only: `get` and `drop` look where they are, by a number that no
// other thread of the process ever has.
unsafe impl<T> Send for AtHome<T> {}

thread_local! {
    static HERE: Cell<u64> = const { Cell::new(0) };
}

impl<T> AtHome<T> {
    pub(crate) fn new(value: T) -> AtHome<T> {
        AtHome { value: ManuallyDrop::new(value), home: here() }
    }

    /// The value.
    ///
    /// # Panics
    /// On another thread than its own.
    #[inline]
    pub(crate) fn get(&mut self) -> &mut T {
        assert!(self.is_here(), "used on another thread than the one it belongs to");
        &mut self.value
    }

    /// Whether this is its thread.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        HERE.get() == self.home
    }
}

impl<T> Drop for AtHome<T> {
    fn drop(&mut self) {
        if self.is_here() {
            // SAFETY: dropped here and never again.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        } else {
            tracing::error!("{} was dropped on another thread than its own, and is lost", std::any::type_name::<T>());
        }
    }
}

/// A number of this thread, never 0.
fn here() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if HERE.get() == 0 {
        HERE.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    HERE.get()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use super::*;

    #[test]
    fn value_is_touched_and_dropped_at_home_only() {
        let witness = Rc::new(5);
        let mut value = AtHome::new(Rc::clone(&witness));
        assert_eq!(**value.get(), 5);
        let (touched, mut value) = std::thread::spawn(move || {
            let touched = catch_unwind(AssertUnwindSafe(|| drop(value.get().clone()))).is_ok();
            (touched, value)
        })
        .join()
        .unwrap();
        assert!(!touched && value.is_here());
        assert_eq!(Rc::strong_count(value.get()), 2);
        drop(value);
        assert_eq!(Rc::strong_count(&witness), 1);
        let lost = AtHome::new(Rc::clone(&witness));
        std::thread::spawn(move || drop(lost)).join().unwrap();
        assert_eq!(Rc::strong_count(&witness), 2, "it is lost, not dropped elsewhere");
    }
}
