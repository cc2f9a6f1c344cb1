//! Time as ticks of the x86-64 time-stamp counter, and their length; no wall-clock time and no timers.
//!
//! Reading the counter takes some 20 cycles and no syscall, so pollers read it once per loop. Its rate is measured
//! against the monotonic clock once per process, in 20 ms, by whoever converts first ([`Reactor::start`](crate::Reactor::start)
//! makes sure that this is no poller). The result is good to a few parts per million: for latencies and deadlines, not for
//! clocks that have to agree over days.

use std::arch::x86_64::{__cpuid, _rdtsc};
use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment, in ticks since some moment in the past. Differences are plain `u64` ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tsc(pub u64);

impl Tsc {
    /// This moment. Not ordered against surrounding loads and stores: exact to the instructions in flight.
    #[inline]
    pub fn now() -> Self {
        // SAFETY: every x86-64 processor has the instruction; it touches no memory. Linux leaves it enabled for user space
        // unless the thread asked otherwise by prctl(PR_SET_TSC), and then it raises a signal.
        Self(unsafe { _rdtsc() })
    }

    /// `ticks` in nanoseconds, modulo 2^64: one multiplication and a shift, no division.
    #[inline]
    pub fn nanos(ticks: u64) -> u64 {
        rate().nanos_per_tick.of(ticks)
    }

    /// `nanos` in ticks, modulo 2^64: one multiplication and a shift, no division.
    #[inline]
    pub fn ticks(nanos: u64) -> u64 {
        rate().ticks_per_nano.of(nanos)
    }
}

/// Ticks from the earlier to the later moment; 0 where they are the other way round, as two cores may see them.
impl Sub for Tsc {
    type Output = u64;

