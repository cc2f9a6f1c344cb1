//! Devices and an uplink on a switch, one thread: who gets what, in which order it comes back, and what is counted. Several
//! threads are in `threads.rs`.

mod threads;

use std::collections::VecDeque;
use std::sync::Arc;

use guest_memory::GuestSlice;
use parking_lot::Mutex;
use reactor::{Armed, Source};

use super::forward::Forwarder;
use super::*;
use crate::testing::{Memory, Shape, attachment, poller};
use crate::{DropCause, FrameBatch, Mac, Offload};

const A: Mac = Mac([0x52, 0x54, 0, 0, 0, 0xa]);
const B: Mac = Mac([0x52, 0x54, 0, 0, 0, 0xb]);
const C: Mac = Mac([0x52, 0x54, 0, 0, 0, 0xc]);
const OUTSIDE: Mac = Mac([0x52, 0x54, 0, 0, 0, 0xff]);

fn switch() -> Switch {
    Switch::new("switch", SwitchConfig::default(), None).expect("a switch")
}

/// A device with one queue pair, which keeps the frames that it sends.
struct Device {
    mac: Mac,
    queue: Box<dyn PortQueue>,
    stats: Arc<PortStats>,
    sent: Vec<Memory>,
}

impl Device {
    fn on(switch: &Switch, mac: Mac) -> Device {
        Device::plug(switch, mac, false)
    }

    fn plug(switch: &Switch, mac: Mac, isolated: bool) -> Device {
        let attachment = attachment("device", mac, 1, isolated);
        let mut queue = switch.attach(&attachment).expect("attached").remove(0);
        queue.set_open(true);
        Device { mac, queue, stats: Arc::clone(&attachment.stats[0]), sent: Vec::new() }
    }

    /// Sends one frame with that text as payload. Whether it was taken.
    fn send(&mut self, to: Mac, text: &str) -> bool {
        let memory = Memory::of(&frame(to, self.mac, text));
        let mut batch = FrameBatch::new(1, 1);
        let (first, rest) = memory.at(0, 14 + text.len()).split_at(20.min(14 + text.len()));
        batch.push(first, &[rest], Offload::NONE);
        self.sent.push(memory);
        self.queue.tx_burst(&batch) == 1
    }

    /// The texts of what it receives now, without being done with them.
    fn look(&mut self) -> Vec<String> {
        let mut batch = FrameBatch::new(32, 64);
        self.queue.rx_burst(&mut batch, 32);
        batch.frames().map(|frame| text(frame.segments)).collect()
    }

    fn receive(&mut self) -> Vec<String> {
        let texts = self.look();
        self.queue.rx_done(texts.len());
        texts
    }

    fn dropped(&self, cause: DropCause) -> u64 {
        self.stats.drops[cause as usize].value()
    }
}

fn frame(to: Mac, from: Mac, text: &str) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend_from_slice(&[0x88, 0xb5]); // local experiments
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn text(segments: &[GuestSlice]) -> String {
    let mut bytes = vec![0; segments.iter().map(|segment| segment.len()).sum()];
    crate::peek(segments, &mut bytes);
    String::from_utf8_lossy(&bytes[14..]).into_owned()
}

const NOTHING: [String; 0] = [];

#[test]
fn frame_to_an_unknown_address_goes_to_all_others_and_to_a_known_one_to_it_alone() {
    let switch = switch();
    let (mut a, mut b, mut c) = (Device::on(&switch, A), Device::on(&switch, B), Device::on(&switch, C));
    assert!(a.send(B, "who"));
    assert_eq!((a.receive(), b.receive(), c.receive()), (vec![], vec!["who".into()], vec!["who".to_owned()]));
    assert!(b.send(A, "me"));
    assert!(a.send(B, "hello"));
    assert_eq!((a.receive(), b.receive(), c.receive()), (vec!["me".into()], vec!["hello".into()], NOTHING.to_vec()));
    assert_eq!((switch.stats().floods(), switch.stats().learned.value(), switch.stats().entries.value()), (1, 2, 2));
    assert_eq!((a.stats.tx_frames.value(), a.stats.tx_bytes.value()), (2, 14 + 3 + 14 + 5));
    assert_eq!((b.stats.rx_frames.value(), b.stats.rx_bytes.value()), (2, 14 + 3 + 14 + 5));
    assert_eq!((a.queue.tx_done(), b.queue.tx_done()), (2, 1));
}

