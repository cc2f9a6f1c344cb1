//! The metrics of poller threads.

use reactor::PollerHandle;
use stats::HistogramSnapshot;

use super::catalogue::pollers as the;
use super::families::Families;
use super::{process, seconds};
use crate::health::Health;

pub(super) fn collect(health: &Health, families: &mut Families) {
    health.pollers().for_each(|(poller, turning)| one(poller, turning, families));
}

fn one(poller: &PollerHandle, turning: bool, families: &mut Families) {
    let core = poller.core().to_string();
    let (core, stats) = ([core.as_str()], poller.stats());
    for (mode, ticks) in [("busy", &stats.busy_ticks), ("idle", &stats.idle_ticks), ("asleep", &stats.asleep_ticks)] {
        families.sample(&the::SECONDS, &[core[0], mode], seconds(ticks.value()));
    }
    for (metric, counter) in [
        (&the::LOOPS, &stats.loops),
        (&the::IDLE_LOOPS, &stats.idle_loops),
        (&the::SLEEPS, &stats.sleeps),
        (&the::WAKEUPS, &stats.wakeups),
        (&the::JOBS, &stats.jobs),
        (&the::PANICS, &stats.panics),
    ] {
        families.sample(metric, &core, counter.value() as f64);
    }
    for (metric, level) in [(&the::SOURCES, &stats.sources), (&the::COLD, &stats.cold_sources)] {
        families.sample(metric, &core, level.value() as f64);
    }
    families.sample(&the::LONGEST_LOOP, &core, seconds(stats.longest_loop_ticks.value()));
    families.sample(&the::LONGEST_JOB, &core, seconds(stats.longest_job_ticks.value()));
    families.sample(&the::TURNING, &core, f64::from(u8::from(turning)));
    let mut busy = HistogramSnapshot::empty();
    busy.add(&stats.busy_loop_ticks);
    families.durations(&the::BUSY_LOOP, &core, &busy);
    if let Some(switches) = poller.thread_id().and_then(process::context_switches) {
        families.sample(&the::SWITCHES, &[core[0], "voluntary"], switches.voluntary as f64);
        families.sample(&the::SWITCHES, &[core[0], "involuntary"], switches.involuntary as f64);
    }
}
