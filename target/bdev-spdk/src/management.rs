//! SPDK as a whole: its environment, the thread that manages it, and the SPDK threads of pollers.

use std::fs;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use guest_memory::{free_huge_bytes, observe_mappings};
use parking_lot::Mutex;
use reactor::{PollerHandle, SourceHandle};
use spdk_rs::{Env, EnvConfig, Part, Rpc, Subsystems, Thread, poll_others};

use crate::awaited::{Awaited, Looked, Waiting};
use crate::bdev::Shared;
use crate::config::{Environment, SpdkConfig, SpdkError};
use crate::memory::{Memory, MemoryCounts};
use crate::poller::SpdkPoller;

/// SPDK, running. It is to be [stopped](Spdk::stop) when every channel is closed.
pub struct Spdk {
    env: Env,
    /// None once it was stopped.
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    opened: Mutex<Vec<Weak<Shared>>>,
    pollers: Mutex<Vec<SourceHandle<SpdkPoller>>>,
    memory: Arc<Memory>,
    events: Arc<Events>,
    waiting: Arc<Waiting>,
}

/// What happens to a bdev, as whoever serves it has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BdevEvent {
    /// One that is [waited for](Spdk::wait_for) is there. It is told again as long as it is in the list.
    Appeared,
    /// It goes, as soon as its device is dropped. Every request to it fails from now on.
    Removed,
    /// It has so many blocks now.
    Resized {
        /// How many.
        block_count: u64,
    },
}

type Job = Box<dyn FnOnce(&Thread) + Send>;
pub(crate) type Events = dyn Fn(&str, BdevEvent) + Send + Sync;

impl Spdk {
    /// Starts SPDK on a thread of its own, and with it the bdevs of the configuration. `events` hears there of what happens to the
    /// bdevs that are open, or waited for, by the name of the device; it must not wait, and not call this.
    ///
    /// Mappings of guest memory from before this are not known to SPDK.
    ///
    /// # Errors
    /// See [`SpdkError`]. It cannot be tried again in this process.
    pub fn start(
        config: &SpdkConfig,
        environment: Environment,
        events: impl Fn(&str, BdevEvent) + Send + Sync + 'static,
    ) -> Result<Spdk, SpdkError> {
        let parts = parts(config)?;
        let (jobs, received) = mpsc::channel();
        let (started, answer) = mpsc::channel();
        let config = config.clone();
        let events: Arc<Events> = Arc::new(events);
        let waiting = Arc::new(Waiting::new(Arc::clone(&events)));
        let awaited = Arc::clone(&waiting);
        let thread = thread::Builder::new()
            .name("ringside-spdk".into())
            .spawn(move || match Management::start(&config, environment, &parts) {
                Ok((env, management)) => {
                    let _ = started.send(Ok(env));
                    management.run(&received, &awaited);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })
            .map_err(SpdkError::Spawn)?;
        let env = answer.recv().map_err(|_| SpdkError::Ended)??;
        let memory = Arc::new(Memory::new(env));
        observe_mappings(&memory);
        Ok(Spdk {
            env,
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            opened: Mutex::default(),
            pollers: Mutex::default(),
            memory,
            events,
            waiting,
        })
    }

    /// Gives a poller its SPDK thread, which it polls from now on.
    ///
    /// # Errors
    /// SPDK has no memory for it, or the poller has ended.
    pub fn join(&self, poller: &PollerHandle) -> Result<(), SpdkError> {
        let source = poller.add(SpdkPoller::new(format!("ringside-p{}", poller.core())));
        let env = self.env;
        source.call(move |source| source.enter(env)).map_err(|_| SpdkError::Ended)??;
        self.pollers.lock().push(source);
        Ok(())
    }

    /// Has SPDK looked after for these bdevs, and no others, until the list is another one. What is there is told as
    /// [`BdevEvent::Appeared`].
    pub fn wait_for(&self, awaited: Vec<Awaited>) {
        self.waiting.set(awaited);
    }

    /// Runs `work` on the thread that manages SPDK, and waits for it.
    ///
    /// # Errors
    /// [`SpdkError::Ended`].
    pub(crate) fn manage<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Thread) -> T + Send + 'static,
    ) -> Result<T, SpdkError> {
        let (answer, answered) = mpsc::channel();
        let job = Box::new(move |thread: &Thread| drop(answer.send(work(thread))));
        let sent = self.jobs.lock().as_ref().map(|jobs| jobs.send(job));
        sent.ok_or(SpdkError::Ended)?.map_err(|_| SpdkError::Ended)?;
        answered.recv().map_err(|_| SpdkError::Ended)
    }

    /// Remembers a device that is to be closed at the end, whoever holds it then.
    pub(crate) fn opened(&self, device: &Arc<Shared>) {
        let mut opened = self.opened.lock();
        opened.retain(|other| other.strong_count() > 0);
        opened.push(Arc::downgrade(device));
    }

    pub(crate) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
    }

    pub(crate) fn events(&self) -> Arc<Events> {
        Arc::clone(&self.events)
    }

    /// The token that SPDK runs: for SPDK threads of one's own.
    #[must_use]
    pub fn env(&self) -> Env {
        self.env
    }

    /// How much memory of front-ends is mapped, and how much of it SPDK knows.
    #[must_use]
    pub fn memory_counts(&self) -> MemoryCounts {
        self.memory.counts()
    }

    /// Takes the SPDK threads of pollers back. The pollers still run, and channels on them have been dropped.
    pub fn leave_pollers(&self) {
        for source in self.pollers.lock().drain(..) {
            let _ = source.call(SpdkPoller::leave);
            let _ = source.remove();
        }
    }

    /// Ends SPDK, with what devices are still open: nobody has a channel of one any more. Once is enough.
    pub fn stop(&self) {
        self.leave_pollers();
        self.opened.lock().drain(..).filter_map(|device| device.upgrade()).for_each(|device| device.close());
        drop(self.jobs.lock().take());
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that manages SPDK has panicked");
        }
    }
}

