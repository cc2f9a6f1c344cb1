//! R04: what a request means does not depend on where the driver cuts it into descriptors (virtio 1.3 §2.7.4), nor on
//! whether the backend answers at once or later.

use std::sync::Arc;

use bdev::{Bdev, Delay, Gate, Malloc};
use tests::device::{
    BUFFERS, Device, FIRST, Message, Noise, Reply, Request, Setup, fill, lun, medium, read_10, unit, write_10,
};
use virtqueue::Segment;
use virtqueue::split::RawSplit;

const DISK: usize = 64 * 512;

/// A disk that answers at once at LUN 0, and the same one behind a gate at LUN 1; and what is on it.
struct Disk {
    device: Device,
    malloc: Arc<Malloc>,
    content: Vec<u8>,
}

impl Disk {
    fn new() -> Disk {
        let malloc = Arc::new(Malloc::new("disk", DISK as u64, 512).unwrap());
        let content = fill(&*malloc);
        let gate = Gate::closed();
        gate.open();
        let held = Delay::held(Arc::clone(&malloc) as Arc<dyn Bdev>, &gate);
        let mut setup = Setup::of([unit(0, 0, Arc::clone(&malloc) as _), unit(0, 1, Arc::new(held))]);
        setup.ring_size = 256;
        setup.gate = gate;
        Disk { device: Device::ready(setup), malloc, content }
    }

    /// Reads three blocks and writes three others, with these cuts, at both units.
    fn exercise(&mut self, readable: &[usize], writable: &[usize], indirect: bool) {
        for number in [0, 1] {
            let read = Request::new(lun(0, number), &read_10(5, 3)).data_in(3 * 512).message();
            let reply = self.answer(&read, readable, writable, indirect);
            reply.assert_data(&self.content[5 * 512..8 * 512]);

            let bytes: Vec<u8> = (0..3 * 512).map(|at| (at % 251) as u8 ^ number as u8).collect();
            let write = Request::new(lun(0, number), &write_10(20, 3)).data_out(bytes.clone()).message();
            let reply = self.answer(&write, readable, writable, indirect);
            reply.assert_good(0);
            assert_eq!(reply.written, 12);
            self.content[20 * 512..23 * 512].copy_from_slice(&bytes);
            assert!(medium(&*self.malloc) == self.content, "{readable:?} {writable:?}");
        }
    }

    fn answer(&mut self, message: &Message, readable: &[usize], writable: &[usize], indirect: bool) -> Reply {
        let chain = self.device.cut(message, readable, writable);
        let token = match indirect {
            true => self.device.submit_indirect(FIRST, &chain),
            false => self.device.submit_chain(FIRST, &chain),
        };
        self.device.answer_to(FIRST, token)
    }
}

#[test]
fn r04_requests_are_served_however_they_are_cut() {
    let mut disk = Disk::new();
    for indirect in [false, true] {
        disk.exercise(&[51], &[108], indirect); // the usual framing
        disk.exercise(&[], &[], indirect); // everything in one descriptor each way
        disk.exercise(&[1; 51], &[108], indirect); // the header byte by byte
        disk.exercise(&[51], &[1; 108], indirect); // the response byte by byte
        disk.exercise(&[50], &[107], indirect); // the last byte of each header with the data
        disk.exercise(&[52], &[109], indirect); // the first byte of data with each header
        disk.exercise(&[8, 8, 3, 32], &[12, 96], indirect); // field by field
        disk.exercise(&[51, 512, 1, 511], &[108, 512, 1, 511], indirect); // data in uneven pieces
        disk.exercise(&[51, 1, 1, 1, 1], &[108, 1, 1, 1, 1], indirect);
        disk.exercise(&[0, 51, 0, 100, 0], &[0, 108, 0, 100, 0], indirect); // descriptors of no bytes in between
        disk.exercise(&[0, 0, 0, 20], &[0, 0, 0, 11], indirect);
    }
}

