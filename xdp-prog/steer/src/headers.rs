//! From the first byte of a frame to its ports.

use volley_wire::ethernet::{EthernetHeader, MAX_VLAN_TAGS, VlanTag, ethertype, is_vlan};
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::{Ipv6Header, MAX_EXTENSION_HEADERS, is_skippable};
use volley_wire::tcp::TcpPorts;
use volley_wire::udp::UdpHeader;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::abi::Counter;
use crate::packet::Packet;
use crate::rules::{Address, Protocol};

/// A UDP datagram or TCP segment, as far as anything here looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// UDP or TCP.
    pub protocol: Protocol,
    /// Destination address.
    pub destination: Address,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// Bytes from the start of the frame to the UDP or TCP header, or to the ICMP header of an error.
    pub offset: usize,
    /// It is an ICMP or ICMPv6 error about a TCP segment that was sent from here: "destination" is its source, us.
    pub error: bool,
}

/// What nearly every game packet over IPv4 begins with: no tag, no options. Cut into words that are compared at
/// once, which saves loads and branches.
#[derive(FromBytes, Unaligned, KnownLayout, Immutable, Clone, Copy)]
#[repr(C)]
struct Plain {
    stations: [u8; 12],
    /// EtherType; version and header length; type of service.
    kind: [u8; 4],
    total_length: [u8; 2],
    identification: [u8; 2],
    /// Flags and fragment offset; time to live; protocol.
    piece: [u8; 4],
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
    udp: UdpHeader,
}

const _: () = assert!(size_of::<Plain>() == EthernetHeader::LEN + Ipv4Header::LEN + UdpHeader::LEN);

impl Plain {
    /// IPv4; version 4, five words of header; any type of service.
    const KIND: [u8; 4] = [(ethertype::IPV4 >> 8) as u8, ethertype::IPV4 as u8, 0x45, 0];
    const KIND_MASK: [u8; 4] = [0xff, 0xff, 0xff, 0];
    /// Neither "more fragments" nor an offset; any time to live; UDP.
    const PIECE: [u8; 4] = [0, 0, 0, protocol::UDP];
    const PIECE_MASK: [u8; 4] = [0x3f, 0xff, 0, 0xff];

    /// True when the bytes are what the struct says, and complete.
    #[inline(always)]
    fn is_what_it_seems(&self) -> bool {
        let differ = |bytes, expected, mask| {
            (u32::from_ne_bytes(bytes) & u32::from_ne_bytes(mask)) != u32::from_ne_bytes(expected)
        };
        !differ(self.kind, Self::KIND, Self::KIND_MASK)
            && !differ(self.piece, Self::PIECE, Self::PIECE_MASK)
            && usize::from(u16::from_be_bytes(self.total_length)) >= Ipv4Header::LEN + UdpHeader::LEN
    }
}

/// The common packet by one bounds check and fixed offsets; `None` when it is not one, or not complete.
///
/// Whatever this finds, [`find`] finds too; it only takes longer.
#[inline(always)]
pub fn find_plain<P: Packet + ?Sized>(packet: &P) -> Option<Datagram> {
    let plain: Plain = packet.load(0)?;
    plain.is_what_it_seems().then(|| Datagram {
        protocol: Protocol::Udp,
        destination: Address::v4(plain.destination),
        source_port: plain.udp.source.get(),
        destination_port: plain.udp.destination.get(),
        offset: EthernetHeader::LEN + Ipv4Header::LEN,
        error: false,
    })
}

/// Walks the headers down to the ports. An error is the reason why the packet is the kernel's.
#[inline(always)]
pub fn find<P: Packet + ?Sized>(packet: &P) -> Result<Datagram, Counter> {
    let ethernet: EthernetHeader = packet.load(0).ok_or(Counter::Runt)?;
    let mut kind = ethernet.ethertype.get();
    let mut offset = EthernetHeader::LEN;
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(kind) {
            break;
        }
        let tag: VlanTag = packet.load(offset).ok_or(Counter::Runt)?;
        kind = tag.ethertype.get();
        offset += VlanTag::LEN;
    }
    match kind {
        ethertype::IPV4 => ipv4(packet, offset),
        ethertype::IPV6 => ipv6(packet, offset),
        ethertype::ARP => Err(Counter::Arp),
        _ if is_vlan(kind) => Err(Counter::VlanDepth),
        _ => Err(Counter::EtherType),
    }
}

/// RFC 791.
#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<Datagram, Counter> {
    let header: Ipv4Header = packet.load(offset).ok_or(Counter::Runt)?;
    if header.version() != 4 {
        return Err(Counter::Ipv4Version);
    }
    let header_len = header.header_len();
    if header_len < Ipv4Header::LEN {
        return Err(Counter::Ipv4HeaderLength);
    }
    if header.is_fragment() {
        return Err(Counter::Fragment);
    }
    if header.protocol == protocol::ICMP {
        let left = usize::from(header.total_length.get()).saturating_sub(header_len);
        return icmp(packet, offset + header_len, left, header.destination);
    }
    let protocol = transport(header.protocol)?;
    // Otherwise the "ports" would be padding behind the datagram.
    if usize::from(header.total_length.get()) < header_len + least_len(protocol) {
        return Err(Counter::Ipv4TotalLength);
    }
    ports(packet, offset + header_len, protocol, Address::v4(header.destination))
}

