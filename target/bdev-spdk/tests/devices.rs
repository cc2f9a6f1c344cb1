//! SPDK's malloc, null, delay and error bdevs as devices, on a poller of the reactor.
#![cfg(feature = "libspdk")]

mod world;

use bdev::{Bdev, Io, Op, Provisioning, Status, Submitted, Token};
use bdev_spdk::{BdevEvent, SpdkBdev};
use guest_memory::GuestSlice;
use serde_json::json;
use world::{Guest, User, WRITE, World, pattern, syscalls};

/// Every test has a process of its own, as SPDK is started once a process: so they are one test, in steps.
#[test]
fn devices_do_what_the_trait_says() {
    let world = World::new();
    device_says_what_it_is(&world);
    data_of_memory_that_spdk_knows_goes_straight(&world);
    data_of_other_memory_goes_through_the_pool(&world);
    data_that_is_not_aligned_as_the_bdev_wants_it_goes_through_the_pool(&world);
    data_of_memory_that_is_lent_moves_between_any_buffers(&world);
    transfers_that_find_the_pool_empty_wait(&world);
    operations_change_the_medium_as_they_say(&world);
    compared_data_that_differs_is_told_where(&world);
    requests_that_cannot_be_are_refused(&world);
    more_requests_than_spdk_has_room_for_all_end(&world);
    failures_of_the_bdev_become_statuses(&world);
    compare_and_write_that_could_not_compare_is_done_again(&world);
    channel_that_spdk_refuses_is_busy_until_there_is_one(&world);
    compare_and_write_that_is_overtaken_again_and_again_is_busy(&world);
    channel_that_is_dropped_waits_for_its_requests(&world);
    world.keep();
    requests_that_the_bdev_keeps_are_aborted_one_by_one(&world);
    requests_that_the_bdev_keeps_are_given_back_by_a_reset(&world);
    requests_that_wait_for_the_pool_are_given_up_by_a_reset(&world);
    requests_that_wait_for_room_are_given_up_by_a_reset(&world);
    resized_bdev_has_its_new_blocks_at_once(&world);
    removed_bdev_is_gone_and_lets_go(&world);
    steady_state_allocates_nothing(&world);
    steady_state_asks_nothing_of_the_kernel(&world);
    world.end();
}

fn device_says_what_it_is(world: &World) {
    let malloc = world.open("Malloc0");
    let info = malloc.info();
    assert_eq!((info.name.as_str(), info.kind, malloc.product()), ("disk", "spdk", "Malloc disk"));
    assert_eq!((info.block_size, info.block_count, info.read_only), (512, 16384, false));
    assert!(info.can.unmap && info.can.write_zeroes && info.can.compare_and_write && !info.can.block_status);
    assert_eq!((info.provisioning, info.compare_and_write_blocks_max), (Provisioning::Thin, 1));
    let read_only = SpdkBdev::open(&world.spdk, "ro", "Null0", true).unwrap();
    assert!(read_only.info().read_only && !read_only.info().can.unmap);
    let text = |bdev: &str| SpdkBdev::open(&world.spdk, "x", bdev, false).err().unwrap().to_string();
    assert_eq!(text("Nothing"), "SPDK has no bdev \"Nothing\"");
    assert_eq!(text("Base0"), "SPDK's bdev \"Base0\" is claimed: another bdev stands on it");
    assert_eq!(
        text("Odd0"),
        "SPDK's bdev \"Odd0\" has a geometry that guests cannot use: block_size is 1024, must be 512 or 4096"
    );
}

