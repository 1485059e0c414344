//! Headers of the packets that go out as frames, and the judgement of those that come back.
//!
//! Deliberately not the engine's own net layer: what checks it should not share its mistakes.

use std::net::{IpAddr, SocketAddr};
use thiserror::Error;
use volley_wire::checksum::{Sum, udp_nonzero};
use volley_wire::ethernet::{EthernetHeader, Mac, ethertype};
use volley_wire::ipv4::{Ipv4Header, protocol};
use volley_wire::ipv6::Ipv6Header;
use volley_wire::udp::UdpHeader;
use zerocopy::{FromBytes, IntoBytes};

/// Hops a packet may take: the default of RFC 1700 and of Linux.
const HOP_LIMIT: u8 = 64;

/// The ends of the flows: who sends to whom, from which addresses and ports.
///
/// Flow `f` comes from address `f mod addresses` and port `first_port + f / addresses`.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Where the packets go.
    pub target: SocketAddr,
    /// The MAC they go to: the target's, or its gateway's.
    pub target_mac: Mac,
    /// Where they come from; the target's IP version, at least one.
    pub sources: Vec<IpAddr>,
    /// Our own MAC.
    pub source_mac: Mac,
    /// The first source port.
    pub first_port: u16,
    /// How many flows there are.
    pub flows: usize,
}

/// Why no packets can be made for these [`Ends`].
#[derive(Debug, Error)]
pub enum EndsError {
    /// Sources and target differ in IP version, or there are none.
    #[error(
        "{flows} flows to {target} need source addresses of the same IP version: choose others with \
         --source"
    )]
    Sources {
        /// How many flows.
        flows: usize,
        /// Where to.
        target: SocketAddr,
    },
    /// Not enough ports.
    #[error(
        "{flows} flows need ports {first_port} to {last_port}, and there are 65535: lower --source-port or \
         --flows, or give more --source addresses"
    )]
    Ports {
        /// How many flows.
        flows: usize,
        /// The first port.
        first_port: u16,
        /// What would be the last.
        last_port: usize,
    },
}

/// Bytes before the payload, by IP version.
pub const fn headers_len(ipv4: bool) -> usize {
    EthernetHeader::LEN + if ipv4 { Ipv4Header::LEN } else { Ipv6Header::LEN } + UdpHeader::LEN
}

/// What an arrived frame is.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// An answer to a flow, headers and checksums right.
    Answer(u16, &'a [u8]),
    /// From the target to one of our flows, but with a wrong length or checksum.
    Broken,
    /// Somebody else's.
    Foreign,
}

/// Builds and reads the packets of all flows. Allocates only when made.
pub struct Templates {
    ends: Ends,
    /// Per source address: the headers with port, lengths and checksums zero, and what they add up to.
    sources: Box<[Template]>,
    ipv4: bool,
}

struct Template {
    headers: [u8; headers_len(false)],
    /// Sum over the IPv4 header without its total length.
    ip_sum: Sum,
    /// Sum over pseudo-header and UDP header without ports of ours and lengths.
    udp_sum: Sum,
}

impl Templates {
    /// Templates for `ends`.
    pub fn new(ends: Ends) -> Result<Templates, EndsError> {
        let (target, flows, first_port) = (ends.target, ends.flows, ends.first_port);
        let ipv4 = target.is_ipv4();
        if ends.sources.is_empty() || ends.sources.iter().any(|source| source.is_ipv4() != ipv4) {
            return Err(EndsError::Sources { flows, target });
        }
        let last_port = first_port as usize + (flows.max(1) - 1) / ends.sources.len();
        if last_port > u16::MAX as usize {
            return Err(EndsError::Ports { flows, first_port, last_port });
        }
        let sources = ends.sources.iter().map(|source| Template::new(&ends, *source)).collect();
        Ok(Templates { ends, sources, ipv4 })
    }

    /// Bytes before the payload.
    #[inline(always)]
    pub fn headers_len(&self) -> usize {
        headers_len(self.ipv4)
    }

    /// The first and last source port.
    pub fn ports(&self) -> std::ops::RangeInclusive<u16> {
        let first = self.ends.first_port;
        first..=first + ((self.ends.flows.max(1) - 1) / self.sources.len()) as u16
    }

