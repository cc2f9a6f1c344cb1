//! How DPDK's EAL is started: arguments that fit the machine, the ports and what the user wants.

use dpdk::{Eal, EalConfig, EalError, MempoolConfig};

use crate::config::{DpdkConfig, DpdkPortConfig, MBUF_CACHE};

/// Arguments for EAL, and why they are what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// All arguments, those of the user last.
    pub arguments: Vec<String>,
    /// EAL is told to keep all of its memory from the start (`--no-huge`, `--legacy-mem`): whoever shares it has to know.
    pub legacy_memory: bool,
    /// Memory comes in ordinary pages because there are no free hugepages: slower, and no device can reach it without an IOMMU.
    pub plain_memory: bool,
}

/// EAL, and how its memory is kept.
#[derive(Clone, Copy, Debug)]
pub struct StartedEal {
    /// The token.
    pub eal: Eal,
    /// Whether it has all of its memory from the start (`--no-huge`, `--legacy-mem`).
    pub legacy_memory: bool,
}

/// Starts EAL for these ports. Its own threads run on `control_cores` (where the caller may run, if empty), and the calling
/// thread is as before. Says in the log when there are no hugepages.
///
/// # Errors
/// It did not start, or was started before. See [`EalError`].
pub fn start_eal(
    config: &DpdkConfig,
    ports: &[DpdkPortConfig],
    control_cores: &[usize],
) -> Result<StartedEal, EalError> {
    // EAL has a thread for each core that is not taken from it, and a number for each thread: pollers could get none.
    let allowed = reactor::affinity::allowed().unwrap_or_default();
    let cores = if control_cores.is_empty() { &allowed } else { control_cores };
    let plan = Plan::new(config, ports, cores, guest_memory::free_huge_bytes() >> 20);
    if plan.plain_memory {
        tracing::warn!(
            "no free hugepages for DPDK: it uses ordinary pages, which is slower (echo 512 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages)"
        );
    }
    tracing::info!(version = dpdk::version(), arguments = plan.arguments.join(" "), "starting DPDK");
    let eal = Eal::start(&EalConfig { arguments: plan.arguments, cores: cores.to_vec() })?;
    Ok(StartedEal { eal, legacy_memory: plan.legacy_memory })
}

impl Plan {
    /// Chooses arguments. `hugepages_mib` are free; there is one EAL thread of the kind called lcore, and it may run on all of
    /// `control_cores`.
    #[must_use]
    pub fn new(config: &DpdkConfig, ports: &[DpdkPortConfig], control_cores: &[usize], hugepages_mib: u64) -> Plan {
        let user = &config.eal_args;
        let given = |names: &[&str]| user.iter().any(|argument| names.iter().any(|name| names_option(argument, name)));
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));

        let wanted = memory_mib(ports) + config.further_memory_mib;
        let plain_memory = !given(&MEMORY) && hugepages_mib < wanted;
        if plain_memory {
            // Not together with --in-memory; without shared configuration nothing is left behind all the same.
            add(&["--no-huge", "--no-shconf", "-m", &wanted.to_string()]);
        } else if !given(&MEMORY) {
            // In one file: drivers like memif pass memory on as file descriptors, of which there are few then.
            add(&["--in-memory", "--single-file-segments"]);
        }
        let pci: Vec<&str> = ports.iter().map(|port| port.device.as_str()).filter(|device| is_pci(device)).collect();
        if !given(&["-a", "--allow", "-b", "--block", "--no-pci"]) {
            if pci.is_empty() {
                add(&["--no-pci"]);
            }
            pci.iter().for_each(|device| add(&["-a", device]));
        }
        if !given(&["--telemetry", "--no-telemetry"]) {
            add(&["--no-telemetry"]);
        }
        if !given(&["-l", "-c", "--lcores", "--main-lcore"])
            && let Some(cores) = core_list(control_cores)
        {
            add(&["--lcores", &format!("0@({cores})")]);
        }
        arguments.extend(user.iter().cloned());
        let legacy_memory = plain_memory || given(&["--no-huge", "--legacy-mem"]);
        Plan { arguments, legacy_memory, plain_memory }
    }
}

/// Arguments that choose a kind of memory.
const MEMORY: [&str; 9] = [
    "--in-memory",
    "--no-huge",
    "--legacy-mem",
    "--huge-dir",
    "--huge-unlink",
    "--socket-mem",
    "-m",
    "--file-prefix",
    "--proc-type",
];

/// Whether an argument is this option: `-m`, `-m64`, `--huge-dir`, `--huge-dir=x`.
fn names_option(argument: &str, name: &str) -> bool {
    match argument.strip_prefix(name) {
        None => false,
        Some(rest) if name.starts_with("--") => rest.is_empty() || rest.starts_with('='),
        Some(_) => true,
    }
}

