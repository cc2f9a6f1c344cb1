//! Tests of what becomes of errors that no file system here gives on demand: the results of calls are made up.

use bdev::{Bdev, Extent, Token};
use tempfile::TempDir;

use super::*;
use crate::{Cache, File, FileConfig};

const NOW: Tsc = Tsc(1);

struct Rig {
    _place: TempDir,
    file: File,
    channel: FileChannel,
    done: Vec<Completion>,
}

impl Rig {
    fn new(cache: Cache) -> Rig {
        Rig::with(cache, true)
    }

    fn with(cache: Cache, direct: bool) -> Rig {
        let place = tempfile::tempdir().unwrap();
        let config = FileConfig { size: Some(1 << 20), cache, direct, ..FileConfig::new(place.path().join("f")) };
        let file = File::open("f", &config).unwrap();
        let channel = FileChannel::open(&file.shared).unwrap();
        Rig { _place: place, file, channel, done: Vec::new() }
    }

    /// Submits a request, but lets `results` be what its calls return, one after the other.
    fn run(&mut self, io: &Io<'_>, results: &[i32]) -> Option<Status> {
        match self.channel.submit(io, NOW) {
            Submitted::Done(status) => return Some(status),
            Submitted::Pending => {}
        }
        for result in results {
            let index = self.channel.ready.pop_front().expect("one call at a time");
            let request = &mut self.channel.requests[index as usize];
            if request.step == Step::Punch {
                choose(&self.channel.file, request);
            }
            request.piece = request.left();
            self.channel.advance(index, *result, &mut self.done);
        }
        self.done.pop().map(|completion| completion.status)
    }

    /// Memory for the data of a request.
    fn buffer(&mut self, len: usize) -> [GuestSlice; 1] {
        let bounce = self.channel.bounces.take().unwrap();
        [self.channel.bounces.slice(&bounce, len)]
    }

    /// What the next call of the only request is.
    fn next_step(&mut self) -> Step {
        let request = &mut self.channel.requests[*self.channel.ready.front().unwrap() as usize];
        if request.step == Step::Punch {
            choose(&self.channel.file, request);
        }
        request.step
    }
}

fn zeroes(unmap: bool) -> Io<'static> {
    Io::new(Op::WriteZeroes { unmap }, 0, 8, &[], Token(1))
}

fn flush() -> Io<'static> {
    Io::new(Op::Flush, 0, 0, &[], Token(1))
}

#[test]
fn channel_flush_that_failed_fails_every_later_one_until_reset() {
    let mut rig = Rig::new(Cache::Writeback);
    assert_eq!(rig.run(&flush(), &[0]), Some(Status::Good));
    assert_eq!(rig.run(&flush(), &[-libc::EIO]), Some(Status::WriteError));
    assert!(rig.file.sync_failed());
    assert_eq!(rig.file.counts().sync_failures, 1);
    assert_eq!(rig.run(&flush(), &[0]), Some(Status::WriteError));
    let buffer = rig.buffer(512);
    let write = |fua| Io::new(Op::Write { fua }, 0, 1, &buffer, Token(1));
    assert_eq!(rig.run(&write(true), &[512]), Some(Status::WriteError));
    assert_eq!(rig.run(&write(false), &[512]), Some(Status::Good));
    let other = rig.file.open().submit(&flush(), NOW);
    assert_eq!(other, Submitted::Done(Status::WriteError), "on every channel");
    rig.file.reset();
    assert_eq!(rig.run(&flush(), &[0]), Some(Status::Good));
    assert_eq!(rig.run(&write(true), &[-libc::EIO]), Some(Status::WriteError));
    assert_eq!(rig.run(&flush(), &[]), Some(Status::WriteError), "a forced write is a flush, too");
}

#[test]
fn channel_flush_beside_one_that_failed_does_not_succeed() {
    let mut rig = Rig::new(Cache::Writeback);
    assert_eq!(rig.channel.submit(&flush(), NOW), Submitted::Pending);
    assert_eq!(rig.channel.submit(&flush(), NOW), Submitted::Pending);
    let (one, other) = (rig.channel.ready[0], rig.channel.ready[1]);
    rig.channel.advance(one, -libc::EIO, &mut rig.done);
    rig.channel.advance(other, 0, &mut rig.done);
    assert!(rig.done.iter().all(|completion| completion.status == Status::WriteError), "{:?}", rig.done);
}

#[test]
fn channel_durable_write_without_room_is_told_from_older_data_that_was_lost() {
    for direct in [false, true] {
        let mut rig = Rig::with(Cache::Writethrough, direct);
        let direct = rig.file.is_direct(); // not every file system has it
        let buffer = rig.buffer(512);
        let write = Io::new(Op::Write { fua: false }, 0, 1, &buffer, Token(1));
        let same = Io::new(Op::WriteSame, 0, 8, &buffer, Token(1));
        if direct {
            assert_eq!(rig.run(&write, &[-libc::ENOSPC]), Some(Status::NoSpace), "nothing older is in a cache");
            continue;
        }
        for io in [&write, &same] {
            assert_eq!(rig.run(io, &[-libc::ENOSPC, -libc::ENOSPC]), Some(Status::NoSpace), "no room for this one");
            assert!(!rig.file.sync_failed());
            let length = (io.blocks * 512) as i32;
            assert_eq!(rig.run(io, &[-libc::ENOSPC, length]), Some(Status::WriteError), "it fits: something else");
            assert!(rig.file.sync_failed());
            rig.file.reset();
        }
        assert_eq!(rig.file.counts().sync_failures, 2);
    }
}