#[test]
fn frame_to_a_group_goes_to_all_others_and_link_local_ones_to_nobody() {
    let switch = switch();
    let (mut a, mut b, mut c) = (Device::on(&switch, A), Device::on(&switch, B), Device::on(&switch, C));
    a.send(Mac::BROADCAST, "all");
    a.send(Mac([0x33, 0x33, 0, 0, 0, 1]), "group");
    a.send(Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]), "neighbour");
    assert_eq!((a.receive(), b.receive()), (vec![], vec!["all".to_owned(), "group".to_owned()]));
    assert_eq!(c.receive().len(), 2);
    assert_eq!((a.queue.tx_done(), a.dropped(DropCause::NoDestination), switch.stats().floods()), (3, 1, 0));
}

#[test]
fn frame_to_its_own_port_or_to_an_empty_switch_is_lost_and_counted() {
    let switch = switch();
    let mut a = Device::on(&switch, A);
    a.send(B, "anybody");
    a.send(A, "myself");
    let short = Memory::of(&[1; 13]);
    a.queue.tx_burst(&crate::testing::batch_of(&[short.at(0, 13)], Offload::NONE));
    assert_eq!((a.queue.tx_done(), a.receive()), (3, vec![]));
    assert_eq!((a.dropped(DropCause::NoDestination), a.dropped(DropCause::Length)), (2, 1));
    assert_eq!(a.stats.tx_frames.value(), 0);
}

#[test]
fn address_that_turns_up_elsewhere_is_followed() {
    let switch = switch();
    let (mut a, mut b, mut c) = (Device::on(&switch, A), Device::on(&switch, B), Device::on(&switch, C));
    b.send(Mac::BROADCAST, "here");
    a.receive();
    c.receive();
    c.mac = B; // the guest has migrated
    c.send(Mac::BROADCAST, "now here");
    a.receive();
    b.receive();
    a.send(B, "found");
    assert_eq!((b.receive(), c.receive()), (vec![], vec!["found".to_owned()]));
    assert_eq!(switch.stats().moved.value(), 1);
}

#[test]
fn address_that_was_silent_for_long_is_unknown_again() {
    let switch = switch();
    let (mut b, mut c) = (Device::on(&switch, B), Device::on(&switch, C));
    let mut forwarder = Forwarder::new(Arc::clone(&switch.shared), PortId(3), false, Arc::default());
    b.send(Mac::BROADCAST, "here");
    c.receive();
    let memory = Memory::of(&frame(B, A, "later"));
    let batch = crate::testing::batch_of(&[memory.at(0, 19)], Offload::NONE);
    let later = |seconds: u64| Tsc::now() + Tsc::ticks(seconds * 1_000_000_000);
    forwarder.forward(&batch, later(299));
    assert_eq!((b.receive().len(), c.receive().len()), (1, 0));
    forwarder.forward(&batch, later(302));
    assert_eq!((b.receive().len(), c.receive().len()), (1, 1));
    assert_eq!((switch.stats().aged.value(), forwarder.reap()), (0, 2));
}

#[test]
fn isolated_device_reaches_the_uplink_only() {
    let (switch, wire) = with_uplink();
    let mut uplink = switch.uplink_source(&poller()).unwrap().unwrap();
    let mut a = Device::plug(&switch, A, true);
    let (mut b, mut c) = (Device::plug(&switch, B, true), Device::on(&switch, C));
    a.send(Mac::BROADCAST, "a");
    c.send(Mac::BROADCAST, "c");
    a.send(C, "not to c");
    uplink.poll(Tsc::now());
    assert_eq!((a.receive(), b.receive(), c.receive()), (vec![], vec![], NOTHING.to_vec()));
    assert_eq!(wire.sent(), ["a", "c"]);
    assert_eq!(a.dropped(DropCause::NoDestination), 1);
    wire.give(&frame(A, OUTSIDE, "to a"));
    wire.give(&frame(Mac::BROADCAST, OUTSIDE, "to all"));
    uplink.poll(Tsc::now());
    assert_eq!((a.receive(), b.receive()), (vec!["to a".into(), "to all".into()], vec!["to all".to_owned()]));
    assert_eq!(c.receive(), ["to all"]);
}

