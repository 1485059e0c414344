//! Any bytes at all, and packets with something changed.

use super::super::packet::Packet;
use super::super::parse::{Arrival, headers};
use super::super::plain;
use super::super::{DropReason, Path, Tag};
use super::{OURS, answer, config, turned, unpadded, wired};
use crate::datagram::Opened;
use crate::frame::{Burst, FramePool, flag};
use crate::port::MemoryConfig;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use volley_wire::ipv4::protocol;

const ARRIVAL: Arrival = Arrival { mac: Some(OURS), port: 0, queue: 0, verify: true };

fn verdict(bytes: &[u8]) -> Result<(SocketAddr, SocketAddr, Vec<u8>), DropReason> {
    let parsed = headers(bytes, bytes.len(), &ARRIVAL)?;
    let payload = &bytes[parsed.payload()..][..parsed.len as usize];
    parsed.verify(payload)?;
    Ok((parsed.path.peer(), parsed.path.local(), payload.to_vec()))
}

/// What the quick way makes of a packet.
fn quickly(bytes: &[u8], flags: u8) -> Option<Opened> {
    let mut pool = FramePool::new(1, 2048, 0);
    let mut burst = Burst::new();
    pool.fill(&mut burst, 1, 0);
    assert!(burst[0].set_len(bytes.len()));
    burst[0].bytes_mut().copy_from_slice(bytes);
    burst[0].set_flags(flags);
    let mut opened = Default::default();
    let (next, payload) = plain::open::<true>(&burst, 0, &ARRIVAL, &mut opened);
    burst.drain(..).for_each(|frame| pool.give(frame));
    assert_eq!((next, payload), (opened.len(), opened.iter().map(|note| u64::from(note.len)).sum()));
    opened.pop()
}

/// Whether it finds what the long way does, which may find more.
fn agree(bytes: &[u8], flags: u8) -> bool {
    let Some(quick) = quickly(bytes, flags) else { return true };
    let verify = flags & flag::CHECKSUM_VERIFIED == 0;
    let Ok(parsed) = headers(bytes, bytes.len(), &Arrival { verify, ..ARRIVAL }) else { return false };
    let payload = &bytes[parsed.payload()..][..parsed.len as usize];
    let places = (quick.ip, quick.udp, quick.payload as usize, quick.len as usize);
    (!verify || parsed.verify(payload).is_ok())
        && Path::of_packet(&bytes[..parsed.payload()], &quick) == parsed.path
        && places == (parsed.ip, parsed.udp, parsed.payload(), payload.len())
        && (quick.frame, quick.segments) == (0, 1)
}

/// Addresses that can be answered: unicast, two different ones.
fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let four = |net: u8| {
        any::<u16>()
            .prop_map(move |host| IpAddr::V4(Ipv4Addr::from([10, net, (host >> 8) as u8, host as u8])))
    };
    let six = |net: u16| {
        any::<u64>().prop_map(move |host| {
            IpAddr::V6(Ipv6Addr::from((0xfd00_u128 << 112) | (u128::from(net) << 96) | u128::from(host)))
        })
    };
    let pair = prop_oneof![(four(1), four(2)), (six(1), six(2))];
    (pair, 1u16.., 1u16..).prop_map(|((a, b), source, destination)| {
        (SocketAddr::new(a, source), SocketAddr::new(b, destination))
    })
}