fn data_of_memory_that_spdk_knows_goes_straight(world: &World) {
    let before = world.spdk.memory_counts();
    let (guest, disk) = (Guest::known(4 << 20), world.open("Pass0"));
    let now = world.spdk.memory_counts();
    assert_eq!(now.mapped_bytes - before.mapped_bytes, 4 << 20);
    let user = world.user(&disk);
    let data = pattern(65536, 5);
    guest.at(4096, 65536).write(&data);
    assert_eq!(user.run(WRITE, 17, 128, &[guest.at(4096, 65536)]), Status::Good);
    let scattered = [guest.at(1 << 20, 512), guest.at(2 << 20, 65536 - 512 - 1024), guest.at(3 << 20, 1024)];
    assert_eq!(user.run(Op::Read, 17, 128, &scattered), Status::Good);
    let read: Vec<u8> = [(1 << 20, 512), (2 << 20, 65536 - 512 - 1024), (3 << 20, 1024)]
        .into_iter()
        .flat_map(|(at, len)| guest.read(at, len))
        .collect();
    assert_eq!(read, data);
    assert_eq!(user.run(Op::Flush, 0, 0, &[]), Status::Good);
    assert_eq!(user.run(Op::Write { fua: true }, 17, 1, &[guest.at(0, 512)]), Status::Good);
    user.close();
    let counts = disk.counts();
    if now.registered_bytes - before.registered_bytes == 4 << 20 {
        assert_eq!((counts.direct, counts.bounced), (3, 0));
    } else {
        assert_eq!(counts.direct + counts.bounced, 3); // an SPDK that takes huge pages only
    }
    drop(guest);
    assert_eq!(world.spdk.memory_counts(), before);
}

/// Buffers of odd lengths that cut blocks anywhere.
fn odd_slices(guest: &Guest, mut at: usize, len: usize) -> Vec<GuestSlice> {
    let mut slices = Vec::new();
    let end = at + len;
    for size in [1, 511, 513, 100_000, 7, 262_144].into_iter().cycle() {
        let size = size.min(end - at);
        slices.push(guest.at(at, size));
        at += size;
        if at == end {
            break;
        }
    }
    slices
}

fn data_of_other_memory_goes_through_the_pool(world: &World) {
    const LEN: usize = 3 << 20; // several pieces of the pool's
    let (guest, disk) = (Guest::unknown(2 * LEN), world.open("Pass0"));
    let user = world.user(&disk);
    let data = pattern(LEN, 9);
    guest.at(0, LEN).write(&data);
    assert_eq!(user.run(WRITE, 3, (LEN / 512) as u32, &odd_slices(&guest, 0, LEN)), Status::Good);
    assert_eq!(user.run(Op::Read, 3, (LEN / 512) as u32, &odd_slices(&guest, LEN, LEN)), Status::Good);
    assert!(guest.read(LEN, LEN) == data, "what was read is what was written");
    user.close();
    let counts = disk.counts();
    assert_eq!((counts.direct, counts.bounced), (0, 2));
}

/// A file wants whole blocks at addresses of whole blocks. SPDK would move what is not so, but no more than fits one buffer.
fn data_that_is_not_aligned_as_the_bdev_wants_it_goes_through_the_pool(world: &World) {
    const LEN: usize = 512 << 10;
    let (guest, disk) = (Guest::known(4 << 20), world.open("EE_Aio0"));
    let user = world.user(&disk);
    let data = pattern(LEN, 15);
    guest.at(4, LEN).write(&data);
    assert_eq!(user.run(WRITE, 8, (LEN / 512) as u32, &[guest.at(4, LEN)]), Status::Good);
    let (first, second) = (guest.at(1 << 20, 100), guest.at(2 << 20, LEN - 100));
    assert_eq!(user.run(Op::Read, 8, (LEN / 512) as u32, &[first, second]), Status::Good);
    assert!([guest.read(1 << 20, 100), guest.read(2 << 20, LEN - 100)].concat() == data);
    assert_eq!(user.run(Op::Read, 8, 8, &[guest.at(0, 4096)]), Status::Good);
    user.close();
    assert!(disk.counts().bounced >= 2, "{:?}", disk.counts());
}

