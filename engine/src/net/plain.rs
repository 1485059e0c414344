//! The packet that nearly every packet is: untagged, without options or extension headers, filled by its datagram, and nothing wrong
//! with it; and its answer, when that is the payload that came.
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

use super::parse::Arrival;
use super::path::{IPV4, MAC_KNOWN, PLAIN};
use super::prefetch;
use super::reply::{write_ipv4, write_ipv6};
use crate::datagram::{Opened, Verdict};
use crate::frame::{BURST, Frame, flag};
use arrayvec::ArrayVec;
use volley_wire::checksum::Sum;
use volley_wire::ethernet::{EthernetHeader, ethertype};
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
/// [`Opened::bits`] of what is opened here.
const PLAIN4: u8 = IPV4 | MAC_KNOWN | PLAIN;
const PLAIN6: u8 = MAC_KNOWN | PLAIN;

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

/// The stations that packets for us may have: which of a packet's first eight bytes count, and what they are then.
#[derive(Clone, Copy)]
struct Stations {
    mask: u64,
    value: u64,
}

impl Stations {
    /// The bits that make either station a group.
    const GROUP: u64 = 1 | 1 << 48;
    /// The destination.
    const TO: u64 = (1 << 48) - 1;

    fn of(arrival: &Arrival) -> Stations {
        let Some(mac) = arrival.mac else { return Stations { mask: Stations::GROUP, value: 0 } };
        let [a, b, c, d, e, f] = mac;
        let value = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        match value & Stations::GROUP {
            0 => Stations { mask: Stations::GROUP | Stations::TO, value },
            // What is addressed to a group is never ours.
            _ => Stations { mask: 0, value },
        }
    }

    /// True when neither station is a group, and the packet is addressed to us.
    #[inline(always)]
    fn are<const N: usize>(self, head: &[u8; N]) -> bool {
        u64::from_le_bytes(*part(head, 0)) & self.mask == self.value
    }
}

/// Opens the packets of `frames` from `first` on while they are plain: parses and verifies them, and notes them in `opened`. `FETCH`
/// their headers first, unless they are near. Returns the first frame that was not plain, and the bytes of the payloads.
#[inline(never)]
pub(super) fn open<const FETCH: bool>(
    frames: &[Frame],
    first: usize,
    arrival: &Arrival,
    opened: &mut Notes,
) -> (usize, u64) {
    let (stations, port) = (Stations::of(arrival), arrival.port);
    let (mut at, mut bytes) = (first, 0);
    while let Some(frame) = frames.get(at) {
        if FETCH && let Some(coming) = frames.get(at + prefetch::AHEAD) {
            prefetch::headers(coming);
        }
        if frame.has(flag::MORE | flag::NOT_STEERED) {
            break;
        }
        // A note of each family is pushed where it is made: its places are constants there.
        let len = match open_ipv4(frame, at, stations, port, opened) {
            Some(len) => len,
            None => match open_ipv6(frame, at, stations, port, opened) {
                Some(len) => len,
                None => break,
            },
        };
        bytes += u64::from(len);
        at += 1;
    }
    (at, bytes)
}

/// Returns the bytes of the payload.
#[inline(always)]
fn open_ipv4(frame: &Frame, at: usize, stations: Stations, port: u8, opened: &mut Notes) -> Option<u32> {
    let bytes = frame.bytes();
    let head = bytes.first_chunk::<HEAD4>()?;
    let (total, udp_len) = (be16(head, 16), be16(head, 38));
    let end = IP + usize::from(total);
    let plain = be32(head, 12) & KIND4_MASK == KIND4
        && be32(head, 20) & WHOLE4_MASK == WHOLE4
        && usize::from(udp_len) + Ipv4Header::LEN == usize::from(total)
        && usize::from(udp_len) >= UdpHeader::LEN
        && end <= bytes.len()
        && HOST4[usize::from(head[26])]
        && HOST4[usize::from(head[30])]
        && part::<4, HEAD4>(head, 26) != part::<4, HEAD4>(head, 30)
        && have_ports(head, UDP4)
        && stations.are(head);
    if !plain {
        return None;
    }
    if is_to_verify(frame) {
        // The addresses, which the sum of UDP covers too, stand right before it.
        let right = Sum::ZERO.fixed(part::<{ Ipv4Header::LEN }, HEAD4>(head, IP)).holds()
            && (be16(head, 40) == 0 || udp_sum(udp_len).bytes(bytes.get(UDP4 - 8..end)?).holds());
        if !right {
            return None;
        }
    }
    let len = u32::from(udp_len) - UdpHeader::LEN as u32;
    opened.push(Opened {
        frame: at as u16,
        segments: 1,
        ip: IP as u16,
        udp: UDP4 as u16,
        payload: HEAD4 as u32,
        len,
        queue: frame.queue(),
        port,
        bits: PLAIN4,
    });
    Some(len)
}