#[test]
fn r27_frames_for_a_receiver_that_is_full_are_counted_where_they_came_from() {
    let config = SwitchConfig { inbox_frames: 2, ..SwitchConfig::default() };
    let switch = Switch::new("switch", config, None).unwrap();
    let (mut a, mut b, mut c) = (Device::on(&switch, A), Device::on(&switch, B), Device::on(&switch, C));
    b.send(Mac::BROADCAST, "here");
    a.receive();
    c.receive();
    for text in ["1", "2", "3"] {
        assert!(a.send(B, text));
    }
    assert_eq!(a.dropped(DropCause::Full), 1);
    a.send(Mac::BROADCAST, "4");
    assert_eq!((a.dropped(DropCause::Full), c.receive()), (2, vec!["4".to_owned()]));
    assert_eq!((b.receive(), a.queue.tx_done()), (vec!["1".into(), "2".to_owned()], 4));
    assert_eq!(a.stats.tx_frames.value(), 3);
}

#[test]
fn r27_sender_that_holds_as_many_as_it_may_takes_no_more() {
    let config = SwitchConfig { frames_max: 2, ..SwitchConfig::default() };
    let switch = Switch::new("switch", config, None).unwrap();
    let (mut a, mut b) = (Device::on(&switch, A), Device::on(&switch, B));
    assert_eq!((a.send(B, "1"), a.send(B, "2"), a.send(B, "3")), (true, true, false));
    b.receive();
    assert_eq!((a.queue.tx_done(), a.send(B, "3")), (2, true));
    assert_eq!(b.receive(), ["3"]);
}

#[test]
fn frames_come_back_in_the_order_that_they_were_sent() {
    let switch = switch();
    let (mut a, mut b, mut c) = (Device::on(&switch, A), Device::on(&switch, B), Device::on(&switch, C));
    b.send(Mac::BROADCAST, "b");
    c.send(Mac::BROADCAST, "c");
    a.receive();
    b.receive();
    c.receive();
    a.send(B, "1");
    a.send(C, "2");
    a.send(A, "lost");
    a.send(B, "3");
    assert_eq!((c.receive(), a.queue.tx_done()), (vec!["2".to_owned()], 0));
    assert_eq!((b.look(), a.queue.tx_done()), (vec!["1".into(), "3".to_owned()], 0));
    b.queue.rx_done(1);
    assert_eq!(a.queue.tx_done(), 3);
    b.queue.rx_done(1);
    assert_eq!((a.queue.tx_done(), a.queue.arm()), (1, Armed::Sleep));
}

#[test]
fn r27_receiver_that_closes_lets_go_of_what_it_had() {
    let switch = switch();
    let (mut a, mut b) = (Device::on(&switch, A), Device::on(&switch, B));
    b.send(A, "here");
    a.receive();
    a.send(B, "1");
    a.send(B, "2");
    assert_eq!((b.queue.arm(), a.queue.tx_done()), (Armed::Ready, 0));
    let before = b.dropped(DropCause::NoDestination);
    b.queue.set_open(false);
    assert_eq!((a.queue.tx_done(), b.dropped(DropCause::NoDestination) - before), (2, 2));
    a.send(B, "3");
    assert_eq!((a.queue.tx_done(), a.dropped(DropCause::NoDestination)), (1, 1));
    b.queue.set_open(true);
    assert!(b.receive().is_empty());
    a.send(B, "4");
    assert_eq!(b.receive(), ["4"]);
}

