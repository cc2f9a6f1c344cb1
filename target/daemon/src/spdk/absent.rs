//! What there is of SPDK in a program that was built without it: nothing.

use crossbeam::channel::Sender;
use reactor::PollerHandle;

use super::{Counts, Event, Memory, OpenError, Opened};
use crate::config::{self, Config};
use crate::ports::SharedEal;

/// SPDK, which is not there.
#[derive(Clone, Default)]
pub struct Spdk(());

/// A bdev of it, of which there is none.
pub enum Device {}

/// None.
#[must_use]
pub fn version() -> Option<String> {
    None
}

impl Spdk {
    /// Nothing to be started: the configuration was checked.
    ///
    /// # Errors
    /// Never.
    pub fn start(_: &Config, _: Option<SharedEal>, _: Sender<Event>) -> Result<Spdk, String> {
        Ok(Spdk(()))
    }

    /// Nothing to be polled.
    ///
    /// # Errors
    /// Never.
    pub fn join(&self, _: &[PollerHandle]) -> Result<(), String> {
        Ok(())
    }

    /// There is none.
    ///
    /// # Errors
    /// Always.
    pub fn open(&self, _: &str, _: &config::SpdkBdev) -> Result<Opened, OpenError> {
        Err(OpenError::Refused("this ringside was built without spdk".to_owned()))
    }

    /// Nobody comes.
    pub fn wait_for<'b>(&self, _: impl Iterator<Item = (&'b str, &'b config::SpdkBdev)>) {}

    /// None.
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        None
    }

    /// Nothing to be taken back.
    pub fn leave_pollers(&self) {}

    /// Nothing to be ended.
    pub fn stop(&self) {}
}

impl Device {
    /// None.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        match *self {}
    }

    /// None.
    #[must_use]
    pub fn counts(&self) -> Counts {
        match *self {}
    }
}
