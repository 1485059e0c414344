//! Net over a memory port: each way a packet can go, and the frames accounted for after each.

use super::packet::Packet;
use super::*;
use crate::datagram::Datagram;
use crate::port::{MemoryConfig, MemoryPort, MemoryWire};
use volley_wire::checksum::Sum;
use volley_wire::ethernet::Mac;
use volley_wire::ipv4::protocol;

mod chains;
mod properties;
mod sends;
mod standalone;
mod streams;

const OURS: Mac = [2, 0, 0, 0, 0, 2];
const V4: (&str, &str) = ("10.1.0.2:5000", "10.1.0.1:7777");
const V6: (&str, &str) = ("[fd00::2]:5000", "[fd00::1]:7777");

fn packet(ends: (&str, &str), payload: &[u8]) -> Packet {
    Packet::new(ends.0.parse().unwrap(), ends.1.parse().unwrap(), payload)
}

/// The packet an echo of `there` is.
fn turned(there: &Packet) -> Packet {
    Packet {
        macs: (there.macs.1, there.macs.0),
        source: there.destination,
        destination: there.source,
        options: Vec::new(),
        extensions: Vec::new(),
        ttl: 64,
        checksum: true,
        padding: 0,
        ..there.clone()
    }
}

fn count(len: usize) -> Vec<u8> {
    (0..len).map(|n| n as u8).collect()
}

struct Wired {
    net: Net<MemoryPort>,
    wire: MemoryWire,
    /// Set on every frame received.
    flags: u8,
    now: Now,
}

fn config() -> MemoryConfig {
    MemoryConfig { mac: Some(OURS), ..MemoryConfig::default() }
}

fn wired(config: &MemoryConfig) -> Wired {
    let (port, wire) = MemoryPort::new(config);
    let net = Net::new(Box::new(port), NetConfig::default());
    Wired { net, wire, flags: 0, now: Now::default() }
}

impl Wired {
    /// Everything that has arrived through `app`; then no frame is out.
    fn run(&mut self, mut app: impl FnMut(&mut Datagram<'_>)) {
        let mut batch = Batch::default();
        let mut verdicts = Verdicts::new();
        while self.net.recv(&mut batch, self.now) > 0 {
            for frame in &mut batch.frames {
                frame.set_flags(frame.flags() | self.flags);
            }
            loop {
                let mut views = Datagrams::new();
                verdicts.clear();
                if self.net.open(&mut batch, &mut views) == 0 {
                    drop(views);
                    self.net.settle(&mut batch, &verdicts);
                    break;
                }
                for mut view in views {
                    app(&mut view);
                    verdicts.push(view.verdict());
                }
                self.net.settle(&mut batch, &verdicts);
            }
            assert!(batch.frames.is_empty());
            self.net.flush();
        }
        self.balanced();
    }

    fn balanced(&self) {
        let ledger = self.net.ledger();
        assert!(ledger.balances() && ledger.app == 0, "{ledger}");
    }

    fn echo(&mut self, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        let before = self.net.stats();
        self.wire.inject(0, packet).unwrap();
        self.run(echo);
        let after = self.net.stats();
        let dropped = DropReason::ALL
            .iter()
            .find(|reason| after.dropped[**reason as usize] != before.dropped[**reason as usize]);
        let answered = self.wire.collect_all();
        assert_eq!(after.answered - before.answered, answered.len() as u64);
        assert_eq!(answered.len() as u64 + after.dropped_total() - before.dropped_total(), 1);
        match dropped {
            Some(reason) => Err(*reason),
            None => Ok(answered.into_iter().next().unwrap().1),
        }
    }
}

fn echo(view: &mut Datagram<'_>) {
    view.reply(view.payload().len());
}

/// What an echo makes of one packet.
fn answer(packet: &[u8]) -> Result<Vec<u8>, DropReason> {
    wired(&config()).echo(packet)
}

/// The bytes of `packet` without what pads it.
fn unpadded(packet: &Packet) -> Vec<u8> {
    let ip = if packet.source.is_ipv4() { 20 } else { 40 };
    let mut bytes = packet.build();
    bytes.truncate(14 + 4 * packet.tags.len() + ip + 8 + packet.payload.len());
    bytes
}

/// Mends the IPv4 header checksum of an untagged packet after a change.
fn mended(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = 14 + (bytes[14] & 15) as usize * 4;
    bytes[24..26].fill(0);
    let checksum = Sum::ZERO.bytes(&bytes[14..end]).complement();
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

#[test]
fn an_echo_is_the_packet_turned_around_and_its_echo_the_packet_itself() {
    for ends in [V4, V6] {
        for len in [0, 1, 17, 18, 22, 1400] {
            for tags in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 0x2005), (0x8100, 7)]] {
                let mut there = packet(ends, &count(len));
                there.tags = tags.into_iter().map(|(tpid, tci)| Tag { tpid, tci }).collect();
                there.padding = 9;
                let back = answer(&there.build()).unwrap();
                assert_eq!(back, unpadded(&turned(&there)));
                let again = wired(&MemoryConfig { mac: Some(there.macs.0), ..config() }).echo(&back);
                assert_eq!(again.unwrap(), unpadded(&there));
            }
        }
    }
}