#[test]
fn channel_hole_that_is_refused_for_its_alignment_does_not_end_holes() {
    let mut rig = Rig::new(Cache::Writeback);
    assert_eq!(rig.run(&zeroes(true), &[-libc::EINVAL, 4096]), Some(Status::Good));
    assert_eq!(rig.channel.submit(&zeroes(true), NOW), Submitted::Pending);
    assert_eq!(rig.next_step(), Step::Punch);
}

#[test]
fn channel_errors_of_the_kernel_become_statuses() {
    let table = [
        (libc::EIO, Status::ReadError, Status::WriteError),
        (libc::EILSEQ, Status::ReadError, Status::WriteError),
        (libc::ENOSPC, Status::NoSpace, Status::NoSpace),
        (libc::EDQUOT, Status::NoSpace, Status::NoSpace),
        (libc::EFBIG, Status::NoSpace, Status::NoSpace),
        (libc::EROFS, Status::ReadError, Status::WriteProtected),
        (libc::EPERM, Status::ReadError, Status::WriteProtected),
        (libc::ENXIO, Status::Gone, Status::Gone),
        (libc::ENODEV, Status::Gone, Status::Gone),
        (libc::ENOMEM, Status::Busy, Status::Busy),
        (libc::EFAULT, Status::Failed, Status::Failed),
        (libc::ECANCELED, Status::Aborted, Status::Aborted),
    ];
    let mut rig = Rig::new(Cache::Writeback);
    let buffer = rig.buffer(512);
    for (errno, read, write) in table {
        let mut run = |op| rig.run(&Io::new(op, 0, 1, &buffer, Token(1)), &[-errno]);
        assert_eq!(run(Op::Read), Some(read), "read, {errno}");
        assert_eq!(run(Op::Write { fua: false }), Some(write), "write, {errno}");
    }
    assert!(!rig.file.sync_failed());
    assert_eq!(rig.run(&Io::new(Op::Read, 0, 1, &buffer, Token(1)), &[0]), Some(Status::ReadError));
    assert!(rig.channel.turn.claim() && rig.channel.turn.alone(), "every change has ended");
}

#[test]
fn channel_call_refused_for_the_moment_is_made_again() {
    let mut rig = Rig::new(Cache::Writeback);
    assert_eq!(rig.run(&flush(), &[-libc::EAGAIN, -libc::EINTR, 0]), Some(Status::Good));
    assert_eq!(rig.file.counts().retried, 2);
    let mut results = vec![-libc::EAGAIN; TRIES_MAX as usize + 1];
    let buffer = rig.buffer(512);
    let read = Io::new(Op::Read, 0, 1, &buffer, Token(1));
    assert_eq!(rig.run(&read, &results), Some(Status::Busy));
    results.truncate(TRIES_MAX as usize);
    results.push(512);
    assert_eq!(rig.run(&read, &results), Some(Status::Good));
}

#[test]
fn channel_transfer_in_parts_goes_on_where_it_stopped() {
    let mut rig = Rig::new(Cache::Writeback);
    let buffer = rig.buffer(8192);
    let read = Io::new(Op::Read, 0, 16, &buffer, Token(1));
    // 700 bytes are one whole block and a part, which a direct file has to read again
    let first = if rig.file.is_direct() { 512 } else { 700 };
    assert_eq!(rig.run(&read, &[700]), None);
    assert_eq!(rig.channel.requests[rig.channel.ready[0] as usize].done, first);
    let index = rig.channel.ready.pop_front().unwrap();
    rig.channel.requests[index as usize].piece = 8192 - first;
    rig.channel.advance(index, 8192 - first as i32, &mut rig.done);
    assert_eq!(rig.done.pop().map(|completion| completion.status), Some(Status::Good));
    assert_eq!(rig.file.counts().continued, 1);
}

#[test]
fn channel_on_a_file_system_without_holes_writes_zeroes_instead() {
    let mut rig = Rig::new(Cache::Writeback);
    assert_eq!(rig.channel.submit(&zeroes(true), NOW), Submitted::Pending);
    let mut step = |result: i32| {
        let step = rig.next_step();
        let index = rig.channel.ready.pop_front().unwrap();
        rig.channel.requests[index as usize].piece = 4096;
        rig.channel.advance(index, result, &mut rig.done);
        step
    };
    assert_eq!(step(-libc::EOPNOTSUPP), Step::Punch);
    assert_eq!(step(-libc::EOPNOTSUPP), Step::Zero);
    assert_eq!(step(4096), Step::Fill);
    assert_eq!(rig.done.pop().map(|completion| completion.status), Some(Status::Good));
    // and remembers it
    assert_eq!(rig.channel.submit(&zeroes(false), NOW), Submitted::Pending);
    assert_eq!(rig.next_step(), Step::Fill);
}

#[test]
fn channel_written_through_syncs_after_holes() {
    let mut rig = Rig::new(Cache::Writethrough);
    let extents = [(0, 8), (16, 8)].map(|(lba, blocks)| Extent { lba, blocks });
    assert_eq!(rig.run(&Io::unmap(&extents, Token(1)), &[0, 0]), None);
    assert_eq!(rig.next_step(), Step::Sync);
}
