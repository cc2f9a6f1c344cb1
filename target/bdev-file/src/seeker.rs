//! Which parts of a file there are, and which are holes: found out by seeking, on a thread of its own. A seek may wait for
//! the file system, there is none among the calls of a ring, and a poller must not wait.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use bdev::{BlockRun, BlockRuns, Geometry, Status};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// The thread of a file. It ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Seeker(Sender<Question>);

/// What a channel wants to know.
#[derive(Debug)]
pub(crate) struct Question {
    /// A block that exists.
    pub lba: u64,
    /// At least 1.
    pub runs_max: u16,
    pub runs: BlockRuns,
    /// Comes back with the answer.
    pub name: u32,
    pub answers: Sender<Answer>,
    /// The channel's descriptor to wake its poller, who may be asleep.
    pub wake: Arc<OwnedFd>,
}

/// The name of the question, and how it ended.
pub(crate) type Answer = (u32, Status);

impl Seeker {
    /// Starts the thread, on the cores that the calling one may use.
    pub(crate) fn start(file: BorrowedFd<'_>, geometry: Geometry) -> io::Result<Seeker> {
        // The same open file: its offset, which seeking moves, is used by nobody else.
        let file = File::from(file.try_clone_to_owned()?);
        let (sender, questions) = mpsc::channel();
        thread::Builder::new().name("ringside-seek".to_owned()).spawn(move || answer(&file, geometry, &questions))?;
        Ok(Seeker(sender))
    }

    /// Asks; `false` if nobody answers.
    pub(crate) fn ask(&self, question: Question) -> bool {
        self.0.send(question).is_ok()
    }
}

fn answer(file: &File, geometry: Geometry, questions: &Receiver<Question>) {
    for Question { lba, runs_max, runs, name, answers, wake } in questions {
        let status = match find(file, geometry, lba, runs_max) {
            Ok(found) => {
                runs.leave(found);
                Status::Good
            }
            Err(error) => {
                tracing::debug!("seeking holes: {error}");
                Status::ReadError
            }
        };
        // A channel that was closed meanwhile wants no answer. A descriptor that is full is readable already.
        let _ = answers.send((name, status));
        let _ = rustix::io::write(&*wake, &1u64.to_ne_bytes());
    }
}

/// Everything is there, as far as anybody knows.
pub(crate) fn unknown(geometry: Geometry, lba: u64) -> Vec<BlockRun> {
    vec![BlockRun { lba, blocks: geometry.block_count() - lba, allocated: true }]
}

/// A block of which any byte is there is there.
fn find(file: &File, geometry: Geometry, lba: u64, runs_max: u16) -> io::Result<Vec<BlockRun>> {
    let (block_size, end) = (u64::from(geometry.block_size()), geometry.block_count());
    let mut runs = Vec::new();
    let mut at = lba;
    while at < end && runs.len() < usize::from(runs_max) {
        let (next, allocated) = match seek(file, SeekFrom::Data(at * block_size)) {
            Ok(data) if data / block_size <= at => match seek(file, SeekFrom::Hole(data)) {
                Ok(hole) => (hole.div_ceil(block_size), true),
                Err(Errno::NXIO) => (at + 1, true), // it was cut off meanwhile
                Err(errno) => return Err(errno.into()),
            },
            Ok(data) => (data / block_size, false),
            Err(Errno::NXIO) => (end, false), // only a hole up to the end
            Err(Errno::INVAL) => return Ok(unknown(geometry, lba)),
            Err(errno) => return Err(errno.into()),
        };
        let next = next.clamp(at + 1, end);
        match runs.last_mut() {
            Some(BlockRun { blocks, allocated: same, .. }) if *same == allocated => *blocks += next - at,
            _ => runs.push(BlockRun { lba: at, blocks: next - at, allocated }),
        }
        at = next;
    }
    Ok(runs)
}
