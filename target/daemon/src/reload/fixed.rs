//! What of a configuration only a start looks at: found here, told with the key, and refused by `reload.rs`.

use std::fmt::Debug;

use crate::config::{Config, Controller};

/// Every difference that cannot be made while the target runs: a text with key, new and present value.
pub(super) fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Differences(Vec::new());
    found.value("reactor.cores", &old.reactor.cores, &new.reactor.cores);
    found.value("reactor.idle", &old.reactor.idle.as_str(), &new.reactor.idle.as_str());
    found.value("metrics.listen", &old.metrics.listen, &new.metrics.listen);
    if found.0.is_empty() {
        found.rest("reactor", &old.reactor, &new.reactor);
        found.rest("metrics", &old.metrics, &new.metrics);
    }
    for (index, controller) in new.controllers.iter().enumerate() {
        match old.controller(&controller.name) {
            Some(before) => found.controller(index, before, controller),
            None => found.0.push(format!(
                "scsi[{index}].name = \"{}\": the running target has no such controller; {RESTART}",
                controller.name
            )),
        }
    }
    for controller in old.controllers.iter().filter(|controller| new.controller(&controller.name).is_none()) {
        found.0.push(format!("scsi: the controller \"{}\" is missing; {RESTART}", controller.name));
    }
    found.0
}

struct Differences(Vec<String>);

impl Differences {
    fn controller(&mut self, index: usize, old: &Controller, new: &Controller) {
        let before = self.0.len();
        let key = |name: &str| format!("scsi[{index}].{name}");
        self.value(&key("socket"), &old.socket, &new.socket);
        self.value(&key("mode"), &old.mode.as_str(), &new.mode.as_str());
        self.value(&key("queues"), &old.queues, &new.queues);
        self.value(&key("queue_size_max"), &old.queue_size_max, &new.queue_size_max);
        self.value(&key("pollers"), &old.pollers, &new.pollers);
        if self.0.len() == before {
            let with = Controller { limits: new.limits, luns: new.luns.clone(), ..old.clone() };
            self.rest(&format!("scsi[{index}]"), &with, new);
        }
    }

    fn value<T: PartialEq + Debug>(&mut self, key: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(format!("{key} = {new:?}: is {old:?} in the running target; {RESTART}"));
        }
    }

    /// Differences in something that has no text of its own above.
    fn rest<T: PartialEq>(&mut self, section: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(format!("{section}: differs from the running target in more than LUNs and limits; {RESTART}"));
        }
    }
}

const RESTART: &str = "that takes a restart";
