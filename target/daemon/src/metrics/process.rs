//! The metrics of the process, as the kernel tells them. Where /proc says nothing, neither do they.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Pid, Resource, getrlimit};

use super::catalogue::process as the;
use super::families::Families;
use crate::config::DPDK_BUILT;

/// How often a thread has left its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switches {
    pub(super) voluntary: u64,
    pub(super) involuntary: u64,
}

pub(super) fn collect(families: &mut Families) {
    families.info(&the::BUILD, &[env!("CARGO_PKG_VERSION"), if DPDK_BUILT { "dpdk" } else { "" }]);
    if let Some(process) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Process::parse) {
        let ticks = clock_ticks_per_second() as f64;
        families.sample(&the::CPU, &[], process.cpu_ticks as f64 / ticks);
        families.sample(&the::RESIDENT, &[], (process.resident_pages * page_size() as u64) as f64);
        families.sample(&the::THREADS, &[], process.threads as f64);
        if let Some(boot) = boot_time() {
            families.sample(&the::START, &[], boot as f64 + process.start_ticks as f64 / ticks);
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        families.sample(&the::OPEN_FDS, &[], entries.count() as f64 - 1.0); // not the one that reads them
        let limit = getrlimit(Resource::Nofile).current;
        families.sample(&the::MAX_FDS, &[], limit.map_or(f64::INFINITY, |limit| limit as f64));
    }
}

/// Those of a thread of this process.
pub(super) fn context_switches(thread: Pid) -> Option<Switches> {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some(Switches { voluntary: field("voluntary_ctxt_switches:")?, involuntary: field("nonvoluntary_ctxt_switches:")? })
}

/// What `/proc/self/stat` says (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    resident_pages: u64,
}

impl Process {
    fn parse(stat: &str) -> Option<Process> {
        // The second field, the name, may hold anything; it ends with the last bracket.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Process {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine was booted, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_process_with_brackets_and_blanks_in_its_name_is_read() {
        let stat =
            "17 (a) b (c) S 1 17 17 0 -1 4194560 2151 0 3 0 40 2 0 0 20 0 9 0 1234567 9999 321 18446744073709551615 1";
        let expected = Process { cpu_ticks: 42, threads: 9, start_ticks: 1_234_567, resident_pages: 321 };
        assert_eq!(Process::parse(stat), Some(expected));
        assert_eq!(Process::parse("17 (a) S 1"), None);
    }

    #[test]
    fn context_switches_of_this_thread_are_told() {
        assert!(context_switches(rustix::thread::gettid()).is_some());
        assert_eq!(context_switches(Pid::from_raw(i32::MAX).unwrap()), None);
    }
}
