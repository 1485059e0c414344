//! From bytes to a valid datagram, or the reason why not: pure functions over a packet.
//!
//! ```text
//! 0            14      14 + 4·tags     udp             payload
//! │ Ethernet    │ 0–2 tags │ IP, options │ UDP │ payload … │ padding
//! └─ MACs: ours, one host  └─ lengths, version, checksum, addresses of one host each
//! ```
//!
//! Each check reads only what the checks before it have proven to be there. Bytes after the IP packet (Ethernet pads to 60)
//! and after the UDP datagram are no part of it. Nothing here counts, keeps or sends anything.

use super::extensions::{self, Upper};
use super::path::{IPV4, MAC_KNOWN, Path, TAGS_SHIFT, Tag};
use crate::datagram::Opened;
use volley_wire::DropReason;
use volley_wire::checksum::Sum;
use volley_wire::ethernet::{self, EthernetHeader, MAX_VLAN_TAGS, Mac, VlanTag, ethertype};
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::Ipv6Header;
use volley_wire::udp::UdpHeader;
use zerocopy::FromBytes;

/// Where a packet came in, which its bytes do not say.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The port's own MAC; with `None`, frames for any host are ours.
    pub mac: Option<Mac>,
    /// Index of the worker's port.
    pub port: u8,
    /// Queue of the port.
    pub queue: u16,
    /// Whether to verify checksums (false when the device has).
    pub verify: bool,
}

/// A packet whose headers are right. Its UDP checksum is not looked at yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Who sent it, to whom, and the way back.
    pub path: Path,
    /// Where the IP header begins.
    pub ip: u16,
    /// Where the UDP header begins.
    pub udp: u16,
    /// Bytes of the payload, which begins right behind the UDP header.
    pub len: u16,
    /// The UDP checksum as it stands; 0 is "none".
    pub checksum: u16,
    /// The sum of pseudo-header and UDP header: with the payload's it folds to 0xffff.
    pub sum: Sum,
}

/// Parses the headers of a packet of `total` bytes that begins with `bytes` (all of it, or the first frame of a chain, which
/// must hold all headers).
///
/// # Errors
/// The reason to drop the packet. The first that applies on the way from the outermost header inwards.
// Inlined where it is called, so that the result is written once, to where it stays.
#[inline(always)]
pub fn headers(bytes: &[u8], total: usize, arrival: &Arrival) -> Result<Parsed, DropReason> {
    let (ethernet, rest) = EthernetHeader::ref_from_prefix(bytes).map_err(|_| DropReason::Runt)?;
    if ethernet::is_multicast(&ethernet.destination) {
        return Err(DropReason::NotUnicast);
    }
    if arrival.mac.is_some_and(|mac| mac != ethernet.destination) {
        return Err(DropReason::NotForUs);
    }
    if ethernet::is_multicast(&ethernet.source) {
        return Err(DropReason::BadSource);
    }

    let ethertype = ethernet.ethertype.get();
    match ethernet::is_vlan(ethertype) {
        false => network(ethernet, Tags::default(), ethertype, rest, total, arrival),
        true => {
            let (tags, ethertype, rest) = tags(ethertype, rest)?;
            network(ethernet, tags, ethertype, rest, total, arrival)
        }
    }
}

/// The VLAN tags of a packet.
#[derive(Clone, Copy, Default)]
pub(super) struct Tags {
    pub(super) tags: [Tag; MAX_VLAN_TAGS],
    pub(super) depth: usize,
}

/// Takes the tags off: what they are, the EtherType behind them, and what follows. On its own, so that packets without tags
/// do not carry the variables along.
#[inline(never)]
pub(super) fn tags(mut ethertype: u16, mut rest: &[u8]) -> Result<(Tags, u16, &[u8]), DropReason> {
    let mut found = Tags::default();
    while ethernet::is_vlan(ethertype) {
        let slot = found.tags.get_mut(found.depth).ok_or(DropReason::VlanDepth)?;
        let (tag, after) = VlanTag::ref_from_prefix(rest).map_err(|_| DropReason::Runt)?;
        *slot = Tag { tpid: ethertype, tci: tag.tci.get() };
        (ethertype, rest) = (tag.ethertype.get(), after);
        found.depth += 1;
    }
    Ok((found, ethertype, rest))
}

