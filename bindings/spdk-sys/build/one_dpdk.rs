//! Whether SPDK and what uses DPDK beside it mean the same DPDK: one process has one. A part of the build script, which its
//! tests (`tests/one_dpdk.rs`) take, too.

use std::fs;
use std::path::{Path, PathBuf};

/// A DPDK that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As its `libdpdk.pc` has it.
    pub version: String,
    /// The folder of that file.
    pub folder: PathBuf,
}

impl Found {
    /// The DPDK that an installed SPDK was built with, by what its `spdk/config.h` has kept of `./configure`. None where it says
    /// nothing, or nothing is there any more.
    pub fn of_spdk(config_h: &str) -> Option<Found> {
        let folder = |name: &str| {
            let rest = config_h.lines().find_map(|line| line.strip_prefix("#define")?.trim_start().strip_prefix(name));
            rest.filter(|rest| rest.starts_with(char::is_whitespace)).map(|rest| PathBuf::from(rest.trim()))
        };
        let libraries = folder("SPDK_CONFIG_DPDK_LIB_DIR").into_iter();
        let below = ["lib", "lib64", "lib/x86_64-linux-gnu"];
        let prefix = folder("SPDK_CONFIG_DPDK_DIR").into_iter();
        let libraries = libraries.chain(prefix.flat_map(|prefix| below.map(|name| prefix.join(name))));
        libraries.map(|folder| folder.join("pkgconfig")).find_map(|folder| Found::in_folder(&folder))
    }

    /// The one whose `libdpdk.pc` is in that folder.
    pub fn in_folder(folder: &Path) -> Option<Found> {
        let text = fs::read_to_string(folder.join("libdpdk.pc")).ok()?;
        let version = text.lines().find_map(|line| line.strip_prefix("Version:"))?.trim().to_owned();
        Some(Found { version, folder: folder.to_owned() })
    }

    /// Where its libraries are.
    pub fn libraries(&self) -> Option<&Path> {
        self.folder.parent()
    }
}

/// # Errors
/// They are not the same: a text for whoever builds this, which says what to do.
pub fn compare(spdk: &Found, beside: &Found) -> Result<(), String> {
    if spdk.version == beside.version {
        return Ok(());
    }
    let (own, other) = (&spdk.version, &beside.version);
    let (own_folder, other_folder) = (spdk.folder.display(), beside.folder.display());
    Err(format!(
        "SPDK was built with DPDK {own} (libdpdk.pc in {own_folder}), and the feature `dpdk` finds DPDK {other} (libdpdk.pc in \
         {other_folder}): one process has one DPDK.\n\
         Put {own_folder} first in PKG_CONFIG_PATH, build SPDK with {other} (./configure --with-dpdk=…), or leave one of the \
         features `dpdk` and `spdk` out."
    ))
}
