//! R01 to R24 under a hostile driver: thousands of random sequences of requests, task management, stops, resets, memory
//! changes, disconnects and malformed chains. What is promised and checked after each poll stands in `tests::hostile`.
//!
//! `HOSTILE_SEED=n cargo test -p tests --test r00_hostile_driver` runs one sequence alone and prints its steps;
//! `HOSTILE_SEQUENCES=n` changes how many each of the eight tests runs (1300).

use tests::hostile::{Tally, run_sequence};

const SEQUENCES: u64 = 1300;
const PARTS: u64 = 8;

/// The sequences of one test.
fn run(part: u64) {
    if let Some(seed) = number("HOSTILE_SEED") {
        if seed % PARTS == part {
            println!("{:?}", run_sequence(seed));
        }
        return;
    }
    let count = number("HOSTILE_SEQUENCES").unwrap_or(SEQUENCES);
    let mut tally = Tally::default();
    (0..count).for_each(|sequence| tally += run_sequence(PARTS * sequence + part));
    // Everything that is worth trying was tried, and often.
    let Tally { answers, refused, swept, functions, halted, sessions, left_behind, quiets } = tally;
    println!("{count} sequences: {tally:?}");
    let each = [answers / 20, refused, 2 * swept, functions, 2 * halted, 2 * sessions, 16 * left_behind, quiets];
    assert!(each.iter().all(|number| *number >= count), "{tally:?} in {count} sequences");
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

/// 10,400 in all, in parts that run side by side.
macro_rules! parts {
    ($($name:ident = $part:literal),*) => {
        $(#[test]
        fn $name() {
            run($part);
        })*
    };
}

parts!(
    hostile_driver_gets_what_is_promised_in_1300_sequences = 0,
    hostile_driver_gets_what_is_promised_in_the_second_1300 = 1,
    hostile_driver_gets_what_is_promised_in_the_third_1300 = 2,
    hostile_driver_gets_what_is_promised_in_the_fourth_1300 = 3,
    hostile_driver_gets_what_is_promised_in_the_fifth_1300 = 4,
    hostile_driver_gets_what_is_promised_in_the_sixth_1300 = 5,
    hostile_driver_gets_what_is_promised_in_the_seventh_1300 = 6,
    hostile_driver_gets_what_is_promised_in_the_last_1300 = 7
);