/// A malloc bdev is memory, which it lends: any buffers will do, and of any length.
fn data_of_memory_that_is_lent_moves_between_any_buffers(world: &World) {
    let disk = world.open("Malloc0");
    let mut moved = 0;
    for guest in [Guest::known(8 << 20), Guest::unknown(8 << 20)] {
        let user = world.user(&disk);
        for (len, seed) in [(512, 3), (4096, 4), (96 << 10, 5), (3 << 20, 6)] {
            let (data, blocks) = (pattern(len, seed), (len / 512) as u32);
            guest.at(0, len).write(&data);
            assert_eq!(user.run(WRITE, 33, blocks, &odd_slices(&guest, 0, len)), Status::Good);
            assert_eq!(user.run(Op::Read, 33, blocks, &odd_slices(&guest, 4 << 20, len)), Status::Good);
            assert!(guest.read(4 << 20, len) == data, "{len} bytes");
            moved += 2;
        }
        // The others know of what was lent, and it of what they have written.
        assert_eq!(user.run(Op::WriteZeroes { unmap: false }, 34, 1, &[]), Status::Good);
        assert_eq!(user.run(Op::Read, 33, 3, &[guest.at(4 << 20, 1536)]), Status::Good);
        let expected = [&pattern(3 << 20, 6)[..512], &[0; 512], &pattern(3 << 20, 6)[1024..1536]].concat();
        assert_eq!(guest.read(4 << 20, 1536), expected);
        moved += 1;
        user.close();
    }
    let counts = disk.counts();
    assert_eq!((counts.lent, counts.direct, counts.bounced), (moved, 0, 0));
    let read_only = SpdkBdev::open(&world.spdk, "ro", "Malloc0", true).unwrap();
    let (guest, user) = (Guest::unknown(4096), world.user(&read_only));
    assert_eq!(user.run(Op::Read, 34, 1, &[guest.at(7, 512)]), Status::Good);
    assert_eq!(guest.read(7, 512), [0; 512]);
    assert_eq!(user.run(WRITE, 34, 1, &[guest.at(7, 512)]), Status::WriteProtected);
    user.close();
    assert_eq!(read_only.counts().lent, 1);
}

/// 64 large buffers are in the pool; 40 transfers of 1 MiB each want 8 or more at a time.
fn transfers_that_find_the_pool_empty_wait(world: &World) {
    const LEN: usize = 1 << 20;
    let (guest, disk) = (Guest::unknown(2 * LEN), world.open("Delay0"));
    let user = world.user(&disk);
    guest.at(0, LEN).write(&pattern(LEN, 11));
    assert_eq!(user.run(WRITE, 0, (LEN / 512) as u32, &[guest.at(0, LEN)]), Status::Good);
    // All in one go on the poller: none has ended before the last one begins, however little this thread gets to run.
    let buffers = [guest.at(LEN, LEN)];
    let begun = move |rig: &mut world::Rig| {
        let read = |token| Io::new(Op::Read, 0, (LEN / 512) as u32, &buffers, Token(token));
        (0..40).all(|token| rig.channel.submit(&read(token), reactor::Tsc::now()) == Submitted::Pending)
    };
    assert!(user.0.call(begun).unwrap());
    let mut tokens: Vec<u64> = (0..40)
        .map(|_| {
            let completion = user.end();
            assert_eq!(completion.status, Status::Good);
            completion.token.0
        })
        .collect();
    tokens.sort_unstable();
    assert!(tokens.iter().copied().eq(0..40));
    assert!(guest.read(LEN, LEN) == pattern(LEN, 11));
    user.close();
    // Each piece waits once at most, however often it is looked whether there is a buffer; a piece has one at least.
    let pieces = 41 * LEN.div_ceil(128 << 10) as u64;
    assert!((1..=pieces).contains(&disk.counts().starved), "{:?}, {pieces} pieces at most", disk.counts());
}

fn operations_change_the_medium_as_they_say(world: &World) {
    let (guest, disk) = (Guest::known(4 << 20), world.open("Malloc0"));
    let user = world.user(&disk);
    let (data, block) = (pattern(64 * 512, 21), pattern(512, 33));
    guest.at(0, data.len()).write(&data);
    guest.at(1 << 20, 512).write(&block);
    assert_eq!(user.run(WRITE, 1000, 64, &[guest.at(0, data.len())]), Status::Good);
    assert_eq!(
        user.run(Op::WriteSame, 1004, 3, &[guest.at(1 << 20, 100), guest.at((1 << 20) + 100, 412)]),
        Status::Good
    );
    assert_eq!(user.run(Op::WriteZeroes { unmap: false }, 1010, 2, &[]), Status::Good);
    assert_eq!(user.run_unmap(&[(1020, 1), (1030, 0), (1022, 2), (1040, 1)]), Status::Good);
    assert_eq!(user.run(Op::Verify, 1000, 64, &[]), Status::Good);
    assert_eq!(user.run(Op::Read, 1000, 64, &[guest.at(2 << 20, data.len())]), Status::Good);
    let mut expected = data;
    let mut set = |lba: usize, content: &[u8]| expected[(lba - 1000) * 512..][..512].copy_from_slice(content);
    for lba in 1004..1007 {
        set(lba, &block);
    }
    for lba in [1010, 1011, 1020, 1022, 1023, 1040] {
        set(lba, &[0; 512]);
    }
    assert!(guest.read(2 << 20, expected.len()) == expected);
    user.close();
}

