//! One queue against the device side of its ring, turn by turn on one thread.

use guest_memory::MemTable;
use guest_memory::{Mapping, RegionConfig};
use virtqueue::split::SplitDevice;
use virtqueue::{ChainBatch, DriverQueue};

use super::super::args::tests::parse;
use super::super::pattern::Pattern;
use super::super::responder::Device;
use super::super::work::Plain;
use super::*;

/// A queue, and what it takes to run it.
struct Bench {
    memory: Memory,
    layout: Layout,
    queue: Queue,
    work: Plain,
    meter: Meter,
    tally: Tally,
}

const RANGE: Range = Range { block_size: 512, blocks_per_piece: 8, pieces: 1000 };

impl Bench {
    fn new(line: &str, direction: Option<Direction>) -> Bench {
        let args = parse(&format!("--null-responder {line}")).unwrap();
        args.check().unwrap();
        let layout = Layout::new(&args);
        let memory = Memory::create(layout.len).unwrap();
        let fds = RingFds::new().unwrap();
        let mut queue = Queue::new(&args, &memory, &layout, 0, fds, Features::default()).unwrap();
        queue.prepare(&RANGE, direction);
        let work = Plain(Pattern::new(&args, RANGE.pieces, 1));
        Bench { memory, layout, queue, work, meter: Meter::new(), tally: Tally::default() }
    }

    fn turn(&mut self, refill: bool) -> usize {
        self.queue.turn(&mut self.work, &mut self.meter, &mut self.tally, refill)
    }

    /// The device side, for tests that look at each chain.
    fn device(&self) -> (SplitDevice, MemTable) {
        let (region, fd) = self.memory.region();
        let RegionConfig { guest_addr, .. } = region;
        assert_eq!(guest_addr, 0x1_0000_0000);
        let table = MemTable::new(vec![Arc::new(Mapping::map(fd, &region).unwrap())]).unwrap();
        let areas = self.memory.ring(&self.layout.rings[2], self.layout.queue_size);
        (SplitDevice::new(self.layout.queue_size, areas, 0, Features::default()).unwrap(), table)
    }
}

#[test]
fn queue_keeps_its_depth_and_counts_every_command() {
    for (line, direction) in [
        ("--qd 32", Some(Direction::Read)),
        ("--qd 42 --rw write", Some(Direction::Write)),
        ("--qd 7 --rw randrw", None),
        ("--qd 128 --indirect", Some(Direction::Read)),
        ("--qd 3 --indirect --rw randrw", None),
        ("--qd 42 --in-order", Some(Direction::Read)),
        ("--qd 32 --in-order --ring packed", Some(Direction::Read)),
    ] {
        let mut bench = Bench::new(line, direction);
        let depth = bench.queue.in_flight();
        assert_eq!(depth, 0);
        bench.queue.prime(&mut bench.work);
        let depth = bench.queue.in_flight();
        let mut device = Device::new(&bench.memory, &bench.layout).unwrap();
        let mut came = 0;
        for _ in 0..200 {
            device.poll();
            came += bench.turn(true);
            assert_eq!(bench.queue.in_flight(), depth, "{line}");
        }
        while bench.queue.in_flight() > 0 {
            device.poll();
            came += bench.turn(false);
        }
        assert_eq!(bench.meter.count(), came as u64, "{line}");
        assert!(came >= 200 * usize::from(depth.min(32)), "{line}: {came}");
        assert_eq!((bench.tally.total(), bench.queue.fault()), (0, None), "{line}");
    }
}