#[test]
fn r27_frames_that_a_receiver_leaves_lying_are_taken_back() {
    let switch = switch();
    let (mut a, mut b, mut c) = (Device::on(&switch, A), Device::on(&switch, B), Device::on(&switch, C));
    b.send(Mac::BROADCAST, "b");
    c.send(Mac::BROADCAST, "c");
    a.receive();
    b.receive();
    c.receive();
    a.send(B, "1");
    a.send(C, "2");
    a.send(B, "3");
    // B has claimed its first one, and sees no more of the second once it is taken back.
    let mut batch = FrameBatch::new(1, 2);
    assert_eq!((b.queue.rx_burst(&mut batch, 1), c.receive().len()), (1, 1));
    let start = Tsc::now();
    while Tsc::now() - start < Tsc::ticks(120_000_000) {
        assert_eq!((a.queue.tx_done(), a.queue.arm()), (0, Armed::Ready));
    }
    b.queue.rx_done(1);
    assert_eq!(a.queue.tx_done(), 3);
    assert_eq!(a.dropped(DropCause::Full), 1);
    assert!(b.receive().is_empty());
    // And the switch goes on with the same frames.
    for round in 0..2000 {
        a.send(B, &round.to_string());
        assert_eq!((b.receive(), a.queue.tx_done()), (vec![round.to_string()], 1));
        a.sent.clear();
    }
}

#[test]
fn r27_sender_that_goes_takes_its_frames_with_it() {
    let switch = switch();
    let (mut a, mut b) = (Device::on(&switch, A), Device::on(&switch, B));
    a.send(B, "1");
    a.send(B, "2");
    drop(a);
    assert!(b.receive().is_empty());
    assert_eq!(switch.stats().entries.value(), 0);
}

#[test]
fn device_that_goes_is_forgotten_and_its_place_is_free() {
    let config = SwitchConfig { devices_max: 2, ..SwitchConfig::default() };
    let switch = Switch::new("switch", config, None).unwrap();
    let (mut a, mut b) = (Device::on(&switch, A), Device::on(&switch, B));
    let error = switch.attach(&attachment("c", C, 1, false)).map(|_| ()).expect_err("full");
    assert_eq!(error.to_string(), "port switch takes 2 device(s), and another device has it");
    b.send(A, "b");
    assert_eq!(a.receive(), ["b"]);
    drop(b);
    a.send(B, "gone");
    assert_eq!(a.dropped(DropCause::NoDestination), 1);
    let mut c = Device::on(&switch, C);
    a.send(B, "still gone");
    assert_eq!(c.receive(), ["still gone"]);
}

#[test]
fn device_that_asks_for_too_much_is_refused() {
    let switch = switch();
    let error = switch.attach(&attachment("d", A, 65, false)).map(|_| ()).expect_err("refused");
    assert_eq!(error.to_string(), "port switch: 65 queue pairs, must be at most 64");
    let (limited, _) = with_uplink();
    let error =
        limited.attach(&Attachment { mtu: 9001, ..attachment("d", A, 1, false) }).map(|_| ()).expect_err("refused");
    assert_eq!(error.to_string(), "port switch: MTU 9001, must be at most 9000");
    let bad = |config: SwitchConfig| config.check().expect_err("out of bounds").to_string();
    let config = SwitchConfig { entries_max: 100, ..SwitchConfig::default() };
    assert_eq!(bad(config), "device_entries_max = 1024, must be 1 to 100");
    assert_eq!(bad(SwitchConfig { age: Duration::ZERO, ..SwitchConfig::default() }), "age = 0, must be 1 to 31536000");
    assert_eq!(SwitchConfig::default().check(), Ok(()));
}

