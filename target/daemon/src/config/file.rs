//! The keys of a `[[bdev]]` of kind `file`. Whether there is such a file is found out when it is opened.

use std::path::PathBuf;

use super::bdev::{BlockSize, read_block_size, read_whole_blocks};
use super::problem::Reason;
use super::reader::{Field, Problems, Section};
use super::size::ByteSize;
use super::words::Cache;

/// A regular file or a block device of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes in all: whole blocks, and not zero. None: as it is. A missing or empty file is made that long.
    pub size: Option<ByteSize>,
    /// Bytes of a block.
    pub block_size: BlockSize,
    /// Past the page cache of the host, where its file system lets it; default true.
    pub direct: bool,
    /// Whether writes are refused; default false.
    pub read_only: bool,
    /// When written data is on stable storage.
    pub cache: Cache,
}

pub(super) fn read(section: &mut Section<'_>, problems: &mut Problems) -> Option<File> {
    let path = section.require("path", problems).and_then(|field| read_path(&field, problems));
    let block_size = read_block_size("block_size", BlockSize::B512, section, problems);
    let size = match section.take("size") {
        None => Some(None),
        Some(field) => read_whole_blocks(&field, block_size, problems).map(Some),
    };
    let mut flag = |key, default| match section.take(key) {
        None => Some(default),
        Some(field) => field.boolean(problems),
    };
    let (direct, read_only) = (flag("direct", true), flag("read_only", false));
    let cache = match section.take("cache") {
        None => Some(Cache::Writeback),
        Some(field) => field.word(problems).filter(|cache| {
            let contradicts = *cache == Cache::None && direct == Some(false);
            if contradicts {
                problems.at(field.place(), Reason::CacheNeedsDirect);
            }
            !contradicts
        }),
    };
    Some(File {
        path: path?,
        size: size?,
        block_size: block_size?,
        direct: direct?,
        read_only: read_only?,
        cache: cache?,
    })
}

pub(super) fn read_path(field: &Field<'_>, problems: &mut Problems) -> Option<PathBuf> {
    let path = field.string(problems)?;
    let reason = match path {
        "" => Reason::Empty,
        path if path.contains('\0') => Reason::NulInPath,
        path => return Some(PathBuf::from(path)),
    };
    problems.at(field.place(), reason);
    None
}
