//! A verified load on a disk that is a vector, with every way to get a block wrong.

use guest_memory::{GuestSlice, Pages, SharedMemory};

use super::super::args::tests::parse;
use super::stamp::Kind;
use super::*;

const RANGE: Range = Range { block_size: 512, blocks_per_piece: 2, pieces: 4 };
const LEN: usize = 1024;

/// A load with one slot, and the disk that it is run on.
struct Rig {
    memory: SharedMemory,
    work: Verified,
    disk: Vec<u8>,
}

impl Rig {
    fn new() -> Rig {
        let memory = SharedMemory::create("verify", 4096, Pages::Small).unwrap();
        Rig { memory, work: Verified::new(RANGE, 99), disk: vec![0; LEN * RANGE.pieces as usize] }
    }

    fn data(&self) -> SlotData {
        SlotData::new(self.memory.slice(), 0, LEN)
    }

    fn slice(&self) -> GuestSlice {
        self.data().slice()
    }

    /// Runs the load to its end on an honest disk; how many commands it had.
    fn run(&mut self) -> usize {
        let mut commands = 0;
        while let Some(io) = self.work.next(self.data()) {
            let at = io.piece as usize * LEN;
            match io.direction {
                Direction::Write => self.slice().read(&mut self.disk[at..at + LEN]),
                Direction::Read => self.slice().write(&self.disk[at..at + LEN]),
            };
            self.work.done(io, self.data(), true);
            commands += 1;
        }
        commands
    }

    fn fill(&mut self) {
        self.work.fill();
        assert_eq!(self.run(), 4);
    }

    fn read_back(&mut self) -> Vec<(u64, Kind)> {
        self.work.read_back();
        self.run();
        let told = |mismatch: &Mismatch| (mismatch.expected.lba, mismatch.found.kind(mismatch.expected));
        self.work.findings().first.iter().map(told).collect()
    }
}

#[test]
fn honest_disk_has_no_mismatch_after_any_number_of_writes() {
    let mut rig = Rig::new();
    assert_eq!(rig.read_back(), [], "nothing was written, so there is nothing to read");
    for _ in 0..3 {
        rig.fill();
        assert_eq!(rig.read_back(), []);
    }
    assert_eq!((rig.work.findings().checked, rig.work.findings().mismatched), (24, 0));
}

#[test]
fn lost_write_is_found_on_every_block_of_it() {
    let mut rig = Rig::new();
    rig.fill();
    rig.disk[LEN..2 * LEN].fill(0);
    assert_eq!(rig.read_back(), [(2, Kind::Lost), (3, Kind::Lost)]);
}

#[test]
fn stale_blocks_are_found_where_only_part_of_an_overwrite_arrived() {
    let mut rig = Rig::new();
    rig.fill();
    let before = rig.disk.clone();
    rig.fill();
    rig.disk[512..1024].copy_from_slice(&before[512..1024]);
    assert_eq!(rig.read_back(), [(1, Kind::Stale)]);
    let text = rig.work.findings().first[0].to_string();
    assert_eq!(text, "LBA 1: stale block: expected generation 2, found LBA 1 generation 1 of seed 99");
}

#[test]
fn misdirected_write_is_found_at_its_wrong_place_and_its_right_one() {
    let mut rig = Rig::new();
    rig.fill();
    // The write to LBA 4 went to LBA 6.
    rig.disk.copy_within(4 * 512..5 * 512, 6 * 512);
    rig.disk[4 * 512..5 * 512].fill(0);
    assert_eq!(rig.read_back(), [(4, Kind::Lost), (6, Kind::Misdirected)]);
}

#[test]
fn torn_block_is_found_and_its_first_wrong_byte_told() {
    let mut rig = Rig::new();
    rig.fill();
    let before = rig.disk.clone();
    rig.fill();
    rig.disk[7 * 512 + 256..8 * 512].copy_from_slice(&before[7 * 512 + 256..8 * 512]);
    assert_eq!(rig.read_back(), [(7, Kind::Torn)]);
    let text = rig.work.findings().first[0].to_string();
    assert_eq!(
        text,
        "LBA 7: torn or damaged block: expected generation 2, found a block that differs from byte 256 on"
    );
}

#[test]
fn blocks_of_an_earlier_run_with_another_seed_are_lost_writes() {
    let mut rig = Rig::new();
    rig.fill();
    rig.work = Verified::new(RANGE, 100);
    let disk = rig.disk.clone();
    rig.fill();
    rig.disk = disk;
    assert_eq!(rig.read_back().len(), 8);
    assert!(rig.read_back().iter().all(|(_, kind)| *kind == Kind::Lost));
}

#[test]
fn read_that_moves_nothing_is_found_although_the_buffer_had_the_right_block() {
    let mut rig = Rig::new();
    rig.fill();
    rig.work.read_back();
    let io = rig.work.next(rig.data()).unwrap();
    rig.work.done(io, rig.data(), true);
    assert_eq!(rig.work.findings().mismatched, 2);
    assert_eq!(rig.work.findings().first[0].found, Difference::Nothing { bytes: [0xdb; 8] });
}

#[test]
fn failed_commands_are_not_compared() {
    let mut rig = Rig::new();
    rig.fill();
    rig.work.fill();
    let write = rig.work.next(rig.data()).unwrap();
    rig.work.done(write, rig.data(), false);
    rig.work.read_back();
    let read = rig.work.next(rig.data()).unwrap();
    assert_eq!(read.piece, 1, "nobody knows what a failed write has left in piece 0");
    rig.work.done(read, rig.data(), false);
    assert_eq!(rig.work.findings().checked, 0);
}

#[test]
fn pattern_on_a_range_in_use_finds_the_piece_that_is_free() {
    let mut rig = Rig::new();
    let args = parse("--socket s --rw randrw --rwmixread 50").unwrap();
    rig.work.follow(Pattern::new(&args, RANGE.pieces, 5));
    let mut flying = Vec::new();
    for _ in 0..4 {
        flying.push(rig.work.next(rig.data()).unwrap());
    }
    let mut pieces: Vec<_> = flying.iter().map(|io| io.piece).collect();
    pieces.sort_unstable();
    assert_eq!(pieces, [0, 1, 2, 3]);
    assert_eq!(rig.work.next(rig.data()), None);
    let back = flying.remove(2);
    rig.work.done(back, rig.data(), false);
    assert_eq!(rig.work.next(rig.data()).map(|io| io.piece), Some(back.piece));
}
