//! Random 4 KiB reads of a file at depth 32 through one channel, for as long as asked: what the file device itself can
//! do, to be held against `fio --ioengine=io_uring` on the same file. No guest and no ring of one.
//!
//! `randread PATH [SECONDS] [DEPTH] [direct]`

use std::error::Error;
use std::time::{Duration, Instant};

use bdev::{Bdev, Io, Op, Status, Submitted, Token};
use bdev_file::{File, FileConfig};
use guest_memory::{GuestSlice, Pages, SharedMemory};
use reactor::clock::Tsc;

const BLOCK: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: randread PATH [SECONDS] [DEPTH] [direct]")?;
    let seconds: u64 = args.next().map_or(Ok(5), |text| text.parse())?;
    let depth: usize = args.next().map_or(Ok(32), |text| text.parse())?;
    let direct = args.next().is_some_and(|word| word == "direct");
    let file = File::open("f", &FileConfig { direct, read_only: true, block_size: 4096, ..FileConfig::new(path) })?;
    let blocks = file.info().block_count;
    let memory = SharedMemory::create("randread", depth * BLOCK, Pages::Small)?;
    let buffers: Vec<[GuestSlice; 1]> =
        (0..depth).filter_map(|n| memory.slice().subslice(n * BLOCK, BLOCK).map(|slice| [slice])).collect();
    let mut channel = file.open();
    let mut done = Vec::with_capacity(depth);
    let mut dice = 0x9e37_79b9_7f4a_7c15u64;
    let mut submit = |channel: &mut bdev::Channel, n: usize, now| -> Result<(), Box<dyn Error>> {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        match channel.submit(&Io::new(Op::Read, dice % blocks, 1, &buffers[n], Token(n as u64)), now) {
            Submitted::Pending => Ok(()),
            Submitted::Done(status) => Err(format!("not pending: {status:?}").into()),
        }
    };
    for n in 0..depth {
        submit(&mut channel, n, Tsc::now())?;
    }
    channel.flush_submissions();
    let (start, end) = (Instant::now(), Instant::now() + Duration::from_secs(seconds));
    let mut ended = 0u64;
    while Instant::now() < end {
        let now = Tsc::now();
        channel.poll(now, &mut done);
        ended += done.len() as u64;
        for completion in done.drain(..) {
            if completion.status != Status::Good {
                return Err(format!("{completion:?}").into());
            }
            submit(&mut channel, completion.token.0 as usize, now)?;
        }
        channel.flush_submissions();
    }
    let iops = ended as f64 / start.elapsed().as_secs_f64();
    println!("{iops:.0} IOPS, direct {}, {:?}", file.is_direct(), file.counts());
    Ok(())
}
