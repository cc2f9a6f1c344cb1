//! Memory that is shared with a guest: mappings, the memory table, translation and copies.
//!
//! From the bottom up: [`GuestSlice`] and [`GuestArray`] are the only ways to touch shared memory, [`Mapping`] is one
//! memory region of a front-end in our address space, [`MemTable`] translates guest and front-end addresses to slices,
//! [`SharedMemory`] and [`HugeRegion`] are memory of our own (a driver's, a bdev's). The SIGBUS guard keeps a front-end
//! that truncates its memory from taking the process down.
//!
//! No ring format, no vhost-user message and no policy in here.
//!
//! # Who may rely on what
//!
//! This crate is an unsafe island: it is where raw pointers become something that other crates use without `unsafe`.
//!
//! * Guest memory is *raced*: the guest may write it at any time. Nothing in here makes a reference to it; bulk
//!   copies go through `ptr::copy`, scalars through atomics.
//! * A slice stays usable for as long as its mapping lives. Whoever translates holds the [`MemTable`] (an `Arc`) until
//!   every request made from its slices has ended. In this workspace that is the poller's half of a connection
//!   (`vhost_user::RingSet`): it counts requests in flight by table generation and lets a table go when its count is 0.
//!   Requests themselves hold no reference count.
//! * Linux on x86-64 only: little endian, and 4 KiB or 2 MiB pages.
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(unsafe_code)] // the island described above

#[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
compile_error!("ringside runs on 64-bit little-endian Linux");

mod array;
mod mapping;
mod observers;
mod own;
mod pollers;
mod pool;
mod sigbus;
mod slice;
mod table;

pub use array::{GuestArray, GuestChunk, Scalar};
pub use mapping::{MapError, Mapping, RegionConfig};
pub use observers::{MappingObserver, observe_mappings};
pub use own::{Backing, HugeRegion, Pages, SharedMemory};
pub use pollers::never_map_on_this_thread;
pub use pool::{free_huge_bytes, free_huge_bytes_in};
pub use slice::GuestSlice;
pub use table::{MemTable, RegionHint, TableError, Unmapped};
