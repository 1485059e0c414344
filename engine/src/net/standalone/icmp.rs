//! ICMP and ICMPv6: echoes answered, errors about our own packets acted on (RFC 792, RFC 4443).

use super::{Arrived, Outcome, Standalone};
use crate::frame::Frame;
use crate::net::Path;
use crate::net::ip::IpHeader;
use crate::net::parse;
use crate::net::path::IPV4;
use crate::net::reply::TTL;
use volley_wire::DropReason;
use volley_wire::checksum::{Sum, update_word};
use volley_wire::ethernet::EthernetHeader;
use volley_wire::icmp::{IcmpHeader, v4, v6};
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::Ipv6Header;
use zerocopy::FromBytes;

/// Bytes of a transport header that every error brings back (RFC 792): both ports, and TCP's sequence number.
const BROUGHT_BACK: usize = 8;

/// Our packet, as an error brings it back.
struct Original {
    path: Path,
    protocol: u8,
    /// Bytes of the whole IP packet.
    len: usize,
}

impl Standalone {
    pub(super) fn icmp(&mut self, chain: &mut [Frame], header: &IpHeader, arrived: Arrived<'_>) -> Outcome {
        let verify = arrived.verify;
        let Some(message) = chain[0].bytes().get(header.transport..) else {
            return Outcome::Drop(DropReason::Runt);
        };
        let Ok((icmp, _)) = IcmpHeader::read_from_prefix(message) else {
            return Outcome::Drop(DropReason::Runt);
        };
        if header.len < IcmpHeader::LEN {
            return Outcome::Drop(DropReason::Runt);
        }
        let for_us = self.owns(&header.destination, arrived.link);
        let echo = icmp.kind == if header.ipv4 { v4::ECHO } else { v6::ECHO };
        let discovery =
            !header.ipv4 && matches!(icmp.kind, v6::NEIGHBOUR_SOLICITATION | v6::NEIGHBOUR_ADVERTISEMENT);
        let error = match header.ipv4 {
            true => matches!(icmp.kind, v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM),
            false => icmp.kind < v6::ECHO,
        };
        if !(discovery || for_us && (echo || error)) {
            return Outcome::NotOurs;
        }
        if verify && checksum(chain, header) != 0xffff {
            return Outcome::Drop(DropReason::BadControl);
        }
        match icmp.kind {
            _ if echo => self.echo(chain, header, icmp, arrived),
            // Fits one frame, or is none.
            _ if chain.len() > 1 => Outcome::Drop(DropReason::ChainTooLong),
            v6::NEIGHBOUR_SOLICITATION if discovery => self.solicitation(&mut chain[0], header, arrived),
            v6::NEIGHBOUR_ADVERTISEMENT if discovery => self.advertisement(&chain[0], header, arrived),
            _ => self.error(&chain[0], header, icmp, arrived),
        }
    }

    fn echo(
        &mut self,
        chain: &mut [Frame],
        header: &IpHeader,
        icmp: IcmpHeader,
        arrived: Arrived<'_>,
    ) -> Outcome {
        let ip_at = arrived.link.end;
        let ip_len = if header.ipv4 { Ipv4Header::LEN } else { Ipv6Header::LEN };
        if header.source == [0; 16] {
            return Outcome::Drop(DropReason::BadSource);
        }
        // With options or extension headers it is somebody's experiment.
        if icmp.code != 0 || header.transport != ip_at + ip_len {
            return Outcome::Drop(DropReason::BadControl);
        }
        if !self.echoes.allow(arrived.now_ns) {
            return Outcome::Drop(DropReason::RateLimited);
        }
        // What padded the question is no part of the answer.
        let mut left = header.transport + header.len;
        for frame in chain.iter_mut() {
            let len = frame.len().min(left);
            let fits = frame.set_len(len);
            debug_assert!(fits, "it becomes shorter");
            left -= len;
        }
        let bytes = chain[0].bytes_mut();
        let Ok((ethernet, _)) = EthernetHeader::mut_from_prefix(bytes) else {
            return Outcome::Drop(DropReason::Runt);
        };
        (ethernet.destination, ethernet.source) = (arrived.link.source, self.mac);
        let rest = &mut bytes[ip_at..];
        match header.ipv4 {
            true => {
                let Ok((ip, _)) = Ipv4Header::mut_from_prefix(rest) else {
                    return Outcome::Drop(DropReason::Runt);
                };
                std::mem::swap(&mut ip.source, &mut ip.destination);
                ip.ttl = TTL;
                ip.identification.set(0);
                ip.flags_fragment.set(Ipv4Header::DONT_FRAGMENT);
                ip.checksum.set(0);
                let fixed: &[u8; Ipv4Header::LEN] = zerocopy::transmute_ref!(&*ip);
                ip.checksum.set(Sum::ZERO.fixed(fixed).complement());
            }
            false => {
                let Ok((ip, _)) = Ipv6Header::mut_from_prefix(rest) else {
                    return Outcome::Drop(DropReason::Runt);
                };
                std::mem::swap(&mut ip.source, &mut ip.destination);
                ip.hop_limit = TTL;
            }
        }
        let Ok((message, _)) = IcmpHeader::mut_from_prefix(&mut bytes[header.transport..]) else {
            return Outcome::Drop(DropReason::Runt);
        };
        let reply = if header.ipv4 { v4::ECHO_REPLY } else { v6::ECHO_REPLY };
        let (old, new) = (u16::from(message.kind) << 8, u16::from(reply) << 8);
        message.checksum.set(update_word(message.checksum.get(), old, new));
        message.kind = reply;
        let more = chain[0].flags() & crate::frame::flag::MORE;
        chain[0].set_flags(more);
        self.stats.echo_answered += 1;
        Outcome::Answered
    }

