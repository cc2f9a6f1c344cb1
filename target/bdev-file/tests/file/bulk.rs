//! Unmap, zeroes, write same, compare, compare-and-write, verify.

use std::os::unix::fs::MetadataExt;

use bdev::{Extent, Provisioning};

use super::*;

const SIZE: usize = 4 << 20;

fn filled(place: &TempDir, direct: bool) -> (File, Channel, Vec<u8>) {
    let file = open(&FileConfig { direct, ..new_file(place, &format!("f{direct}"), SIZE as u64) });
    let (mut channel, guest) = (file.open(), Guest::new(SIZE));
    let bytes = pattern(SIZE, 0x35);
    guest.put(&[guest.at(0, SIZE)], &bytes);
    assert_eq!(run(&mut channel, WRITE, 0, (SIZE / 512) as u32, &[guest.at(0, SIZE)]), Status::Good);
    assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
    (file, channel, bytes)
}

fn each(test: impl Fn(&TempDir, bool)) {
    for place in places() {
        test(&place, true);
        test(&place, false);
    }
}

#[test]
fn file_unmapped_extents_read_as_zeroes_and_give_their_space_back() {
    each(|place, direct| {
        let (file, mut channel, mut model) = filled(place, direct);
        let info = file.info();
        assert!(info.can.unmap && info.unmapped_reads_zeroes, "{info:?}");
        assert_eq!(info.provisioning, Provisioning::Thin);
        let allocated = || std::fs::metadata(path(place, &format!("f{direct}"))).unwrap().blocks() * 512;
        let before = allocated();
        let extents = [(8, 4096), (0, 0), (5001, 3), (8191, 1)].map(|(lba, blocks)| Extent { lba, blocks });
        assert_eq!(run_io(&mut channel, &Io::unmap(&extents, Token(4))), Status::Good);
        for extent in extents {
            model[extent.lba as usize * 512..][..extent.blocks as usize * 512].fill(0);
        }
        assert!(content(&file) == model);
        assert!(allocated() + (1 << 20) <= before, "{before} bytes before, {} after", allocated());
        let beyond = [(0, 8), (8191, 2)].map(|(lba, blocks)| Extent { lba, blocks });
        assert_eq!(run_io(&mut channel, &Io::unmap(&beyond, Token(4))), Status::OutOfRange);
        assert_eq!(run_io(&mut channel, &Io::unmap(&[], Token(4))), Status::Good);
        assert!(content(&file) == model);
    });
}

#[test]
fn file_zeroes_are_written_with_and_without_giving_back() {
    each(|place, direct| {
        let (file, mut channel, mut model) = filled(place, direct);
        for (unmap, lba, blocks) in [(false, 3, 1), (true, 9, 700), (false, 2000, 3000), (true, 8191, 1)] {
            assert_eq!(run(&mut channel, Op::WriteZeroes { unmap }, lba, blocks, &[]), Status::Good);
            model[lba as usize * 512..][..blocks as usize * 512].fill(0);
        }
        assert!(content(&file) == model);
        assert_eq!(run(&mut channel, Op::WriteZeroes { unmap: true }, 8191, 2, &[]), Status::OutOfRange);
    });
}

#[test]
fn file_write_same_repeats_one_scattered_block_over_many_pieces() {
    each(|place, direct| {
        let (file, mut channel, mut model) = filled(place, direct);
        let guest = Guest::new(4096);
        let buffers = [guest.at(5, 100), guest.at(1000, 412)];
        let block: Vec<u8> = (0..512).map(|at| (at % 253) as u8).collect();
        guest.put(&buffers, &block);
        for (lba, blocks) in [(1, 1), (100, 511), (1000, 5003)] {
            assert_eq!(run(&mut channel, Op::WriteSame, lba, blocks, &buffers), Status::Good);
            let range = &mut model[lba as usize * 512..][..blocks as usize * 512];
            range.chunks_mut(512).for_each(|to| to.copy_from_slice(&block));
        }
        assert!(content(&file) == model);
    });
}