#[test]
fn flows_are_spread_over_the_open_queue_pairs_of_a_device_in_order() {
    let switch = switch();
    let mut a = Device::on(&switch, A);
    let device = attachment("many", B, 4, false);
    let mut queues = switch.attach(&device).unwrap();
    for open in [[true, true, true, true], [true, false, true, false], [false, false, false, true]] {
        queues.iter_mut().zip(open).for_each(|(queue, open)| queue.set_open(open));
        let mut got: Vec<Vec<(u16, u8)>> = vec![Vec::new(); 4];
        for number in 0..4u8 {
            for port in 0..60u16 {
                let mut bytes = Shape { tags: 1, ip6: port % 2 == 0, tcp: true, options: 0 }.frame(&[number]);
                let l4 = if port % 2 == 0 { 18 + 40 } else { 18 + 20 };
                bytes[..6].copy_from_slice(&B.0);
                bytes[l4..l4 + 2].copy_from_slice(&port.to_be_bytes());
                let memory = Memory::of(&bytes);
                let batch = crate::testing::batch_of(&[memory.at(0, bytes.len())], Offload::NONE);
                assert_eq!(a.queue.tx_burst(&batch), 1);
                for (queue, got) in queues.iter_mut().zip(&mut got) {
                    let mut batch = FrameBatch::new(4, 4);
                    let count = queue.rx_burst(&mut batch, 4);
                    got.extend((0..count).map(|_| (port, number)));
                    queue.rx_done(count);
                }
                assert_eq!(a.queue.tx_done(), 1);
            }
        }
        for (frames, open) in got.iter().zip(open) {
            assert_eq!(frames.len() > 10, open, "{}", frames.len());
        }
        // No flow is in two places, and each has its four frames in order.
        for port in 0..60 {
            let places: Vec<Vec<u8>> = got
                .iter()
                .map(|frames| frames.iter().filter(|frame| frame.0 == port).map(|frame| frame.1).collect())
                .collect();
            assert_eq!(places.concat(), [0, 1, 2, 3]);
            assert_eq!(places.iter().filter(|frames| !frames.is_empty()).count(), 1);
        }
    }
}

#[test]
fn offloads_pass_through() {
    let switch = switch();
    let (mut a, mut b) = (Device::on(&switch, A), Device::on(&switch, B));
    assert_eq!((switch.traits().tx_offloads, switch.traits().rx_offloads), (Offloads::all(), Offloads::all()));
    let memory = Memory::of(&frame(B, A, "some text"));
    let offload = Offload {
        checksum: crate::Checksum::Partial { start: 1, offset: 2 },
        segmentation: crate::Segmentation::Udp { size: 3 },
    };
    a.queue.tx_burst(&crate::testing::batch_of(&memory.cut(&[3, 5]), offload));
    let mut batch = FrameBatch::new(1, 4);
    b.queue.rx_burst(&mut batch, 32);
    let got = batch.frame(0);
    assert_eq!((got.offload, got.len, got.segments.len()), (offload, 23, 3));
    assert_eq!(got.segments[0].as_ptr(), memory.at(0, 1).as_ptr());
    b.queue.rx_done(1);
}

#[test]
fn switch_at_work_allocates_nothing() {
    let switch = switch();
    let (mut a, mut b, mut c) = (Device::on(&switch, A), Device::on(&switch, B), Device::on(&switch, C));
    let memories = [A, OUTSIDE].map(|from| Memory::of(&frame(B, from, "some text")));
    let (mut batch, mut back) = (FrameBatch::new(32, 64), FrameBatch::new(32, 64));
    let allocations = allocation_counter::measure(|| {
        for round in 0..100 {
            // Learned as new, known, and moved; sent to all.
            let memory = &memories[round / 30 % 2];
            batch.clear();
            (0..32).for_each(|_| batch.push(memory.at(0, 14), &[memory.at(14, 9)], Offload::NONE));
            let sender = if round % 3 == 0 { &mut c } else { &mut a };
            assert_eq!(sender.queue.tx_burst(&batch), 32);
            for device in [&mut a, &mut b, &mut c] {
                let count = device.queue.rx_burst(&mut back, 32);
                device.queue.rx_done(count);
            }
            for device in [&mut a, &mut b, &mut c] {
                device.queue.tx_done();
                device.queue.arm();
                device.queue.disarm();
            }
        }
    });
    assert_eq!(allocations.count_total, 0);
    assert!(switch.stats().moved.value() > 0 && b.stats.rx_frames.value() == 3200);
}

/// The far side of an uplink: what was sent to it, and what it has to give.
#[derive(Default)]
struct Wire {
    sent: Mutex<Vec<String>>,
    /// Frames that it takes before it is full.
    room: Mutex<usize>,
    /// Frames that it took and is not done with.
    holds: Mutex<Option<usize>>,
    arriving: Mutex<VecDeque<Memory>>,
    /// Frames that it has lent: oldest first.
    lent: Mutex<VecDeque<Memory>>,
}

