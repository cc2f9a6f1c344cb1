//! The comparison that the build script makes of SPDK's DPDK with the one beside it. Needs neither.

#[path = "../build/one_dpdk.rs"]
mod one_dpdk;

use std::fs;
use std::path::{Path, PathBuf};

use one_dpdk::{Found, compare};

/// A folder as that of an installed DPDK's libraries, which says that it is of this version.
fn installed(prefix: &Path, libraries: &str, version: &str) -> PathBuf {
    let folder = prefix.join(libraries).join("pkgconfig");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("libdpdk.pc"), format!("prefix=/x\n\nName: DPDK\nVersion: {version}\nLibs: -lrte_eal\n"))
        .unwrap();
    folder
}

#[test]
fn other_dpdk_than_spdks_is_refused_with_both_versions_and_both_folders() {
    let lab = tempfile::tempdir().unwrap();
    let own = installed(lab.path(), "own/lib", "24.11.1");
    let other = installed(lab.path(), "other/lib", "22.11.11");
    let config_h = format!(
        "#undef SPDK_CONFIG_DPDK_COMPRESSDEV\n#define SPDK_CONFIG_DPDK_DIR /nowhere\n\
         #define SPDK_CONFIG_DPDK_LIB_DIR {}\n#undef SPDK_CONFIG_DPDK_PKG_CONFIG\n",
        lab.path().join("own/lib").display()
    );
    let spdk = Found::of_spdk(&config_h).unwrap();
    assert_eq!(spdk, Found { version: "24.11.1".to_owned(), folder: own.clone() });
    assert_eq!(spdk.libraries(), Some(&*lab.path().join("own/lib")));
    let said = compare(&spdk, &Found::in_folder(&other).unwrap()).unwrap_err();
    let expected = format!(
        "SPDK was built with DPDK 24.11.1 (libdpdk.pc in {}), and the feature `dpdk` finds DPDK 22.11.11 (libdpdk.pc in {}): ",
        own.display(),
        other.display()
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.contains(&format!("Put {} first in PKG_CONFIG_PATH", own.display())), "{said}");
    // The same in two places is the same.
    let twin = installed(lab.path(), "twin/lib", "24.11.1");
    assert_eq!(compare(&spdk, &Found::in_folder(&twin).unwrap()), Ok(()));
}

#[test]
fn dpdk_of_spdk_is_looked_for_below_its_prefix_and_may_be_unknown() {
    let lab = tempfile::tempdir().unwrap();
    let config_h = format!("#define SPDK_CONFIG_DPDK_DIR {}\n", lab.path().display());
    assert_eq!(Found::of_spdk(&config_h), None, "it is gone");
    let folder = installed(lab.path(), "lib/x86_64-linux-gnu", "25.3.0");
    assert_eq!(Found::of_spdk(&config_h), Some(Found { version: "25.3.0".to_owned(), folder }));
    assert_eq!(Found::of_spdk("#undef SPDK_CONFIG_DPDK_DIR\n#undef SPDK_CONFIG_DPDK_LIB_DIR\n"), None);
    fs::write(lab.path().join("lib/x86_64-linux-gnu/pkgconfig/libdpdk.pc"), "Name: DPDK\n").unwrap();
    assert_eq!(Found::of_spdk(&config_h), None, "it has no version");
}
