//! What is done to a target from outside, and counted by those who do it: HTTP requests, scrapes, reloads. Only control
//! threads count here, so that locks do no harm.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use stats::Histogram;

use super::catalogue::process as the;
use super::families::Families;
use super::format::Format;

/// The counts.
#[derive(Debug, Default)]
pub struct Watched {
    reloads_done: AtomicU64,
    reloads_refused: AtomicU64,
    /// By path and status: few, as paths are those of a fixed list.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// By format.
    scrapes: [Mutex<Box<Histogram>>; Format::ALL.len()],
    text_len: [AtomicUsize; Format::ALL.len()],
}

impl Watched {
    /// A reload has ended; whether it was done.
    pub fn reloaded(&self, done: bool) {
        let counter = if done { &self.reloads_done } else { &self.reloads_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered. `path` is one of a fixed list.
    pub fn answered(&self, path: &'static str, status: u16) {
        *self.requests.lock().entry((path, status)).or_default() += 1;
    }

    /// A text was written, in so many TSC ticks.
    pub(super) fn scraped(&self, format: Format, ticks: u64, len: usize) {
        self.scrapes[format as usize].lock().record(ticks);
        self.text_len[format as usize].store(len, Ordering::Relaxed);
    }

    /// How long a text will be, about: as long as the last one, and a bit.
    pub(super) fn text_len(&self, format: Format) -> usize {
        let last = self.text_len[format as usize].load(Ordering::Relaxed);
        last + last / 64
    }

    pub(super) fn collect(&self, families: &mut Families) {
        families.sample(&the::RELOADS, &["done"], self.reloads_done.load(Ordering::Relaxed) as f64);
        families.sample(&the::RELOADS, &["refused"], self.reloads_refused.load(Ordering::Relaxed) as f64);
        for ((path, status), count) in &*self.requests.lock() {
            families.sample(&the::REQUESTS, &[path, &status.to_string()], *count as f64);
        }
        for (format, scrapes) in Format::ALL.into_iter().zip(&self.scrapes) {
            let ticks = scrapes.lock().snapshot();
            if ticks.count() > 0 {
                families.durations(&the::SCRAPE, &[format.name()], &ticks);
            }
        }
    }
}
