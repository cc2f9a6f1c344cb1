//! Virtual ports of the installed DPDK: without hugepages, devices or privileges. One EAL serves all tests of a process.
#![cfg(feature = "libdpdk")]

use std::sync::OnceLock;

use dpdk::{
    Burst, Eal, EalConfig, EalError, Mempool, MempoolConfig, NoMbufs, Port, PortConfig, PortError, QueuePair,
    RxChecksum, RxOffloads, TxFlags, TxHeaders, TxOffloads, register_thread,
};

fn eal() -> Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    *EAL.get_or_init(|| Eal::start(&config()).unwrap())
}

fn config() -> EalConfig {
    let arguments = ["--no-huge", "--no-shconf", "--no-pci", "--no-telemetry", "-m", "64"];
    EalConfig { arguments: arguments.map(str::to_owned).to_vec(), cores: Vec::new() }
}

fn pool(mbufs: u32) -> Mempool {
    Mempool::new(eal(), MempoolConfig { mbufs, room: 2048, cache: 32 }).unwrap()
}

fn port_config(queues: u16) -> PortConfig {
    PortConfig {
        queues,
        mtu: 1500,
        rx_descriptors: 64,
        tx_descriptors: 64,
        rx_offloads: RxOffloads::all(),
        tx_offloads: TxOffloads::all(),
        promiscuous: true,
        address: None,
    }
}

fn one(port: &Port, pool: &Mempool) -> QueuePair {
    port.start(&port_config(1), &[*pool]).unwrap().remove(0)
}

#[test]
fn eal_started_twice_is_refused_and_its_cpus_are_the_callers_again() {
    let before = rustix::thread::sched_getaffinity(None).unwrap();
    eal();
    assert_eq!(rustix::thread::sched_getaffinity(None).unwrap(), before);
    assert!(matches!(Eal::start(&config()), Err(EalError::Again)));
    assert!(dpdk::version().starts_with("DPDK 2"), "{}", dpdk::version());
}

#[test]
fn null_port_takes_what_is_sent_and_gives_frames_without_end() {
    let pool = pool(1023);
    let port = Port::open(eal(), "net_null0").unwrap();
    assert_eq!(port.info().unwrap().driver, "net_null");
    let mut pair = one(&port, &pool);
    let mut burst = Burst::new();
    assert_eq!(pair.rx.receive(&mut burst, 32), 32);
    assert_eq!(burst.len(), 32);
    assert_eq!(burst[0].len(), 64);
    assert_eq!(burst[0].rx_checksum(), RxChecksum::Unknown);
    assert_eq!(pool.available(), 1023 - 32);
    assert_eq!(pair.tx.send(&mut burst), 32);
    assert!(burst.is_empty());
    assert_eq!(pool.available(), 1023);
    let statistics = port.statistics().unwrap();
    assert_eq!((statistics.tx_frames, statistics.rx_frames), (32, 32));
    let extended = port.extended_statistics().unwrap();
    assert!(extended.contains(&("tx_good_packets".to_owned(), 32)), "{extended:?}");
    assert!(port.link().unwrap().up);
}

#[test]
fn burst_of_which_some_are_always_out_receives_on() {
    let pool = pool(1023);
    let port = Port::open(eal(), "net_null7").unwrap();
    let mut pair = one(&port, &pool);
    let mut burst = Burst::new();
    assert_eq!(pair.rx.receive(&mut burst, 8), 8);
    for turn in 0..100 {
        assert_eq!(pair.rx.receive(&mut burst, 32), 32, "turn {turn}");
        assert_eq!(pool.available(), 1023 - 40);
        burst.free_first(32);
        assert_eq!((burst.len(), pool.available()), (8, 1023 - 8));
    }
}

