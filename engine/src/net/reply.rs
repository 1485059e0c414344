//! Answers in place: the received packet turned around.
//!
//! MACs, addresses and ports change sides; VLAN tags stay. The IP header is written anew: no options, no extension headers
//! (the headers before them move up against UDP instead), TTL 64, traffic class 0, and in IPv4 "don't fragment" with
//! identification 0, which an atomic datagram may have (RFC 6864, section 4.1).
//!
//! ```text
//! received   │ Ethernet, tags │ IPv4 or IPv6 │ options, extensions │ UDP │ payload │ padding
//! answered                    gap ──► │ Ethernet, tags │ IPv4/IPv6 │ UDP │ answer …
//! ```
//!
//! Swapping sides leaves every sum alone, so the UDP checksum of an unchanged payload still holds; any other is computed
//! from the start. An IPv4 datagram that came without a checksum is answered with one.

use crate::datagram::Opened;
use crate::frame::Frame;
use volley_wire::checksum::{Sum, udp_nonzero};
use volley_wire::ethernet::EthernetHeader;
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::Ipv6Header;
use volley_wire::udp::UdpHeader;
use zerocopy::FromBytes;

/// Hops an answer may take: the value IANA recommends and everyone uses. A low value would not reach far peers.
pub const TTL: u8 = 64;

/// How the UDP checksum of an answer comes about.
#[derive(Clone, Copy, Debug)]
pub enum Checksum<'a> {
    /// The one in the packet holds: the payload is what was received.
    Kept,
    /// Computed here, over the payload in the frame (`None`) or elsewhere.
    Computed(Option<&'a [u8]>),
    /// Only the pseudo-header's sum is stored; the device adds the rest.
    Partial,
}

/// Turns the headers of a received packet around for an answer of `len` payload bytes, and leaves the packet beginning at its new
/// start. The caller has made sure that `len` fits; the frame's length is not touched otherwise.
///
/// Returns how far the packet's start moved.
#[inline(always)]
pub fn turn(frame: &mut Frame, opened: &Opened, len: usize, checksum: Checksum<'_>) -> usize {
    let (ip, udp) = (opened.ip as usize, opened.udp as usize);
    let ipv4 = opened.is_ipv4();
    let header_len = if ipv4 { Ipv4Header::LEN } else { Ipv6Header::LEN };
    let gap = udp - ip - header_len;
    if gap > 0 {
        strip(frame, ip + header_len, gap);
    }
    let bytes = frame.room_mut();
    let Ok((ethernet, _)) = EthernetHeader::mut_from_prefix(bytes) else { return gap };
    std::mem::swap(&mut ethernet.source, &mut ethernet.destination);

    let udp_len = UdpHeader::LEN + len;
    let rest = &mut bytes[ip..];
    let (pair, rest) = match ipv4 {
        true => {
            let Ok((header, rest)) = Ipv4Header::mut_from_prefix(rest) else { return gap };
            std::mem::swap(&mut header.source, &mut header.destination);
            (write_ipv4(header, udp_len), rest)
        }
        false => {
            let Ok((header, rest)) = Ipv6Header::mut_from_prefix(rest) else { return gap };
            std::mem::swap(&mut header.source, &mut header.destination);
            (write_ipv6(header, udp_len), rest)
        }
    };
    let Ok((header, payload)) = UdpHeader::mut_from_prefix(rest) else { return gap };
    std::mem::swap(&mut header.source, &mut header.destination);
    match checksum {
        Checksum::Kept => {}
        Checksum::Computed(Some(elsewhere)) => write_udp(header, elsewhere, pair, len),
        Checksum::Computed(None) => write_udp(header, &payload[..len], pair, len),
        Checksum::Partial => write_udp_partial(header, pair, len),
    }
    frame.set_flags(0);
    if matches!(checksum, Checksum::Partial) {
        leave_checksum(frame, udp - gap);
    }
    gap
}

/// Leaves the checksum of the UDP header at `udp` to the device.
#[inline(always)]
pub fn leave_checksum(frame: &mut Frame, udp: usize) {
    let noted = frame.set_partial_checksum(udp, false);
    debug_assert!(noted, "UDP begins at {udp}, and headers are even and short");
}

/// Writes everything but the addresses of an IPv4 header for `payload` bytes; returns the sum of the addresses.
#[inline(always)]
pub fn write_ipv4(header: &mut Ipv4Header, payload: usize) -> Sum {
    let total_length = (Ipv4Header::LEN + payload) as u16;
    header.version_ihl = 0x45;
    header.dscp_ecn = 0;
    header.total_length.set(total_length);
    header.identification.set(0);
    header.flags_fragment.set(Ipv4Header::DONT_FRAGMENT);
    header.ttl = TTL;
    header.protocol = protocol::UDP;
    let pair = Sum::ZERO.fixed(&header.source).fixed(&header.destination);
    let sum = pair
        .word(0x4500)
        .word(Ipv4Header::DONT_FRAGMENT)
        .word(u16::from(TTL) << 8 | u16::from(protocol::UDP))
        .word(total_length);
    header.checksum.set(sum.complement());
    pair
}

/// Writes everything but the addresses of an IPv6 header for `payload` bytes; returns the sum of the addresses.
#[inline(always)]
pub fn write_ipv6(header: &mut Ipv6Header, payload: usize) -> Sum {
    header.version_class_flow.set(6 << 28);
    header.payload_length.set(payload as u16);
    header.next_header = protocol::UDP;
    header.hop_limit = TTL;
    Sum::ZERO.fixed(&header.source).fixed(&header.destination)
}

/// Writes length and checksum of a UDP header whose ports are set, over `payload` (of which `len` bytes count).
#[inline(always)]
pub fn write_udp(header: &mut UdpHeader, payload: &[u8], pair: Sum, len: usize) {
    let length = (UdpHeader::LEN + len) as u16;
    header.length.set(length);
    header.checksum.set(0);
    let fixed: &[u8; UdpHeader::LEN] = zerocopy::transmute_ref!(&*header);
    let sum = pair.transport(protocol::UDP, u32::from(length)).fixed(fixed).bytes(payload);
    header.checksum.set(udp_nonzero(sum.complement()));
}

/// Writes length and, in place of the checksum, the folded sum of the pseudo-header: what a device that finishes checksums
/// expects (Linux: CHECKSUM_PARTIAL, Documentation/networking/checksum-offloads.rst).
#[inline(always)]
pub fn write_udp_partial(header: &mut UdpHeader, pair: Sum, len: usize) {
    let length = (UdpHeader::LEN + len) as u16;
    header.length.set(length);
    header.checksum.set(pair.transport(protocol::UDP, u32::from(length)).fold());
}

/// Moves the first `head` bytes of the packet up by `gap`, over options nobody answers with.
#[cold]
fn strip(frame: &mut Frame, head: usize, gap: usize) {
    frame.bytes_mut().copy_within(..head, gap);
    let moved = frame.set_range(frame.headroom() + gap, frame.len() - gap);
    debug_assert!(moved, "options lie inside the packet");
}
