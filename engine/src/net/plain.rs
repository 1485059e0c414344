//! The packet that nearly every packet is: untagged, without options or extension headers, and nothing wrong with it; and its
//! answer, when that is the payload that came.
//!
//! ```text
//! 0       6       12     14                  26       30       34               42
//! │ to    │ from  │ 0800 │ 45 … UDP, sum     │ source │ dest.  │ ports, len, sum│ payload …      IPv4
//! 0       6       12     14          22                38               54     62
//! │ to    │ from  │ 86dd │ 6… len UDP│ source          │ destination    │ UDP  │ payload …      IPv6
//! ```
//!
//! Every field stands at a place known when this is compiled, so that one look at the length pays for all of them and fields are
//! compared in words; and a whole burst goes through in one loop that holds nothing else. What this does not take says nothing
//! about a packet: [`super::parse`] and [`super::reply`], which know everything, decide then. What is taken here they would take
//! too, with the same result, in twice the instructions.

use super::parse::{Arrival, map};
use super::path::{IPV4, MAC_KNOWN, Path, Tag};
use super::prefetch;
use super::reply::{write_ipv4, write_ipv6};
use crate::datagram::{Opened, Verdict};
use crate::frame::{BURST, Frame, flag};
use arrayvec::ArrayVec;
use volley_wire::checksum::Sum;
use volley_wire::ethernet::{EthernetHeader, MAX_VLAN_TAGS, Mac, ethertype};
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::Ipv6Header;
use volley_wire::udp::UdpHeader;
use zerocopy::FromBytes;

/// What is noted of a burst.
type Notes = ArrayVec<Opened, BURST>;

/// Where the IP header begins.
const IP: usize = EthernetHeader::LEN;
/// Where the UDP header begins over IPv4, and where the payload does.
const UDP4: usize = IP + Ipv4Header::LEN;
const HEAD4: usize = UDP4 + UdpHeader::LEN;
/// The same over IPv6.
const UDP6: usize = IP + Ipv6Header::LEN;
const HEAD6: usize = UDP6 + UdpHeader::LEN;

/// EtherType, version and header length; any type of service.
const KIND4: u32 = u32::from_be_bytes([(ethertype::IPV4 >> 8) as u8, ethertype::IPV4 as u8, 0x45, 0]);
const KIND4_MASK: u32 = 0xffff_ff00;
/// Neither "more fragments" nor an offset; any time to live; UDP.
const WHOLE4: u32 = protocol::UDP as u32;
const WHOLE4_MASK: u32 = 0x3fff_00ff;
/// EtherType and version; any traffic class.
const KIND6: u32 = u32::from_be_bytes([(ethertype::IPV6 >> 8) as u8, ethertype::IPV6 as u8, 0x60, 0]);
const KIND6_MASK: u32 = 0xffff_f000;
/// In the first eight bytes: the bits that make either station a group.
const GROUP: u64 = 1 | 1 << 48;

/// For the first byte of an IPv4 address: whether every address that begins with it is one host's. Not those of "this network", our
/// own, groups, and the end of the range.
static HOST4: [bool; 256] = {
    let mut hosts = [false; 256];
    let mut net = 1;
    while net < 224 {
        hosts[net] = net != 127;
        net += 1;
    }
    hosts
};

/// Opens the packets of `frames` from `first` on while they are plain: parses and verifies them, and notes them in `opened`.
/// Returns the first frame that was not, and the bytes of the payloads.
#[inline(never)]
pub(super) fn open(frames: &[Frame], first: usize, arrival: &Arrival, opened: &mut Notes) -> (usize, u64) {
    let (mut at, mut bytes) = (first, 0);
    while let Some(frame) = frames.get(at) {
        if let Some(coming) = frames.get(at + prefetch::AHEAD) {
            prefetch::headers(coming);
        }
        if frame.has(flag::MORE | flag::NOT_STEERED) {
            break;
        }
        let verify = !frame.has(flag::CHECKSUM_VERIFIED | flag::CHECKSUM_PARTIAL);
        let packet = frame.bytes();
        // A note of each family is pushed where it is made: where both ways met, it would go through memory once more.
        let len = match open_ipv4(packet, at, frame.queue(), verify, arrival, opened) {
            Some(len) => len,
            None => match open_ipv6(packet, at, frame.queue(), verify, arrival, opened) {
                Some(len) => len,
                None => break,
            },
        };
        bytes += u64::from(len);
        at += 1;
    }
    (at, bytes)
}

