//! The program `ringside`: configuration, command line and wiring of the crates below it. No protocol and no I/O path is
//! implemented here.
//!
//! - [`config`] reads and checks the configuration; it looks at the text only.
//! - [`check`] tells the operator what it means and what this host does not allow.
//! - [`qemu_args`] makes the QEMU arguments that fit a device.
//! - [`run_dir`] is the directory of a run without a configuration file.
//! - [`target`] is all of it running: [`bdevs`] are its block devices, [`ports`] its ports, [`assemble`] makes controllers and
//!   net devices of the configuration, [`service`] gives each socket its threads, [`watch`] logs what pollers may not.
//!   [`reload`] makes of it what another configuration says.
//! - [`spdk`] is SPDK behind block devices of its kind, where the program was built with it.
//! - [`metrics`] is the exporter, [`health`] knows whether pollers turn, and [`http`] serves both.
//! - [`logging`] says where log lines go.
//! - [`serve`] runs a target in the foreground.
//! - [`version`] says what is in the program.
//! - [`cli`] is the command line over all of them.
#![forbid(unsafe_code)]

pub mod assemble;
pub mod bdevs;
pub mod check;
pub mod cli;
pub mod config;
pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod ports;
pub mod qemu_args;
pub mod reload;
pub mod run_dir;
pub mod serve;
pub mod service;
pub mod spdk;
pub mod target;
pub mod version;
pub mod watch;
