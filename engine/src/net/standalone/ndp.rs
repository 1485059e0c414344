//! Neighbour discovery (RFC 4861): solicitations answered, advertisements learned from.
//!
//! Routers are configured, not discovered: advertisements of routers and redirects are none of ours.

use super::cache::Answer;
use super::{Arrived, Outcome, Standalone};
use crate::frame::Frame;
use crate::net::ip::IpHeader;
use volley_wire::DropReason;
use volley_wire::checksum::Sum;
use volley_wire::ethernet::{EthernetHeader, Mac, is_multicast};
use volley_wire::icmp::{
    self, ALL_NODES, IcmpHeader, LinkAddressOption, NeighbourMessage, SOURCE_LINK_ADDRESS,
    TARGET_LINK_ADDRESS, group_mac, v6,
};
use volley_wire::ipv4::protocol;
use volley_wire::ipv6::Ipv6Header;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

/// Hop limit of every message of neighbour discovery: one that has been forwarded has less, and is a forgery.
pub(super) const HOPS: u8 = 255;

/// What the checks of RFC 4861, 7.1 leave of a message.
struct Message {
    message: NeighbourMessage,
    mac: Option<Mac>,
}

impl Standalone {
    /// The checksum has been verified.
    pub(super) fn solicitation(
        &mut self,
        frame: &mut Frame,
        header: &IpHeader,
        arrived: Arrived<'_>,
    ) -> Outcome {
        let Arrived { link, now_ns, .. } = arrived;
        let Some(Message { message, mac }) = read(frame, header, SOURCE_LINK_ADDRESS) else {
            return Outcome::Drop(DropReason::BadControl);
        };
        let probe = header.source == [0; 16];
        let group = icmp::solicited_node(&message.target);
        if probe && (mac.is_some() || header.destination != group) {
            return Outcome::Drop(DropReason::BadControl);
        }
        if self.owns(&header.source, link) {
            self.stats.conflicts += 1;
            self.defend(&header.source, link, now_ns);
            return Outcome::Learned;
        }
        if let (false, Some(mac)) = (probe, mac) {
            self.heard(header.source, link, mac, Answer::Claim, now_ns);
        }
        if !self.owns(&message.target, link) {
            return Outcome::NotOurs;
        }
        if header.destination != message.target && header.destination != group {
            return Outcome::Drop(DropReason::BadControl);
        }
        if header.transport != link.end + Ipv6Header::LEN {
            // Nobody puts extension headers in front of a question.
            return Outcome::Drop(DropReason::BadControl);
        }
        if !self.answers.allow(now_ns) {
            return Outcome::Drop(DropReason::RateLimited);
        }
        let (peer, peer_mac) = match probe {
            true => (ALL_NODES, group_mac(&ALL_NODES)),
            false => (header.source, mac.unwrap_or(link.source)),
        };
        let flags = if probe { 0 } else { NeighbourMessage::SOLICITED } | NeighbourMessage::OVERRIDE;
        if !write_advertisement(frame, link.end, (self.mac, message.target), (peer_mac, peer), flags) {
            return Outcome::Drop(DropReason::AnswerTooLong);
        }
        self.stats.ndp_answered += 1;
        Outcome::Answered
    }

    /// The checksum has been verified.
    pub(super) fn advertisement(
        &mut self,
        frame: &Frame,
        header: &IpHeader,
        arrived: Arrived<'_>,
    ) -> Outcome {
        let Arrived { link, now_ns, .. } = arrived;
        let Some(Message { message, mac }) = read(frame, header, TARGET_LINK_ADDRESS) else {
            return Outcome::Drop(DropReason::BadControl);
        };
        let flags = message.header.rest.get();
        let solicited = flags & NeighbourMessage::SOLICITED != 0;
        if solicited && header.is_group() || header.source == [0; 16] {
            return Outcome::Drop(DropReason::BadControl);
        }
        if self.owns(&message.target, link) {
            self.stats.conflicts += 1;
            self.defend(&message.target, link, now_ns);
            return Outcome::Learned;
        }
        // Without the option only a unicast answer says something: that the MAC it was asked at is right.
        let mac = mac.unwrap_or(link.source);
        let for_us = self.owns(&header.destination, link);
        let answer = match (solicited && for_us, flags & NeighbourMessage::OVERRIDE != 0) {
            (true, true) => Answer::Solicited,
            (true, false) => Answer::Confirmation,
            (false, true) => Answer::Claim,
            (false, false) => Answer::Hint,
        };
        self.heard(message.target, link, mac, answer, now_ns);
        Outcome::Learned
    }
}

