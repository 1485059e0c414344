//! What nobody should send, and what is merely unusual.

use crate::peer::{
    FAMILIES, PORT, Wire, assert_answers, assert_kernel_has_the_rest, echoes, packet, socket,
};
use crate::running::Running;
use volley::net::Tag;
use volley_testlab::{Lab, LabOptions, require_root};

/// Where a damaged packet is counted.
#[derive(Debug)]
enum Counted {
    /// By the XDP program, which leaves it to the kernel.
    Verdict(&'static str),
    /// By the engine, which drops it.
    Dropped(&'static str),
}
use Counted::{Dropped, Verdict};

/// Each kind of damage: what it is, what it does to a good packet's bytes, and where it must be counted. Offsets are from the
/// start of the frame: IPv4 header at 14, its UDP header at 34; IPv6 header at 14, its UDP header at 54.
type Damage = (&'static str, fn(&mut Vec<u8>), Counted);

const IPV4: &[Damage] = &[
    ("cut within the IPv4 header", |p| p.truncate(14 + 12), Verdict("runt")),
    ("cut within the UDP ports", |p| p.truncate(14 + 20 + 2), Verdict("runt")),
    ("an EtherType nobody knows", |p| p[12..14].copy_from_slice(&[0x88, 0xb5]), Verdict("ethertype")),
    ("version 5", |p| p[14] = 0x55, Verdict("ipv4_version")),
    ("a header of 16 bytes", |p| p[14] = 0x44, Verdict("ipv4_header_length")),
    ("a total length of 20", |p| p[16..18].copy_from_slice(&[0, 20]), Verdict("ipv4_total_length")),
    (
        "a total length beyond the packet",
        |p| p[16..18].copy_from_slice(&[5, 0]),
        Dropped("ipv4_total_length"),
    ),
    ("a header checksum that is wrong", |p| p[24] ^= 0xff, Dropped("ipv4_checksum")),
    ("a UDP length of 7", |p| p[38..40].copy_from_slice(&[0, 7]), Dropped("udp_length")),
    ("a UDP length beyond the packet", |p| p[38..40].copy_from_slice(&[9, 9]), Dropped("udp_length")),
    ("a payload that does not fit its checksum", |p| p[42] ^= 1, Dropped("udp_checksum")),
    ("a source port of 0", |p| p[34..36].fill(0), Dropped("bad_source")),
];

const IPV6: &[Damage] = &[
    ("cut within the IPv6 header", |p| p.truncate(14 + 30), Verdict("runt")),
    ("version 7", |p| p[14] = 0x75, Verdict("ipv6_version")),
    (
        "a payload length beyond the packet",
        |p| p[18..20].copy_from_slice(&[5, 0]),
        Dropped("ipv6_payload_length"),
    ),
    ("a UDP length of 7", |p| p[58..60].copy_from_slice(&[0, 7]), Dropped("udp_length")),
    ("no UDP checksum", |p| p[60..62].fill(0), Dropped("udp_checksum_missing")),
    ("a payload that does not fit its checksum", |p| p[62] ^= 1, Dropped("udp_checksum")),
    (
        "an extension chain that runs past the packet",
        |p| {
            // Hop-by-hop in place of UDP, 2,048 bytes long by its own word, then destination options.
            p[20] = 0;
            p[54..56].copy_from_slice(&[60, 255]);
        },
        Verdict("ipv6_extension_truncated"),
    ),
    (
        "an extension longer than the payload",
        |p| {
            p[20] = 0;
            p[54..56].copy_from_slice(&[17, 255]);
        },
        Verdict("ipv6_payload_length"),
    ),
];

/// How often each damaged packet is sent, so that a counter that happened to be moved by something else does not pass.
const TIMES: usize = 3;

#[test]
fn damaged_packets_are_counted_by_reason_and_good_ones_are_answered() {
    if !require_root() {
        return;
    }
    for queues in [1, 2] {
        damaged_packets(queues);
    }
}

/// Each on every queue, for its worker to refuse.
fn damaged_packets(queues: u16) {
    let lab = Lab::new(queues.into());
    let engine = Running::start(&lab, &["--workers", &queues.to_string(), "--no-pin"]);
    let mut wire = Wire::open(&lab, queues);
    let mut expected = std::collections::BTreeMap::new();
    let mut send = |place: &'static str, name: &'static str, what: &'static str, packet: &[u8]| {
        (0..TIMES).for_each(|_| wire.send(packet));
        let entry = expected.entry((place, name)).or_insert((0, Vec::new()));
        entry.0 += (TIMES * usize::from(queues)) as u64;
        entry.1.push(what);
    };
    let macs = (lab.peer_mac(), lab.engine_mac());
    for (family, kinds) in FAMILIES.into_iter().zip([IPV4, IPV6]) {
        for (what, damage, counted) in kinds {
            let mut packet = packet(macs, family, b"a payload of some length").build();
            damage(&mut packet);
            match counted {
                Verdict(name) => send("verdict", name, what, &packet),
                Dropped(name) => send("dropped", name, what, &packet),
            }
        }
        let mut tagged = packet(macs, family, b"three tags");
        tagged.tags = vec![Tag { tpid: 0x8100, tci: 5 }; 3];
        send("verdict", "vlan_depth", "three VLAN tags", &tagged.build());
    }
    assert_answers(&lab);
    let ended = engine.stop();
    for ((place, name), (least, what)) in expected {
        let count = if place == "verdict" { ended.verdict(name) } else { ended.dropped(name) };
        assert!(
            count >= least,
            "{what:?}: {place} {name} is {count}, {least} were sent\n{:#}",
            ended.report
        );
    }
    assert_eq!(ended.total("answered"), 4, "only the good ones: {:#}", ended.report);
    for worker in 0..usize::from(queues) {
        let refused = &ended.report["workers"][worker]["ports"][0]["datagrams"]["dropped"];
        assert_eq!(refused["ipv4_checksum"], TIMES, "each worker refuses its own: {:#}", ended.report);
    }
}

#[test]
fn answers_keep_their_vlan_tags() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = Running::start(&lab, &[]);
    let mut wire = Wire::open(&lab, 1);
    let one = vec![Tag { tpid: 0x8100, tci: 0x6005 }];
    let two = vec![Tag { tpid: 0x88a8, tci: 0x2009 }, Tag { tpid: 0x8100, tci: 0x0fff }];
    for family in FAMILIES {
        for tags in [&one, &two] {
            let mut question = packet((lab.peer_mac(), lab.engine_mac()), family, b"tagged");
            question.tags.clone_from(tags);
            wire.send(&question.build());
            let answer = wire.receive().expect("an answer");
            assert_eq!(answer[..6], question.macs.0, "to the peer");
            assert_eq!(answer[6..12], question.macs.1, "from the engine");
            for (n, tag) in tags.iter().enumerate() {
                let at = 12 + 4 * n;
                assert_eq!(answer[at..at + 2], tag.tpid.to_be_bytes());
                assert_eq!(answer[at + 2..at + 4], tag.tci.to_be_bytes());
            }
            assert!(answer.windows(6).any(|window| window == b"tagged"));
        }
    }
    assert_eq!(engine.stop().total("answered"), 4);
}

#[test]
fn a_fragmented_datagram_is_answered_through_the_companion() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let engine = Running::start(&lab, &[]);
    let long: Vec<u8> = (0..4000u32).map(|n| n as u8).collect();
    for family in FAMILIES {
        let socket = socket(&lab, family, PORT);
        assert!(echoes(&socket, &long), "4,000 bytes to {}", family.0);
        assert!(echoes(&socket, b"short"));
    }
    assert_kernel_has_the_rest(&lab);
    let ended = engine.stop();
    assert!(ended.total("via_kernel") >= 2, "{:#}", ended.report);
    assert!(ended.verdict("fragment") >= 4 && ended.verdict("redirected") >= 2);
}

#[test]
fn jumbo_packets_spread_over_several_frames_are_answered_whole() {
    if !require_root() {
        return;
    }
    let lab = Lab::with(LabOptions { mtu: 9000, ..LabOptions::default() });
    let engine = Running::start(&lab, &[]);
    for (family, headers) in FAMILIES.into_iter().zip([28, 48]) {
        let socket = socket(&lab, family, PORT);
        for len in [9000 - headers, 4096, 2000, 1700, 1] {
            let payload: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
            assert!(echoes(&socket, &payload), "{len} bytes to {}", family.0);
        }
    }
    let ended = engine.stop();
    assert_eq!((ended.total("via_kernel"), ended.verdict("fragment")), (0, 0), "{:#}", ended.report);
}
