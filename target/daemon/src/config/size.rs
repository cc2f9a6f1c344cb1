//! Sizes as operators write them: `"512MiB"`, `"1GB"`, `4096`. Bounds of particular sizes are checked where they are used.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// A text that is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No digits, a fraction, or something behind the unit.
    #[error("must be a whole number with or without a unit, such as \"512MiB\", \"4GB\" or 4096")]
    NotASize,
    /// A unit that is none of ours.
    #[error(
        "unit must be one of: B, KiB, MiB, GiB, TiB, PiB (or K, M, G, T, P) for 1024s, KB, MB, GB, TB, PB for 1000s"
    )]
    UnknownUnit,
    /// More than a signed 64-bit number of bytes, which no file or disk can have.
    #[error("must be less than 8192PiB")]
    TooLarge,
}

/// Largest size: offsets of files are signed 64-bit numbers.
const MAX_BYTES: u64 = i64::MAX.cast_unsigned();

/// Units and their bytes. A single letter counts in 1024s, as QEMU, LVM and dd read it.
const UNITS: [(&str, u64); 17] = [
    ("", 1),
    ("B", 1),
    ("K", 1 << 10),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("T", 1 << 40),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("P", 1 << 50),
    ("PiB", 1 << 50),
    ("PB", 1_000_000_000_000_000),
];

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        let unit = unit.trim_start();
        if digits.is_empty() || !unit.chars().all(|c| c.is_ascii_alphabetic()) {
            return Err(SizeError::NotASize);
        }
        let (_, factor) =
            UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(SizeError::UnknownUnit)?;
        // Digits only, so the one way to fail is overflow.
        let count: u64 = digits.parse().map_err(|_| SizeError::TooLarge)?;
        let bytes = count.checked_mul(*factor).filter(|bytes| *bytes <= MAX_BYTES).ok_or(SizeError::TooLarge)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit of 1024s that divides the size, so that reading it back gives the same number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
            .into_iter()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match exact {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_texts_with_every_unit_give_their_bytes() {
        let table = [
            ("4096", 4096),
            ("512B", 512),
            ("512MiB", 536_870_912),
            ("1GiB", 1_073_741_824),
            ("1gib", 1_073_741_824),
            ("1 GiB", 1_073_741_824),
            (" 3TiB ", 3_298_534_883_328),
            ("2PiB", 2_251_799_813_685_248),
            ("8K", 8192),
            ("8KiB", 8192),
            ("8KB", 8000),
            ("1M", 1_048_576),
            ("1MB", 1_000_000),
            ("1G", 1_073_741_824),
            ("1GB", 1_000_000_000),
            ("1T", 1_099_511_627_776),
            ("1TB", 1_000_000_000_000),
            ("0", 0),
            ("9223372036854775807", 9_223_372_036_854_775_807),
        ];
        for (text, bytes) in table {
            assert_eq!(text.parse(), Ok(ByteSize::new(bytes)), "{text}");
        }
    }

    #[test]
    fn size_texts_that_are_no_sizes_are_refused() {
        let table = [
            ("", SizeError::NotASize),
            ("MiB", SizeError::NotASize),
            ("1.5GiB", SizeError::NotASize),
            ("-1", SizeError::NotASize),
            ("1_000", SizeError::NotASize),
            ("1MiB2", SizeError::NotASize),
            ("1XB", SizeError::UnknownUnit),
            ("1 Mi", SizeError::UnknownUnit),
            ("8192PiB", SizeError::TooLarge),
            ("99999999999999999999", SizeError::TooLarge),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<ByteSize>(), Err(error), "{text}");
        }
    }

    #[test]
    fn size_printed_reads_back_as_the_same_number() {
        let table = [
            (0, "0"),
            (512, "512"),
            (1000, "1000"),
            (4096, "4KiB"),
            (536_870_912, "512MiB"),
            (1_099_511_627_776, "1TiB"),
            (1_099_511_628_288, "1099511628288"),
        ];
        for (bytes, text) in table {
            assert_eq!(ByteSize::new(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(ByteSize::new(bytes)));
        }
    }
}
