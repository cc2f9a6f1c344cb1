//! The directory for the sockets of a run without a configuration file. Sockets of a configuration file are where the
//! file says.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A directory that must not be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// It could not be made or looked at.
    #[error("--run-dir {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is a file or a symbolic link of that name.
    #[error("--run-dir {}: must be a directory, and no symbolic link", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else made it first.
    #[error("--run-dir {}: belongs to user {owner}, must belong to user {user}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The user it belongs to.
        owner: u32,
        /// The user that this process runs as.
        user: u32,
    },
}

/// The default: works for root and for everybody else, and is the same for `serve` and `qemu-args`.
pub fn default_path() -> String {
    format!("/tmp/ringside-{}", rustix::process::getuid().as_raw())
}

/// Makes sure that `path` is a directory of this user. One that is made here is closed to others: whoever can connect
/// to a socket in it can read and write the disks.
///
/// # Errors
/// It cannot be made, is no directory, or belongs to somebody else (who could swap the sockets in it).
pub fn prepare(path: &Path) -> Result<(), RunDirError> {
    let failed = |source| RunDirError::Io { path: path.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = path.symlink_metadata().map_err(failed)?;
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if !found.is_dir() {
        Err(RunDirError::NotADirectory { path: path.to_owned() })
    } else if owner != user {
        Err(RunDirError::Foreign { path: path.to_owned(), owner, user })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn run_dir_that_is_missing_is_made_for_this_user_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        prepare(&path).unwrap();
    }

    #[test]
    fn run_dir_that_is_a_link_or_a_file_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (file, link) = (parent.path().join("file"), parent.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink(parent.path(), &link).unwrap();
        for path in [&file, &link] {
            let error = prepare(path).unwrap_err().to_string();
            assert_eq!(error, format!("--run-dir {}: must be a directory, and no symbolic link", path.display()));
        }
    }

    #[test]
    fn run_dir_without_a_parent_names_the_path() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("no/such");
        let error = prepare(&path).unwrap_err().to_string();
        assert_eq!(error, format!("--run-dir {}: No such file or directory (os error 2)", path.display()));
    }
}
