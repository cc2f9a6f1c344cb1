//! R04: a chain is one command, however many descriptors it has; `seg_max` bounds the data segments of each direction.

use std::sync::Arc;

use bdev::testing::{Calls, Recorder};
use tests::device::{BUFFERS, Device, FIRST, Message, Request, Setup, lun, read_10, unit, write_10};
use virtio_scsi::Limit;
use virtqueue::Segment;

const FAILURE: u8 = 9;
const BUSY: u8 = 5;

fn device(seg_max: Option<u32>, ring_size: u16) -> (Device, Recorder) {
    let disk = Recorder::new("disk", 1024, 512).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.limits.seg_max = seg_max;
    setup.ring_size = ring_size;
    (Device::ready(setup), disk)
}

fn read(blocks: u16) -> Message {
    Request::new(lun(0, 0), &read_10(0, blocks)).data_in(usize::from(blocks) * 512).message()
}

fn write(blocks: u16) -> Message {
    Request::new(lun(0, 0), &write_10(0, blocks)).data_out(vec![9; usize::from(blocks) * 512]).message()
}

/// Both headers on their own, then this many data segments.
fn segments(device: &mut Device, message: &Message, data: usize) -> Vec<Segment> {
    let data_len = message.readable.len() - 51 + message.writable - 108;
    let each = vec![data_len / data; data - 1];
    let readable = [vec![51], each.clone()].concat();
    let writable = [vec![108], each].concat();
    device.cut(message, &readable, &writable)
}

#[test]
fn r04_seg_max_segments_are_served_and_one_more_is_refused_in_each_direction() {
    let (mut device, disk) = device(Some(4), 128);
    for message in [read(5), write(5)] {
        for indirect in [false, true] {
            let before = disk.calls();
            let chain = segments(&mut device, &message, 4);
            let token = submit(&mut device, &chain, indirect);
            device.answer_to(FIRST, token).assert_good(0);
            assert_eq!(disk.calls().ended, before.ended + 1);

            let chain = segments(&mut device, &message, 5);
            let token = submit(&mut device, &chain, indirect);
            let memory = device.guest.snapshot();
            let reply = device.answer_to(FIRST, token);
            reply.assert_transport(FAILURE, 5 * 512);
            let allowed = [device.used_ring(FIRST), reply.response_addr()..reply.response_addr() + 12];
            memory.assert_only(&device.guest, &allowed, "a segment too many");
            assert_eq!(disk.calls().ended, before.ended + 1);
        }
    }
    assert_eq!(device.refused(0, Limit::SegMax), 4);
}

fn submit(device: &mut Device, segments: &[Segment], indirect: bool) -> usize {
    if indirect { device.submit_indirect(FIRST, segments) } else { device.submit_chain(FIRST, segments) }
}

#[test]
fn r04_default_seg_max_is_the_size_of_the_ring_in_use_less_two() {
    let (mut device, disk) = device(None, 16);
    for message in [read(15), write(15)] {
        let chain = segments(&mut device, &message, 14);
        assert_eq!(chain.len(), 16, "as long as the ring");
        device.answer_chain(FIRST, &chain).assert_good(0);
        let token = device.submit_indirect(FIRST, &chain);
        device.answer_to(FIRST, token).assert_good(0);
    }
    let served = disk.calls();
    // 15 data segments fit into a chain of 16 only if the first of them shares a descriptor with the header.
    let out = device.cut(&write(15), &[51 + 512, 512, 512, 512, 512, 512, 512, 512, 512, 512, 512, 512, 512, 512], &[]);
    assert_eq!(out.len(), 16);
    device.answer_chain(FIRST, &out).assert_transport(FAILURE, 15 * 512);
    let into =
        device.cut(&read(15), &[], &[108 + 512, 512, 512, 512, 512, 512, 512, 512, 512, 512, 512, 512, 512, 512]);
    assert_eq!(into.len(), 16);
    device.answer_chain(FIRST, &into).assert_transport(FAILURE, 15 * 512);
    assert_eq!(disk.calls(), served);
    assert_eq!(device.refused(0, Limit::SegMax), 2);
}

#[test]
fn r04_headers_are_no_data_segments_however_they_are_cut() {
    let (mut device, _) = device(Some(1), 256);
    for cuts in [vec![51], vec![1; 51], vec![25, 26], vec![0, 50, 0, 1, 0]] {
        let chain = device.cut(&read(1), &cuts, &[107, 1]);
        device.answer_chain(FIRST, &chain).assert_good(0);
        let chain = device.cut(&write(1), &cuts, &[54, 54]);
        device.answer_chain(FIRST, &chain).assert_good(0);
        let over = [cuts.clone(), vec![511]].concat();
        let chain = device.cut(&write(1), &over, &[108]);
        device.answer_chain(FIRST, &chain).assert_transport(FAILURE, 512);
    }
    let chain = device.cut(&read(1), &[51], &[1, 106, 1, 1]);
    device.answer_chain(FIRST, &chain).assert_transport(FAILURE, 512);
}

#[test]
fn r04_segment_that_shares_a_descriptor_with_a_header_counts() {
    let (mut device, _) = device(Some(2), 128);
    let two = device.cut(&write(3), &[51 + 512], &[]);
    device.answer_chain(FIRST, &two).assert_good(0);
    let three = device.cut(&write(3), &[51 + 512, 512], &[]);
    device.answer_chain(FIRST, &three).assert_transport(FAILURE, 3 * 512);
    let two = device.cut(&read(3), &[], &[108 + 512]);
    device.answer_chain(FIRST, &two).assert_good(0);
    let three = device.cut(&read(3), &[], &[108 + 512, 512]);
    device.answer_chain(FIRST, &three).assert_transport(FAILURE, 3 * 512);
}