    #[inline]
    fn sub(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The moment so many ticks later.
impl Add<u64> for Tsc {
    type Output = Self;

    #[inline]
    fn add(self, ticks: u64) -> Self {
        Self(self.0.saturating_add(ticks))
    }
}

/// Rate of the counter, in ticks per second.
pub fn ticks_per_second() -> u64 {
    rate().ticks_per_second
}

/// Whether the processor promises a counter of constant rate in every power state (CPUID 8000_0007h, EDX bit 8). Hypervisors
/// often hide that promise from a guest which they may migrate.
pub fn is_invariant() -> bool {
    const LAST_EXTENDED: u32 = 0x8000_0000;
    const POWER_MANAGEMENT: u32 = 0x8000_0007;
    const INVARIANT_TSC: u32 = 1 << 8;
    __cpuid(LAST_EXTENDED).eax >= POWER_MANAGEMENT && __cpuid(POWER_MANAGEMENT).edx & INVARIANT_TSC != 0
}

/// The measured rate and the two factors made from it.
#[derive(Clone, Copy)]
struct Rate {
    ticks_per_second: u64,
    nanos_per_tick: Factor,
    ticks_per_nano: Factor,
}

impl Rate {
    fn new(ticks_per_second: u64) -> Self {
        let ticks_per_second = ticks_per_second.max(1);
        Self {
            ticks_per_second,
            nanos_per_tick: Factor::ratio(NANOS_PER_SECOND, ticks_per_second),
            ticks_per_nano: Factor::ratio(ticks_per_second, NANOS_PER_SECOND),
        }
    }

    fn measure() -> Self {
        let (first_tick, first) = reading();
        std::thread::sleep(MEASURED);
        let (last_tick, last) = reading();
        let nanos = (last - first).as_nanos().max(1);
        let ticks = u128::from(last_tick - first_tick) * u128::from(NANOS_PER_SECOND) / nanos;
        Self::new(u64::try_from(ticks).unwrap_or(u64::MAX))
    }
}

/// A ratio in 32.32 fixed point, rounded down: short by less than 2^-32.
#[derive(Clone, Copy)]
struct Factor(u64);

impl Factor {
    fn ratio(numerator: u64, denominator: u64) -> Self {
        let fixed = (u128::from(numerator) << FRACTION_BITS) / u128::from(denominator);
        Self(u64::try_from(fixed).unwrap_or(u64::MAX))
    }

    #[inline]
    fn of(self, value: u64) -> u64 {
        ((u128::from(value) * u128::from(self.0)) >> FRACTION_BITS) as u64
    }
}

#[inline]
fn rate() -> &'static Rate {
    static RATE: OnceLock<Rate> = OnceLock::new();
    RATE.get_or_init(Rate::measure)
}

/// Both clocks at one moment: of several readings the one in which the least time passed between them, because a
/// preemption or an interrupt may fall into any of them.
fn reading() -> (Tsc, Instant) {
    let readings = (0..READINGS).map(|_| {
        let before = Tsc::now();
        let at = Instant::now();
        let gap = Tsc::now() - before;
        (gap, before + gap / 2, at)
    });
    let (_, tick, at) = readings.min_by_key(|(gap, ..)| *gap).expect("there is more than one reading");
    (tick, at)
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const FRACTION_BITS: u32 = 32;
/// How long the measurement takes.
const MEASURED: Duration = Duration::from_millis(20);
const READINGS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tsc_read_twice_does_not_go_back() {
        let first = Tsc::now();
        assert!(Tsc::now() >= first);
    }

    #[test]
    fn tsc_difference_of_swapped_moments_is_zero() {
        assert_eq!(Tsc(12) - Tsc(5), 7);
        assert_eq!(Tsc(5) - Tsc(12), 0);
        assert_eq!(Tsc(u64::MAX) + 1, Tsc(u64::MAX));
    }

    #[test]
    fn second_of_ticks_is_a_billion_nanos() {
        let nanos = Tsc::nanos(ticks_per_second());
        assert!((999_999_998..=1_000_000_000).contains(&nanos), "{nanos}");
        assert!(ticks_per_second().abs_diff(Tsc::ticks(1_000_000_000)) <= 1);
    }

    /// Each interval encloses the other once, so the bounds hold however long the thread is off the processor.
    #[test]
    fn rate_agrees_with_the_monotonic_clock() {
        ticks_per_second();
        let (outer, outer_tick) = (Instant::now(), Tsc::now());
        let (inner_tick, inner) = (Tsc::now(), Instant::now());
        while inner.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let (inner, inner_ticks) = (inner.elapsed().as_nanos(), Tsc::now() - inner_tick);
        let outer_ticks = Tsc::now() - outer_tick;
        let outer = outer.elapsed().as_nanos();
        assert!(u128::from(Tsc::nanos(inner_ticks)) * 1000 >= inner * 999);
        assert!(u128::from(Tsc::nanos(outer_ticks)) * 999 <= outer * 1000);
    }

    #[test]
    fn invariance_equals_what_the_kernel_found() {
        let flags = std::fs::read_to_string("/proc/cpuinfo").expect("the kernel shows its processors");
        let nonstop = flags.split_ascii_whitespace().any(|flag| flag == "nonstop_tsc");
        assert_eq!(is_invariant(), nonstop);
    }

    proptest! {
        #[test]
        fn conversion_of_any_span_is_close_to_division(
            mhz in 100u64..6_000,
            seconds in 0u64..1_000_000,
            rest in 0u64..1_000_000_000,
        ) {
            let rate = Rate::new(mhz * 1_000_000);
            let nanos = seconds * 1_000_000_000 + rest;
            let ticks = nanos / 1000 * mhz;
            let error = rate.nanos_per_tick.of(ticks).abs_diff(nanos);
            prop_assert!(error <= 1000 + (ticks >> 32), "{error} ns of {nanos}");
            let error = rate.ticks_per_nano.of(nanos).abs_diff(ticks);
            prop_assert!(error <= mhz + 1 + (nanos >> 32), "{error} ticks of {ticks}");
        }

        #[test]
        fn conversion_of_a_longer_span_is_not_shorter(ticks in 0..u64::MAX / 16, more in 0..u64::MAX / 16) {
            let rate = Rate::new(2_600_000_000);
            prop_assert!(rate.nanos_per_tick.of(ticks + more) >= rate.nanos_per_tick.of(ticks));
        }
    }
}