/// Reads a message in one frame, as far as it is valid.
fn read(frame: &Frame, header: &IpHeader, option: u8) -> Option<Message> {
    let bytes = frame.bytes().get(header.transport..header.transport + header.len)?;
    let (message, options) = NeighbourMessage::read_from_prefix(bytes).ok()?;
    let mac = icmp::link_address(options, option).ok()?;
    let valid = header.hops == HOPS && message.header.code == 0 && message.target[0] != 0xff;
    let usable = mac.is_none_or(|mac| !is_multicast(&mac) && mac != [0; 6]);
    (valid && usable).then_some(Message { message, mac })
}

/// Writes an advertisement of `ours` to `peer`, behind the link header that ends at `end`. The tags of that header stay. False
/// when the frame is too short.
pub(super) fn write_advertisement(
    frame: &mut Frame,
    end: usize,
    (mac, target): (Mac, [u8; 16]),
    (peer_mac, peer): (Mac, [u8; 16]),
    flags: u32,
) -> bool {
    let message = message(v6::NEIGHBOUR_ADVERTISEMENT, flags, target, (TARGET_LINK_ADDRESS, mac));
    write(frame, end, (mac, target), (peer_mac, peer), message)
}

/// A message with its option, the checksum still missing.
pub(super) fn message(kind: u8, flags: u32, target: [u8; 16], option: (u8, Mac)) -> [u8; MESSAGE_LEN] {
    let header = IcmpHeader { kind, code: 0, checksum: U16::new(0), rest: U32::new(flags) };
    let mut bytes = [0; MESSAGE_LEN];
    bytes[..NeighbourMessage::LEN].copy_from_slice(NeighbourMessage { header, target }.as_bytes());
    let option = LinkAddressOption { kind: option.0, length: 1, mac: option.1 };
    bytes[NeighbourMessage::LEN..].copy_from_slice(option.as_bytes());
    bytes
}

/// Bytes of a message with its option.
pub(super) const MESSAGE_LEN: usize = NeighbourMessage::LEN + LinkAddressOption::LEN;

/// Writes the IPv6 packet of a message behind a link header that ends at `end`, and the MACs into that. False when the frame is
/// too short.
pub(super) fn write(
    frame: &mut Frame,
    end: usize,
    (mac, source): (Mac, [u8; 16]),
    (peer_mac, destination): (Mac, [u8; 16]),
    mut message: [u8; MESSAGE_LEN],
) -> bool {
    if !frame.set_len(end + Ipv6Header::LEN + MESSAGE_LEN) {
        return false;
    }
    frame.set_flags(0);
    let pseudo =
        Sum::ZERO.fixed(&source).fixed(&destination).transport(protocol::ICMPV6, MESSAGE_LEN as u32);
    let checksum = pseudo.bytes(&message).complement();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header = Ipv6Header {
        version_class_flow: U32::new(6 << 28),
        payload_length: U16::new(MESSAGE_LEN as u16),
        next_header: protocol::ICMPV6,
        hop_limit: HOPS,
        source,
        destination,
    };
    let bytes = frame.bytes_mut();
    bytes[end..end + Ipv6Header::LEN].copy_from_slice(header.as_bytes());
    bytes[end + Ipv6Header::LEN..].copy_from_slice(&message);
    let Ok((ethernet, _)) = EthernetHeader::mut_from_prefix(bytes) else { return false };
    (ethernet.destination, ethernet.source) = (peer_mac, mac);
    true
}
