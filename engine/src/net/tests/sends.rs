//! Datagrams sent unasked, to peers heard from and to others.

use super::super::neighbours::{Neighbour, Publisher, Reached, Route, Update, address, subscription};
use super::*;
use crate::worker::Waker;
use std::sync::Arc;

#[test]
fn a_heard_path_can_be_sent_to_later() {
    for ends in [V4, V6] {
        let mut there = packet(ends, b"hello");
        there.tags = vec![Tag { tpid: 0x88a8, tci: 5 }, Tag { tpid: 0x8100, tci: 6 }];
        let mut wired = wired(&config());
        wired.wire.inject(0, &there.build()).unwrap();
        let mut heard = None;
        wired.run(|view| heard = Some(view.path()));
        let path = heard.unwrap();
        for text in [&b""[..], b"news", &[5; 1472 - 20]] {
            wired.net.send(&path, text.len(), &mut |room| room.copy_from_slice(text)).unwrap();
            wired.net.flush();
            let expected = Packet { payload: text.to_vec(), ..turned(&there) };
            assert_eq!(wired.wire.collect_all(), [(0, unpadded(&expected))]);
        }
        assert_eq!(wired.net.stats().sent, 3);
        let limit = wired.net.max_payload(path.is_ipv4());
        assert_eq!(
            wired.net.send(&path, limit + 1, &mut |_| panic!("not called")),
            Err(SendError::TooLong)
        );
        let other = Path { port: 1, ..path };
        assert_eq!(wired.net.send(&other, 1, &mut |_| panic!("not called")), Err(SendError::NoPort));
        wired.balanced();
    }
}

#[test]
fn sends_find_their_limits() {
    let mut wired = wired(&MemoryConfig { ring: 16, frames: 100, ..config() });
    wired.wire.inject(0, &packet(V4, b"hello").build()).unwrap();
    let mut heard = None;
    wired.run(|view| heard = Some(view.path()));
    let path = heard.unwrap();
    let mut sent = 0;
    let error = loop {
        match wired.net.send(&path, 1, &mut |_| {}) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Full);
    assert!(sent > 16, "{sent}");
    wired.net.flush();
    let stats = wired.net.stats();
    assert_eq!(stats.sent + stats.dropped[DropReason::TxFull as usize], sent);
    wired.balanced();
    assert_eq!(wired.wire.collect_all().len() as u64, stats.sent);
    wired.net.flush();
    assert!(wired.net.send(&path, 1, &mut |_| {}).is_ok(), "it recovers");
    wired.net.flush();
    wired.balanced();
}

/// A net with a control thread played by the test.
fn controlled() -> (Wired, Publisher) {
    let (links, publisher) = subscription(Arc::new(Waker::new(|| {})));
    let (port, wire) = MemoryPort::new(&config());
    let net = Net::new(Box::new(port), NetConfig { links: Some(links), ..NetConfig::default() });
    (Wired { net, wire, flags: 0, now: Now::default() }, publisher)
}

#[test]
fn a_peer_never_heard_from_is_asked_for_and_then_reached() {
    let (mut wired, mut control) = controlled();
    let path = Path::to(0, "0.0.0.0:7777".parse().unwrap(), "192.0.2.9:5000".parse().unwrap()).unwrap();
    let ip = |text: &str| address(text.parse().unwrap());
    let send = |wired: &mut Wired| {
        wired.run(echo);
        let sent = wired.net.send(&path, 2, &mut |room| room.copy_from_slice(b"hi"));
        wired.net.flush();
        sent
    };
    assert_eq!(
        send(&mut wired),
        Err(SendError::Unresolved),
        "nothing is known yet, so nothing is refused yet"
    );
    control.updates.push(Update::Complete).unwrap();
    assert_eq!(send(&mut wired), Err(SendError::NoRoute));

    let tag = Tag { tpid: 0x8100, tci: 12 };
    let link =
        Route { prefix: ip("10.0.0.0"), prefix_len: 104, metric: 5, gateway: None, source: None, tag };
    let default =
        Route { prefix: ip("0.0.0.0"), prefix_len: 96, gateway: Some(ip("10.0.0.1")), metric: 0, ..link };
    for update in [
        Update::Route(default, true),
        Update::Route(link, true),
        Update::Address(ip("172.16.0.1"), true),
        Update::Address(ip("10.0.0.7"), true),
    ] {
        control.updates.push(update).unwrap();
    }
    let gateway = Neighbour { tag, address: ip("10.0.0.1") };
    assert_eq!(send(&mut wired), Err(SendError::Unresolved));
    assert_eq!(control.asks.pop(), Ok(gateway));
    assert_eq!(send(&mut wired), Err(SendError::Unresolved));
    assert!(control.asks.pop().is_err(), "not asked twice in a moment");
    wired.now.ns += 200_000_000;
    assert_eq!(send(&mut wired), Err(SendError::Unresolved));
    assert_eq!(control.asks.pop(), Ok(gateway));

    let mac = [2, 9, 9, 9, 9, 9];
    control.updates.push(Update::Neighbour(gateway, Some(Reached { mac, stale: true }))).unwrap();
    wired.now.ns += 200_000_000;
    assert_eq!(send(&mut wired), Ok(()));
    assert_eq!(control.asks.pop(), Ok(gateway), "a stale one is used, and made sure of");
    let mut expected = packet(("10.0.0.7:7777", "192.0.2.9:5000"), b"hi");
    (expected.macs, expected.tags) = ((OURS, mac), vec![tag]);
    assert_eq!(wired.wire.collect_all(), [(0, unpadded(&expected))]);

    control.updates.push(Update::Neighbour(gateway, None)).unwrap();
    control.updates.push(Update::Route(default, false)).unwrap();
    assert_eq!(send(&mut wired), Err(SendError::NoRoute));
    control.updates.push(Update::Link(Link::Removed)).unwrap();
    wired.run(echo);
    assert!(wired.net.failure().unwrap().contains("removed"));
}

#[test]
fn the_neighbour_table_has_an_end() {
    let (mut wired, mut control) = controlled();
    for n in 0..neighbours::MAX_NEIGHBOURS as u32 + 5 {
        let neighbour = Neighbour { tag: Tag::default(), address: u128::from(n).to_be_bytes() };
        let reached = Reached { mac: [2; 6], stale: false };
        while control.updates.push(Update::Neighbour(neighbour, Some(reached))).is_err() {
            wired.run(echo);
        }
    }
    for _ in 0..64 {
        wired.run(echo);
    }
    assert_eq!(wired.net.refused_updates(), 5);
}
