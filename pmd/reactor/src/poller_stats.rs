//! What a poller measures about itself; names and labels for the outside are the exporter's.

use stats::{Counter, Gauge, Histogram, MaxGauge};

/// Numbers of one poller. The poller is the only writer; any thread may read. Times are in ticks
/// ([`Tsc::nanos`](crate::Tsc::nanos) converts); busy, idle and asleep ticks add up to the life of the poller.
#[derive(Debug, Default)]
pub struct PollerStats {
    /// Time in loops that did work, jobs included.
    pub busy_ticks: Counter,
    /// Time in loops that found nothing to do.
    pub idle_ticks: Counter,
    /// Time blocked, with every source armed.
    pub asleep_ticks: Counter,
    /// Loops over all hot sources.
    pub loops: Counter,
    /// Those of them that found nothing to do.
    pub idle_loops: Counter,
    /// How long the others lasted, jobs included.
    pub busy_loop_ticks: Histogram,
    /// The longest loop, jobs included and sleep excluded. Time off the processor counts: it is as long for the guests.
    pub longest_loop_ticks: MaxGauge,
    /// Jobs taken from the inbox.
    pub jobs: Counter,
    /// The longest of these jobs.
    pub longest_job_ticks: MaxGauge,
    /// Times that the poller went to sleep, counted before it blocks.
    pub sleeps: Counter,
    /// 1 while the poller sleeps.
    pub asleep: Gauge,
    /// Sleeps that a notification ended; the others met a deadline.
    pub wakeups: Counter,
    /// Sources that the poller has now, hot and cold.
    pub sources: Gauge,
    /// Those of them that are cold: armed, and not polled in every loop.
    pub cold_sources: Gauge,
    /// Sources taken out because they panicked.
    pub panics: Counter,
}
