//! The command line of `bench net`, and what can be said about it before anything is connected.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use port::Mac;
use reactor::affinity;
use serde::Serialize;

use super::frame;
use super::wire::HEADER_LEN;
use crate::ring::{self, Ring};
use crate::size;

/// What to run, and against what.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// vhost-user-net socket to connect to
    #[arg(long, value_name = "PATH", required_unless_present = "null_responder", conflicts_with = "null_responder")]
    pub socket: Option<PathBuf>,
    /// Listen on the socket, for a target that connects (mode = "client")
    #[arg(long, conflicts_with = "null_responder")]
    pub server: bool,
    /// Send, receive, or send and get back what was sent
    #[arg(long, value_enum, default_value_t = Mode::Tx)]
    pub mode: Mode,
    /// Bytes of a frame from the destination address on, without FCS: 14 to 9018, to 65535 with --offload tso, from 30 on
    /// with --mode loop. Rates in bit/s count these bytes, no preamble and no gap
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: u32,
    /// Queue pairs, all driven by one thread
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub queues: u16,
    /// Seconds to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = size::seconds)]
    pub time: Duration,
    /// End after so many frames sent (received with --mode rx), measured from the first one on (no warm-up), or after --time
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "warmup")]
    pub frames: Option<u64>,
    /// Seconds to run before the measurement
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = size::seconds)]
    pub warmup: Duration,
    /// Frames to send in a second over all queue pairs [default: as many as the target takes]
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub rate: Option<u64>,
    /// Frames in flight on each queue pair: sent and not taken by the device, or with --mode loop not back [default: as many as
    /// rings and receive buffers hold]
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u16).range(1..))]
    pub window: Option<u16>,
    /// Flows that frames belong to, by UDP or TCP source port
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16384))]
    pub flows: u16,
    /// Source address of what is sent
    #[arg(long, value_name = "MAC", default_value = "52:54:00:be:00:01")]
    pub src_mac: Mac,
    /// Destination address of what is sent
    #[arg(long, value_name = "MAC", default_value = "52:54:00:be:00:02")]
    pub dst_mac: Mac,
    /// Ring format
    #[arg(long, value_enum, default_value_t = Ring::Split)]
    pub ring: Ring,
    /// Descriptors of each ring, a power of two with split rings
    #[arg(long, value_name = "SIZE", default_value_t = 256, value_parser = clap::value_parser!(u16).range(4..=32768))]
    pub queue_size: u16,
    /// Whether a frame may come in several receive buffers [default: if the device can do it]
    #[arg(long, value_enum)]
    pub mrg: Option<Switch>,
    /// Bytes of a receive buffer, 12 of the header included
    #[arg(long, value_name = "BYTES", default_value_t = 2060, value_parser = clap::value_parser!(u32).range(128..=65562))]
    pub rx_buffer: u32,
    /// What frames leave to the device: nothing, their checksum, or their segmentation (TCP, 1460 bytes each) as well
    #[arg(long, value_enum, default_value_t = Offload::None)]
    pub offload: Offload,
    /// Put each frame into an indirect descriptor table, header and frame in descriptors of their own
    #[arg(long)]
    pub indirect: bool,
    /// Agree on VIRTIO_F_IN_ORDER
    #[arg(long)]
    pub in_order: bool,
    /// Wait for interrupts (call eventfds) instead of polling
    #[arg(long, conflicts_with = "null_responder")]
    pub interrupt: bool,
    /// Core to run on [default: wherever the kernel puts the thread]
    #[arg(long, value_name = "CORE")]
    pub core: Option<usize>,
    /// Give every frame contents of its own, and with --mode loop check every byte that comes back
    #[arg(long)]
    pub verify: bool,
    /// Seed of contents [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// With --mode loop, a frame that is not back after so many seconds is lost
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = size::seconds)]
    pub loss_timeout: Duration,
    /// Give up when the device has taken no frame for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = size::seconds)]
    pub stall_timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write figures and plots as one HTML page, too
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Run against a thread of this process that takes and gives frames at once: the tool's own ceiling
    #[arg(long)]
    pub null_responder: bool,
    /// Core of that thread [default: another one than --core, if that is given]
    #[arg(long, value_name = "CORE", conflicts_with = "socket")]
    pub responder_core: Option<usize>,
}

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Mode {
    /// To the device.
    Tx,
    /// From the device.
    Rx,
    /// To the device and back.
    Loop,
}