    /// Completes a packet of `flow` whose payload stands already behind [`Templates::headers_len`] bytes of
    /// room.
    #[inline]
    pub fn seal(&self, flow: u16, packet: &mut [u8]) {
        let template = &self.sources[flow as usize % self.sources.len()];
        let port = self.ends.first_port + (flow as usize / self.sources.len()) as u16;
        let len = self.headers_len();
        let (headers, payload) = packet.split_at_mut(len);
        headers.copy_from_slice(&template.headers[..len]);
        let udp_len = (UdpHeader::LEN + payload.len()) as u16;
        let ip = &mut headers[EthernetHeader::LEN..];
        if self.ipv4 {
            let total = Ipv4Header::LEN as u16 + udp_len;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[10..12].copy_from_slice(&template.ip_sum.word(total).complement().to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
        }
        // The length counts twice: in the pseudo-header and in the header itself.
        let sum = template.udp_sum.word(port).word(udp_len).word(udp_len).bytes(payload);
        let udp = &mut headers[len - UdpHeader::LEN..];
        udp[0..2].copy_from_slice(&port.to_be_bytes());
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        udp[6..8].copy_from_slice(&udp_nonzero(sum.complement()).to_be_bytes());
    }

    /// Judges an arrived frame.
    #[inline]
    pub fn open<'a>(&self, packet: &'a [u8]) -> Arrival<'a> {
        self.parse(packet).unwrap_or(Arrival::Foreign)
    }

    #[inline(always)]
    fn parse<'a>(&self, packet: &'a [u8]) -> Option<Arrival<'a>> {
        let (ethernet, rest) = EthernetHeader::ref_from_prefix(packet).ok()?;
        let (source, destination, ip_payload, ip_holds) = if self.ipv4 {
            let (ip, _) = Ipv4Header::ref_from_prefix(rest).ok()?;
            let total = (ip.total_length.get() as usize).clamp(Ipv4Header::LEN, rest.len());
            if ethernet.ethertype.get() != ethertype::IPV4 || ip.version_ihl != 0x45 || ip.is_fragment() {
                return None;
            }
            if ip.protocol != protocol::UDP {
                return None;
            }
            let holds = total == ip.total_length.get() as usize
                && Sum::ZERO.bytes(&rest[..Ipv4Header::LEN]).fold() == 0xffff;
            (IpAddr::from(ip.source), IpAddr::from(ip.destination), &rest[Ipv4Header::LEN..total], holds)
        } else {
            let (ip, behind) = Ipv6Header::ref_from_prefix(rest).ok()?;
            if ethernet.ethertype.get() != ethertype::IPV6 || ip.next_header != protocol::UDP {
                return None;
            }
            let len = (ip.payload_length.get() as usize).min(behind.len());
            let holds = len == ip.payload_length.get() as usize;
            (IpAddr::from(ip.source), IpAddr::from(ip.destination), &behind[..len], holds)
        };
        let (udp, payload) = UdpHeader::ref_from_prefix(ip_payload).ok()?;
        let address = self.ends.sources.iter().position(|ours| *ours == destination)?;
        let above = udp.destination.get().checked_sub(self.ends.first_port)? as usize;
        let flow = above * self.sources.len() + address;
        if source != self.ends.target.ip()
            || udp.source.get() != self.ends.target.port()
            || flow >= self.ends.flows
        {
            return None;
        }
        let pseudo = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Sum::ZERO.bytes(&source.octets()).bytes(&destination.octets())
            }
            (source, destination) => Sum::ZERO.bytes(&octets(&source)).bytes(&octets(&destination)),
        };
        let sum = pseudo.word(u16::from(protocol::UDP)).word(ip_payload.len() as u16).bytes(ip_payload);
        let unsummed = self.ipv4 && udp.checksum.get() == 0;
        let holds = ip_holds
            && udp.length.get() as usize == ip_payload.len()
            && ethernet.destination == self.ends.source_mac
            && (unsummed || sum.fold() == 0xffff);
        Some(if holds { Arrival::Answer(flow as u16, payload) } else { Arrival::Broken })
    }
}

