//! Senders and receivers on threads of their own, receivers closing and going at any time: every frame comes back to its
//! sender, and nobody sees memory that has been given back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reactor::{IdlePolicy, Reactor, ReactorConfig, affinity};

use super::*;

/// Sends frames that are one byte over and over, each in the next of a few buffers, which it fills with something else as soon
/// as it has it back. Until it is told to stop; then it waits for all of them.
fn sender(mut queue: Box<dyn PortQueue>, from: Mac, to: &[Mac], stop: &AtomicBool) -> u64 {
    const BUFFERS: usize = 64;
    let memory = Memory::of(&[0; BUFFERS * LEN]);
    let (mut batch, mut sent, mut back) = (FrameBatch::new(8, 8), 0usize, 0usize);
    while !stop.load(Ordering::Relaxed) {
        batch.clear();
        while batch.len() < 8 && sent + batch.len() < back + BUFFERS {
            let number = sent + batch.len();
            let buffer = memory.at(number % BUFFERS * LEN, LEN);
            let mut bytes = [number as u8; LEN];
            bytes[..6].copy_from_slice(&to[number % to.len()].0);
            bytes[6..12].copy_from_slice(&from.0);
            buffer.write(&bytes);
            batch.push(buffer, &[], Offload::NONE);
        }
        sent += queue.tx_burst(&batch);
        let done = queue.tx_done();
        (back..back + done).for_each(|number| memory.at(number % BUFFERS * LEN, LEN).fill(0xee));
        back += done;
    }
    while back < sent {
        back += queue.tx_done();
    }
    sent as u64
}

/// Receives, and closes and opens every so often; says what it saw.
fn receiver(mut queue: Box<dyn PortQueue>, closes: bool, stop: &AtomicBool) -> u64 {
    let (mut batch, mut frames, mut bytes) = (FrameBatch::new(32, 32), 0, [0; LEN]);
    for turn in 0u64.. {
        if closes && turn % 50 == 0 {
            queue.set_open(turn % 100 == 0);
        }
        let count = queue.rx_burst(&mut batch, 32);
        for frame in batch.frames() {
            assert_eq!(crate::peek(frame.segments, &mut bytes), LEN);
            assert!(bytes[12..].iter().all(|byte| *byte == bytes[12]), "a torn frame: {bytes:x?}");
            assert!(bytes[..6] != [0xee; 6]);
        }
        queue.rx_done(count);
        frames += count as u64;
        if count == 0 {
            std::thread::yield_now();
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    frames
}

const LEN: usize = 200;

fn queue(switch: &Switch, mac: Mac) -> Box<dyn PortQueue> {
    let mut queue = switch.attach(&attachment("device", mac, 1, false)).expect("attached").remove(0);
    queue.set_open(true);
    queue
}

#[test]
fn r27_frames_of_a_sender_all_come_back_whatever_its_receivers_do() {
    let (switch, stop) = (switch(), AtomicBool::new(false));
    let (a, b, c) = (queue(&switch, A), queue(&switch, B), queue(&switch, C));
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| sender(a, A, &[B, Mac::BROADCAST, C], &stop));
        let receivers = [(b, true), (c, false)].map(|(queue, closes)| {
            let stop = &stop;
            scope.spawn(move || receiver(queue, closes, stop))
        });
        // Others come and go meanwhile, with frames in their inboxes.
        for _ in 0..50 {
            let mut passer_by = queue(&switch, OUTSIDE);
            let mut batch = FrameBatch::new(4, 4);
            while passer_by.rx_burst(&mut batch, 4) == 0 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(sender.join().unwrap() > 50);
        assert!(receivers.into_iter().map(|receiver| receiver.join().unwrap()).sum::<u64>() > 0);
    });
}

#[test]
fn two_devices_on_two_threads_send_to_each_other() {
    let (switch, finished) = (switch(), AtomicUsize::new(0));
    let devices = [(queue(&switch, A), A, B), (queue(&switch, B), B, A)];
    std::thread::scope(|scope| {
        for (queue, from, to) in devices {
            let finished = &finished;
            scope.spawn(move || both_ways(queue, from, to, finished));
        }
    });
    assert_eq!(switch.stats().entries.value(), 0);
}

/// Sends until both have received enough, then until all of its own have come back.
fn both_ways(mut queue: Box<dyn PortQueue>, from: Mac, to: Mac, finished: &AtomicUsize) {
    let memory = Memory::of(&frame(to, from, "to the other one"));
    let (mut batch, mut received) = (FrameBatch::new(1, 1), FrameBatch::new(32, 32));
    batch.push(memory.at(0, 30), &[], Offload::NONE);
    let (mut got, mut out) = (0, 0);
    while finished.load(Ordering::Relaxed) < 2 || out > 0 {
        if finished.load(Ordering::Relaxed) < 2 {
            out += queue.tx_burst(&batch);
        }
        let count = queue.rx_burst(&mut received, 32);
        queue.rx_done(count);
        if got < ENOUGH && got + count >= ENOUGH {
            finished.fetch_add(1, Ordering::Relaxed);
        }
        got += count;
        out -= queue.tx_done();
        if count == 0 {
            std::thread::yield_now();
        }
    }
}

const ENOUGH: usize = 200;

/// A device on a poller that sleeps when it has nothing to do.
struct Listener {
    queue: Box<dyn PortQueue>,
    batch: FrameBatch,
    got: Arc<AtomicUsize>,
}

impl Source for Listener {
    fn poll(&mut self, _now: Tsc) -> usize {
        let count = self.queue.rx_burst(&mut self.batch, 32);
        self.queue.rx_done(count);
        self.got.fetch_add(count, Ordering::Relaxed);
        count
    }

    fn arm(&mut self) -> Armed {
        self.queue.arm()
    }

    fn disarm(&mut self) {
        self.queue.disarm();
    }
}

/// A wakeup that is lost hangs this test.
#[test]
fn poller_that_sleeps_is_woken_for_every_frame() {
    let reactor = Reactor::start(&ReactorConfig {
        cores: vec![affinity::allowed().expect("cores")[0]],
        idle: IdlePolicy::Adaptive,
    })
    .expect("a poller");
    let poller = &reactor.pollers()[0];
    let switch = switch();
    let mut a = Device::on(&switch, A);
    let device = Attachment { pollers: vec![poller.clone()], ..attachment("sleeper", B, 1, false) };
    let mut queue = switch.attach(&device).expect("attached").remove(0);
    queue.set_open(true);
    let got = Arc::new(AtomicUsize::new(0));
    poller.add(Listener { queue, batch: FrameBatch::new(32, 64), got: Arc::clone(&got) });
    for round in 1..=60 {
        assert!(a.send(B, "wake up"));
        while got.load(Ordering::Relaxed) < round {
            std::thread::yield_now();
        }
        while a.queue.tx_done() == 0 {
            std::thread::yield_now();
        }
        a.sent.clear();
        // A pause of any length: the poller sleeps after 50 microseconds without work, and the source is cold after 10 milliseconds.
        let pause = Tsc::now();
        while Tsc::now() - pause < Tsc::ticks(if round % 20 == 0 { 25_000_000 } else { round as u64 * 3_000 }) {
            std::thread::yield_now();
        }
    }
    assert!(poller.stats().sleeps.value() > 5, "{} sleeps", poller.stats().sleeps.value());
    drop(reactor.shutdown());
}
