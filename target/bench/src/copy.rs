//! A plain loop of copies: what a disk in memory cannot be faster than. Nothing is between the medium and the buffers but the C
//! library's copy, on one core, over as much memory as the disk has.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, ensure};
use guest_memory::{Backing, GuestSlice, HugeRegion};
use reactor::{Tsc, affinity};
use serde::Serialize;

use crate::cores;
use crate::numbers::Numbers;
use crate::scsi::Rw;
use crate::size;

/// What to copy, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Copies out of the medium (reads) or into it (writes), at random or one after the other
    #[arg(long, value_enum, default_value_t = Rw::RandRead)]
    pub rw: Rw,
    /// Bytes of one copy
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = size::bytes)]
    pub bs: u64,
    /// Buffers on the other side, used in turn: commands that would be in flight
    #[arg(long, value_name = "DEPTH", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub qd: u16,
    /// Bytes of the medium
    #[arg(long, value_name = "SIZE", default_value = "512m", value_parser = size::bytes)]
    pub size: u64,
    /// Core to run on [default: wherever the kernel puts the thread]
    #[arg(long, value_name = "CORE")]
    pub core: Option<usize>,
    /// Seconds to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = size::seconds)]
    pub time: Duration,
    /// Seconds to run before the measurement
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = size::seconds)]
    pub warmup: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Copies in a second.
    pub iops: f64,
    /// Bytes in a second.
    pub bytes_per_second: f64,
    /// Whether medium and buffers are in huge pages.
    pub huge_pages: bool,
}

