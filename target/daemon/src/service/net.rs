//! What can happen to a net device while it is served: the link of its port goes down or comes up, and guests are told. Who
//! looks is `watch.rs`.

use super::NetService;

impl NetService {
    /// The configuration space is not what it was: tells front-ends that can be told (R18). Returns their number.
    pub fn config_changed(&self) -> usize {
        let live = self.stats.live.lock();
        live.iter().filter(|live| live.is_connected() && live.requests.config_changed()).count()
    }
}
