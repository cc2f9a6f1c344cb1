//! Measurements that one thread writes and any thread reads; not how they are named, labelled or turned into text.
//!
//! - [`Counter`]: something that happened, counted.
//! - [`Gauge`], [`MaxGauge`]: a level, and a high-water mark.
//! - [`Histogram`]: a distribution in fixed memory, read through a [`HistogramSnapshot`].
//!
//! # One writer
//! Every type here has **one writing thread at a time** (the poller that owns it). Its methods take `&self` so that the
//! exporter can hold the same value, and they use relaxed loads and relaxed stores, never a read-modify-write: a record is a
//! few ordinary instructions on memory that stays in the writer's cache. A second concurrent writer is a bug that loses
//! counts; it cannot do anything worse. Handing the writer's role to another thread needs a happens-before edge between
//! the two (a message, a join), as it has anyway when the owner itself moves.
//!
//! Readers see each word whole, but several words are not one consistent picture: see [`Histogram::snapshot`].
//!
//! Sums and counters wrap at 2^64, which a Prometheus `rate()` takes as one restart.
//!
//! Keeping a writer's cache lines to itself is the choice of the struct that embeds these values ([`OwnLines`] around the whole
//! group, not around each counter).
//!
//! Compiled with `--cfg uncounted`, nothing is recorded: `scripts/cost.sh --metrics` measures so what recording costs.
#![forbid(unsafe_code)]

mod counter;
mod gauge;
mod histogram;
mod own_lines;

pub use counter::Counter;
pub use gauge::{Gauge, MaxGauge};
pub use histogram::{Histogram, HistogramSnapshot};
pub use own_lines::OwnLines;
