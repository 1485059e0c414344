//! The decision.

use volley_wire::ethernet::{EthernetHeader, MAX_VLAN_TAGS, VlanTag, ethertype, is_vlan};
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::{Ipv6Header, MAX_EXTENSION_HEADERS, is_skippable};
use volley_wire::tcp::TcpPorts;
use volley_wire::udp::UdpHeader;

use crate::abi::{Counter, RuleList};
use crate::packet::Packet;
use crate::rules::{Action, Address, Protocol, Unbound};

/// Where the packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// To the kernel.
    Pass,
    /// Away.
    Drop,
    /// To the socket of the receiving queue, which there is.
    Redirect,
}

/// What a decision needs besides the packet.
pub trait Env {
    /// The rules of a destination port; `None` when it has none.
    fn rules(&self, protocol: Protocol, port: u16) -> Option<&RuleList>;

    /// Hands the packet to the socket of the receiving queue; false when there is none, and then `unbound` is done.
    fn redirect(&self, unbound: Unbound) -> bool;

    /// Counts the packet. Called exactly once per packet.
    fn count(&self, counter: Counter);
}

/// Decides where a packet goes, and counts it.
#[inline(always)]
pub fn steer<P: Packet + ?Sized, E: Env>(packet: &P, env: &E) -> Verdict {
    let (verdict, counter) = match destination(packet) {
        Ok(to) => decide(&to, env),
        Err(counter) => (Verdict::Pass, counter),
    };
    env.count(counter);
    verdict
}

/// What rules look at.
struct Destination {
    protocol: Protocol,
    port: u16,
    address: Address,
}

#[inline(always)]
fn decide<E: Env>(to: &Destination, env: &E) -> (Verdict, Counter) {
    let Some(rules) = env.rules(to.protocol, to.port) else { return (Verdict::Pass, Counter::NoRule) };
    match rules.find(&to.address) {
        None => (Verdict::Pass, Counter::AddressMismatch),
        Some(Action::Pass) => (Verdict::Pass, Counter::RulePass),
        Some(Action::Drop) => (Verdict::Drop, Counter::RuleDrop),
        Some(Action::Redirect { unbound }) => {
            if env.redirect(unbound) {
                (Verdict::Redirect, Counter::Redirected)
            } else {
                match unbound {
                    Unbound::Pass => (Verdict::Pass, Counter::NoSocketPass),
                    Unbound::Drop => (Verdict::Drop, Counter::NoSocketDrop),
                }
            }
        }
    }
}

/// Walks the headers down to the ports. An error is the reason why the packet is the kernel's.
#[inline(always)]
fn destination<P: Packet + ?Sized>(packet: &P) -> Result<Destination, Counter> {
    let ethernet: EthernetHeader = packet.load(0).ok_or(Counter::Runt)?;
    let mut kind = ethernet.ethertype.get();
    let mut offset = EthernetHeader::LEN;
    for _ in 0..MAX_VLAN_TAGS {
        if is_vlan(kind) {
            let tag: VlanTag = packet.load(offset).ok_or(Counter::Runt)?;
            kind = tag.ethertype.get();
            offset += VlanTag::LEN;
        }
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
fn ipv4<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<Destination, Counter> {
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
    let transport = transport(header.protocol)?;
    // Otherwise the "ports" would be padding behind the datagram.
    if usize::from(header.total_length.get()) < header_len + transport.least_len() {
        return Err(Counter::Ipv4TotalLength);
    }
    ports(packet, offset + header_len, transport, Address::v4(header.destination))
}

/// RFC 8200.
#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<Destination, Counter> {
    let header: Ipv6Header = packet.load(offset).ok_or(Counter::Runt)?;
    if header.version() != 6 {
        return Err(Counter::Ipv6Version);
    }
    let mut next = header.next_header;
    let mut extensions = 0;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if is_skippable(next) {
            // Next header, length in 8-byte units beyond the first, then (routing only) type and segments left.
            let [following, units, _, segments_left] = packet
                .load::<[u8; 4]>(offset + Ipv6Header::LEN + extensions)
                .ok_or(Counter::Ipv6ExtensionTruncated)?;
            if next == protocol::ROUTING && segments_left != 0 {
                return Err(Counter::RoutingHeader);
            }
            next = following;
            extensions += (usize::from(units) + 1) * 8;
        }
    }
    if is_skippable(next) {
        return Err(Counter::Ipv6ExtensionLimit);
    }
    if next == protocol::FRAGMENT {
        return Err(Counter::Fragment);
    }
    let transport = transport(next)?;
    if usize::from(header.payload_length.get()) < extensions + transport.least_len() {
        return Err(Counter::Ipv6PayloadLength);
    }
    ports(packet, offset + Ipv6Header::LEN + extensions, transport, Address::v6(header.destination))
}

#[inline(always)]
const fn transport(number: u8) -> Result<Protocol, Counter> {
    match number {
        protocol::UDP => Ok(Protocol::Udp),
        protocol::TCP => Ok(Protocol::Tcp),
        _ => Err(Counter::OtherProtocol),
    }
}

impl Protocol {
    /// Bytes of the smallest header.
    #[inline(always)]
    const fn least_len(self) -> usize {
        match self {
            Protocol::Udp => UdpHeader::LEN,
            Protocol::Tcp => TcpPorts::MIN_HEADER_LEN,
        }
    }
}

/// UDP and TCP begin alike: source port, destination port.
#[inline(always)]
fn ports<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    protocol: Protocol,
    address: Address,
) -> Result<Destination, Counter> {
    let missing = Counter::Runt;
    let port = match protocol {
        Protocol::Udp => packet.load::<UdpHeader>(offset).ok_or(missing)?.destination,
        Protocol::Tcp => {
            packet.load::<[u8; TcpPorts::MIN_HEADER_LEN]>(offset).ok_or(missing).map(|segment| {
                let [_, _, high, low, ..] = segment;
                zerocopy::byteorder::network_endian::U16::from_bytes([high, low])
            })?
        }
    };
    Ok(Destination { protocol, port: port.get(), address })
}