/// Parses from the IP header on.
#[inline(always)]
fn network(
    ethernet: &EthernetHeader,
    Tags { tags, depth }: Tags,
    ethertype: u16,
    rest: &[u8],
    total: usize,
    arrival: &Arrival,
) -> Result<Parsed, DropReason> {
    let ip = EthernetHeader::LEN + depth * VlanTag::LEN;
    let inner = match ethertype {
        ethertype::IPV4 => ipv4(rest, total - ip, arrival.verify)?,
        ethertype::IPV6 => ipv6(rest, total - ip)?,
        _ => return Err(DropReason::EtherType),
    };
    Ok(Parsed {
        path: Path {
            local: inner.destination,
            peer: inner.source,
            local_port: inner.local_port,
            peer_port: inner.peer_port,
            tags,
            local_mac: ethernet.destination,
            peer_mac: ethernet.source,
            queue: arrival.queue,
            port: arrival.port,
            bits: inner.family | MAC_KNOWN | (depth as u8) << TAGS_SHIFT,
        },
        ip: ip as u16,
        udp: (ip + inner.udp) as u16,
        len: inner.len,
        checksum: inner.checksum,
        sum: inner.sum,
    })
}

/// What the IP packet says.
struct Inner {
    source: [u8; 16],
    destination: [u8; 16],
    peer_port: u16,
    local_port: u16,
    family: u8,
    udp: usize,
    len: u16,
    checksum: u16,
    sum: Sum,
}

/// What the UDP header says.
struct Udp {
    peer_port: u16,
    local_port: u16,
    len: u16,
    checksum: u16,
    sum: Sum,
}

#[inline(always)]
fn ipv4(bytes: &[u8], total: usize, verify: bool) -> Result<Inner, DropReason> {
    let (header, rest) = Ipv4Header::ref_from_prefix(bytes).map_err(|_| DropReason::Runt)?;
    if header.version() != 4 {
        return Err(DropReason::Ipv4Version);
    }
    let header_len = header.header_len();
    if header_len < Ipv4Header::LEN || header_len > bytes.len() {
        return Err(DropReason::Ipv4HeaderLength);
    }
    let total_length = header.total_length.get() as usize;
    if total_length < header_len || total_length > total {
        return Err(DropReason::Ipv4TotalLength);
    }
    let options = &rest[..header_len - Ipv4Header::LEN];
    if verify {
        let fixed: &[u8; Ipv4Header::LEN] = zerocopy::transmute_ref!(header);
        let mut sum = Sum::ZERO.fixed(fixed);
        if !options.is_empty() {
            sum = sum.bytes(options);
        }
        if sum.fold() != 0xffff {
            return Err(DropReason::Ipv4Checksum);
        }
    }
    if header.is_fragment() {
        return Err(DropReason::Fragment);
    }
    if !options.is_empty() && is_source_routed(options) {
        return Err(DropReason::SourceRoute);
    }
    if header.protocol != protocol::UDP {
        return Err(DropReason::NotUdp);
    }
    let pair = Sum::ZERO.fixed(&header.source).fixed(&header.destination);
    let udp = udp(&rest[options.len()..], total_length - header_len, pair)?;
    let (source, destination) = (u32::from_be_bytes(header.source), u32::from_be_bytes(header.destination));
    // Our own address as source would make us talk to ourselves.
    if is_nobody(source) || is_loopback(source) || source == destination {
        return Err(DropReason::BadSource);
    }
    if is_nobody(destination) {
        return Err(DropReason::NotUnicast);
    }
    if is_loopback(destination) {
        return Err(DropReason::NotForUs);
    }
    Ok(Inner {
        source: map(source),
        destination: map(destination),
        peer_port: udp.peer_port,
        local_port: udp.local_port,
        family: IPV4,
        udp: header_len,
        len: udp.len,
        checksum: udp.checksum,
        sum: udp.sum,
    })
}

#[inline(always)]
fn ipv6(bytes: &[u8], total: usize) -> Result<Inner, DropReason> {
    let (header, rest) = Ipv6Header::ref_from_prefix(bytes).map_err(|_| DropReason::Runt)?;
    if header.version() != 6 {
        return Err(DropReason::Ipv6Version);
    }
    let payload_length = header.payload_length.get() as usize;
    if Ipv6Header::LEN + payload_length > total {
        return Err(DropReason::Ipv6PayloadLength);
    }
    let mut inner = Upper { protocol: header.next_header, bytes: rest, left: payload_length };
    if inner.protocol != protocol::UDP {
        inner = extensions::skip(inner)?;
        if inner.protocol != protocol::UDP {
            return Err(DropReason::NotUdp);
        }
    }
    let Upper { bytes: rest, left, .. } = inner;
    let pair = Sum::ZERO.fixed(&header.source).fixed(&header.destination);
    let udp = udp(rest, left, pair)?;
    if udp.checksum == 0 {
        return Err(DropReason::UdpChecksumMissing);
    }
    if is_unusable(&header.source) || header.source[0] == 0xff || header.source == header.destination {
        return Err(DropReason::BadSource);
    }
    if header.destination[0] == 0xff {
        return Err(DropReason::NotUnicast);
    }
    if is_unusable(&header.destination) {
        return Err(DropReason::NotForUs);
    }
    Ok(Inner {
        source: header.source,
        destination: header.destination,
        peer_port: udp.peer_port,
        local_port: udp.local_port,
        family: 0,
        udp: Ipv6Header::LEN + payload_length - left,
        len: udp.len,
        checksum: udp.checksum,
        sum: udp.sum,
    })
}

