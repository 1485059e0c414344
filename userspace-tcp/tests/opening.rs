//! Listeners, backlogs, cookies and floods, addresses and ports: who gets a connection at all.

mod harness;

use harness::peer::*;
use volley_tcp::{Config, Drop, Error, EventKind, SynCookies};

#[test]
fn the_backlog_holds_back_handshakes_until_somebody_accepts() {
    let listen = volley_tcp::ListenOptions { backlog: 1, ..Default::default() };
    let mut lab = Lab::with(Config::default(), listen);
    let a = lab.one(seg(SYN, 1000, 0));
    lab.silent(seg(ACK, 1001, a.seq + 1));
    lab.remote.set_port(5001);
    let b = lab.one(seg(SYN, 1000, 0));
    lab.silent(seg(ACK, 1001, b.seq + 1));
    assert_eq!(lab.stack.counters().dropped(Drop::AcceptQueueFull), 1);
    assert!(lab.stack.accept(lab.listener).is_some());
    assert!(lab.stack.accept(lab.listener).is_none());
    lab.put(&[seg(ACK, 1001, b.seq + 1).data(b"x")]);
    assert!(lab.stack.accept(lab.listener).is_some());
}

#[test]
fn a_reset_before_accept_leaves_nothing() {
    let mut lab = Lab::new(Config::default());
    let a = lab.one(seg(SYN, 1000, 0));
    lab.silent(seg(ACK, 1001, a.seq + 1));
    lab.silent(seg(RST, 1001, 0));
    assert_eq!(lab.stack.accept(lab.listener), None);
    assert_eq!(lab.stack.population().connections, 0);
}

#[test]
fn cookies_keep_options_in_the_timestamp_and_are_good_only_for_their_flow() {
    for mode in [SynCookies::Always, SynCookies::WhenFull] {
        let mut lab = Lab::new(Config { syn_cookies: mode, syn_table: 0, ..Config::default() });
        let a = lab.one(seg(SYN, 1000, 0).mss(1460).scale(7).sack_ok().ts(77, 0));
        assert_eq!((a.flags, a.ack, lab.stack.population().half_open), (SYN | ACK, 1001, 0));
        assert!(a.option(3).is_some() && a.option(4).is_some());
        // A guess.
        let r = lab.one(seg(ACK, 1001, a.seq + 2).ts(78, a.stamps().unwrap().0));
        assert_eq!(r.flags, RST);
        assert_eq!(lab.stack.counters().dropped(Drop::BadCookie), 1);
        lab.put(&[seg(ACK, 1001, a.seq + 1).ts(78, a.stamps().unwrap().0).data(b"hello")]);
        let id = lab.stack.accept(lab.listener).expect("the cookie is right");
        let info = lab.stack.info(id).unwrap();
        assert_eq!((info.window_scale.0, info.sack, info.timestamps, info.mss), (7, true, true, 1448));
        assert_eq!(lab.stack.peek(id).unwrap(), b"hello");
        assert_eq!(lab.stack.counters().cookies_accepted, 1);
        // Without timestamps: no options, and the MSS survives.
        lab.remote.set_port(5001);
        let a = lab.one(seg(SYN, 1000, 0).mss(1400).scale(7).sack_ok());
        assert_eq!((a.option(3), a.option(4)), (None, None));
        lab.silent(seg(ACK, 1001, a.seq + 1));
        let id = lab.stack.accept(lab.listener).unwrap();
        assert_eq!(lab.stack.info(id).unwrap().mss, 1400);
    }
}

#[test]
fn a_flood_is_answered_at_the_configured_rate_and_counted() {
    let mut lab = Lab::new(Config { syn_table: 8, cookie_rate: 100, ..Config::default() });
    let (id, next) = lab.plain();
    let home = lab.remote;
    let mut answers = 0;
    for i in 0..2000u16 {
        lab.remote.set_port(6000 + i);
        answers += lab.inject(seg(SYN, 1, 0).mss(1460)).len();
    }
    let c = lab.stack.counters();
    assert_eq!(answers as u64, 8 + c.cookies_sent);
    assert!((5..=20).contains(&c.cookies_sent), "{}", c.cookies_sent);
    assert_eq!(c.dropped(Drop::SynFlood), 2000 - 8 - c.cookies_sent);
    lab.remote = home;
    lab.put(&[seg(ACK, 1001, next).data(b"still here")]);
    assert_eq!(lab.stack.peek(id).unwrap(), b"still here");
}

#[test]
fn established_segments_of_a_burst_are_served_before_its_syns() {
    let config = Config { syn_table: 4, cookie_rate: 100, ..Config::default() };
    let mut lab = Lab::new(config);
    let a = lab.one(seg(SYN, 1000, 0));
    lab.silent(seg(ACK, 1001, a.seq + 1));
    let player = lab.stack.accept(lab.listener).expect("the handshake is complete");
    let port = lab.remote.port();
    lab.put_from(&[(5999, seg(SYN, 1000, 0))]);
    let b = lab.out().remove(0);
    lab.events.clear();
    // A handshake that is completed comes first in the burst, then the flood, and the player last.
    let newcomer = (5999, seg(ACK, 1001, b.seq + 1));
    let flood = (0..60).map(|n| (6000 + n, seg(SYN, 1, 0)));
    let moves = (port, seg(ACK | PSH, 1001, a.seq + 1).data(b"move"));
    lab.put_from(&[newcomer].into_iter().chain(flood).chain([moves]).collect::<Vec<_>>());
    assert_eq!((lab.events[0].connection, lab.events[0].kind), (player, EventKind::Readable));
    assert_eq!(lab.events[1].kind, EventKind::Established);
    assert_eq!(lab.stack.peek(player).unwrap(), b"move");
    lab.stack.write(player, b"moved").unwrap();
    // There is room for one frame, and it is the player's.
    let first = lab.out_into(Some(1));
    assert_eq!((first[0].payload.as_slice(), first[0].ack), (&b"moved"[..], 1005));
    let rest = lab.out();
    assert!(rest.iter().all(|s| s.flags == SYN | ACK), "{rest:?}");
    let c = lab.stack.counters();
    assert_eq!((rest.len() as u64, c.dropped(Drop::SynFlood)), (4 + c.cookies_sent, 56 - c.cookies_sent));
}

