//! The command line: arguments, exit status, and which module does what. Nothing is decided here.
//!
//! Exit status: 0, or 2 for a command line or configuration that cannot be used, or 1 for any other failure.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::check;
use crate::config::{ByteSize, Config, LoadError};
use crate::logging;
use crate::metrics::catalogue;
use crate::qemu_args::{self, Device, Layout, Machine, QemuVersion};
use crate::run_dir::{self, RunDirError};
use crate::serve::{self, ServeError};
use crate::version;

/// A polled-mode vhost-user target for virtio-scsi and virtio-net.
#[derive(Debug, Parser)]
#[command(name = "ringside", version, long_version = version::of_everything(), about, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the target in the foreground; SIGTERM drains it
    Serve(Source),
    /// Validate a configuration and print it with every default written out
    Check(CheckArgs),
    /// Print the QEMU arguments for devices: memory backend, chardev, device, matching limits
    QemuArgs(QemuArgs),
    /// Print the catalogue of metrics, METRICS.md: what each is, and what to do when it moves
    Metrics,
    /// Measure a device from the driver's side
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Drive a vhost-user-scsi device and print IOPS and latencies
    Scsi(bench::scsi::Args),
    /// Drive a vhost-user-net device and print packet rates, losses and round trips
    Net(bench::net::Args),
    /// How far apart two cores are: the round trip of a cache line
    Cores(bench::cores::Args),
    /// Copy within memory: what a disk in memory cannot be faster than
    Copy(bench::copy::Args),
    /// Be a net device that gives every chain back at once: what a driver reaches with a device that does nothing
    Sink(bench::sink::Args),
    /// What machine this is, as far as it says so
    Machine(bench::machine::Args),
    /// Sum up windows: medians, ratios with intervals, plots
    Report(bench::report::Args),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
pub struct Source {
    /// Configuration file (TOML); without it, an embedded one with the controller vm0, two disks, and the net device vm0net
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for the sockets of the embedded configuration [default: /tmp/ringside-UID]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    run_dir: Option<String>,
}

impl Source {
    /// The configuration.
    ///
    /// # Errors
    /// The file cannot be read, or the configuration has problems.
    pub fn load(&self) -> Result<Config, LoadError> {
        match &self.config {
            Some(path) => Config::load(path),
            None => Ok(Config::embedded(&self.run_dir())?),
        }
    }

    /// Makes the directory for the sockets of the embedded configuration; does nothing for a file, whose directories are
    /// the operator's. For those who bind sockets.
    ///
    /// # Errors
    /// The directory cannot be made or must not be used.
    pub fn prepare_run_dir(&self) -> Result<(), RunDirError> {
        match &self.config {
            Some(_) => Ok(()),
            None => run_dir::prepare(Path::new(&self.run_dir())),
        }
    }

    fn run_dir(&self) -> String {
        self.run_dir.clone().unwrap_or_else(run_dir::default_path)
    }
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    source: Source,
    /// Look at the configuration only, not at this host's cores, sockets (which a running target has taken) and huge pages
    #[arg(long)]
    no_host: bool,
}

