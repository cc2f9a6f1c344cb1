//! Tests of the malloc device: scatter lists against a model, the edges, and several channels at once.

use std::thread;

use guest_memory::{Pages, SharedMemory};
use proptest::prelude::*;
use reactor::clock::Tsc;

use super::*;
use crate::Token;

const NOW: Tsc = Tsc(1);

/// Memory of a guest, cut into scatter lists.
struct Guest(SharedMemory);

impl Guest {
    fn new(size: usize) -> Guest {
        Guest(SharedMemory::create("guest", size, Pages::Small).unwrap())
    }

    fn at(&self, offset: usize, len: usize) -> GuestSlice {
        self.0.slice().subslice(offset, len).unwrap()
    }

    /// `length` bytes from the start on, cut at each of `cuts` (in thousandths of the length, unsorted).
    fn scattered(&self, length: usize, cuts: &[usize]) -> Vec<GuestSlice> {
        let mut edges: Vec<usize> = cuts.iter().map(|cut| cut * length / 1000).chain([0, length]).collect();
        edges.sort_unstable();
        // backwards in memory, so that a mistake in the order shows
        edges.windows(2).map(|edge| self.at(length - edge[1], edge[1] - edge[0])).collect()
    }

    fn put(&self, buffers: &[GuestSlice], bytes: &[u8]) {
        let mut rest = bytes;
        for buffer in buffers {
            rest = &rest[buffer.write(rest)..];
        }
    }

    fn take(&self, buffers: &[GuestSlice], length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut at = 0;
        for buffer in buffers {
            at += buffer.read(&mut bytes[at..]);
        }
        bytes
    }
}

fn run(channel: &mut Channel, op: Op, lba: u64, blocks: u32, buffers: &[GuestSlice]) -> Status {
    match channel.submit(&Io::new(op, lba, blocks, buffers, Token(7)), NOW) {
        Submitted::Done(status) => status,
        Submitted::Pending => panic!("malloc left a request pending"),
    }
}

