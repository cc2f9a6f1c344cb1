//! What is written is what is read, however the buffers are cut.

use bdev_file::Cache;
use proptest::prelude::*;

use super::*;

/// `length` bytes cut at each of `cuts`, in units of `unit` bytes, backwards in memory.
fn scattered(guest: &Guest, length: usize, cuts: &[usize], unit: usize, shift: usize) -> Vec<GuestSlice> {
    let whole = length / unit;
    let mut edges: Vec<usize> = cuts.iter().map(|cut| cut % (whole + 1) * unit).chain([0, length]).collect();
    edges.sort_unstable();
    edges.windows(2).map(|edge| guest.at(shift + length - edge[1], edge[1] - edge[0])).collect()
}

#[derive(Clone, Debug)]
struct Transfer {
    write: bool,
    lba: u64,
    blocks: u32,
    cuts: Vec<usize>,
    unit: usize,
    shift: usize,
    seed: u8,
}

fn transfer() -> impl Strategy<Value = Transfer> {
    let cuts = prop::collection::vec(0usize..1000, 0..8);
    // aligned for direct I/O, or not
    let unit = prop_oneof![Just((4096, 0)), Just((512, 0)), Just((1, 0)), Just((512, 3)), Just((512, 4096))];
    (any::<bool>(), 0u64..256, 0u32..600, cuts, unit, any::<u8>()).prop_map(
        |(write, lba, blocks, cuts, (unit, shift), seed)| Transfer { write, lba, blocks, cuts, unit, shift, seed },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn file_scattered_transfers_agree_with_a_model(
        block_size in prop_oneof![Just(512u32), Just(4096)],
        direct in any::<bool>(),
        cache in prop_oneof![Just(Cache::Writeback), Just(Cache::Writethrough)],
        transfers in prop::collection::vec(transfer(), 1..20),
    ) {
        const BLOCKS: u64 = 600;
        let size = BLOCKS * u64::from(block_size);
        for place in places() {
            let file = open(&FileConfig { block_size, direct, cache, ..new_file(&place, "f", size) });
            let mut channel = file.open();
            let mut model = vec![0u8; size as usize];
            let guest = Guest::new(size as usize + 2 * 4096);
            for Transfer { write, lba, blocks, cuts, unit, shift, seed } in &transfers {
                let length = *blocks as usize * block_size as usize;
                let buffers = scattered(&guest, length, cuts, *unit, *shift);
                let at = *lba as usize * block_size as usize;
                let fits = at + length <= size as usize;
                let bytes = pattern(length, *seed);
                guest.put(&buffers, &bytes);
                let op = if *write { Op::Write { fua: seed & 1 == 1 } } else { Op::Read };
                let status = run(&mut channel, op, *lba, *blocks, &buffers);
                prop_assert_eq!(status, if fits { Status::Good } else { Status::OutOfRange });
                match (write, fits) {
                    (true, true) => model[at..at + length].copy_from_slice(&bytes),
                    (false, true) => prop_assert_eq!(&guest.take(&buffers), &model[at..at + length]),
                    (_, false) => prop_assert_eq!(guest.take(&buffers), bytes),
                }
            }
            prop_assert_eq!(run(&mut channel, Op::Flush, 0, 0, &[]), Status::Good);
            prop_assert_eq!(content(&file), std::fs::read(path(&place, "f")).unwrap());
            prop_assert_eq!(content(&file), model);
        }
    }
}

#[test]
fn file_unaligned_buffers_of_a_direct_file_take_the_bounce_buffer_and_are_counted() {
    for place in places() {
        let file = open(&new_file(&place, "f", 4 << 20));
        if !file.is_direct() {
            eprintln!("SKIPPED: no O_DIRECT: {:?}", file.notes());
            continue;
        }
        let (mut channel, guest) = (file.open(), Guest::new(5 << 20));
        let bytes = pattern(4 << 20, 9);
        let aligned = [guest.at(0, 4 << 20)];
        guest.put(&aligned, &bytes);
        assert_eq!(run(&mut channel, WRITE, 0, 8192, &aligned), Status::Good);
        assert_eq!(file.counts().bounced, 0);
        // larger than a bounce buffer, so in pieces; more of them at once than there are buffers
        let unaligned = [guest.at(1, 4 << 20)];
        assert_eq!(run(&mut channel, Op::Read, 0, 8192, &unaligned), Status::Good);
        assert_eq!(guest.take(&unaligned), bytes);
        assert_eq!(file.counts().bounced, 16);
        let mut done = Vec::new();
        for n in 0..100 {
            let buffers = [guest.at(3 + n * 1024, 1024)];
            guest.put(&buffers, &[n as u8; 1024]);
            let io = Io::new(WRITE, 2 * n as u64, 2, &buffers, Token(n as u64));
            assert_eq!(channel.submit(&io, NOW), Submitted::Pending);
        }
        channel.flush_submissions();
        wait_for(&mut channel, &mut done, 100);
        assert!(done.iter().all(|completion| completion.status == Status::Good));
        let found = content(&file);
        assert!((0..100).all(|n| found[n * 1024..][..1024] == [n as u8; 1024]));
    }
}

#[test]
fn file_transfer_of_more_buffers_than_a_call_takes_is_whole() {
    const BUFFERS: usize = 2600;
    for (place, direct) in places().iter().flat_map(|place| [(place, true), (place, false)]) {
        let name = format!("f{direct}");
        let file = open(&FileConfig { direct, ..new_file(place, &name, BUFFERS as u64 * 512) });
        let (mut channel, guest) = (file.open(), Guest::new(BUFFERS * 512));
        let buffers: Vec<GuestSlice> = (0..BUFFERS).rev().map(|n| guest.at(n * 512, 512)).collect();
        let bytes = pattern(BUFFERS * 512, 77);
        guest.put(&buffers, &bytes);
        assert_eq!(run(&mut channel, WRITE, 0, BUFFERS as u32, &buffers), Status::Good);
        assert_eq!(content(&file), bytes);
        guest.put(&buffers, &vec![0; BUFFERS * 512]);
        assert_eq!(run(&mut channel, Op::Read, 0, BUFFERS as u32, &buffers), Status::Good);
        assert_eq!(guest.take(&buffers), bytes);
    }
}

#[test]
fn file_more_requests_than_the_ring_holds_all_end() {
    const REQUESTS: usize = 1000;
    for place in places() {
        let file = open(&new_file(&place, "f", REQUESTS as u64 * 4096));
        let (mut channel, guest) = (file.open(), Guest::new(REQUESTS * 4096));
        let bytes = pattern(REQUESTS * 4096, 3);
        guest.put(&[guest.at(0, REQUESTS * 4096)], &bytes);
        let mut done = Vec::new();
        for n in 0..REQUESTS {
            let buffers = [guest.at(n * 4096, 4096)];
            let io = Io::new(WRITE, 8 * n as u64, 8, &buffers, Token(n as u64));
            assert_eq!(channel.submit(&io, NOW), Submitted::Pending);
        }
        channel.flush_submissions();
        wait_for(&mut channel, &mut done, REQUESTS);
        done.sort_unstable_by_key(|completion| completion.token);
        let expected = |n| Completion { token: Token(n), status: Status::Good };
        assert!((0..REQUESTS as u64).zip(&done).all(|(n, found)| *found == expected(n)));
        assert_eq!(content(&file), bytes);
    }
}

#[test]
fn file_channels_on_two_threads_share_the_file() {
    for place in places() {
        let file = open(&new_file(&place, "f", 2 << 20));
        let write_half = |half: u64| {
            let (mut channel, guest) = (file.open(), Guest::new(4096));
            for n in 0..256 {
                guest.at(0, 4096).fill((n as u8) ^ (half as u8) << 7);
                let lba = half * 2048 + n * 8;
                assert_eq!(run(&mut channel, WRITE, lba, 8, &[guest.at(0, 4096)]), Status::Good);
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| write_half(0));
            scope.spawn(|| write_half(1));
        });
        let expected = |at: usize| ((at / 4096) % 256) as u8 ^ ((at >> 20) as u8) << 7;
        assert!(content(&file).iter().enumerate().all(|(at, byte)| *byte == expected(at)));
    }
}

#[test]
fn file_polled_batch_enters_the_kernel_once() {
    for place in places() {
        let file = open(&new_file(&place, "f", 1 << 20));
        let (mut channel, guest) = (file.open(), Guest::new(32 * 4096));
        let mut done = Vec::new();
        let (mut batches, before) = (0, file.counts().enters);
        for round in 0..50u64 {
            for n in 0..32 {
                let buffers = [guest.at(n as usize * 4096, 4096)];
                let io = Io::new(if round % 2 == 0 { WRITE } else { Op::Read }, n * 8, 8, &buffers, Token(n));
                assert_eq!(channel.submit(&io, NOW), Submitted::Pending);
            }
            channel.flush_submissions();
            batches += 1;
            while done.len() < 32 {
                channel.poll(NOW, &mut done);
                channel.flush_submissions();
                batches += 1;
            }
            done.clear();
        }
        let enters = file.counts().enters - before;
        assert!((1..=batches).contains(&enters), "{enters} enters in {batches} batches");
    }
}