fn compared_data_that_differs_is_told_where(world: &World) {
    const LEN: usize = 2 << 20; // two pieces of the pool's
    let disk = world.open("Malloc0");
    for guest in [Guest::known(4 << 20), Guest::unknown(4 << 20)] {
        let user = world.user(&disk);
        guest.at(0, LEN).write(&pattern(LEN, 40));
        assert_eq!(user.run(WRITE, 2000, (LEN / 512) as u32, &[guest.at(0, LEN)]), Status::Good);
        let buffers = odd_slices(&guest, 0, LEN);
        assert_eq!(user.run(Op::Compare, 2000, (LEN / 512) as u32, &buffers), Status::Good);
        let differs = LEN - 700;
        guest.at(differs, 1).write(&[!guest.read(differs, 1)[0]]);
        let status = user.run(Op::Compare, 2000, (LEN / 512) as u32, &buffers);
        assert_eq!(status, Status::Miscompare { offset: differs as u32 });
        // The first half of a compare-and-write is what is there, the second what is to be.
        let (old, new) = (guest.at(0, 512), guest.at(3 << 20, 512));
        new.write(&pattern(512, 77));
        let (caw, mut same) = (Op::CompareAndWrite { fua: true }, [0; 100]);
        assert_eq!(user.run(caw, 2000, 1, &[old, new]), Status::Good);
        // SPDK does not say where they differ: bytes 100 to 511 do.
        new.subslice(0, 100).unwrap().read(&mut same);
        old.subslice(0, 100).unwrap().write(&same);
        assert_eq!(user.run(caw, 2000, 1, &[old, new]), Status::Miscompare { offset: 100 });
        let (a, b) = (old.subslice(0, 300).unwrap(), old.subslice(300, 212).unwrap());
        assert_eq!(user.run(caw, 2000, 1, &[a, b, new]), Status::Miscompare { offset: 100 });
        assert_eq!(user.run(Op::Compare, 2000, 1, &[new]), Status::Good);
        user.close();
    }
}

fn requests_that_cannot_be_are_refused(world: &World) {
    let (guest, disk) = (Guest::known(1 << 20), world.open("Malloc0"));
    let user = world.user(&disk);
    let block = guest.at(0, 512);
    assert_eq!(user.run(Op::Read, 16384, 1, &[block]), Status::OutOfRange);
    assert_eq!(user.run(WRITE, u64::MAX, 1, &[block]), Status::OutOfRange);
    assert_eq!(user.run(WRITE, 0, 2, &[block]), Status::Failed);
    assert_eq!(user.run(Op::Read, 5, 0, &[]), Status::Good);
    assert_eq!(user.run_unmap(&[(0, 1), (16384, 1)]), Status::OutOfRange);
    assert_eq!(user.run_unmap(&[(5, 0)]), Status::Good);
    assert_eq!(user.run(Op::BlockStatus { runs_max: 1 }, 0, 0, &[]), Status::Unsupported);
    user.close();
    let read_only = SpdkBdev::open(&world.spdk, "ro", "Null0", true).unwrap();
    let user = world.user(&read_only);
    assert_eq!(user.run(WRITE, 0, 1, &[guest.at(0, 4096)]), Status::WriteProtected);
    assert_eq!(user.run(Op::Flush, 0, 0, &[]), Status::Good);
    user.close();
}

/// SPDK has 511 requests.
fn more_requests_than_spdk_has_room_for_all_end(world: &World) {
    let (guest, disk) = (Guest::known(2 << 20), world.open("Null0"));
    let user = world.user(&disk);
    let begun = user.0.call({
        let block = guest.at(0, 4096);
        move |rig| {
            let now = reactor::Tsc::now();
            let io = |token| bdev::Io { token: Token(token), ..Io::new(Op::Read, 0, 1, &[], Token(0)) };
            (0..1000).all(|token| {
                rig.channel.submit(&bdev::Io { buffers: &[block], ..io(token) }, now) == Submitted::Pending
            })
        }
    });
    assert_eq!(begun, Ok(true));
    let mut tokens: Vec<u64> = (0..1000)
        .map(|_| user.end())
        .map(|completion| {
            assert_eq!(completion.status, Status::Good);
            completion.token.0
        })
        .collect();
    tokens.sort_unstable();
    assert!(tokens.iter().copied().eq(0..1000));
    user.close();
    assert!(disk.counts().waited > 0, "{:?}", disk.counts());
}

