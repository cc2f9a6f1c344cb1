//! Finds the installed SPDK by pkg-config, generates the bindings from its headers and compiles the shim against them.
//! What is bound stands in `shim/shim.h` and in the lists below; nothing is downloaded and nothing is vendored.

#[cfg(feature = "libspdk")]
#[path = "build/one_dpdk.rs"]
mod one_dpdk;
#[cfg(feature = "libspdk")]
#[path = "build/versions.rs"]
mod versions;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    #[cfg(feature = "libspdk")]
    libspdk::build();
}

#[cfg(feature = "libspdk")]
mod libspdk {
    use std::env;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::one_dpdk::{Found, compare};
    use super::versions::{KNOWN, Release, known};

    /// The block device subsystem with everything below it, and all the modules that SPDK was built with.
    const PACKAGES: [&str; 7] = [
        "spdk_event_bdev",
        "spdk_bdev_modules",
        "spdk_sock_modules",
        "spdk_accel_modules",
        "spdk_keyring_modules",
        "spdk_env_dpdk",
        "spdk_syslibs",
    ];

    const FUNCTIONS: [&str; 9] = [
        "spdk_shim_.*",
        "spdk_env_(fini|dpdk_post_init|dpdk_post_fini)",
        "spdk_mem_(register|unregister)",
        "spdk_thread_(lib_fini|create|poll|send_msg|exit|is_exited|destroy|next_poller_expiration|get_name)",
        "spdk_(set_thread|get_thread|get_ticks|get_ticks_hz|put_io_channel)",
        "spdk_subsystem_(init|load_config|fini)",
        "spdk_rpc_(initialize|server_finish|finish|set_state)",
        "spdk_bdev_(open_ext|close|get_io_channel)",
        "spdk_(zmalloc|free)",
    ];

    pub fn build() {
        let flags = pkg_config(&["--cflags"], &PACKAGES).unwrap_or_else(|error| {
            panic!(
                "\n\nSPDK is not installed (pkg-config does not find it).\n\
                 SPDK has no packages; build it, {} to {}:\n    \
                 ./configure --prefix=PREFIX --disable-tests --disable-unit-tests && make && make install\n\
                 then put PREFIX/lib/pkgconfig, and the folder of the libdpdk.pc that SPDK was built with, into PKG_CONFIG_PATH.\n\
                 clang and libclang-dev are needed, too. To build without SPDK: leave the feature `spdk` out.\n\n{error}\n",
                KNOWN.start(),
                KNOWN.end(),
            )
        });
        let headers = headers(&flags);
        if let Err(text) = known(release(&headers), &headers) {
            panic!("\n\n{text}\n");
        }
        let libraries = pkg_config(&["--static", "--libs"], &PACKAGES).unwrap_or_else(|error| panic!("{error}"));
        let config = headers.join("spdk/config.h");
        println!("cargo:rerun-if-changed={}", config.display());
        let dpdk = Found::of_spdk(&fs::read_to_string(&config).unwrap_or_default());
        compare_dpdk(dpdk.as_ref());
        compile_shim(&flags);
        // For C beside ours: `DEP_SPDK_CFLAGS`.
        println!("cargo:cflags={}", flags.join(" "));
        link(&libraries, dpdk.as_ref());
        link_log_methods(&folders(&libraries, dpdk.as_ref()));
        generate(&flags);
    }