/// What a sender leaves to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Offload {
    /// Nothing.
    None,
    /// The checksum.
    Csum,
    /// The checksum, and cutting into segments.
    Tso,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
#[expect(missing_docs, reason = "on and off")]
pub enum Switch {
    On,
    Off,
}

impl Args {
    /// Checks what needs no device.
    ///
    /// # Errors
    /// Names the option, its value and the bound.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Args { size, time, queue_size, .. } = *self;
        ring::check(self.ring, queue_size)?;
        ensure!(self.socket.is_some() || self.null_responder, "--socket: is needed, or --null-responder");
        let (least, most) = (self.size_min(), self.size_max());
        ensure!(
            (least..=most).contains(&size),
            "--size {size}: must be {least} to {most} with --mode {} and --offload {}",
            name(self.mode),
            name(self.offload)
        );
        let window = self.window_or_default();
        ensure!(window <= queue_size, "--window {window}: must be at most --queue-size {queue_size}");
        if self.mrg == Some(Switch::Off) {
            self.check_single_buffer()?;
        }
        let buffers = self.buffers_per_frame();
        ensure!(
            self.mode != Mode::Loop || buffers <= u32::from(queue_size),
            "--rx-buffer {}: a frame takes {buffers} buffers, --queue-size {queue_size} is all there are",
            self.rx_buffer
        );
        ensure!(!time.is_zero(), "--time 0: must be more than 0 seconds");
        ensure!(!self.stall_timeout.is_zero(), "--stall-timeout 0: must be more than 0 seconds");
        ensure!(!self.loss_timeout.is_zero(), "--loss-timeout 0: must be more than 0 seconds");
        let data = u128::from(size.max(self.rx_buffer)) * u128::from(queue_size) * 2 * u128::from(self.queues);
        ensure!(data <= DATA_MAX, "--size, --rx-buffer, --queue-size, --queues: {data} bytes, at most {DATA_MAX}");
        let cores: Vec<usize> = self.core.into_iter().chain(self.responder_core).collect();
        if !cores.is_empty() {
            affinity::check(&cores).context("--core, --responder-core")?;
        }
        Ok(())
    }

    /// Checks that a frame fits into one receive buffer, where it must.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn check_single_buffer(&self) -> anyhow::Result<()> {
        let wanted = self.size + HEADER_LEN as u32;
        ensure!(
            self.mode != Mode::Loop || self.rx_buffer >= wanted,
            "--rx-buffer {}: without mergeable buffers must be at least {wanted} for frames of {} bytes",
            self.rx_buffer,
            self.size
        );
        Ok(())
    }

    fn size_min(&self) -> u32 {
        match (self.offload, self.mode) {
            (Offload::Tso, _) => frame::TCP_MIN,
            (Offload::Csum, _) => frame::UDP_MIN,
            (Offload::None, Mode::Loop) => frame::STAMPED_MIN,
            (Offload::None, _) => frame::MIN,
        }
    }

    fn size_max(&self) -> u32 {
        if self.offload == Offload::Tso { SIZE_MAX_TSO } else { SIZE_MAX }
    }

    /// Receive buffers that a frame takes.
    pub(super) fn buffers_per_frame(&self) -> u32 {
        (self.size + HEADER_LEN as u32).div_ceil(self.rx_buffer)
    }

    /// Frames in flight on each queue pair at most.
    pub(super) fn window_or_default(&self) -> u16 {
        let held = match self.mode {
            Mode::Loop => u32::from(self.queue_size) / self.buffers_per_frame(),
            Mode::Tx | Mode::Rx => self.queue_size.into(),
        };
        self.window.unwrap_or(held.max(1) as u16)
    }
}