impl Wire {
    fn give(&self, frame: &[u8]) {
        self.arriving.lock().push_back(Memory::of(frame));
    }

    fn sent(&self) -> Vec<String> {
        self.sent.lock().clone()
    }
}

struct WirePort(Arc<Wire>);

struct WireQueue {
    wire: Arc<Wire>,
    done: usize,
}

fn with_uplink() -> (Switch, Arc<Wire>) {
    let wire = Arc::new(Wire { room: Mutex::new(usize::MAX), ..Wire::default() });
    let port = Arc::new(WirePort(Arc::clone(&wire)));
    (Switch::new("switch", SwitchConfig::default(), Some(port)).expect("a switch"), wire)
}

impl Port for WirePort {
    fn name(&self) -> &str {
        "wire"
    }

    fn traits(&self) -> Traits {
        Traits {
            tx_offloads: Offloads::empty(),
            rx_offloads: Offloads::empty(),
            devices_max: 1,
            queues_max: 1,
            mtu_max: 9000,
            mac: None,
        }
    }

    fn link(&self) -> Link {
        Link { up: false, speed_mbps: Some(10_000) }
    }

    fn attach(&self, _device: &Attachment) -> Result<Vec<Box<dyn PortQueue>>, AttachError> {
        Ok(vec![Box::new(WireQueue { wire: Arc::clone(&self.0), done: 0 })])
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        vec![("wires".to_owned(), 1)]
    }
}

impl PortQueue for WireQueue {
    fn tx_burst(&mut self, batch: &FrameBatch) -> usize {
        let taken = batch.len().min(*self.wire.room.lock());
        let texts = batch.frames().take(taken).map(|frame| text(frame.segments));
        self.wire.sent.lock().extend(texts);
        match &mut *self.wire.holds.lock() {
            Some(held) => *held += taken,
            None => self.done += taken,
        }
        taken
    }

    fn tx_done(&mut self) -> usize {
        std::mem::take(&mut self.done)
    }

    fn rx_burst(&mut self, batch: &mut FrameBatch, limit: usize) -> usize {
        batch.clear();
        let mut arriving = self.wire.arriving.lock();
        while batch.len() < limit
            && let Some(memory) = arriving.pop_front()
        {
            batch.push(memory.cut(&[])[0], &[], Offload::NONE);
            self.wire.lent.lock().push_back(memory);
        }
        batch.len()
    }

    fn rx_done(&mut self, frames: usize) {
        self.wire.lent.lock().drain(..frames);
    }

    fn set_open(&mut self, _open: bool) {}

    fn arm(&mut self) -> Armed {
        Armed::Sleep
    }
}

#[test]
fn uplink_carries_frames_both_ways_and_gets_its_own_back_in_order() {
    let (switch, wire) = with_uplink();
    let mut uplink = switch.uplink_source(&poller()).unwrap().unwrap();
    let (mut a, mut b) = (Device::on(&switch, A), Device::on(&switch, B));
    a.send(OUTSIDE, "1");
    b.send(OUTSIDE, "2");
    a.receive();
    b.receive();
    assert_eq!((uplink.arm(), uplink.poll(Tsc::now())), (Armed::Ready, 2));
    assert_eq!(wire.sent(), ["1", "2"]);
    uplink.poll(Tsc::now());
    assert_eq!((a.queue.tx_done(), b.queue.tx_done()), (1, 1));
    for (to, text) in [(A, "3"), (B, "4"), (OUTSIDE, "its own"), (A, "5")] {
        wire.give(&frame(to, OUTSIDE, text));
    }
    assert_eq!(uplink.poll(Tsc::now()), 4);
    a.send(OUTSIDE, "6");
    assert_eq!((b.receive(), wire.lent.lock().len()), (vec!["4".to_owned()], 4));
    uplink.poll(Tsc::now());
    assert_eq!(wire.lent.lock().len(), 4);
    assert_eq!(a.receive(), ["3", "5"]);
    uplink.poll(Tsc::now());
    assert!(wire.lent.lock().is_empty());
    assert_eq!((a.queue.tx_done(), uplink.poll(Tsc::now()), uplink.arm()), (1, 0, Armed::Sleep));
    // Known by now: the other device did not get it.
    assert_eq!((wire.sent().len(), b.receive().len()), (3, 0));
    let stats = switch.uplink_stats();
    assert_eq!((stats.tx_frames.value(), stats.rx_frames.value()), (3, 3));
    assert_eq!(stats.drops[DropCause::NoDestination as usize].value(), 1);
    let named = switch.extended_stats();
    assert!(named.contains(&("entries".to_owned(), 3)) && named.contains(&("uplink_wires".to_owned(), 1)));
    assert_eq!(switch.link(), Link { up: true, speed_mbps: Some(10_000) });
}

