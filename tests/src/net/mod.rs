//! A net device that runs, and drivers of it that a test leads by the hand: which chain goes on which ring, of which
//! descriptors, and what came of each. Nothing is refilled or taken back that the test does not say. No test is in here.
//!
//! [`driver`] is a front-end with its rings (sockets, memory and rings are those of [`live`](crate::live)), [`rig`] the
//! device on a port of the test's choice. A net device that the test itself polls is in [`wire`](crate::wire).

pub mod driver;
pub mod rig;
