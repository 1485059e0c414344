//! ARP (RFC 826, with the probes and announcements of RFC 5227).

use super::cache::Answer;
use super::{Arrived, Outcome, Standalone};
use crate::frame::Frame;
use crate::net::neighbours::Address;
use crate::net::parse;
use volley_wire::DropReason;
use volley_wire::arp::{self, ArpPacket};
use volley_wire::ethernet::{EthernetHeader, is_multicast};
use zerocopy::FromBytes;

impl Standalone {
    pub(super) fn arp(&mut self, frame: &mut Frame, arrived: Arrived<'_>) -> Outcome {
        let Arrived { link, now_ns, .. } = arrived;
        let ours = |standalone: &Standalone, four: [u8; 4]| standalone.owns(&mapped(four), link);
        let bytes = &frame.bytes()[link.end..];
        let Ok((packet, _)) = ArpPacket::read_from_prefix(bytes) else {
            return Outcome::Drop(DropReason::Runt);
        };
        if !packet.is_ethernet_ipv4() {
            return Outcome::NotOurs;
        }
        let sender = u32::from_be_bytes(packet.sender);
        let probe = sender == 0;
        if is_multicast(&packet.sender_mac)
            || packet.sender_mac == [0; 6]
            || !probe && (parse::is_nobody(sender) || parse::is_loopback(sender))
        {
            return Outcome::Drop(DropReason::BadControl);
        }
        if packet.sender_mac == self.mac {
            return Outcome::Drop(DropReason::BadSource);
        }
        if ours(self, packet.sender) {
            // Somebody else has our address: we keep it, and say so (RFC 5227, 2.4 (b)).
            self.stats.conflicts += 1;
            self.defend(&mapped(packet.sender), link, now_ns);
            return Outcome::Learned;
        }
        let for_us = ours(self, packet.target);
        match packet.operation.get() {
            arp::REQUEST => {
                if !probe {
                    self.heard(mapped(packet.sender), link, packet.sender_mac, Answer::Claim, now_ns);
                }
                if !for_us {
                    return Outcome::NotOurs;
                }
                if !self.answers.allow(now_ns) {
                    return Outcome::Drop(DropReason::RateLimited);
                }
                let end = link.end + ArpPacket::LEN;
                let answer = ArpPacket::new(
                    arp::REPLY,
                    (self.mac, packet.target),
                    (packet.sender_mac, packet.sender),
                );
                // What padded the request pads the answer, and says nothing of its own.
                let bytes = frame.bytes_mut();
                bytes[end..].fill(0);
                bytes[link.end..end].copy_from_slice(zerocopy::IntoBytes::as_bytes(&answer));
                let Ok((ethernet, _)) = EthernetHeader::mut_from_prefix(bytes) else {
                    return Outcome::Drop(DropReason::Runt);
                };
                (ethernet.destination, ethernet.source) = (packet.sender_mac, self.mac);
                frame.set_flags(0);
                self.stats.arp_answered += 1;
                Outcome::Answered
            }
            arp::REPLY => {
                let asked = for_us && packet.target_mac == self.mac && link.destination == self.mac;
                let answer = if asked { Answer::Solicited } else { Answer::Claim };
                self.heard(mapped(packet.sender), link, packet.sender_mac, answer, now_ns);
                Outcome::Learned
            }
            _ => Outcome::NotOurs,
        }
    }
}

/// An IPv4 address in its mapped form.
pub(super) fn mapped(four: [u8; 4]) -> Address {
    parse::map(u32::from_be_bytes(four))
}