/// An IPv6 address's bytes; an IPv4 one's as a mapped address, which does not happen here.
fn octets(address: &IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

impl Template {
    fn new(ends: &Ends, source: IpAddr) -> Template {
        let mut headers = [0; headers_len(false)];
        let kind = if source.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        let ethernet = EthernetHeader {
            destination: ends.target_mac,
            source: ends.source_mac,
            ethertype: kind.into(),
        };
        headers[..EthernetHeader::LEN].copy_from_slice(ethernet.as_bytes());
        let ip_at = EthernetHeader::LEN;
        let (addresses, udp_at, ip_sum) = match (source, ends.target.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ip = Ipv4Header {
                    version_ihl: 0x45,
                    dscp_ecn: 0,
                    total_length: 0.into(),
                    identification: 0.into(),
                    flags_fragment: Ipv4Header::DONT_FRAGMENT.into(),
                    ttl: HOP_LIMIT,
                    protocol: protocol::UDP,
                    checksum: 0.into(),
                    source: source.octets(),
                    destination: destination.octets(),
                };
                let udp_at = ip_at + Ipv4Header::LEN;
                headers[ip_at..udp_at].copy_from_slice(ip.as_bytes());
                let addresses = Sum::ZERO.bytes(&ip.source).bytes(&ip.destination);
                (addresses, udp_at, Sum::ZERO.bytes(ip.as_bytes()))
            }
            (source, destination) => {
                let ip = Ipv6Header {
                    version_class_flow: (6 << 28).into(),
                    payload_length: 0.into(),
                    next_header: protocol::UDP,
                    hop_limit: HOP_LIMIT,
                    source: octets(&source),
                    destination: octets(&destination),
                };
                let udp_at = ip_at + Ipv6Header::LEN;
                headers[ip_at..udp_at].copy_from_slice(ip.as_bytes());
                (Sum::ZERO.bytes(&ip.source).bytes(&ip.destination), udp_at, Sum::ZERO)
            }
        };
        let target_port = ends.target.port();
        headers[udp_at + 2..udp_at + 4].copy_from_slice(&target_port.to_be_bytes());
        let udp_sum = addresses.word(u16::from(protocol::UDP)).word(target_port);
        Template { headers, ip_sum, udp_sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::packet::Packet;
    use proptest::prelude::*;

    fn ends(target: &str, sources: &[&str]) -> Ends {
        Ends {
            target: target.parse().unwrap(),
            target_mac: [2, 0, 0, 0, 0, 1],
            sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
            source_mac: [2, 0, 0, 0, 0, 2],
            first_port: 20_000,
            flows: 100,
        }
    }

    fn both() -> [Ends; 2] {
        [ends("10.0.0.1:7777", &["10.0.0.2", "10.0.0.3"]), ends("[fd00::1]:7777", &["fd00::2", "fd00::3"])]
    }

    fn sealed(templates: &Templates, flow: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xee; templates.headers_len()];
        packet.extend_from_slice(payload);
        templates.seal(flow, &mut packet);
        packet
    }

    /// What an honest echo does to a packet: ends swapped. Sums over swapped ends stay what they were.
    fn echoed(packet: &[u8], ipv4: bool) -> Vec<u8> {
        let mut answer = packet.to_vec();
        let mut swap = |a: usize, b: usize, len: usize| (0..len).for_each(|n| answer.swap(a + n, b + n));
        swap(0, 6, 6);
        if ipv4 {
            swap(26, 30, 4);
            swap(34, 36, 2);
        } else {
            swap(22, 38, 16);
            swap(54, 56, 2);
        }
        answer
    }

    #[test]
    fn flows_take_addresses_then_ports() {
        let templates = Templates::new(both()[0].clone()).unwrap();
        assert_eq!(templates.ports(), 20_000..=20_049);
        let packet = sealed(&templates, 5, &[0; 18]);
        assert_eq!(&packet[26..30], [10, 0, 0, 3]);
        assert_eq!(u16::from_be_bytes([packet[34], packet[35]]), 20_002);
    }

    #[test]
    fn the_least_ipv4_frame_is_60_bytes_without_its_check_sequence() {
        let templates = Templates::new(both()[0].clone()).unwrap();
        assert_eq!(sealed(&templates, 0, &[0; super::super::payload::HEADER_LEN]).len(), 60);
    }

    #[test]
    fn impossible_ends_are_refused_with_the_remedy() {
        let mixed = ends("10.0.0.1:7777", &["fd00::2"]);
        assert!(Templates::new(mixed).err().unwrap().to_string().contains("--source"));
        let many = Ends { flows: 50_000, ..ends("10.0.0.1:7777", &["10.0.0.2"]) };
        assert!(Templates::new(many).err().unwrap().to_string().contains("--source-port"));
    }

    #[test]
    fn somebody_elses_packet_is_foreign_and_a_broken_one_is_broken() {
        for ends in both() {
            let ipv4 = ends.target.is_ipv4();
            let templates = Templates::new(ends).unwrap();
            let packet = sealed(&templates, 3, b"eighteen bytes now");
            let answer = echoed(&packet, ipv4);
            assert_eq!(templates.open(&packet), Arrival::Foreign, "our own");
            assert_eq!(templates.open(&answer), Arrival::Answer(3, b"eighteen bytes now"));
            let udp = templates.headers_len() - 8;
            for (at, name) in
                [(5, "MAC"), (udp + 5, "length"), (udp + 6, "checksum"), (udp + 20, "payload")]
            {
                let mut broken = answer.clone();
                broken[at] ^= 1;
                assert_eq!(templates.open(&broken), Arrival::Broken, "{name}");
            }
            for cut in 0..answer.len() {
                let seen = templates.open(&answer[..cut]);
                assert!(matches!(seen, Arrival::Foreign | Arrival::Broken), "{cut}: {seen:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn packets_are_what_another_builder_builds(
            flow in 0u16..100, payload in prop::collection::vec(any::<u8>(), 0..1400)
        ) {
            for ends in both() {
                let ipv4 = ends.target.is_ipv4();
                let source = SocketAddr::new(ends.sources[flow as usize % 2], 20_000 + flow / 2);
                let mut other = Packet::new(source, ends.target, &payload);
                other.macs = (ends.source_mac, ends.target_mac);
                let templates = Templates::new(ends).unwrap();
                let packet = sealed(&templates, flow, &payload);
                let answer = echoed(&packet, ipv4);
                prop_assert_eq!(templates.open(&answer), Arrival::Answer(flow, &payload[..]));
                // The other one pads to the least frame.
                prop_assert_eq!(&packet[..], &other.build()[..packet.len()]);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            for ends in both() {
                prop_assert!(!matches!(Templates::new(ends).unwrap().open(&bytes), Arrival::Answer(..)));
            }
        }
    }
}
