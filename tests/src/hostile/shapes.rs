//! What the hostile driver puts on its rings: requests good and bad, cut up at random, and chains that no driver may
//! make. What the device must make of each stands beside it. No ring in here.

use std::ops::Range;

use virtio_scsi::Limit;
use virtqueue::{FaultReason, Segment};

use super::ledger::{BLOCK, BLOCKS, SENT};
use crate::device::{Message, Noise, RESPONSE_LEN, Request, lun, read_10, write_10};

/// Bytes of a request header (virtio 1.3 §5.6.6.1).
const REQUEST_LEN: usize = 51;
/// LUNs of target 0.
pub const UNITS: u16 = 2;
/// Tags of commands are below this, so that functions find some.
pub const TAGS: u64 = 6;

/// What has to become of a chain. "At once" is the poll that fetched it.
#[derive(Clone, Debug)]
pub enum Expect {
    /// A command of a unit that no limit but `cmd_per_lun` refuses. `blocks` are what a READ that ends well has read.
    Command { unit: u16, blocks: Option<Range<u64>> },
    /// Refused at once by a limit, unless a task management function comes before that.
    Refused { unit: u16, limit: Limit },
    /// This response at once.
    Code(u8),
    /// Any response at once.
    Instant,
    /// No response: there is no room for one.
    Bare,
    /// A task management function.
    Function(Function),
    /// A request on the control queue that is none: the last byte of the answer.
    Notice(u8),
    /// A buffer for events. It stays.
    Event,
}

/// A task management function.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub subtype: u32,
    /// Whether it goes to a unit or target; the well-known LUN has no commands.
    pub acts: bool,
    /// The unit, if there is one at the address.
    pub unit: Option<u16>,
    pub tag: u64,
    /// The only response that is right, unless it is a query that may find something.
    pub response: u8,
}

impl Function {
    /// Whether it acts on a command.
    pub fn covers(&self, unit: u16, tag: u64) -> bool {
        match self.subtype {
            _ if !self.acts => false,
            4 => self.response == 0,
            1 | 3 | 5 => self.unit == Some(unit),
            0 => self.unit == Some(unit) && self.tag == tag,
            _ => false,
        }
    }

    /// What a command gets that it ends (R08).
    pub fn ends_with(&self) -> u8 {
        if matches!(self.subtype, 4 | 5) { 4 } else { 2 }
    }

    /// Whether it may have been answered so.
    pub fn may_answer(&self, response: u8) -> bool {
        let query = self.acts && matches!(self.subtype, 6 | 7) && self.response == 0;
        response == self.response || (query && response == 10)
    }
}

/// A request, and what has to become of it.
pub struct Shape {
    pub message: Message,
    pub expect: Expect,
    pub tag: u64,
    /// How it must be cut: by segments of these lengths, in each direction. `None` leaves it to chance.
    pub cuts: Option<(Vec<usize>, Vec<usize>)>,
}

/// Limits that requests are made for.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub max_sectors: u32,
    pub seg_max: u32,
}