/// As the command line spells it.
pub(super) fn name(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Jumbo frames, with room for a VLAN tag.
pub(crate) const SIZE_MAX: u32 = 9018;
const SIZE_MAX_TSO: u32 = 65535;
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

    pub(in crate::net) fn parse(line: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(["bench"].into_iter().chain(line.split_whitespace())).map(|line| line.args)
    }

    fn refusal(line: &str) -> String {
        let args = parse(&format!("--socket s {line}")).expect("clap takes it");
        format!("{:#}", args.check().expect_err("the check does not"))
    }

    #[test]
    fn args_defaults_are_those_of_the_design() {
        parse("--socket s --ring packed --queue-size 100").unwrap().check().expect("packed rings have any size");
        let args = parse("--socket s").unwrap();
        args.check().unwrap();
        assert_eq!((args.mode, args.size, args.queues, args.ring), (Mode::Tx, 64, 1, Ring::Split));
        assert_eq!((args.time, args.warmup), (Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((args.queue_size, args.rx_buffer, args.mrg, args.offload), (256, 2060, None, Offload::None));
        assert_eq!((args.server, args.interrupt, args.indirect, args.in_order, args.verify), Default::default());
        assert_eq!(args.window_or_default(), 256);
        assert_eq!(args.src_mac, Mac([0x52, 0x54, 0, 0xbe, 0, 1]));
    }

    #[test]
    fn args_window_is_what_rings_and_buffers_hold() {
        for (line, window) in [
            ("--mode loop", 256),
            ("--mode loop --size 9018", 51),
            ("--mode loop --size 2048", 256),
            ("--mode loop --size 2049", 128),
            ("--mode loop --window 7", 7),
            ("--mode tx --size 9018", 256),
        ] {
            assert_eq!(parse(&format!("--socket s {line}")).unwrap().window_or_default(), window, "{line}");
        }
    }

    #[test]
    fn args_without_socket_or_with_contradictions_are_refused_by_clap() {
        for line in ["", "--socket s --null-responder", "--null-responder --interrupt", "--null-responder --server"] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in [
            "--queues 0",
            "--queues 129",
            "--flows 0",
            "--flows 16385",
            "--frames 0",
            "--frames 5 --warmup 1",
            "--rate 0",
            "--rx-buffer 127",
            "--rx-buffer 65563",
            "--src-mac 52:54",
            "--mode both",
            "--responder-core 0",
        ] {
            assert!(parse(&format!("--socket s {line}")).is_err(), "{line}");
        }
        parse("--null-responder").unwrap().check().unwrap();
    }

    #[test]
    fn args_out_of_bounds_name_option_value_and_bound() {
        for (line, wanted) in [
            ("--queue-size 100", "--queue-size 100: must be a power of two with --ring split"),
            ("--size 13", "--size 13: must be 14 to 9018 with --mode tx and --offload none"),
            ("--size 9019", "--size 9019: must be 14 to 9018 with --mode tx and --offload none"),
            ("--mode loop --size 29", "--size 29: must be 30 to 9018 with --mode loop and --offload none"),
            ("--size 57 --offload csum", "--size 57: must be 58 to 9018 with --mode tx and --offload csum"),
            ("--size 69 --offload tso", "--size 69: must be 70 to 65535 with --mode tx and --offload tso"),
            ("--size 65536 --offload tso", "--size 65536: must be 70 to 65535 with --mode tx and --offload tso"),
            ("--window 257", "--window 257: must be at most --queue-size 256"),
            (
                "--mode loop --mrg off --size 2049",
                "--rx-buffer 2060: without mergeable buffers must be at least 2061 for frames of 2049 bytes",
            ),
            (
                "--mode loop --size 65535 --offload tso --rx-buffer 128",
                "--rx-buffer 128: a frame takes 513 buffers, --queue-size 256 is all there are",
            ),
            ("--time 0", "--time 0: must be more than 0 seconds"),
            ("--loss-timeout 0", "--loss-timeout 0: must be more than 0 seconds"),
        ] {
            assert_eq!(refusal(line), wanted);
        }
        assert!(refusal("--core 1023").starts_with("--core, --responder-core: cores: core 1023 is not in the set"));
        assert!(refusal("--rx-buffer 65562 --queue-size 32768").starts_with("--size, --rx-buffer, --queue-size"));
    }
}
