//! A SCSI target that does no I/O: bytes of a CDB in, a decision out. It has never heard of virtio, threads, clocks or
//! memory that a guest can race; whoever owns those calls [`execute()`] and performs the [`Action`] it returns.
//!
//! The layers, from the wire inwards:
//!
//! 1. [`Opcode`] - one table of every command. It alone decides what is supported, and by which logical units, how long
//!    a CDB is, which of its bits are evaluated or refused, which way data moves and who may be asked.
//! 2. [`Command`] - what a CDB means, made by [`Command::parse`] from that table. Adding a command is one row and one
//!    arm.
//! 3. [`Addressee`] - who was asked: a [`LogicalUnit`], a LUN that does not exist, or the REPORT LUNS well-known unit.
//! 4. [`execute()`] - the answer. INQUIRY, mode, capacity and the like write their parameter data into the [`Scratch`]
//!    of the caller; whatever concerns the blocks themselves goes back to the caller as an [`Action`].
//! 5. [`Sense`] and [`UnitAttentions`] - why not, and what happened meanwhile.
//!
//! A refusal is not an error of this crate but an answer, so nothing here panics whatever the CDB holds, and every
//! `Err` carries the [`Sense`] that the initiator is to see. The standards are SAM-6, SPC-5 and SBC-4.
//!
//! How a transport uses it, in the order in which a refusal must win:
//!
//! ```
//! use scsi::{
//!     Action, Addressee, CDB_LEN, Command, Context, DataPhase, Identity, LogicalUnit, LogicalUnitConfig, Scratch,
//!     Sense,
//! };
//!
//! fn answer(to: Addressee<'_>, cdb: &[u8; CDB_LEN], buffer: &[u8], scratch: &mut Scratch) -> Result<Action, Sense> {
//!     // a pending unit attention is reported here, if scsi::reports_unit_attention(cdb[0])
//!     to.admits(cdb)?; // does whoever is addressed know this command at all?
//!     let command = Command::parse(cdb)?;
//!     if let DataPhase::Out(bytes) = command.data(512) {
//!         assert!(bytes <= buffer.len() as u64, "the transport's overrun answer");
//!     }
//!     let data_out = command.parameter_list_len().map_or(&[][..], |len| &buffer[..len.into()]);
//!     Ok(scsi::execute(to, &command, &Context { luns: &[0], data_out, ..Context::default() }, scratch))
//! }
//!
//! let identity = Identity::new("RINGSIDE", "disk", "1", "serial-1", scsi::Naa::local(1))?;
//! let unit = LogicalUnit::new(LogicalUnitConfig::new(identity, 512, 2048));
//! let mut scratch = Scratch::default();
//!
//! let mut read_capacity = [0; CDB_LEN];
//! read_capacity[0] = 0x25;
//! let action = answer(Addressee::Unit(&unit), &read_capacity, &[], &mut scratch);
//! assert_eq!(action, Ok(Action::DataIn));
//! assert_eq!(scratch.data_in, [0x00, 0x00, 0x07, 0xff, 0x00, 0x00, 0x02, 0x00]);
//! # Ok::<(), scsi::IdentityError>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod capacity;
mod command;
mod decode;
mod execute;
mod identity;
mod inquiry;
mod lba_status;
mod log;
mod mode;
mod mode_select;
mod opcode;
mod report_luns;
mod sense;
mod supported_opcodes;
mod task_management;
mod unit;
mod unit_attention;
mod unmap;
mod vpd;

pub use command::{Command, DataPhase, LunSelection, OpcodeQuery, PageControl, ReadWrite, Transfer, is_fua};
pub use execute::{Action, Addressee, Context, Scratch, execute};
pub use identity::{Identity, IdentityError, Naa, SERIAL_LEN_MAX};
pub use lba_status::{LbaRun, LbaState, LbaStatusQuery};
pub use log::LogData;
pub use opcode::{Direction, Feature, Opcode, opcodes, reports_unit_attention};
pub use report_luns::{LUN_MAX, encode_lun};
pub use sense::{FieldPointer, Sense, SenseBytes};
pub use unit::{Admission, LogicalUnit, LogicalUnitConfig, Provisioning, Unmap};
pub use unit_attention::{UnitAttention, UnitAttentions};
pub use unmap::Extent;

/// Bytes of a CDB as the transport hands it over: the default `cdb_size` of virtio (1.3 §5.6.4). Shorter commands leave
/// the rest zero or undefined; it is never looked at.
pub const CDB_LEN: usize = 32;

/// A CDB as the transport hands it over.
pub(crate) type Cdb = [u8; CDB_LEN];