/// RFC 8200.
#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<Datagram, Counter> {
    let header: Ipv6Header = packet.load(offset).ok_or(Counter::Runt)?;
    if header.version() != 6 {
        return Err(Counter::Ipv6Version);
    }
    let mut next = header.next_header;
    let mut extensions = 0;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_skippable(next) {
            break;
        }
        // Next header, length in 8-byte units beyond the first, then (routing only) type and segments left.
        let [following, units, _, segments_left] = packet
            .load::<[u8; 4]>(offset + Ipv6Header::LEN + extensions)
            .ok_or(Counter::Ipv6ExtensionTruncated)?;
        // With segments left, this host is a waypoint and the address above not the packet's last.
        if next == protocol::ROUTING && segments_left != 0 {
            return Err(Counter::RoutingHeader);
        }
        next = following;
        extensions += (usize::from(units) + 1) * 8;
    }
    if is_skippable(next) {
        return Err(Counter::Ipv6ExtensionLimit);
    }
    if next == protocol::FRAGMENT {
        return Err(Counter::Fragment);
    }
    if next == protocol::ICMPV6 {
        let left = usize::from(header.payload_length.get()).saturating_sub(extensions);
        return icmpv6(packet, offset + Ipv6Header::LEN + extensions, left, header.destination);
    }
    let protocol = transport(next)?;
    if usize::from(header.payload_length.get()) < extensions + least_len(protocol) {
        return Err(Counter::Ipv6PayloadLength);
    }
    ports(packet, offset + Ipv6Header::LEN + extensions, protocol, Address::v6(header.destination))
}

/// An ICMP error (RFC 792) and what it quotes: a header without options, as we send them, and the ports.
#[derive(FromBytes, Unaligned, KnownLayout, Immutable, Clone, Copy)]
#[repr(C)]
struct Icmp {
    kind: u8,
    code_checksum_rest: [u8; 7],
    quoted: Ipv4Header,
    ports: TcpPorts,
    more: [u8; 4],
}

/// The same of ICMPv6 (RFC 4443); our packets have no extension headers.
#[derive(FromBytes, Unaligned, KnownLayout, Immutable, Clone, Copy)]
#[repr(C)]
struct Icmpv6 {
    kind: u8,
    code_checksum_rest: [u8; 7],
    quoted: Ipv6Header,
    ports: TcpPorts,
    more: [u8; 4],
}

/// Destination unreachable, time exceeded, parameter problem: errors, which quote. `left` is what the IP header leaves for ICMP.
///
/// Only those about TCP are found: the kernel keeps no connection for it, whereas a port of UDP has a socket of the kernel's too,
/// and what it learns of the path is of use to both.
#[inline(always)]
fn icmp<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    left: usize,
    to: [u8; 4],
) -> Result<Datagram, Counter> {
    if left < size_of::<Icmp>() {
        return Err(Counter::OtherProtocol);
    }
    let Some(error) = packet.load::<Icmp>(offset) else { return Err(Counter::OtherProtocol) };
    let quoted = &error.quoted;
    let plain = quoted.version_ihl == 0x45 && !quoted.is_fragment() && quoted.protocol == protocol::TCP;
    // To whom it says that its packet did not arrive, must be who sent it.
    if !matches!(error.kind, 3 | 11 | 12) || !plain || quoted.source != to {
        return Err(Counter::OtherProtocol);
    }
    Ok(Datagram {
        protocol: Protocol::Tcp,
        destination: Address::v4(quoted.source),
        source_port: error.ports.destination.get(),
        destination_port: error.ports.source.get(),
        offset,
        error: true,
    })
}

/// Destination unreachable, packet too big, time exceeded, parameter problem.
#[inline(always)]
fn icmpv6<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    left: usize,
    to: [u8; 16],
) -> Result<Datagram, Counter> {
    if left < size_of::<Icmpv6>() {
        return Err(Counter::OtherProtocol);
    }
    let Some(error) = packet.load::<Icmpv6>(offset) else { return Err(Counter::OtherProtocol) };
    let quoted = &error.quoted;
    let plain = quoted.version() == 6 && quoted.next_header == protocol::TCP;
    if !matches!(error.kind, 1..=4) || !plain || quoted.source != to {
        return Err(Counter::OtherProtocol);
    }
    Ok(Datagram {
        protocol: Protocol::Tcp,
        destination: Address::v6(quoted.source),
        source_port: error.ports.destination.get(),
        destination_port: error.ports.source.get(),
        offset,
        error: true,
    })
}

#[inline(always)]
const fn transport(number: u8) -> Result<Protocol, Counter> {
    match number {
        protocol::UDP => Ok(Protocol::Udp),
        protocol::TCP => Ok(Protocol::Tcp),
        _ => Err(Counter::OtherProtocol),
    }
}

/// Bytes of the smallest header.
#[inline(always)]
const fn least_len(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Udp => UdpHeader::LEN,
        Protocol::Tcp => TcpPorts::MIN_HEADER_LEN,
    }
}

/// UDP and TCP begin alike, with the two ports. That the rest of the header is there is the length field's
/// business, which was checked against it; eight bytes of either must be in the packet.
#[inline(always)]
fn ports<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    protocol: Protocol,
    destination: Address,
) -> Result<Datagram, Counter> {
    let header: UdpHeader = packet.load(offset).ok_or(Counter::Runt)?;
    let (source_port, destination_port) = (header.source.get(), header.destination.get());
    Ok(Datagram { protocol, destination, source_port, destination_port, offset, error: false })
}
