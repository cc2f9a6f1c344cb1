//! Following a descriptor chain, in either ring format: from where its descriptors are to translated slices, or to the
//! reason why the queue halts. `quick` does it for usual chains, `long` for ordinary ones, `walk` whatever they are. How
//! chains are found and given back is not in here.

mod descriptor;
pub(crate) mod long;
pub(crate) mod quick;
mod view;
pub(crate) mod walk;

pub(crate) use descriptor::{DESCRIPTOR, Descriptor, Entries, INDIRECT, NEXT, TableFormat, WRITE};
pub(crate) use view::{Hints, View};
pub(crate) use walk::Stop;