/// Returns the bytes of the payload.
#[inline(never)]
fn open_ipv6(frame: &Frame, at: usize, stations: Stations, port: u8, opened: &mut Notes) -> Option<u32> {
    let bytes = frame.bytes();
    let head = bytes.first_chunk::<HEAD6>()?;
    let (left, udp_len) = (be16(head, 18), be16(head, 58));
    let end = UDP6 + usize::from(left);
    let plain = be32(head, 12) & KIND6_MASK == KIND6
        && head[20] == protocol::UDP
        && udp_len == left
        && usize::from(udp_len) >= UdpHeader::LEN
        && end <= bytes.len()
        && be16(head, 60) != 0
        && is_host6(head[22])
        && is_host6(head[38])
        && part::<16, HEAD6>(head, 22) != part::<16, HEAD6>(head, 38)
        && have_ports(head, UDP6)
        && stations.are(head);
    if !plain {
        return None;
    }
    let pair = udp_sum(udp_len).fixed(part::<32, HEAD6>(head, 22));
    if is_to_verify(frame) && !pair.bytes(bytes.get(UDP6..end)?).holds() {
        return None;
    }
    let len = u32::from(udp_len) - UdpHeader::LEN as u32;
    opened.push(Opened {
        frame: at as u16,
        segments: 1,
        ip: IP as u16,
        udp: UDP6 as u16,
        payload: HEAD6 as u32,
        len,
        queue: frame.queue(),
        port,
        bits: PLAIN6,
    });
    Some(len)
}

/// True when nobody has vouched for the packet's checksums.
#[inline(always)]
fn is_to_verify(frame: &Frame) -> bool {
    !frame.has(flag::CHECKSUM_VERIFIED | flag::CHECKSUM_PARTIAL)
}

/// True for the first byte of IPv6 addresses that are no group and do not begin with eight zeroes, as the unspecified one, the
/// host's own and IPv4 in IPv6 do.
#[inline(always)]
fn is_host6(first: u8) -> bool {
    first.wrapping_sub(1) < 0xfe
}

/// True when neither port is 0.
#[inline(always)]
fn have_ports<const N: usize>(head: &[u8; N], udp: usize) -> bool {
    be16(head, udp) != 0 && be16(head, udp + 2) != 0
}

/// The sum of what else than addresses and datagram the checksum of UDP covers.
#[inline(always)]
fn udp_sum(udp_len: u16) -> Sum {
    Sum::ZERO.transport(protocol::UDP, u32::from(udp_len))
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
        let Some(frame) = frames.get_mut(note.frame as usize) else { break };
        if len != note.len || frame.has(flag::CHECKSUM_PARTIAL) {
            break;
        }
        let bytes = frame.bytes_mut();
        let turned = match note.bits {
            PLAIN4 => len as usize <= limits[1] && turn_ipv4(bytes, len),
            PLAIN6 => len as usize <= limits[0] && turn_ipv6(bytes, len),
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

/// Turns a packet with `len` bytes of payload around. False, and nothing changed, without a checksum, since an answer has one.
#[inline(always)]
fn turn_ipv4(bytes: &mut [u8], len: u32) -> bool {
    let Some(head) = bytes.first_chunk_mut::<HEAD4>() else { return false };
    if *part::<2, HEAD4>(head, 40) == [0, 0] {
        return false;
    }
    turn_stations(head, ethertype::IPV4);
    let Ok((header, _)) = Ipv4Header::mut_from_prefix(&mut head[IP..]) else { return false };
    std::mem::swap(&mut header.source, &mut header.destination);
    write_ipv4(header, UdpHeader::LEN + len as usize);
    turn_ports(head, UDP4);
    true
}

#[inline(never)]
fn turn_ipv6(bytes: &mut [u8], len: u32) -> bool {
    let Some(head) = bytes.first_chunk_mut::<HEAD6>() else { return false };
    turn_stations(head, ethertype::IPV6);
    let Ok((header, _)) = Ipv6Header::mut_from_prefix(&mut head[IP..]) else { return false };
    std::mem::swap(&mut header.source, &mut header.destination);
    write_ipv6(header, UdpHeader::LEN + len as usize);
    turn_ports(head, UDP6);
    true
}

/// Writes the Ethernet header anew, in two words that overlap.
#[inline(always)]
fn turn_stations<const N: usize>(head: &mut [u8; N], ethertype: u16) {
    let from = u64::from_le_bytes(*part(head, 4)) >> 16;
    let to = u64::from_le_bytes(*part(head, 0)) & Stations::TO;
    let [high, low] = ethertype.to_be_bytes();
    head[0..8].copy_from_slice(&from.to_le_bytes());
    head[6..14].copy_from_slice(&(to | u64::from_le_bytes([0, 0, 0, 0, 0, 0, high, low])).to_le_bytes());
}

#[inline(always)]
fn turn_ports<const N: usize>(head: &mut [u8; N], udp: usize) {
    let ports = u32::from_ne_bytes(*part(head, udp)).rotate_left(16);
    head[udp..udp + 4].copy_from_slice(&ports.to_ne_bytes());
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
