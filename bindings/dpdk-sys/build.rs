//! Finds the installed DPDK by pkg-config, generates the bindings from its headers and compiles the shim against them.
//! What is bound stands in `shim/shim.h` and in the lists below; nothing is downloaded and nothing is vendored.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "libdpdk")]
    libdpdk::build();
}

#[cfg(feature = "libdpdk")]
mod libdpdk {
    use std::env;
    use std::path::PathBuf;
    use std::process::Command;

    const VERSION_MIN: &str = "22.11";

    /// Libraries that the bound functions are in. Drivers are not among them: EAL loads those itself.
    const LIBRARIES: [&str; 6] = ["rte_ethdev", "rte_net", "rte_mbuf", "rte_mempool", "rte_eal", "rte_log"];

    const FUNCTIONS: [&str; 11] = [
        "shim_.*",
        "rte_eal_init",
        "rte_dev_(probe|remove)",
        "rte_strerror",
        "rte_thread_(register|unregister)",
        "rte_version",
        "rte_pktmbuf_pool_create_by_ops",
        "rte_mempool_avail_count",
        "rte_eth_dev_(configure|start|stop|close|info_get|get_port_by_name|get_mtu|set_mtu|is_valid_port|adjust_nb_rx_tx_desc|socket_id|mac_addr_add|rss_reta_(update|query))",
        "rte_eth_(rx|tx)_queue_setup",
        "rte_eth_(macaddr_get|promiscuous_enable|allmulticast_enable|find_next_of|stats_get|stats_reset|xstats_get|xstats_get_names)",
    ];

    pub fn build() {
        let wanted = pkg_config::Config::new().atleast_version(VERSION_MIN).cargo_metadata(false).probe("libdpdk");
        let found = wanted.unwrap_or_else(|error| {
            panic!(
                "\n\nDPDK {VERSION_MIN} or newer is not installed (pkg-config does not find a libdpdk like that).\n\
                 On Debian and Ubuntu: apt-get install libdpdk-dev dpdk-dev libclang-dev clang pkg-config\n\
                 From source: put the folder of libdpdk.pc into PKG_CONFIG_PATH.\n\
                 To build without DPDK: --no-default-features\n\n{error}\n"
            )
        });
        // Another version in the same place: everything is made anew.
        for file in found.include_paths.iter().map(|path| path.join("rte_build_config.h")).filter(|file| file.exists())
        {
            println!("cargo:rerun-if-changed={}", file.display());
        }
        let flags = c_flags();
        compile_shim(&flags);
        link(&found);
        generate(&flags);
    }

    /// All of pkg-config's flags: `-include rte_config.h` and `-march` are among them, and the headers want both.
    fn c_flags() -> Vec<String> {
        println!("cargo:rerun-if-env-changed=PKG_CONFIG");
        let pkg_config = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
        let output = Command::new(pkg_config).args(["--cflags", "libdpdk"]).output().expect("pkg-config ran before");
        assert!(output.status.success(), "pkg-config --cflags libdpdk: {}", String::from_utf8_lossy(&output.stderr));
        let mut flags: Vec<String> =
            String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
        // rte_dev_probe, rte_thread_register and the mempool cache are "experimental" in some of the versions.
        flags.push("-DALLOW_EXPERIMENTAL_API".to_owned());
        flags
    }

    fn compile_shim(flags: &[String]) {
        println!("cargo:rerun-if-changed=shim");
        let mut build = cc::Build::new();
        build.file("shim/shim.c").warnings(false).opt_level(3).std("gnu11");
        for flag in flags {
            build.flag(flag);
        }
        build.compile("dpdk_shim");
    }

    /// Only the libraries that are called: pkg-config names all fifty. Those that a version does not have are left out.
    fn link(found: &pkg_config::Library) {
        for path in &found.link_paths {
            println!("cargo:rustc-link-search=native={}", path.display());
        }
        for library in LIBRARIES.iter().filter(|&&name| found.libs.iter().any(|lib| lib == name)) {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
        println!("cargo:version={}", found.version);
        println!("cargo:folder={}", pkg_config::get_variable("libdpdk", "pcfiledir").unwrap_or_default());
    }

    fn generate(flags: &[String]) {
        let mut builder = bindgen::Builder::default()
            .header("shim/shim.h")
            .clang_args(flags)
            .use_core()
            .layout_tests(true)
            .generate_comments(false)
            .formatter(bindgen::Formatter::None)
            .allowlist_var("SHIM_.*")
            .allowlist_type("shim_.*")
            .allowlist_var("RTE_MAX_ETHPORTS|RTE_MEMPOOL_CACHE_MAX_SIZE|RTE_PKTMBUF_HEADROOM")
            .opaque_type("rte_mempool|rte_device|rte_mbuf|rte_intr_handle|rte_devargs|rte_bus")
            .prepend_enum_name(false)
            .derive_default(false)
            .derive_debug(false);
        for function in FUNCTIONS {
            builder = builder.allowlist_function(function);
        }
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
        builder
            .generate()
            .unwrap_or_else(|error| panic!("bindgen over DPDK's headers: {error} (libclang-dev and clang are needed)"))
            .write_to_file(out)
            .expect("OUT_DIR can be written to");
    }
}
