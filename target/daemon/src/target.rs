//! A running target: pollers, controllers and the exporter, started and stopped as a whole. Tests run it in their own
//! process; `serve.rs` adds signals.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Sender};
use guest_memory::Backing;
use reactor::{IdlePolicy, Reactor, ReactorConfig};
use vhost_user::RingReport;
use vhost_user::connection::Stop;

use crate::assemble;
use crate::bdevs::{Bdevs, Device};
use crate::config::{Config, Idle};
use crate::http::{self, HttpServer};
use crate::metrics::Exporter;
use crate::reload::Reloader;
use crate::service::{ScsiService, Socket};
use crate::watch::Watch;

/// Faults that wait to be logged, at most; more are only counted.
const REPORTS_MAX: usize = 256;

/// Why a target does not start. Every text names the key of the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {text}")]
pub struct StartError {
    key: String,
    text: String,
}

/// A running target.
pub struct Target {
    reactor: Reactor,
    services: Vec<Arc<ScsiService>>,
    reloader: Arc<Reloader>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
    http: HttpServer,
    watch: Watch,
}

impl Target {
    /// Starts everything that the configuration says. When this returns, sockets and metrics answer.
    ///
    /// # Errors
    /// The first thing that does not work; whatever was started before it is gone again.
    pub fn start(config: &Config) -> Result<Target, StartError> {
        let bdevs = Bdevs::build(config).map_err(failed("bdev"))?;
        bdevs.devices().iter().for_each(warn);
        let sockets = open_sockets(config)?;
        let listener = http::bind(config.metrics.listen).map_err(failed("metrics.listen"))?;
        let reactor = Reactor::start(&reactor_config(config)).map_err(failed("reactor.cores"))?;
        // Threads from here on inherit this: they keep off the pollers' cores where there are others.
        reactor::affinity::control_affinity(&config.reactor.cores).map_err(failed("reactor.cores"))?;
        let (reports, faults) = channel::bounded(REPORTS_MAX);
        let services = services(config, &bdevs, &reactor, &reports);
        let stop = Arc::new(Stop::new().map_err(failed("reactor"))?);
        let exporter = Exporter::new(services.clone(), reactor.pollers().to_vec(), &bdevs);
        let http = HttpServer::start(listener, exporter).map_err(failed("metrics.listen"))?;
        let watch = Watch::start(faults, services.clone()).map_err(failed("reactor"))?;
        let reloader = Arc::new(Reloader::new(config.clone(), services.clone(), bdevs));
        let mut target = Target { reactor, services, reloader, threads: Vec::new(), stop, http, watch };
        for (index, socket) in sockets.into_iter().enumerate() {
            target.serve(index, socket).map_err(failed(&format!("scsi[{index}]")))?;
        }
        Ok(target)
    }

    /// Where the metrics are.
    #[must_use]
    pub fn metrics_addr(&self) -> SocketAddr {
        self.http.addr()
    }

    /// The controllers' services, in the order of the configuration.
    #[must_use]
    pub fn services(&self) -> &[Arc<ScsiService>] {
        &self.services
    }

    /// What changes it while it runs.
    #[must_use]
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Ends it: front-ends are disconnected, requests in flight are waited for, then the pollers end.
    pub fn stop(mut self) {
        self.stop.request();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.reloader.stop();
        self.http.stop();
        drop(self.reactor.shutdown());
        drop(self.services);
        self.watch.stop();
    }

    fn serve(&mut self, index: usize, socket: Socket) -> std::io::Result<()> {
        let (service, stop) = (Arc::clone(&self.services[index]), Arc::clone(&self.stop));
        let name = format!("accept-{}", service.controller().name());
        self.threads.push(thread::Builder::new().name(name).spawn(move || service.run(socket, &stop))?);
        Ok(())
    }
}

fn failed<E: std::fmt::Display>(key: &str) -> impl FnOnce(E) -> StartError {
    let key = key.to_owned();
    move |error| StartError { key, text: error.to_string() }
}

fn reactor_config(config: &Config) -> ReactorConfig {
    let idle = match config.reactor.idle {
        Idle::Busy => IdlePolicy::Busy,
        Idle::Adaptive => IdlePolicy::Adaptive,
    };
    ReactorConfig { cores: config.reactor.cores.clone(), idle }
}

fn open_sockets(config: &Config) -> Result<Vec<Socket>, StartError> {
    let open = |(index, controller): (usize, &crate::config::Controller)| {
        Socket::open(&controller.socket, controller.mode).map_err(failed(&format!("scsi[{index}].socket")))
    };
    config.controllers.iter().enumerate().map(open).collect()
}

fn services(config: &Config, bdevs: &Bdevs, reactor: &Reactor, reports: &Sender<RingReport>) -> Vec<Arc<ScsiService>> {
    let service = |controller: &crate::config::Controller| {
        let on = |core: &usize| reactor.pollers().iter().find(|poller| poller.core() == *core).cloned();
        let pollers = controller.pollers.iter().filter_map(on).collect();
        Arc::new(ScsiService::new(Arc::new(assemble::controller(controller, bdevs)), pollers, reports.clone()))
    };
    config.controllers.iter().map(service).collect()
}

/// Says what the operator should know of a block device that was made.
pub(crate) fn warn(device: &Device) {
    let name = &bdev::Bdev::info(&*device.bdev).name;
    if device.backing == Some(Backing::Plain) {
        tracing::warn!(
            bdev = %name,
            "not enough free huge pages: the disk is in ordinary memory, which is slower \
             (scripts/setup.sh --only hugepages, or raise vm.nr_hugepages)"
        );
    }
    for note in device.file.iter().flat_map(|file| file.notes()) {
        tracing::warn!(bdev = %name, "{note}");
    }
}
