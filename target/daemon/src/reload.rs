//! A running target made into what another configuration says, as far as that can be while guests use it: logical units,
//! the block devices that they need, limits, how calls are coalesced, and who may see the metrics. What only a start can do is
//! refused before anything is touched.
//!
//! [`Reloader::reload`] first looks for what cannot be, then makes the block devices, and only then changes anything: up to
//! there a refusal leaves the target as it was. How a change reaches pollers and guests is `service.rs`; who asks for it is
//! `serve.rs`.

mod fixed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use vhost_user::Coalescing;
use virtio_scsi::{ChangeError, Limits, Release};

use crate::assemble;
use crate::bdevs::{AssembleError, Bdevs};
use crate::config::{self, Bdev, Config, Lun};
use crate::http::{Access, AccessError, Secrets};
use crate::service::{NetService, ScsiService};
use crate::spdk::Event;
use crate::target::warn;

/// Changes a running target.
pub struct Reloader {
    services: Vec<Arc<ScsiService>>,
    bdevs: Bdevs,
    access: Arc<Access>,
    state: Mutex<State>,
}

/// What the target is, after the changes so far.
struct State {
    /// What the configuration file says.
    wanted: Config,
    /// The same without what is not there.
    config: Config,
    /// Why block devices of SPDK's are waited for that it has: told once.
    refused: BTreeMap<String, String>,
    /// Until the end: what a port has lent to a device goes back before pollers end.
    nets: Vec<Arc<NetService>>,
    leaving: Vec<Leaving>,
}

/// A logical unit that was taken away, while its last requests end.
struct Leaving {
    controller: Arc<str>,
    address: (u8, u16),
    /// Its block device, and those below.
    bdevs: BTreeSet<String>,
    thread: JoinHandle<()>,
}

/// What is to be done to one controller.
struct Plan<'a> {
    service: &'a Arc<ScsiService>,
    gone: Vec<&'a Lun>,
    come: Vec<&'a Lun>,
    limits: Option<Limits>,
    coalescing: Option<Coalescing>,
}

/// What was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Logical units that came; one in the place of another counts here and in `removed`.
    pub added: usize,
    /// Logical units that went.
    pub removed: usize,
    /// Controllers with other limits.
    pub limits: usize,
    /// Controllers and net devices whose calls are coalesced otherwise.
    pub coalescing: usize,
}

/// Why a target stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Keys that only a start looks at: one line each, with the key, its new and its present value.
    #[error("{}", .0.join("; "))]
    Fixed(Vec<String>),
    /// A token or certificate of the HTTP port that cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A block device that cannot be made.
    #[error(transparent)]
    Bdev(#[from] AssembleError),
}

impl Reloader {
    /// For a target that was started with this configuration, as far as its block devices are there. The others are waited for from
    /// now on.
    #[must_use]
    pub fn new(
        config: Config,
        services: Vec<Arc<ScsiService>>,
        nets: Vec<Arc<NetService>>,
        bdevs: Bdevs,
        access: Arc<Access>,
    ) -> Reloader {
        bdevs.wait_for_the_rest(&config);
        let state = State {
            config: config.without(|name| !bdevs.has(name)),
            wanted: config,
            refused: BTreeMap::new(),
            nets,
            leaving: Vec::new(),
        };
        Reloader { services, bdevs, access, state: Mutex::new(state) }
    }

    /// Makes of the target what `config` says. Returns when it is so. A logical unit that takes the place, or the block
    /// device, of another waits until the last request of that one has ended.
    ///
    /// # Errors
    /// Something in it cannot be changed while the target runs, or a block device cannot be made. Nothing has changed then.
    pub fn reload(&self, config: &Config) -> Result<Changes, ReloadError> {
        let mut state = self.state.lock();
        let refused = fixed::differences(&state.config, config);
        if !refused.is_empty() {
            return Err(ReloadError::Fixed(refused));
        }
        let secrets = Secrets::read(&config.metrics)?;
        let changes = self.change(config, &mut state)?;
        self.access.replace(secrets);
        state.wanted = config.clone();
        self.bdevs.wait_for_the_rest(config);
        Ok(changes)
    }