#[test]
fn queue_chains_have_header_data_and_response_as_the_specification_orders_them() {
    for (direction, line, readable, writable) in [
        (Direction::Read, "--rw read", vec![51], vec![108, 4096]),
        (Direction::Write, "--rw write", vec![51, 4096], vec![108]),
    ] {
        for indirect in ["", "--indirect"] {
            for prepared in [Some(direction), None] {
                let mut bench = Bench::new(&format!("--qd 2 {line} {indirect}"), prepared);
                bench.queue.prime(&mut bench.work);
                let (mut device, table) = bench.device();
                let mut batch = ChainBatch::new(4, 16);
                assert_eq!(device.pop(&table, 4, &mut batch), 2);
                for (piece, chain) in batch.chains().iter().enumerate() {
                    let lens = |slices: &[GuestSlice]| slices.iter().map(|slice| slice.len()).collect::<Vec<_>>();
                    assert_eq!(lens(batch.readable(chain)), readable);
                    assert_eq!(lens(batch.writable(chain)), writable);
                    let header: [u8; 51] = batch.readable(chain)[0].read_array().unwrap();
                    let opcode = if direction == Direction::Read { 0x28 } else { 0x2a };
                    let lba = 8 * piece as u8;
                    assert_eq!(header[19..29], [opcode, 0, 0, 0, 0, lba, 0, 0, 8, 0]);
                }
            }
        }
    }
}

#[test]
fn queue_counts_failed_commands_by_kind_and_not_as_latencies() {
    let mut bench = Bench::new("--qd 3", Some(Direction::Read));
    bench.queue.prime(&mut bench.work);
    let (mut device, table) = bench.device();
    let mut batch = ChainBatch::new(4, 16);
    assert_eq!(device.pop(&table, 4, &mut batch), 3);
    // One S_BUSY, one GOOD, and one that comes back without a response.
    let responses = [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], [0; 12]];
    for (chain, response) in batch.chains().iter().zip(responses) {
        batch.writable(chain)[0].write(&response);
    }
    for chain in batch.chains() {
        device.complete(chain.head, 12);
    }
    device.publish();
    assert_eq!(bench.turn(false), 3);
    assert_eq!(bench.meter.count(), 1);
    let kinds: Vec<_> = bench.tally.kinds().collect();
    assert_eq!(kinds, [("S_BUSY".to_owned(), 1), ("came back without a response".to_owned(), 1)]);
}

#[test]
fn queue_of_a_device_that_breaks_the_ring_says_so_and_takes_nothing() {
    let mut bench = Bench::new("--qd 3", Some(Direction::Read));
    bench.queue.prime(&mut bench.work);
    let DriverQueue::Split(driver) = &bench.queue.driver else { panic!("split is what there is by default") };
    driver.raw().set_used_index(4);
    assert_eq!(bench.turn(true), 0);
    let fault = bench.queue.fault().expect("four of three came back").to_string();
    assert_eq!(fault, "used index 4: 4 entries ahead, 3 chains are in flight");
}

#[test]
fn queue_prepared_for_a_large_range_sends_long_commands() {
    let mut bench = Bench::new("--qd 1", None);
    let pieces = 1 << 40;
    bench.queue.prepare(&Range { pieces, ..RANGE }, Some(Direction::Write));
    bench.queue.send(0, bench.queue.slots[0].lines, Io { piece: pieces - 1, direction: Direction::Write }, Tsc(0));
    bench.queue.publish();
    let (mut device, table) = bench.device();
    let mut batch = ChainBatch::new(1, 4);
    device.pop(&table, 1, &mut batch);
    let header: [u8; 51] = batch.readable(&batch.chains()[0])[0].read_array().unwrap();
    assert_eq!(header[19..35], [0x8a, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xf8, 0, 0, 0, 8, 0, 0]);
}

#[test]
fn exchange_waits_until_the_command_is_back_or_the_wait_ends_it() {
    let mut bench = Bench::new("--qd 1", None);
    let (mut device, table) = bench.device();
    let mut batch = ChainBatch::new(1, 4);
    let reply = bench.queue.exchange(&cdb::INQUIRY, 36, || {
        assert_eq!(device.pop(&table, 1, &mut batch), 1);
        let chain = batch.chains()[0];
        batch.writable(&chain)[0].write(&[0; 12]);
        batch.writable(&chain)[1].write(&[7; 64]);
        device.complete(chain.head, 48);
        device.publish();
        Ok(())
    });
    let reply = reply.unwrap();
    assert_eq!((reply.failure, reply.data), (None, vec![7; 36]));
    let error = bench.queue.exchange(&cdb::TEST_UNIT_READY, 0, || anyhow::bail!("enough")).unwrap_err();
    assert_eq!(error.to_string(), "enough");
}
