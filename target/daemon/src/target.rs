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
use crate::health::Health;
use crate::http::{self, Access, AccessError, Answers, HttpServer, Secrets};
use crate::metrics::{Exporter, Sources, Watched};
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
    bdevs: Bdevs,
    spdk: Spdk,
    reloader: Arc<Reloader>,
    events: Events,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
    http: HttpServer,
    watch: Watch,
    watched: Arc<Watched>,
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
        let access = Arc::new(Access::new(Secrets::read(&config.metrics)?));
        let listener = http::bind(config.metrics.listen).map_err(failed("metrics.listen"))?;
        let reactor = Reactor::start(&reactor_config(config)).map_err(failed("reactor.cores"))?;
        // Threads from here on inherit this: they keep off the pollers' cores where there are others.
        reactor::affinity::control_affinity(&config.reactor.cores).map_err(failed("reactor.cores"))?;
        spdk.join(reactor.pollers()).map_err(failed("spdk"))?;
        let (reports, faults) = channel::bounded(REPORTS_MAX);
        // What SPDK does not have yet comes later.
        let there = config.without(|name| !bdevs.has(name));
        let services = services(&there, &bdevs, &reactor, &reports);
        let uplinks = ports.plug_uplinks(reactor.pollers())?;
        let nets = nets(config, &ports, &reactor, &reports)?;
        let stop = Arc::new(Stop::new().map_err(failed("reactor"))?);
        let watched = Arc::new(Watched::default());
        let health = Arc::new(Health::new(reactor.pollers(), &services, &nets));
        let exporter = Exporter::new(Sources {
            controllers: services.clone(),
            nets: nets.clone(),
            health: Arc::clone(&health),
            bdevs: bdevs.clone(),
            ports: ports.clone(),
            watched: Arc::clone(&watched),
        });
        let answers = Answers { exporter, health: Arc::clone(&health), access: Arc::clone(&access) };
        let http = HttpServer::start(listener, answers).map_err(failed("metrics.listen"))?;
        let watch = Watch::start(faults, health, services.clone(), nets.clone()).map_err(failed("reactor"))?;
        let reloader = Arc::new(Reloader::new(config.clone(), services.clone(), nets.clone(), bdevs.clone(), access));
        let events = Events::start(events, Arc::clone(&reloader)).map_err(failed("reactor"))?;
        let mut target = Target {
            reactor,
            services,
            nets,
            uplinks,
            ports,
            bdevs,
            spdk,
            reloader,
            events,
            threads: Vec::new(),
            stop,
            http,
            watch,
            watched,
        };
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

    /// Its block devices.
    #[must_use]
    pub fn bdevs(&self) -> &Bdevs {
        &self.bdevs
    }

    /// What changes it while it runs.
    #[must_use]
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// What is counted of its being watched and changed.
    #[must_use]
    pub fn watched(&self) -> &Arc<Watched> {
        &self.watched
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
        service.opened();
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

impl From<AccessError> for StartError {
    fn from(error: AccessError) -> StartError {
        let (key, text) = error.into_parts();
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
        let service = Service::new(device, pollers(reactor, &controller.pollers), reports.clone());
        service.set_coalescing(controller.coalescing);
        Arc::new(service)
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
        let service = Service::new(Arc::new(device), pollers, reports.clone());
        service.set_coalescing(net.coalescing);
        Ok(Arc::new(service))
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