/// A buffer that lies across two memory regions is two pieces to the device, but one segment of the driver's.
#[test]
fn r04_descriptor_across_regions_counts_once() {
    let (mut device, _) = device(Some(2), 128);
    let message = write(3);
    device.guest.write(BUFFERS - 700, &message.readable[51..51 + 1024]);
    let mut chain = segments(&mut device, &message, 3);
    chain.splice(1..3, [Segment::readable(BUFFERS - 700, 1024)]);
    assert_eq!(chain.len(), 4, "header, two segments, response");
    device.answer_chain(FIRST, &chain).assert_good(0);
    // A header across regions is no segment either.
    for inside in [1, 20, 50] {
        device.guest.write(BUFFERS - inside, &message.readable[..51]);
        let mut chain = segments(&mut device, &message, 2);
        chain[0] = Segment::readable(BUFFERS - inside, 51);
        device.answer_chain(FIRST, &chain).assert_good(0);
    }
}

/// Nor does it make room for one more, in either direction; and one that data follows in is a segment wherever it is cut.
#[test]
fn r04_header_across_regions_leaves_the_limit_as_it_is() {
    let (mut device, disk) = device(Some(2), 128);
    for inside in [1, 20, 50] {
        let message = write(3);
        device.guest.write(BUFFERS - inside, &message.readable[..51]);
        let mut chain = segments(&mut device, &message, 3);
        chain[0] = Segment::readable(BUFFERS - inside, 51);
        device.answer_chain(FIRST, &chain).assert_transport(FAILURE, 3 * 512);
        for data in [2, 3] {
            device.guest.write(BUFFERS - inside, &[0xa5; 108]);
            let mut chain = segments(&mut device, &read(3), data);
            let response = chain.iter().position(|segment| segment.writable).unwrap();
            chain[response] = Segment::writable(BUFFERS - inside, 108);
            let reply = device.answer_chain(FIRST, &chain);
            assert_eq!(reply.code(), if data == 2 { 0 } else { FAILURE });
        }
    }
    assert_eq!((disk.calls().writes, disk.calls().reads), (0, 3));
    assert_eq!(device.refused(0, Limit::SegMax), 6);
    // The border between header and data is the border between the regions.
    let message = write(3);
    device.guest.write(BUFFERS - 51, &message.readable[..551]);
    let shared = Segment::readable(BUFFERS - 51, 551);
    let mut chain = segments(&mut device, &message, 3);
    chain[0] = shared;
    chain[1].len = 12;
    assert_eq!(chain.iter().filter(|segment| !segment.writable).count(), 4, "all with data");
    assert_eq!(device.answer_chain(FIRST, &chain).code(), FAILURE);
    let rest = Segment::readable(BUFFERS + 4096, 1036);
    device.guest.write(rest.addr, &[9; 1036]);
    assert_eq!(device.answer_chain(FIRST, &[shared, rest, chain[4]]).code(), 0);
}

#[test]
fn r04_descriptors_of_no_bytes_do_not_count() {
    let (mut device, _) = device(Some(1), 128);
    let chain = device.cut(&read(1), &[0, 51, 0], &[0, 108, 0, 0, 512, 0]);
    device.answer_chain(FIRST, &chain).assert_good(0);
}

#[test]
fn r04_well_known_unit_has_no_seg_max_and_an_absent_lun_has() {
    let (mut device, _) = device(Some(1), 128);
    let inquiry = [0x12, 0, 0, 0, 36, 0];
    let well_known = Request::new([0xc1, 1, 0, 0, 0, 0, 0, 0], &inquiry).data_in(36).message();
    let chain = device.cut(&well_known, &[51], &[108, 12, 12, 12]);
    device.answer_chain(FIRST, &chain).assert_good(0);
    let absent = Request::new(lun(0, 9), &inquiry).data_in(36).message();
    let chain = device.cut(&absent, &[51], &[108, 18]);
    device.answer_chain(FIRST, &chain).assert_transport(FAILURE, 36);
    assert_eq!(device.count(|stats| stats.absent_refused[Limit::SegMax as usize].value()), 1);
}

#[test]
fn r04_chain_is_one_command_whatever_its_length() {
    let gate = bdev::Gate::closed();
    let disk = Recorder::gated("disk", 1024, 512, &gate).unwrap();
    let mut setup = Setup::of([unit(0, 0, Arc::new(disk.clone()))]);
    setup.limits.cmd_per_lun = 3;
    setup.gate = gate;
    let mut device = Device::ready(setup);
    let message = read(40);
    let long = segments(&mut device, &message, 40);
    let merged = device.cut(&message, &[], &[]);
    assert_eq!((long.len(), merged.len()), (42, 2));
    device.submit_chain(FIRST, &long);
    device.submit_chain(FIRST, &merged);
    device.submit_indirect(FIRST, &long);
    device.run();
    assert_eq!((disk.calls().reads, device.in_flight(0)), (3, 3));
    device.answer_chain(FIRST, &merged).assert_transport(BUSY, 40 * 512);
    device.gate.open();
    device.run();
    let replies = device.take(FIRST);
    assert_eq!(replies.len(), 3);
    replies.iter().for_each(|reply| reply.assert_good(0));
    assert_eq!(disk.calls(), Calls { reads: 3, writes: 0, flushes: 0, ended: 3 });
}
