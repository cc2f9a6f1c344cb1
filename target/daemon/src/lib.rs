//! The program `ringside`: configuration, command line and wiring of the crates below it. No protocol and no I/O path is
//! implemented here.
//!
//! - [`config`] reads and checks the configuration; it looks at the text only.
//! - [`check`] tells the operator what it means and what this host does not allow.
//! - [`qemu_args`] makes the QEMU arguments that fit a controller.
//! - [`run_dir`] is the directory of a run without a configuration file.
//! - [`cli`] is the command line over all of them.
#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod config;
pub mod qemu_args;
pub mod run_dir;