#[test]
fn ring_port_returns_frames_byte_for_byte_in_order_and_segments() {
    let pool = pool(1023);
    let port = Port::open(eal(), "net_ring0").unwrap();
    let mut pair = one(&port, &pool);
    let mut out = Burst::new();
    out.allocate(&pool, 3).unwrap();
    for (number, mbuf) in out.iter_mut().enumerate() {
        mbuf.set_len(60 + number as u16);
        assert_eq!(mbuf.write(0, &vec![number as u8; 60 + number]), 60 + number);
    }
    let mut tail = Burst::new();
    tail.allocate(&pool, 1).unwrap();
    tail[0].set_len(7);
    tail[0].write(0, b"segment");
    out[2].append(tail.pop().unwrap()).unwrap();
    out[2].check().unwrap();
    assert_eq!(pair.tx.send(&mut out), 3);

    let mut back = Burst::new();
    assert_eq!(pair.rx.receive(&mut back, 32), 3);
    let bytes = |burst: &Burst, index: usize| {
        let mut bytes = vec![0; 200];
        let len = burst[index].read(0, &mut bytes);
        bytes.truncate(len);
        bytes
    };
    assert_eq!(bytes(&back, 0), [0; 60]);
    assert_eq!(bytes(&back, 1), [1; 61]);
    assert_eq!(bytes(&back, 2), [&[2; 62][..], b"segment"].concat());
    assert_eq!(back[2].len(), 69);
    assert_eq!(back[2].segments().map(|(_, len)| len).collect::<Vec<_>>(), [62, 7]);
    let mut middle = [0; 4];
    assert_eq!(back[2].read(60, &mut middle), 4);
    assert_eq!(&middle, &[2, 2, b's', b'e']);
    // 0x0202 + "se": in memory order, so as a little-endian machine adds them.
    assert_eq!(back[2].sum(60, 4), Some(0x0202 + u16::from_le_bytes(*b"se")));
    assert_eq!(back[2].sum(60, 10), None);
    assert_eq!(back[2].sum(u32::MAX, 2), None);
    drop(back);
    assert_eq!(pool.available(), 1023);
}

