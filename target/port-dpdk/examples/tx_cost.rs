//! What it costs to send plain frames of 64 bytes to net_null, and to receive from it: bursts to be replayed under callgrind,
//! which counts only these. Prints nanoseconds of CPU time per frame when it runs by
//! itself.
//!
//! ```text
//! cargo build --release -p port-dpdk --example tx_cost
//! valgrind --tool=callgrind --toggle-collect='*tx_cost*measured*' tx_cost [BURSTS] [tx|checksum|rx] [LENGTH]
//! ```

#[cfg(feature = "libdpdk")]
mod cost {
    use std::sync::Arc;

    use guest_memory::{Pages, SharedMemory};
    use port::{Attachment, BURST, Checksum, FrameBatch, Mac, Offload, Port, PortQueue, PortStats};
    use port_dpdk::{DpdkConfig, DpdkPort, DpdkPortConfig, start_eal};
    use rustix::time::{ClockId, clock_gettime};

    pub fn main() {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let bursts: usize = words.first().map_or(10_000, |word| word.parse().expect("a number of bursts"));
        let receive = words.get(1).is_some_and(|word| word == "rx");
        let len: usize = words.get(2).map_or(64, |word| word.parse().expect("a length"));
        let eal_args = ["--no-huge", "--no-shconf", "-m", "128"].map(str::to_owned).to_vec();
        let eal = start_eal(&DpdkConfig { eal_args, ..DpdkConfig::default() }, &[], &[]).expect("EAL").eal;
        let port = DpdkPort::open(eal, DpdkPortConfig::new("null", "net_null0")).expect("net_null");
        let attachment = Attachment {
            device: Arc::from("cost"),
            mac: Mac::default(),
            mtu: 1500,
            pollers: Vec::new(),
            stats: vec![Arc::new(PortStats::default())],
            isolated: false,
        };
        let mut queue = port.attach(&attachment).expect("a queue").remove(0);
        let memory = SharedMemory::create("tx_cost", BURST * 2048, Pages::Small).expect("memory");
        // A checksum left open, as that of TCP over IPv4: the way of frames that need more than a copy.
        let partial = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, ..Offload::NONE };
        let offload = if words.get(1).is_some_and(|word| word == "checksum") { partial } else { Offload::NONE };
        let mut batch = FrameBatch::new(BURST, BURST);
        for frame in 0..BURST {
            batch.push(memory.slice().subslice(frame * 2048, len).expect("inside"), &[], offload);
        }
        let run: fn(&mut dyn PortQueue, &mut FrameBatch, usize) =
            if receive { measured_receive } else { measured_transmit };
        dpdk::register_thread(eal).expect("a thread id");
        run(&mut *queue, &mut batch, 100); // caches fill, memory is touched
        let start = cpu_nanos();
        run(&mut *queue, &mut batch, bursts);
        let nanos = (cpu_nanos() - start) as f64 / (bursts * BURST) as f64;
        println!("{nanos:.1} ns per frame, {:.1} million frames a second", 1000.0 / nanos);
    }

    fn cpu_nanos() -> i64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    }

    #[inline(never)]
    fn measured_transmit(queue: &mut dyn PortQueue, batch: &mut FrameBatch, bursts: usize) {
        for _ in 0..bursts {
            assert_eq!(queue.tx_burst(batch), BURST);
            assert_eq!(queue.tx_done(), BURST);
        }
    }

    #[inline(never)]
    fn measured_receive(queue: &mut dyn PortQueue, batch: &mut FrameBatch, bursts: usize) {
        for _ in 0..bursts {
            assert_eq!(queue.rx_burst(batch, BURST), BURST);
            queue.rx_done(BURST);
        }
    }
}

fn main() {
    #[cfg(feature = "libdpdk")]
    cost::main();
}