#[test]
fn file_compare_tells_the_first_byte_that_differs() {
    each(|place, direct| {
        let (_file, mut channel, bytes) = filled(place, direct);
        let guest = Guest::new(SIZE + 4096);
        let buffers = [guest.at(7, 1_000_000), guest.at(1_000_100, 1 << 20)];
        let length: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let (blocks, length) = ((length / 512) as u32, length / 512 * 512);
        let buffers = [buffers[0], buffers[1].split_at(length - 1_000_000).0];
        guest.put(&buffers, &bytes[512..][..length]);
        assert_eq!(run(&mut channel, Op::Compare, 1, blocks, &buffers), Status::Good);
        assert_eq!(run(&mut channel, Op::Verify, 1, blocks, &[]), Status::Good);
        for offset in [length as u32 - 1, 1_000_001, 300_000, 0] {
            let mut wrong = bytes[512..][..length].to_vec();
            wrong[offset as usize] ^= 0x40;
            guest.put(&buffers, &wrong);
            assert_eq!(run(&mut channel, Op::Compare, 1, blocks, &buffers), Status::Miscompare { offset });
        }
    });
}

#[test]
fn file_compare_and_write_writes_only_if_all_is_equal() {
    each(|place, direct| {
        let (file, mut channel, mut model) = filled(place, direct);
        let guest = Guest::new(3 * 512);
        let buffers = [guest.at(0, 700), guest.at(700, 324)];
        let exchange = |channel: &mut Channel, old: &[u8], new: u8| {
            let data: Vec<u8> = old.iter().copied().chain([new; 512]).collect();
            guest.put(&buffers, &data);
            run(channel, Op::CompareAndWrite { fua: true }, 17, 1, &buffers)
        };
        let old = model[17 * 512..][..512].to_vec();
        assert_eq!(exchange(&mut channel, &old, 0xaa), Status::Good);
        assert_eq!(exchange(&mut channel, &old, 0xbb), Status::Miscompare { offset: 0 });
        assert_eq!(exchange(&mut channel, &[0xaa; 512], 0xcc), Status::Good);
        model[17 * 512..][..512].fill(0xcc);
        assert!(content(&file) == model);
    });
}

/// Counts a number up by compare-and-write on two threads, while a third writes next to it.
#[test]
fn file_compare_and_write_of_many_channels_loses_no_count() {
    const ROUNDS: u64 = 100;
    for place in places() {
        let file = open(&new_file(&place, "f", 1 << 20));
        let counting = || {
            let (mut channel, guest) = (file.open(), Guest::new(1024));
            let mut counted = 0;
            while counted < ROUNDS {
                assert_eq!(run(&mut channel, Op::Read, 0, 1, &[guest.at(0, 512)]), Status::Good);
                let seen = guest.at(0, 8).read_array::<8>().map(u64::from_le_bytes).unwrap();
                guest.at(512, 8).write(&(seen + 1).to_le_bytes());
                let halves = [guest.at(0, 512), guest.at(512, 512)];
                let status = run(&mut channel, Op::CompareAndWrite { fua: false }, 0, 1, &halves);
                assert!(matches!(status, Status::Good | Status::Miscompare { .. }), "{status:?}");
                counted += u64::from(status == Status::Good);
            }
        };
        thread::scope(|scope| {
            scope.spawn(counting);
            scope.spawn(counting);
            scope.spawn(|| {
                let (mut channel, guest) = (file.open(), Guest::new(4096));
                for _ in 0..ROUNDS {
                    assert_eq!(run(&mut channel, WRITE, 8, 8, &[guest.at(0, 4096)]), Status::Good);
                }
            });
        });
        assert_eq!(content(&file)[..8], (2 * ROUNDS).to_le_bytes());
    }
}
