//! Pinned threads that poll [`Source`]s, and how the rest of the process talks to them; knows no ring, device or protocol.
//!
//! - [`Reactor`] starts one poller thread per core, named `ringside-p<core>`, and [`Reactor::shutdown`] ends them.
//! - [`PollerHandle`] adds sources to a poller, wakes it, and shows its [`PollerStats`].
//! - [`SourceHandle`] runs closures on a source where it lives, and takes it back.
//! - [`Source`] is what gets polled. A source lives on one poller, so nothing it owns needs a lock.
//! - [`clock`] is time in ticks of the time-stamp counter.
//! - [`affinity`] checks cores and keeps control threads off those of the pollers.
//!
//! # Who may block
//! Pollers never block and take no lock; control threads may. Control threads reach a poller through its inbox: a queue of
//! closures, run between two polls, a bounded number per loop. What must not happen on a poller (unmapping, closing, freeing) is
//! done by the control thread that [`SourceHandle::remove`] gives the source back to.
//!
//! # Idle pollers
//! [`IdlePolicy::Busy`] polls for ever. [`IdlePolicy::Adaptive`] polls for 50 µs without work, then tries to sleep:
//! every source enables its notifications ([`Source::arm`]), a full fence, every source and the inbox are looked at once more,
//! and only then the poller blocks in `epoll_wait` on the fds of its sources until the nearest deadline. That order is
//! the module `doze`, which a loom model checks (`RUSTFLAGS="--cfg loom" cargo test -p reactor --release loom`).
//!
//! # Idle sources
//! Under either policy, a source that did no work for 10 to 20 ms goes cold: it is armed as if for sleep and left out of the
//! loop, so that hundreds of idle devices cost a busy one nothing in its loops. Parts of sources do the same
//! ([`Source::cool`]). What a poller that is awake does for all of them, every 100 µs:
//! - one `epoll_wait` that does not wait: sources whose fds rang become hot. So a kick is noticed within 100 µs and one loop;
//! - the sweep: one hot and one cold source are looked at in full, for drivers that do not kick as they should. Of `n` cold
//!   sources, each has its turn within `n` × 100 µs and one loop more each.
//!
//! A poller that sleeps does not sweep: the virtio specification has drivers kick, and [`IdlePolicy::Busy`] is for those
//! that do not.
//!
//! # Panics
//! A source that panics is taken out of the loop, logged and counted; its neighbours go on. Its handles answer [`Gone`].
//!
//! Linux on x86-64, kernel 5.11 or later (`epoll_pwait2`).
#![deny(unsafe_code)]

pub mod affinity;
mod bell;
#[expect(unsafe_code, reason = "reads the time-stamp counter, an intrinsic that is unsafe to call")]
pub mod clock;
mod doze;
mod handle;
mod inbox;
mod poller;
mod poller_stats;
mod reactor;
mod source;
mod sources;
#[expect(unsafe_code, reason = "how long a thread's turns are: system calls without a safe binding")]
mod turns;

pub use clock::Tsc;
pub use handle::{Gone, PollerHandle, SourceHandle};
pub use poller::on_poller;
pub use poller_stats::PollerStats;
pub use reactor::{IdlePolicy, Reactor, ReactorConfig, ReactorError};
pub use source::{Armed, Source};
