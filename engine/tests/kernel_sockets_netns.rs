//! The kernel-socket ports over a wire: fragments, a link that takes no more, a peer that is not there. Needs root.
#![cfg(target_os = "linux")]

use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};
use volley::datagram::{Datagram, DatagramPort, SocketConfig, SocketError, SocketModel, turn};
use volley::net::Path;
use volley::time::Now;
use volley::wire::DropReason;
use volley_testlab::{Lab, require_root};

const ENDS: [(&str, &str); 2] = [("10.77.0.1:7777", "10.77.0.2:0"), ("[fd77::1]:7777", "[fd77::2]:0")];

/// A port of each model on the engine's two addresses, one after the other.
fn each_port(lab: &Lab, config: &SocketConfig, check: impl Fn(&mut dyn DatagramPort)) {
    each_port_of(|_| true, lab, ENDS.map(|(engine, _)| engine), config, check);
}

/// As [`each_port`], of the models that `are` so and on the addresses `on`.
fn each_port_of(
    are: impl Fn(SocketModel) -> bool,
    lab: &Lab,
    on: [&str; 2],
    config: &SocketConfig,
    check: impl Fn(&mut dyn DatagramPort),
) {
    let addresses = on.map(|address| address.parse::<SocketAddr>().unwrap());
    for model in SocketModel::ALL.iter().filter(|model| are(**model)) {
        // Opened on another thread than the one that drives it, as the engine does.
        check(&mut *lab.engine().run(|| open(*model, &addresses, config)));
    }
}

/// Opens a port. A process that another test is starting has copies of our descriptors until it executes: so a port that is still
/// in use is waited for.
fn open(model: SocketModel, addresses: &[SocketAddr], config: &SocketConfig) -> Box<dyn DatagramPort> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match model.open(addresses, config) {
            Ok(open) => return open.port,
            Err(SocketError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{}: {error}", model.as_str()),
        }
    }
}

/// True when no frame is with the app, held, or on its way out.
fn is_idle(port: &dyn DatagramPort) -> bool {
    port.ledger().free + port.ledger().kernel_rx == port.ledger().total
}

fn client(lab: &Lab, address: &str) -> UdpSocket {
    let socket = lab.peer().run(|| UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn echo(datagram: &mut Datagram<'_>) {
    datagram.reply(datagram.payload().len());
}

/// Turns until `done` says so.
fn until(port: &mut dyn DatagramPort, mut done: impl FnMut(&dyn DatagramPort) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done(port) {
        turn(port, Now::default(), echo);
        assert!(Instant::now() < deadline, "{}: {:?} {}", port.name(), port.stats(), port.ledger());
    }
}

#[test]
fn fragmented_datagrams_are_put_together_and_answered() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    each_port(&lab, &SocketConfig::default(), |port| {
        for (engine, peer) in ENDS {
            let client = client(&lab, peer);
            for len in [4000, 60_000] {
                let answered = port.stats().answered;
                let sent: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
                client.send_to(&sent, engine).unwrap();
                until(port, |port| port.stats().answered > answered);
                let mut buffer = vec![0; 65_536];
                let (len, from) = client.recv_from(&mut buffer).unwrap();
                assert!(buffer[..len] == sent && from == engine.parse().unwrap());
            }
        }
        assert!(is_idle(port), "{}: {}", port.name(), port.ledger());
    });
}

#[test]
fn answers_that_cannot_be_segments_are_sent_one_by_one() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    each_port(&lab, &SocketConfig::default(), |port| {
        let client = client(&lab, ENDS[0].1);
        let mut buffer = [0; 8192];
        // Longer than the MTU: fragmented, which GSO cannot; then short ones, which it can.
        for len in [4000, 100, 4000] {
            let answered = port.stats().answered;
            for n in 0..10 {
                client.send_to(&vec![n; len], ENDS[0].0).unwrap();
            }
            until(port, |port| port.stats().answered == answered + 10);
            for n in 0..10 {
                assert_eq!((client.recv(&mut buffer).unwrap(), buffer[0]), (len, n));
            }
        }
        assert_eq!(port.stats().dropped_total(), 0);
    });
}

#[test]
fn a_wildcard_answers_link_local_peers_and_no_broadcast() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    for (namespace, interface, address) in
        [(lab.engine(), lab.engine_if(), "fe80::77/64"), (lab.peer(), lab.peer_if(), "fe80::88/64")]
    {
        namespace.exec(["ip", "address", "add", address, "dev", interface, "nodad"]);
    }
    let ours = lab.peer().run(|| nix::net::if_::if_nametoindex(lab.peer_if()).unwrap());
    let local = |ip: &str, port| SocketAddrV6::new(ip.parse().unwrap(), port, 0, ours);
    let broadcast = client(&lab, "10.77.0.2:0");
    broadcast.set_broadcast(true).unwrap();
    let link_local = lab.peer().run(|| UdpSocket::bind(local("fe80::88", 0)).unwrap());
    link_local.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let any = ["0.0.0.0:7777", "[::]:7777"];
    let are = SocketModel::tells_local_address;
    each_port_of(are, &lab, any, &SocketConfig::default(), |port| {
        let refused = |port: &dyn DatagramPort| port.stats().dropped[DropReason::NotUnicast as usize];
        for to in ["10.77.0.255:7777", "224.0.0.1:7777"] {
            let before = refused(port);
            broadcast.send_to(b"anybody?", to).unwrap();
            until(port, |port| refused(port) == before + 1);
        }
        assert_eq!((port.stats().received, port.stats().answered), (0, 0));

        link_local.send_to(b"next door", local("fe80::77", 7777)).unwrap();
        until(port, |port| port.stats().answered == 1);
        let mut buffer = [0; 64];
        let (len, from) = link_local.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"next door"[..], local("fe80::77", 7777).into()));
    });
}

