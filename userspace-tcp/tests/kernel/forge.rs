//! Packets that neither end has sent: ICMP errors of a router, and segments of an attacker.

use crate::ip::Packet;
use crate::wire::{KERNEL_V4, KERNEL_V6, OURS_V4, OURS_V6, Way};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::HashMap;
use std::net::IpAddr;
use volley_wire::checksum::Sum;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The furthest that each end of a connection has sent: sequence number after the last byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    pub ours: u32,
    pub kernels: u32,
    /// We have sent something other than SYN, and the kernel what only a socket sends: data, FIN, or an acknowledgment of more than our
    /// SYN. Before that a stranger's SYN may well be the peer's, opening simultaneously; and the kernel's half-open request, which
    /// acknowledges as well (a keep-alive probe, when the handshake's last segment was lost), is ended by any SYN or RST within
    /// its window.
    open: (bool, bool),
    /// Where our SYN, or SYN-ACK, stood.
    our_syn: u32,
    /// We, and the kernel, have sent a FIN.
    fin: (bool, bool),
}

impl Flow {
    /// Both ends are synchronized.
    pub fn is_open(&self) -> bool {
        self.open.0 && self.open.1
    }

    /// Either end may be in TIME-WAIT. There a SYN beyond the window opens anew by right (RFC 1122, section 4.2.2.13), and the end
    /// that still waits for the ACK of its FIN is reset.
    fn may_be_over(&self) -> bool {
        self.fin.0 && self.fin.1
    }
}

/// Is it IPv4, our port, the kernel's port.
pub type Key = (bool, u16, u16);

/// Notes what a segment says of its flow. False when the packet is no TCP segment.
pub fn observe(flows: &mut HashMap<Key, Flow>, way: Way, packet: &[u8]) -> bool {
    let Some(parsed) = Packet::parse(packet).filter(|packet| packet.protocol == 6) else { return false };
    let Some(header) = parsed.payload.first_chunk::<20>() else { return false };
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (v4, flags) = (parsed.source.is_ipv4(), header[13]);
    let key = if way == Way::ToUs { (v4, port(2), port(0)) } else { (v4, port(0), port(2)) };
    let payload = parsed.payload.len() - usize::from(header[12] >> 4) * 4;
    let start = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let end = start
        .wrapping_add(payload as u32)
        .wrapping_add(u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0));
    if flags & RST != 0 {
        // Its sequence number may be anything, and the flow is at its end.
        flows.remove(&key);
        return true;
    }
    let flow = flows.entry(key).or_default();
    let (plain, fin) = (flags & SYN == 0, flags & FIN != 0);
    match way {
        Way::ToKernel => {
            (flow.open.0, flow.fin.0) = (plain, plain && (flow.fin.0 || fin));
            if !plain {
                flow.our_syn = start;
            }
        }
        Way::ToUs => {
            let acknowledged = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
            let more = acknowledged.wrapping_sub(flow.our_syn).wrapping_sub(1);
            let socket = payload > 0 || fin || (more as i32 > 0 && flags & ACK != 0);
            (flow.open.1, flow.fin.1) = (plain && (flow.open.1 || socket), plain && (flow.fin.1 || fin));
        }
    }
    let furthest = if way == Way::ToUs { &mut flow.kernels } else { &mut flow.ours };
    if flags & SYN != 0 || end.wrapping_sub(*furthest) as i32 > 0 {
        *furthest = end;
    }
    true
}

/// One line about a packet, for who looks for what went wrong.
pub fn describe(way: Way, packet: &[u8]) -> String {
    // It is cut short: addresses do not matter here, and lengths are the packet's own words.
    let (at, len) = match packet[0] >> 4 {
        4 => (20, usize::from(packet[2]) << 8 | usize::from(packet[3])),
        _ => (40, 40 + (usize::from(packet[4]) << 8 | usize::from(packet[5]))),
    };
    let Some(header) = packet.get(at..).and_then(|segment| segment.first_chunk::<20>()) else {
        return format!("{way:?}: no segment");
    };
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let flags: String = "FSRPAUEC"
        .chars()
        .enumerate()
        .filter(|(bit, _)| header[13] >> bit & 1 == 1)
        .map(|(_, c)| c)
        .collect();
    format!(
        "{way:?}: {} > {} {flags} seq {} ack {} win {} len {}",
        word(0) >> 16,
        word(0) & 0xffff,
        word(4),
        word(8),
        word(12) & 0xffff,
        len.saturating_sub(at + usize::from(header[12] >> 4) * 4)
    )
}