    /// Makes block devices, logical units, limits and coalescing what `config` says, but for block devices that SPDK does not have,
    /// and logical units over them.
    fn change(&self, config: &Config, state: &mut State) -> Result<Changes, AssembleError> {
        self.bdevs.forget_unused(); // files among them could not be opened again
        let staged = self.bdevs.stage(config, |bdev| unchanged(bdev, &state.config, config))?;
        staged.made().for_each(warn);

        let config = &config.without(|name| !staged.has(name));
        let before = state.config.clone();
        let plans: Vec<Plan<'_>> = self.services.iter().filter_map(|service| plan(service, &before, config)).collect();
        state.leaving.retain(|leaving| !leaving.thread.is_finished());
        let mut changes = Changes::default();
        for plan in &plans {
            changes.removed += plan.gone.iter().filter(|lun| self.remove(plan.service, lun, state)).count();
        }
        self.bdevs.ensure(staged);
        for plan in &plans {
            if let Some(limits) = plan.limits {
                changes.limits += usize::from(done(plan.service, "limits", plan.service.set_limits(limits)));
            }
            if let Some(coalescing) = plan.coalescing {
                plan.service.set_coalescing(coalescing);
                changes.coalescing += 1;
            }
        }
        changes.coalescing += state.coalesce_nets(config);
        changes.added = self.add(&plans, config, state);
        self.bdevs.forget_unused();
        state.config = config.clone();
        Ok(changes)
    }

    /// Does to the target what has happened to a block device: one that was waited for comes, with the logical units over it;
    /// logical units over one that goes, go, too (R22), and it is as if the configuration did not have them; those over one
    /// that has grown or shrunk have another capacity.
    pub fn happened(&self, event: &Event) {
        let mut state = self.state.lock();
        match event {
            Event::Appeared { bdev } => self.appeared(bdev, &mut state),
            // Otherwise it is one that was there before, and SPDK has it again.
            Event::Removed { bdev } if self.bdevs.is_removed(bdev) => self.lose(bdev, &mut state),
            Event::Removed { .. } => {}
            Event::Resized { bdev, block_count } => {
                for (service, lun) in self.luns_over(bdev, &state.config) {
                    done(service, "resizing a LUN", service.resize_lun(lun.target, lun.lun, *block_count));
                }
            }
        }
    }

    fn lose(&self, bdev: &str, state: &mut State) {
        let config = state.config.clone();
        for (service, lun) in self.luns_over(bdev, &config) {
            self.remove(service, lun, state);
        }
        let over = |name: &str| config.chain(name).contains(bdev);
        self.bdevs.lose(config.bdevs.iter().map(|bdev| bdev.name.as_str()).filter(|name| over(name)));
        self.bdevs.forget_unused();
        state.config = config.without(over);
        self.bdevs.wait_for_the_rest(&state.wanted);
    }

    /// Others that are not there are not looked at: what is wrong with them is no reason to be without this one.
    fn appeared(&self, bdev: &str, state: &mut State) {
        if !self.bdevs.awaited().contains(bdev) {
            return;
        }
        let stays_away = |name: &str| state.config.bdev(name).is_none() && !state.wanted.chain(name).contains(bdev);
        let config = state.wanted.without(stays_away);
        match self.change(&config, state) {
            Ok(_) if !self.bdevs.has(bdev) => {} // gone again
            Ok(changes) => {
                state.refused.remove(bdev);
                tracing::info!(bdev, luns = changes.added, "SPDK has the bdev that was waited for");
                self.bdevs.wait_for_the_rest(&state.wanted);
            }
            Err(error) => state.refuse(bdev, error.to_string()),
        }
    }

    /// Logical units that stand on a block device, and who serves them.
    fn luns_over<'a>(&'a self, bdev: &str, config: &'a Config) -> Vec<(&'a Arc<ScsiService>, &'a Lun)> {
        let luns = self.services.iter().flat_map(|service| {
            let luns = config.controller(service.controller().name()).map_or(&[][..], |controller| &controller.luns);
            luns.iter().map(move |lun| (service, lun))
        });
        luns.filter(|(_, lun)| config.chain(&lun.bdev).contains(bdev)).collect()
    }

    /// Waits for what is under way. To be called when no connection is left.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.leaving.drain(..).for_each(Leaving::wait);
        state.nets.clear();
    }

    fn remove(&self, service: &ScsiService, lun: &Lun, state: &mut State) -> bool {
        let release = service.remove_lun(lun.target, lun.lun);
        let name = service.controller().name();
        match release {
            Ok(release) => {
                tracing::info!(controller = %name, target = lun.target, lun = lun.lun, "LUN removed");
                let bdevs = state.config.chain(&lun.bdev);
                state.leaving.extend(Leaving::begin(name, lun, bdevs, release, self.bdevs.clone()));
                true
            }
            Err(error) => done(service, "removing a LUN", Err(error)),
        }
    }

    /// First those that need not wait for another one to go. Returns their number.
    fn add(&self, plans: &[Plan<'_>], config: &Config, state: &mut State) -> usize {
        let come = plans.iter().flat_map(|plan| plan.come.iter().map(move |lun| (plan, *lun)));
        let (waiting, free): (Vec<_>, Vec<_>) = come.partition(|(plan, lun)| {
            let bdevs = config.chain(&lun.bdev);
            state.leaving.iter().any(|leaving| leaving.hinders(plan, lun, &bdevs))
        });
        let mut added = 0;
        for (plan, lun) in free.into_iter().chain(waiting) {
            let bdevs = config.chain(&lun.bdev);
            state.leaving.extract_if(.., |leaving| leaving.hinders(plan, lun, &bdevs)).for_each(Leaving::wait);
            let result = plan.service.add_lun(Arc::new(assemble::unit(lun, &self.bdevs)));
            if done(plan.service, "adding a LUN", result) {
                added += 1;
                let name = plan.service.controller().name();
                tracing::info!(controller = %name, target = lun.target, lun = lun.lun, bdev = %lun.bdev, "LUN added");
            }
        }
        added
    }
}