/// Packets that are right, with everything a packet may have.
fn packets() -> impl Strategy<Value = Packet> {
    let tags = vec((prop_oneof![Just(0x8100), Just(0x88a8)], any::<u16>()), 0..=2);
    let options = vec(0u8..2, 0..=10).prop_map(|words| words.into_iter().flat_map(|w| [w; 4]).collect());
    let extension = (prop_oneof![Just(protocol::HOP_BY_HOP), Just(protocol::DESTINATION)], 0u8..3)
        .prop_map(|(kind, units)| (kind, [&[0, units], &vec![0; 6 + 8 * units as usize][..]].concat()));
    (
        ends(),
        tags,
        options,
        vec(extension, 0..=4),
        vec(any::<u8>(), 0..600),
        0usize..20,
        any::<(bool, u8)>(),
    )
        .prop_map(
            |((source, destination), tags, options, extensions, payload, padding, (checksum, ttl))| {
                let checksum = checksum || source.is_ipv6();
                let tags = tags.into_iter().map(|(tpid, tci)| Tag { tpid, tci }).collect();
                Packet {
                    tags,
                    options,
                    extensions,
                    padding,
                    checksum,
                    ttl,
                    ..Packet::new(source, destination, &payload)
                }
            },
        )
}

proptest! {
    #[test]
    fn arbitrary_bytes_get_one_reason_always_the_same(bytes in vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        prop_assert_eq!(verdict(&bytes), verdict(&bytes));
        // Past the MAC, so that something is parsed at all.
        let ours = bytes.len().min(6);
        bytes[..ours].copy_from_slice(&OURS[..ours]);
        prop_assert_eq!(verdict(&bytes), verdict(&bytes));
        for ethertype in [[8, 0], [0x86, 0xdd], [0x81, 0]] {
            if let Some(field) = bytes.get_mut(12..14) {
                field.copy_from_slice(&ethertype);
            }
            let _ = verdict(&bytes);
        }
    }

    #[test]
    fn what_is_built_is_parsed_and_answered(packet in packets()) {
        let bytes = packet.build();
        prop_assert_eq!(verdict(&bytes), Ok((packet.source, packet.destination, packet.payload.clone())));
        let back = answer(&bytes).unwrap();
        prop_assert_eq!(&back, &unpadded(&turned(&packet)));
        let again = wired(&MemoryConfig { mac: Some(packet.macs.0), ..config() }).echo(&back).unwrap();
        prop_assert_eq!(again, unpadded(&turned(&turned(&packet))));
    }

    #[test]
    fn one_flipped_bit_is_never_taken_for_the_same_datagram(packet in packets(), at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = packet.build();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        // MACs, tags, IP options of no meaning, IPv6 class, flow and hop limit, and padding are covered by no sum.
        if let Ok((source, destination, payload)) = verdict(&bytes) {
            let same = (source, destination, &payload) == (packet.source, packet.destination, &packet.payload);
            prop_assert!(same || !packet.checksum, "a change of byte {at} went unnoticed");
        }
    }

    #[test]
    fn the_quick_way_takes_what_is_plain_and_finds_what_the_long_way_finds(
        packet in packets(),
        trusted: bool,
        changes in vec((0usize..64, any::<u8>()), 0..4),
        cut in 0usize..80,
    ) {
        let flags = if trusted { flag::CHECKSUM_VERIFIED } else { 0 };
        let more = if packet.source.is_ipv4() { packet.options.len() } else { packet.extensions.len() };
        let plain = packet.tags.is_empty() && more == 0;
        // Addressed to us.
        let mut bytes = Packet { macs: (packet.macs.0, OURS), ..packet }.build();
        prop_assert_eq!(quickly(&bytes, flags).is_some(), plain);
        prop_assert!(agree(&bytes, flags));
        // Of the long way's reasons to refuse a packet, each has a byte or two among the first.
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
                prop_assert!(agree(&bytes, flags), "byte {} is {}", at, value);
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        prop_assert!(agree(&bytes, flags));
    }

    #[test]
    fn a_cut_packet_is_refused(packet in packets(), at: prop::sample::Index) {
        let bytes = packet.build();
        let ip = if packet.source.is_ipv4() { 20 + packet.options.len() } else { 40 + packet.extensions.iter().map(|e| e.1.len()).sum::<usize>() };
        let whole = 14 + 4 * packet.tags.len() + ip + 8 + packet.payload.len();
        prop_assert!(verdict(&bytes[..at.index(whole)]).is_err());
    }
}
