//! What an initiator reads: every command through the public interface, byte for byte. Fields of CDBs and bounds of a
//! logical unit are tested beside the code that checks them.

mod absent_and_well_known;
mod capacity;
mod inquiry;
mod lba_status;
mod log;
mod mode;
mod mode_select;
mod random_cdbs;
mod read_write;
mod report_luns;
mod request_sense;
mod supported_opcodes;
mod unmap;
mod verify_and_write_same;

use scsi::{
    Action, Addressee, CDB_LEN, Command, Context, Identity, LogicalUnit, LogicalUnitConfig, Provisioning, Scratch,
    Sense, UnitAttention, Unmap, execute,
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

/// The same disk, able to do everything.
fn able_config() -> LogicalUnitConfig {
    let unmap = Unmap {
        provisioning: Provisioning::Thin,
        max_blocks: 1024,
        max_extents: 4,
        granularity_blocks: 8,
        alignment_blocks: 0,
        reads_zero: true,
    };
    LogicalUnitConfig {
        verify: true,
        write_same_max_blocks: 1024,
        compare_and_write_max_blocks: 16,
        unmap: Some(unmap),
        lba_status: true,
        ..config()
    }
}

fn able_unit() -> LogicalUnit {
    LogicalUnit::new(able_config())
}

/// The whole way of a command: admitted, parsed, then executed with these circumstances.
fn run_in(to: Addressee<'_>, bytes: &[u8], context: &Context<'_>) -> (Action, Scratch) {
    // What an earlier command left there.
    let mut scratch = Scratch { data_in: vec![0xee; 3], extents: vec![scsi::Extent { lba: 9, blocks: 9 }] };
    let cdb = cdb(bytes);
    let action = match to.admits(&cdb).and_then(|()| Command::parse(&cdb)) {
        Ok(command) => execute(to, &command, context, &mut scratch),
        Err(sense) => Action::Check(sense),
    };
    (action, scratch)
}

/// On LUNs 0, 1, 255, 256 and 16383 with this attention pending.
fn run(to: Addressee<'_>, bytes: &[u8], pending: Option<UnitAttention>) -> (Action, Vec<u8>) {
    let (action, scratch) =
        run_in(to, bytes, &Context { luns: &[0, 1, 255, 256, 16383], pending, ..Context::default() });
    (action, scratch.data_in)
}

/// A command with this parameter list.
fn send(unit: &LogicalUnit, bytes: &[u8], data_out: &[u8]) -> (Action, Scratch) {
    run_in(Addressee::Unit(unit), bytes, &Context { data_out, ..Context::default() })
}

/// What the command asks the backend for, or its refusal.
fn action(unit: &LogicalUnit, bytes: &[u8]) -> Action {
    run(Addressee::Unit(unit), bytes, None).0
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

/// Key, ASC, ASCQ, 00h and the three bytes of the field pointer of a refusal by a logical unit.
fn pointer(unit: &LogicalUnit, bytes: &[u8]) -> [u8; 7] {
    pointer_of(action(unit, bytes))
}

fn pointer_of(action: Action) -> [u8; 7] {
    match action {
        Action::Check(sense) => {
            let sense = sense.fixed();
            [sense[2], sense[12], sense[13], sense[14], sense[15], sense[16], sense[17]]
        }
        other => panic!("{other:?}"),
    }
}