    fn pkg_config(options: &[&str], packages: &[&str]) -> Result<Vec<String>, String> {
        for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH"] {
            println!("cargo:rerun-if-env-changed={variable}");
        }
        let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
        let output = Command::new(&program)
            .args(options)
            .args(packages)
            .output()
            .map_err(|error| format!("{program} does not start: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
    }

    /// The folder of SPDK's headers.
    fn headers(flags: &[String]) -> PathBuf {
        let folders =
            flags.iter().filter_map(|flag| flag.strip_prefix("-I")).chain(["/usr/include", "/usr/local/include"]);
        let found = folders.map(PathBuf::from).find(|folder| folder.join("spdk/version.h").exists());
        found.expect("SPDK's pkg-config files are there, and its headers are not")
    }

    fn release(headers: &Path) -> Release {
        let file = headers.join("spdk/version.h");
        println!("cargo:rerun-if-changed={}", file.display());
        let text = fs::read_to_string(&file).expect("it is there");
        Release::of_header(&text).unwrap_or_else(|| panic!("{} does not say which SPDK it is of", file.display()))
    }

    fn compile_shim(flags: &[String]) {
        println!("cargo:rerun-if-changed=shim");
        let mut build = cc::Build::new();
        build.file("shim/shim.c").warnings(false).opt_level(3).std("gnu11");
        for flag in flags {
            build.flag(flag);
        }
        build.compile("spdk_shim");
    }

    /// SPDK's archives, whole, because what registers itself is not asked for by name.
    fn link(libraries: &[String], dpdk: Option<&Found>) {
        let folders = folders(libraries, dpdk);
        for folder in &folders {
            println!("cargo:rustc-link-search=native={}", folder.display());
        }
        let has = |file: String| folders.iter().any(|folder| folder.join(&file).exists());
        let mut linked = Vec::new();
        for name in libraries.iter().filter_map(|word| word.strip_prefix("-l")) {
            if linked.contains(&name) {
                continue;
            }
            linked.push(name);
            let (archive, shared) = (has(format!("lib{name}.a")), has(format!("lib{name}.so")));
            let kind = match name {
                _ if name.starts_with("spdk_") => {
                    assert!(archive, "SPDK's archive lib{name}.a is not where its pkg-config files say");
                    "static:+whole-archive,-bundle"
                }
                // Shared, so that what uses DPDK beside SPDK has the same.
                _ if name.starts_with("rte_") && shared => "dylib",
                _ if name.starts_with("rte_") && archive => "static:+whole-archive,-bundle",
                // Built by SPDK for itself.
                _ if archive => "static:-bundle",
                _ => "dylib",
            };
            println!("cargo:rustc-link-lib={kind}={name}");
        }
    }

    /// The RPC methods `log_…`: one object of SPDK's application framework, whose reactors we do not have.
    fn link_log_methods(folders: &[PathBuf]) {
        const OBJECT: &str = "log_rpc.o";
        let archive = folders.iter().map(|folder| folder.join("libspdk_event.a")).find(|archive| archive.exists());
        let archive = archive.expect("SPDK's archives are together");
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let ar = env::var("AR").unwrap_or_else(|_| "ar".to_owned());
        println!("cargo:rerun-if-env-changed=AR");
        for arguments in [["x".as_ref(), archive.as_os_str()], ["crs".as_ref(), "libspdk_log_rpc.a".as_ref()]] {
            let status = Command::new(&ar).args(arguments).arg(OBJECT).current_dir(&out).status();
            assert!(status.is_ok_and(|status| status.success()), "{ar} of {OBJECT} in {}", archive.display());
        }
        println!("cargo:rustc-link-search=native={}", out.display());
        println!("cargo:rustc-link-lib=static:+whole-archive,-bundle=spdk_log_rpc");
    }

    /// Where libraries are looked for: what pkg-config says, then DPDK's own folder, which an installed SPDK does not name: the one
    /// that it was built with, or the one that pkg-config finds.
    fn folders(libraries: &[String], dpdk: Option<&Found>) -> Vec<PathBuf> {
        let found = pkg_config(&["--libs-only-L"], &["libdpdk"]).unwrap_or_default();
        let named = |words: &[String]| -> Vec<PathBuf> {
            words.iter().filter_map(|word| word.strip_prefix("-L")).map(PathBuf::from).collect()
        };
        let own = dpdk.and_then(Found::libraries).map(Path::to_owned);
        named(libraries).into_iter().chain(own).chain(named(&found)).collect()
    }

    /// What uses DPDK beside SPDK has to have the same.
    fn compare_dpdk(dpdk: Option<&Found>) {
        // Of dpdk-sys, if the feature `libdpdk` asks for it.
        let word = |name: &str| {
            println!("cargo:rerun-if-env-changed={name}");
            env::var(name).ok()
        };
        let Some(version) = word("DEP_DPDK_VERSION") else { return };
        let folder = word("DEP_DPDK_FOLDER").unwrap_or_default().into();
        let beside = Found { version, folder };
        match dpdk {
            Some(dpdk) => {
                if let Err(text) = compare(dpdk, &beside) {
                    panic!("\n\n{text}\n");
                }
            }
            None => println!(
                "cargo:warning=which DPDK SPDK was built with cannot be told any more; it has to be {} as in {}",
                beside.version,
                beside.folder.display()
            ),
        }
    }

    fn generate(flags: &[String]) {
        let mut builder = bindgen::Builder::default()
            .header("shim/shim.h")
            .clang_args(flags)
            .use_core()
            .layout_tests(true)
            .generate_comments(false)
            .formatter(bindgen::Formatter::None)
            .allowlist_var("SPDK_SHIM_.*")
            .allowlist_type("spdk_shim_.*")
            .opaque_type("spdk_rpc_opts|spdk_cpuset")
            .prepend_enum_name(false)
            .derive_default(false)
            .derive_debug(false);
        for function in FUNCTIONS {
            builder = builder.allowlist_function(function);
        }
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
        builder
            .generate()
            .unwrap_or_else(|error| panic!("bindgen over SPDK's headers: {error} (libclang-dev and clang are needed)"))
            .write_to_file(out)
            .expect("OUT_DIR can be written to");
    }
}
