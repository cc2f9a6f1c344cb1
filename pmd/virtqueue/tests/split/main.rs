//! Tests of split rings through real shared memory. What stands in the code is tested there only where it cannot be
//! seen from outside.

mod differential;
mod driver;
mod faults;
mod fixture;
mod hostile;
mod model;
mod notifications;
mod setup;
mod walks;
