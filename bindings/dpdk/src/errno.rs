//! The numbers that DPDK's functions fail with. What was being done is said by the errors that hold one.

use std::ffi::CStr;
use std::fmt;

/// An errno, or one of DPDK's own numbers beyond them. Prints as text and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// Of a function that returns a negative number.
    pub(crate) fn of(status: i32) -> Errno {
        Errno(status.wrapping_abs())
    }

    /// Of a function that leaves it in `rte_errno`.
    pub(crate) fn last() -> Errno {
        // SAFETY: reads a variable of this thread.
        Errno(unsafe { dpdk_sys::shim_errno() })
    }

    /// The number, positive.
    #[must_use]
    pub fn raw(self) -> i32 {
        self.0
    }

    /// Whether the function is not there for this device.
    #[must_use]
    pub fn is_unsupported(self) -> bool {
        self == Errno::of(rustix::io::Errno::NOTSUP.raw_os_error())
            || self == Errno::of(rustix::io::Errno::NOSYS.raw_os_error())
    }

    /// Ok unless negative.
    pub(crate) fn check(status: i32) -> Result<i32, Errno> {
        if status < 0 { Err(Errno::of(status)) } else { Ok(status) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: takes any number, and returns a string in a buffer of this thread, which is read before the next call.
        let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(self.0)) };
        write!(f, "{} ({})", text.to_string_lossy(), self.0)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_prints_its_text_and_its_number() {
        assert_eq!(Errno::of(-22).to_string(), "Invalid argument (22)");
        assert_eq!(Errno::check(3), Ok(3));
        assert_eq!(Errno::check(-95).map_err(Errno::is_unsupported), Err(true));
    }
}