#[test]
fn r04_requests_are_served_at_random_cuts() {
    const SEED: u64 = 4;
    let mut disk = Disk::new();
    let mut noise = Noise::new(SEED);
    for round in 0..2500 {
        let readable = cuts(&mut noise);
        let writable = cuts(&mut noise);
        let indirect = noise.once_in(2);
        let (lba, blocks, number) = (noise.below(60) as usize, 1 + noise.below(4) as usize, noise.below(2) as u16);
        let range = lba * 512..(lba + blocks) * 512;
        let read = Request::new(lun(0, number), &read_10(lba as u32, blocks as u16)).data_in(range.len()).message();
        let reply = disk.answer(&read, &readable, &writable, indirect);
        let what = format!("seed {SEED}, round {round}: {readable:?} {writable:?}");
        assert_eq!((reply.outcome(), reply.residual()), ((0, 0), 0), "{what}");
        assert!(reply.data() == &disk.content[range.clone()], "{what}");
        assert_eq!(reply.written as usize, 108 + range.len(), "{what}");

        let bytes: Vec<u8> = range.clone().map(|_| noise.bits() as u8).collect();
        let write =
            Request::new(lun(0, number), &write_10(lba as u32, blocks as u16)).data_out(bytes.clone()).message();
        let reply = disk.answer(&write, &readable, &writable, indirect);
        assert_eq!((reply.outcome(), reply.residual(), reply.written), ((0, 0), 0, 12), "{what}");
        disk.content[range].copy_from_slice(&bytes);
        if round % 50 == 0 {
            assert!(medium(&*disk.malloc) == disk.content, "{what}");
        }
        // CHECK CONDITION and overrun have responses of other lengths.
        let beyond = Request::new(lun(0, number), &read_10(64, 1)).data_in(512).message();
        disk.answer(&beyond, &readable, &writable, indirect).assert_check((0x05, 0x21, 0x00), 512);
        let short = Request::new(lun(0, number), &write_10(0, 2)).data_out(vec![0; 1023]).message();
        disk.answer(&short, &readable, &writable, indirect).assert_transport(1, 1023);
    }
    assert!(medium(&*disk.malloc) == disk.content);
}

fn cuts(noise: &mut Noise) -> Vec<usize> {
    let count = noise.below(12);
    (0..count).map(|_| noise.pick(&[0, 1, 2, 7, 12, 50, 51, 52, 107, 108, 109, 511, 512, 513, 1000])).collect()
}

/// The two regions of guest memory are neighbours: any buffer may lie across their border.
#[test]
fn r04_buffers_across_two_regions_are_one() {
    let mut disk = Disk::new();
    for inside in [1, 2, 11, 12, 50, 51, 107, 108, 200, 511] {
        for number in [0, 1] {
            // Data.
            let read = Request::new(lun(0, number), &read_10(5, 1)).data_in(512).message();
            let mut chain = disk.device.segments(&read);
            chain[2].addr = BUFFERS - inside;
            disk.device.guest.write(BUFFERS - inside, &[0xa5; 512]);
            disk.device.answer_chain(FIRST, &chain).assert_data(&disk.content[5 * 512..6 * 512]);
            // Everything writable in one descriptor.
            let mut chain = disk.device.cut(&read, &[], &[]);
            chain[1].addr = BUFFERS - inside;
            disk.device.guest.write(BUFFERS - inside, &[0xa5; 108 + 512]);
            disk.device.answer_chain(FIRST, &chain).assert_data(&disk.content[5 * 512..6 * 512]);
            // Everything readable in one descriptor.
            let bytes = [inside as u8 ^ number as u8; 512];
            let write = Request::new(lun(0, number), &write_10(7, 1)).data_out(bytes).message();
            let mut chain = disk.device.cut(&write, &[], &[]);
            chain[0].addr = BUFFERS - inside;
            disk.device.guest.write(BUFFERS - inside, &write.readable);
            disk.device.answer_chain(FIRST, &chain).assert_good(0);
            disk.content[7 * 512..8 * 512].copy_from_slice(&bytes);
            assert!(medium(&*disk.malloc) == disk.content);
        }
    }
}

/// An indirect table may lie across the border, too, and may come after ordinary descriptors (virtio 1.3 §2.7.5.3.2).
#[test]
fn r04_indirect_table_across_two_regions_after_ordinary_descriptors_is_followed() {
    let mut disk = Disk::new();
    let read = Request::new(lun(0, 0), &read_10(5, 1)).data_in(512).message();
    let chain = disk.device.segments(&read);
    let table: Vec<[u8; 16]> = chain[1..]
        .iter()
        .zip([(3, 1), (2, 0)]) // WRITE|NEXT, WRITE
        .map(|(segment, (flags, next))| RawSplit::descriptor_bytes(segment.addr, segment.len, flags, next))
        .collect();
    let addr = BUFFERS - 20; // not even aligned
    disk.device.guest.write(addr, &table.concat());
    let token = disk.device.submit_chain(FIRST, &[chain[0], Segment::readable(addr, 32)]);
    // With nothing else on the ring, the driver takes descriptors 0 and 1. The second one becomes the table's.
    disk.device.raw(FIRST).set_descriptor(1, addr, 32, 4, 0);
    disk.device.run();
    let reply = disk.device.take_one(FIRST);
    assert_eq!((reply.token, reply.head, reply.written), (token, 0, 108 + 512));
    assert!(disk.device.guest.read(chain[2].addr, 512) == disk.content[5 * 512..6 * 512]);
}
