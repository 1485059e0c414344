//! TCP segments and ICMP errors in packets: where they begin, and who sent them. Pure functions over a packet.
//!
//! What is checked is what UDP's packets are checked for in [`super::parse`]; TCP's own header and checksum are the stack's.

use super::extensions::{self, Upper};
use super::parse::Arrival;
use super::path::{IPV4, MAC_KNOWN, TAGS_SHIFT};
use super::{Path, Tag};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use volley_tcp::{IcmpError, IcmpMessage};
use volley_wire::checksum::Sum;
use volley_wire::ethernet::{self, EthernetHeader, MAX_VLAN_TAGS, VlanTag, ethertype};
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::Ipv6Header;
use zerocopy::FromBytes;

/// ICMPv6's protocol number.
const ICMPV6: u8 = 58;

/// A transport packet between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Addresses and the way back; the ports are not filled in.
    pub path: Path,
    /// Where the transport header begins.
    pub at: usize,
    /// Bytes from there to the end of the IP packet.
    pub len: usize,
    /// Whose packet it is.
    pub protocol: u8,
    /// The two ECN bits.
    pub ecn: u8,
}

/// Finds the TCP segment or ICMP message in a packet of `total` bytes whose headers, up to there, are in `bytes`; `None` for
/// anything else, or anything wrong.
pub fn find(bytes: &[u8], total: usize, arrival: &Arrival) -> Option<Found> {
    let (ethernet, mut rest) = EthernetHeader::ref_from_prefix(bytes).ok()?;
    if ethernet::is_multicast(&ethernet.destination)
        || ethernet::is_multicast(&ethernet.source)
        || arrival.mac.is_some_and(|mac| mac != ethernet.destination)
    {
        return None;
    }
    let (mut kind, mut tags, mut depth) = (ethernet.ethertype.get(), [Tag::default(); MAX_VLAN_TAGS], 0);
    while ethernet::is_vlan(kind) {
        let (tag, after) = VlanTag::ref_from_prefix(rest).ok()?;
        *tags.get_mut(depth)? = Tag { tpid: kind, tci: tag.tci.get() };
        (kind, rest) = (tag.ethertype.get(), after);
        depth += 1;
    }
    let ip = bytes.len() - rest.len();
    let left = total.checked_sub(ip)?;
    let inner = match kind {
        ethertype::IPV4 => ipv4(rest, left, arrival.verify)?,
        ethertype::IPV6 => ipv6(rest, left)?,
        _ => return None,
    };
    let family = if inner.source.is_ipv4() { IPV4 } else { 0 };
    Some(Found {
        path: Path {
            local: super::path::mapped(inner.destination),
            peer: super::path::mapped(inner.source),
            local_port: 0,
            peer_port: 0,
            tags,
            local_mac: ethernet.destination,
            peer_mac: ethernet.source,
            queue: arrival.queue,
            port: arrival.port,
            bits: family | MAC_KNOWN | (depth as u8) << TAGS_SHIFT,
        },
        at: ip + inner.at,
        len: inner.len,
        protocol: inner.protocol,
        ecn: inner.ecn,
    })
}

struct Inner {
    source: IpAddr,
    destination: IpAddr,
    at: usize,
    len: usize,
    protocol: u8,
    ecn: u8,
}

/// `available` bytes of the packet there are, of which `bytes` are here.
fn ipv4(bytes: &[u8], available: usize, verify: bool) -> Option<Inner> {
    let (header, _) = Ipv4Header::ref_from_prefix(bytes).ok()?;
    let (at, total) = (header.header_len(), header.total_length.get() as usize);
    if header.version() != 4 || at < Ipv4Header::LEN || at > bytes.len() || total < at || total > available
    {
        return None;
    }
    if header.is_fragment() || (verify && Sum::ZERO.bytes(&bytes[..at]).fold() != 0xffff) {
        return None;
    }
    let (source, destination) = (Ipv4Addr::from(header.source), Ipv4Addr::from(header.destination));
    let host =
        |ip: Ipv4Addr| !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback() && ip.octets()[0] != 0;
    let protocol = header.protocol;
    (host(source) && host(destination) && matches!(protocol, protocol::TCP | protocol::ICMP)).then(|| {
        Inner {
            source: source.into(),
            destination: destination.into(),
            at,
            len: total - at,
            protocol,
            ecn: header.dscp_ecn & 3,
        }
    })
}