fn failures_of_the_bdev_become_statuses(world: &World) {
    let (guest, disk) = (Guest::known(1 << 20), world.open("EE_Base0"));
    let user = world.user(&disk);
    let inject = |io_type: &str, error_type: &str| {
        let params = json!({"name": "EE_Base0", "io_type": io_type, "error_type": error_type, "num": 1});
        assert_eq!(world.call("bdev_error_inject_error", params), true);
    };
    let block = [guest.at(0, 512)];
    inject("read", "failure");
    assert_eq!(user.run(Op::Read, 0, 1, &block), Status::ReadError);
    inject("write", "failure");
    assert_eq!(user.run(WRITE, 0, 1, &block), Status::WriteError);
    inject("write", "nomem");
    assert_eq!(user.run(WRITE, 0, 1, &block), Status::Good, "SPDK tries again");
    assert_eq!(user.run(Op::Read, 0, 1, &block), Status::Good);
    user.close();
}

/// SPDK compares what it reads for a bdev that cannot compare, and calls everything a difference that keeps it from that.
fn compare_and_write_that_could_not_compare_is_done_again(world: &World) {
    let (guest, disk) = (Guest::known(1 << 20), world.open("EE_Aio0"));
    let user = world.user(&disk);
    let fail_reads = |times: u32| {
        let params = json!({"name": "EE_Aio0", "io_type": "read", "error_type": "failure", "num": times});
        assert_eq!(world.call("bdev_error_inject_error", params), true);
    };
    let caw = Op::CompareAndWrite { fua: false };
    let (old, new) = (guest.at(0, 512), guest.at(4096, 512));
    old.write(&pattern(512, 60));
    new.write(&pattern(512, 61));
    assert_eq!(user.run(WRITE, 0, 1, &[old]), Status::Good);
    fail_reads(1);
    assert_eq!(user.run(caw, 0, 1, &[old, new]), Status::Good, "what could not be compared is compared again");
    assert_eq!(user.run(Op::Compare, 0, 1, &[new]), Status::Good);
    fail_reads(1 << 20);
    assert_eq!(user.run(caw, 0, 1, &[new, old]), Status::ReadError, "and what cannot be read is no difference");
    fail_reads(0);
    assert_eq!(user.run(Op::Compare, 0, 1, &[new]), Status::Good, "nothing was written");
    user.close();
}

/// The first user of that bdev on this thread: a channel that is there would be shared.
fn channel_that_spdk_refuses_is_busy_until_there_is_one(world: &World) {
    let (guest, disk) = (Guest::known(1 << 20), world.open(spdk_lab::BDEV));
    let user = world.user(&disk);
    spdk_lab::refuse_channels(true);
    for _ in 0..2 {
        assert_eq!(user.run(Op::Read, 0, 1, &[guest.at(0, 512)]), Status::Busy);
    }
    user.abort(7); // there is nothing that could be given up
    spdk_lab::refuse_channels(false);
    assert_eq!(user.run(Op::Read, 0, 1, &[guest.at(0, 512)]), Status::Good);
    user.close();
}

/// The bdev says that data differs which is the same when it is looked at, as if others wrote in between.
fn compare_and_write_that_is_overtaken_again_and_again_is_busy(world: &World) {
    let (guest, disk) = (Guest::known(1 << 20), world.open(spdk_lab::BDEV));
    let user = world.user(&disk);
    let (old, new) = (guest.at(0, 512), guest.at(4096, 512));
    old.write(&pattern(512, 70));
    new.write(&pattern(512, 75));
    assert_eq!(user.run(WRITE, 0, 1, &[old]), Status::Good);
    for (times, status, there) in [(8, Status::Busy, old), (7, Status::Good, new)] {
        let before = spdk_lab::compared();
        spdk_lab::miscompare(times);
        assert_eq!(user.run(Op::CompareAndWrite { fua: false }, 0, 1, &[old, new]), status);
        assert_eq!(spdk_lab::compared() - before, 8, "done eight times at most");
        assert_eq!(user.run(Op::Compare, 0, 1, &[there]), Status::Good, "nothing was written if it was busy");
    }
    assert_eq!(user.run(Op::CompareAndWrite { fua: false }, 0, 1, &[old, new]), Status::Miscompare { offset: 1 });
    user.close();
}