    /// An error: nothing is ever answered to one.
    fn error(
        &mut self,
        frame: &Frame,
        header: &IpHeader,
        icmp: IcmpHeader,
        arrived: Arrived<'_>,
    ) -> Outcome {
        if !self.errors.allow(arrived.now_ns) {
            return Outcome::Drop(DropReason::RateLimited);
        }
        let start = header.transport + IcmpHeader::LEN;
        let end = (header.transport + header.len).min(frame.len());
        let embedded = frame.bytes().get(start..end).unwrap_or_default();
        let original = match header.ipv4 {
            true => original_v4(embedded),
            false => original_v6(embedded),
        };
        let Some(original) = original else { return Outcome::Drop(DropReason::BadControl) };
        // About a packet we cannot have sent.
        if original.path.local != header.destination {
            return Outcome::Drop(DropReason::BadControl);
        }
        let too_big = match (header.ipv4, icmp.kind, icmp.code) {
            (true, v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) => Some(icmp.rest.get() & 0xffff),
            (false, v6::PACKET_TOO_BIG, _) => Some(icmp.rest.get()),
            _ => None,
        };
        match original.protocol {
            protocol::UDP => {
                match too_big {
                    Some(mtu) => self.too_big(&original.path, original.len, mtu, arrived.now_ns),
                    None => self.stats.errors += 1,
                }
                Outcome::Handled
            }
            // Our TCP has had its look.
            _ => Outcome::NotOurs,
        }
    }
}

/// The folded sum over a message in one frame or several.
fn checksum(chain: &[Frame], header: &IpHeader) -> u16 {
    let mut sum = if header.ipv4 { Sum::ZERO } else { header.pseudo() };
    let (mut skip, mut left, mut odd) = (header.transport, header.len, false);
    for frame in chain {
        let bytes = &frame.bytes()[skip.min(frame.len())..];
        let bytes = &bytes[..bytes.len().min(left)];
        (skip, left) = (0, left - bytes.len());
        let part = Sum::ZERO.bytes(bytes).fold();
        // A part that begins at an odd place has its bytes in the other halves of the words.
        sum = sum.word(if odd { part.swap_bytes() } else { part });
        odd ^= bytes.len() % 2 == 1;
    }
    sum.fold()
}

fn original_v4(bytes: &[u8]) -> Option<Original> {
    let (header, _) = Ipv4Header::read_from_prefix(bytes).ok()?;
    let transport = header.header_len();
    let ports = bytes.get(transport..transport + BROUGHT_BACK)?;
    // We send whole packets, which may not be cut.
    let ours = header.version() == 4 && transport >= Ipv4Header::LEN && !header.is_fragment();
    if !ours || header.flags_fragment.get() & Ipv4Header::DONT_FRAGMENT == 0 {
        return None;
    }
    let map = |four: [u8; 4]| parse::map(u32::from_be_bytes(four));
    Some(Original {
        path: path(map(header.source), map(header.destination), ports, IPV4),
        protocol: header.protocol,
        len: header.total_length.get() as usize,
    })
}

fn original_v6(bytes: &[u8]) -> Option<Original> {
    let (header, _) = Ipv6Header::read_from_prefix(bytes).ok()?;
    // We send no extension headers.
    let transport = Ipv6Header::LEN;
    let ports = bytes.get(transport..transport + BROUGHT_BACK)?;
    (header.version() == 6).then(|| Original {
        path: path(header.source, header.destination, ports, 0),
        protocol: header.next_header,
        len: Ipv6Header::LEN + header.payload_length.get() as usize,
    })
}

/// The path a packet of ours took: no more of it than the ends.
fn path(local: [u8; 16], peer: [u8; 16], ports: &[u8], bits: u8) -> Path {
    Path {
        local,
        peer,
        local_port: u16::from_be_bytes([ports[0], ports[1]]),
        peer_port: u16::from_be_bytes([ports[2], ports[3]]),
        tags: Default::default(),
        local_mac: [0; 6],
        peer_mac: [0; 6],
        queue: 0,
        port: 0,
        bits,
    }
}
