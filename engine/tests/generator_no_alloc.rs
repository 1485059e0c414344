//! Once it runs, the generator allocates nothing: a counting allocator says so.
#![cfg(target_os = "linux")]

use std::net::UdpSocket;
use volley::generator::frames::FrameLink;
use volley::generator::link::{Link, monotonic_ns};
use volley::generator::plan::Plan;
use volley::generator::schedule::Rate;
use volley::generator::session::{Session, SessionConfig};
use volley::generator::socket::SocketLink;
use volley::generator::template::{Ends, Templates};
use volley::port::{MemoryConfig, MemoryPort};
use volley_count_alloc::allocations;

fn session(plan: Plan) -> Session {
    Session::new(SessionConfig { plan, rate: Rate::Fixed(1e9), burst: 64, first: 0 }, monotonic_ns())
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![0u8; 100]))), 2);
}

#[test]
fn over_frames() {
    let (port, mut wire) = MemoryPort::new(&MemoryConfig::default());
    let ends = Ends {
        target: "10.0.0.1:7777".parse().unwrap(),
        target_mac: [2, 0, 0, 0, 0, 1],
        sources: vec!["10.0.0.2".parse().unwrap()],
        source_mac: [2, 0, 0, 0, 0, 2],
        first_port: 20_000,
        flows: 64,
    };
    let mut link = FrameLink::new(Box::new(port), Templates::new(ends).unwrap());
    let mut session = session(Plan::new(64, 1, 18..=1_400));
    for _ in 0..100 {
        assert_eq!(allocations(|| link.send(&mut session, 64).unwrap()), 0);
        for (queue, mut answer) in wire.collect_all() {
            for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
                (0..len).for_each(|n| answer.swap(a + n, b + n));
            }
            wire.inject(queue, &answer).unwrap();
        }
        assert_eq!(allocations(|| while link.recv(&mut session).unwrap() > 0 {}), 0);
        assert_eq!(allocations(|| _ = (session.due(monotonic_ns()), session.counts())), 0);
    }
    assert_eq!((session.counts().sent, session.counts().received), (6_400, 6_400));
}

#[test]
fn over_sockets() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap();
    let sources = std::iter::repeat_n("127.0.0.1:0".parse().unwrap(), 3);
    let mut link = SocketLink::open(target, sources, 1_400).unwrap();
    let mut session = session(Plan::new(3, 4, 18..=1_400));
    let mut buffer = [0; 2048];
    for _ in 0..100 {
        let before = session.next();
        assert_eq!(allocations(|| link.send(&mut session, 32).unwrap()), 0);
        for _ in before..session.next() {
            let (len, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..len], from).unwrap();
        }
        let all = session.next();
        assert_eq!(
            allocations(|| while session.counts().received < all {
                link.recv(&mut session).unwrap();
            }),
            0
        );
    }
    assert_eq!(session.counts().received, session.next());
}
