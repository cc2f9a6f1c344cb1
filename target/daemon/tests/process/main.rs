//! The built program as a process: what only a process can show. Everything else about a running target is tested inside
//! of the test's own process, by the tests `live_…` of the crate `tests`.

mod bench;
mod faults;
mod http;
mod idle;
mod metrics;
mod net;
mod place;
mod reload;
#[cfg(feature = "spdk")]
#[path = "../remote/mod.rs"]
mod remote;
mod serve;
#[cfg(feature = "spdk")]
mod spdk;