#[test]
fn ipv6_works_the_same_and_wildcards_take_what_they_say() {
    let mut lab = Lab::new(Config::default());
    let any: std::net::SocketAddr = "[::]:80".parse().unwrap();
    let six = lab.stack.listen(any, Default::default()).unwrap();
    assert_eq!(lab.stack.listen(any, Default::default()), Err(Error::AddressInUse(any)));
    lab.local = "[2001:db8::1]:80".parse().unwrap();
    lab.remote = "[2001:db8::2]:5000".parse().unwrap();
    let a = lab.one(seg(SYN, 1000, 0).mss(1440));
    assert_eq!((a.flags, a.option(2)), (SYN | ACK, Some(&1440u16.to_be_bytes()[..])), "1500 - 40 - 20");
    lab.put(&[seg(ACK, 1001, a.seq + 1).data(b"six")]);
    let id = lab.stack.accept(six).unwrap();
    assert_eq!(lab.stack.peek(id).unwrap(), b"six");
    assert_eq!(lab.stack.info(id).unwrap().remote, lab.remote);
    // `::` takes IPv4 too, but the exact listener comes first.
    lab.local = "192.0.2.9:80".parse().unwrap();
    lab.remote = "192.0.2.2:5000".parse().unwrap();
    let a = lab.one(seg(SYN, 1000, 0));
    lab.silent(seg(ACK, 1001, a.seq + 1));
    assert!(lab.stack.accept(six).is_some() && lab.stack.accept(lab.listener).is_none());
    lab.local = "192.0.2.1:80".parse().unwrap();
    let a = lab.one(seg(SYN, 1000, 0));
    lab.silent(seg(ACK, 1001, a.seq + 1));
    assert!(lab.stack.accept(six).is_none() && lab.stack.accept(lab.listener).is_some());
    // A closed listener takes nothing, and resets what waited.
    lab.remote.set_port(5001);
    let a = lab.one(seg(SYN, 1000, 0));
    lab.silent(seg(ACK, 1001, a.seq + 1));
    let listener = lab.listener;
    lab.stack.close_listener(listener).unwrap();
    lab.stack.close_listener(six).unwrap();
    assert!(lab.out()[0].flags & RST != 0);
    assert_eq!(lab.stack.close_listener(six), Err(Error::Stale));
    lab.remote.set_port(5002);
    assert_eq!(lab.one(seg(SYN, 1, 0)).flags, RST | ACK);
}

#[test]
fn a_group_or_nobody_cannot_be_a_peer() {
    let mut lab = Lab::new(Config::default());
    for source in ["224.0.0.1:5000", "255.255.255.255:5000", "0.0.0.0:5000", "192.0.2.2:0"] {
        lab.remote = source.parse().unwrap();
        lab.silent(seg(SYN, 1, 0));
        let refused = lab.stack.connect(lab.local, lab.remote, 0, &Default::default());
        assert_eq!(refused, Err(Error::BadAddress(lab.remote)));
    }
    assert_eq!(lab.stack.counters().dropped(Drop::BadSource), 4);
}

#[test]
fn local_ports_run_out_and_slots_run_out_with_errors_that_say_so() {
    let config = Config { ephemeral_ports: (40_000, 40_002), max_connections: 5, ..Config::default() };
    let mut lab = Lab::new(config);
    let from: std::net::SocketAddr = "192.0.2.1:0".parse().unwrap();
    let to: std::net::SocketAddr = "192.0.2.7:443".parse().unwrap();
    let mut ports = Vec::new();
    for _ in 0..3 {
        let id = lab.stack.connect(from, to, 0, &Default::default()).unwrap();
        ports.push(lab.stack.info(id).unwrap().local.port());
    }
    ports.sort_unstable();
    assert_eq!(ports, [40_000, 40_001, 40_002]);
    assert_eq!(lab.stack.connect(from, to, 0, &Default::default()), Err(Error::NoPort(to)));
    let taken = std::net::SocketAddr::new(from.ip(), 40_001);
    assert_eq!(lab.stack.connect(taken, to, 0, &Default::default()), Err(Error::AddressInUse(taken)));
    let other: std::net::SocketAddr = "192.0.2.8:443".parse().unwrap();
    lab.stack.connect(from, other, 0, &Default::default()).unwrap();
    lab.stack.connect(from, other, 0, &Default::default()).unwrap();
    assert_eq!(lab.stack.connect(from, other, 0, &Default::default()), Err(Error::NoSlot(5)));
}