/// The delay bdev holds reads for a while: the drop comes earlier, and ends later.
fn channel_that_is_dropped_waits_for_its_requests(world: &World) {
    let (guest, disk) = (Guest::known(2 << 20), world.open("Delay0"));
    let user = world.user(&disk);
    guest.at(0, 4096).write(&pattern(4096, 50));
    assert_eq!(user.run(WRITE, 8, 8, &[guest.at(0, 4096)]), Status::Good);
    for token in 0..3 {
        let buffers = vec![guest.at(8192 * (token as usize + 1), 4096)];
        assert_eq!(user.begin(Op::Read, 8, 8, buffers, token), Submitted::Pending);
    }
    user.close();
    for token in 0..3 {
        assert!(guest.read(8192 * (token + 1), 4096) == pattern(4096, 50), "request {token} has ended");
    }
}

/// Token of a reset.
const RESET: u64 = 0xffff_0000;

fn reset(user: &User) {
    assert_eq!(user.begin(Op::Reset, 0, 0, vec![], RESET), Submitted::Pending);
}

fn requests_that_the_bdev_keeps_are_aborted_one_by_one(world: &World) {
    let (known, unknown) = (Guest::known(1 << 20), Guest::unknown(1 << 20));
    let disk = world.open("Keeper0");
    let user = world.user(&disk);
    for (token, guest) in [(1, &known), (2, &unknown), (3, &known), (4, &unknown), (5, &known)] {
        let buffers = vec![guest.at(4096 * token as usize, 4096)];
        assert_eq!(user.begin(Op::Read, 8 * token, 8, buffers, token), Submitted::Pending);
    }
    for token in [3, 2] {
        user.abort(token);
        assert_eq!(user.ends(1, Status::Aborted), [token]);
        user.abort(token); // it is not there any more
    }
    let other = world.user(&disk);
    other.abort(1); // it is not on this one
    assert_eq!(user.run(WRITE, 0, 8, &[known.at(0, 4096)]), Status::Good, "the others are still kept");
    [1, 4, 5].into_iter().for_each(|token| user.abort(token));
    assert_eq!(user.ends(3, Status::Aborted), [1, 4, 5]);
    other.close();
    user.close();
}

/// Two channels, and requests of one and of several steps.
fn requests_that_the_bdev_keeps_are_given_back_by_a_reset(world: &World) {
    let (known, unknown) = (Guest::known(1 << 20), Guest::unknown(1 << 20));
    let disk = world.open("EE_Base0");
    assert!(disk.info().can.reset);
    let users = [world.user(&disk), world.user(&disk)];
    for (io_type, count) in [("write", 4), ("unmap", 1)] {
        let params = json!({"name": "EE_Base0", "io_type": io_type, "error_type": "pending", "num": count});
        assert_eq!(world.call("bdev_error_inject_error", params), true);
    }
    let write = |user: &User, token: u64, guest: &Guest| {
        assert_eq!(user.begin(WRITE, 0, 8, vec![guest.at(0, 4096)], token), Submitted::Pending);
    };
    for (number, user) in users.iter().enumerate() {
        write(user, 10 * number as u64, &known);
        write(user, 10 * number as u64 + 1, &unknown);
    }
    let begin_unmap = |rig: &mut world::Rig| {
        let extents = [(0, 1), (8, 1), (16, 1)].map(|(lba, blocks)| bdev::Extent { lba, blocks });
        rig.channel.submit(&Io::unmap(&extents, Token(12)), reactor::Tsc::now())
    };
    assert_eq!(users[1].0.call(begin_unmap).unwrap(), Submitted::Pending);
    // It has gone through SPDK's thread, and they have not ended.
    assert_eq!(users[0].run(Op::Read, 0, 8, &[known.at(8192, 4096)]), Status::Good);
    reset(&users[0]);
    assert_eq!(users[1].ends(3, Status::Aborted), [10, 11, 12]);
    let mut ended: Vec<_> = (0..3).map(|_| users[0].end()).map(|end| (end.token.0, end.status)).collect();
    ended.sort_unstable_by_key(|(token, _)| *token);
    assert_eq!(ended, [(0, Status::Aborted), (1, Status::Aborted), (RESET, Status::Good)]);
    for user in users {
        assert_eq!(user.run(WRITE, 0, 8, &[known.at(0, 4096)]), Status::Good);
        user.close();
    }
}

