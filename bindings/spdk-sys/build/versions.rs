//! Which releases of SPDK this is for, and which one is installed. A part of the build script, which its tests
//! (`tests/versions.rs`) take, too.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

/// A release by its year and month; prints as "24.09".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

/// The shim is written against the headers of these.
pub const KNOWN: RangeInclusive<Release> = Release(24, 9)..=Release(26, 5);

impl Release {
    /// By SPDK's `spdk/version.h`: what pkg-config calls a version is that of each library's ABI. None if it does not say.
    pub fn of_header(version_h: &str) -> Option<Release> {
        let number = |name: &str| {
            let defined =
                |line: &str| line.strip_prefix("#define")?.trim_start().strip_prefix(name)?.trim().parse().ok();
            version_h.lines().find_map(defined)
        };
        Some(Release(number("SPDK_VERSION_MAJOR")?, number("SPDK_VERSION_MINOR")?))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0, self.1)
    }
}

/// # Errors
/// It is none of those: a text for whoever builds this.
pub fn known(found: Release, headers: &Path) -> Result<(), String> {
    if KNOWN.contains(&found) {
        return Ok(());
    }
    Err(format!(
        "SPDK {found} is installed (headers in {}), and this is for {} to {}: put the lib/pkgconfig of one of those first in \
         PKG_CONFIG_PATH.",
        headers.display(),
        KNOWN.start(),
        KNOWN.end()
    ))
}
