//! The whole target as a configuration text makes it, in this process. No signals: those need a process of their own.

use std::path::{Path, PathBuf};
use std::thread;

use ringside::config::Config;
use ringside::target::Target;
use tempfile::TempDir;

use super::exposition::{self, Exposition};

/// A running target with its sockets in a directory of its own.
pub struct Running {
    dir: TempDir,
    target: Option<Target>,
}

impl Running {
    /// Starts what `text` makes of the directory for the sockets. Metrics are to listen on port 0.
    ///
    /// # Panics
    /// If the configuration is wrong, or the target does not start.
    #[must_use]
    pub fn start(text: impl FnOnce(&Path) -> String) -> Running {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::parse(&text(dir.path()), "test").unwrap_or_else(|problems| panic!("{problems}"));
        // On a thread of its own: starting moves the caller off the pollers' cores for good.
        let started = thread::spawn(move || Target::start(&config)).join().expect("no panic");
        let target = started.unwrap_or_else(|error| panic!("{error}"));
        Running { dir, target: Some(target) }
    }

    /// Where a file in the target's directory is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The target.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn target(&self) -> &Target {
        self.target.as_ref().expect("running")
    }

    /// Scrapes it.
    ///
    /// # Panics
    /// If the answer is not as it should be.
    #[must_use]
    pub fn scrape(&self) -> Exposition {
        exposition::scrape(self.target().metrics_addr())
    }

    /// Ends it in good order.
    pub fn stop(mut self) {
        self.target.take().expect("running").stop();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            target.stop();
        }
    }
}
