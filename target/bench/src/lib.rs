//! The load generator, the *driver* side of vhost-user: what a performance lab measures a target with, and what a test
//! finds lost data with. Nothing of the target itself is in here; `ringside bench` is the command line of it.
//!
//! - [`scsi`] keeps reads and writes in flight on one LUN of a vhost-user-scsi socket, and verifies every block if asked.
//! - [`cores`] measures how far two cores are apart, without which figures of two polling threads cannot be compared.
//!
//! Linux on x86-64 only: little endian, and time comes from the time-stamp counter.
#![forbid(unsafe_code)]

pub mod cores;
pub mod scsi;
mod size;
