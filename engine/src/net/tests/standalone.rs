//! A port without a kernel behind it, under a virtual clock: what it answers, asks, learns, refuses and hands on.

use super::super::standalone::{Gateway, Limits, LocalAddress, StandaloneConfig, StandaloneError};
mod kernel;
mod neighbours;
mod pmtu;

use super::*;
use proptest::prelude::*;

use volley_wire::arp::{ArpPacket, REPLY, REQUEST};
use volley_wire::ethernet::BROADCAST;
use volley_wire::icmp::{
    ALL_NODES, IcmpHeader, LinkAddressOption, NeighbourMessage, group_mac, solicited_node, v4, v6,
};
use volley_wire::ipv6::Ipv6Header;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

const SECOND: u64 = 1_000_000_000;
const THEIRS: Mac = [2, 0, 0, 0, 0, 1];
const ROUTER: Mac = [2, 0, 0, 0, 0, 0xfe];
const EVIL: Mac = [2, 6, 6, 6, 6, 6];
const NOBODY: Mac = [0; 6];
const OUR4: [u8; 4] = [10, 1, 0, 1];
const THEIR4: [u8; 4] = [10, 1, 0, 2];
const ROUTER4: [u8; 4] = [10, 1, 0, 254];

/// A segment for the port 80, with a payload: no stack looks at it here.
fn tcp(ends: (&str, &str), payload: &[u8]) -> Vec<u8> {
    let mut there = packet(ends, &[]);
    let mut segment = Vec::new();
    segment.extend(there.source.port().to_be_bytes());
    segment.extend(there.destination.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    // UDP's eight bytes make room for the first eight of TCP.
    there.payload = segment[8..].to_vec();
    let mut bytes = unpadded(&there);
    let (ip, udp, at) = if there.source.is_ipv4() { (14, 34, 23) } else { (14, 54, 20) };
    bytes[udp..udp + 8].copy_from_slice(&segment[..8]);
    bytes[at] = protocol::TCP;
    match ip {
        14 if there.source.is_ipv4() => mended(bytes),
        _ => bytes,
    }
}

fn six(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn local(address: &str, prefix_len: u8, vlan: Option<u16>) -> LocalAddress {
    LocalAddress { address: address.parse().unwrap(), prefix_len, vlan }
}

fn alone() -> StandaloneConfig {
    StandaloneConfig {
        addresses: vec![
            local("10.1.0.1", 24, None),
            local("fd00::1", 64, None),
            local("10.7.0.1", 24, Some(7)),
            local("fd07::1", 64, Some(7)),
        ],
        gateways: vec![Gateway("10.1.0.254".parse().unwrap()), Gateway("fd00::fe".parse().unwrap())],
        seed: 5,
        ..StandaloneConfig::default()
    }
}

fn started(standalone: StandaloneConfig, memory: &MemoryConfig) -> Wired {
    standalone.check().unwrap();
    let (port, wire) = MemoryPort::new(memory);
    let config = NetConfig { standalone: Some(standalone), ..NetConfig::default() };
    let now = Now { ns: SECOND, ..Now::default() };
    Wired { net: Net::new(Box::new(port), config), wire, flags: 0, now }
}

impl Wired {
    /// A turn at `ns`, with what has arrived; everything sent.
    fn turn(&mut self, ns: u64) -> Vec<Vec<u8>> {
        self.now.ns = ns;
        self.run(echo);
        self.net.recv(&mut Batch::default(), self.now);
        self.net.flush();
        self.wire.collect_all().into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// What one packet is answered with, announcements and questions of our own aside.
    fn ask(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let ns = self.now.ns;
        self.wire.inject(0, bytes).unwrap();
        self.turn(ns)
    }

    /// Quiet: announced, the gateways known.
    fn settled(mut self) -> Wired {
        self.turn(SECOND);
        self.ask(&arp(REPLY, (ROUTER, ROUTER4), (OURS, OUR4), &[]));
        self.ask(&advertisement((ROUTER, "fd00::fe"), "fd00::1", OURS, 0x6000_0000));
        self.turn(20 * SECOND);
        assert_eq!(self.turn(20 * SECOND), [[0u8; 0]; 0]);
        self
    }

    fn alone(&self) -> super::super::standalone::StandaloneStats {
        self.net.standalone_stats().unwrap()
    }

    fn reason(&mut self, bytes: &[u8]) -> Option<DropReason> {
        let before = self.net.stats().dropped;
        assert_eq!(self.ask(bytes), [[0u8; 0]; 0]);
        let after = self.net.stats().dropped;
        DropReason::ALL.iter().copied().find(|reason| after[*reason as usize] != before[*reason as usize])
    }
}

fn ethernet(destination: Mac, source: Mac, tags: &[u16], ethertype: u16) -> Vec<u8> {
    let mut bytes = [destination, source].concat();
    for vlan in tags {
        bytes.extend([0x81, 0]);
        bytes.extend(vlan.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes
}

fn arp(operation: u16, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4]), tags: &[u16]) -> Vec<u8> {
    let destination = if operation == REQUEST { BROADCAST } else { target.0 };
    let mut bytes = ethernet(destination, sender.0, tags, 0x0806);
    bytes.extend(ArpPacket::new(operation, sender, target).as_bytes());
    bytes.resize(60, 0);
    bytes
}

/// An ICMPv6 message in its packet, with a right checksum.
fn icmp6(macs: (Mac, Mac), ends: ([u8; 16], [u8; 16]), hops: u8, tags: &[u16], message: &[u8]) -> Vec<u8> {
    let mut bytes = ethernet(macs.1, macs.0, tags, 0x86dd);
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend((message.len() as u16).to_be_bytes());
    bytes.extend([protocol::ICMPV6, hops]);
    bytes.extend(ends.0);
    bytes.extend(ends.1);
    let start = bytes.len();
    bytes.extend(message);
    bytes[start + 2..start + 4].fill(0);
    let pseudo = Sum::ZERO.pseudo_header(&ends.0, &ends.1, protocol::ICMPV6, message.len() as u32);
    let checksum = pseudo.bytes(&bytes[start..]).complement();
    bytes[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn icmp4(ends: ([u8; 4], [u8; 4]), tags: &[u16], message: &[u8]) -> Vec<u8> {
    let mut bytes = ethernet(OURS, THEIRS, tags, 0x0800);
    let ip = bytes.len();
    bytes.extend([0x45, 0]);
    bytes.extend((20 + message.len() as u16).to_be_bytes());
    bytes.extend([0x12, 0x34, 0, 0, 63, protocol::ICMP, 0, 0]);
    bytes.extend(ends.0);
    bytes.extend(ends.1);
    let checksum = Sum::ZERO.bytes(&bytes[ip..]).complement();
    bytes[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
    let start = bytes.len();
    bytes.extend(message);
    bytes[start + 2..start + 4].fill(0);
    let checksum = Sum::ZERO.bytes(&bytes[start..]).complement();
    bytes[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn neighbour(kind: u8, flags: u32, target: [u8; 16], option: Option<(u8, Mac)>) -> Vec<u8> {
    let header = IcmpHeader { kind, code: 0, checksum: U16::new(0), rest: U32::new(flags) };
    let mut bytes = NeighbourMessage { header, target }.as_bytes().to_vec();
    if let Some((kind, mac)) = option {
        bytes.extend(LinkAddressOption { kind, length: 1, mac }.as_bytes());
    }
    bytes
}

fn solicitation(source: &str, target: &str, tags: &[u16], option: Option<Mac>) -> Vec<u8> {
    let group = solicited_node(&six(target));
    let message = neighbour(v6::NEIGHBOUR_SOLICITATION, 0, six(target), option.map(|mac| (1, mac)));
    icmp6((THEIRS, group_mac(&group)), (six(source), group), 255, tags, &message)
}

fn advertisement(from: (Mac, &str), to: &str, to_mac: Mac, flags: u32) -> Vec<u8> {
    let message = neighbour(v6::NEIGHBOUR_ADVERTISEMENT, flags, six(from.1), Some((2, from.0)));
    icmp6((from.0, to_mac), (six(from.1), six(to)), 255, &[], &message)
}

fn echo_message(kind: u8, len: usize) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 7, 0, 9][..], &count(len)].concat()
}

/// An error of a router about our packet to `peer`.
fn too_big(original: &[u8], ipv4: bool, mtu: u32) -> Vec<u8> {
    let mut message = match ipv4 {
        true => vec![v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, 0, 0],
        false => vec![v6::PACKET_TOO_BIG, 0, 0, 0],
    };
    message.extend(mtu.to_be_bytes());
    message.extend(&original[14..]);
    message.truncate(1000);
    match ipv4 {
        true => icmp4(([198, 51, 100, 1], OUR4), &[], &message),
        false => icmp6((ROUTER, OURS), (six("2001:db8::1"), six("fd00::1")), 60, &[], &message),
    }
}

fn path(local: &str, peer: &str) -> Path {
    Path::to(0, local.parse().unwrap(), peer.parse().unwrap()).unwrap()
}

#[test]
fn it_announces_its_addresses_asks_for_its_gateways_and_falls_silent() {
    let mut wired = started(alone(), &config());
    assert_eq!(wired.net.next_deadline(), Some(0));
    let first = wired.turn(SECOND);
    let announcement = arp(REQUEST, (OURS, OUR4), (NOBODY, OUR4), &[]);
    let tagged = arp(REQUEST, (OURS, [10, 7, 0, 1]), (NOBODY, [10, 7, 0, 1]), &[7]);
    let advertised = |address: &str, tags: &[u16]| {
        let message = neighbour(v6::NEIGHBOUR_ADVERTISEMENT, 0x2000_0000, six(address), Some((2, OURS)));
        icmp6((OURS, group_mac(&ALL_NODES)), (six(address), ALL_NODES), 255, tags, &message)
    };
    let asked = arp(REQUEST, (OURS, OUR4), (NOBODY, ROUTER4), &[]);
    let group = solicited_node(&six("fd00::fe"));
    let message = neighbour(v6::NEIGHBOUR_SOLICITATION, 0, six("fd00::fe"), Some((1, OURS)));
    let solicited = icmp6((OURS, group_mac(&group)), (six("fd00::1"), group), 255, &[], &message);
    let announcements = [announcement, advertised("fd00::1", &[]), tagged, advertised("fd07::1", &[7])];
    assert_eq!(first, [&announcements[..], &[asked, solicited]].concat());
    assert_eq!(wired.turn(SECOND), [[0u8; 0]; 0]);
    assert_eq!(wired.net.next_deadline(), Some(2 * SECOND), "the gateways are asked again");
    assert_eq!(wired.turn(3 * SECOND)[..4], announcements);
    let wired = wired.settled();
    let stats = wired.alone();
    assert_eq!((stats.announced, stats.confirmed, stats.failed), (8, 2, 0));
    assert_eq!(wired.net.next_deadline(), None);
}

#[test]
fn requests_for_its_addresses_are_answered_in_their_vlan_and_others_are_not() {
    let mut wired = started(alone(), &config()).settled();
    for (ours, tags) in [(OUR4, &[][..]), ([10, 7, 0, 1], &[7])] {
        let theirs = [10, ours[1], 0, 2];
        let answer = arp(REPLY, (OURS, ours), (THEIRS, theirs), tags);
        let asked = arp(REQUEST, (THEIRS, theirs), (NOBODY, ours), tags);
        assert_eq!(wired.ask(&asked), [answer]);
        // A probe, before the address is used (RFC 5227).
        let answer = arp(REPLY, (OURS, ours), (THEIRS, [0; 4]), tags);
        assert_eq!(wired.ask(&arp(REQUEST, (THEIRS, [0; 4]), (NOBODY, ours), tags)), [answer]);
    }
    let before = wired.net.stats();
    use DropReason::*;
    let cases = [
        (arp(REQUEST, (THEIRS, THEIR4), (NOBODY, ROUTER4), &[]), NotUnicast),
        (arp(REQUEST, (THEIRS, THEIR4), (NOBODY, OUR4), &[7]), NotUnicast),
        (arp(REQUEST, (THEIRS, [10, 7, 0, 2]), (NOBODY, [10, 7, 0, 1]), &[]), NotUnicast),
        (arp(REQUEST, (THEIRS, [10, 7, 0, 2]), (NOBODY, [10, 7, 0, 1]), &[7, 7]), NotUnicast),
        (arp(REQUEST, (THEIRS, [127, 0, 0, 1]), (NOBODY, OUR4), &[]), BadControl),
        (arp(REQUEST, (THEIRS, [255; 4]), (NOBODY, OUR4), &[]), BadControl),
        (arp(REQUEST, (OURS, THEIR4), (NOBODY, OUR4), &[]), BadSource),
        (arp(REQUEST, (THEIRS, THEIR4), (NOBODY, OUR4), &[])[..41].to_vec(), Runt),
        (arp(9, (THEIRS, THEIR4), (OURS, OUR4), &[]), EtherType),
        (arp(REPLY, (THEIRS, THEIR4), (EVIL, OUR4), &[]), NotForUs),
    ];
    for (n, (bytes, reason)) in cases.iter().enumerate() {
        assert_eq!(wired.reason(bytes), Some(*reason), "case {n}");
    }
    let after = wired.net.stats();
    assert_eq!(after.answered, before.answered);
    assert_eq!(wired.alone().arp_answered, 4);
}

#[test]
fn solicitations_are_answered_and_what_rfc_4861_refuses_is_refused() {
    let mut wired = started(alone(), &config()).settled();
    let answer = |from: &str, to: [u8; 16], mac: Mac, flags: u32, tags: &[u16]| {
        let message = neighbour(v6::NEIGHBOUR_ADVERTISEMENT, flags, six(from), Some((2, OURS)));
        icmp6((OURS, mac), (six(from), to), 255, tags, &message)
    };
    let asked = wired.ask(&solicitation("fd00::2", "fd00::1", &[], Some(THEIRS)));
    assert_eq!(asked, [answer("fd00::1", six("fd00::2"), THEIRS, 0x6000_0000, &[])]);
    let asked = wired.ask(&solicitation("fd07::2", "fd07::1", &[7], Some(THEIRS)));
    assert_eq!(asked, [answer("fd07::1", six("fd07::2"), THEIRS, 0x6000_0000, &[7])]);
    // Without its MAC, unicast: is it still there?
    let message = neighbour(v6::NEIGHBOUR_SOLICITATION, 0, six("fd00::1"), None);
    let probe = icmp6((THEIRS, OURS), (six("fd00::2"), six("fd00::1")), 255, &[], &message);
    assert_eq!(wired.ask(&probe), [answer("fd00::1", six("fd00::2"), THEIRS, 0x6000_0000, &[])]);
    // Duplicate address detection: everyone is told.
    let asked = wired.ask(&solicitation("::", "fd00::1", &[], None));
    assert_eq!(asked, [answer("fd00::1", ALL_NODES, group_mac(&ALL_NODES), 0x2000_0000, &[])]);

    let group = solicited_node(&six("fd00::1"));
    let to_group = |hops, message: &[u8]| {
        icmp6((THEIRS, group_mac(&group)), (six("fd00::2"), group), hops, &[], message)
    };
    let good = neighbour(v6::NEIGHBOUR_SOLICITATION, 0, six("fd00::1"), Some((1, THEIRS)));
    let code = [&good[..1], &[1], &good[2..]].concat();
    let zero_option = [&good[..24], &[1, 0], &good[26..]].concat();
    let mut checksum = to_group(255, &good);
    checksum[60] ^= 1;
    use DropReason::*;
    let cases = [
        (to_group(254, &good), BadControl),
        (to_group(255, &code), BadControl),
        (to_group(255, &zero_option), BadControl),
        (to_group(255, &good[..20]), BadControl),
        (checksum, BadControl),
        (solicitation("::", "fd00::1", &[], Some(THEIRS)), BadControl),
        (solicitation("fd00::2", "fd00::1", &[], Some(BROADCAST)), BadControl),
        (solicitation("fd00::2", "fd00::3", &[], Some(THEIRS)), NotUnicast),
        (solicitation("fd07::2", "fd07::1", &[], Some(THEIRS)), NotUnicast),
    ];
    for (n, (bytes, reason)) in cases.iter().enumerate() {
        assert_eq!(wired.reason(bytes), Some(*reason), "case {n}");
    }
    assert_eq!(wired.alone().ndp_answered, 4);
}

#[test]
fn echoes_come_back_whole_and_only_so_many() {
    let mut wired = started(alone(), &config()).settled();
    for len in [0, 1, 56, 1400] {
        let back = wired.ask(&icmp4((THEIR4, OUR4), &[], &echo_message(v4::ECHO, len)));
        let mut expected = icmp4((OUR4, THEIR4), &[], &echo_message(v4::ECHO_REPLY, len));
        expected[..12].copy_from_slice(&[THEIRS, OURS].concat());
        expected[18..23].copy_from_slice(&[0, 0, 0x40, 0, 64]);
        assert_eq!(back, [mended(expected)]);
        let ends = (six("fd00::2"), six("fd00::1"));
        let back = wired.ask(&icmp6((THEIRS, OURS), ends, 64, &[], &echo_message(v6::ECHO, len)));
        let expected = icmp6((OURS, THEIRS), (ends.1, ends.0), 64, &[], &echo_message(v6::ECHO_REPLY, len));
        assert_eq!(back, [expected]);
    }
    let tagged = wired.ask(&icmp4(([10, 7, 0, 2], [10, 7, 0, 1]), &[7], &echo_message(v4::ECHO, 5)));
    assert_eq!(tagged[0][12..16], [0x81, 0, 0, 7]);
    use DropReason::*;
    let mut broken = icmp4((THEIR4, OUR4), &[], &echo_message(v4::ECHO, 9));
    broken[45] ^= 1;
    assert_eq!(wired.reason(&broken), Some(BadControl));
    // To an address of nobody here, and to everyone.
    assert_eq!(
        wired.reason(&icmp4((THEIR4, [10, 1, 0, 9]), &[], &echo_message(v4::ECHO, 9))),
        Some(NotUdp)
    );
    assert_eq!(wired.reason(&icmp4((THEIR4, [255; 4]), &[], &echo_message(v4::ECHO, 9))), Some(NotUdp));

    // A flood: a burst of a hundred, then a thousand a second.
    let before = wired.alone().echo_answered;
    let flood = icmp4((THEIR4, OUR4), &[], &echo_message(v4::ECHO, 9));
    for n in 0..200u64 {
        for _ in 0..50 {
            wired.wire.inject(0, &flood).unwrap();
        }
        wired.turn(30 * SECOND + n * SECOND / 200);
    }
    let answered = wired.alone().echo_answered - before;
    assert!((1000..=1101).contains(&answered), "{answered}");
    assert_eq!(wired.net.stats().dropped[RateLimited as usize], 10_000 - answered);
}

#[test]
fn an_echo_over_several_frames_comes_back_whole() {
    let mut wired = started(alone(), &MemoryConfig { mtu: 9000, max_segments: 8, ..config() }).settled();
    let whole = icmp4((THEIR4, OUR4), &[], &echo_message(v4::ECHO, 5001));
    for cut in [1700, 1701, 43] {
        let (head, tail) = whole.split_at(cut);
        let parts: Vec<&[u8]> = std::iter::once(head).chain(tail.chunks(1701)).collect();
        wired.wire.inject_chain(0, &parts).unwrap();
        let back = wired.turn(21 * SECOND);
        let mut expected = icmp4((OUR4, THEIR4), &[], &echo_message(v4::ECHO_REPLY, 5001));
        expected[..12].copy_from_slice(&[THEIRS, OURS].concat());
        expected[18..23].copy_from_slice(&[0, 0, 0x40, 0, 64]);
        assert!(back == [mended(expected)]);
    }
}

#[test]
fn an_address_somebody_else_uses_is_defended_now_and_then() {
    let mut wired = started(alone(), &config()).settled();
    let start = wired.now.ns;
    let mut defended = 0;
    for n in 0..100 {
        wired.wire.inject(0, &arp(REQUEST, (EVIL, OUR4), (NOBODY, OUR4), &[])).unwrap();
        defended += wired.turn(start + n * SECOND / 4).len();
    }
    assert_eq!((defended, wired.alone().conflicts), (3, 100), "once in ten seconds");
}

#[test]
fn wrong_configurations_are_named() {
    let with = |change: &dyn Fn(&mut StandaloneConfig)| {
        let mut config = alone();
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    let only = |address, prefix_len, vlan| {
        move |c: &mut StandaloneConfig| c.addresses = vec![local(address, prefix_len, vlan)]
    };
    assert!(with(&|c| c.addresses.clear()).contains("no address"));
    assert!(with(&only("224.0.0.1", 24, None)).contains("224.0.0.1 is no address of one host"));
    assert!(with(&only("10.0.0.1", 33, None)).contains("10.0.0.1/33"));
    assert!(with(&only("10.0.0.1", 24, Some(4095))).contains("VLAN 4095"));
    assert!(
        with(&|c| c.gateways = vec![Gateway("192.0.2.1".parse().unwrap())])
            .contains("192.0.2.1 is on no link")
    );
    let many = |c: &mut StandaloneConfig| c.addresses = vec![local("10.0.0.1", 24, None); 257];
    assert!(matches!(with(&many), text if text.contains("257")));
    assert_eq!(alone().check(), Ok::<(), StandaloneError>(()));
}

/// Valid messages, to be changed.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let mut there = packet(("10.1.0.1:7777", "10.1.0.2:5000"), &[1; 1400]);
    there.macs = (OURS, ROUTER);
    let sent = there.build();
    prop::sample::select(vec![
        arp(REQUEST, (THEIRS, THEIR4), (NOBODY, OUR4), &[]),
        arp(REPLY, (THEIRS, THEIR4), (OURS, OUR4), &[]),
        arp(REPLY, (EVIL, ROUTER4), (OURS, OUR4), &[]),
        arp(REQUEST, (THEIRS, [10, 7, 0, 2]), (NOBODY, [10, 7, 0, 1]), &[7]),
        solicitation("fd00::2", "fd00::1", &[], Some(THEIRS)),
        solicitation("::", "fd00::1", &[], None),
        advertisement((THEIRS, "fd00::2"), "fd00::1", OURS, 0x6000_0000),
        icmp4((THEIR4, OUR4), &[], &echo_message(v4::ECHO, 56)),
        icmp6((THEIRS, OURS), (six("fd00::2"), six("fd00::1")), 64, &[], &echo_message(v6::ECHO, 56)),
        too_big(&sent, true, 1000),
        packet(V4, b"game").build(),
        tcp(("10.1.0.2:5000", "10.1.0.1:22"), b"x"),
    ])
}

proptest! {
    #[test]
    fn whatever_arrives_each_packet_ends_in_one_bucket_and_is_answered_once_at_most(
        packets in prop::collection::vec((messages(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), 0u64..3), 1..40)
    ) {
        let limits = Limits { answers: 50, echoes: 30, errors: 20 };
        let mut wired = started(StandaloneConfig { limits, neighbours: 8, pending: 4, ..alone() }, &config());
        wired.turn(SECOND);
        let mut ns = SECOND;
        let total = packets.len() as u64;
        for (mut bytes, changes, seconds) in packets {
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            ns += seconds * SECOND;
            let before = wired.alone();
            let asked_for = |stats: crate::datagram::DatagramStats| stats.answered + stats.sent;
            let before_stats = wired.net.stats();
            wired.wire.inject(0, &bytes).unwrap();
            let sent = wired.turn(ns);
            let after = wired.alone();
            let own = after.solicited - before.solicited + after.announced - before.announced;
            prop_assert_eq!(sent.len() as u64, own + asked_for(wired.net.stats()) - asked_for(before_stats));
            let _ = wired.net.send(&path("10.1.0.1:1", "10.1.0.99:2"), 1, &mut |_| {});
        }
        let stats = wired.net.stats();
        prop_assert_eq!(stats.answered + stats.consumed + stats.handled + stats.passed + stats.dropped_total(), total);
    }
}

/// Kept from being optimised into a copy of what it checks: the answer parses as what the RFC says.
#[test]
fn an_advertisement_on_the_wire_is_what_rfc_4861_says() {
    let mut wired = started(alone(), &config()).settled();
    let bytes = wired.ask(&solicitation("fd00::2", "fd00::1", &[], Some(THEIRS))).remove(0);
    let (header, rest) = Ipv6Header::read_from_prefix(&bytes[14..]).unwrap();
    assert_eq!((header.hop_limit, header.next_header, header.payload_length.get()), (255, 58, 32));
    assert_eq!(rest[..2], [136, 0]);
    assert_eq!(rest[4..8], [0x60, 0, 0, 0]);
    assert_eq!(rest[8..24], six("fd00::1"));
    assert_eq!(rest[24..], [2, 1, 2, 0, 0, 0, 0, 2]);
}
