//! Split virtqueues (virtio 1.3 §2.7). Linux on x86-64: the little-endian fields are read and written as they are.
//!
//! `rings` gives the fields names and knows where each lies; `device` and `driver` are the two sides. A
//! descriptor chain is followed by `quick` if it is usual, by `long` if it is ordinary, by `walk` whatever it is. `raw` lets tests write what no driver would.

mod device;
mod driver;
mod long;
mod quick;
mod raw;
mod rings;
mod view;
mod walk;

pub use device::SplitDevice;
pub use driver::{PreparedChain, SplitDriver};
pub use raw::RawSplit;
pub use rings::SplitLayout;
