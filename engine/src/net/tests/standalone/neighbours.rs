//! Sends to peers that have not been heard from: who is asked, believed, and told.

use super::super::super::standalone::siblings::Place;
use super::*;

#[test]
fn sends_to_peers_never_heard_from_find_their_neighbour_or_gateway() {
    let mut wired = started(alone(), &config()).settled();
    let send = |wired: &mut Wired, path: &Path| {
        let sent = wired.net.send(path, 2, &mut |room| room.copy_from_slice(b"hi"));
        let ns = wired.now.ns;
        (sent, wired.turn(ns))
    };
    let sent = |macs: (Mac, Mac), local: &str, peer: &str, tags: &[u16]| {
        let mut packet = packet((local, peer), b"hi");
        packet.macs = macs;
        packet.tags = tags.iter().map(|vlan| Tag { tpid: 0x8100, tci: *vlan }).collect();
        unpadded(&packet)
    };
    // On the link: asked for, answered, sent.
    let near = path("10.1.0.1:7777", "10.1.0.2:5000");
    let asked = arp(REQUEST, (OURS, OUR4), (NOBODY, THEIR4), &[]);
    assert_eq!(send(&mut wired, &near), (Err(SendError::Unresolved), vec![asked]));
    assert_eq!(send(&mut wired, &near), (Err(SendError::Unresolved), vec![]), "asked a moment ago");
    wired.ask(&arp(REPLY, (THEIRS, THEIR4), (OURS, OUR4), &[]));
    let expected = sent((OURS, THEIRS), "10.1.0.1:7777", "10.1.0.2:5000", &[]);
    assert_eq!(send(&mut wired, &near), (Ok(()), vec![expected]));
    // From any of our addresses: the one on the peer's link is chosen, and its VLAN.
    let tagged = path("0.0.0.0:7777", "10.7.0.2:5000");
    assert_eq!(send(&mut wired, &tagged).0, Err(SendError::Unresolved));
    wired.ask(&arp(REPLY, (THEIRS, [10, 7, 0, 2]), (OURS, [10, 7, 0, 1]), &[7]));
    let expected = sent((OURS, THEIRS), "10.7.0.1:7777", "10.7.0.2:5000", &[7]);
    assert_eq!(send(&mut wired, &tagged), (Ok(()), vec![expected]));
    // Elsewhere: over the gateway.
    for (local, peer) in [("10.1.0.1:1", "203.0.113.9:2"), ("[fd00::1]:1", "[2001:db8::9]:2")] {
        let expected = sent((OURS, ROUTER), local, peer, &[]);
        assert_eq!(send(&mut wired, &path(local, peer)), (Ok(()), vec![expected]));
    }
    // IPv6 on the link, whose answer does not replace anything but is the first.
    let near6 = path("[fd00::1]:7777", "[fd00::2]:5000");
    let (error, asked) = send(&mut wired, &near6);
    assert_eq!((error, asked.len()), (Err(SendError::Unresolved), 1));
    wired.ask(&advertisement((THEIRS, "fd00::2"), "fd00::1", OURS, 0x4000_0000));
    assert_eq!(send(&mut wired, &near6).0, Ok(()));
    // Not from an address that is not ours, nor from one of another link.
    assert_eq!(send(&mut wired, &path("10.1.0.9:1", "10.1.0.2:2")).0, Err(SendError::NoRoute));
    assert_eq!(send(&mut wired, &path("10.7.0.1:1", "10.1.0.2:2")).0, Err(SendError::NoRoute));
    // Nobody answers: asked three times, then forgotten.
    let silent = path("10.1.0.1:1", "10.1.0.77:2");
    assert_eq!(send(&mut wired, &silent).0, Err(SendError::Unresolved));
    let start = wired.now.ns;
    let asked: usize = (1..10).map(|s| wired.turn(start + s * SECOND).len()).sum();
    assert_eq!((asked, wired.alone().failed), (2, 1));
    // Heard paths go back the way they came, whatever the cache says.
    wired.wire.inject(0, &packet(V4, b"hello").build()).unwrap();
    let mut heard = None;
    wired.run(|view| heard = Some(view.path()));
    assert_eq!(send(&mut wired, &heard.unwrap()).0, Ok(()));
}

