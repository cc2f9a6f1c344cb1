//! Where log lines go: standard error, filtered by `RINGSIDE_LOG`. Pollers write none.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Variable with the filter, in the syntax of tracing's `EnvFilter`: `info` (the default), `debug`,
/// `info,vhost_user=debug`.
pub const VARIABLE: &str = "RINGSIDE_LOG";

/// Starts logging. Does nothing if it has been started.
pub fn start() {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
