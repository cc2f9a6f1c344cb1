//! Random CDBs: each is answered, none panics, and no answer is longer than its CDB allows.

use scsi::{
    Action, Addressee, CDB_LEN, Command, DataPhase, LogicalUnit, LogicalUnitConfig, UnitAttention, execute, opcodes,
};

use super::config;

const ROUNDS: usize = 200_000;

/// Xorshift: random enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Half of them with a known operation code, or hardly one in ten would get past the table.
    fn cdb(&mut self) -> [u8; CDB_LEN] {
        let mut cdb = [0; CDB_LEN];
        for chunk in cdb.chunks_exact_mut(8) {
            // Some bytes zero, so that fields that must be zero are so often enough.
            let sparse = self.next() & self.next();
            chunk.copy_from_slice(&sparse.to_le_bytes());
        }
        let choice = usize::try_from(self.next() % 64).expect("small");
        if let Some(row) = opcodes().get(choice) {
            (cdb[0], cdb[1]) = (row.code(), row.service_action().unwrap_or(cdb[1]));
        }
        cdb
    }
}

fn check(to: Addressee<'_>, cdb: &[u8; CDB_LEN], out: &mut Vec<u8>) -> Option<Action> {
    let command = match Command::parse(cdb) {
        Ok(command) => command,
        Err(sense) => {
            assert_eq!(sense.key, 0x05, "{cdb:02x?}");
            assert!(matches!((sense.asc, sense.ascq), (0x20, 0x00) | (0x24, 0x00)), "{cdb:02x?}");
            return None;
        }
    };
    let action = execute(to, &command, &[0, 7, 300], Some(UnitAttention::LunReset), out);
    match (action, command.data(512)) {
        (Action::DataIn, DataPhase::InUpTo(most)) => assert!(out.len() as u64 <= most, "{cdb:02x?}"),
        (Action::Read(transfer), DataPhase::In(bytes)) | (Action::Write(transfer), DataPhase::Out(bytes)) => {
            assert_eq!(u64::from(transfer.blocks) * 512, bytes, "{cdb:02x?}");
            assert!(transfer.blocks > 0 && transfer.lba + u64::from(transfer.blocks) <= 1 << 40, "{cdb:02x?}");
        }
        (Action::Good | Action::Flush, DataPhase::None) | (Action::Check(_), _) => {}
        (action, data) => panic!("{cdb:02x?}: {action:?} {data:?}"),
    }
    Some(action)
}

#[test]
fn random_cdbs_all_answer_within_their_allocation_length() {
    let unit = LogicalUnit::new(LogicalUnitConfig { block_count: 1 << 40, ..config() });
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut out = Vec::new();
    let mut answered = 0;
    for _ in 0..ROUNDS {
        let cdb = random.cdb();
        for to in [Addressee::Unit(&unit), Addressee::Absent, Addressee::ReportLunsWellKnown] {
            if check(to, &cdb, &mut out).is_some_and(|action| !matches!(action, Action::Check(_))) {
                answered += 1;
            }
        }
    }
    assert!(answered > ROUNDS / 10, "only {answered} were answered with GOOD: the test tests nothing");
}
