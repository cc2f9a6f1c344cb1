//! The numbers that SPDK's functions fail with. What was being done is said by the errors that hold one.

use std::fmt;
use std::io;

/// An errno. Prints as text and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// Of a function that returns a negative number, or of one that says it without the sign.
    pub(crate) fn of(status: i32) -> Errno {
        Errno(status.wrapping_abs())
    }

    /// The number, positive.
    #[must_use]
    pub fn raw(self) -> i32 {
        self.0
    }

    /// Ok if the status is 0 or positive.
    pub(crate) fn check(status: i32) -> Result<(), Errno> {
        if status < 0 { Err(Errno::of(status)) } else { Ok(()) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_prints_its_text_and_its_number() {
        assert_eq!(Errno::of(-22).to_string(), "Invalid argument (os error 22)");
        assert_eq!(Errno::check(3), Ok(()));
        assert_eq!(Errno::check(-95).map_err(Errno::raw), Err(95));
    }
}