#[test]
fn a_flood_of_forged_answers_neither_makes_entries_nor_turns_the_gateway() {
    let mut wired = started(alone(), &config()).settled();
    let far = path("10.1.0.1:1", "203.0.113.9:2");
    let start = wired.now.ns;
    for n in 0..2000u64 {
        let ns = start + n * 1_000_000;
        let host = [10, 1, 1 + (n >> 8) as u8, n as u8];
        wired.wire.inject(0, &arp(REPLY, (EVIL, ROUTER4), (OURS, OUR4), &[])).unwrap();
        wired.wire.inject(0, &arp(REQUEST, (EVIL, host), (NOBODY, host), &[])).unwrap();
        wired.wire.inject(0, &advertisement((EVIL, "fd00::fe"), "fd00::1", OURS, 0x6000_0000)).unwrap();
        for asked in wired.turn(ns) {
            // The real ones answer what they are asked, at their own MAC.
            assert_eq!(asked[..6], ROUTER, "nobody else is asked");
            match asked[12] {
                8 => _ = wired.ask(&arp(REPLY, (ROUTER, ROUTER4), (OURS, OUR4), &[])),
                _ => _ = wired.ask(&advertisement((ROUTER, "fd00::fe"), "fd00::1", OURS, 0x6000_0000)),
            }
        }
        wired.net.send(&far, 1, &mut |_| {}).unwrap();
        let sent = wired.turn(ns);
        assert_eq!(sent[0][..6], ROUTER);
    }
    let stats = wired.alone();
    assert!(stats.contested > 1000 && stats.solicited < 20, "{stats:?}");
    assert_eq!(stats.evicted, 0);
}

#[test]
fn an_answer_that_reaches_one_queue_is_heard_by_the_others() {
    let places = Place::mesh(2);
    let queue = |n: usize| {
        let standalone = StandaloneConfig { gateways: vec![], siblings: places[n].take(), ..alone() };
        started(standalone, &config()).settled()
    };
    let (mut asks, mut hears) = (queue(0), queue(1));
    let send = |wired: &mut Wired, path: &Path| wired.net.send(path, 1, &mut |_| {});
    let (near4, near6) = (path("10.1.0.1:7777", "10.1.0.2:5000"), path("[fd00::1]:7777", "[fd00::2]:5000"));
    for near in [&near4, &near6] {
        assert_eq!(send(&mut asks, near), Err(SendError::Unresolved));
    }
    let ns = asks.now.ns;
    assert_eq!(asks.turn(ns).len(), 2, "a request and a solicitation");
    let before = asks.alone();
    // The device gives both answers to the other queue, which has not asked, and keeps nothing of them.
    hears.ask(&arp(REPLY, (THEIRS, THEIR4), (OURS, OUR4), &[]));
    hears.ask(&advertisement((THEIRS, "fd00::2"), "fd00::1", OURS, 0x6000_0000));
    assert_eq!(send(&mut hears, &near4), Err(SendError::Unresolved));
    asks.turn(ns);
    for near in [&near4, &near6] {
        assert_eq!(send(&mut asks, near), Ok(()));
    }
    assert!(asks.turn(ns).iter().all(|packet| packet[..6] == THEIRS));
    let stats = asks.alone();
    assert_eq!((stats.told - before.told, stats.confirmed - before.confirmed), (2, 2));
    // A worker that is gone hears nothing, and its successor goes on.
    drop(asks);
    for _ in 0..300 {
        hears.ask(&arp(REPLY, (THEIRS, THEIR4), (OURS, OUR4), &[]));
    }
    assert_eq!(hears.alone().untold, 300 - 256);
    let mut asks = queue(0);
    assert_eq!(send(&mut asks, &near4), Err(SendError::Unresolved));
    hears.ask(&arp(REPLY, (THEIRS, THEIR4), (OURS, OUR4), &[]));
    let ns = asks.now.ns;
    asks.turn(ns);
    assert_eq!(send(&mut asks, &near4), Ok(()));
}
