//! Opening: sizes, locks, kinds, and the texts of the errors.

use bdev_file::{Cache, FileError};

use super::*;

fn error(config: &FileConfig) -> String {
    File::open("f", config).unwrap_err().to_string()
}

#[test]
fn file_with_a_size_is_created_sparse_and_found_again() {
    use std::os::unix::fs::MetadataExt;
    for place in places() {
        let config = new_file(&place, "f", 1 << 40);
        drop(open(&config));
        let metadata = std::fs::metadata(path(&place, "f")).unwrap();
        assert_eq!(metadata.len(), 1 << 40);
        assert!(metadata.blocks() * 512 <= 1 << 20, "{} sectors", metadata.blocks());
        let file = open(&FileConfig { block_size: 4096, ..FileConfig::new(path(&place, "f")) });
        let info = file.info();
        assert_eq!((info.kind, info.block_size, info.block_count), ("file", 4096, 1 << 28));
        drop(file);
        let text = error(&FileConfig { size: Some(4096), ..config });
        assert!(text.starts_with("size is 4096 bytes, but ") && text.contains("has 1099511627776: "), "{text}");
    }
}

#[test]
fn file_that_cannot_be_served_is_refused_by_name() {
    let place = &places()[0];
    let missing = FileConfig::new(path(place, "missing"));
    assert!(error(&missing).ends_with("No such file or directory (os error 2) (give a size to create it)"));
    assert!(!path(place, "missing").exists());
    std::fs::write(path(place, "empty"), b"").unwrap();
    assert!(error(&FileConfig::new(path(place, "empty"))).contains("is empty: give a size"));
    std::fs::write(path(place, "odd"), [0; 1000]).unwrap();
    let text = error(&FileConfig::new(path(place, "odd")));
    assert!(text.ends_with(": size is 1000 bytes, must be a multiple of the block_size 512"), "{text}");
    let text = error(&new_file(place, "odd size", 1000));
    assert!(text.contains("size is 1000 bytes"), "{text}");
    assert!(error(&FileConfig::new(place.path())).contains("is a directory, must be a regular file or a block device"));
    assert!(error(&FileConfig::new("/dev/null")).contains("is a character device"));
    let nowhere = new_file(place, "no/such/directory", 4096);
    assert!(error(&nowhere).contains("no/such/directory"));
}

#[test]
fn file_served_twice_is_locked_but_may_be_read_by_many() {
    for place in places() {
        let config = new_file(&place, "f", 8192);
        let file = open(&config);
        for second in [config.clone(), FileConfig { read_only: true, ..config.clone() }] {
            assert!(matches!(File::open("g", &second), Err(FileError::Locked { .. })));
        }
        // for as long as a channel lives
        let channel = file.open();
        drop(file);
        assert!(matches!(File::open("g", &config), Err(FileError::Locked { .. })));
        drop(channel);
        let read_only = FileConfig { read_only: true, ..config.clone() };
        let readers = [open(&read_only), open(&read_only)];
        assert!(error(&config).ends_with("is locked: another process, or another bdev of this one, uses it"));
        drop(readers);
        open(&config);
    }
}

#[test]
fn file_on_a_file_system_without_direct_io_says_so_or_is_refused() {
    // A file of the kernel's own: regular, readable, and no O_DIRECT.
    let config = FileConfig { read_only: true, ..FileConfig::new("/sys/kernel/notes") };
    match File::open("f", &config) {
        Ok(file) => {
            assert!(!file.is_direct());
            assert!(file.notes()[0].contains("through the page cache of the host"), "{:?}", file.notes());
        }
        // its size is no whole number of blocks, mostly
        Err(error) => assert!(error.to_string().contains("/sys/kernel/notes"), "{error}"),
    }
    let none = FileConfig { cache: Cache::None, ..config };
    let text = error(&none);
    assert!(text.contains("/sys/kernel/notes"), "{text}");
}