/// As many transfers of 1 MiB as fill the pool twice: some wait for it, and are done with it for good.
fn requests_that_wait_for_the_pool_are_given_up_by_a_reset(world: &World) {
    const LEN: usize = 1 << 20;
    let (guest, disk) = (Guest::unknown(LEN), world.open("Keeper0"));
    let user = world.user(&disk);
    let begin = |token| user.begin(Op::Read, 0, (LEN / 512) as u32, vec![guest.at(0, LEN)], token);
    assert!((0..20).all(|token| begin(token) == Submitted::Pending));
    user.abort(19);
    assert_eq!(user.ends(1, Status::Aborted), [19], "one that waits for the pool");
    reset(&user);
    let mut ended: Vec<_> = (0..20).map(|_| user.end()).map(|end| (end.token.0, end.status)).collect();
    ended.sort_unstable_by_key(|(token, _)| *token);
    let expected = (0..19).map(|token| (token, Status::Aborted)).chain([(RESET, Status::Good)]);
    assert_eq!(ended, expected.collect::<Vec<_>>());
    user.close();
    assert!(disk.counts().starved > 0, "{:?}", disk.counts());
}

/// SPDK has 511 requests, and nearly all are kept. One of another device gives its place back: to the reset, not to a request that
/// would be kept again.
fn requests_that_wait_for_room_are_given_up_by_a_reset(world: &World) {
    const COUNT: u64 = 600;
    let (guest, disk, other) = (Guest::known(1 << 20), world.open("Keeper0"), world.open("Delay0"));
    let user = world.user(&disk);
    // All in one go on the poller, so that nothing ends before everything has begun.
    let (mut channel, block) = (other.open(), [guest.at(0, 4096)]);
    let begin = move |rig: &mut world::Rig| {
        let now = reactor::Tsc::now();
        let read = |token| Io::new(Op::Read, 0, 8, &block, Token(token));
        assert_eq!(channel.submit(&read(0), now), Submitted::Pending);
        assert!((0..COUNT).all(|token| rig.channel.submit(&read(token), now) == Submitted::Pending));
        assert_eq!(rig.channel.submit(&Io::reset(Token(RESET)), now), Submitted::Pending);
        channel
    };
    let done = Vec::with_capacity(1024);
    let rig = world::Rig { channel: user.0.call(begin).unwrap(), done, allocations: 0 };
    let other_user = User(world.reactor.pollers()[0].add(rig));
    assert_eq!(other_user.end().status, Status::Good);
    let mut ended: Vec<_> = (0..=COUNT).map(|_| user.end()).map(|end| (end.token.0, end.status)).collect();
    ended.sort_unstable_by_key(|(token, _)| *token);
    let expected = (0..COUNT).map(|token| (token, Status::Aborted)).chain([(RESET, Status::Good)]);
    assert!(ended.into_iter().eq(expected));
    assert!(disk.counts().waited > 0, "{:?}", disk.counts());
    other_user.close();
    user.close();
}

fn resized_bdev_has_its_new_blocks_at_once(world: &World) {
    let (guest, disk) = (Guest::known(1 << 20), world.open("Null0"));
    let user = world.user(&disk);
    assert_eq!(user.run(Op::Read, 4096, 1, &[guest.at(0, 4096)]), Status::OutOfRange);
    assert_eq!(world.call("bdev_null_resize", json!({"name": "Null0", "new_size": 17})), true);
    let event = world.events.recv().unwrap();
    assert_eq!(event, ("disk".to_owned(), BdevEvent::Resized { block_count: 4352 }));
    assert_eq!(disk.block_count(), 4352);
    assert_eq!(user.run(Op::Read, 4351, 1, &[guest.at(0, 4096)]), Status::Good);
    assert_eq!(user.run(Op::Read, 4352, 1, &[guest.at(0, 4096)]), Status::OutOfRange);
    user.close();
}

