//! Which blocks there are.

use std::os::unix::fs::FileExt;

use bdev::{BlockRun, BlockRuns};

use super::*;

fn status(channel: &mut Channel, lba: u64, runs_max: u16) -> Vec<BlockRun> {
    let runs = BlockRuns::default();
    assert_eq!(run_io(channel, &Io::block_status(lba, runs_max, &runs, Token(9))), Status::Good);
    runs.found().to_vec()
}

fn run_of((lba, blocks, allocated): (u64, u64, bool)) -> BlockRun {
    BlockRun { lba, blocks, allocated }
}

#[test]
fn file_tells_data_from_holes_in_blocks_of_the_guest() {
    for place in places() {
        for (block_size, scale, read_only) in [(512, 8, false), (4096, 1, false), (512, 8, true)] {
            let path = path(&place, &format!("f{block_size}{read_only}"));
            let backing = std::fs::File::create(&path).unwrap();
            backing.set_len(1 << 20).unwrap();
            // pages 3 to 6, a byte of 100, and the last one
            backing.write_all_at(&[1; 4 * 4096], 3 * 4096).unwrap();
            backing.write_all_at(&[1], 100 * 4096 + 7).unwrap();
            backing.write_all_at(&[1], (1 << 20) - 1).unwrap();
            let file = open(&FileConfig { block_size, read_only, ..FileConfig::new(&path) });
            assert!(file.info().can.block_status);
            let mut channel = file.open();
            let pages =
                [(0, 3, false), (3, 4, true), (7, 93, false), (100, 1, true), (101, 154, false), (255, 1, true)];
            let expected: Vec<BlockRun> =
                pages.map(|(page, count, there)| run_of((page * scale, count * scale, there))).to_vec();
            assert_eq!(status(&mut channel, 0, 256), expected);
            assert_eq!(status(&mut channel, 0, 2), expected[..2]);
            assert_eq!(status(&mut channel, 255 * scale, 1), expected[5..]);
            let within = [run_of((5 * scale, 2 * scale, true)), expected[2]];
            assert_eq!(status(&mut channel, 5 * scale, 2), within);
            let beyond = BlockRuns::default();
            let io = Io::block_status(file.info().block_count, 1, &beyond, Token(9));
            assert_eq!(run_io(&mut channel, &io), Status::OutOfRange);
            assert_eq!(beyond.found(), []);
            // what is given back is a hole, what is written is none
            if !read_only {
                let extents = [bdev::Extent { lba: 3 * scale, blocks: 2 * scale as u32 }];
                let unmap = Io::unmap(&extents, Token(1));
                assert_eq!(run_io(&mut channel, &unmap), Status::Good);
                let guest = Guest::new(4096);
                assert_eq!(run(&mut channel, WRITE, 50 * scale, scale as u32, &[guest.at(0, 4096)]), Status::Good);
                let expected = [(0, 5, false), (5, 2, true), (7, 43, false), (50, 1, true), (51, 49, false)];
                let expected = expected.map(|(page, count, there)| run_of((page * scale, count * scale, there)));
                assert_eq!(status(&mut channel, 0, 5), expected);
            }
        }
    }
}

#[test]
fn file_without_data_or_cut_off_is_one_hole() {
    for place in places() {
        let file = open(&new_file(&place, "f", 1 << 30));
        let mut channel = file.open();
        let hole = [run_of((5, (1 << 21) - 5, false))];
        assert_eq!(status(&mut channel, 5, 8), hole);
        std::fs::OpenOptions::new().write(true).open(path(&place, "f")).unwrap().set_len(0).unwrap();
        assert_eq!(status(&mut channel, 5, 8), hole);
    }
}

#[test]
fn file_answer_about_its_blocks_wakes_a_poller_that_sleeps() {
    let place = &places()[0];
    let file = open(&new_file(place, "f", 1 << 20));
    let mut channel = file.open();
    for lba in 0..200 {
        let (runs, mut done) = (BlockRuns::default(), Vec::new());
        assert_eq!(channel.submit(&Io::block_status(lba, 1, &runs, Token(lba)), NOW), Submitted::Pending);
        channel.flush_submissions();
        while done.is_empty() {
            channel.arm();
            if channel.poll(NOW, &mut done) == 0 && channel.next_deadline().is_none() {
                assert!(waking::woken(&channel, PATIENCE), "a lost wake-up for block {lba}");
            }
            channel.disarm();
            channel.poll(NOW, &mut done);
        }
        assert_eq!(done, [Completion { token: Token(lba), status: Status::Good }]);
        assert_eq!(runs.found(), [run_of((lba, 2048 - lba, false))]);
    }
    // and one that is closed does not wait for it
    let runs = BlockRuns::default();
    assert_eq!(channel.submit(&Io::block_status(0, 1, &runs, Token(1)), NOW), Submitted::Pending);
    drop((channel, file));
    open(&FileConfig::new(path(place, "f")));
}