/// Whether a device is named by a PCI address: `0000:3b:00.0` or `3b:00.0`, and perhaps arguments.
fn is_pci(device: &str) -> bool {
    let address = device.split(',').next().unwrap_or_default();
    let Some((rest, function)) = address.rsplit_once('.') else { return false };
    let mut parts = rest.rsplit(':');
    let hex = |part: Option<&str>, most: usize| {
        part.is_some_and(|part| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let slot_and_bus = hex(parts.next(), 2) && hex(parts.next(), 2);
    let domain = parts.next();
    hex(Some(function), 1) && slot_and_bus && (domain.is_none() || hex(domain, 8)) && parts.next().is_none()
}

/// Memory of the ports' pools, and some for everything else.
fn memory_mib(ports: &[DpdkPortConfig]) -> u64 {
    let pools: u64 = ports
        .iter()
        .map(|port| {
            let pool = MempoolConfig { mbufs: port.mbufs_per_queue(), room: port.room_whole(), cache: MBUF_CACHE };
            pool.bytes() * u64::from(port.queues)
        })
        .sum();
    (pools >> 20) + 32 + 8 * ports.len() as u64
}

/// `0,2,3`; EAL of 22.11 knows no core beyond 127.
fn core_list(cores: &[usize]) -> Option<String> {
    let known: Vec<String> = cores.iter().filter(|&&core| core < 128).map(usize::to_string).collect();
    (!known.is_empty()).then(|| known.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(user: &[&str], devices: &[&str], hugepages: u64) -> Plan {
        let config =
            DpdkConfig { eal_args: user.iter().map(|&word| word.to_owned()).collect(), ..DpdkConfig::default() };
        let ports: Vec<_> = devices.iter().map(|&device| DpdkPortConfig::new(device, device)).collect();
        Plan::new(&config, &ports, &[0, 2], hugepages)
    }

    #[test]
    fn plan_with_hugepages_leaves_nothing_behind_and_probes_nothing() {
        let plan = plan(&[], &["net_null0"], 1000);
        assert!(!plan.plain_memory);
        assert_eq!(
            plan.arguments,
            ["--in-memory", "--single-file-segments", "--no-pci", "--no-telemetry", "--lcores", "0@(0,2)"]
        );
    }

    #[test]
    fn plan_without_hugepages_asks_for_enough_plain_memory() {
        let plan = plan(&[], &["net_null0", "net_ring0"], 20);
        assert!(plan.plain_memory);
        assert_eq!(plan.arguments[..3], ["--no-huge", "--no-shconf", "-m"]);
        let mib: u64 = plan.arguments[3].parse().unwrap();
        assert!((2 * 4 * 9..200).contains(&mib), "{mib} MiB for 8 pools of 4095 mbufs of 2048 bytes");
        assert!(plan.legacy_memory);
        let shared = DpdkConfig { further_memory_mib: 512, ..DpdkConfig::default() };
        let ports = [DpdkPortConfig::new("net_null0", "net_null0"), DpdkPortConfig::new("net_ring0", "net_ring0")];
        assert_eq!(Plan::new(&shared, &ports, &[0, 2], 20).arguments[3], (mib + 512).to_string());
    }

    #[test]
    fn plan_for_a_pci_device_allows_that_one_only() {
        assert_eq!(plan(&[], &["net_null0", "0000:3b:00.0,arg=1"], 1000).arguments[2..4], ["-a", "0000:3b:00.0,arg=1"]);
        for device in ["3b:00.0", "0000:3b:00.1,x=y"] {
            assert!(is_pci(device), "{device}");
        }
        for device in ["net_tap0,iface=a.b:c", "net_null0", "", "1:2:3b:00.0", "g0:00.0", "net:00.0"] {
            assert!(!is_pci(device), "{device}");
        }
    }

    #[test]
    fn plan_leaves_to_the_user_what_the_user_says_and_puts_it_last() {
        assert!(plan(&["--legacy-mem"], &[], 1000).legacy_memory && !plan(&["--in-memory"], &[], 1000).legacy_memory);
        let arguments = plan(&["--no-huge", "-m64", "-l", "3", "-a", "01:00.0"], &["net_null0"], 1000).arguments;
        assert_eq!(arguments, ["--no-telemetry", "--no-huge", "-m64", "-l", "3", "-a", "01:00.0"]);
        let arguments = plan(&["--in-memory", "--telemetry", "--log-level=8"], &["net_null0"], 0).arguments;
        assert_eq!(arguments, ["--no-pci", "--lcores", "0@(0,2)", "--in-memory", "--telemetry", "--log-level=8"]);
    }
}