/// Measures, and prints the result on standard output.
///
/// # Errors
/// Options that make no sense together, a core that this process may not use, or no memory.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    args.check()?;
    let outcome = match args.core {
        // A thread of its own, so that the caller's affinity stays as it is.
        Some(core) => std::thread::scope(|scope| {
            let pinned = || cores::pin(core).and_then(|()| measure(args));
            scope.spawn(pinned).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
        None => measure(args),
    }?;
    crate::print(&outcome, None, args.json.then(|| serde_json::to_string(&outcome)).transpose()?)?;
    Ok(outcome)
}

impl Args {
    fn check(&self) -> anyhow::Result<()> {
        let Args { bs, size, time, .. } = *self;
        ensure!(bs > 0 && bs <= size, "--bs {bs}: must be from 1 to --size, {size}");
        ensure!(self.rw != Rw::RandRw, "--rw randrw: copies go one way only");
        ensure!(!time.is_zero(), "--time 0: must be more than 0 seconds");
        if let Some(core) = self.core {
            affinity::check(&[core]).context("--core")?;
        }
        Ok(())
    }
}

fn measure(args: &Args) -> anyhow::Result<Outcome> {
    let region = |bytes: u64| {
        let bytes = usize::try_from(bytes).context("--size, --bs: more than there are addresses")?;
        HugeRegion::allocate(bytes).with_context(|| format!("no memory for {bytes} bytes"))
    };
    let (medium, buffers) = (region(args.size)?, region(args.bs * u64::from(args.qd))?);
    // Pages that were never written are one page of zeroes, which fits every cache.
    [&medium, &buffers].iter().for_each(|region| region.slice().fill(0xa5));
    let mut copies = Copies::new(args, medium.slice(), buffers.slice());
    copies.run_for(args.warmup);
    let (count, ticks) = copies.run_for(args.time);
    let seconds = Tsc::nanos(ticks) as f64 / 1e9;
    let iops = count as f64 / seconds;
    let huge_pages = [&medium, &buffers].iter().all(|region| region.backing() == Backing::Huge);
    Ok(Outcome { iops, bytes_per_second: iops * args.bs as f64, huge_pages })
}

/// The loop.
struct Copies {
    rw: Rw,
    bs: usize,
    medium: GuestSlice,
    buffers: GuestSlice,
    numbers: Numbers,
    next: u64,
}

impl Copies {
    fn new(args: &Args, medium: GuestSlice, buffers: GuestSlice) -> Copies {
        Copies { rw: args.rw, bs: args.bs as usize, medium, buffers, numbers: Numbers::new(1), next: 0 }
    }

    /// Copies, and the ticks that they took.
    fn run_for(&mut self, time: Duration) -> (u64, u64) {
        let start = Tsc::now();
        let until = start + Tsc::ticks(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let mut count = 0;
        while Tsc::now() < until {
            (0..BETWEEN_LOOKS).for_each(|_| self.copy());
            count += BETWEEN_LOOKS;
        }
        (count, Tsc::now() - start)
    }

    #[inline]
    fn copy(&mut self) {
        let piece =
            |slice: GuestSlice, at: u64| slice.subslice(at as usize * self.bs, self.bs).unwrap_or(GuestSlice::EMPTY);
        let pieces = (self.medium.len() / self.bs) as u64;
        let at = if self.rw.random() { self.numbers.below(pieces) } else { self.next % pieces };
        let (medium, buffer) =
            (piece(self.medium, at), piece(self.buffers, self.next % (self.buffers.len() / self.bs) as u64));
        self.next += 1;
        match self.rw {
            Rw::Read | Rw::RandRead | Rw::RandRw => medium.copy_to(buffer),
            Rw::Write | Rw::RandWrite => buffer.copy_to(medium),
        };
    }
}

/// Copies between two readings of the clock.
const BETWEEN_LOOKS: u64 = 16;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = if self.huge_pages { "huge pages" } else { "ordinary pages" };
        writeln!(f, "{:.0} copies/s, {:.2} GB/s, in {pages}", self.iops, self.bytes_per_second / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use guest_memory::{Pages, SharedMemory};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::try_parse_from(std::iter::once("copy").chain(line.split_whitespace())).unwrap().args
    }

    #[test]
    fn copies_go_the_way_that_was_asked_for_and_reach_every_piece() {
        for (rw, into) in [("read", false), ("randread", false), ("write", true), ("randwrite", true)] {
            let args = args(&format!("--rw {rw} --bs 512 --qd 4 --size 8k"));
            let (medium, buffers) = (
                SharedMemory::create("m", 8192, Pages::Small).unwrap(),
                SharedMemory::create("b", 2048, Pages::Small).unwrap(),
            );
            medium.slice().fill(b'm');
            buffers.slice().fill(b'b');
            let mut copies = Copies::new(&args, medium.slice(), buffers.slice());
            (0..1000).for_each(|_| copies.copy());
            let holds = |slice: GuestSlice, byte| slice.read_array::<1>() == Some([byte]);
            let (to, byte) = if into { (medium.slice(), b'b') } else { (buffers.slice(), b'm') };
            for at in 0..to.len() {
                assert!(holds(to.subslice(at, 1).unwrap(), byte), "{rw}: byte {at}");
            }
        }
    }

    #[test]
    fn measurement_lasts_as_long_as_it_is_told_and_counts_what_it_copies() {
        let began = std::time::Instant::now();
        let outcome = measure(&args("--bs 4k --size 1m --time 0.05 --warmup 0")).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(49), "{:?}", began.elapsed()); // the two clocks differ a little
        assert!(outcome.iops > 0.0 && outcome.bytes_per_second == outcome.iops * 4096.0, "{outcome:?}");
    }

    #[test]
    fn options_out_of_bounds_are_refused_by_name() {
        for (line, what) in [
            ("--bs 0", "--bs 0: must be from 1 to --size"),
            ("--bs 2m --size 1m", "--bs 2097152: must be from 1 to --size, 1048576"),
            ("--rw randrw", "--rw randrw"),
            ("--time 0", "--time 0"),
        ] {
            let error = args(line).check().unwrap_err().to_string();
            assert!(error.contains(what), "{line}: {error}");
        }
    }
}