#[test]
fn burst_keeps_order_while_frames_are_pushed_sent_and_popped() {
    let pool = pool(255);
    let mut burst = Burst::new();
    burst.allocate(&pool, Burst::MAX).unwrap();
    for (number, mbuf) in burst.iter_mut().enumerate() {
        mbuf.set_len(number as u16 + 1);
    }
    let mut other = Burst::new();
    other.allocate(&pool, 2).unwrap();
    let extra = other.pop().unwrap();
    let extra = burst.push(extra).unwrap_err();
    let last = burst.pop().unwrap();
    assert_eq!(u32::try_from(Burst::MAX), Ok(last.len()));
    burst.push(extra).unwrap();
    assert_eq!(burst[0].len(), 1);
    burst.truncate(4);
    burst.free_first(1);
    assert_eq!(burst.pop().map(|mbuf| mbuf.len()), Some(4));
    assert_eq!(burst.iter().map(dpdk::Mbuf::len).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(pool.available(), 255 - 2 - 1 - 1);
    drop((burst, other, last));
    assert_eq!(pool.available(), 255);
}

#[test]
fn pool_asked_for_more_than_it_has_gives_nothing_and_loses_nothing() {
    let pool = pool(31);
    let mut burst = Burst::new();
    assert_eq!(burst.allocate(&pool, 32), Err(NoMbufs));
    assert!(burst.is_empty());
    assert_eq!(pool.available(), 31);
    burst.allocate(&pool, 31).unwrap();
    assert_eq!(pool.available(), 0);
    // Nothing is always there, on threads that are registered and on others.
    std::thread::spawn(move || {
        assert_eq!(Burst::new().allocate(&pool, 0), Ok(()));
        register_thread(eal()).unwrap();
        assert_eq!(Burst::new().allocate(&pool, 0), Ok(()));
    })
    .join()
    .unwrap();
}

#[test]
fn burst_allocated_for_items_has_a_fresh_frame_for_each() {
    let pool = pool(31);
    let mut burst = Burst::new();
    // Mbufs as others may have left them.
    burst.allocate(&pool, 31).unwrap();
    burst.iter_mut().for_each(|mbuf| mbuf.set_len(1000));
    for _ in 0..2 {
        let mut rooms = Vec::new();
        let fill = |len: &u16, room: *mut u8| {
            rooms.push(room);
            *len
        };
        burst.allocate_for(&pool, &[7, 2048, 0], fill).unwrap();
        assert_eq!(burst.iter().map(dpdk::Mbuf::len).collect::<Vec<_>>(), [7, 2048, 0]);
        for (mbuf, room) in burst.iter().zip(rooms) {
            mbuf.check().unwrap();
            assert_eq!((mbuf.data(), mbuf.room()), (room, 2048));
            assert_eq!((mbuf.segments().count(), mbuf.rx_checksum()), (1, RxChecksum::Unknown));
        }
    }
}

#[test]
#[should_panic(expected = "a frame of 2049 bytes in an mbuf for 2048")]
fn frame_longer_than_its_mbuf_panics() {
    let pool = pool(31);
    let mut burst = Burst::new();
    burst.allocate(&pool, 1).unwrap();
    burst[0].set_len(2049);
}

#[test]
fn headers_prepared_for_hardware_hold_the_pseudo_header_and_bad_ones_are_refused() {
    let pool = pool(31);
    let mut burst = Burst::new();
    burst.allocate(&pool, 1).unwrap();
    let mbuf = &mut burst[0];
    mbuf.set_len(64);
    let mut frame = [0u8; 64];
    frame[12..14].copy_from_slice(&[8, 0]);
    // IPv4, 50 bytes in all, UDP from 10.0.0.1 to 10.0.0.2.
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    mbuf.write(0, &frame);
    let good = TxHeaders { l2: 14, l3: 20, l4: 8, segment: 0 };
    let flags = TxFlags::IPV4 | TxFlags::UDP_CHECKSUM;
    for (flags, headers) in [
        (flags, TxHeaders { l4: 31, ..good }),
        (flags, TxHeaders { l3: 19, ..good }),
        (flags, TxHeaders { l2: 13, ..good }),
        (flags, TxHeaders { l4: 7, ..good }),
        (flags, TxHeaders { segment: 1, ..good }),
        (TxFlags::IPV4 | TxFlags::TCP_SEGMENTS, TxHeaders { l4: 20, ..good }),
        (TxFlags::IPV4 | TxFlags::TCP_CHECKSUM, good),
        (TxFlags::UDP_CHECKSUM, good),
    ] {
        assert!(!mbuf.prepare(flags, headers), "{flags:?} {headers:?}");
    }
    assert!(mbuf.prepare(flags, good));
    let mut checksum = [0; 2];
    mbuf.read(40, &mut checksum);
    // 0a00 + 0001 + 0a00 + 0002 + 0011 + length 30
    assert_eq!(u16::from_be_bytes(checksum), 0x1400 + 3 + 17 + 30);
}

#[test]
fn port_is_one_owners_and_stays_started_until_its_last_queue_is_gone() {
    let pool = pool(1023);
    let port = Port::open(eal(), "net_null1").unwrap();
    assert!(matches!(Port::open(eal(), "net_null1"), Err(PortError::Taken { .. })));
    let pairs = port.start(&port_config(2), &[pool]).unwrap();
    assert!(matches!(port.start(&port_config(1), &[pool]), Err(PortError::Running { .. })));
    let [first, second]: [QueuePair; 2] = pairs.try_into().unwrap();
    drop((first.rx, first.tx, second.rx));
    assert!(matches!(port.start(&port_config(1), &[pool]), Err(PortError::Running { .. })));
    drop(second.tx);
    let again = port.start(&port_config(1), &[pool]).unwrap();
    // The port itself may go first.
    drop(port);
    assert!(matches!(Port::open(eal(), "net_null1"), Err(PortError::Taken { .. })));
    drop(again);
    assert_eq!(Port::open(eal(), "net_null1").unwrap().name(), "net_null1");
}

#[test]
fn port_with_a_table_spreads_flows_over_the_queues_named_only() {
    let pool = pool(1023);
    let port = Port::open(eal(), "net_null2").unwrap();
    assert!(!port.spread(&[0]).unwrap(), "it is not started");
    let pairs = port.start(&port_config(4), &[pool]).unwrap();
    assert!(port.spread(&[1, 3]).unwrap());
    let table = port.spreading().unwrap();
    assert_eq!((table.len(), &table[..4]), (usize::from(port.info().unwrap().table), &[1, 3, 1, 3][..]));
    assert!(table.iter().all(|queue| [1, 3].contains(queue)));
    drop(pairs);
}

#[test]
fn port_asked_for_too_many_queues_names_the_bound() {
    let pool = pool(31);
    let port = Port::open(eal(), "net_ring5").unwrap();
    let text = port.start(&port_config(1000), &[pool]).unwrap_err().to_string();
    assert!(text.starts_with("port net_ring5: queues 1000, must be 1 to "), "{text}");
}

#[test]
fn device_that_cannot_be_made_names_it_and_what_dpdk_said() {
    eal();
    for devargs in ["net_no_such_driver0", "net_af_packet0,iface=no_such_interface"] {
        let text = Port::open(eal(), devargs).unwrap_err().to_string();
        assert!(text.starts_with(&format!("device '{devargs}': ")) && text.len() > devargs.len() + 20, "{text}");
    }
    assert!(matches!(Port::open(eal(), ""), Err(PortError::Devargs { .. })));
    assert!(matches!(Port::open(eal(), "a\0b"), Err(PortError::Devargs { .. })));
}

#[test]
fn thread_registered_on_its_own_has_a_cache_and_leaves_its_id_to_the_next() {
    let pool = pool(1023);
    // More threads than DPDK has ids for, one after the other.
    for _ in 0..200 {
        std::thread::spawn(move || {
            register_thread(eal()).unwrap();
            register_thread(eal()).unwrap();
        })
        .join()
        .unwrap();
    }
    std::thread::spawn(move || {
        register_thread(eal()).unwrap();
        let mut burst = Burst::new();
        burst.allocate(&pool, 32).unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(pool.available(), 1023);
}
