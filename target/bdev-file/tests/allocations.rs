//! Counts the allocations of requests on a file, through a counting global allocator. Nothing about what they do.

use bdev::{Bdev, Channel, Completion, Io, Op, Status, Submitted, Token};
use bdev_file::{File, FileConfig};
use guest_memory::{GuestSlice, Pages, SharedMemory};
use reactor::clock::Tsc;

const BATCH: u64 = 32;

fn run(channel: &mut Channel, buffers: &[GuestSlice], done: &mut Vec<Completion>, batches: u64) {
    for batch in 0..batches {
        for n in 0..BATCH {
            let op = [Op::Read, Op::Write { fua: false }][n as usize % 2];
            let io = Io::new(op, n * 8, 8, buffers, Token(n));
            assert_eq!(channel.submit(&io, Tsc(batch)), Submitted::Pending);
        }
        channel.flush_submissions();
        while done.len() < BATCH as usize {
            channel.poll(Tsc(batch), done);
            channel.flush_submissions();
        }
        assert!(done.iter().all(|completion| completion.status == Status::Good));
        done.clear();
    }
}

#[test]
fn file_requests_allocate_nothing_aligned_or_not() {
    let place = tempfile::tempdir().expect("a directory");
    let config = FileConfig { size: Some(1 << 20), ..FileConfig::new(place.path().join("f")) };
    let file = File::open("f", &config).expect("a file");
    let memory = SharedMemory::create("guest", 16384, Pages::Small).expect("memory");
    for (shift, pieces) in [(0, 1), (0, 8), (1, 3)] {
        let mut channel = file.open();
        let mut buffers: Vec<GuestSlice> =
            (0..pieces).map(|n| memory.slice().subslice(shift + n * 512, 512).expect("inside")).collect();
        let rest = 4096 - (pieces - 1) * 512;
        buffers[pieces - 1] = memory.slice().subslice(shift + (pieces - 1) * 512, rest).expect("inside");
        let mut done = Vec::with_capacity(64);
        run(&mut channel, &buffers, &mut done, 2);
        let counted = allocation_counter::measure(|| run(&mut channel, &buffers, &mut done, 50));
        assert_eq!(counted.count_total, 0, "{pieces} buffers, shifted by {shift}");
    }
}
