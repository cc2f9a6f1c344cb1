//! `ringside serve`: the target in the foreground, and what signals do to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

use anyhow::Context;
use crossbeam::channel::{Sender, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::check;
use crate::config::{Config, LoadError};
use crate::metrics::Watched;
use crate::reload::Reloader;
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

/// Runs the target until SIGTERM or SIGINT, then drains it. A second signal ends the process at once. SIGHUP makes it what
/// `read` then says, as far as that can be while it runs.
///
/// # Errors
/// If the target does not start.
pub fn run(config: &Config, read: impl Fn() -> Result<Config, LoadError> + Send + 'static) -> Result<(), ServeError> {
    // Registered first, so that no signal is missed. In this order: the first signal sets the flag, the second one
    // finds it set and ends the process.
    let draining = Arc::new(AtomicBool::new(false));
    let mut signals = signals(&draining).context("signals")?;
    let target = Target::start(config)?;
    let reloads = Reloads::start(Arc::clone(target.reloader()), Arc::clone(target.watched()), read)
        .context("the thread for SIGHUP")?;
    announce(config, &target);
    for signal in signals.forever() {
        if signal == SIGHUP {
            reloads.request();
            continue;
        }
        tracing::info!("draining: requests in flight end, then the target exits; a second signal exits at once");
        break;
    }
    target.stop();
    reloads.stop();
    tracing::info!("drained");
    Ok(())
}

/// The thread that reads the configuration anew: that may have to wait for requests in flight, and the next signal must not.
struct Reloads {
    requests: Sender<()>,
    thread: JoinHandle<()>,
}

impl Reloads {
    fn start(
        reloader: Arc<Reloader>,
        watched: Arc<Watched>,
        read: impl Fn() -> Result<Config, LoadError> + Send + 'static,
    ) -> io::Result<Reloads> {
        // One that waits is enough: it reads what is there when its turn comes.
        let (requests, received) = bounded(1);
        let thread = thread::Builder::new().name("ringside-reload".into()).spawn(move || {
            received.into_iter().for_each(|()| watched.reloaded(reload(&reloader, read())));
        })?;
        Ok(Reloads { requests, thread })
    }

    fn request(&self) {
        let _ = self.requests.try_send(());
    }

    fn stop(self) {
        drop(self.requests);
        let _ = self.thread.join();
    }
}

/// Whether the target is now as the configuration says.
fn reload(reloader: &Reloader, config: Result<Config, LoadError>) -> bool {
    let done = config
        .map_err(|error| error.to_string())
        .and_then(|config| reloader.reload(&config).map_err(|error| error.to_string()));
    match &done {
        Err(error) => tracing::error!("SIGHUP: nothing is changed: {error}"),
        Ok(changes) => tracing::info!("SIGHUP: {changes}"),
    }
    done.is_ok()
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
    for controller in &config.without(|name| !target.bdevs().has(name)).controllers {
        tracing::info!(
            controller = %controller.name,
            "serving {} LUNs on {} with pollers on cores {:?}",
            controller.luns.len(), controller.socket.display(), controller.pollers
        );
    }
    for net in &config.nets {
        tracing::info!(
            controller = %net.name,
            "serving port {} on {} with pollers on cores {:?}", net.port, net.socket.display(), net.pollers
        );
    }
    let scheme = if config.metrics.tls.is_some() { "https" } else { "http" };
    tracing::info!("metrics: {scheme}://{}/metrics", target.metrics_addr());
    if let Some(text) = check::exposure(&config.metrics) {
        tracing::warn!("metrics.listen: {text}");
    }
    tracing::info!("ready");
}
