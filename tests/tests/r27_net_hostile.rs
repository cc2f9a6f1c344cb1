//! R14, R19, R26 and R27 under a hostile driver: random sequences of frames, malformed chains, control commands, stops,
//! disablings, features and memory tables that change, announcements, and front-ends that go, over a port that keeps frames
//! as long as it likes, and over two devices on a switch that are polled in any order. Nothing depends on time.
//!
//! After every poll: chains come back once and in order, nothing is written but the buffers that came back and the used rings,
//! and no more of those than they say; frames arrive whole, unaltered and in order, although every buffer is scribbled over as
//! soon as it has come back; and what was answered as quiet is quiet. Stops and tables are answered once the far side has let
//! go. In the end every frame is counted, once.
//!
//! `HOSTILE_SEED=n` runs one sequence alone.

mod hostile_net;

use hostile_net::{Sequence, Tally};

/// Runs sequences `part`, `part` + 4 and so on.
fn run(part: u64, count: u64, one: fn(u64) -> Sequence) -> Tally {
    let seeds: Vec<u64> = match std::env::var("HOSTILE_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..count).map(|sequence| 4 * sequence + part).collect(),
    };
    let mut tally = Tally::default();
    for seed in seeds {
        let result = std::panic::catch_unwind(|| one(seed).run());
        match result {
            Ok(seen) => tally += seen,
            Err(panic) => {
                eprintln!("HOSTILE_SEED={seed} runs this sequence alone");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{tally:?}");
    tally
}

/// A test that tries nothing finds nothing.
fn tried(tally: &Tally, count: u64) {
    let Tally { sent, received, halted, stops, tables, commands, connections } = *tally;
    let each = [sent / 10, received, 8 * halted, stops, tables, commands, 2 * connections];
    assert!(
        std::env::var("HOSTILE_SEED").is_ok() || each.iter().all(|number| *number >= count),
        "{tally:?} in {count}"
    );
}

macro_rules! parts {
    ($($name:ident = $one:path, $count:literal, $part:literal);*) => {
        $(#[test]
        fn $name() {
            tried(&run($part, $count, $one), $count);
        })*
    };
}

parts!(
    r27_hostile_net_driver_on_a_wire_gets_what_is_promised = Sequence::on_a_wire, 400, 0;
    r27_hostile_net_driver_on_a_wire_gets_what_is_promised_again = Sequence::on_a_wire, 400, 1;
    r27_hostile_net_drivers_on_a_switch_get_what_is_promised = Sequence::on_a_switch, 250, 2;
    r27_hostile_net_drivers_on_a_switch_get_what_is_promised_again = Sequence::on_a_switch, 250, 3
);
