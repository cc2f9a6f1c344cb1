//! A request on its way: which system call is next, and how far it has come. The calls themselves are made by `channel`.

use bdev::{Extent, Geometry, Io, Op, Token};
use guest_memory::GuestSlice;

use crate::bounce::Bounce;
use crate::ring::IoVec;

/// What the next system call does, or the one under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// From the file into the buffers.
    Read,
    /// From the buffers to the file.
    Write,
    /// From the file into a bounce buffer, to be compared or just to have been read.
    Check,
    /// From a bounce buffer that holds the same block over and over to the file.
    Fill,
    /// A hole into the file.
    Punch,
    /// Zeroes into the file, by the file system.
    Zero,
    /// What was written to stable storage.
    Sync,
}

/// One request, in a place that is used again.
#[derive(Debug)]
pub(crate) struct Request {
    pub op: Op,
    pub token: Token,
    pub step: Step,
    /// Where in the file the step begins, and how many bytes it is for in all.
    pub offset: u64,
    pub length: u64,
    /// How many of them are done.
    pub done: u64,
    /// Where in the buffers the data of the step begins.
    pub data_at: u64,
    /// Bytes of the call under way.
    pub piece: u64,
    pub buffers: Vec<GuestSlice>,
    /// The kernel's view of the buffers; unchanged while a call is under way.
    pub list: Vec<IoVec>,
    /// What holes or zeroes are for, and which of it is next.
    pub extents: Vec<Extent>,
    pub next_extent: usize,
    pub bounce: Option<Bounce>,
    /// The kernel did not like the guest's buffers.
    pub bounce_wanted: bool,
    /// The data has to be on stable storage before the request ends.
    pub durable: bool,
    /// There was no room for it, or for older data: it is written again without being durable, to find out which.
    pub doubtful: bool,
    /// It is announced as a change of the device.
    pub entered: bool,
    /// How often the same call was refused for the moment.
    pub tries: u32,
}

impl Request {
    /// A place with room for a request of usual size.
    pub(crate) fn vacant() -> Request {
        Request {
            op: Op::Flush,
            token: Token(0),
            step: Step::Sync,
            offset: 0,
            length: 0,
            done: 0,
            data_at: 0,
            piece: 0,
            buffers: Vec::with_capacity(USUAL_BUFFERS),
            list: Vec::with_capacity(USUAL_BUFFERS),
            extents: Vec::new(),
            next_extent: 0,
            bounce: None,
            bounce_wanted: false,
            durable: false,
            doubtful: false,
            entered: false,
            tries: 0,
        }
    }

    /// Becomes this request, whose blocks and buffers were checked.
    pub(crate) fn begin(&mut self, io: &Io<'_>, geometry: Geometry, writethrough: bool) {
        let (offset, length) = geometry.bytes_of(Extent { lba: io.lba, blocks: io.blocks });
        self.op = io.op;
        self.token = io.token;
        (self.offset, self.length) = (offset, length);
        (self.done, self.data_at, self.next_extent, self.tries) = (0, 0, 0, 0);
        (self.bounce_wanted, self.doubtful, self.entered) = (false, false, false);
        self.buffers.clear();
        self.buffers.extend_from_slice(io.buffers);
        self.extents.clear();
        self.durable = writethrough;
        self.step = match io.op {
            Op::Read => Step::Read,
            Op::Write { fua } => {
                self.durable |= fua;
                Step::Write
            }
            Op::Compare | Op::Verify => Step::Check,
            Op::CompareAndWrite { fua } => {
                self.durable |= fua;
                Step::Check
            }
            Op::WriteSame => Step::Fill,
            Op::Unmap => {
                self.extents.extend(io.extents.iter().filter(|extent| extent.blocks > 0));
                Step::Punch
            }
            Op::WriteZeroes { .. } => {
                self.extents.push(Extent { lba: io.lba, blocks: io.blocks });
                Step::Punch
            }
            _ => Step::Sync,
        };
    }

    /// Whether it gives blocks back, where the file system can.
    pub(crate) fn punches(&self) -> bool {
        matches!(self.op, Op::Unmap | Op::WriteZeroes { unmap: true })
    }

    /// Aims at the next extent with `step`; `false` if there is none.
    pub(crate) fn aim(&mut self, geometry: Geometry, step: Step) -> bool {
        let Some(extent) = self.extents.get(self.next_extent) else { return false };
        (self.offset, self.length) = geometry.bytes_of(*extent);
        (self.done, self.step) = (0, step);
        true
    }

    /// Bytes of the step that are still to be done.
    pub(crate) fn left(&self) -> u64 {
        self.length - self.done
    }
}

/// Buffers that a place has room for from the start: 64 KiB of scattered 4 KiB pages.
const USUAL_BUFFERS: usize = 16;