impl State {
    /// Says why a block device that SPDK has is not used, unless that was said.
    fn refuse(&mut self, bdev: &str, text: String) {
        if self.refused.get(bdev) != Some(&text) {
            tracing::error!("still waiting: {text}");
            self.refused.insert(bdev.to_owned(), text);
        }
    }

    /// Makes of the net devices what can be changed of them. Returns the number of those that change.
    fn coalesce_nets(&self, config: &Config) -> usize {
        let changed = self.nets.iter().filter_map(|service| {
            let net = config.net(&service.device().config().name)?;
            (service.coalescing() != net.coalescing).then(|| service.set_coalescing(net.coalescing))
        });
        changed.count()
    }
}

impl Leaving {
    /// Looks after the end of a logical unit on a thread of its own. `None` where there is no thread to be had: the next
    /// change finds what is left.
    fn begin(
        controller: &Arc<str>,
        lun: &Lun,
        chain: BTreeSet<String>,
        release: Release,
        bdevs: Bdevs,
    ) -> Option<Leaving> {
        let (name, target, number) = (Arc::clone(controller), lun.target, lun.lun);
        let end = move || {
            release.wait();
            bdevs.forget_unused();
            tracing::info!(controller = %name, target, lun = number, "LUN released: its last request has ended");
        };
        let thread = thread::Builder::new().name("ringside-unplug".into()).spawn(end);
        let thread = thread.inspect_err(|error| tracing::warn!(controller = %controller, "no thread: {error}")).ok()?;
        Some(Leaving { controller: Arc::clone(controller), address: (target, number), bdevs: chain, thread })
    }

    /// Whether a logical unit has to wait for this one: it takes its place or a block device of it.
    fn hinders(&self, plan: &Plan<'_>, lun: &Lun, bdevs: &BTreeSet<String>) -> bool {
        let same_place = self.controller == *plan.service.controller().name() && self.address == (lun.target, lun.lun);
        same_place || !self.bdevs.is_disjoint(bdevs)
    }

    fn wait(self) {
        let _ = self.thread.join(); // a panic in there has been told
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes { added, removed, limits, coalescing } = *self;
        if *self == Changes::default() {
            return f.write_str("nothing to change");
        }
        write!(f, "{added} LUNs added, {removed} removed, limits of {limits} controllers changed")?;
        write!(f, ", coalescing of {coalescing} devices changed")
    }
}

/// What a controller's part of the new configuration asks for; `None` if nothing.
fn plan<'a>(service: &'a Arc<ScsiService>, old: &'a Config, new: &'a Config) -> Option<Plan<'a>> {
    let name = service.controller().name();
    let (was, is) = (old.controller(name)?, new.controller(name)?);
    let same = |lun: &Lun, other: &Lun| {
        let bdev = new.bdev(&lun.bdev);
        lun == other && bdev.is_some_and(|bdev| unchanged(bdev, old, new))
    };
    let gone: Vec<&Lun> = was.luns.iter().filter(|lun| !is.luns.iter().any(|other| same(lun, other))).collect();
    let come: Vec<&Lun> = is.luns.iter().filter(|lun| !was.luns.iter().any(|other| same(lun, other))).collect();
    let limits = (was.limits != is.limits).then(|| assemble::limits(&is.limits));
    let coalescing = (was.coalescing != is.coalescing).then_some(is.coalescing);
    let any = !gone.is_empty() || !come.is_empty() || limits.is_some() || coalescing.is_some();
    any.then_some(Plan { service, gone, come, limits, coalescing })
}

/// Whether a block device of the new configuration is one of the old, with everything that it stands on.
fn unchanged(bdev: &Bdev, old: &Config, new: &Config) -> bool {
    let below = |base: &config::Name| new.bdev(base).is_some_and(|base| unchanged(base, old, new));
    old.bdev(&bdev.name) == Some(bdev) && bdev.kind.base().is_none_or(below)
}

/// A step of a change that was checked before: if it fails nevertheless, that is said, and the others go on.
fn done(service: &ScsiService, what: &str, result: Result<(), ChangeError>) -> bool {
    let told = result.inspect_err(|error| {
        tracing::error!(controller = %service.controller().name(), "{what}: {error}");
    });
    told.is_ok()
}

#[cfg(test)]
mod tests;