#[test]
fn a_link_that_takes_no_more_holds_a_bounded_lot_and_recovers() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    // 8 Mbit/s with room for all that a socket may have in flight: so the socket's buffer is what fills, not the queue.
    let tbf = ["root", "tbf", "rate", "8mbit", "burst", "10kb", "limit", "4mb"];
    lab.engine().exec(["tc", "qdisc", "add", "dev", lab.engine_if()].into_iter().chain(tbf));
    let config = SocketConfig { send_buffer: 16_384, hold: 32, ..SocketConfig::default() };
    each_port(&lab, &config, |port| {
        let client = client(&lab, ENDS[0].1);
        let (mut last, mut buffer) = (None, [0; 2048]);
        for n in 0..200u8 {
            client.send_to(&[n; 1000], ENDS[0].0).unwrap();
        }
        until(port, |port| port.stats().received == 200);
        assert!(port.ledger().held > 0 && !port.is_drained(), "nothing was held: {:?}", port.stats());
        until(port, |port| port.is_drained());
        let stats = port.stats();
        let full = stats.dropped[DropReason::TxFull as usize];
        assert!(full > 0, "200 answers fitted a hold of 32: {stats:?}");
        assert_eq!(stats.answered + full, 200);
        let mut seen = [false; 200];
        for _ in 0..stats.answered {
            assert_eq!(client.recv(&mut buffer).unwrap(), 1000);
            let twice = std::mem::replace(&mut seen[usize::from(buffer[0])], true);
            // Requests of one submission that find no room, and then some, overtake each other.
            let in_order = last < Some(buffer[0]) || port.name().starts_with("io-uring");
            assert!(in_order && !twice, "{}: in order, each once", port.name());
            last = Some(buffer[0]);
        }

        // And again as if nothing had been.
        client.send_to(b"after", ENDS[0].0).unwrap();
        until(port, |port| port.stats().answered == stats.answered + 1);
        assert_eq!(client.recv(&mut buffer).unwrap(), 5);
        assert!(is_idle(port), "{}: {}", port.name(), port.ledger());
    });
}

#[test]
fn a_peer_that_cannot_be_reached_does_not_stop_the_others() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    each_port(&lab, &SocketConfig::default(), |port| {
        let ways = [
            ("10.77.0.2:9", false),    // port unreachable
            ("10.77.0.99:9", false),   // no such host
            ("203.0.113.9:9", true),   // no route
            ("[fd77::2]:9", false),    // port unreachable
            ("[2001:db8::9]:9", true), // no route
        ];
        for (peer, refused) in ways {
            let peer: SocketAddr = peer.parse().unwrap();
            let engine = ENDS[usize::from(peer.is_ipv6())].0.parse().unwrap();
            let path = Path::to(0, engine, peer).unwrap();
            let before = port.stats();
            for _ in 0..5 {
                port.send(&path, 4, &mut |room| room.fill(0)).unwrap();
                port.flush();
            }
            let after = port.stats();
            let dropped = |s: volley::datagram::DatagramStats| s.dropped[DropReason::TxRefused as usize];
            assert_eq!(after.sent - before.sent + dropped(after) - dropped(before), 5, "each is counted");
            assert!(!refused || dropped(after) - dropped(before) == 5, "{peer}: {after:?}");

            for (engine, peer) in ENDS {
                let client = client(&lab, peer);
                let answered = port.stats().answered;
                client.send_to(b"still here", engine).unwrap();
                until(port, |port| port.stats().answered > answered);
                assert_eq!(client.recv(&mut [0; 64]).unwrap(), 10);
            }
        }
        assert!(is_idle(port), "{}: {}", port.name(), port.ledger());
    });
}

#[test]
fn a_link_that_goes_down_and_up_changes_nothing_for_the_sockets() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    each_port(&lab, &SocketConfig::default(), |port| {
        let client = client(&lab, ENDS[0].1);
        let heard = client.local_addr().unwrap();
        lab.engine().exec(["ip", "link", "set", lab.engine_if(), "down"]);
        let path = Path::to(0, ENDS[0].0.parse().unwrap(), heard).unwrap();
        port.send(&path, 4, &mut |room| room.fill(0)).unwrap();
        port.flush();
        assert_eq!(port.stats().dropped[DropReason::TxRefused as usize], 1);
        lab.engine().exec(["ip", "link", "set", lab.engine_if(), "up"]);
        // An interface that goes down loses its IPv6 addresses.
        lab.engine().exec(["ip", "address", "replace", "fd77::1/64", "dev", lab.engine_if(), "nodad"]);

        let answered = port.stats().answered;
        client.send_to(b"up again", ENDS[0].0).unwrap();
        until(port, |port| port.stats().answered > answered);
        assert_eq!(client.recv(&mut [0; 64]).unwrap(), 8);
        assert_eq!(port.failure(), None);
    });
}