/// A request of a request queue.
pub fn request(noise: &mut Noise, bounds: Bounds) -> Shape {
    let unit = noise.below(u64::from(UNITS)) as u16;
    let tag = noise.below(TAGS);
    let dress = |request: Request, noise: &mut Noise| {
        request.tag(tag).attribute(noise.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]))
    };
    let shape = |message, expect| Shape { message, expect, tag, cuts: None };
    let (lba, blocks) = (noise.below(BLOCKS - 4), noise.below(4));
    let bytes = blocks as usize * BLOCK;
    let none = Expect::Command { unit, blocks: None };
    match noise.below(100) {
        0..35 => {
            let spare = noise.pick(&[0, 0, 0, 7, 512]);
            let read = Request::new(lun(0, unit), &read_10(lba as u32, blocks as u16)).data_in(bytes + spare);
            shape(dress(read, noise).message(), Expect::Command { unit, blocks: Some(lba..lba + blocks) })
        }
        35..52 => {
            let write = Request::new(lun(0, unit), &write_10(lba as u32, blocks as u16)).data_out(vec![SENT; bytes]);
            shape(dress(write, noise).message(), none)
        }
        52..64 => {
            let cdb: &[u8] = noise.pick(&[&[0; 6][..], &[0x12, 0, 0, 0, 96, 0], &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]]);
            shape(dress(Request::new(lun(0, unit), cdb).data_in(96), noise).message(), none)
        }
        64..70 => {
            let mut cdb: [u8; 32] = std::array::from_fn(|_| noise.bits() as u8);
            cdb[0] = noise.pick(&[
                0x03, 0x08, 0x1a, 0x25, 0x28, 0x2a, 0x2e, 0x2f, 0x41, 0x42, 0x55, 0x5e, 0x88, 0x89, 0x9e, cdb[0],
            ]);
            let wild = Request::new(lun(0, unit), &cdb);
            let wild = if noise.once_in(2) { wild.data_in(bytes) } else { wild.data_out(vec![SENT; bytes]) };
            shape(dress(wild, noise).message(), none)
        }
        70..75 => {
            let len = bounds.max_sectors as usize * BLOCK + 1;
            let large = Request::new(lun(0, unit), &read_10(0, 1));
            let large = if noise.once_in(2) { large.data_in(len) } else { large.data_out(vec![SENT; len]) };
            shape(dress(large, noise).message(), Expect::Refused { unit, limit: Limit::MaxSectors })
        }
        75..82 => segments(noise, bounds, unit, tag),
        82..85 => {
            let both = Request::new(lun(0, unit), &read_10(0, 1)).data_in(512).data_out(vec![SENT; 1]);
            shape(dress(both, noise).message(), Expect::Code(9))
        }
        85..90 => {
            let (address, expect) = match noise.below(5) {
                0 => (lun(9, 0), Expect::Code(3)),
                1 => ([0; 8], Expect::Code(3)),
                2 => (lun(0, 77), Expect::Instant),
                3 => ([0xc1, 1, 0, 0, 0, 0, 0, 0], Expect::Instant),
                _ => ([1, 0, 0x80, 0, 0, 0, 0, 0], Expect::Code(3)),
            };
            let cdb: &[u8] =
                noise.pick(&[&[0; 6][..], &[0x12, 0, 0, 0, 96, 0], &[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]]);
            shape(dress(Request::new(address, cdb).data_in(96), noise).message(), expect)
        }
        90..95 => {
            let mut short = Request::new(lun(0, unit), &[0; 6]).message();
            short.readable.truncate(noise.below(REQUEST_LEN as u64) as usize);
            shape(short, Expect::Code(9))
        }
        _ => {
            let mut short = Request::new(lun(0, unit), &[0; 6]).message();
            short.writable = noise.below(RESPONSE_LEN as u64) as usize;
            let expect = if short.writable < 12 { Expect::Bare } else { Expect::Code(9) };
            shape(short, expect)
        }
    }
}

/// A request whose data is cut into exactly as many segments as the limit allows, or one more. Header and response have
/// descriptors of their own, or share one with the first of the data, or are cut themselves: that must not count.
fn segments(noise: &mut Noise, bounds: Bounds, unit: u16, tag: u64) -> Shape {
    let over = noise.once_in(2);
    let count = bounds.seg_max as usize + usize::from(over);
    let read = noise.once_in(2);
    let len = count.max(BLOCK).next_multiple_of(BLOCK);
    let (request, header) = match read {
        true => (Request::new(lun(0, unit), &read_10(1, 1)).data_in(len), RESPONSE_LEN),
        false => (Request::new(lun(0, unit), &write_10(1, 1)).data_out(vec![SENT; len]), REQUEST_LEN),
    };
    // All but the last data segment have a byte.
    let mut cuts = match noise.below(3) {
        0 => vec![header],
        1 => vec![header / 2, header - header / 2],
        _ => vec![header + 1],
    };
    let shared = cuts == [header + 1];
    cuts.extend(vec![1; count - 1 - usize::from(shared)]);
    let expect = match over {
        true => Expect::Refused { unit, limit: Limit::SegMax },
        false => Expect::Command { unit, blocks: read.then_some(1..2) },
    };
    let cuts = if read { (vec![], cuts) } else { (cuts, vec![]) };
    Shape { message: request.tag(tag).message(), expect, tag, cuts: Some(cuts) }
}

/// A request of the control queue.
pub fn control(noise: &mut Noise) -> (Message, Expect) {
    if noise.once_in(4) {
        return notice(noise);
    }
    let subtype = noise.pick(&[0, 0, 1, 3, 4, 5, 6, 7, 2, 8, u32::MAX]);
    let (unit, tag) = (noise.below(u64::from(UNITS)) as u16, noise.below(TAGS));
    let rejected = subtype == 2 || subtype > 7;
    let (address, response, there) = match noise.below(12) {
        0 => (lun(9, 0), 3, false),
        1 => ([0; 8], 3, false),
        // An I_T nexus reset is about the target, whatever stands in the LUN.
        2 => (lun(0, 77), if subtype == 4 { 0 } else { 12 }, false),
        3 => ([0xc1, 1, 0, 0, 0, 0, 0, 0], 0, false),
        _ => (lun(0, unit), 0, true),
    };
    let response = if rejected { 11 } else { response };
    let function = Function { subtype, acts: address[0] == 1, unit: there.then_some(unit), tag, response };
    let message = crate::device::task_management(subtype, address, tag);
    (message, Expect::Function(function))
}