/// A segment in the name of either end that must change nothing: a reset, SYN, FIN or data, inside the window but not where the
/// next byte stands, or anywhere, with an acknowledgment of what was never sent.
pub fn forged((v4, our_port, kernel_port): Key, flow: &Flow, rng: &mut SmallRng) -> (Way, Vec<u8>) {
    let way = if rng.random_bool(0.5) { Way::ToUs } else { Way::ToKernel };
    let (ours, kernels) = if v4 { (OURS_V4, KERNEL_V4) } else { (OURS_V6, KERNEL_V6) };
    let (ends, next, other) = match way {
        Way::ToUs => (((kernels, kernel_port), (ours, our_port)), flow.kernels, flow.ours),
        Way::ToKernel => (((ours, our_port), (kernels, kernel_port)), flow.ours, flow.kernels),
    };
    // One byte beyond everything sent so far can be the next expected nowhere.
    let near = next.wrapping_add(rng.random_range(1..20_000));
    let sequence =
        if rng.random_bool(0.7) { near } else { next.wrapping_add(rng.random_range(1..1 << 31)) };
    let (flags, payload) = match rng.random_range(0..6) {
        0 => (RST, 0),
        1 => (RST | ACK, 0),
        2 if !flow.may_be_over() => (SYN, 0),
        3 => (SYN | ACK, 0),
        4 => (FIN | ACK, 0),
        _ => (ACK, rng.random_range(1..500)),
    };
    // Half the sequence space away: neither new nor, within any window, old (RFC 5961, section 5).
    let acknowledgment = other.wrapping_add((1 << 31) - (1 << 28) + rng.random_range(0..1 << 29));
    let mut segment = Vec::new();
    segment.extend(ends.0.1.to_be_bytes());
    segment.extend(ends.1.1.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgment.to_be_bytes());
    segment.extend([5 << 4, flags, 0x40, 0, 0, 0, 0, 0]);
    segment.extend(std::iter::repeat_n(b'!', payload));
    let checksum = pseudo(ends.0.0, ends.1.0, 6, segment.len()).bytes(&segment).complement();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    (way, packet(ends.0.0, ends.1.0, 6, &segment))
}

/// What a router says about a packet that is too large for its next link (RFC 792 and 1191, RFC 4443), on its way back.
pub fn too_big(bytes: &[u8], mtu: u16) -> Vec<u8> {
    let about = Packet::parse(bytes).expect("a packet");
    let v4 = about.source.is_ipv4();
    let mut message = if v4 { vec![3, 4, 0, 0, 0, 0] } else { vec![2, 0, 0, 0, 0, 0] };
    message.extend(mtu.to_be_bytes());
    // The least that IPv4 quotes is the header and eight bytes.
    message.extend(&bytes[..bytes.len().min(if v4 { 28 } else { 1000 })]);
    let protocol = if v4 { 1 } else { 58 };
    let sum = match v4 {
        true => Sum::ZERO,
        false => pseudo(about.destination, about.source, protocol, message.len()),
    };
    let checksum = sum.bytes(&message).complement();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet(about.destination, about.source, protocol, &message)
}

fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Sum {
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            Sum::ZERO.pseudo_header(&s.octets(), &d.octets(), protocol, len as u32)
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            Sum::ZERO.pseudo_header(&s.octets(), &d.octets(), protocol, len as u32)
        }
        _ => unreachable!("one family"),
    }
}

fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend([0x45, 0]);
            bytes.extend((20 + payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            let checksum = Sum::ZERO.bytes(&bytes).complement();
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        _ => unreachable!("one family"),
    }
    bytes.extend(payload);
    bytes
}
