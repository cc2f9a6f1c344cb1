//! The dashboards and rules of `dashboards/`: that their files are well-formed, that the rules fire when they should and only
//! then (promtool's unit tests), and that a real Prometheus, watching a target under load and then in trouble, has an answer for
//! every expression. What the metrics themselves say is tested elsewhere.
//!
//! Without `prometheus` and `promtool`, or without the Python environment of `scripts/setup.sh --only dashboards`, the tests that
//! want them say SKIPPED and succeed.

#[path = "../process/place.rs"]
#[allow(dead_code, reason = "other tests ask a target for more")]
mod place;
#[path = "../guest/process.rs"]
#[allow(dead_code, reason = "guests are waited for in more ways")]
mod process;

mod board;
mod catalogue;
mod empty;
mod files;
mod lab;
mod prometheus;
mod rules;
mod tools;
mod watched;
