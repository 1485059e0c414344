//! Many connections at once, and segments that nobody meant: nothing panics, sticks, leaks, or costs more than its share.

mod harness;

use harness::peer::*;
use harness::*;
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::time::Duration;
use volley_tcp::{CloseReason, Config, ConnectionOptions, EventKind, KeepAlive, SocketOption, SynCookies};

/// Connections that open, talk, and end in every way, over a bad wire, in tables that are too small for all of them.
#[test]
fn hundreds_of_connections_come_and_go_and_leave_nothing() {
    for (seed, cookies) in [(1, SynCookies::WhenFull), (2, SynCookies::Always), (3, SynCookies::Off)] {
        let client = Config { max_connections: 64, ..Config::default() };
        let server = Config {
            max_connections: 48,
            syn_table: 4,
            syn_cookies: cookies,
            max_time_wait: 20,
            pool_bytes: 256 << 10,
            max_segments_in_flight: 300,
            time_wait: Duration::from_secs(2),
            fin_wait_2: Duration::from_secs(5),
            orphan_timeout: Duration::from_secs(10),
            ..Config::default()
        };
        // A reset may be lost: then only keep-alive finds out that the peer is gone.
        let keep_alive =
            Some(KeepAlive { idle: Duration::from_secs(20), interval: Duration::from_secs(5), probes: 3 });
        let connection = ConnectionOptions {
            user_timeout: Some(Duration::from_secs(30)),
            keep_alive,
            ..Default::default()
        };
        let listen = volley_tcp::ListenOptions { backlog: 8, connection };
        let mut net = Net::with(client, server, listen, seed);
        net.keep_trace = false;
        net.ends[SERVER].echoes = true;
        let bad = Wire {
            loss: 0.05,
            duplicate: 0.05,
            reorder: 0.1,
            jitter: Duration::from_millis(10),
            ..Wire::default()
        };
        net.wire = [bad; 2];
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut open = Vec::new();
        let mut finished = 0;
        for _ in 0..400 {
            if let Ok(id) =
                net.ends[CLIENT].stack.connect(client_address(), server_address(), 0, &connection)
            {
                let n = rng.random_range(1..3_000);
                net.send(CLIENT, id, &stream(n, seed), false);
                open.push((id, n));
            }
            net.run(Duration::from_millis(rng.random_range(1..60)));
            open.retain(|&(id, n)| {
                let got = net.ends[CLIENT].received.get(&id).map_or(0, Vec::len);
                let ended = net.ends[CLIENT].kinds(id).iter().any(|k| matches!(k, EventKind::Closed(_)));
                if got == n && !ended {
                    assert!(net.ends[CLIENT].received[&id] == stream(n, seed));
                    finished += 1;
                    net.ends[CLIENT].to_send.remove(&id);
                    let stack = &mut net.ends[CLIENT].stack;
                    match n % 4 {
                        0 => stack.abort(id).unwrap(),
                        1 => {
                            stack
                                .set_option(id, SocketOption::Linger(Some(Duration::from_secs(1))))
                                .unwrap();
                            stack.close(id).unwrap();
                        }
                        _ => stack.close(id).unwrap(),
                    }
                    return false;
                }
                if ended {
                    net.ends[CLIENT].to_send.remove(&id);
                    let _ = net.ends[CLIENT].stack.close(id);
                }
                !ended
            });
        }
        assert!(finished > 100, "{cookies:?}: only {finished} of 400 got through");
        for (id, _) in open {
            net.ends[CLIENT].to_send.remove(&id);
            let _ = net.ends[CLIENT].stack.abort(id);
        }
        for _ in 0..20 {
            net.run(Duration::from_secs(20));
            let ended: Vec<_> = net.ends[SERVER]
                .events
                .iter()
                .filter(|e| matches!(e.kind, EventKind::Closed(_)))
                .map(|e| e.connection)
                .collect();
            for id in ended {
                net.ends[SERVER].to_send.remove(&id);
                let _ = net.ends[SERVER].stack.close(id);
            }
        }
        net.assert_clean();
    }
}

#[test]
fn an_application_that_never_reads_loses_nothing_and_one_that_reads_late_gets_all() {
    let connection = ConnectionOptions { receive_buffer: 20_000, ..Default::default() };
    let listen = volley_tcp::ListenOptions { connection, ..Default::default() };
    let mut net = Net::with(Config::default(), Config::default(), listen, 5);
    net.wire = [Wire { loss: 0.05, ..Wire::default() }; 2];
    net.ends[SERVER].reads = false;
    let (client, server) = net.pair(&ConnectionOptions::default());
    let data = stream(200_000, 5);
    net.send(CLIENT, client, &data, true);
    net.run(Duration::from_secs(120));
    let unread = net.ends[SERVER].stack.unread(server).unwrap();
    assert!((18_000..=20_000).contains(&unread), "{unread}");
    let mut got = Vec::new();
    let until = net.now + Duration::from_secs(2000);
    while got.len() < data.len() {
        assert!(net.now < until, "stuck at {}", got.len());
        while let Some(bytes) =
            net.ends[SERVER].stack.peek(server).ok().filter(|b| !b.is_empty()).map(<[u8]>::to_vec)
        {
            net.ends[SERVER].stack.read(server, bytes.len()).unwrap();
            got.extend(bytes);
        }
        net.run(Duration::from_millis(100));
    }
    assert!(got == data);
    assert!(net.ends[SERVER].saw(EventKind::PeerClosed));
    let _ = net.ends[SERVER].stack.close(server);
    let _ = net.ends[CLIENT].stack.close(client);
    net.run(Duration::from_secs(300));
    net.assert_clean();
}