fn ipv6(bytes: &[u8], available: usize) -> Option<Inner> {
    let (header, rest) = Ipv6Header::ref_from_prefix(bytes).ok()?;
    let left = header.payload_length.get() as usize;
    if header.version() != 6 || Ipv6Header::LEN + left > available {
        return None;
    }
    let upper = Upper { protocol: header.next_header, bytes: rest, left };
    let Upper { protocol, bytes: rest, left } = extensions::skip(upper).ok()?;
    if !matches!(protocol, protocol::TCP | ICMPV6) {
        return None;
    }
    let (source, destination) = (Ipv6Addr::from(header.source), Ipv6Addr::from(header.destination));
    let host = |ip: Ipv6Addr| {
        !ip.is_multicast() && !ip.is_loopback() && !ip.is_unspecified() && ip.to_ipv4_mapped().is_none()
    };
    (host(source) && host(destination)).then(|| Inner {
        source: source.into(),
        destination: destination.into(),
        at: bytes.len() - rest.len(),
        len: left,
        protocol,
        ecn: (header.version_class_flow.get() >> 20) as u8 & 3,
    })
}

/// The error about one of our TCP segments that an ICMP or ICMPv6 message is; `None` when it is none, or its checksum is wrong.
/// `bytes` is the message.
pub fn icmp(found: &Found, bytes: &[u8]) -> Option<IcmpMessage> {
    let (&[kind, code, _, _, _, _, mtu_high, mtu_low], quoted) = bytes.split_first_chunk::<8>()?;
    let mtu = u16::from_be_bytes([mtu_high, mtu_low]);
    let v4 = found.protocol == protocol::ICMP;
    let mut sum = Sum::ZERO;
    if !v4 {
        sum = sum.fixed(&found.path.peer).fixed(&found.path.local).transport(ICMPV6, bytes.len() as u32);
    }
    if sum.bytes(bytes).fold() != 0xffff {
        return None;
    }
    let error = match (v4, kind, code) {
        (true, 3, 4) | (false, 2, _) => IcmpError::TooBig(mtu),
        (true, 3, 2 | 3 | 9 | 10 | 13) | (false, 1, 1 | 4) => IcmpError::Unreachable,
        (true, 3 | 11 | 12, _) | (false, 1 | 3 | 4, _) => IcmpError::Transient,
        _ => return None,
    };
    // The packet it quotes is one of ours, so it has neither options nor extension headers.
    let (local, remote, segment) = match v4 {
        true => {
            let (header, rest) = Ipv4Header::ref_from_prefix(quoted).ok()?;
            let plain = header.version() == 4 && header.header_len() == Ipv4Header::LEN;
            if !plain || header.is_fragment() || header.protocol != protocol::TCP {
                return None;
            }
            (IpAddr::from(header.source), IpAddr::from(header.destination), rest)
        }
        false => {
            let (header, rest) = Ipv6Header::ref_from_prefix(quoted).ok()?;
            if header.version() != 6 || header.next_header != protocol::TCP {
                return None;
            }
            (IpAddr::from(header.source), IpAddr::from(header.destination), rest)
        }
    };
    let (&[a, b, c, d, e, f, g, h], _) = segment.split_first_chunk::<8>()?;
    Some(IcmpMessage {
        error,
        local: SocketAddr::new(local, u16::from_be_bytes([a, b])),
        remote: SocketAddr::new(remote, u16::from_be_bytes([c, d])),
        sequence: u32::from_be_bytes([e, f, g, h]),
    })
}
