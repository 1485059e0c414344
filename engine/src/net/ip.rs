//! Headers of packets that are no UDP datagrams: read, and those of the link written.
//!
//! [`super::parse`] reads UDP, and does nothing besides, since it is on the way of every datagram. This reads the rest: the link
//! header of anything, and the IP header of any transport.

use super::extensions::{self, Upper};
use super::{Tag, parse};
use crate::frame::Frame;
use volley_wire::DropReason;
use volley_wire::checksum::Sum;
use volley_wire::ethernet::{self, EthernetHeader, MAX_VLAN_TAGS, Mac, VlanTag, ethertype};
use volley_wire::ipv4::Ipv4Header;
use volley_wire::ipv6::Ipv6Header;
use zerocopy::FromBytes;

/// The link header of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkHeader {
    pub destination: Mac,
    pub source: Mac,
    pub tags: [Tag; MAX_VLAN_TAGS],
    pub depth: usize,
    pub ethertype: u16,
    /// Where it ends.
    pub end: usize,
}

/// Reads the link header.
pub(super) fn link(bytes: &[u8]) -> Result<LinkHeader, DropReason> {
    let (header, rest) = EthernetHeader::ref_from_prefix(bytes).map_err(|_| DropReason::Runt)?;
    let outer = header.ethertype.get();
    let (tags, ethertype) = match ethernet::is_vlan(outer) {
        false => (parse::Tags::default(), outer),
        true => parse::tags(outer, rest).map(|(tags, inner, _)| (tags, inner))?,
    };
    Ok(LinkHeader {
        destination: header.destination,
        source: header.source,
        tags: tags.tags,
        depth: tags.depth,
        ethertype,
        end: EthernetHeader::LEN + tags.depth * VlanTag::LEN,
    })
}

/// The IP header of a packet of one host for one host or group.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpHeader {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub ipv4: bool,
    pub protocol: u8,
    pub hops: u8,
    /// Where the transport header begins, from the packet's start.
    pub transport: usize,
    /// Bytes from there to the end of the IP packet.
    pub len: usize,
}

impl IpHeader {
    /// The sum of the pseudo-header. A mapped address adds 0xffff to it, which is zero in ones' complement.
    pub fn pseudo(&self) -> Sum {
        Sum::ZERO.fixed(&self.source).fixed(&self.destination).transport(self.protocol, self.len as u32)
    }

    /// True when the packet is for more than one host.
    pub fn is_group(&self) -> bool {
        match self.ipv4 {
            true => parse::is_nobody(self.v4_destination()),
            false => self.destination[0] == 0xff,
        }
    }

    fn v4_destination(&self) -> u32 {
        u128::from_be_bytes(self.destination) as u32
    }
}

/// Reads the IP header of a packet of `total` bytes that begins with `bytes`.
///
/// Sources that nobody may have are refused, except the unspecified address over IPv6, from which addresses are probed.
pub(super) fn header(
    bytes: &[u8],
    link: &LinkHeader,
    total: usize,
    verify: bool,
) -> Result<IpHeader, DropReason> {
    let rest = bytes.get(link.end..).ok_or(DropReason::Runt)?;
    let total = total.saturating_sub(link.end);
    match link.ethertype {
        ethertype::IPV4 => header_v4(rest, total, verify, link.end),
        ethertype::IPV6 => header_v6(rest, total, link.end),
        _ => Err(DropReason::EtherType),
    }
}

fn header_v4(bytes: &[u8], total: usize, verify: bool, at: usize) -> Result<IpHeader, DropReason> {
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
    if verify && Sum::ZERO.bytes(&bytes[..header_len]).fold() != 0xffff {
        return Err(DropReason::Ipv4Checksum);
    }
    if header.is_fragment() {
        return Err(DropReason::Fragment);
    }
    if parse::is_source_routed(&rest[..header_len - Ipv4Header::LEN]) {
        return Err(DropReason::SourceRoute);
    }
    let (source, destination) = (u32::from_be_bytes(header.source), u32::from_be_bytes(header.destination));
    if parse::is_nobody(source) || parse::is_loopback(source) || source == destination {
        return Err(DropReason::BadSource);
    }
    if parse::is_loopback(destination) {
        return Err(DropReason::NotForUs);
    }
    Ok(IpHeader {
        source: parse::map(source),
        destination: parse::map(destination),
        ipv4: true,
        protocol: header.protocol,
        hops: header.ttl,
        transport: at + header_len,
        len: total_length - header_len,
    })
}

fn header_v6(bytes: &[u8], total: usize, at: usize) -> Result<IpHeader, DropReason> {
    let (header, rest) = Ipv6Header::ref_from_prefix(bytes).map_err(|_| DropReason::Runt)?;
    if header.version() != 6 {
        return Err(DropReason::Ipv6Version);
    }
    let payload_length = header.payload_length.get() as usize;
    if Ipv6Header::LEN + payload_length > total {
        return Err(DropReason::Ipv6PayloadLength);
    }
    let upper = Upper { protocol: header.next_header, bytes: rest, left: payload_length };
    let Upper { protocol, left, .. } = extensions::skip(upper)?;
    let unspecified = header.source == [0; 16];
    if !unspecified && (parse::is_unusable(&header.source) || header.source[0] == 0xff)
        || header.source == header.destination
    {
        return Err(DropReason::BadSource);
    }
    if parse::is_unusable(&header.destination) {
        return Err(DropReason::NotForUs);
    }
    Ok(IpHeader {
        source: header.source,
        destination: header.destination,
        ipv4: false,
        protocol,
        hops: header.hop_limit,
        transport: at + Ipv6Header::LEN + payload_length - left,
        len: left,
    })
}

/// Writes a link header for `len` bytes behind it into an empty frame, and makes it as long as both. Returns where it ends.
pub(super) fn write_link(
    frame: &mut Frame,
    destination: Mac,
    source: Mac,
    tags: &[Tag],
    ethertype: u16,
    len: usize,
) -> Option<usize> {
    let end = EthernetHeader::LEN + tags.len() * VlanTag::LEN;
    if !frame.set_len(end + len) {
        return None;
    }
    frame.set_flags(0);
    let (header, mut rest) = EthernetHeader::mut_from_prefix(frame.bytes_mut()).ok()?;
    (header.destination, header.source) = (destination, source);
    let mut last = &mut header.ethertype;
    for tag in tags {
        let (written, after) = VlanTag::mut_from_prefix(rest).ok()?;
        last.set(tag.tpid);
        written.tci.set(tag.tci);
        (last, rest) = (&mut written.ethertype, after);
    }
    last.set(ethertype);
    Some(end)
}
