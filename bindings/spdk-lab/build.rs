//! Compiles the module against the headers that `spdk-sys` has found.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=module");
    #[cfg(feature = "libspdk")]
    {
        let flags = std::env::var("DEP_SPDK_CFLAGS").expect("spdk-sys tells its dependents");
        let mut build = cc::Build::new();
        build.file("module/lab.c").warnings(false).std("gnu11");
        flags.split(' ').filter(|flag| !flag.is_empty()).for_each(|flag| {
            build.flag(flag);
        });
        build.compile("spdk_lab");
    }
}
