//! What a response says, and how often each kind of failure came. Decides what counts as a failure; what to do about it is
//! for others.

use std::fmt;

use virtio_scsi::wire::{RESPONSE_HEADER_LEN, RESPONSE_LEN, response, status};

use super::lines::{UNANSWERED, VERDICT_LEN};

/// Why a command failed. Two failures of one kind are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A VIRTIO_SCSI_S_* code other than OK.
    Response(u8),
    /// A SCSI status other than GOOD and CHECK CONDITION.
    Status(u8),
    /// CHECK CONDITION with this sense; `None` without any.
    CheckCondition(Option<Sense>),
    /// GOOD, but not all of the data moved.
    Residual,
    /// The command came back, and the device had written no response.
    Unanswered,
}

/// The part of sense data that tells what happened (SPC-5 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sense {
    pub key: u8,
    pub asc: u8,
    pub ascq: u8,
}

/// Whether nothing went wrong, for the most usual response. Devices leave the status qualifier, bytes 4 and 5, as it is
/// where it has no meaning.
#[inline(always)]
pub(super) fn is_good(verdict: [u8; VERDICT_LEN]) -> bool {
    u64::from_le_bytes(verdict) & 0xffff_0000_ffff_ffff == 0
}

/// What went wrong; `None` if nothing did.
pub(super) fn failure(bytes: &[u8; RESPONSE_LEN]) -> Option<Failure> {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (sense_len, residual) = (word(0) as usize, word(4));
    match (bytes[11], bytes[10]) {
        (UNANSWERED, UNANSWERED) => Some(Failure::Unanswered),
        (response::OK, status::GOOD) => (residual != 0).then_some(Failure::Residual),
        (response::OK, status::CHECK_CONDITION) => {
            let sense = &bytes[RESPONSE_HEADER_LEN..];
            Some(Failure::CheckCondition(Sense::parse(&sense[..sense_len.min(sense.len())])))
        }
        (response::OK, status) => Some(Failure::Status(status)),
        (response, _) => Some(Failure::Response(response)),
    }
}

impl Sense {
    /// The sense key that says that something changed since the last command.
    pub(super) const UNIT_ATTENTION: u8 = 6;

    fn parse(bytes: &[u8]) -> Option<Sense> {
        let at = |index: usize| bytes.get(index).copied();
        match at(0)? & 0x7f {
            0x70 | 0x71 => Some(Sense { key: at(2)? & 0xf, asc: at(12)?, ascq: at(13)? }),
            0x72 | 0x73 => Some(Sense { key: at(1)? & 0xf, asc: at(2)?, ascq: at(3)? }),
            _ => None,
        }
    }
}

/// How often each kind of failure came.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    kinds: Vec<(Failure, u64)>,
    /// Failures of kinds beyond [`KINDS_MAX`].
    others: u64,
    total: u64,
}

impl Tally {
    #[cold]
    pub(super) fn count(&mut self, failure: Failure) {
        self.total += 1;
        if let Some((_, count)) = self.kinds.iter_mut().find(|(kind, _)| *kind == failure) {
            *count += 1;
        } else if self.kinds.len() < KINDS_MAX {
            self.kinds.push((failure, 1));
        } else {
            self.others += 1;
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Kinds in the order that they first came in, by name, with their counts.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (String, u64)> {
        let others = (self.others > 0).then(|| ("others".to_owned(), self.others));
        self.kinds.iter().map(|(kind, count)| (kind.to_string(), *count)).chain(others)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Response(code) if usize::from(*code) < response::COUNT => {
                write!(f, "S_{}", response::name(usize::from(*code)).to_uppercase())
            }
            Failure::Response(code) => write!(f, "response {code}, which is none"),
            Failure::Status(code) => match code {
                0x08 => f.write_str("BUSY"),
                0x18 => f.write_str("RESERVATION CONFLICT"),
                0x28 => f.write_str("TASK SET FULL"),
                0x40 => f.write_str("TASK ABORTED"),
                _ => write!(f, "SCSI status {code:02X}h"),
            },
            Failure::CheckCondition(None) => f.write_str("CHECK CONDITION without sense"),
            Failure::CheckCondition(Some(sense)) => write!(f, "CHECK CONDITION {sense}"),
            Failure::Residual => f.write_str("GOOD with residual: not all data moved"),
            Failure::Unanswered => f.write_str("came back without a response"),
        }
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.key {
            0x1 => "RECOVERED ERROR",
            0x2 => "NOT READY",
            0x3 => "MEDIUM ERROR",
            0x4 => "HARDWARE ERROR",
            0x5 => "ILLEGAL REQUEST",
            0x6 => "UNIT ATTENTION",
            0x7 => "DATA PROTECT",
            0xb => "ABORTED COMMAND",
            _ => "key",
        };
        write!(f, "{:X}h/{:02X}h/{:02X}h {name}", self.key, self.asc, self.ascq)
    }
}

/// More kinds than a device has reasons for; a broken one may make up any number.
const KINDS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn response(header: [u8; 12], sense: &[u8]) -> [u8; RESPONSE_LEN] {
        let mut bytes = [0; RESPONSE_LEN];
        bytes[..12].copy_from_slice(&header);
        bytes[12..12 + sense.len()].copy_from_slice(sense);
        bytes
    }

