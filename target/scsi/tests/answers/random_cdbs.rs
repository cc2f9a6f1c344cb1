//! Random CDBs and parameter lists: each is answered, none panics, no answer is longer than its CDB allows, and no
//! action is beyond what the unit is able to do.

use scsi::{
    Action, Addressee, CDB_LEN, Command, Context, DataPhase, LogData, LogicalUnit, LogicalUnitConfig, Scratch,
    Transfer, UnitAttention, execute, opcodes,
};

use super::{able_config, able_unit, config};

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

/// Parameter lists: some bytes of what a good list holds, most of them zero.
fn list(random: &mut Random, len: usize) -> Vec<u8> {
    const LIKELY: [u8; 12] = [0x08, 0x0a, 10, 16, 18, 0x02, 0x04, 0x10, 0x20, 0x0c, 0x40, 0xff];
    let mut list = vec![0; len];
    for byte in list.iter_mut().take(256) {
        let choice = random.next();
        *byte = match choice % 8 {
            0 => choice.to_be_bytes()[0],
            1 => LIKELY[usize::from(choice.to_be_bytes()[1]) % LIKELY.len()],
            _ => 0,
        };
    }
    list
}

const BLOCKS: u64 = 1 << 40;

fn check(to: Addressee<'_>, cdb: &[u8; CDB_LEN], random: &mut Random, scratch: &mut Scratch) -> Option<Action> {
    let command = match Command::parse(cdb) {
        Ok(command) => command,
        Err(sense) => {
            assert_eq!(sense.key, 0x05, "{cdb:02x?}");
            assert!(matches!((sense.asc, sense.ascq), (0x20, 0x00) | (0x24, 0x00)), "{cdb:02x?}");
            return None;
        }
    };
    let data_out = list(random, command.parameter_list_len().unwrap_or(0).into());
    let log = LogData { reads: u64::MAX, writes: u64::MAX, ..LogData::default() };
    let pending = Some(UnitAttention::LunReset);
    let context = Context { luns: &[0, 7, 300], pending, data_out: &data_out, has_data_out: !data_out.is_empty(), log };
    let action = execute(to, &command, &context, scratch);
    if to.admits(cdb).is_err() {
        assert!(matches!(action, Action::Check(_)), "{cdb:02x?}: {action:?}");
    }
    check_action(action, &command, scratch);
    Some(action)
}

fn check_action(action: Action, command: &Command, scratch: &Scratch) {
    let in_range = |transfer: Transfer| {
        assert!(transfer.blocks > 0 && transfer.lba + u64::from(transfer.blocks) <= BLOCKS, "{command:?}");
        u64::from(transfer.blocks) * 512
    };
    let expected = match action {
        Action::Read(transfer) => DataPhase::In(in_range(transfer)),
        Action::Write(transfer) | Action::WriteAndVerify { transfer, .. } => DataPhase::Out(in_range(transfer)),
        Action::Compare(transfer) => DataPhase::Out(in_range(transfer)),
        Action::Verify(transfer) => {
            in_range(transfer);
            DataPhase::None
        }
        Action::CompareAndWrite(transfer) => DataPhase::Out(2 * in_range(transfer)),
        Action::WriteSame { transfer, no_data_out, .. } => {
            in_range(transfer);
            if no_data_out { DataPhase::None } else { DataPhase::Out(512) }
        }
        Action::Unmap => {
            assert!((1..=4).contains(&scratch.extents.len()));
            assert!(scratch.extents.iter().all(|extent| extent.blocks > 0));
            assert!(scratch.extents.iter().all(|extent| extent.lba + u64::from(extent.blocks) <= BLOCKS));
            DataPhase::Out(command.parameter_list_len().unwrap().into())
        }
        Action::LbaStatus(query) => {
            assert!(query.lba < BLOCKS && (1..=256).contains(&query.runs_max));
            return;
        }
        Action::DataIn => match command.data(512) {
            DataPhase::InUpTo(most) => return assert!(scratch.data_in.len() as u64 <= most, "{command:?}"),
            other => panic!("{command:?}: {other:?}"),
        },
        Action::Good | Action::Flush => match command.data(512) {
            DataPhase::Out(_) if command.parameter_list_len().is_some() => return,
            _ => DataPhase::None,
        },
        Action::Check(_) => return,
    };
    assert_eq!(command.data(512), expected, "{command:?}");
}

#[test]
fn random_cdbs_all_answer_within_their_allocation_length() {
    let able = LogicalUnit::new(LogicalUnitConfig { block_count: BLOCKS, write_cache: true, ..able_config() });
    let plain = LogicalUnit::new(LogicalUnitConfig { block_count: BLOCKS, ..config() });
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut scratch = Scratch::default();
    let mut answered = 0;
    for _ in 0..ROUNDS {
        let cdb = random.cdb();
        for to in [Addressee::Unit(&able), Addressee::Unit(&plain), Addressee::Absent, Addressee::ReportLunsWellKnown] {
            let action = check(to, &cdb, &mut random, &mut scratch);
            answered += usize::from(action.is_some_and(|action| !matches!(action, Action::Check(_))));
        }
    }
    assert!(answered > ROUNDS / 10, "only {answered} were answered with GOOD: the test tests nothing");
}

/// Good lists with a few bytes changed get further than random ones.
#[test]
fn random_changes_to_good_parameter_lists_all_answer() {
    let (unit, mut random, mut scratch) = (able_unit(), Random(0x2545_f491_4f6c_dd1d), Scratch::default());
    let sensed = super::data(&unit, &[0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0, 0]);
    let mut unmap = vec![0, 38, 0, 32, 0, 0, 0, 0];
    unmap.extend([0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0].repeat(2));
    let mut good = 0;
    for round in 0..ROUNDS {
        let (mut list, opcode) = if round % 2 == 0 { (sensed.clone(), 0x55) } else { (unmap.clone(), 0x42) };
        for _ in 0..=random.next() % 2 {
            let at = usize::try_from(random.next()).expect("64 bits") % list.len();
            list[at] = random.next().to_be_bytes()[0];
        }
        if random.next().is_multiple_of(8) {
            list.truncate(usize::try_from(random.next()).expect("64 bits") % list.len());
        }
        let [high, low] = u16::try_from(list.len()).expect("short").to_be_bytes();
        let command =
            Command::parse(&super::cdb(&[opcode, if opcode == 0x55 { 0x10 } else { 0 }, 0, 0, 0, 0, 0, high, low, 0]));
        let context = Context { data_out: &list, ..Context::default() };
        match execute(Addressee::Unit(&unit), &command.expect("good"), &context, &mut scratch) {
            Action::Check(sense) => {
                let code = (sense.asc, sense.ascq);
                let known = matches!(code, (0x1a, 0) | (0x26, 0) | (0x21, 0)) && sense.key == 0x05;
                assert!(known || sense.code() == (0x07, 0x27, 0x02), "{list:02x?}: {sense}");
                assert!(sense.pointer.is_none_or(|pointer| !pointer.in_cdb && usize::from(pointer.byte) < list.len()));
            }
            _ => good += 1,
        }
    }
    assert!(good > ROUNDS / 20, "only {good} were GOOD");
}
