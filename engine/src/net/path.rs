//! Where a datagram came from and how to get back there.

use super::parse::map;
use crate::datagram::Opened;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use volley_wire::ethernet::{EthernetHeader, MAX_VLAN_TAGS, Mac, VlanTag};
use volley_wire::ipv4::Ipv4Header;
use volley_wire::ipv6::Ipv6Header;
use volley_wire::udp::UdpHeader;
use zerocopy::FromBytes;

/// One VLAN tag as it stood on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    /// The tag's protocol identifier: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority, drop eligibility and VLAN identifier.
    pub tci: u16,
}

/// Both ends of a conversation and the way between them, captured when a packet arrives.
///
/// Small, `Copy` and opaque: an app keeps it to answer later, compares it, or asks it for the two socket
/// addresses. A path made by [`Path::to`] has no MAC yet; sending over it resolves one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    pub(crate) local: [u8; 16],
    pub(crate) peer: [u8; 16],
    pub(crate) local_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) tags: [Tag; MAX_VLAN_TAGS],
    pub(crate) local_mac: Mac,
    pub(crate) peer_mac: Mac,
    pub(crate) queue: u16,
    pub(crate) port: u8,
    pub(crate) bits: u8,
}

const _: () = assert!(size_of::<Path>() <= 64, "a path fits one cache line");

/// [`Path::bits`]: the addresses are IPv4 (in the last four bytes of the mapped form).
pub(crate) const IPV4: u8 = 1;
/// [`Path::bits`]: `peer_mac` was heard from the peer.
pub(crate) const MAC_KNOWN: u8 = 2;
/// [`Path::bits`], lowest bit of the number of VLAN tags (0 to 2).
pub(crate) const TAGS_SHIFT: u8 = 2;
/// [`Opened::bits`] alone: the packet is as `plain` wants it.
pub(crate) const PLAIN: u8 = 0x80;

impl Path {
    /// A path from `local` to `peer` over port `port` (the index of a worker's port), with nothing known of the link layer.
    /// `None` when the two addresses are not of one family.
    pub fn to(port: u8, local: SocketAddr, peer: SocketAddr) -> Option<Path> {
        let bits = match (local, peer) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) => IPV4,
            (SocketAddr::V6(_), SocketAddr::V6(_)) => 0,
            _ => return None,
        };
        Some(Path {
            local: mapped(local.ip()),
            peer: mapped(peer.ip()),
            local_port: local.port(),
            peer_port: peer.port(),
            tags: [Tag::default(); MAX_VLAN_TAGS],
            local_mac: [0; 6],
            peer_mac: [0; 6],
            queue: 0,
            port,
            bits,
        })
    }

    /// The path of a packet of which `note` was taken, from its headers.
    pub(crate) fn of_packet(headers: &[u8], note: &Opened) -> Path {
        Path::read(headers, note).expect("a packet that was opened has its headers")
    }

    fn read(headers: &[u8], note: &Opened) -> Option<Path> {
        let bits = note.bits & !PLAIN;
        let (ethernet, mut rest) = EthernetHeader::ref_from_prefix(headers).ok()?;
        let mut kind = ethernet.ethertype.get();
        let mut tags = [Tag::default(); MAX_VLAN_TAGS];
        for slot in tags.iter_mut().take(usize::from(bits >> TAGS_SHIFT)) {
            let (tag, after) = VlanTag::ref_from_prefix(rest).ok()?;
            *slot = Tag { tpid: kind, tci: tag.tci.get() };
            (kind, rest) = (tag.ethertype.get(), after);
        }
        let (local, peer) = if bits & IPV4 != 0 {
            let (header, _) = Ipv4Header::ref_from_prefix(rest).ok()?;
            (map(u32::from_be_bytes(header.destination)), map(u32::from_be_bytes(header.source)))
        } else {
            let (header, _) = Ipv6Header::ref_from_prefix(rest).ok()?;
            (header.destination, header.source)
        };
        let (udp, _) = UdpHeader::ref_from_prefix(headers.get(usize::from(note.udp)..)?).ok()?;
        Some(Path {
            local,
            peer,
            local_port: udp.destination.get(),
            peer_port: udp.source.get(),
            tags,
            local_mac: ethernet.destination,
            peer_mac: ethernet.source,
            queue: note.queue,
            port: note.port,
            bits,
        })
    }

    /// The peer's address and port.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.ip(&self.peer), self.peer_port)
    }

    /// Our address and port: where the packet was addressed, and where answers leave from.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.ip(&self.local), self.local_port)
    }

    /// The VLAN tags, outermost first.
    pub fn tags(&self) -> &[Tag] {
        &self.tags[..((self.bits >> TAGS_SHIFT) & 3).min(MAX_VLAN_TAGS as u8) as usize]
    }

    /// The queue the packet arrived on.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// The index of the worker's port the packet arrived on.
    pub fn port(&self) -> u8 {
        self.port
    }

    /// True for IPv4.
    #[inline(always)]
    pub fn is_ipv4(&self) -> bool {
        self.bits & IPV4 != 0
    }

    /// On a kernel socket, the interface (scope) of a link-local IPv6 peer; 0 for none. It takes the place of our own MAC, which
    /// such a path does not have.
    pub(crate) fn scope(&self) -> u32 {
        let [a, b, c, d, ..] = self.local_mac;
        if self.bits & MAC_KNOWN == 0 { u32::from_ne_bytes([a, b, c, d]) } else { 0 }
    }

    /// See [`Path::scope`].
    pub(crate) fn set_scope(&mut self, scope: u32) {
        self.local_mac[..4].copy_from_slice(&scope.to_ne_bytes());
    }

    fn ip(&self, bytes: &[u8; 16]) -> IpAddr {
        let six = Ipv6Addr::from(*bytes);
        match self.is_ipv4() {
            true => IpAddr::V4(six.to_ipv4_mapped().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED)),
            false => IpAddr::V6(six),
        }
    }
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ← {} (port {} queue {})", self.local(), self.peer(), self.port, self.queue)
    }
}

/// An address in 16 bytes, IPv4 in its mapped form (::ffff:a.b.c.d).
pub(crate) fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    }
}