fn removed_bdev_is_gone_and_lets_go(world: &World) {
    let (guest, disk) = (Guest::known(1 << 20), world.open("Gone0"));
    let user = world.user(&disk);
    assert_eq!(user.run(WRITE, 0, 1, &[guest.at(0, 512)]), Status::Good);
    let removal = world.begin_call("bdev_malloc_delete", json!({"name": "Gone0"}));
    assert_eq!(world.events.recv().unwrap(), ("disk".to_owned(), BdevEvent::Removed));
    assert!(disk.is_removed());
    assert_eq!(user.run(Op::Read, 0, 1, &[guest.at(0, 512)]), Status::Gone);
    assert!(!removal.is_finished(), "it waits for whoever has it open");
    user.close();
    drop(disk);
    assert_eq!(removal.join().unwrap(), true);
    assert!(SpdkBdev::open(&world.spdk, "again", "Gone0", false).is_err());
}

fn steady_state_allocates_nothing(world: &World) {
    let (guest, disk) = (Guest::known(2 << 20), world.open("Null0"));
    let user = world.user(&disk);
    let block = guest.at(0, 4096);
    let batch = move |rig: &mut world::Rig| {
        rig.allocations = 0;
        allocation_counter::measure(|| {
            for token in 0..64 {
                let op = if token % 2 == 0 { Op::Read } else { WRITE };
                let io = Io::new(op, token, 1, std::slice::from_ref(&block), Token(token));
                assert_eq!(rig.channel.submit(&io, reactor::Tsc::now()), Submitted::Pending);
            }
        })
        .count_total
    };
    for warm in [false, true] {
        let allocations = user.0.call(batch).unwrap();
        (0..64).for_each(|_| assert_eq!(user.end().status, Status::Good));
        let polls = user.0.call(|rig| rig.allocations).unwrap();
        assert!(!warm || (allocations, polls) == (0, 0), "{allocations} in submissions, {polls} in polls");
    }
    user.close();
}

/// From the first of a batch's submissions to the poll that has ended all of it: nothing for bdevs in memory, and of those over a file
/// one `io_uring_enter` a poll at most, which is SPDK's.
fn steady_state_asks_nothing_of_the_kernel(world: &World) {
    let guest = Guest::known(2 << 20);
    for (bdev, in_memory) in [("Malloc0", true), ("Null0", true), ("Pass0", true), ("Uring0", false)] {
        let disk = world.open(bdev);
        let (user, blocks) = (world.user(&disk), 4096 / disk.info().block_size);
        let block = guest.at(0, 4096);
        let batch = move |rig: &mut world::Rig| {
            let world::Rig { channel, done, .. } = rig;
            let (mut polls, mut ended) = (0, 0);
            let calls = syscalls::measure(|| {
                for token in 0..64 {
                    let op = if token % 2 == 0 { Op::Read } else { WRITE };
                    let io = Io::new(op, token, blocks, std::slice::from_ref(&block), Token(token));
                    assert_eq!(channel.submit(&io, reactor::Tsc::now()), Submitted::Pending);
                }
                channel.flush_submissions();
                while ended < 64 {
                    ended += channel.poll(reactor::Tsc::now(), done);
                    polls += 1;
                }
            });
            assert!(done.drain(..).all(|completion| completion.status == Status::Good));
            (calls, polls)
        };
        let counts = |_| user.0.call(batch).unwrap();
        let [_, (calls, polls)] = [false, true].map(counts); // the first one opens the channel
        user.close();
        match calls {
            None => return eprintln!("SKIPPED: system calls of a poller: this kernel does not tell a thread of them"),
            Some(calls) if in_memory => assert_eq!(calls.count, 0, "{bdev}: {calls:?}"),
            Some(_) if !world::uring_takes_files() => {
                eprintln!("SKIPPED: system calls of a uring bdev: it is not over a file")
            }
            Some(calls) => assert!((1..=polls).contains(&calls.count) && calls.last == 426, "{calls:?}, {polls} polls"),
        }
    }
    let known = syscalls::measure(|| drop(std::fs::metadata("/proc/self")));
    assert!(known.is_none_or(|calls| calls.count > 0), "it counts");
}
