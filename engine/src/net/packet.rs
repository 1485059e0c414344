//! Packets made by hand: for tests, benches and replay. Allocates; nothing on the way of a packet uses it.

use super::Tag;
use std::net::{IpAddr, SocketAddr};
use volley_wire::checksum::{Sum, udp_nonzero};
use volley_wire::ethernet::{Mac, ethertype};
use volley_wire::ipv4::protocol;

/// A UDP packet to be. Every field may be changed before [`Packet::build`].
#[derive(Clone, Debug)]
pub struct Packet {
    /// Source and destination MAC.
    pub macs: (Mac, Mac),
    /// VLAN tags, outermost first; more than two make a packet that is refused.
    pub tags: Vec<Tag>,
    /// Where it says it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// IPv4 options, a multiple of four bytes, at most 40.
    pub options: Vec<u8>,
    /// IPv6 extension headers: each its type and its whole bytes (the first of which is overwritten), a multiple of 8.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4 TTL or IPv6 hop limit.
    pub ttl: u8,
    /// Whether there is a UDP checksum.
    pub checksum: bool,
    /// What it carries.
    pub payload: Vec<u8>,
    /// Bytes behind the IP packet; [`Packet::build`] pads to 60 bytes at least.
    pub padding: usize,
}

impl Packet {
    /// A packet between two unicast MACs with nothing unusual about it.
    pub fn new(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Packet {
        Packet {
            macs: ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
            tags: Vec::new(),
            source,
            destination,
            options: Vec::new(),
            extensions: Vec::new(),
            ttl: 64,
            checksum: true,
            payload: payload.to_vec(),
            padding: 0,
        }
    }

    /// The bytes on the wire, without the frame check sequence. Lengths that do not fit their field are cut.
    pub fn build(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.payload.len());
        out.extend(self.macs.1);
        out.extend(self.macs.0);
        for tag in &self.tags {
            out.extend(tag.tpid.to_be_bytes());
            out.extend(tag.tci.to_be_bytes());
        }
        let udp_len = (8 + self.payload.len()) as u16;
        let mut pseudo = Sum::ZERO;
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                out.extend(ethertype::IPV4.to_be_bytes());
                let start = out.len();
                let header_len = 20 + self.options.len();
                out.extend([0x40 | (header_len / 4) as u8, 0]);
                out.extend((header_len as u16).wrapping_add(udp_len).to_be_bytes());
                out.extend([0, 0, 0x40, 0, self.ttl, protocol::UDP, 0, 0]);
                out.extend(source.octets());
                out.extend(destination.octets());
                out.extend(&self.options);
                let checksum = Sum::ZERO.bytes(&out[start..]).complement();
                out[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
                pseudo = pseudo.bytes(&source.octets()).bytes(&destination.octets());
            }
            (source, destination) => {
                let octets = |ip| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                let (source, destination) = (octets(source), octets(destination));
                out.extend(ethertype::IPV6.to_be_bytes());
                let extensions: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
                let mut kinds = self.extensions.iter().map(|(kind, _)| *kind).chain([protocol::UDP]);
                out.extend([0x60, 0, 0, 0]);
                out.extend((extensions as u16).wrapping_add(udp_len).to_be_bytes());
                out.extend([kinds.next().unwrap_or(protocol::UDP), self.ttl]);
                out.extend(source);
                out.extend(destination);
                for ((_, bytes), next) in self.extensions.iter().zip(kinds) {
                    out.push(next);
                    out.extend(&bytes[1..]);
                }
                pseudo = pseudo.bytes(&source).bytes(&destination);
            }
        }
        let start = out.len();
        out.extend(self.source.port().to_be_bytes());
        out.extend(self.destination.port().to_be_bytes());
        out.extend(udp_len.to_be_bytes());
        out.extend([0, 0]);
        out.extend(&self.payload);
        if self.checksum {
            let sum = pseudo.transport(protocol::UDP, u32::from(udp_len)).bytes(&out[start..]);
            out[start + 6..start + 8].copy_from_slice(&udp_nonzero(sum.complement()).to_be_bytes());
        }
        let len = (out.len() + self.padding).max(60);
        out.resize(len, 0);
        out
    }
}
