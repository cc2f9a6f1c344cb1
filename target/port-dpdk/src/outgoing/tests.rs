//! What hardware with offloads would be asked for, with a ring that keeps what it is asked: nothing is done to frames on their
//! way, so that what a driver would get can be looked at.

use std::sync::{Arc, OnceLock};

use dpdk::{Burst, Eal, Mempool, MempoolConfig, PortConfig, QueuePair, RxOffloads, TxFlags, TxOffloads};
use guest_memory::{Pages, SharedMemory};
use port::{Checksum, DropCause, FrameBatch, Offload, Offloads, PortStats, Segmentation, Segmenter};

use crate::config::DpdkConfig;
use crate::queue::Outgoing;

fn eal() -> Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    *EAL.get_or_init(|| {
        let eal_args = ["--no-huge", "--no-shconf", "-m", "64"].map(str::to_owned).to_vec();
        crate::start_eal(&DpdkConfig { eal_args, ..DpdkConfig::default() }, &[], &[]).unwrap().eal
    })
}

/// A ring with hardware that can do everything, as far as our side knows.
struct Rig {
    outgoing: Outgoing,
    segmenter: Segmenter,
    rx: dpdk::RxQueue,
    memory: SharedMemory,
    used: usize,
}

impl Rig {
    fn new(device: &str) -> Rig {
        let pool = Mempool::new(eal(), MempoolConfig { mbufs: 1023, room: 2048, cache: 32 }).unwrap();
        let config = PortConfig {
            queues: 1,
            mtu: 1500,
            rx_descriptors: 256,
            tx_descriptors: 256,
            rx_offloads: RxOffloads::empty(),
            tx_offloads: TxOffloads::SEGMENTS,
            promiscuous: true,
            address: None,
        };
        let QueuePair { rx, tx } = dpdk::Port::open(eal(), device).unwrap().start(&config, &[pool]).unwrap().remove(0);
        let mut outgoing = Outgoing::new(tx, pool, Arc::new(PortStats::default()), 1518);
        outgoing.capable = crate::request::capable(TxOffloads::all());
        assert_eq!(outgoing.capable, Offloads::CHECKSUM | Offloads::TCP4 | Offloads::TCP6);
        let memory = SharedMemory::create("port-dpdk-test", 1 << 20, Pages::Small).unwrap();
        Rig { outgoing, segmenter: Segmenter::new(), rx, memory, used: 0 }
    }

    /// Sends one frame, and returns what the driver got.
    fn send(&mut self, frame: &[u8], offload: Offload) -> Burst {
        let slice = self.memory.slice().subslice(self.used, frame.len()).unwrap();
        self.used += frame.len();
        slice.write(frame);
        let mut batch = FrameBatch::new(1, 1);
        batch.push(slice, &[], offload);
        assert_eq!(self.outgoing.transmit(&mut self.segmenter, &batch), 1);
        let mut burst = Burst::new();
        self.rx.receive(&mut burst, 32);
        burst
    }

    fn dropped(&mut self, frame: &[u8], offload: Offload, cause: DropCause) {
        let before = self.outgoing.stats.drops[cause as usize].value();
        assert_eq!(self.send(frame, offload).len(), 0);
        assert_eq!(self.outgoing.stats.drops[cause as usize].value(), before + 1, "{cause:?}");
    }
}

const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// TCP over IPv4 from 10.0.0.1 to 10.0.0.2, with a checksum that nobody should believe.
fn tcp4(payload: usize) -> Vec<u8> {
    let total = (40 + payload) as u16;
    let mut frame = [&ETHERNET[..], &[8, 0, 0x45, 0], &total.to_be_bytes(), &[0, 1, 0, 0, 64, 6, 0x99, 0x99]].concat();
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x30, 0x39, 0xd4, 0x31, 0, 0, 1, 0, 0, 0, 0, 9, 0x50, 0x18, 0x10, 0, 0xaa, 0xaa, 0, 0]);
    frame.resize(54 + payload, 0x5a);
    frame
}

fn partial(start: u16, offset: u16, segmentation: Segmentation) -> Offload {
    Offload { checksum: Checksum::Partial { start, offset }, segmentation }
}

fn word(burst: &Burst, at: u32) -> u16 {
    let mut bytes = [0; 2];
    assert_eq!(burst[0].read(at, &mut bytes), 2);
    u16::from_be_bytes(bytes)
}

