//! What `--version` says: the program's own version, and on a line each those of the libraries that it was built with.

use std::sync::LazyLock;

use crate::{ports, spdk};

/// "0.1.0", then "SPDK v26.05" and "DPDK 24.11.1", as far as they are there.
#[must_use]
pub fn of_everything() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let own = env!("CARGO_PKG_VERSION").to_owned();
        [Some(own), spdk::version(), ports::dpdk_version()].into_iter().flatten().collect::<Vec<_>>().join("\n")
    });
    &TEXT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_names_the_libraries_that_are_in_the_program_and_no_others() {
        let mut lines = of_everything().lines();
        assert_eq!(lines.next(), Some(env!("CARGO_PKG_VERSION")));
        for (is_built, start) in [(cfg!(feature = "spdk"), "SPDK v2"), (cfg!(feature = "dpdk"), "DPDK 2")] {
            assert!(!is_built || lines.next().is_some_and(|line| line.starts_with(start)), "{}", of_everything());
        }
        assert_eq!(lines.next(), None);
    }
}
