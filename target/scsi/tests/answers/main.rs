//! What an initiator reads: every command through the public interface, byte for byte. Fields of CDBs and bounds of a
//! logical unit are tested beside the code that checks them.

mod absent_and_well_known;
mod capacity;
mod inquiry;
mod mode;
mod random_cdbs;
mod read_write;
mod report_luns;
mod request_sense;
mod supported_opcodes;

use scsi::{
    Action, Addressee, CDB_LEN, Command, Identity, LogicalUnit, LogicalUnitConfig, Sense, UnitAttention, execute,
};

/// 1 MiB in blocks of 512 bytes, and names that are easy to find in bytes.
fn config() -> LogicalUnitConfig {
    let identity = Identity::new("RINGSIDE", "test disk", "0.1", "serial-42", scsi::Naa::local(0x0123_4567_89ab_cdef))
        .expect("valid");
    LogicalUnitConfig::new(identity, 512, 2048)
}

fn unit() -> LogicalUnit {
    LogicalUnit::new(config())
}

fn cdb(bytes: &[u8]) -> [u8; CDB_LEN] {
    let mut cdb = [0; CDB_LEN];
    cdb[..bytes.len()].copy_from_slice(bytes);
    cdb
}

/// The whole way of a command: parsed, then executed on LUNs 0, 1, 255, 256 and 16383 with this attention pending.
fn run(to: Addressee<'_>, bytes: &[u8], pending: Option<UnitAttention>) -> (Action, Vec<u8>) {
    let mut out = vec![0xee; 3]; // what an earlier command left there
    let action = match Command::parse(&cdb(bytes)) {
        Ok(command) => execute(to, &command, &[0, 1, 255, 256, 16383], pending, &mut out),
        Err(sense) => Action::Check(sense),
    };
    (action, out)
}

/// The parameter data of a command that must end in GOOD.
fn data(unit: &LogicalUnit, bytes: &[u8]) -> Vec<u8> {
    data_from(Addressee::Unit(unit), bytes)
}

fn data_from(to: Addressee<'_>, bytes: &[u8]) -> Vec<u8> {
    let (action, out) = run(to, bytes, None);
    assert_eq!(action, Action::DataIn, "{bytes:02x?} to {to:?}");
    out
}

/// The sense data of a command that must end in CHECK CONDITION.
fn refused(to: Addressee<'_>, bytes: &[u8]) -> Sense {
    match run(to, bytes, None).0 {
        Action::Check(sense) => sense,
        other => panic!("{bytes:02x?} to {to:?}: {other:?}"),
    }
}