#[test]
fn checksum_is_asked_of_hardware_with_the_pseudo_header_it_wants() {
    let mut rig = Rig::new("net_ring20");
    let sent = rig.send(&tcp4(100), partial(34, 16, Segmentation::None));
    let (flags, headers) = sent[0].tx_request();
    assert_eq!(flags, TxFlags::IPV4 | TxFlags::TCP_CHECKSUM);
    assert_eq!((headers.l2, headers.l3, headers.l4, headers.segment), (14, 20, 20, 0));
    // 0a00 + 0001 + 0a00 + 0002 + 0006 + 120 bytes; the IP header's own is left alone.
    assert_eq!((word(&sent, 50), word(&sent, 24)), (0x1400 + 3 + 6 + 120, 0x9999));
}

#[test]
fn segmentation_is_asked_of_hardware_in_one_chain_without_length_in_the_pseudo_header() {
    let mut rig = Rig::new("net_ring21");
    let sent = rig.send(&tcp4(20_000), partial(34, 16, Segmentation::Tcp4 { size: 1448, ecn: false }));
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].len(), sent[0].segments().count()), (20_054, 20_054usize.div_ceil(2048)));
    sent[0].check().unwrap();
    let (flags, headers) = sent[0].tx_request();
    assert_eq!(flags, TxFlags::IPV4 | TxFlags::TCP_CHECKSUM | TxFlags::TCP_SEGMENTS | TxFlags::IP_CHECKSUM);
    assert_eq!((headers.l2, headers.l3, headers.l4, headers.segment), (14, 20, 20, 1448));
    assert_eq!((word(&sent, 50), word(&sent, 24)), (0x1400 + 3 + 6, 0));
}

#[test]
fn frame_of_one_piece_is_not_asked_to_be_cut() {
    let mut rig = Rig::new("net_ring24");
    for payload in [0, 1, 1448] {
        let sent = rig.send(&tcp4(payload), partial(34, 16, Segmentation::Tcp4 { size: 1448, ecn: false }));
        assert_eq!(sent[0].tx_request().0, TxFlags::IPV4 | TxFlags::TCP_CHECKSUM);
        assert_eq!(sent[0].tx_request().1.segment, 0);
        assert_eq!((word(&sent, 50), word(&sent, 24)), (0x1400 + 3 + 6 + 20 + payload as u16, 0x9999));
    }
}

#[test]
fn explicit_congestion_and_strange_protocols_are_not_asked_of_hardware() {
    let mut rig = Rig::new("net_ring22");
    let cut = rig.send(&tcp4(3000), partial(34, 16, Segmentation::Tcp4 { size: 1448, ecn: true }));
    assert_eq!(cut.iter().map(dpdk::Mbuf::len).collect::<Vec<_>>(), [1502, 1502, 158]);
    // The cutting is done here; the checksums of the pieces may be left to the hardware.
    assert!(cut.iter().all(|mbuf| mbuf.tx_request().0 == TxFlags::IPV4 | TxFlags::TCP_CHECKSUM));
    let mut sctp = tcp4(100);
    sctp[23] = 132;
    let sent = rig.send(&sctp, partial(34, 8, Segmentation::None));
    assert_eq!(sent[0].tx_request().0, TxFlags::empty());
    assert_eq!(word(&sent, 42), expected(&sctp[34..]));
}

fn expected(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[test]
fn headers_that_do_not_fit_what_is_asked_never_reach_hardware() {
    let mut rig = Rig::new("net_ring23");
    let tso = |size| partial(34, 16, Segmentation::Tcp4 { size, ecn: false });
    // Pieces longer than the link; not TCP; a checksum elsewhere; options beyond the frame.
    rig.dropped(&tcp4(3000), tso(1500), DropCause::Length);
    let mut udp = tcp4(3000);
    udp[23] = 17;
    rig.dropped(&udp, tso(100), DropCause::Offload);
    rig.dropped(&tcp4(3000), partial(34, 6, Segmentation::Tcp4 { size: 100, ecn: false }), DropCause::Offload);
    let mut long = tcp4(10);
    long[46] = 0xf0;
    rig.dropped(&long, tso(100), DropCause::Offload);
    rig.dropped(&tcp4(100), partial(200, 16, Segmentation::None), DropCause::Offload);
    // A checksum of headers that contradict themselves is one of bytes like any others.
    let mut odd = tcp4(100);
    odd[14] = 0x41;
    let sent = rig.send(&odd, partial(34, 16, Segmentation::None));
    assert_eq!(sent[0].tx_request().0, TxFlags::empty());
    assert_eq!(word(&sent, 50), expected(&odd[34..]));
}
