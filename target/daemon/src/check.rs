//! `ringside check`: the resolved configuration, what an operator should know about it, and what of it this host does
//! not allow. What is wrong in the text itself has been found by [`config`](crate::config) before.

mod host;
mod notes;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

pub use self::host::{HostError, host_errors, host_notes};
pub use self::notes::{Note, exposure, notes};

use crate::config::Config;

/// Writes the resolved configuration as TOML, these notes as comments behind it, so that the whole can be read back.
///
/// # Errors
/// The output cannot be written.
pub fn print(config: &Config, notes: &[Note], out: &mut impl Write) -> io::Result<()> {
    out.write_all(config.to_toml().as_bytes())?;
    if !notes.is_empty() {
        writeln!(out)?;
    }
    notes.iter().try_for_each(|note| writeln!(out, "# note: {note}"))
}
