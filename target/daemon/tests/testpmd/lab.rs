//! Where one test works: its directory, its cores, the target and the testpmds in it, and whether there can be any.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::driver::{PROGRAM, Setup, Testpmd};
use crate::process::skip;
use crate::ringside::Ringside;

/// What one test works with. Of the tests in one process, one at a time has it: both sides poll.
/// (`scripts/nextest.toml` does the same for tests that are processes.)
pub struct Lab {
    dir: TempDir,
    cores: Vec<usize>,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Lab {
    /// For the test of that name; `None` if there is no testpmd here, which is said on standard error.
    #[must_use]
    pub fn enter(test: &str) -> Option<Lab> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(PROGRAM).exists()) {
            skip(test, &format!("no {PROGRAM} (scripts/setup.sh --only dpdk)"));
            return None;
        }
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let cores = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).take(2).collect();
        // A test that failed has ended what it started.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Lab { dir: tempfile::tempdir().unwrap(), cores, _turn: turn })
    }

    /// A path in a directory that goes with the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the target with the ports and net devices that `config` says. Its poller is on the first core, unless they
    /// name more of [`Lab::cores`].
    pub fn serve(&self, config: &str) -> Ringside {
        Ringside::start(self.dir.path(), &format!("[reactor]\ncores = {:?}\n{config}", self.cores))
    }

    /// Cores that pollers may be on: two at most.
    pub fn cores(&self) -> &[usize] {
        &self.cores
    }

    /// Whether there are two cores; if not, the test of that name is skipped.
    pub fn has_two_cores(&self, test: &str) -> bool {
        let enough = self.cores.len() == 2;
        if !enough {
            skip(test, "this process may use one core only");
        }
        enough
    }

    /// Whether there are huge pages for a testpmd; if not, the test of that name is skipped.
    pub fn has_huge_pages(&self, test: &str) -> bool {
        const PAGES: u64 = 64;
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
        let field =
            |name| memory.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        let (free, kib): (Option<u64>, Option<u64>) = (field("HugePages_Free:"), field("Hugepagesize:"));
        let enough = free >= Some(PAGES) && kib == Some(2048);
        if !enough {
            skip(test, &format!("needs {PAGES} free huge pages of 2 MiB (scripts/setup.sh --only hugepages)"));
        }
        enough
    }

    /// Starts a testpmd on the socket of the net device `net`, on the last core.
    pub fn testpmd(&self, net: &str, setup: &Setup<'_>) -> Testpmd {
        let mut testpmd = self.spawn(net, setup);
        testpmd.ready();
        testpmd
    }

    /// The same without a wait until it is ready.
    pub fn spawn(&self, net: &str, setup: &Setup<'_>) -> Testpmd {
        let core = *self.cores.last().expect("a process may run somewhere");
        Testpmd::spawn(core, &self.path(&format!("{net}.sock")), setup)
    }
}

/// A net device `n0`, with these further keys, on a port `p` of that kind, with its further keys.
pub fn one_net(port: &str, net: &str) -> String {
    format!("[[port]]\nname = 'p'\n{port}\n[[net]]\nname = 'n0'\nsocket = 'n0.sock'\nport = 'p'\n{net}\n")
}

/// Keys of a loopback.
pub const LOOPBACK: &str = "kind = 'loopback'";

/// Keys of a port that is this device of DPDK's.
#[cfg(feature = "dpdk")]
pub fn dpdk(device: &str) -> String {
    format!("kind = 'dpdk'\ndevice = '{device}'")
}
