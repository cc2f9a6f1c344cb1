//! R01 to R24 under a hostile driver: thousands of random sequences of requests, task management, stops, resets, memory
//! changes, disconnects and malformed chains. What is promised and checked after each poll stands in `tests::hostile`.
//!
//! `HOSTILE_SEED=n cargo test -p tests --test r00_hostile_driver` runs one sequence alone and prints its steps;
//! `HOSTILE_SEQUENCES=n` changes how many each test runs (2600).

use tests::hostile::{Tally, run_sequence};

const SEQUENCES: u64 = 2600;

/// The sequences of one test: `part` of four.
fn run(part: u64) {
    if let Some(seed) = number("HOSTILE_SEED") {
        if seed % 4 == part {
            println!("{:?}", run_sequence(seed));
        }
        return;
    }
    let count = number("HOSTILE_SEQUENCES").unwrap_or(SEQUENCES);
    let mut tally = Tally::default();
    (0..count).for_each(|sequence| tally += run_sequence(4 * sequence + part));
    // Everything that is worth trying was tried, and often.
    let Tally { answers, refused, swept, functions, halted, sessions, left_behind, quiets } = tally;
    println!("{count} sequences: {tally:?}");
    let each = [answers / 20, refused, 2 * swept, functions, halted, 2 * sessions, 8 * left_behind, quiets];
    assert!(each.iter().all(|number| *number >= count), "{tally:?} in {count} sequences");
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

#[test]
fn hostile_driver_gets_what_is_promised_in_2600_sequences() {
    run(0);
}

#[test]
fn hostile_driver_gets_what_is_promised_in_2600_more() {
    run(1);
}

#[test]
fn hostile_driver_gets_what_is_promised_in_2600_more_again() {
    run(2);
}

#[test]
fn hostile_driver_gets_what_is_promised_in_the_last_2600() {
    run(3);
}
