//! Sizes and times on the command line: `4k`, `1MiB`, `4096`; `10`, `0.5`. What each must be a multiple of, or at most, is
//! checked where it is used.

use std::time::Duration;

/// Parses a number of bytes; a letter counts in 1024s.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("must be a whole number with or without k, m, g or t, such as 4k or 4096".to_owned()),
    };
    let count: u64 = digits.parse().map_err(|_| "must begin with a whole number, such as 4k or 4096".to_owned())?;
    count.checked_mul(1 << shift).ok_or_else(|| "must be below 16777216t".to_owned())
}

/// Parses a number of seconds, possibly with a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number = || text.parse::<f64>().ok().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds));
    match number() {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds)),
        None => Err(format!("must be a number of seconds, 0 to {SECONDS_MAX}")),
    }
}

/// Ten days: every time in ticks fits easily.
const SECONDS_MAX: f64 = 864_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_every_unit_give_their_number() {
        let table = [("4096", 4096), ("512b", 512), ("4k", 4096), ("4K", 4096), ("128KiB", 131_072)];
        for (text, number) in table {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        assert_eq!(bytes("1m"), Ok(1 << 20));
        assert_eq!(bytes("1G"), Ok(1 << 30));
        assert_eq!(bytes("2t"), Ok(2 << 40));
    }

    #[test]
    fn bytes_that_are_no_size_are_refused() {
        for text in ["", "k", "-1", "4kk", "1.5m", "4 k", "99999999999999999999", "16777216t"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_may_have_a_fraction_and_nothing_else() {
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for text in ["", "-1", "nan", "inf", "1s", "864001"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
