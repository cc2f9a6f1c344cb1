//! Split virtqueues (virtio 1.3 §2.7). Linux on x86-64: the little-endian fields are read and written as they are.
//!
//! `rings` gives the fields names and knows where each lies; `device` and `driver` are the two sides. `raw` lets tests write
//! what no driver would.

mod begin;
mod device;
mod driver;
mod raw;
mod rings;
mod singles;

pub use device::SplitDevice;
pub use driver::{PreparedChain, SplitDriver};
pub use raw::RawSplit;
pub use rings::SplitLayout;