    fn text(header: [u8; 12], sense: &[u8]) -> String {
        failure(&response(header, sense)).expect("a failure").to_string()
    }

    #[test]
    fn failure_of_a_good_response_is_none_whatever_its_sense_bytes() {
        assert_eq!(failure(&response([0; 12], &[])), None);
        assert_eq!(failure(&response([18, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[0x70; 18])), None);
    }

    #[test]
    fn verdict_is_good_exactly_when_there_is_no_failure() {
        for (at, good) in [(4, false), (7, false), (8, true), (9, true), (10, false), (11, false)] {
            let mut header = [0; 12];
            header[at] = 1;
            let bytes = response(header, &[]);
            assert_eq!(is_good(bytes[4..12].try_into().unwrap()), good, "byte {at}");
            assert_eq!(failure(&bytes).is_none(), good, "byte {at}");
        }
    }

    #[test]
    fn failure_is_told_by_response_then_status_then_residual() {
        assert_eq!(text([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], &[]), "S_BUSY");
        assert_eq!(text([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x28, 9], &[]), "S_FAILURE");
        assert_eq!(text([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3], &[]), "S_BAD_TARGET");
        assert_eq!(text([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200], &[]), "response 200, which is none");
        assert_eq!(text([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x28, 0], &[]), "TASK SET FULL");
        assert_eq!(text([0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0], &[]), "GOOD with residual: not all data moved");
        assert_eq!(text([0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255], &[]), "came back without a response");
    }

    #[test]
    fn failure_with_sense_names_key_and_codes_of_either_format() {
        let header = |len| [len, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
        let fixed = [0x70, 0, 0x06, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0x01, 0, 0, 0, 0];
        assert_eq!(text(header(18), &fixed), "CHECK CONDITION 6h/29h/01h UNIT ATTENTION");
        assert_eq!(
            text(header(8), &[0x72, 0x05, 0x24, 0x00, 0, 0, 0, 0]),
            "CHECK CONDITION 5h/24h/00h ILLEGAL REQUEST"
        );
        assert_eq!(text(header(0), &fixed), "CHECK CONDITION without sense");
    }

    #[test]
    fn tally_counts_each_kind_once_and_bounds_their_number() {
        let mut tally = Tally::default();
        for _ in 0..3 {
            tally.count(Failure::Response(5));
        }
        tally.count(Failure::Residual);
        let kinds: Vec<_> = tally.kinds().collect();
        let names = [("S_BUSY".to_owned(), 3), ("GOOD with residual: not all data moved".to_owned(), 1)];
        assert_eq!(kinds, names);
        (0..=255).for_each(|code| tally.count(Failure::Status(code)));
        assert_eq!(tally.total(), 260);
        assert_eq!(tally.kinds().count(), 33);
        assert_eq!(tally.kinds().map(|(_, count)| count).sum::<u64>(), 260);
    }
}
