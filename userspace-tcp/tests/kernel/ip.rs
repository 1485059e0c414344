//! IP packets for the wire between stack and kernel: segments taken out of them, segments put into them, ICMP errors read.
//!
//! What it leaves out: fragments, IPv6 extension headers, and every protocol but TCP and the ICMP errors about it.

use std::net::{IpAddr, SocketAddr};
use volley_tcp::{Egress, IcmpError, IcmpMessage, PROTOCOL, SegmentIn, SegmentOut};
use volley_wire::checksum::Sum;
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::Ipv6Header;
use zerocopy::{FromBytes, IntoBytes};

/// What an IP packet carries, whole and undamaged as far as IP can tell.
pub struct Packet<'p> {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// What it carries.
    pub protocol: u8,
    /// The two ECN bits.
    pub ecn: u8,
    /// What is behind the IP header, without padding.
    pub payload: &'p [u8],
}

impl<'p> Packet<'p> {
    /// `None` for fragments and what is no IP packet.
    pub fn parse(bytes: &'p [u8]) -> Option<Packet<'p>> {
        match bytes.first()? >> 4 {
            4 => {
                let (header, _) = Ipv4Header::ref_from_prefix(bytes).ok()?;
                let (at, end) = (header.header_len(), header.total_length.get() as usize);
                let payload = bytes.get(at..end)?;
                let whole = at >= Ipv4Header::LEN
                    && !header.is_fragment()
                    && Sum::ZERO.bytes(&bytes[..at]).fold() == 0xffff;
                whole.then(|| Packet {
                    source: header.source.into(),
                    destination: header.destination.into(),
                    protocol: header.protocol,
                    ecn: header.dscp_ecn & 3,
                    payload,
                })
            }
            6 => {
                let (header, rest) = Ipv6Header::ref_from_prefix(bytes).ok()?;
                Some(Packet {
                    source: header.source.into(),
                    destination: header.destination.into(),
                    protocol: header.next_header,
                    ecn: (header.version_class_flow.get() >> 20) as u8 & 3,
                    payload: rest.get(..header.payload_length.get().into())?,
                })
            }
            _ => None,
        }
    }

    /// For [`volley_tcp::Stack::receive_burst`]; `None` when it is not TCP.
    pub fn segment(&self) -> Option<SegmentIn<'p>> {
        (self.protocol == PROTOCOL).then_some(SegmentIn {
            source: self.source,
            destination: self.destination,
            ecn: self.ecn,
            checksum: Default::default(),
            path: 0,
            bytes: self.payload,
        })
    }

    /// For [`volley_tcp::Connections::icmp`]; `None` when it is no error about a TCP segment.
    pub fn icmp(&self) -> Option<IcmpMessage> {
        let (&[kind, code, _, _, _, _, high, low], quoted) = self.payload.split_first_chunk::<8>()?;
        let mut sum = Sum::ZERO.bytes(self.payload);
        let error = match (self.protocol, kind, code) {
            (protocol::ICMP, 3, 4) | (protocol::ICMPV6, 2, _) => {
                IcmpError::TooBig(u16::from_be_bytes([high, low]))
            }
            (protocol::ICMP, 3, 2 | 3 | 9 | 10 | 13) | (protocol::ICMPV6, 1, 1 | 4) => {
                IcmpError::Unreachable
            }
            (protocol::ICMP, 3 | 11 | 12, _) | (protocol::ICMPV6, 1 | 3 | 4, _) => IcmpError::Transient,
            _ => return None,
        };
        if let (IpAddr::V6(source), IpAddr::V6(destination)) = (self.source, self.destination) {
            let length = self.payload.len() as u32;
            sum = sum.pseudo_header(&source.octets(), &destination.octets(), protocol::ICMPV6, length);
        }
        // The quoted packet is one of ours, so it has no options; and it may well be cut short.
        let (local, remote, segment): (IpAddr, IpAddr, _) = if self.protocol == protocol::ICMP {
            let (header, rest) = Ipv4Header::ref_from_prefix(quoted).ok()?;
            (
                header.source.into(),
                header.destination.into(),
                (header.protocol == PROTOCOL).then_some(rest)?,
            )
        } else {
            let (header, rest) = Ipv6Header::ref_from_prefix(quoted).ok()?;
            (
                header.source.into(),
                header.destination.into(),
                (header.next_header == PROTOCOL).then_some(rest)?,
            )
        };
        let (&[a, b, c, d, e, f, g, h], _) = segment.split_first_chunk::<8>()?;
        (sum.fold() == 0xffff).then(|| IcmpMessage {
            error,
            local: SocketAddr::new(local, u16::from_be_bytes([a, b])),
            remote: SocketAddr::new(remote, u16::from_be_bytes([c, d])),
            sequence: u32::from_be_bytes([e, f, g, h]),
        })
    }
}

/// Where [`volley_tcp::Connections::transmit`] puts packets: each segment behind an IP header.
#[derive(Default)]
pub struct Packets {
    /// Packets to be sent, in order.
    pub queued: Vec<Vec<u8>>,
    /// Packets beyond it have to wait for the next call.
    pub limit: Option<usize>,
    lent: Vec<u8>,
}

impl Egress for Packets {
    fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]> {
        if self.limit.is_some_and(|limit| self.queued.len() >= limit) {
            return None;
        }
        self.lent.clear();
        match (segment.source, segment.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header {
                    version_ihl: 0x45,
                    dscp_ecn: segment.tos,
                    total_length: ((Ipv4Header::LEN + segment.len) as u16).into(),
                    identification: 0.into(),
                    flags_fragment: (if segment.dont_fragment { Ipv4Header::DONT_FRAGMENT } else { 0 })
                        .into(),
                    ttl: segment.ttl,
                    protocol: PROTOCOL,
                    checksum: 0.into(),
                    source: source.octets(),
                    destination: destination.octets(),
                };
                header.checksum = Sum::ZERO.bytes(header.as_bytes()).complement().into();
                self.lent.extend(header.as_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    version_class_flow: (6 << 28 | u32::from(segment.tos) << 20).into(),
                    payload_length: (segment.len as u16).into(),
                    next_header: PROTOCOL,
                    hop_limit: segment.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                self.lent.extend(header.as_bytes());
            }
            _ => unreachable!("both ends of a connection have one family"),
        }
        let at = self.lent.len();
        self.lent.resize(at + segment.len, 0);
        Some(&mut self.lent[at..])
    }

    fn commit(&mut self, _: &SegmentOut) {
        self.queued.push(std::mem::take(&mut self.lent));
    }
}
