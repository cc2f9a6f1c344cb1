//! The command line of `bench scsi`, and what can be said about it before anything is connected.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use reactor::affinity;
use serde::Serialize;

use crate::ring::{self, Ring};
use crate::size;

/// What to run, and against what.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// vhost-user-scsi socket to connect to
    #[arg(long, value_name = "PATH", required_unless_present = "null_responder", conflicts_with = "null_responder")]
    pub socket: Option<PathBuf>,
    /// Access pattern
    #[arg(long, value_enum, default_value_t = Rw::RandRead)]
    pub rw: Rw,
    /// Reads among the commands of randrw, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub rwmixread: u8,
    /// Bytes of one command: a multiple of the LUN's block size
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = size::bytes)]
    pub bs: u64,
    /// Commands in flight on each queue
    #[arg(long, value_name = "DEPTH", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub qd: u16,
    /// Send --qd commands to each queue at once, and when all are back the next ones after so many microseconds. 0: a command
    /// for each that comes back
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=THINK_US_MAX))]
    pub think_us: u32,
    /// Request queues, all driven by one thread
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=254))]
    pub queues: u16,
    /// Seconds to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = size::seconds)]
    pub time: Duration,
    /// End after so many commands, measured from the first one on (no warm-up), or after --time
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "warmup")]
    #[arg(alias = "number_ios")]
    pub number_ios: Option<u64>,
    /// Seconds to run before the measurement
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = size::seconds)]
    pub warmup: Duration,
    /// SCSI target
    #[arg(long, value_name = "TARGET", default_value_t = 0)]
    pub target: u8,
    /// Logical unit number
    #[arg(long, value_name = "LUN", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=16383))]
    pub lun: u16,
    /// Ring format
    #[arg(long, value_enum, default_value_t = Ring::Split)]
    pub ring: Ring,
    /// Descriptors of each ring, a power of two with split rings
    #[arg(long, value_name = "SIZE", default_value_t = 128, value_parser = clap::value_parser!(u16).range(4..=32768))]
    pub queue_size: u16,
    /// Put each command into an indirect descriptor table: one ring descriptor a command
    #[arg(long)]
    pub indirect: bool,
    /// Agree on VIRTIO_F_IN_ORDER. A command that comes back before an older one of its queue ends the run
    #[arg(long)]
    pub in_order: bool,
    /// Wait for interrupts (call eventfds) instead of polling
    #[arg(long, conflicts_with = "null_responder")]
    pub interrupt: bool,
    /// Core to run on [default: wherever the kernel puts the thread]
    #[arg(long, value_name = "CORE")]
    pub core: Option<usize>,
    /// Use only the first SIZE bytes of the LUN [default: all of it; with --verify at most 64m]
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub size: Option<u64>,
    /// Give every block a stamp and check every block read; writes are read back at the end. Overwrites the LUN, also
    /// for reads
    #[arg(long, conflicts_with = "null_responder")]
    pub verify: bool,
    /// Seed of addresses and contents [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Give up when no command has come back for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = size::seconds)]
    pub stall_timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write figures and plots as one HTML page, too
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Run against a thread of this process that answers everything at once: the tool's own ceiling
    #[arg(long)]
    pub null_responder: bool,
    /// Core of that thread [default: another one than --core, if that is given]
    #[arg(long, value_name = "CORE", conflicts_with = "socket")]
    pub responder_core: Option<usize>,
}

/// Access patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Rw {
    /// Reads at random.
    RandRead,
    /// Writes at random.
    RandWrite,
    /// Both at random.
    RandRw,
    /// Reads one after the other, again from the start at the end.
    Read,
    /// Writes one after the other, again from the start at the end.
    Write,
}

impl Args {
    /// Checks what needs no device.
    ///
    /// # Errors
    /// Names the option, its value and the bound.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Args { bs, qd, queue_size, time, .. } = *self;
        ring::check(self.ring, queue_size)?;
        ensure!(self.socket.is_some() || self.null_responder, "--socket: is needed, or --null-responder");
        let bounds = SECTOR..=BS_MAX;
        ensure!(bounds.contains(&bs) && bs.is_multiple_of(SECTOR), "--bs {bs}: must be a multiple of 512 up to 1g");
        let most = queue_size / self.descriptors_per_command();
        ensure!(
            qd <= most,
            "--qd {qd}: a ring of {queue_size} descriptors holds {most} such commands; {}",
            self.advice()
        );
        ensure!(!time.is_zero(), "--time 0: must be more than 0 seconds");
        ensure!(!self.stall_timeout.is_zero(), "--stall-timeout 0: must be more than 0 seconds");
        let data = u128::from(bs) * u128::from(qd) * u128::from(self.queues);
        ensure!(data <= DATA_MAX, "--bs, --qd, --queues: {data} bytes of data in flight, at most {DATA_MAX}");
        let cores: Vec<usize> = self.core.into_iter().chain(self.responder_core).collect();
        if !cores.is_empty() {
            affinity::check(&cores).context("--core, --responder-core")?;
        }
        Ok(())
    }

    /// How a ring could hold more.
    fn advice(&self) -> String {
        let wanted = (u32::from(self.qd) * u32::from(self.descriptors_per_command())).next_power_of_two();
        match (wanted <= ring::SIZE_MAX, self.indirect) {
            (true, true) => format!("make --queue-size {wanted}"),
            (true, false) => format!("make --queue-size {wanted} or use --indirect"),
            (false, _) => format!("a ring has at most {} descriptors", ring::SIZE_MAX),
        }
    }

    /// Descriptors that one command takes in the ring: header, response and data, or one for the indirect table.
    pub(super) fn descriptors_per_command(&self) -> u16 {
        if self.indirect { 1 } else { 3 }
    }
}