#[derive(Debug, Args)]
struct QemuArgs {
    #[command(flatten)]
    source: Source,
    /// Names of the controllers and net devices of one virtual machine
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
    /// Guest memory, a whole number of MiB
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = guest_memory)]
    memory: ByteSize,
    /// QEMU's version, such as 10.0: since 8.2 it can come back after a restart of the target
    #[arg(long, value_name = "VERSION")]
    qemu: Option<QemuVersion>,
    /// All arguments in one line, as if the output were no terminal
    #[arg(long)]
    one_line: bool,
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(source) => run_target(&source),
        Command::Check(args) => check_config(&args),
        Command::QemuArgs(args) => print_qemu_args(&args),
        Command::Metrics => print_metrics(),
        Command::Bench(Bench::Scsi(args)) => bench::scsi::run(&args).map(|outcome| passed(outcome.passed())),
        Command::Bench(Bench::Net(args)) => bench::net::run(&args).map(|outcome| passed(outcome.passed())),
        Command::Bench(Bench::Copy(args)) => bench::copy::run(&args).map(|_| ExitCode::SUCCESS),
        Command::Bench(Bench::Sink(args)) => run_sink(&args),
        Command::Bench(Bench::Cores(args)) => bench::cores::run(&args).map(|_| ExitCode::SUCCESS),
        Command::Bench(Bench::Machine(args)) => bench::machine::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(Bench::Report(args)) => bench::report::run(&args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("ringside: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_sink(args: &bench::sink::Args) -> anyhow::Result<ExitCode> {
    logging::start(); // of what front-ends say and are refused
    bench::sink::run(args).map(|()| ExitCode::SUCCESS)
}

fn passed(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Exit status of a configuration or command line that cannot be used; clap's own.
const UNUSABLE: u8 = 2;

/// Loads the configuration, or says on standard error what is wrong with it.
fn load(source: &Source) -> Result<Config, ExitCode> {
    source.load().map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(UNUSABLE)
    })
}

fn run_target(source: &Source) -> anyhow::Result<ExitCode> {
    logging::start();
    let config = match load(source) {
        Ok(config) => config,
        Err(status) => return Ok(status),
    };
    source.prepare_run_dir()?;
    let source = source.clone();
    match serve::run(&config, move || source.load()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(ServeError::Start(error)) => {
            eprintln!("ringside: {error}");
            Ok(ExitCode::from(UNUSABLE))
        }
        Err(ServeError::Other(error)) => Err(error),
    }
}

fn check_config(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = match load(&args.source) {
        Ok(config) => config,
        Err(status) => return Ok(status),
    };
    let mut notes = check::notes(&config);
    if !args.no_host {
        notes.extend(check::host_notes(&config));
    }
    check::print(&config, &notes, &mut io::stdout().lock()).context("standard output")?;
    let errors = if args.no_host { Vec::new() } else { check::host_errors(&config) };
    errors.iter().for_each(|error| eprintln!("{error}"));
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(UNUSABLE) })
}

fn print_qemu_args(args: &QemuArgs) -> anyhow::Result<ExitCode> {
    let config = match load(&args.source) {
        Ok(config) => config,
        Err(status) => return Ok(status),
    };
    let devices = match find_devices(&config, &args.devices) {
        Ok(devices) => devices,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(UNUSABLE));
        }
    };
    let mut out = io::stdout().lock();
    let layout = if args.one_line || !out.is_terminal() { Layout::OneLine } else { Layout::Lines };
    let arguments = qemu_args::arguments(devices, &Machine { memory: args.memory, qemu: args.qemu });
    writeln!(out, "{}", qemu_args::render(&arguments, layout)).context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn print_metrics() -> anyhow::Result<ExitCode> {
    io::stdout().lock().write_all(catalogue::markdown().as_bytes()).context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// The devices of these names, or a message about the first that is not there.
fn find_devices<'c>(config: &'c Config, names: &[String]) -> Result<Vec<Device<'c>>, String> {
    let find = |name: &String| {
        let controller = config.controller(name).map(Device::Scsi);
        controller.or_else(|| config.net(name).map(Device::Net)).ok_or_else(|| {
            let controllers = config.controllers.iter().map(|controller| controller.name.as_str());
            let known: Vec<&str> = controllers.chain(config.nets.iter().map(|net| net.name.as_str())).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("no controller or net device {name:?}; known: {known}")
        })
    };
    names.iter().map(find).collect()
}

fn guest_memory(text: &str) -> Result<ByteSize, String> {
    const MIB: u64 = 1 << 20;
    let size: ByteSize = text.parse().map_err(|error: crate::config::SizeError| error.to_string())?;
    if size.bytes() == 0 || !size.bytes().is_multiple_of(MIB) {
        return Err("must be a whole number of MiB, at least one".to_owned());
    }
    Ok(size)
}
