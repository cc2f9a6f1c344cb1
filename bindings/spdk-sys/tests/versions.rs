//! The check that the build script makes of the installed SPDK's release. Needs none.

#[path = "../build/versions.rs"]
mod versions;

use std::path::Path;

use versions::{KNOWN, Release, known};

/// As the lines of SPDK's `spdk/version.h` are.
fn header(year: &str, month: &str) -> String {
    format!(
        "#define SPDK_VERSION_H\n#define SPDK_VERSION_MAJOR\t{year}\n#define SPDK_VERSION_MINOR\t{month}\n\
         #define SPDK_VERSION_MAJOR_STRING\tSPDK_VERSION_STRINGIFY(SPDK_VERSION_MAJOR)\n"
    )
}

#[test]
fn release_is_read_from_the_header() {
    assert_eq!(Release::of_header(&header("24", "9")), Some(Release(24, 9)));
    assert_eq!(Release::of_header(&header("SPDK_YEAR", "9")), None);
    assert_eq!(Release::of_header("#define SPDK_VERSION_MAJOR 24\n"), None);
}

#[test]
fn release_that_is_too_old_or_too_new_is_refused_with_its_name_and_the_known_ones() {
    for release in [*KNOWN.start(), Release(25, 1), Release(25, 9), *KNOWN.end()] {
        assert_eq!(known(release, Path::new("/x")), Ok(()), "{release}");
    }
    for (release, name) in [(Release(24, 5), "24.05"), (Release(26, 9), "26.09")] {
        let said = known(release, Path::new("/opt/spdk/include")).unwrap_err();
        let expected =
            format!("SPDK {name} is installed (headers in /opt/spdk/include), and this is for 24.09 to 26.05: ");
        assert!(said.starts_with(&expected), "{said}");
    }
}
