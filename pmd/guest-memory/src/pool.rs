//! The kernel's pools of huge pages, one for each size.

use std::fs;
use std::path::Path;

/// The kernel's folder with a folder for each pool.
const POOLS: &str = "/sys/kernel/mm/hugepages";

/// Bytes in huge pages of any size that nobody has taken.
#[must_use]
pub fn free_huge_bytes() -> u64 {
    free_huge_bytes_in(Path::new(POOLS))
}

/// The same of a folder like the kernel's, `/sys/kernel/mm/hugepages`. What cannot be read is not free.
#[must_use]
pub fn free_huge_bytes_in(pools: &Path) -> u64 {
    let Ok(folders) = fs::read_dir(pools) else { return 0 };
    folders
        .flatten()
        .filter_map(|folder| {
            let name = folder.file_name().into_string().ok()?;
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = |what: &str| fs::read_to_string(folder.path().join(what)).ok()?.trim().parse::<u64>().ok();
            // Those that somebody has mapped and not touched are still called free.
            let free = count("free_hugepages")?.saturating_sub(count("resv_hugepages").unwrap_or(0));
            Some(1024 * kib * free)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_bytes_are_those_of_all_sizes_without_the_reserved_ones() {
        let dir = tempfile::tempdir().unwrap();
        let pool = |size: &str, free: &str, reserved: Option<&str>| {
            let folder = dir.path().join(format!("hugepages-{size}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("free_hugepages"), free).unwrap();
            if let Some(reserved) = reserved {
                fs::write(folder.join("resv_hugepages"), reserved).unwrap();
            }
        };
        assert_eq!(free_huge_bytes_in(dir.path()), 0);
        pool("2048kB", "10\n", Some("3\n"));
        assert_eq!(free_huge_bytes_in(dir.path()), 7 << 21);
        pool("1048576kB", "1\n", None);
        pool("64kB", "2\n", Some("5\n"));
        pool("what", "9\n", None);
        assert_eq!(free_huge_bytes_in(dir.path()), (7 << 21) + (1 << 30));
        assert_eq!(free_huge_bytes_in(Path::new("/no/such")), 0);
    }
}