#[test]
fn options_and_extension_headers_are_not_answered_with() {
    let mut there = packet(V4, &count(31));
    // Router alert, no-operation, end; then a timestamp option.
    for options in [vec![148, 4, 0, 0, 1, 0, 0, 0], vec![68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        there.options = options;
        assert_eq!(answer(&there.build()).unwrap(), unpadded(&turned(&there)));
    }
    let mut there = packet(V6, &count(31));
    there.extensions = vec![
        (protocol::HOP_BY_HOP, vec![0, 0, 1, 4, 0, 0, 0, 0]),
        // A routing header with no hop left to visit.
        (protocol::ROUTING, vec![0, 0, 0, 0, 0, 0, 0, 0]),
        (protocol::DESTINATION, [&[0, 1], &[0u8; 14][..]].concat()),
    ];
    there.tags = vec![Tag { tpid: 0x8100, tci: 77 }];
    assert_eq!(answer(&there.build()).unwrap(), unpadded(&turned(&there)));
}

#[test]
fn an_ipv4_datagram_without_checksum_is_answered_with_one() {
    let mut there = packet(V4, &count(40));
    there.checksum = false;
    assert_eq!(answer(&there.build()).unwrap(), unpadded(&turned(&there)));
}

#[test]
fn what_follows_the_udp_datagram_inside_the_ip_packet_is_left_out() {
    let there = packet(V4, &count(30));
    let mut bytes = there.build();
    bytes.extend([0xee; 6]);
    bytes[16..18].copy_from_slice(&(20 + 8 + 30 + 6u16).to_be_bytes());
    assert_eq!(answer(&mended(bytes)).unwrap(), unpadded(&turned(&there)));
}

#[test]
fn every_malformed_packet_has_its_reason() {
    use DropReason::*;
    let four = packet(V4, &count(30)).build();
    let six = packet(V6, &count(30)).build();
    let set = |base: &[u8], at: usize, bytes: &[u8]| {
        let mut changed = base.to_vec();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let from = |ends, source: &str| packet((source, if ends == V4 { V4.1 } else { V6.1 }), b"x").build();
    let to =
        |ends, destination: &str| packet((if ends == V4 { V4.0 } else { V6.0 }, destination), b"x").build();
    let tagged = |depth| {
        let mut deep = packet(V4, b"x");
        deep.tags = vec![Tag { tpid: 0x8100, tci: 1 }; depth];
        deep.build()
    };
    let optioned = |options: &[u8]| {
        let mut packet = packet(V4, b"x");
        packet.options = options.to_vec();
        packet.build()
    };
    let extended = |extensions: Vec<(u8, Vec<u8>)>| {
        let mut packet = packet(V6, &count(20));
        packet.extensions = extensions;
        packet.build()
    };
    let hop = || (protocol::HOP_BY_HOP, vec![0; 8]);
    let unchecked = |ends| {
        let mut packet = packet(ends, b"x");
        packet.checksum = false;
        packet.build()
    };
    let cases: Vec<(&str, Vec<u8>, DropReason)> = vec![
        ("no Ethernet header", four[..13].to_vec(), Runt),
        ("ends in the IPv4 header", four[..33].to_vec(), Runt),
        ("ends in the IPv6 header", six[..53].to_vec(), Runt),
        ("ends in a VLAN tag", tagged(2)[..17].to_vec(), Runt),
        ("three VLAN tags", tagged(3), VlanDepth),
        ("ARP", set(&four, 12, &[8, 6]), EtherType),
        ("IPv4 version 5", mended(set(&four, 14, &[0x55])), Ipv4Version),
        ("IPv4 header of 16 bytes", mended(set(&four, 14, &[0x44])), Ipv4HeaderLength),
        ("IPv4 header beyond the packet", set(&four[..40], 14, &[0x4f]), Ipv4HeaderLength),
        ("IPv4 total length below the header", mended(set(&four, 16, &[0, 19])), Ipv4TotalLength),
        ("IPv4 total length beyond the packet", mended(set(&four, 16, &[0, 59])), Ipv4TotalLength),
        ("IPv4 checksum", set(&four, 24, &[four[24] ^ 1]), Ipv4Checksum),
        ("IPv6 version 4", set(&six, 14, &[0x40]), Ipv6Version),
        ("IPv6 payload length beyond the packet", set(&six, 18, &[0, 39]), Ipv6PayloadLength),
        (
            "extension header beyond the payload",
            set(&extended(vec![hop()]), 55, &[9]),
            Ipv6ExtensionTruncated,
        ),
        ("five extension headers", extended(vec![hop(), hop(), hop(), hop(), hop()]), Ipv6ExtensionLimit),
        ("IPv4 first fragment", mended(set(&four, 20, &[0x20, 0])), Fragment),
        ("IPv4 last fragment", mended(set(&four, 20, &[0, 1])), Fragment),
        ("IPv6 fragment", extended(vec![(protocol::FRAGMENT, vec![0; 8])]), Fragment),
        ("loose source route", optioned(&[1, 131, 7, 4, 10, 0, 0, 1]), SourceRoute),
        ("strict source route", optioned(&[137, 3, 4, 0]), SourceRoute),
        (
            "a routing header with a hop to go",
            extended(vec![(protocol::ROUTING, vec![0, 0, 0, 1, 0, 0, 0, 0])]),
            SourceRoute,
        ),
        ("TCP over IPv4", mended(set(&four, 23, &[6])), NotUdp),
        ("ICMPv6", set(&six, 20, &[58]), NotUdp),
        ("nothing after IPv6", set(&six, 20, &[59]), NotUdp),
        ("IP packet ends in the UDP header", mended(set(&four, 16, &[0, 27])), Runt),
        ("UDP length 7", set(&four, 38, &[0, 7]), UdpLength),
        ("UDP length beyond the IP packet", set(&four, 38, &[0, 39]), UdpLength),
        ("UDP checksum over IPv4", set(&four, 50, &[0xff]), UdpChecksum),
        ("UDP checksum over IPv6", set(&six, 70, &[0xff]), UdpChecksum),
        ("UDP over IPv6 without checksum", unchecked(V6), UdpChecksumMissing),
        ("from a multicast group", from(V4, "224.0.0.1:5"), BadSource),
        ("from everyone", from(V4, "255.255.255.255:5"), BadSource),
        ("from no address", from(V4, "0.0.0.0:5"), BadSource),
        ("from loopback", from(V4, "127.0.0.1:5"), BadSource),
        ("from ourselves", from(V4, V4.1), BadSource),
        ("from port 0", from(V4, "10.1.0.2:0"), BadSource),
        ("from a multicast MAC", set(&four, 6, &[1]), BadSource),
        ("from an IPv6 group", from(V6, "[ff02::1]:5"), BadSource),
        ("from ::", from(V6, "[::]:5"), BadSource),
        ("from ::1", from(V6, "[::1]:5"), BadSource),
        ("from a mapped address", from(V6, "[::ffff:10.0.0.1]:5"), BadSource),
        ("from ourselves over IPv6", from(V6, V6.1), BadSource),
        ("to everyone on the link", set(&four, 0, &[0xff; 6]), NotUnicast),
        ("to a group", to(V4, "239.1.1.1:7777"), NotUnicast),
        ("to everyone", to(V4, "255.255.255.255:7777"), NotUnicast),
        ("to an IPv6 group", to(V6, "[ff02::1]:7777"), NotUnicast),
        ("to another MAC", set(&four, 5, &[3]), NotForUs),
        ("to loopback", to(V4, "127.0.0.1:7777"), NotForUs),
        ("to ::1", to(V6, "[::1]:7777"), NotForUs),
        ("to port 0", to(V4, "10.1.0.1:0"), NotForUs),
    ];
    let mut wired = wired(&config());
    for (name, bytes, reason) in cases {
        assert_eq!(wired.echo(&bytes), Err(reason), "{name}");
    }
    assert!(wired.echo(&four).is_ok() && wired.echo(&six).is_ok());
    assert_eq!(wired.net.stats().received, 2);
}

#[test]
fn checksums_the_device_has_verified_are_not_looked_at() {
    let there = packet(V4, &count(30));
    let mut bytes = there.build();
    bytes[60] ^= 1;
    let mut wired = wired(&config());
    wired.flags = flag::CHECKSUM_VERIFIED;
    assert!(wired.echo(&bytes).is_ok());
    wired.flags = 0;
    assert_eq!(wired.echo(&bytes), Err(DropReason::UdpChecksum));
    // A partial one is completed by the answer.
    wired.flags = flag::CHECKSUM_PARTIAL;
    let mut bytes = there.build();
    bytes[40..42].copy_from_slice(&[1, 2]);
    assert_eq!(wired.echo(&bytes).unwrap(), unpadded(&turned(&there)));
}

#[test]
fn a_changed_answer_has_a_fresh_checksum_and_may_be_longer() {
    for ends in [V4, V6] {
        for text in [&b""[..], b"an answer", &[7; 1400]] {
            let mut wired = wired(&config());
            let there = packet(ends, b"a question");
            wired.wire.inject(0, &there.build()).unwrap();
            wired.run(|view| {
                assert_eq!(view.payload(), b"a question");
                assert_eq!((view.path().peer(), view.path().local()), (there.source, there.destination));
                view.reply_with(text);
            });
            let expected = Packet { payload: text.to_vec(), ..turned(&there) };
            assert_eq!(wired.wire.collect_all(), [(0, unpadded(&expected))]);
        }
    }
}

#[test]
fn a_device_that_finishes_checksums_gets_the_pseudo_header_sum() {
    let mut wired = wired(&MemoryConfig { tx_checksum: true, ..config() });
    let there = packet(V4, b"a question");
    for text in [&b"a question"[..], b"an answer"] {
        wired.wire.inject(0, &there.build()).unwrap();
        wired.run(|view| view.reply_with(text));
        let expected = Packet { payload: text.to_vec(), ..turned(&there) };
        let shown = wired.wire.collect(|shown| {
            assert_eq!(shown.flags, flag::CHECKSUM_PARTIAL);
            // The device adds everything from the UDP header on, the stored sum included.
            let mut bytes = shown.bytes.to_vec();
            let checksum = Sum::ZERO.bytes(&bytes[34..]).complement();
            bytes[40..42].copy_from_slice(&checksum.to_be_bytes());
            assert_eq!(bytes, unpadded(&expected));
        });
        assert_eq!(shown, 1);
    }
}

#[test]
fn answers_beyond_mtu_or_frame_are_refused() {
    let mut wired = wired(&MemoryConfig { mtu: 600, ..config() });
    assert_eq!((wired.net.max_payload(true), wired.net.max_payload(false)), (572, 552));
    let there = packet(V4, &count(100));
    wired.wire.inject(0, &there.build()).unwrap();
    wired.run(|view| {
        assert_eq!(view.room_mut().len(), 572);
        view.reply(573);
    });
    // Longer than our MTU, yet received: it can be read, not sent back.
    assert_eq!(wired.echo(&packet(V4, &count(700)).build()), Err(DropReason::AnswerTooLong));
    assert_eq!(wired.net.stats().dropped[DropReason::AnswerTooLong as usize], 2);
    assert!(wired.echo(&packet(V4, &count(572)).build()).is_ok());
}

#[test]
fn verdicts_are_counted_one_by_one() {
    let mut wired = wired(&config());
    for n in 0..100u8 {
        wired.wire.inject(0, &packet(V4, &[n]).build()).unwrap();
    }
    wired.wire.inject(0, b"rubbish").unwrap();
    wired.run(|view| match view.payload()[0] % 4 {
        0 => view.consume(),
        1 => view.drop(DropReason::AppMalformed),
        2 => {}
        _ => view.reply(1),
    });
    let stats = wired.net.stats();
    assert_eq!((stats.received, stats.received_bytes, stats.consumed, stats.answered), (100, 100, 50, 25));
    assert_eq!(stats.dropped[DropReason::AppMalformed as usize], 25);
    assert_eq!(stats.dropped[DropReason::Runt as usize], 1);
    let answers = wired.wire.collect_all();
    assert_eq!(
        answers.iter().map(|(_, bytes)| bytes[42]).collect::<Vec<_>>(),
        (3..100).step_by(4).collect::<Vec<_>>()
    );
}

#[test]
fn what_a_full_transmit_ring_refuses_is_dropped_and_counted() {
    let mut wired = wired(&MemoryConfig { ring: 8, frames: 64, ..config() });
    for round in 0..4 {
        for _ in 0..8 {
            wired.wire.inject(0, &packet(V4, b"x").build()).unwrap();
        }
        wired.run(echo);
        let stats = wired.net.stats();
        assert_eq!((stats.answered, stats.dropped[DropReason::TxFull as usize]), (8, 8 * round));
    }
    assert_eq!(wired.wire.collect_all().len(), 8);
    assert!(wired.echo(&packet(V4, b"x").build()).is_ok(), "it recovers");
}
