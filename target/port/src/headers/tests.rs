//! Headers with literal bytes, of every shape, and of none.

use proptest::prelude::*;

use super::*;
use crate::testing::Shape;

fn shapes() -> impl Strategy<Value = Shape> {
    (0..3usize, any::<bool>(), any::<bool>(), 0..64usize).prop_map(|(tags, ip6, tcp, options)| Shape {
        tags,
        ip6,
        tcp,
        options,
    })
}

/// ARP who-has, from a VLAN.
#[test]
fn headers_of_another_protocol_end_at_its_type() {
    let mut bytes = vec![0xff; 12];
    bytes.extend_from_slice(&[0x81, 0x00, 0x00, 0x05, 0x08, 0x06, 0x00, 0x01]);
    let headers = Headers::parse(&bytes).unwrap();
    assert_eq!((headers.l2_len, headers.network), (18, Network::Other(0x0806)));
    assert_eq!((headers.transport, headers.total_len()), (Transport::None, 18));
}

#[test]
fn headers_of_a_fragment_have_no_transport() {
    let mut frame = Shape { tags: 0, ip6: false, tcp: false, options: 0 }.frame(&[1; 40]);
    frame[14 + 6] = 0x20; // more fragments
    let headers = Headers::parse(&frame).unwrap();
    assert_eq!((headers.transport, headers.total_len()), (Transport::Fragment, 34));
    frame[14 + 6..14 + 8].copy_from_slice(&[0x00, 0x05]);
    assert_eq!(Headers::parse(&frame).unwrap().transport, Transport::Fragment);
    frame[14 + 6..14 + 8].copy_from_slice(&[0x40, 0x00]); // do not fragment
    assert_eq!(Headers::parse(&frame).unwrap().transport, Transport::Udp);

    let mut frame = Shape { tags: 0, ip6: true, tcp: false, options: 0 }.frame(&[1; 40]);
    frame[14 + 6] = 44;
    assert_eq!(Headers::parse(&frame).unwrap().transport, Transport::Fragment);
}

#[test]
fn headers_with_a_routing_header_say_whether_hops_are_left() {
    let mut frame = Shape { tags: 0, ip6: true, tcp: true, options: 24 }.frame(&[1; 40]);
    frame[14 + 6] = 43;
    frame[14 + 40 + 3] = 1; // segments left
    assert!(Headers::parse(&frame).unwrap().routed);
    frame[14 + 40 + 3] = 0;
    assert!(!Headers::parse(&frame).unwrap().routed);
}

#[test]
fn headers_without_end_are_refused() {
    let mut tags = vec![0; 12];
    (0..20).for_each(|_| tags.extend_from_slice(&[0x81, 0x00, 0, 1]));
    assert_eq!(Headers::parse(&tags), Err(BadHeaders::TooMany(4)));

    let mut frame = Shape { tags: 0, ip6: true, tcp: true, options: 0 }.frame(&[]);
    frame.truncate(14 + 40);
    frame[14 + 6] = 60;
    (0..20).for_each(|_| frame.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0]));
    assert_eq!(Headers::parse(&frame), Err(BadHeaders::TooMany(8)));
}

#[test]
fn headers_with_lengths_that_no_header_has_are_refused() {
    let good = Shape { tags: 0, ip6: false, tcp: true, options: 0 }.frame(&[]);
    for (at, value, error) in [
        (14, 0x55, BadHeaders::Malformed("IPv4")),
        (14, 0x44, BadHeaders::Malformed("IPv4")),
        (14, 0x4f, BadHeaders::Short("IPv4")),
        (34 + 12, 0x40, BadHeaders::Malformed("TCP")),
        (34 + 12, 0xf0, BadHeaders::Short("TCP")),
    ] {
        let mut frame = good.clone();
        frame[at] = value;
        assert_eq!(Headers::parse(&frame), Err(error), "byte {at} = {value:#x}");
    }
}

proptest! {
    #[test]
    fn headers_of_every_shape_have_its_lengths(shape in shapes(), payload in 0..20usize) {
        let frame = shape.frame(&vec![7; payload]);
        let headers = Headers::parse(&frame).unwrap();
        prop_assert_eq!((headers.l2_len, headers.l3_len, headers.l4_len), (shape.l2_len(), shape.l3_len(), shape.l4_len()));
        prop_assert_eq!(headers.network, if shape.ip6 { Network::Ip6 } else { Network::Ip4 });
        prop_assert_eq!(headers.transport, if shape.tcp { Transport::Tcp } else { Transport::Udp });
        prop_assert!(!headers.routed);
    }

    #[test]
    fn headers_cut_anywhere_are_short(shape in shapes(), cut in 0..1000usize) {
        let frame = shape.frame(&[]);
        let cut = cut % frame.len();
        prop_assert!(matches!(Headers::parse(&frame[..cut]), Err(BadHeaders::Short(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// What is found lies inside, whatever the bytes say.
    #[test]
    fn headers_of_garbage_lie_inside_or_are_refused(
        shape in shapes(),
        noise in prop::collection::vec((0..120usize, any::<u8>()), 0..6),
        cut in 0..200usize,
    ) {
        let mut bytes = shape.frame(&[3; 60]);
        for (at, value) in noise {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut);
        if let Ok(headers) = Headers::parse(&bytes) {
            prop_assert!(headers.l2_len >= 14 && headers.total_len() <= bytes.len());
        }
    }

    #[test]
    fn headers_of_noise_lie_inside_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..256), kind in 0..3usize) {
        let mut bytes = bytes;
        if bytes.len() >= 14 {
            bytes[12..14].copy_from_slice([&[0x08, 0x00], &[0x86, 0xdd], &[0x81, 0x00]][kind]);
        }
        if let Ok(headers) = Headers::parse(&bytes) {
            prop_assert!(headers.total_len() <= bytes.len());
        }
    }
}