fn write(channel: &mut Channel, lba: u64, blocks: u32, buffers: &[GuestSlice]) -> Status {
    run(channel, Op::Write { fua: false }, lba, blocks, buffers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn malloc_scattered_writes_and_reads_agree_with_a_model(
        block_size in prop_oneof![Just(512u32), Just(4096)],
        steps in prop::collection::vec(
            (any::<bool>(), 0u64..40, 0u32..10, prop::collection::vec(0usize..=1000, 0..6), any::<u8>()), 1..30),
    ) {
        const BLOCKS: u64 = 32;
        let size = BLOCKS * u64::from(block_size);
        let mut channel = Malloc::new("m", size, block_size).unwrap().open();
        let mut model = vec![0u8; size as usize];
        let guest = Guest::new(10 * 4096);
        for (is_write, lba, blocks, cuts, seed) in steps {
            let length = blocks as usize * block_size as usize;
            let buffers = guest.scattered(length, &cuts);
            let fits = lba + u64::from(blocks) <= BLOCKS;
            let expected = if fits { Status::Good } else { Status::OutOfRange };
            let medium = lba as usize * block_size as usize..lba as usize * block_size as usize + length;
            let pattern: Vec<u8> = (0..length).map(|at| (at / 7) as u8 ^ seed).collect();
            guest.put(&buffers, &pattern);
            let op = if is_write { Op::Write { fua: seed & 1 == 1 } } else { Op::Read };
            prop_assert_eq!(run(&mut channel, op, lba, blocks, &buffers), expected);
            match (is_write, fits) {
                (true, true) => model[medium].copy_from_slice(&pattern),
                (false, true) => prop_assert_eq!(&guest.take(&buffers, length), &model[medium]),
                (_, false) => prop_assert_eq!(guest.take(&buffers, length), pattern),
            }
        }
        let whole = Guest::new(size as usize);
        let buffers = [whole.at(0, size as usize)];
        prop_assert_eq!(run(&mut channel, Op::Read, 0, BLOCKS as u32, &buffers), Status::Good);
        prop_assert_eq!(whole.take(&buffers, size as usize), model);
    }
}

#[test]
fn malloc_fresh_reads_zeroes() {
    let guest = Guest::new(4096);
    guest.at(0, 4096).fill(0xff);
    let mut channel = Malloc::new("m", 1 << 20, 4096).unwrap().open();
    assert_eq!(run(&mut channel, Op::Read, 255, 1, &[guest.at(0, 4096)]), Status::Good);
    assert_eq!(guest.at(0, 4096).read_array::<4096>(), Some([0; 4096]));
}

#[test]
fn malloc_beyond_the_end_is_out_of_range_and_touches_nothing() {
    let guest = Guest::new(8192);
    guest.at(0, 8192).fill(0x11);
    let mut channel = Malloc::new("m", 8192, 512).unwrap().open();
    for (lba, blocks) in [(16, 1), (15, 2), (u64::MAX, 1), (u64::MAX - 1, 2), (1 << 55, 1)] {
        let buffers = [guest.at(0, blocks as usize * 512)];
        assert_eq!(write(&mut channel, lba, blocks, &buffers), Status::OutOfRange, "lba {lba}");
        assert_eq!(run(&mut channel, Op::Read, lba, blocks, &buffers), Status::OutOfRange, "lba {lba}");
    }
    assert_eq!(guest.at(0, 8192).read_array::<8192>(), Some([0x11; 8192]));
    assert_eq!(run(&mut channel, Op::Read, 0, 16, &[guest.at(0, 8192)]), Status::Good);
    assert_eq!(guest.at(0, 8192).read_array::<8192>(), Some([0; 8192]));
}

#[test]
fn malloc_buffers_of_another_length_fail_and_move_nothing() {
    let guest = Guest::new(4096);
    guest.at(0, 4096).fill(0x22);
    let mut channel = Malloc::new("m", 8192, 512).unwrap().open();
    for length in [0, 511, 513, 1024] {
        let buffers = [guest.at(0, length)];
        assert_eq!(write(&mut channel, 0, 1, &buffers), Status::Failed, "{length} bytes");
        assert_eq!(run(&mut channel, Op::Read, 0, 1, &buffers), Status::Failed, "{length} bytes");
    }
    assert_eq!(run(&mut channel, Op::Read, 0, 1, &[guest.at(0, 512)]), Status::Good);
    assert_eq!(guest.at(0, 512).read_array::<512>(), Some([0; 512]));
    assert_eq!(guest.at(512, 512).read_array::<512>(), Some([0x22; 512]));
}

#[test]
fn malloc_prefetch_of_any_address_changes_nothing() {
    let guest = Guest::new(8192);
    let mut channel = Malloc::new("m", 8192, 512).unwrap().open();
    guest.at(0, 8192).fill(0x44);
    assert_eq!(write(&mut channel, 0, 16, &[guest.at(0, 8192)]), Status::Good);
    for lba in [0, 15, 16, 1 << 54, 1 << 55, u64::MAX] {
        for op in [Op::Read, Op::Write { fua: false }, Op::Flush] {
            channel.prefetch(op, lba);
        }
    }
    guest.at(0, 8192).fill(0);
    assert_eq!(run(&mut channel, Op::Read, 0, 16, &[guest.at(0, 8192)]), Status::Good);
    assert_eq!(guest.at(0, 8192).read_array::<8192>(), Some([0x44; 8192]));
}

#[test]
fn malloc_channel_outlives_its_device() {
    let guest = Guest::new(512);
    let malloc = Malloc::new("m", 8192, 512).unwrap();
    let (mut one, mut other) = (malloc.open(), malloc.open());
    drop(malloc);
    guest.at(0, 512).fill(0x33);
    assert_eq!(write(&mut one, 3, 1, &[guest.at(0, 512)]), Status::Good);
    drop(one);
    guest.at(0, 512).fill(0);
    assert_eq!(run(&mut other, Op::Read, 3, 1, &[guest.at(0, 512)]), Status::Good);
    assert_eq!(guest.at(0, 512).read_array::<512>(), Some([0x33; 512]));
}

#[test]
fn malloc_two_channels_on_two_threads_share_the_medium() {
    const ROUNDS: u8 = 50;
    let malloc = Malloc::new("m", 64 << 10, 512).unwrap();
    // each thread fills its own half, over and over, and then reads the other's
    let write_half = |half: u64| {
        let mut channel = malloc.open();
        let guest = Guest::new(32 << 10);
        for round in 1..=ROUNDS {
            guest.at(0, 32 << 10).fill(round + half as u8);
            assert_eq!(write(&mut channel, half * 64, 64, &guest.scattered(32 << 10, &[123, 500])), Status::Good);
        }
        channel
    };
    let (mut first, mut second) = thread::scope(|scope| {
        let first = scope.spawn(|| write_half(0));
        let second = scope.spawn(|| write_half(1));
        (first.join().unwrap(), second.join().unwrap())
    });
    for (channel, half) in [(&mut first, 1), (&mut second, 0)] {
        let guest = Guest::new(32 << 10);
        assert_eq!(run(channel, Op::Read, half * 64, 64, &[guest.at(0, 32 << 10)]), Status::Good);
        let bytes = guest.take(&[guest.at(0, 32 << 10)], 32 << 10);
        assert!(bytes.iter().all(|byte| *byte == ROUNDS + half as u8));
    }
}

#[test]
fn malloc_flush_and_forced_writes_succeed_without_a_cache() {
    let malloc = Malloc::new("disk0", 8192, 4096).unwrap();
    let info = malloc.info();
    assert_eq!((info.name.as_str(), info.kind, info.block_size, info.block_count), ("disk0", "malloc", 4096, 2));
    assert!(!info.write_cache && !info.read_only && !info.rotational);
    let guest = Guest::new(4096);
    let mut channel = malloc.open();
    assert_eq!(run(&mut channel, Op::Write { fua: true }, 1, 1, &[guest.at(0, 4096)]), Status::Good);
    assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
}

#[test]
fn malloc_of_impossible_size_is_an_error_that_names_it() {
    let error = |size, block_size| Malloc::new("m", size, block_size).unwrap_err().to_string();
    assert_eq!(error(1000, 512), "size is 1000 bytes, must be a multiple of the block_size 512");
    assert_eq!(error(0, 512), "block_count is 0, must be at least 1");
    let text = error((1 << 62) - 4096, 4096);
    assert!(text.starts_with("no memory for size 4611686018427383808 bytes: "), "{text}");
}

fn pattern(guest: &Guest, length: usize, seed: u8) -> Vec<u8> {
    let bytes: Vec<u8> = (0..length).map(|at| (at / 3) as u8 ^ seed).collect();
    guest.at(0, length).write(&bytes);
    bytes
}

fn content(channel: &mut Channel, length: usize) -> Vec<u8> {
    let guest = Guest::new(length);
    let buffers = [guest.at(0, length)];
    assert_eq!(run(channel, Op::Read, 0, (length / 512) as u32, &buffers), Status::Good);
    guest.take(&buffers, length)
}

#[test]
fn malloc_unmapped_blocks_read_as_zeroes_and_others_stay() {
    const SIZE: usize = 64 << 10;
    let malloc = Malloc::new("m", SIZE as u64, 512).unwrap();
    let info = malloc.info();
    assert!(info.unmapped_reads_zeroes && info.can.unmap && info.provisioning != Provisioning::Full);
    let mut channel = malloc.open();
    let guest = Guest::new(SIZE);
    let mut model = pattern(&guest, SIZE, 0x5a);
    assert_eq!(write(&mut channel, 0, 128, &[guest.at(0, SIZE)]), Status::Good);
    let extents = [(3, 20), (0, 0), (22, 2), (127, 1)].map(|(lba, blocks)| Extent { lba, blocks });
    assert_eq!(channel.submit(&Io::unmap(&extents, Token(1)), NOW), Submitted::Done(Status::Good));
    model[3 * 512..24 * 512].fill(0);
    model[127 * 512..].fill(0);
    assert_eq!(content(&mut channel, SIZE), model);

    let beyond = [(30, 1), (127, 2)].map(|(lba, blocks)| Extent { lba, blocks });
    assert_eq!(channel.submit(&Io::unmap(&beyond, Token(1)), NOW), Submitted::Done(Status::OutOfRange));
    for unmap in [false, true] {
        assert_eq!(run(&mut channel, Op::WriteZeroes { unmap }, 40 + u64::from(unmap), 1, &[]), Status::Good);
        assert_eq!(run(&mut channel, Op::WriteZeroes { unmap }, 127, 2, &[]), Status::OutOfRange);
    }
    model[40 * 512..42 * 512].fill(0);
    assert_eq!(content(&mut channel, SIZE), model);
}

#[test]
fn malloc_write_same_repeats_one_scattered_block() {
    let mut channel = Malloc::new("m", 64 << 10, 512).unwrap().open();
    let guest = Guest::new(512);
    let buffers = guest.scattered(512, &[100, 101, 700]);
    let block: Vec<u8> = (0..512).map(|at| (at % 255) as u8).collect();
    guest.put(&buffers, &block);
    for (lba, blocks) in [(1, 1), (5, 2), (10, 7), (30, 98), (0, 0)] {
        assert_eq!(run(&mut channel, Op::WriteSame, lba, blocks, &buffers), Status::Good);
    }
    assert_eq!(run(&mut channel, Op::WriteSame, 127, 2, &buffers), Status::OutOfRange);
    assert_eq!(run(&mut channel, Op::WriteSame, 0, 1, &[]), Status::Failed);
    for (lba, found) in content(&mut channel, 64 << 10).chunks(512).enumerate() {
        let written = matches!(lba, 1 | 5 | 6 | 10..=16 | 30..);
        assert_eq!(found, if written { &block[..] } else { &[0; 512] }, "block {lba}");
    }
}

#[test]
fn malloc_compare_tells_the_first_byte_that_differs() {
    let mut channel = Malloc::new("m", 64 << 10, 512).unwrap().open();
    let guest = Guest::new(8192);
    pattern(&guest, 8192, 1);
    assert_eq!(write(&mut channel, 8, 16, &[guest.at(0, 8192)]), Status::Good);
    let pieces = [guest.at(0, 5000), guest.at(5000, 3192)];
    assert_eq!(run(&mut channel, Op::Compare, 8, 16, &pieces), Status::Good);
    assert_eq!(run(&mut channel, Op::Verify, 8, 16, &[]), Status::Good);
    assert_eq!(run(&mut channel, Op::Verify, 120, 16, &[]), Status::OutOfRange);
    for offset in [8191u32, 5000, 4999, 0] {
        let byte = guest.at(offset as usize, 1);
        byte.fill(!byte.read_array::<1>().unwrap()[0]);
        assert_eq!(run(&mut channel, Op::Compare, 8, 16, &pieces), Status::Miscompare { offset });
    }
}

#[test]
fn malloc_compare_and_write_writes_only_if_all_is_equal() {
    let mut channel = Malloc::new("m", 8192, 512).unwrap().open();
    let guest = Guest::new(2048);
    // the halves meet within a buffer
    let buffers = [guest.at(0, 700), guest.at(700, 1348)];
    let exchange = Op::CompareAndWrite { fua: false };
    guest.at(1024, 1024).fill(0x77);
    assert_eq!(run(&mut channel, exchange, 3, 2, &buffers), Status::Good);
    assert_eq!(run(&mut channel, exchange, 3, 2, &buffers), Status::Miscompare { offset: 0 });
    let found = content(&mut channel, 8192);
    assert!(found.iter().enumerate().all(|(at, byte)| *byte == if matches!(at / 512, 3 | 4) { 0x77 } else { 0 }));
    assert_eq!(run(&mut channel, exchange, 3, 1, &buffers), Status::Failed);
    assert_eq!(run(&mut channel, exchange, 15, 2, &buffers), Status::OutOfRange);
}

/// Counts a number in block 0 up by compare-and-write, while others write blocks around it.
#[test]
fn malloc_compare_and_write_of_many_channels_loses_no_count() {
    const ROUNDS: u64 = 2000;
    let malloc = Malloc::new("m", 8192, 512).unwrap();
    let counting = || {
        let (mut channel, guest) = (malloc.open(), Guest::new(1024));
        let mut done = Vec::new();
        let mut counted = 0;
        while counted < ROUNDS {
            let seen = guest.at(0, 8).read_array::<8>().map(u64::from_le_bytes).unwrap();
            guest.at(512, 8).write(&(seen + 1).to_le_bytes());
            let buffers = [guest.at(0, 512), guest.at(512, 512)];
            let io = Io::new(Op::CompareAndWrite { fua: false }, 0, 1, &buffers, Token(3));
            let status = match channel.submit(&io, NOW) {
                Submitted::Done(status) => status,
                Submitted::Pending => {
                    assert_eq!(channel.next_deadline(), Some(Tsc(0)));
                    while channel.poll(NOW, &mut done) == 0 {
                        thread::yield_now();
                    }
                    assert_eq!(channel.next_deadline(), None);
                    done.pop().map(|completion: Completion| completion.status).unwrap()
                }
            };
            counted += u64::from(status == Status::Good);
            assert_eq!(run(&mut channel, Op::Read, 0, 1, &[guest.at(0, 512)]), Status::Good);
        }
    };
    let writing = || {
        let (mut channel, guest) = (malloc.open(), Guest::new(4096));
        let mut done = Vec::new();
        for _ in 0..ROUNDS {
            let buffers = [guest.at(0, 4096)];
            let io = Io::new(Op::Write { fua: false }, 8, 8, &buffers, Token(4));
            if channel.submit(&io, NOW) == Submitted::Pending {
                while channel.poll(NOW, &mut done) == 0 {
                    thread::yield_now();
                }
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(counting);
        scope.spawn(counting);
        scope.spawn(writing);
    });
    let count = content(&mut malloc.open(), 512)[..8].try_into().map(u64::from_le_bytes).unwrap();
    assert_eq!(count, 2 * ROUNDS);
}
