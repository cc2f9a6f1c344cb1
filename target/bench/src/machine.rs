//! What machine this is, as far as it says so: what a reader of figures wants to know before comparing them. Nothing is
//! measured here.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

/// What to say, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Cores that are measured on: what is known of each
    #[arg(long, value_name = "CORE", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Something else worth knowing, such as the revision of a peer
    #[arg(long, value_name = "NAME=VALUE", value_parser = fact)]
    pub fact: Vec<(String, String)>,
    /// Print one JSON object, as `bench report` reads it
    #[arg(long)]
    pub json: bool,
}

/// Name and value, in the order of reading.
pub(crate) type Facts = Vec<(String, String)>;

/// Prints what is known on standard output.
///
/// # Errors
/// Those of standard output.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut facts = facts(Path::new("/"), &args.cores);
    facts.extend(args.fact.iter().cloned());
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "machine": facts })).context("standard output")
    } else {
        facts.iter().try_for_each(|(name, value)| writeln!(out, "{name}: {value}")).context("standard output")
    }
}

/// What is below `root` (`/`), and of these cores. What cannot be read is left out, but for a core's governor, whose absence
/// is worth knowing.
pub(crate) fn facts(root: &Path, cores: &[usize]) -> Facts {
    let read = |path: &str| {
        let text = fs::read_to_string(root.join(path)).ok()?;
        Some(text.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
    };
    let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let of = |text: &str, name| colon_value(text, name).map(str::to_owned);
    let mut facts = Facts::new();
    let mut add = |name: &str, value: Option<String>| facts.extend(value.map(|value| (name.to_owned(), value)));
    add("ringside", Some(env!("CARGO_PKG_VERSION").to_owned()));
    add("processor", of(&cpuinfo, "model name"));
    add("microcode", of(&cpuinfo, "microcode"));
    add("cores online", read("sys/devices/system/cpu/online"));
    add("isolated cores", read("sys/devices/system/cpu/isolated"));
    add(
        "hypervisor",
        Some(hypervisor(&cpuinfo, read("sys/class/dmi/id/sys_vendor"), read("sys/class/dmi/id/product_name"))),
    );
    add("memory", of(&meminfo, "MemTotal"));
    add("huge pages", huge_pages(&meminfo));
    add("kernel", read("proc/sys/kernel/osrelease"));
    add("boot parameters", read("proc/cmdline").and_then(|line| boot_parameters(&line)));
    add("clock source", read("sys/devices/system/clocksource/clocksource0/current_clocksource"));
    add("turbo switched off (intel_pstate)", read("sys/devices/system/cpu/intel_pstate/no_turbo"));
    add("load average", read("proc/loadavg"));
    for core in cores {
        let of_core = |file: &str| read(&format!("sys/devices/system/cpu/cpu{core}/{file}"));
        let governor = of_core("cpufreq/scaling_governor").unwrap_or_else(|| "not readable".to_owned());
        add(&format!("core {core} governor"), Some(governor));
        add(&format!("core {core} shares its core with"), of_core("topology/thread_siblings_list"));
        add(&format!("core {core} package"), of_core("topology/physical_package_id"));
    }
    facts
}

fn hypervisor(cpuinfo: &str, vendor: Option<String>, product: Option<String>) -> String {
    let flags = colon_value(cpuinfo, "flags").unwrap_or_default();
    if !flags.split(' ').any(|flag| flag == "hypervisor") {
        return "none".to_owned();
    }
    let names: Vec<String> = vendor.into_iter().chain(product).collect();
    if names.is_empty() { "yes, unnamed".to_owned() } else { names.join(" ") }
}

fn huge_pages(meminfo: &str) -> Option<String> {
    let of = |name| colon_value(meminfo, name);
    Some(format!("{} of {}, {} free", of("HugePages_Total")?, of("Hugepagesize")?, of("HugePages_Free")?))
}

/// Those that measurements feel; the others may be nobody's business.
fn boot_parameters(line: &str) -> Option<String> {
    let known = |word: &&str| BOOT_PARAMETERS.contains(&word.split(['=', '.']).next().unwrap_or_default());
    Some(line.split(' ').filter(known).collect::<Vec<_>>().join(" ")).filter(|words| !words.is_empty())
}

/// The first `name : value` of a text.
fn colon_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn fact(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

const BOOT_PARAMETERS: [&str; 14] = [
    "isolcpus",
    "nohz",
    "nohz_full",
    "rcu_nocbs",
    "irqaffinity",
    "mitigations",
    "idle",
    "intel_idle",
    "intel_pstate",
    "processor",
    "nosmt",
    "iommu",
    "default_hugepagesz",
    "hugepages",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(facts: &'a Facts, name: &str) -> Option<&'a str> {
        facts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn facts_of_a_machine_are_read_from_its_files() {
        let root = tempfile::tempdir().unwrap();
        let cpuinfo =
            "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmicrocode\t: 0x1\nflags\t\t: fpu hypervisor sse\n\n";
        let meminfo = "MemTotal: 8000 kB\nHugePages_Total:  64\nHugePages_Free:   60\nHugepagesize: 2048 kB\n";
        for (file, text) in [
            ("proc/cpuinfo", cpuinfo),
            ("proc/meminfo", meminfo),
            ("proc/sys/kernel/osrelease", "6.1.0\n"),
            ("proc/cmdline", "root=/dev/sda secret=1 mitigations=off intel_idle.max_cstate=0 isolcpus=1\n"),
            ("proc/loadavg", "0.50 0.40 0.30 1/2 3\n"),
            ("sys/devices/system/cpu/online", "0-1\n"),
            ("sys/devices/system/cpu/isolated", "\n"),
            ("sys/class/dmi/id/sys_vendor", "QEMU\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let facts = facts(root.path(), &[0, 1]);
        for (name, wanted) in [
            ("processor", Some("Some CPU @ 2 GHz")),
            ("hypervisor", Some("QEMU")),
            ("memory", Some("8000 kB")),
            ("huge pages", Some("64 of 2048 kB, 60 free")),
            ("kernel", Some("6.1.0")),
            ("boot parameters", Some("mitigations=off intel_idle.max_cstate=0 isolcpus=1")),
            ("cores online", Some("0-1")),
            ("isolated cores", None),
            ("core 0 governor", Some("not readable")),
            ("core 1 governor", Some("performance")),
        ] {
            assert_eq!(value(&facts, name), wanted, "{name}");
        }
    }

    #[test]
    fn machine_without_the_flag_has_no_hypervisor() {
        assert_eq!(hypervisor("flags : fpu sse\n", Some("Dell".to_owned()), None), "none");
        assert_eq!(hypervisor("flags : hypervisor\n", None, None), "yes, unnamed");
    }

    #[test]
    fn fact_of_the_command_line_is_cut_at_its_first_equals_sign() {
        assert_eq!(fact("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(fact("a").is_err());
    }
}
