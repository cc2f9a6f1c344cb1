//! `ringside serve`: the target in the foreground, and what signals do to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::config::Config;
use crate::target::{StartError, Target};

/// Exit status when a second signal cuts the draining short.
const CUT_SHORT: i32 = 1;

/// How serving ended before it began.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration does not fit this host: exit status 2.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Runs the target until SIGTERM or SIGINT, then drains it. A second signal ends the process at once.
///
/// # Errors
/// If the target does not start.
pub fn run(config: &Config) -> Result<(), ServeError> {
    // Registered first, so that no signal is missed. In this order: the first signal sets the flag, the second one
    // finds it set and ends the process.
    let draining = Arc::new(AtomicBool::new(false));
    let mut signals = signals(&draining).context("signals")?;
    let target = Target::start(config)?;
    announce(config, &target);
    for signal in signals.forever() {
        if signal == SIGHUP {
            tracing::warn!("SIGHUP: the configuration is read at the start only in this version");
            continue;
        }
        tracing::info!("draining: requests in flight end, then the target exits; a second signal exits at once");
        break;
    }
    target.stop();
    tracing::info!("drained");
    Ok(())
}

fn signals(draining: &Arc<AtomicBool>) -> io::Result<Signals> {
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, CUT_SHORT, Arc::clone(draining))?;
        flag::register(signal, Arc::clone(draining))?;
    }
    // A write beyond RLIMIT_FSIZE is an error of that write (EFBIG), not the end of the process.
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Signals::new([SIGTERM, SIGINT, SIGHUP])
}

fn announce(config: &Config, target: &Target) {
    for controller in &config.controllers {
        tracing::info!(
            controller = %controller.name,
            "serving {} LUNs on {} with pollers on cores {:?}",
            controller.luns.len(), controller.socket.display(), controller.pollers
        );
    }
    tracing::info!("metrics: http://{}/metrics", target.metrics_addr());
    tracing::info!("ready");
}