#[test]
fn uplink_that_is_full_gets_the_rest_later_in_order() {
    let (switch, wire) = with_uplink();
    let mut uplink = switch.uplink_source(&poller()).unwrap().unwrap();
    let mut a = Device::on(&switch, A);
    (1..=5).for_each(|number| assert!(a.send(OUTSIDE, &number.to_string())));
    *wire.room.lock() = 2;
    uplink.poll(Tsc::now());
    *wire.room.lock() = 1;
    uplink.poll(Tsc::now());
    assert_eq!((wire.sent(), a.queue.tx_done()), (vec!["1".into(), "2".into(), "3".to_owned()], 2));
    *wire.room.lock() = 0;
    a.send(OUTSIDE, "6");
    uplink.poll(Tsc::now());
    assert_eq!((a.queue.tx_done(), uplink.arm()), (1, Armed::Ready));
    *wire.room.lock() = 32;
    uplink.poll(Tsc::now());
    uplink.poll(Tsc::now());
    assert_eq!((wire.sent().concat(), a.queue.tx_done()), ("123456".to_owned(), 3));
}

#[test]
fn r27_frames_that_a_stuck_uplink_does_not_take_come_back() {
    let (switch, wire) = with_uplink();
    let mut uplink = switch.uplink_source(&poller()).unwrap().unwrap();
    let mut a = Device::on(&switch, A);
    *wire.room.lock() = 0;
    a.send(OUTSIDE, "1");
    a.send(OUTSIDE, "2");
    let mut done = 0;
    while done < 2 {
        uplink.poll(Tsc::now());
        done += a.queue.tx_done();
    }
    *wire.room.lock() = 32;
    a.send(OUTSIDE, "3");
    uplink.poll(Tsc::now());
    assert_eq!((wire.sent(), a.dropped(DropCause::Full)), (vec!["3".to_owned()], 2));
}

#[test]
fn frames_that_the_uplink_looks_at_are_not_taken_back() {
    let (switch, wire) = with_uplink();
    let mut uplink = switch.uplink_source(&poller()).unwrap().unwrap();
    let mut a = Device::on(&switch, A);
    *wire.holds.lock() = Some(0);
    a.send(OUTSIDE, "1");
    uplink.poll(Tsc::now());
    let start = Tsc::now();
    while Tsc::now() - start < Tsc::ticks(120_000_000) {
        assert_eq!(a.queue.tx_done(), 0);
    }
    // It ends without a word: what it had is nobody's any more.
    drop(uplink);
    assert_eq!(a.queue.tx_done(), 1);
}

#[test]
fn uplink_is_plugged_in_once_and_again_when_it_has_gone() {
    let (switch, wire) = with_uplink();
    let uplink = switch.uplink_source(&poller()).unwrap().unwrap();
    let error = switch.uplink_source(&poller()).map(|_| ()).expect_err("plugged in");
    assert_eq!(error.to_string(), "port switch: its uplink is plugged in already");
    let mut a = Device::on(&switch, A);
    a.send(OUTSIDE, "lost");
    drop(uplink);
    assert_eq!(a.queue.tx_done(), 1);
    let mut uplink = switch.uplink_source(&poller()).unwrap().unwrap();
    a.send(OUTSIDE, "found");
    uplink.poll(Tsc::now());
    assert_eq!(wire.sent(), ["found"]);
    assert!(Switch::new("none", SwitchConfig::default(), None).unwrap().uplink_source(&poller()).unwrap().is_none());
}
