//! Tests of packed rings through real shared memory, with the bytes that the other side would have to write. That any
//! sequence of operations does the same as on a split ring is in `tests/split/model.rs`.

mod driver;
mod faults;
#[path = "../split/fixture.rs"]
#[allow(dead_code, reason = "the fixture of the split ring's tests, which use more of it")]
mod fixture;
mod in_order;
mod notifications;
mod ring;
mod rows;
mod runs;
mod setup;
