//! IP packets to segments and back: IPv4 (RFC 791) and IPv6 (RFC 8200), without fragments and extension headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use volley_tcp::{Egress, PROTOCOL, SegmentIn, SegmentOut};
use volley_wire::checksum::Sum;

/// The TCP segment in an IP packet; `None` when there is none.
pub fn segment(packet: &[u8]) -> Option<SegmentIn<'_>> {
    let be16 = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let (source, destination, class, bytes): (IpAddr, IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 if packet.len() >= 20 => {
            let head = usize::from(packet[0] & 15) * 4;
            // More fragments, or not the first one: whoever needs fragments puts them together before this.
            if packet[9] != PROTOCOL || be16(6) & 0x3fff != 0 || head < 20 {
                return None;
            }
            let address =
                |at: usize| Ipv4Addr::from([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
            // The total length counts, not what the link has padded.
            (address(12).into(), address(16).into(), packet[1], packet.get(head..usize::from(be16(2)))?)
        }
        6 if packet.len() >= 40 => {
            if packet[6] != PROTOCOL {
                return None;
            }
            let address =
                |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("16 bytes"));
            let class = packet[0] << 4 | packet[1] >> 4;
            (address(8).into(), address(24).into(), class, packet.get(40..40 + usize::from(be16(4)))?)
        }
        _ => return None,
    };
    // A kernel that segments for a device leaves checksums to it; a TUN device asks for none of that.
    Some(SegmentIn { source, destination, ecn: class & 3, checksum: Default::default(), path: 0, bytes })
}

/// Whether the IPv4 header's checksum is right; IPv6 has none.
pub fn ip_checksums_are_right(packet: &[u8]) -> bool {
    match packet.first().map(|first| (first >> 4, usize::from(first & 15) * 4)) {
        Some((4, head)) => {
            packet.get(..head).is_some_and(|header| Sum::ZERO.bytes(header).fold() == 0xffff)
        }
        Some(_) => true,
        None => false,
    }
}

/// Where the stack's segments go: packets with room for the IP header in front.
#[derive(Default)]
pub struct Packets(Vec<Vec<u8>>);

impl Packets {
    /// What is to be sent.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0)
    }
}

impl Egress for Packets {
    fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]> {
        let head = if segment.destination.is_ipv4() { 20 } else { 40 };
        self.0.push(vec![0; head + segment.len]);
        self.0.last_mut().map(|packet| &mut packet[head..])
    }

    fn commit(&mut self, segment: &SegmentOut) {
        let Some(packet) = self.0.last_mut() else { return };
        let length = packet.len() as u16;
        match (segment.source, segment.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet[0] = 0x45;
                packet[1] = segment.tos;
                packet[2..4].copy_from_slice(&length.to_be_bytes());
                packet[6] = if segment.dont_fragment { 0x40 } else { 0 };
                (packet[8], packet[9]) = (segment.ttl, PROTOCOL);
                packet[12..16].copy_from_slice(&source.octets());
                packet[16..20].copy_from_slice(&destination.octets());
                let sum = Sum::ZERO.bytes(&packet[..20]).complement();
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet[0] = 0x60 | segment.tos >> 4;
                packet[1] = segment.tos << 4;
                packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
                (packet[6], packet[7]) = (PROTOCOL, segment.ttl);
                packet[8..24].copy_from_slice(&source.octets());
                packet[24..40].copy_from_slice(&destination.octets());
            }
            _ => unreachable!("a connection's addresses are of one family"),
        }
    }
}
