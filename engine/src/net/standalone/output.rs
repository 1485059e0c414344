//! What a port without a kernel sends unasked: solicitations for its cache, announcements of its addresses.

use super::cache::{Ask, Key};
use super::{LinkHeader, Standalone, ndp, vlan};
use crate::frame::Frame;
use crate::net::ip;
use crate::net::neighbours::Address;
use volley_wire::arp::{self, ArpPacket};
use volley_wire::ethernet::{BROADCAST, Mac, ethertype};
use volley_wire::icmp::{ALL_NODES, NeighbourMessage, SOURCE_LINK_ADDRESS, group_mac, solicited_node, v6};
use volley_wire::ipv6::Ipv6Header;
use zerocopy::IntoBytes;

/// How often each address is announced at the start, and how far apart: RFC 5227, 2.3 (ANNOUNCE_NUM, ANNOUNCE_INTERVAL), where
/// one lost packet does no harm.
const ANNOUNCEMENTS: u8 = 2;
const INTERVAL_NS: u64 = 2_000_000_000;
/// An address that somebody else uses is defended once in this time (RFC 5227, 2.4: DEFEND_INTERVAL).
const DEFEND_NS: u64 = 10_000_000_000;

/// Who is still to hear of our addresses.
pub(super) struct Announcements {
    /// For each address: announcements left, when the next is due, and when it was last defended.
    due: Vec<(u8, u64, u64)>,
    next_due: u64,
}

impl Announcements {
    pub fn new(addresses: usize) -> Announcements {
        Announcements {
            due: vec![(ANNOUNCEMENTS, 0, 0); addresses],
            next_due: if addresses > 0 { 0 } else { u64::MAX },
        }
    }

    pub fn next_due(&self) -> u64 {
        self.next_due
    }

    fn take(&mut self, now_ns: u64) -> Option<usize> {
        if now_ns < self.next_due {
            return None;
        }
        let at = self.due.iter().position(|(left, due, _)| *left > 0 && *due <= now_ns);
        if let Some(at) = at {
            let (left, due, _) = &mut self.due[at];
            (*left, *due) = (*left - 1, now_ns + INTERVAL_NS);
        }
        self.find_next();
        at
    }

    fn find_next(&mut self) {
        let waiting = self.due.iter().filter(|(left, _, _)| *left > 0).map(|(_, due, _)| *due);
        self.next_due = waiting.min().unwrap_or(u64::MAX);
    }

    fn again(&mut self, at: usize, now_ns: u64) {
        let (left, due, defended) = &mut self.due[at];
        if *left == 0 && (*defended == 0 || now_ns.saturating_sub(*defended) >= DEFEND_NS) {
            (*left, *due, *defended) = (1, now_ns, now_ns.max(1));
            self.find_next();
        }
    }
}

impl Standalone {
    /// Says once more whose an address is that somebody else uses.
    pub(super) fn defend(&mut self, address: &Address, link: &LinkHeader, now_ns: u64) {
        let Some(tag) = vlan(link) else { return };
        if let Some(at) = self.own.iter().position(|own| own.address == *address && own.tag == tag) {
            self.announcements.again(at, now_ns);
        }
    }

    /// Writes the next packet that is due into an empty frame; false when there is none (the frame is as it was) or it does not
    /// fit one.
    pub fn next_output(&mut self, frame: &mut Frame, now_ns: u64) -> bool {
        if let Some(at) = self.announcements.take(now_ns) {
            self.stats.announced += 1;
            let own = self.own[at];
            return self.announce(frame, own.address, own.tag);
        }
        while let Some((key, ask)) = self.cache.next_ask(now_ns) {
            // An address of ours in the same VLAN speaks; there is one, since a route led to the neighbour.
            let on_link = |route: &&super::Route| {
                route.tag == key.tag && route.gateway.is_none() && route.covers(&key.address)
            };
            let Some(source) = self.routes.iter().find(on_link).and_then(|route| route.source) else {
                continue;
            };
            self.stats.solicited += 1;
            return self.solicit(frame, key, source, ask);
        }
        false
    }

    fn solicit(&self, frame: &mut Frame, key: Key, source: Address, ask: Ask) -> bool {
        let tags = tags(&key.tag);
        if let (Some(ours), Some(theirs)) = (four(&source), four(&key.address)) {
            let destination = match ask {
                Ask::Everyone => BROADCAST,
                Ask::At(mac) => mac,
            };
            return self.write_arp(frame, destination, tags, (self.mac, ours), theirs);
        }
        let (destination, peer) = match ask {
            Ask::Everyone => {
                let group = solicited_node(&key.address);
                (group_mac(&group), group)
            }
            Ask::At(mac) => (mac, key.address),
        };
        let option = (SOURCE_LINK_ADDRESS, self.mac);
        let message = ndp::message(v6::NEIGHBOUR_SOLICITATION, 0, key.address, option);
        let len = Ipv6Header::LEN + message.len();
        ip::write_link(frame, destination, self.mac, tags, ethertype::IPV6, len)
            .is_some_and(|end| ndp::write(frame, end, (self.mac, source), (destination, peer), message))
    }

    fn announce(&self, frame: &mut Frame, address: Address, tag: super::Tag) -> bool {
        let tags = tags(&tag);
        if let Some(ours) = four(&address) {
            // The request form, which every host understands (RFC 5227, 3).
            return self.write_arp(frame, BROADCAST, tags, (self.mac, ours), ours);
        }
        let everyone = (group_mac(&ALL_NODES), ALL_NODES);
        let len = Ipv6Header::LEN + ndp::MESSAGE_LEN;
        ip::write_link(frame, everyone.0, self.mac, tags, ethertype::IPV6, len).is_some_and(|end| {
            ndp::write_advertisement(frame, end, (self.mac, address), everyone, NeighbourMessage::OVERRIDE)
        })
    }

    fn write_arp(
        &self,
        frame: &mut Frame,
        destination: Mac,
        tags: &[super::Tag],
        sender: (Mac, [u8; 4]),
        target: [u8; 4],
    ) -> bool {
        // Ethernet has no shorter frames: without padding, devices that do not pad would send what was in their buffer.
        let len = 60 - 14 - 4 * tags.len();
        let end = ip::write_link(frame, destination, self.mac, tags, ethertype::ARP, len);
        let Some(end) = end else { return false };
        let packet = ArpPacket::new(arp::REQUEST, sender, ([0; 6], target));
        let (written, padding) = frame.bytes_mut()[end..].split_at_mut(ArpPacket::LEN);
        written.copy_from_slice(packet.as_bytes());
        padding.fill(0);
        true
    }
}

/// The IPv4 address in its mapped form.
fn four(address: &Address) -> Option<[u8; 4]> {
    let mapped = address[..10] == [0; 10] && address[10..12] == [0xff; 2];
    mapped.then(|| [address[12], address[13], address[14], address[15]])
}

fn tags(tag: &super::Tag) -> &[super::Tag] {
    match *tag == super::Tag::default() {
        true => &[],
        false => std::slice::from_ref(tag),
    }
}
