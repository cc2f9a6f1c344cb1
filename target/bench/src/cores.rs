//! How far two cores are apart: the time a cache line takes from one to the other and back. It says nothing about load:
//! it measures, and leaves it to the caller to drop or classify what was measured meanwhile.
//!
//! On virtual machines the distance changes while they run, as the host moves their cores, and the throughput of two
//! polling threads changes with it by a factor of two to three.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, thread};

use anyhow::{Context, ensure};
use reactor::{Tsc, affinity};
use serde::Serialize;

/// Which cores, and how to say it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// One core
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub a: usize,
    /// The other core
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub b: usize,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distance {
    /// One core.
    pub a: usize,
    /// The other core.
    pub b: usize,
    /// Round trip of a cache line in nanoseconds: the median of many series.
    pub round_trip_ns: f64,
    /// Near or far.
    pub class: Class,
}

/// Cores that share a cache, and cores that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A round trip below [`NEAR_BELOW_NS`].
    Near,
    /// All others.
    Far,
}

/// Round trips from here on are far, in nanoseconds. Between cores of one cache 50 to 170 were seen, between others 400
/// and more.
pub const NEAR_BELOW_NS: f64 = 230.0;

/// Measures, and prints the result on standard output: `142 ns near`.
///
/// # Errors
/// A core that this process may not use, twice the same core, or a core that does not get to run.
pub fn run(args: &Args) -> anyhow::Result<Distance> {
    let distance = measure(args.a, args.b)?;
    let mut out = io::stdout().lock();
    let line = if args.json { serde_json::to_string(&distance)? } else { distance.to_string() };
    writeln!(out, "{line}").context("standard output")?;
    Ok(distance)
}

/// Measures the distance of two cores with one pinned thread on each. Takes some milliseconds where both are idle.
///
/// # Errors
/// As [`run`].
pub fn measure(a: usize, b: usize) -> anyhow::Result<Distance> {
    ensure!(a != b, "--a {a} --b {b}: a core has no distance from itself");
    affinity::check(&[a, b]).context("--a, --b")?;
    let court = Court::default();
    let deadline = Tsc::now() + Tsc::ticks(PATIENCE.as_nanos() as u64);
    let series = thread::scope(|scope| {
        let other = scope.spawn(|| pinned(b, || court.answer()));
        let series = scope.spawn(|| pinned(a, || court.serve(deadline)));
        let series = series.join().expect("the measuring thread does not panic");
        court.over.store(true, Ordering::Relaxed);
        other.join().expect("the answering thread does not panic")?;
        series
    })?;
    ensure!(!series.is_empty(), "cores {a} and {b}: no answer within {PATIENCE:?}: one of them is busy");
    let ns = median(series) / ROUNDS as f64;
    let class = if ns < NEAR_BELOW_NS { Class::Near } else { Class::Far };
    Ok(Distance { a, b, round_trip_ns: (ns * 10.0).round() / 10.0, class })
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} ns {}", self.round_trip_ns, self.class)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Near => "near",
            Class::Far => "far",
        })
    }
}

/// Pins the calling thread to a core of this process.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: core });
    ensure!(pinned, "cannot pin to core {core}: {}", io::Error::last_os_error());
    Ok(())
}

fn pinned<T>(core: usize, work: impl FnOnce() -> T) -> anyhow::Result<T> {
    pin(core).map(|()| work())
}

fn median(mut series: Vec<u64>) -> f64 {
    series.sort_unstable();
    Tsc::nanos(series[series.len() / 2]) as f64
}

/// The cache line that goes back and forth: odd on its way out, even on its way back.
#[derive(Default)]
#[repr(align(128))]
struct Ball(AtomicU64);

#[derive(Default)]
struct Court {
    ball: Ball,
    over: AtomicBool,
}

impl Court {
    /// Plays [`SERIES`] series of [`ROUNDS`] rounds; how many ticks each took. The first one, which waits for the other
    /// side to come, does not count. Fewer when the deadline passes.
    fn serve(&self, deadline: Tsc) -> Vec<u64> {
        let mut taken = Vec::with_capacity(SERIES);
        let mut value = 0;
        for series in 0..=SERIES {
            let start = Tsc::now();
            for _ in 0..ROUNDS {
                self.ball.0.store(value + 1, Ordering::Release);
                value += 2;
                let mut looks = 0u32;
                while self.ball.0.load(Ordering::Acquire) != value {
                    looks = looks.wrapping_add(1);
                    if looks.is_multiple_of(LOOKS_PER_CHECK) && Tsc::now() > deadline {
                        return taken;
                    }
                }
            }
            if series > 0 {
                taken.push(Tsc::now() - start);
            }
        }
        taken
    }

    fn answer(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let value = self.ball.0.load(Ordering::Acquire);
            if value % 2 == 1 {
                self.ball.0.store(value + 1, Ordering::Release);
            }
        }
    }
}

/// Rounds in one series.
const ROUNDS: u64 = 1000;
/// Series, of which the median counts: some meet an interrupt, or another thread on the core.
const SERIES: usize = 31;
/// The clock is read this seldom while waiting, as reading it takes as long as many looks.
const LOOKS_PER_CHECK: u32 = 1024;
/// How long to wait for cores that others keep busy.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_of_a_core_from_itself_is_an_error() {
        let error = measure(3, 3).expect_err("no distance").to_string();
        assert_eq!(error, "--a 3 --b 3: a core has no distance from itself");
    }

    #[test]
    fn distance_to_a_core_that_is_not_there_names_it() {
        let core = affinity::allowed().expect("readable")[0];
        let error = format!("{:#}", measure(core, 1023).expect_err("not allowed"));
        assert!(error.contains("core 1023 is not in the set allowed"), "{error}");
    }

    #[test]
    fn distance_of_two_cores_is_positive_and_prints_its_class() {
        let cores = affinity::allowed().expect("readable");
        let [a, b, ..] = cores[..] else { return };
        // Where other tests keep both cores busy there may be no answer in time, which is an answer, too.
        match measure(a, b) {
            Ok(distance) => {
                assert!(distance.round_trip_ns > 0.0);
                assert_eq!(distance.class == Class::Near, distance.round_trip_ns < 230.0);
                assert!(distance.to_string().ends_with(&format!(" ns {}", distance.class)));
            }
            Err(error) => assert!(error.to_string().contains("no answer within"), "{error}"),
        }
    }

    #[test]
    fn distance_as_json_has_the_class_in_lower_case() {
        let distance = Distance { a: 0, b: 1, round_trip_ns: 142.5, class: Class::Near };
        let json = serde_json::to_string(&distance).expect("plain values");
        assert_eq!(json, r#"{"a":0,"b":1,"round_trip_ns":142.5,"class":"near"}"#);
        assert_eq!(distance.to_string(), "142 ns near");
    }
}
