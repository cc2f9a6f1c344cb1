//! The same frames as both sides count them. Frames are compared when traffic has stopped: until then some are on their way.

use std::time::Duration;

use super::driver::Testpmd;
use crate::process::until;
use crate::ringside::Ringside;

/// For what follows at once from something that has been seen.
pub const SOON: Duration = Duration::from_secs(20);

/// Frames of a net device and of the port behind it as the target counts them: `tx` is what the driver sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub tx: u64,
    pub tx_drops: u64,
    pub rx: u64,
    pub rx_drops: u64,
    pub port_tx: u64,
    pub port_rx: u64,
    pub port_drops: u64,
}

impl Counts {
    pub fn of(ringside: &Ringside, device: &str) -> Counts {
        let metrics = ringside.metrics();
        let sum = |name: &str, direction: &[(&str, &str)]| {
            let labels: Vec<_> = [("device", device)].iter().chain(direction).copied().collect();
            metrics.sum(name, &labels) as u64
        };
        let (tx, rx) = ([("direction", "tx")], [("direction", "rx")]);
        Counts {
            tx: sum("ringside_net_frames_total", &tx),
            tx_drops: sum("ringside_net_drops_total", &tx),
            rx: sum("ringside_net_frames_total", &rx),
            rx_drops: sum("ringside_net_drops_total", &rx),
            port_tx: sum("ringside_port_frames_total", &tx),
            port_rx: sum("ringside_port_frames_total", &rx),
            port_drops: sum("ringside_port_drops_total", &[]),
        }
    }

    /// Waits until the counters are as they should be, and returns them.
    ///
    /// # Panics
    /// If they do not become so: with what they are.
    pub fn until(ringside: &Ringside, device: &str, what: &str, right: impl Fn(&Counts) -> bool) -> Counts {
        let mut last = None;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, SOON, || {
                let counts = Counts::of(ringside, device);
                last = Some(counts);
                right(&counts).then_some(counts)
            })
        }));
        found.unwrap_or_else(|_| panic!("{what}: never; the last that {device} counted is {last:?}"))
    }
}

/// Waits until the target has seen all that testpmd, which has stopped, has sent since `before`, and says what it made of it.
pub fn all_sent(ringside: &Ringside, device: &str, sent: u64) -> Counts {
    Counts::until(ringside, device, &format!("all {sent} frames are seen"), |counts| {
        counts.tx + counts.tx_drops == sent
    })
}

/// Of a net device whose port gives everything back: waits until all that testpmd, which has stopped, has sent went out and
/// came back as far as it was not dropped, and until testpmd has taken it, and has all of it.
pub fn all_back(ringside: &Ringside, testpmd: &mut Testpmd, device: &str) -> Counts {
    let before = all_sent(ringside, device, testpmd.xstats(0).sent());
    let counts = Counts::until(ringside, device, "everything comes back or is counted as lost", |counts| {
        counts.port_rx + counts.port_drops == before.tx && counts.rx + counts.rx_drops == counts.port_rx
    });
    all_received(testpmd, counts.rx);
    counts
}

/// Has testpmd take what is in its rings, and checks that it is what was given.
pub fn all_received(testpmd: &mut Testpmd, given: u64) {
    let what = format!("testpmd receives all of {given} frames");
    testpmd.forward("rxonly", "start", &what, |testpmd| testpmd.xstats(0).received() >= given);
    assert_eq!(testpmd.xstats(0).received(), given, "frames that testpmd received");
}

/// Waits until nobody is connected to the net device: nothing is counted any more.
pub fn disconnected(ringside: &Ringside, device: &str) {
    let gone = || ringside.metrics().sum("ringside_session_connected", &[("controller", device)]) == 0.0;
    until("the front-end has gone", SOON, || gone().then_some(()));
}