impl Rw {
    /// Whether it writes only, in which case what was written is looked at after the run.
    pub(super) fn writes_only(self) -> bool {
        matches!(self, Rw::RandWrite | Rw::Write)
    }

    /// Whether it reads only, in which case verification fills the range before the run.
    pub(super) fn reads_only(self) -> bool {
        matches!(self, Rw::RandRead | Rw::Read)
    }

    /// Whether addresses are picked at random.
    pub(crate) fn random(self) -> bool {
        matches!(self, Rw::RandRead | Rw::RandWrite | Rw::RandRw)
    }
}

/// Longest think time: ten seconds.
const THINK_US_MAX: i64 = 10_000_000;
/// The smallest block there is.
const SECTOR: u64 = 512;
/// One descriptor holds the data of one command.
const BS_MAX: u64 = 1 << 30;
/// All of it is resident.
const DATA_MAX: u128 = 4 << 30;

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    /// Of an option given twice the last one counts, so that tests have defaults of their own.
    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    pub(in crate::scsi) fn parse(line: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(["bench"].into_iter().chain(line.split_whitespace())).map(|line| line.args)
    }

    fn refusal(line: &str) -> String {
        format!("{:#}", parse(line).expect("clap takes it").check().expect_err("the check does not"))
    }

    #[test]
    fn args_defaults_are_those_of_the_design() {
        parse("--socket s --ring packed --queue-size 100").unwrap().check().expect("packed rings have any size");
        let args = parse("--socket s").unwrap();
        args.check().unwrap();
        assert_eq!((args.rw, args.rwmixread, args.bs, args.qd, args.queues), (Rw::RandRead, 70, 4096, 32, 1));
        assert_eq!((args.time, args.warmup), (Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((args.target, args.lun, args.ring, args.queue_size), (0, 0, Ring::Split, 128));
        assert_eq!((args.core, args.size, args.verify, args.json), (None, None, false, false));
        assert_eq!((args.number_ios, args.think_us), (None, 0));
        assert_eq!(parse("--socket s --number_ios 7").unwrap().number_ios, Some(7), "as fio spells it");
    }

    #[test]
    fn args_values_are_spelt_as_documented() {
        for (text, rw) in [
            ("randread", Rw::RandRead),
            ("randwrite", Rw::RandWrite),
            ("randrw", Rw::RandRw),
            ("read", Rw::Read),
            ("write", Rw::Write),
        ] {
            assert_eq!(parse(&format!("--socket s --rw {text}")).unwrap().rw, rw);
            assert_eq!(serde_json::to_value(rw).unwrap(), text);
        }
        let args = parse("--socket s --bs 128k --size 1g --time 0.5 --lun 16383 --target 255").unwrap();
        assert_eq!((args.bs, args.size, args.time), (131_072, Some(1 << 30), Duration::from_millis(500)));
    }

    #[test]
    fn args_without_socket_or_with_contradictions_are_refused_by_clap() {
        for line in [
            "",
            "--socket s --null-responder",
            "--null-responder --verify",
            "--null-responder --interrupt",
            "--socket s --responder-core 0",
            "--socket s --number-ios 5 --warmup 1",
            "--socket s --number-ios 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in [
            "--lun 16384",
            "--target 256",
            "--queues 0",
            "--queues 255",
            "--qd 0",
            "--rwmixread 101",
            "--think-us 10000001",
        ] {
            assert!(parse(&format!("--socket s {line}")).is_err(), "{line}");
        }
        parse("--null-responder").unwrap().check().unwrap();
    }

    #[test]
    fn args_out_of_bounds_name_option_value_and_bound() {
        for (line, wanted) in [
            ("--queue-size 100", "--queue-size 100: must be a power of two with --ring split"),
            ("--bs 1000", "--bs 1000: must be a multiple of 512 up to 1g"),
            ("--bs 0", "--bs 0: must be a multiple of 512 up to 1g"),
            ("--bs 2g", "--bs 2147483648: must be a multiple of 512 up to 1g"),
            (
                "--qd 43",
                "--qd 43: a ring of 128 descriptors holds 42 such commands; make --queue-size 256 or use --indirect",
            ),
            (
                "--qd 200 --indirect",
                "--qd 200: a ring of 128 descriptors holds 128 such commands; make --queue-size 256",
            ),
            ("--bs 1g --qd 5", "--bs, --qd, --queues: 5368709120 bytes of data in flight, at most 4294967296"),
            (
                "--qd 20000 --queue-size 32768",
                "--qd 20000: a ring of 32768 descriptors holds 10922 such commands; a ring has at most 32768 descriptors",
            ),
            ("--time 0", "--time 0: must be more than 0 seconds"),
        ] {
            assert_eq!(refusal(&format!("--socket s {line}")), wanted);
        }
        assert!(
            refusal("--socket s --core 1023")
                .starts_with("--core, --responder-core: cores: core 1023 is not in the set")
        );
        parse("--socket s --qd 128 --indirect").unwrap().check().unwrap();
    }
}
