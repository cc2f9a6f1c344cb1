//! What tests that cross crates stand on, and in `tests/` the tests themselves. Tests of one crate are in that crate.
//!
//! [`device`] is a virtio-scsi device that a test polls by hand, with the driver side of its rings.
//! [`hostile`] is a driver that does anything, to such a device, for ever so long.
//! [`wire`] is a port whose far side is the test's, and a net device plugged into it.
//! [`live`] is a running target with real sockets and pollers, and front-ends against it.
//! [`net`] is a running net device, and drivers of it that a test leads by the hand.
#![forbid(unsafe_code)]

pub mod device;
pub mod hostile;
pub mod live;
pub mod net;
pub mod wire;
