//! Memory that shares no cache line with anything else.

use std::ops::{Deref, DerefMut};

/// A value on cache lines of its own: two threads that write to different ones never take a line from each other. 128 bytes,
/// because processors fetch lines in pairs.
///
/// Compiled with `--cfg unpadded` it lies where any other value would: `scripts/bench.sh --only padding/` measures so what that
/// is worth.
#[derive(Debug, Default)]
#[cfg_attr(not(unpadded), repr(align(128)))]
pub struct OwnLines<T>(T);

impl<T> OwnLines<T> {
    /// The value, for what embeds it or allocates it.
    pub const fn new(value: T) -> OwnLines<T> {
        OwnLines(value)
    }
}

impl<T> Deref for OwnLines<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for OwnLines<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(all(test, not(unpadded)))]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_no_pair_of_lines() {
        let both = [OwnLines::new(1u8), OwnLines::new(2u8)];
        let at = [0, 1].map(|index: usize| std::ptr::from_ref(&both[index]).addr());
        assert!(at.iter().all(|at| at.is_multiple_of(128)) && at[1] - at[0] == 128, "{at:x?}");
        assert_eq!((*both[0], *both[1]), (1, 2));
    }
}
