//! A running target: pollers, ports, controllers, net devices and the exporter, started and stopped as a whole. Tests run it in their own
//! process; `serve.rs` adds signals.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Sender};
use guest_memory::Backing;
use reactor::{IdlePolicy, PollerHandle, Reactor, ReactorConfig};
use vhost_user::connection::Stop;
use vhost_user::{Device, RingReport};

use crate::assemble;
use crate::bdevs::{self, Bdevs};
use crate::config::{self, Config, Idle};
use crate::http::{self, HttpServer};
use crate::metrics::{Exporter, Sources};
use crate::ports::{OpenError, Ports, Uplinks};
use crate::reload::Reloader;
use crate::service::{NetService, ScsiService, Service, Socket};
use crate::spdk::{Events, Spdk};
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
    nets: Vec<Arc<NetService>>,
    uplinks: Uplinks,
    ports: Ports,
    spdk: Spdk,
    reloader: Arc<Reloader>,
    events: Events,
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
        // DPDK's environment first: SPDK stands on it, if it is there, and bdevs may be SPDK's.
        let (ports, eal) = Ports::open(config)?;
        let (happen, events) = channel::unbounded();
        let spdk = Spdk::start(config, eal, happen).map_err(failed("spdk"))?;
        let bdevs = Bdevs::build(config, spdk.clone()).map_err(failed("bdev"))?;
        bdevs.devices().iter().for_each(warn);
        let scsi_sockets = sockets("scsi", config.controllers.iter().map(|c| (&*c.socket, c.mode)))?;
        let net_sockets = sockets("net", config.nets.iter().map(|net| (&*net.socket, net.mode)))?;
        let listener = http::bind(config.metrics.listen).map_err(failed("metrics.listen"))?;
        let reactor = Reactor::start(&reactor_config(config)).map_err(failed("reactor.cores"))?;
        // Threads from here on inherit this: they keep off the pollers' cores where there are others.
        reactor::affinity::control_affinity(&config.reactor.cores).map_err(failed("reactor.cores"))?;
        spdk.join(reactor.pollers()).map_err(failed("spdk"))?;
        let (reports, faults) = channel::bounded(REPORTS_MAX);
        let services = services(config, &bdevs, &reactor, &reports);
        let uplinks = ports.plug_uplinks(reactor.pollers())?;
        let nets = nets(config, &ports, &reactor, &reports)?;
        let stop = Arc::new(Stop::new().map_err(failed("reactor"))?);
        let exporter = Exporter::new(Sources {
            controllers: services.clone(),
            nets: nets.clone(),
            pollers: reactor.pollers().to_vec(),
            bdevs: bdevs.clone(),
            ports: ports.clone(),
        });
        let http = HttpServer::start(listener, exporter).map_err(failed("metrics.listen"))?;
        let watch = Watch::start(faults, services.clone(), nets.clone()).map_err(failed("reactor"))?;
        let reloader = Arc::new(Reloader::new(config.clone(), services.clone(), bdevs));
        let events = Events::start(events, Arc::clone(&reloader)).map_err(failed("reactor"))?;
        let threads = Vec::new();
        let mut target =
            Target { reactor, services, nets, uplinks, ports, spdk, reloader, events, threads, stop, http, watch };
        for (index, socket) in scsi_sockets.into_iter().enumerate() {
            let service = Arc::clone(&target.services[index]);
            target.serve(service, socket).map_err(failed(&format!("scsi[{index}]")))?;
        }
        for (index, socket) in net_sockets.into_iter().enumerate() {
            let service = Arc::clone(&target.nets[index]);
            target.serve(service, socket).map_err(failed(&format!("net[{index}]")))?;
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

    /// The net devices' services, in the order of the configuration.
    #[must_use]
    pub fn nets(&self) -> &[Arc<NetService>] {
        &self.nets
    }

    /// What changes it while it runs.
    #[must_use]
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Ends it: front-ends are disconnected, requests in flight are waited for, net devices give their queues back, then
    /// pollers and ports end.
    pub fn stop(mut self) {
        self.stop.request();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.events.stop();
        self.reloader.stop();
        self.http.stop();
        self.watch.stop();
        // Nobody else has them any more: what a port lent to a device goes back while the pollers still run.
        drop(self.nets);
        drop(self.uplinks);
        self.spdk.leave_pollers();
        drop(self.reactor.shutdown());
        drop(self.services);
        self.spdk.stop();
        drop(self.ports);
    }

    fn serve<D: Device>(&mut self, service: Arc<Service<D>>, socket: Socket) -> std::io::Result<()> {
        let stop = Arc::clone(&self.stop);
        let name = format!("accept-{}", service.device().name());
        self.threads.push(thread::Builder::new().name(name).spawn(move || service.run(socket, &stop))?);
        Ok(())
    }
}

impl From<OpenError> for StartError {
    fn from(OpenError { key, text }: OpenError) -> StartError {
        StartError { key, text }
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

fn sockets<'c>(
    section: &str,
    sockets: impl Iterator<Item = (&'c Path, config::Mode)>,
) -> Result<Vec<Socket>, StartError> {
    let open = |(index, (path, mode))| Socket::open(path, mode).map_err(failed(&format!("{section}[{index}].socket")));
    sockets.enumerate().map(open).collect()
}

/// The pollers on these cores, in their order.
fn pollers(reactor: &Reactor, cores: &[usize]) -> Vec<PollerHandle> {
    let on = |core: &usize| reactor.pollers().iter().find(|poller| poller.core() == *core).cloned();
    cores.iter().filter_map(on).collect()
}

fn services(config: &Config, bdevs: &Bdevs, reactor: &Reactor, reports: &Sender<RingReport>) -> Vec<Arc<ScsiService>> {
    let service = |controller: &config::Controller| {
        let device = Arc::new(assemble::controller(controller, bdevs));
        Arc::new(Service::new(device, pollers(reactor, &controller.pollers), reports.clone()))
    };
    config.controllers.iter().map(service).collect()
}

fn nets(
    config: &Config,
    ports: &Ports,
    reactor: &Reactor,
    reports: &Sender<RingReport>,
) -> Result<Vec<Arc<NetService>>, StartError> {
    let service = |(index, net): (usize, &config::Net)| {
        let pollers = pollers(reactor, &net.pollers);
        let device = assemble::net(net, ports, &pollers).map_err(failed(&format!("net[{index}]")))?;
        Ok(Arc::new(Service::new(Arc::new(device), pollers, reports.clone())))
    };
    config.nets.iter().enumerate().map(service).collect()
}

/// Says what the operator should know of a block device that was made.
pub(crate) fn warn(device: &bdevs::Device) {
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