#[test]
fn a_peer_that_vanishes_half_way_is_forgotten() {
    let mut net = Net::new(Config::default(), 6);
    let connection =
        ConnectionOptions { user_timeout: Some(Duration::from_secs(60)), ..Default::default() };
    let (client, _server) = net.pair(&connection);
    net.send(CLIENT, client, &stream(100_000, 1), false);
    net.run(Duration::from_millis(12));
    net.filter = Box::new(|_, _| false);
    net.run(Duration::from_secs(200));
    assert!(net.ends[CLIENT].saw(EventKind::Closed(CloseReason::TimedOut)));
}

#[test]
fn an_egress_that_is_full_now_and_then_loses_nothing() {
    let mut lab = Lab::new(Config::default());
    let (id, base) = lab.plain();
    lab.stack.write(id, &[3; 8000]).unwrap();
    let mut got = 0;
    for room in [0usize, 1, 0, 2, 1, 9] {
        let mut out = Outbox { room: Some(room), ..Outbox::default() };
        lab.stack.transmit(lab.now, &mut out);
        assert!(out.packets.len() <= room);
        for p in &out.packets {
            assert_eq!(p.seq(), base + got, "in order, once");
            got += p.payload().len() as u32;
        }
    }
    assert_eq!(got, 8000);
}

fn any_segment() -> impl Strategy<Value = (u8, i64, i64, u16, Vec<u8>, usize, u16, u8)> {
    let near = prop_oneof![
        Just(0i64),
        -3i64..4,
        -1500i64..1500,
        -70_000i64..70_000,
        any::<i32>().prop_map(i64::from)
    ];
    let options = prop_oneof![
        Just(vec![]),
        proptest::collection::vec(any::<u8>(), 0..40),
        any::<(u32, u32)>().prop_map(|(a, b)| {
            let mut o = vec![1, 1, 8, 10];
            o.extend(a.to_be_bytes());
            o.extend(b.to_be_bytes());
            o
        }),
    ];
    (
        any::<u8>(),
        near.clone(),
        near,
        prop_oneof![Just(0u16), any::<u16>()],
        options,
        prop_oneof![Just(0usize), 1usize..20, 0usize..1460],
        0u16..4,
        0u8..8,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever comes, in whatever state: no panic, memory within its cap, every segment accounted for, and not more answers
    /// than questions (but for what the application sends).
    #[test]
    fn any_segments_are_survived(segments in proptest::collection::vec(any_segment(), 1..60), sack: bool, stamps: bool) {
        let mut lab = Lab::new(Config { pool_bytes: 32 << 10, max_connections: 3, syn_table: 2, max_time_wait: 2, ..Config::default() });
        let mut syn = seg(SYN, 1000, 0).mss(1460);
        if sack { syn = syn.sack_ok(); }
        if stamps { syn = syn.ts(1, 0); }
        let (id, next) = lab.accepted(syn);
        let mut rcv = 1001u32;
        let mut una = next;
        for (flags, seq, ack, window, mut options, len, port, action) in segments {
            options.truncate(40);
            options.truncate(options.len() / 4 * 4);
            if stamps && action & 1 == 0 {
                options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];
            }
            lab.remote.set_port(5000 + port);
            let mut s = seg(flags & 0xdf, rcv.wrapping_add(seq as u32), una.wrapping_add(ack as u32)).window(window).data(&vec![1; len]);
            s.options = options;
            for answer in lab.inject(s) {
                if port == 0 {
                    rcv = answer.ack;
                    una = answer.seq.wrapping_add(answer.payload.len() as u32);
                }
            }
            match action {
                0 => { let _ = lab.stack.write(id, &[9; 3000]); }
                1 => { let n = lab.stack.unread(id).unwrap_or(0); let _ = lab.stack.read(id, n / 2); }
                2 => { lab.wait(Duration::from_millis(300)); }
                3 if seq == 0 => { let _ = lab.stack.shutdown(id, volley_tcp::Shutdown::Write); }
                4 if ack == 0 && seq == 0 => { let _ = lab.stack.close(id); }
                5 => { while let Some(c) = lab.stack.accept(lab.listener) { let _ = lab.stack.write(c, b"hello"); } }
                _ => {}
            }
            let p = lab.stack.population();
            prop_assert!(p.connections <= 3 && p.half_open <= 2 && p.time_wait <= 2);
            prop_assert!(lab.stack.memory().pool_used <= 32 << 10);
        }
        let c = *lab.stack.counters();
        let late = c.dropped(volley_tcp::Drop::ReplyQueueFull) + c.dropped(volley_tcp::Drop::IcmpUnverified);
        let dropped: u64 = c.drops().map(|(_, n)| n).sum();
        prop_assert_eq!(c.received, c.accepted + dropped - late);
        // In the end everything goes.
        let _ = lab.stack.abort(id);
        while let Some(c) = lab.stack.accept(lab.listener) { let _ = lab.stack.abort(c); }
        for e in lab.events.clone() { let _ = lab.stack.abort(e.connection); }
        lab.wait(Duration::from_secs(400));
        for e in lab.events.clone() { let _ = lab.stack.abort(e.connection); }
        lab.wait(Duration::from_secs(400));
        let p = lab.stack.population();
        prop_assert_eq!((p.connections, p.half_open, p.time_wait, p.chunks, p.ranges, p.segments_in_flight), (0, 0, 0, 0, 0, 0));
    }
}