/// `left` is what the IP header leaves for UDP; `pair` the sum of both addresses.
#[inline(always)]
fn udp(bytes: &[u8], left: usize, pair: Sum) -> Result<Udp, DropReason> {
    if left < UdpHeader::LEN {
        return Err(DropReason::Runt);
    }
    let (header, _) = UdpHeader::ref_from_prefix(bytes).map_err(|_| DropReason::Runt)?;
    let length = header.length.get();
    if (length as usize) < UdpHeader::LEN || length as usize > left {
        return Err(DropReason::UdpLength);
    }
    if header.source.get() == 0 {
        return Err(DropReason::BadSource);
    }
    if header.destination.get() == 0 {
        return Err(DropReason::NotForUs);
    }
    let fixed: &[u8; UdpHeader::LEN] = zerocopy::transmute_ref!(header);
    Ok(Udp {
        peer_port: header.source.get(),
        local_port: header.destination.get(),
        len: length - UdpHeader::LEN as u16,
        checksum: header.checksum.get(),
        sum: pair.transport(protocol::UDP, u32::from(length)).fixed(fixed),
    })
}

impl Parsed {
    /// Where the payload begins.
    #[inline(always)]
    pub fn payload(&self) -> usize {
        self.udp as usize + UdpHeader::LEN
    }

    /// The note of a packet that begins in frame `frame` and is spread over `segments`, with its payload at `payload`.
    #[inline(always)]
    pub(super) fn note(&self, frame: usize, segments: usize, payload: usize) -> Opened {
        Opened {
            frame: frame as u16,
            segments: segments as u16,
            ip: self.ip,
            udp: self.udp,
            payload: payload as u32,
            len: u32::from(self.len),
            queue: self.path.queue,
            port: self.path.port,
            bits: self.path.bits,
        }
    }

    /// Verifies the UDP checksum over `payload`.
    ///
    /// # Errors
    /// [`DropReason::UdpChecksum`]. No checksum at all (zero) is right here: IPv6 without one was refused before.
    #[inline(always)]
    pub fn verify(&self, payload: &[u8]) -> Result<(), DropReason> {
        match self.checksum == 0 || self.sum.bytes(payload).fold() == 0xffff {
            true => Ok(()),
            false => Err(DropReason::UdpChecksum),
        }
    }
}

/// An IPv4 address in its IPv6-mapped form.
#[inline(always)]
pub(super) fn map(four: u32) -> [u8; 16] {
    ((0xffff_u128 << 32) | u128::from(four)).to_be_bytes()
}

/// True for IPv4 addresses of no single host: "this network" (RFC 1122, 3.2.1.3), groups, and the limited broadcast.
#[inline(always)]
pub(super) fn is_nobody(address: u32) -> bool {
    matches!(address >> 24, 0 | 224..=239) || address == u32::MAX
}

/// True for IPv4 addresses that no packet on a wire may carry.
#[inline(always)]
pub(super) fn is_loopback(address: u32) -> bool {
    address >> 24 == 127
}

/// True for IPv6 addresses that no packet on a wire may carry: ::, ::1, and IPv4-mapped ones (RFC 4291).
#[inline(always)]
pub(super) fn is_unusable(address: &[u8; 16]) -> bool {
    let value = u128::from_be_bytes(*address);
    value <= 1 || value >> 32 == 0xffff
}

/// True when IPv4 options hold a loose or strict source route. Malformed options are none.
#[cold]
pub(super) fn is_source_routed(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        match options {
            [END, ..] | [] => return false,
            [NOP, rest @ ..] => options = rest,
            [LOOSE | STRICT, ..] => return true,
            [_, len, ..] => match options.get((*len as usize).max(2)..) {
                Some(rest) => options = rest,
                None => return false,
            },
            [_] => return false,
        }
    }
}
