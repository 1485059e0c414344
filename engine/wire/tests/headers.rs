//! Headers: any bytes make a view, a view's fields are those bytes, and the lengths a header announces are bounded.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashSet;
use volley_wire::DropReason;
use volley_wire::ethernet::{EthernetHeader, VlanTag, is_multicast, is_vlan};
use volley_wire::ipv4::Ipv4Header;
use volley_wire::ipv6::{ExtensionHeader, Ipv6Header};
use volley_wire::tcp::TcpPorts;
use volley_wire::udp::UdpHeader;
use zerocopy::{FromBytes, IntoBytes};

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

proptest! {
    #[test]
    fn a_header_needs_its_length_and_no_more(bytes in vec(any::<u8>(), 0..80)) {
        let n = bytes.len();
        prop_assert_eq!(EthernetHeader::ref_from_prefix(&bytes).is_ok(), n >= EthernetHeader::LEN);
        prop_assert_eq!(VlanTag::ref_from_prefix(&bytes).is_ok(), n >= VlanTag::LEN);
        prop_assert_eq!(Ipv4Header::ref_from_prefix(&bytes).is_ok(), n >= Ipv4Header::LEN);
        prop_assert_eq!(Ipv6Header::ref_from_prefix(&bytes).is_ok(), n >= Ipv6Header::LEN);
        prop_assert_eq!(ExtensionHeader::ref_from_prefix(&bytes).is_ok(), n >= ExtensionHeader::LEN);
        prop_assert_eq!(UdpHeader::ref_from_prefix(&bytes).is_ok(), n >= UdpHeader::LEN);
        prop_assert_eq!(TcpPorts::ref_from_prefix(&bytes).is_ok(), n >= TcpPorts::LEN);
    }

    #[test]
    fn fields_are_where_the_rfcs_put_them(bytes: [u8; 40]) {
        let ethernet = EthernetHeader::read_from_prefix(&bytes).unwrap().0;
        prop_assert_eq!((&ethernet.destination[..], &ethernet.source[..]), (&bytes[..6], &bytes[6..12]));
        prop_assert_eq!(ethernet.ethertype.get(), be16(&bytes, 12));
        prop_assert_eq!(is_multicast(&ethernet.destination), bytes[0] % 2 == 1);

        let four = Ipv4Header::read_from_prefix(&bytes).unwrap().0;
        prop_assert_eq!((four.version(), four.header_len()), (bytes[0] >> 4, (bytes[0] & 15) as usize * 4));
        prop_assert_eq!((four.total_length.get(), four.identification.get()), (be16(&bytes, 2), be16(&bytes, 4)));
        prop_assert_eq!((four.ttl, four.protocol, four.checksum.get()), (bytes[8], bytes[9], be16(&bytes, 10)));
        prop_assert_eq!((&four.source[..], &four.destination[..]), (&bytes[12..16], &bytes[16..20]));
        let fragment = be16(&bytes, 6);
        prop_assert_eq!(four.is_fragment(), fragment & 0x2000 != 0 || fragment & 0x1fff != 0);
        prop_assert_eq!(four.as_bytes(), &bytes[..20]);

        let six = Ipv6Header::read_from_prefix(&bytes).unwrap().0;
        prop_assert_eq!((six.version(), six.payload_length.get()), (bytes[0] >> 4, be16(&bytes, 4)));
        prop_assert_eq!((six.next_header, six.hop_limit), (bytes[6], bytes[7]));
        prop_assert_eq!((&six.source[..], &six.destination[..]), (&bytes[8..24], &bytes[24..40]));

        let udp = UdpHeader::read_from_prefix(&bytes).unwrap().0;
        let fields = [udp.source, udp.destination, udp.length, udp.checksum].map(|field| field.get());
        prop_assert_eq!(fields, [0, 2, 4, 6].map(|at| be16(&bytes, at)));

        let extension = ExtensionHeader::read_from_prefix(&bytes).unwrap().0;
        prop_assert_eq!(extension.header_len(), (bytes[1] as usize + 1) * 8);
        let tag = VlanTag::read_from_prefix(&bytes).unwrap().0;
        prop_assert_eq!((tag.tci.get(), tag.ethertype.get()), (be16(&bytes, 0), be16(&bytes, 2)));
    }

    #[test]
    fn two_ethertypes_announce_a_tag(ethertype: u16) {
        prop_assert_eq!(is_vlan(ethertype), ethertype == 0x8100 || ethertype == 0x88a8);
    }
}

#[test]
fn every_reason_has_its_own_counter_and_name() {
    let names: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), DropReason::COUNT);
    assert!(DropReason::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
    assert!(
        names
            .iter()
            .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
    );
}