#[inline(always)]
fn open_ipv4(
    bytes: &[u8],
    frame: usize,
    queue: u16,
    verify: bool,
    arrival: &Arrival,
    opened: &mut Notes,
) -> Option<u32> {
    let head = bytes.first_chunk::<HEAD4>()?;
    let (total, udp_len) = (usize::from(be16(head, 16)), be16(head, 38));
    let end = UDP4 + usize::from(udp_len);
    let plain = be32(head, 12) & KIND4_MASK == KIND4
        && be32(head, 20) & WHOLE4_MASK == WHOLE4
        && IP + total <= bytes.len()
        && end <= IP + total
        && usize::from(udp_len) >= UdpHeader::LEN
        && HOST4[usize::from(head[26])]
        && HOST4[usize::from(head[30])]
        && part::<4, HEAD4>(head, 26) != part::<4, HEAD4>(head, 30)
        && stations(head, arrival);
    if !plain {
        return None;
    }
    if verify {
        let header = part::<{ Ipv4Header::LEN }, HEAD4>(head, IP);
        if Sum::ZERO.fixed(header).fold() != 0xffff {
            return None;
        }
        let pair = Sum::ZERO.fixed(part::<8, HEAD4>(head, 26));
        if be16(head, 40) != 0 && !holds(pair, udp_len, bytes.get(UDP4..end)?) {
            return None;
        }
    }
    let (local, peer) = (map(be32(head, 30)), map(be32(head, 26)));
    let path = path(head, local, peer, UDP4, IPV4, queue, arrival)?;
    Some(note(opened, path, head, frame, UDP4, udp_len))
}

#[inline(never)]
fn open_ipv6(
    bytes: &[u8],
    frame: usize,
    queue: u16,
    verify: bool,
    arrival: &Arrival,
    opened: &mut Notes,
) -> Option<u32> {
    let head = bytes.first_chunk::<HEAD6>()?;
    let (left, udp_len) = (usize::from(be16(head, 18)), be16(head, 58));
    let end = UDP6 + usize::from(udp_len);
    let plain = be32(head, 12) & KIND6_MASK == KIND6
        && head[20] == protocol::UDP
        && UDP6 + left <= bytes.len()
        && end <= UDP6 + left
        && usize::from(udp_len) >= UdpHeader::LEN
        && be16(head, 60) != 0
        && is_host6(head[22])
        && is_host6(head[38])
        && part::<16, HEAD6>(head, 22) != part::<16, HEAD6>(head, 38)
        && stations(head, arrival);
    if !plain {
        return None;
    }
    let pair = Sum::ZERO.fixed(part::<32, HEAD6>(head, 22));
    if verify && !holds(pair, udp_len, bytes.get(UDP6..end)?) {
        return None;
    }
    let path = path(head, *part(head, 38), *part(head, 22), UDP6, 0, queue, arrival)?;
    Some(note(opened, path, head, frame, UDP6, udp_len))
}

/// True when neither station is a group, and the packet is addressed to us.
#[inline(always)]
fn stations<const N: usize>(head: &[u8; N], arrival: &Arrival) -> bool {
    let first = u64::from_le_bytes(*part(head, 0));
    first & GROUP == 0 && arrival.mac.is_none_or(|mac| mac == leading(first))
}

/// True for the first byte of IPv6 addresses that are no group and do not begin with eight zeroes, as the unspecified one, the
/// host's own and IPv4 in IPv6 do.
#[inline(always)]
fn is_host6(first: u8) -> bool {
    first.wrapping_sub(1) < 0xfe
}

/// True when the UDP checksum in `udp`, header and payload, is right.
#[inline(always)]
fn holds(pair: Sum, udp_len: u16, udp: &[u8]) -> bool {
    pair.transport(protocol::UDP, u32::from(udp_len)).bytes(udp).fold() == 0xffff
}

/// The path of a packet with the UDP header at `udp`, but for the stations; `None` when a port is 0.
#[inline(always)]
fn path<const N: usize>(
    head: &[u8; N],
    local: [u8; 16],
    peer: [u8; 16],
    udp: usize,
    family: u8,
    queue: u16,
    arrival: &Arrival,
) -> Option<Path> {
    let (peer_port, local_port) = (be16(head, udp), be16(head, udp + 2));
    if peer_port == 0 || local_port == 0 {
        return None;
    }
    let (local_mac, peer_mac) = (Mac::default(), Mac::default());
    let tags = [Tag::default(); MAX_VLAN_TAGS];
    let (port, bits) = (arrival.port, family | MAC_KNOWN);
    Some(Path { local, peer, local_port, peer_port, tags, local_mac, peer_mac, queue, port, bits })
}

