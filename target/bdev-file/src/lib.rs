//! Regular files and block devices as block devices of a target, through io_uring.
//!
//! [`File`] is the device: `open` finds out what the path is and what its file system can do, and takes the lock.
//! A channel has a ring of its own (`ring`, the only unsafe module beside the lock) and carries each request (`request`)
//! through one or more system calls (`channel`). Guest pages go to the kernel as they are; where the alignment of a
//! guest's buffers forbids it, the data takes the way over a bounce buffer (`bounce`), and that is counted. Where the holes
//! of a file are is found out by one thread per file (`seeker`).
//!
//! No SCSI in here. Nothing in here blocks a poller: what the kernel cannot do at once it does on workers of its own,
//! which stay off the cores of pollers. Linux only, 5.11 or newer; 6.1 is where the cheapest kind of ring begins.
//!
//! # What is on stable storage, and when
//!
//! | [`Cache`] | page cache | a completed write is | flush and FUA | reported write cache |
//! |---|---|---|---|---|
//! | `Writeback` | unless `direct` | volatile | `fdatasync`, `RWF_DSYNC` | yes |
//! | `Writethrough` | unless `direct` | stable: every write is `RWF_DSYNC` | as above | no |
//! | `None` | never: `direct` or no start | volatile: the drive may have a cache | as above | yes |
//!
//! When the kernel could not bring data to stable storage it forgets that it owed it, so a second `fdatasync` would
//! succeed without meaning it. After one that failed, every flush and every FUA write of the device fails with
//! [`WriteError`](bdev::Status::WriteError) until [`Bdev::reset`](bdev::Bdev::reset), or until it is opened again.

mod bounce;
mod channel;
mod config;
mod counters;
mod file;
#[allow(unsafe_code, reason = "a lock on the open file description: a system call without a safe binding")]
mod lock;
mod open;
mod request;
#[allow(unsafe_code, reason = "the kernel is given addresses: io_uring submission")]
mod ring;
mod seeker;

pub use config::{Cache, FileConfig, FileError};
pub use counters::FileCounts;
pub use file::File;
