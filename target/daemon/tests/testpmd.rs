//! DPDK's own driver, testpmd with a virtio-user device, on net devices of the built target: what testpmd counts and what the
//! metrics say are the same frames, whatever it negotiates, and restarts of either side are survived. Each test starts a
//! target of its own. What Linux guests make of a net device is not tested here.
//!
//! Without `dpdk-testpmd` these tests say SKIPPED and succeed.

#[path = "guest/metrics.rs"]
#[allow(dead_code, reason = "guests ask for more")]
mod metrics;
#[path = "guest/process.rs"]
#[allow(dead_code, reason = "guests are waited for in more ways")]
mod process;
#[path = "guest/ringside.rs"]
#[allow(dead_code, reason = "targets of guests are asked for more")]
mod ringside;

mod testpmd {
    mod counts;
    mod driver;
    mod lab;

    mod memory;
    #[cfg(feature = "dpdk")]
    mod offloads;
    mod options;
    mod ports;
    mod restart;
    mod switched;
}