/// Notes a packet; returns the bytes of its payload.
#[inline(always)]
fn note<const N: usize>(
    opened: &mut Notes,
    path: Path,
    head: &[u8; N],
    frame: usize,
    udp: usize,
    udp_len: u16,
) -> u32 {
    let len = u32::from(udp_len) - UdpHeader::LEN as u32;
    let (frame, payload) = (frame as u16, (udp + UdpHeader::LEN) as u32);
    opened.push(Opened { path, frame, segments: 1, ip: IP as u16, udp: udp as u16, payload, len });
    // From packet to note: through variables, six bytes would go one by one.
    if let Some(Opened { path, .. }) = opened.last_mut() {
        path.local_mac = *part(head, 0);
        path.peer_mac = *part(head, 6);
    }
    len
}

/// Turns the packets of `opened` around, from the first on, while they are plain and their answer is what came; as
/// [`super::reply::turn`] would. `limits` are the most bytes of a payload over IPv6 and IPv4 that need no look at the path. Returns
/// how many, and their frames, a bit each.
#[inline(never)]
pub(super) fn answer(
    frames: &mut [Frame],
    opened: &[Opened],
    verdicts: &[Verdict],
    limits: [usize; 2],
) -> (usize, u64) {
    let (mut count, mut answers) = (0, 0);
    for (note, verdict) in opened.iter().zip(verdicts) {
        let Verdict::Reply { len, unchanged: true } = *verdict else { break };
        let ipv4 = note.path.is_ipv4();
        if len != note.len || len as usize > limits[usize::from(ipv4)] || note.segments != 1 {
            break;
        }
        let Some(frame) = frames.get_mut(note.frame as usize) else { break };
        if note.ip as usize != IP || frame.has(flag::CHECKSUM_PARTIAL) {
            break;
        }
        let turned = match (ipv4, note.udp as usize) {
            (true, UDP4) => turn_ipv4(frame.bytes_mut()),
            (false, UDP6) => turn_ipv6(frame.bytes_mut()),
            _ => false,
        };
        if !turned {
            break;
        }
        // What was received, without padding: it fits.
        let fits = frame.set_len((note.payload + len) as usize);
        debug_assert!(fits, "the answer is as long as the question");
        frame.set_flags(0);
        answers |= 1 << note.frame;
        count += 1;
    }
    (count, answers)
}

/// False, and nothing changed, without a checksum, since an answer has one.
#[inline(always)]
fn turn_ipv4(bytes: &mut [u8]) -> bool {
    let Some(head) = bytes.first_chunk_mut::<HEAD4>() else { return false };
    if *part::<2, HEAD4>(head, 40) == [0, 0] {
        return false;
    }
    turn_stations(head);
    let udp_len = usize::from(be16(head, 38));
    let Ok((header, _)) = Ipv4Header::mut_from_prefix(&mut head[IP..]) else { return false };
    std::mem::swap(&mut header.source, &mut header.destination);
    write_ipv4(header, udp_len);
    turn_ports(head, UDP4);
    true
}

#[inline(never)]
fn turn_ipv6(bytes: &mut [u8]) -> bool {
    let Some(head) = bytes.first_chunk_mut::<HEAD6>() else { return false };
    if *part::<2, HEAD6>(head, 60) == [0, 0] {
        return false;
    }
    turn_stations(head);
    let udp_len = usize::from(be16(head, 58));
    let Ok((header, _)) = Ipv6Header::mut_from_prefix(&mut head[IP..]) else { return false };
    std::mem::swap(&mut header.source, &mut header.destination);
    write_ipv6(header, udp_len);
    turn_ports(head, UDP6);
    true
}

/// Twelve bytes, in two words.
#[inline(always)]
fn turn_stations<const N: usize>(head: &mut [u8; N]) {
    let to = u64::from_le_bytes(*part(head, 0));
    let from = u64::from_le_bytes(*part(head, 4)) >> 16;
    head[0..8].copy_from_slice(&(from | to << 48).to_le_bytes());
    head[8..12].copy_from_slice(&((to >> 16) as u32).to_le_bytes());
}

#[inline(always)]
fn turn_ports<const N: usize>(head: &mut [u8; N], udp: usize) {
    let ports = u32::from_ne_bytes(*part(head, udp)).rotate_left(16);
    head[udp..udp + 4].copy_from_slice(&ports.to_ne_bytes());
}

/// The first six bytes of a word that was read in little endian.
#[inline(always)]
fn leading(word: u64) -> Mac {
    let [a, b, c, d, e, f, ..] = word.to_le_bytes();
    [a, b, c, d, e, f]
}

/// `M` bytes from place `at` on; where they lie is known to the compiler, so nothing is checked when it runs.
#[inline(always)]
fn part<const M: usize, const N: usize>(head: &[u8; N], at: usize) -> &[u8; M] {
    head[at..at + M].first_chunk().expect("M bytes were taken")
}

#[inline(always)]
fn be16<const N: usize>(head: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes(*part(head, at))
}

#[inline(always)]
fn be32<const N: usize>(head: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes(*part(head, at))
}