/// Asynchronous notification, and what is no request at all (R13).
fn notice(noise: &mut Noise) -> (Message, Expect) {
    let address = noise.pick(&[lun(0, 0), lun(9, 0)]);
    let code = if address == lun(0, 0) { 0 } else { 3 };
    let mut readable = noise.pick(&[1u32, 2]).to_le_bytes().to_vec();
    readable.extend(address);
    readable.extend([0; 4]);
    match noise.below(4) {
        0 => (Message { readable: 7u32.to_le_bytes().to_vec(), writable: 5 }, Expect::Notice(9)),
        1 => (Message { readable: readable[..noise.below(16) as usize].to_vec(), writable: 5 }, Expect::Notice(9)),
        2 => (Message { readable, writable: 0 }, Expect::Bare),
        _ => (Message { readable, writable: 5 }, Expect::Notice(code)),
    }
}

/// Cuts a message that lies at `addr` into segments, some of them of no bytes.
pub fn cut(noise: &mut Noise, addr: u64, shape: &Message, cuts: Option<&(Vec<usize>, Vec<usize>)>) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut at = addr;
    for (writable, total) in [(false, shape.readable.len()), (true, shape.writable)] {
        let pieces = match cuts {
            Some((readable, _)) if !writable => fixed(readable, total),
            Some((_, writable)) => fixed(writable, total),
            None => random(noise, total, if writable { RESPONSE_LEN } else { REQUEST_LEN }),
        };
        for len in pieces {
            segments.push(Segment { addr: at, len: len as u32, writable });
            at += len as u64;
        }
    }
    if segments.is_empty() {
        segments.push(Segment { addr, len: 0, writable: false });
    }
    segments
}

fn fixed(cuts: &[usize], total: usize) -> Vec<usize> {
    let rest = total - cuts.iter().sum::<usize>();
    let mut pieces = cuts.to_vec();
    if rest > 0 {
        pieces.push(rest);
    }
    pieces
}

/// As drivers cut it, mostly: the header, then the data; else anyhow, in a few pieces.
fn random(noise: &mut Noise, total: usize, header: usize) -> Vec<usize> {
    let first = if noise.once_in(3) { noise.below(total as u64 + 1) as usize } else { total.min(header) };
    let mut pieces = vec![first];
    let mut rest = total - first;
    while rest > 0 {
        let len = if pieces.len() < 2 && noise.once_in(3) { 1 + noise.below(rest as u64) as usize } else { rest };
        pieces.push(len);
        rest -= len;
    }
    pieces.retain(|len| *len > 0 || noise.once_in(4));
    pieces
}

/// How a chain breaks the queue that it comes from, for a ring whose descriptors the driver fills by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    ReadableAfterWritable,
    Loop,
    NextOutOfRange,
    NestedIndirect,
    IndirectWithNext,
    IndirectLength(u32),
    IndirectUnmapped,
    Unmapped,
    AddressOverflow,
    ChainTooLong,
    HeadOutOfRange,
    AvailIndexJump,
}

impl Poison {
    pub const ALL: [Poison; 14] = [
        Poison::ReadableAfterWritable,
        Poison::Loop,
        Poison::NextOutOfRange,
        Poison::NestedIndirect,
        Poison::IndirectWithNext,
        Poison::IndirectLength(0),
        Poison::IndirectLength(15),
        Poison::IndirectLength(33),
        Poison::IndirectUnmapped,
        Poison::Unmapped,
        Poison::AddressOverflow,
        Poison::ChainTooLong,
        Poison::HeadOutOfRange,
        Poison::AvailIndexJump,
    ];

    /// What the device must find wrong.
    pub fn reason(self) -> FaultReason {
        match self {
            Poison::ReadableAfterWritable => FaultReason::ReadableAfterWritable,
            Poison::Loop => FaultReason::Loop,
            Poison::NextOutOfRange => FaultReason::NextOutOfRange,
            Poison::NestedIndirect => FaultReason::NestedIndirect,
            Poison::IndirectWithNext => FaultReason::IndirectWithNext,
            Poison::IndirectLength(_) => FaultReason::IndirectLength,
            Poison::IndirectUnmapped => FaultReason::IndirectUnmapped,
            Poison::Unmapped => FaultReason::Unmapped,
            Poison::AddressOverflow => FaultReason::AddressOverflow,
            Poison::ChainTooLong => FaultReason::ChainTooLong,
            Poison::HeadOutOfRange => FaultReason::HeadOutOfRange,
            Poison::AvailIndexJump => FaultReason::AvailIndexJump,
        }
    }
}
