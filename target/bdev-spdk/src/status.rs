//! What became of one of SPDK's requests, in the terms of the trait.

use bdev::Status;
use spdk_rs::{Errno, Failure, Outcome};

/// What a request was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Reading,
    Writing,
}

impl Doing {
    fn medium_error(self) -> Status {
        match self {
            Doing::Reading => Status::ReadError,
            Doing::Writing => Status::WriteError,
        }
    }
}

/// How it ended. A bdev that is `removed` fails everything, in whatever words.
pub(crate) fn of(outcome: Outcome, doing: Doing, removed: bool) -> Status {
    match outcome {
        Outcome::Good => Status::Good,
        _ if removed => Status::Gone,
        Outcome::Refused(errno) => of_errno(errno),
        Outcome::Failed(failure) => of_failure(failure, doing),
    }
}

/// What SPDK says of a request that it does not take.
pub(crate) fn of_errno(errno: Errno) -> Status {
    match errno.raw() {
        libc::EINVAL => Status::OutOfRange, // lengths were checked before
        libc::EBADF => Status::WriteProtected,
        libc::ENOTSUP => Status::Unsupported,
        libc::ENODEV | libc::ENXIO => Status::Gone,
        libc::ECANCELED => Status::Aborted, // it was given up while it waited
        libc::EBUSY | libc::EAGAIN | libc::ENOMEM => Status::Busy,
        _ => Status::Failed,
    }
}

fn of_failure(failure: Failure, doing: Doing) -> Status {
    match (failure.nvme_type, failure.nvme_code) {
        // NVM Express Base Specification 2.0, figure 97: Command Abort Requested; Aborted due to SQ Deletion.
        (GENERIC, 0x07 | 0x08) => return Status::Aborted,
        // Internal Error: what SPDK says of a bdev that has only failed. A drive that says so itself has sense data for it.
        (GENERIC, 0x06) if failure.sense_key == ABORTED_COMMAND => return doing.medium_error(),
        // NVM Command Set: LBA Out of Range; Capacity Exceeded.
        (GENERIC, 0x80) => return Status::OutOfRange,
        (GENERIC, 0x81) => return Status::NoSpace,
        // Namespace Write Protected; Attempted Write to Read Only Range.
        (GENERIC, 0x20) | (COMMAND_SPECIFIC, 0x82) => return Status::WriteProtected,
        // Path Related Status: the way to the namespace is in trouble, not the namespace. The command may be tried again.
        (PATH, _) => return Status::Aborted,
        // Compare Failure.
        (MEDIA, 0x85) => return Status::Miscompare { offset: 0 },
        _ => {}
    }
    match (failure.scsi_status, failure.sense_key, failure.additional) {
        (BUSY | TASK_SET_FULL, ..) => Status::Busy,
        (_, MISCOMPARE, _) => Status::Miscompare { offset: 0 },
        (_, MEDIUM_ERROR, _) => doing.medium_error(),
        (_, DATA_PROTECT, (0x27, 0x07)) => Status::NoSpace,
        (_, DATA_PROTECT, _) => Status::WriteProtected,
        (_, ILLEGAL_REQUEST, (0x20, _)) => Status::Unsupported,
        (_, ILLEGAL_REQUEST, (0x21, _)) => Status::OutOfRange,
        (_, NOT_READY, (0x3a, _)) => Status::Gone,
        (_, NOT_READY | UNIT_ATTENTION, _) => Status::Busy,
        (_, ABORTED_COMMAND, _) => Status::Aborted,
        _ => Status::Failed,
    }
}

// NVMe status code types.
const GENERIC: u16 = 0;
const COMMAND_SPECIFIC: u16 = 1;
const MEDIA: u16 = 2;
const PATH: u16 = 3;
// SAM-6 §5.3.1, status codes.
const BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;
// SPC-6, sense keys.
const NOT_READY: u8 = 0x2;
const MEDIUM_ERROR: u8 = 0x3;
const ILLEGAL_REQUEST: u8 = 0x5;
const UNIT_ATTENTION: u8 = 0x6;
const DATA_PROTECT: u8 = 0x7;
const ABORTED_COMMAND: u8 = 0xb;
const MISCOMPARE: u8 = 0xe;

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(nvme: (u16, u16), scsi_status: u8, sense_key: u8, additional: (u8, u8)) -> Outcome {
        let (nvme_type, nvme_code) = nvme;
        Outcome::Failed(Failure { nvme_type, nvme_code, scsi_status, sense_key, additional })
    }

    #[test]
    fn failure_without_details_is_one_of_the_medium() {
        let plain = failure((0, 6), 2, 0xb, (0, 0));
        assert_eq!(of(plain, Doing::Reading, false), Status::ReadError);
        assert_eq!(of(plain, Doing::Writing, false), Status::WriteError);
        assert_eq!(of(plain, Doing::Writing, true), Status::Gone);
        assert_eq!(of(Outcome::Good, Doing::Writing, true), Status::Good);
        // The hardware error of a drive is not the medium's.
        assert_eq!(of(failure((0, 6), 2, 4, (0x44, 0)), Doing::Reading, false), Status::Failed);
    }

    #[test]
    fn failure_with_details_keeps_them() {
        for (outcome, status) in [
            (failure((0, 7), 2, 0xb, (0, 0)), Status::Aborted),
            (failure((2, 0x85), 2, 0xe, (0x1d, 0)), Status::Miscompare { offset: 0 }),
            (failure((2, 0x81), 2, 3, (0x11, 0)), Status::ReadError),
            (failure((0, 0x20), 2, 7, (0x27, 0)), Status::WriteProtected),
            (failure((0, 6), 2, 7, (0x27, 7)), Status::NoSpace),
            (failure((0, 6), 0x28, 0, (0, 0)), Status::Busy),
            (failure((0, 0x80), 2, 5, (0x21, 0)), Status::OutOfRange),
            (failure((0, 6), 2, 5, (0x20, 0)), Status::Unsupported),
            (failure((3, 0x71), 2, 5, (0, 0)), Status::Aborted),
        ] {
            assert_eq!(of(outcome, Doing::Reading, false), status, "{outcome:?}");
        }
    }
}