impl Drop for Spdk {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What lives on the thread that manages SPDK; it ends from the top down.
struct Management {
    rpc: Option<Rpc>,
    subsystems: Subsystems,
    thread: Thread,
}

impl Management {
    fn start(config: &SpdkConfig, environment: Environment, parts: &[Part]) -> Result<(Env, Management), SpdkError> {
        if let Err(error) = reactor::affinity::control_affinity(&config.poller_cores) {
            tracing::warn!("the thread that manages SPDK: {error}");
        }
        let env = start_environment(config, environment)?;
        tracing::info!(version = spdk_rs::version(), "starting SPDK");
        let thread = Thread::create(env, "ringside-spdk")?;
        let subsystems = Subsystems::start(&thread, parts)?;
        let path = config.rpc_socket.as_ref().map(|path| path.to_string_lossy().into_owned());
        let rpc = path.map(|path| subsystems.serve_rpc(&path)).transpose()?;
        Ok((env, Management { rpc, subsystems, thread }))
    }

    /// Polls SPDK and does what is asked for, until nobody can ask any more.
    fn run(self, jobs: &Receiver<Job>, waiting: &Waiting) {
        let mut looked = Looked::default();
        let mut rest = REST_MIN;
        loop {
            let busy = self.thread.poll() | poll_others(&self.thread);
            waiting.look(&self.thread, &mut looked);
            let job = if busy {
                rest = REST_MIN;
                jobs.try_recv().map_err(|error| error == TryRecvError::Disconnected)
            } else {
                let job = jobs.recv_timeout(self.until_due(rest));
                rest = (2 * rest).min(REST_MAX);
                job.map_err(|error| error == RecvTimeoutError::Disconnected)
            };
            match job {
                Ok(job) => {
                    rest = REST_MIN;
                    job(&self.thread);
                }
                Err(true) => break,
                Err(false) => {}
            }
        }
        drop(self.rpc);
        drop(self.subsystems);
        drop(self.thread);
        tracing::info!("SPDK has ended");
    }

    /// As long as that, or until something is to be done by the clock.
    fn until_due(&self, rest: Duration) -> Duration {
        let per_second = self.thread.env().ticks_per_second();
        let due = self.thread.next_expiration().map(|ticks| Duration::from_secs_f64(ticks as f64 / per_second as f64));
        due.map_or(rest, |due| due.clamp(REST_MIN, rest.max(REST_MIN)))
    }
}

/// The configuration of SPDK's subsystems and bdevs: first the file, which the rest may stand on.
fn parts(config: &SpdkConfig) -> Result<Vec<Part>, SpdkError> {
    let file = config.config.iter().map(|path| {
        let json = fs::read(path).map_err(|source| SpdkError::Config { path: path.clone(), source })?;
        Ok(Part { name: format!("config {path:?}"), json })
    });
    file.chain(config.inline.iter().cloned().map(Ok)).collect()
}

/// Messages of SPDK's do not wake the thread that manages it: it looks for them, first so often, and the longer nothing has
/// happened the more seldom. Each look costs the core that it happens on some 20 us.
const REST_MIN: Duration = Duration::from_micros(100);
const REST_MAX: Duration = Duration::from_millis(10);

fn start_environment(config: &SpdkConfig, environment: Environment) -> Result<Env, SpdkError> {
    match environment {
        Environment::Own => Ok(Env::start(&own_environment(config))?),
        #[cfg(feature = "libdpdk")]
        Environment::Shared(eal, legacy_memory) => {
            let _: dpdk::Eal = eal;
            #[expect(unsafe_code, reason = "the token says that EAL runs")]
            // SAFETY: EAL has started: there is no token otherwise; and build.rs has compared the versions.
            let env = unsafe { Env::adopt(legacy_memory) }?;
            Ok(env)
        }
    }
}

fn own_environment(config: &SpdkConfig) -> EnvConfig {
    let free_mib = free_huge_bytes() >> 20;
    let wanted_mib = config.memory_mib.unwrap_or(MEMORY_MIB);
    let no_huge = config.ordinary_memory || free_mib < u64::from(wanted_mib);
    if no_huge && !config.ordinary_memory {
        tracing::warn!(
            free_mib,
            wanted_mib,
            "not enough free hugepages for SPDK: it uses ordinary pages, which no device can reach without an IOMMU"
        );
    }
    EnvConfig {
        memory_mib: (no_huge || config.memory_mib.is_some()).then_some(wanted_mib),
        no_huge,
        no_pci: config.pci.is_empty(),
        cores: reactor::affinity::allowed().unwrap_or_default(),
        arguments: config.pci.iter().map(|address| format!("--allow={address}")).collect(),
    }
}

/// What SPDK's pools take by default, and room for a few small bdevs.
const MEMORY_MIB: u32 = 512;
