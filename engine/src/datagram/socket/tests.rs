//! On loopback, without privilege. What needs a wire is in tests/kernel_sockets_netns.rs.

use super::*;
use crate::datagram::{Batch, Datagram, DatagramPort, Datagrams, EpollPort, MmsgPort, SendError, Verdicts};
use crate::net::Path;
use crate::time::Now;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use volley_wire::DropReason;

type Port = Box<dyn DatagramPort>;

const LOOPBACK: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

/// Each kind of port over `list`, with the addresses it got.
fn every_port(list: &[&str], config: &SocketConfig) -> Vec<(Port, Vec<SocketAddr>)> {
    let (epoll, mmsg) =
        (EpollPort::open(&addresses(list), config), MmsgPort::open(&addresses(list), config));
    let offloads = SocketConfig { gso: true, gro: true, ..config.clone() };
    let offloads = MmsgPort::open(&addresses(list), &offloads);
    let (epoll, mmsg, offloads) = (epoll.unwrap(), mmsg.unwrap(), offloads.unwrap());
    let bound = [epoll.local_addresses(), mmsg.local_addresses(), offloads.local_addresses()];
    let ports: [Port; 3] = [Box::new(epoll), Box::new(mmsg), Box::new(offloads)];
    ports.into_iter().zip(bound).collect()
}

/// A client of an address, with a bounded wait.
fn client(of: SocketAddr) -> UdpSocket {
    let ip = if of.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(ip).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// One turn of a worker: returns how many datagrams the app saw.
fn turn(port: &mut dyn DatagramPort, mut app: impl FnMut(&mut Datagram<'_>)) -> usize {
    let (mut batch, mut seen) = (Batch::default(), 0);
    if port.recv(&mut batch, Now::default()) > 0 {
        loop {
            let (mut views, mut verdicts) = (Datagrams::new(), Verdicts::new());
            let opened = port.open(&mut batch, &mut views);
            views.iter_mut().for_each(&mut app);
            verdicts.extend(views.iter().map(Datagram::verdict));
            drop(views);
            port.settle(&mut batch, &verdicts);
            seen += opened;
            if opened == 0 || batch.frames.is_empty() {
                break;
            }
        }
    }
    port.flush();
    assert!(batch.frames.is_empty() && port.ledger().balances());
    seen
}

/// Turns until the app has seen `count` datagrams.
fn turns(port: &mut dyn DatagramPort, count: usize, mut app: impl FnMut(&mut Datagram<'_>)) {
    let (deadline, mut seen) = (Instant::now() + Duration::from_secs(10), 0);
    while seen < count {
        seen += turn(port, &mut app);
        assert!(
            Instant::now() < deadline,
            "{}: {seen} of {count} datagrams: {:?}",
            port.name(),
            port.stats()
        );
    }
}

fn echo(datagram: &mut Datagram<'_>) {
    datagram.reply(datagram.payload().len());
}

fn assert_nothing_is_out(port: &dyn DatagramPort) {
    let ledger = port.ledger();
    assert_eq!(ledger.free, ledger.total, "{ledger}");
}

#[test]
fn echoes_on_both_families_and_counts() {
    for (mut port, bound) in every_port(&LOOPBACK, &SocketConfig::default()) {
        for address in bound {
            let client = client(address);
            let before = port.stats();
            for len in [0, 1, 64, 1472, 9000, 65_000] {
                let sent: Vec<u8> = (0..len).map(|n| n as u8).collect();
                client.send_to(&sent, address).unwrap();
                turns(&mut *port, 1, |datagram| {
                    assert_eq!(datagram.path().peer(), client.local_addr().unwrap());
                    assert_eq!(datagram.path().local(), address);
                    echo(datagram);
                });
                let mut buffer = vec![0; 70_000];
                let (len, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], from), (&sent[..], address));
            }
            let after = port.stats();
            assert_eq!((after.received - before.received, after.answered - before.answered), (6, 6));
            assert_eq!(after.received_bytes - before.received_bytes, 75_537);
        }
        assert_nothing_is_out(&*port);
    }
}

#[test]
fn every_verdict_is_carried_out() {
    for (mut port, bound) in every_port(&LOOPBACK[..1], &SocketConfig::default()) {
        let client = client(bound[0]);
        for what in [b"same", b"long", b"done", b"drop", b"huge"] {
            client.send_to(what, bound[0]).unwrap();
        }
        turns(&mut *port, 5, |datagram| match datagram.payload() {
            b"long" => datagram.reply_with(&[7; 1000]),
            b"done" => datagram.consume(),
            b"drop" => datagram.drop(DropReason::AppUnauthorized),
            b"huge" => datagram.reply_with(&[7; 66_000]),
            _ => echo(datagram),
        });
        let mut buffer = [0; 2000];
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
        assert_eq!((client.recv(&mut buffer).unwrap(), &buffer[..1000]), (1000, &[7; 1000][..]));
        let stats = port.stats();
        assert_eq!((stats.received, stats.answered, stats.consumed), (5, 2, 1));
        assert_eq!(stats.dropped[DropReason::AppUnauthorized as usize], 1);
        assert_eq!(stats.dropped[DropReason::AnswerTooLong as usize], 1);
        assert_nothing_is_out(&*port);
    }
}

#[test]
fn a_burst_is_answered_in_order_to_many_peers() {
    for (mut port, bound) in every_port(&LOOPBACK[..1], &SocketConfig::default()) {
        let clients: Vec<_> = (0..5).map(|_| client(bound[0])).collect();
        for n in 0..200u8 {
            clients[n as usize % 5].send_to(&[n; 33], bound[0]).unwrap();
        }
        turns(&mut *port, 200, echo);
        for n in 0..200u8 {
            let mut buffer = [0; 64];
            assert_eq!(clients[n as usize % 5].recv(&mut buffer).unwrap(), 33);
            assert_eq!(buffer[0], n);
        }
        assert_nothing_is_out(&*port);
    }
}

#[test]
fn gro_buffers_are_many_datagrams_and_gso_sends_them_back() {
    let config = SocketConfig { gso: true, gro: true, ..SocketConfig::default() };
    let mut port = MmsgPort::open(&addresses(&LOOPBACK), &config).unwrap();
    for address in port.local_addresses() {
        // A port with GSO is what makes large buffers on loopback: it sends 100 datagrams of 700 bytes, the last of 50.
        let mut sender =
            MmsgPort::open(&addresses(&LOOPBACK), &SocketConfig { gso: true, ..config.clone() }).unwrap();
        let from = sender.local_addresses()[usize::from(address.is_ipv6())];
        let path = Path::to(0, from, address).unwrap();
        for n in 0..100u8 {
            let len = if n == 99 { 50 } else { 700 };
            sender.send(&path, len, &mut |room| room.fill(n)).unwrap();
        }
        let before = port.port_stats().rx_frames;
        sender.flush();
        let mut next = 0;
        turns(&mut port, 100, |datagram| {
            assert_eq!(datagram.payload(), &vec![next; if next == 99 { 50 } else { 700 }]);
            assert_eq!(datagram.path().peer(), from);
            next += 1;
            echo(datagram);
        });
        let buffers = port.port_stats().rx_frames - before;
        assert!(buffers < 10, "100 datagrams came in {buffers} buffers: the kernel did not merge them");
        let mut back = 0;
        turns(&mut sender, 100, |datagram| {
            assert_eq!(datagram.payload()[0], back);
            back += 1;
        });
        assert_eq!(sender.stats().sent, 100);
        assert_nothing_is_out(&sender);
    }
    assert_eq!(port.stats().answered, 200);
    assert_nothing_is_out(&port);
}

#[test]
fn an_answer_longer_than_its_part_of_a_gro_buffer_is_refused_and_no_neighbour_hurt() {
    let config = SocketConfig { gso: true, gro: true, ..SocketConfig::default() };
    let mut port = MmsgPort::open(&addresses(&LOOPBACK[..1]), &config).unwrap();
    let mut sender = MmsgPort::open(&addresses(&LOOPBACK[..1]), &config).unwrap();
    let path = Path::to(0, sender.local_addresses()[0], port.local_addresses()[0]).unwrap();
    for n in 0..3 {
        sender.send(&path, 100, &mut |room| room.fill(n)).unwrap();
    }
    sender.flush();
    turns(&mut port, 3, |datagram| datagram.reply_with(&[9; 101]));
    let stats = port.stats();
    assert_eq!((stats.answered, stats.dropped[DropReason::AnswerTooLong as usize]), (1, 2));
    turns(&mut sender, 1, |datagram| assert_eq!(datagram.payload(), [9; 101]));
    assert_nothing_is_out(&port);
}

#[test]
fn a_wildcard_answers_from_the_address_that_was_addressed() {
    for (mut port, bound) in every_port(&["0.0.0.0:0", "[::]:0"], &SocketConfig::default()) {
        for (own, from) in [("127.0.0.9", "127.0.0.1:0"), ("127.1.2.3", "127.0.0.1:0"), ("::1", "[::1]:0")]
        {
            let index = usize::from(own.contains("::"));
            let address = SocketAddr::new(own.parse().unwrap(), bound[index].port());
            let socket = UdpSocket::bind(from).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(b"hello", address).unwrap();
            let mut heard = None;
            turns(&mut *port, 1, |datagram| {
                assert_eq!(datagram.path().local(), address);
                heard = Some(*datagram.path());
                echo(datagram);
            });
            let mut buffer = [0; 64];
            assert_eq!(socket.recv_from(&mut buffer).unwrap(), (5, address));

            port.send(&heard.unwrap(), 3, &mut |room| room.copy_from_slice(b"new")).unwrap();
            port.flush();
            assert_eq!(socket.recv_from(&mut buffer).unwrap(), (3, address));
        }
        assert_eq!((port.stats().answered, port.stats().sent), (3, 3));
    }
}

#[test]
fn datagrams_longer_than_a_frame_are_dropped_as_truncated() {
    let config = SocketConfig { frame_bytes: 512, ..SocketConfig::default() };
    for list in [["127.0.0.1:0"], ["0.0.0.0:0"]] {
        for (mut port, bound) in every_port(&list, &config) {
            let address = SocketAddr::new("127.0.0.1".parse().unwrap(), bound[0].port());
            let client = client(address);
            for len in [513, 512, 4000] {
                client.send_to(&vec![len as u8; len], address).unwrap();
            }
            turns(&mut *port, 1, |datagram| assert_eq!(datagram.payload().len(), 512));
            let deadline = Instant::now() + Duration::from_secs(10);
            while port.stats().dropped[DropReason::Truncated as usize] < 2 && Instant::now() < deadline {
                turn(&mut *port, |_| {});
            }
            assert_eq!(port.stats().dropped[DropReason::Truncated as usize], 2);
            assert_eq!(port.max_payload(true), 512);
            assert_nothing_is_out(&*port);
        }
    }
}

#[test]
fn sending_says_why_it_cannot() {
    for (mut port, bound) in
        every_port(&LOOPBACK[..1], &SocketConfig { hold: 4, ..SocketConfig::default() })
    {
        let client = client(bound[0]);
        let to = |local: SocketAddr| Path::to(0, local, client.local_addr().unwrap()).unwrap();
        let mut fill = |room: &mut [u8]| room.fill(1);
        let elsewhere = to("127.0.0.1:1".parse().unwrap());
        assert_eq!(port.send(&elsewhere, 1, &mut fill), Err(SendError::NoRoute));
        assert_eq!(port.send(&to(bound[0]), 65_508, &mut fill), Err(SendError::TooLong));
        assert!(
            (0..10).all(|_| port.send(&to(bound[0]), 1, &mut fill).is_ok()),
            "a full hold is sent early"
        );
        assert!(!port.is_drained() && port.ledger().held > 0);
        port.flush();
        assert!(port.is_drained());
        assert_eq!(port.stats().sent, 10);

        // Port 0 cannot be sent to: the kernel refuses, and the rest still goes out.
        let nowhere = Path::to(0, bound[0], "127.0.0.1:0".parse().unwrap()).unwrap();
        port.send(&nowhere, 1, &mut fill).unwrap();
        port.send(&to(bound[0]), 1, &mut fill).unwrap();
        port.flush();
        let stats = port.stats();
        assert_eq!((stats.sent, stats.dropped[DropReason::TxRefused as usize]), (11, 1));
        assert_nothing_is_out(&*port);
    }
}

#[test]
fn a_peer_that_is_gone_does_not_stop_the_socket() {
    for (mut port, bound) in every_port(&LOOPBACK[..1], &SocketConfig::default()) {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = Path::to(0, bound[0], gone).unwrap();
        let client = client(bound[0]);
        for round in 0..20u8 {
            port.send(&path, 8, &mut |room| room.fill(0)).unwrap();
            port.flush();
            client.send_to(&[round], bound[0]).unwrap();
            turns(&mut *port, 1, echo);
            let mut buffer = [0; 8];
            assert_eq!((client.recv(&mut buffer).unwrap(), buffer[0]), (1, round));
        }
        assert_nothing_is_out(&*port);
    }
}

#[test]
fn a_taken_port_names_who_has_it() {
    for address in LOOPBACK {
        let other = UdpSocket::bind(address).unwrap();
        let taken = other.local_addr().unwrap();
        let error =
            MmsgPort::open(&[taken], &SocketConfig::default()).err().expect("it is taken").to_string();
        assert!(error.contains(&taken.to_string()), "{error}");
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        assert!(error.contains("stop it, or choose another"), "{error}");
    }
    let shared = SocketConfig { reuse_port: true, ..SocketConfig::default() };
    let one = MmsgPort::open(&addresses(&LOOPBACK[..1]), &shared).unwrap();
    let two = MmsgPort::open(&one.local_addresses(), &shared).unwrap();
    assert_eq!(one.local_addresses(), two.local_addresses());
}

#[test]
fn other_failures_to_open_name_the_remedy() {
    let open = |list: &[&str]| match EpollPort::open(&addresses(list), &SocketConfig::default()) {
        Ok(_) => panic!("{list:?} opened"),
        Err(error) => error.to_string(),
    };
    assert!(open(&["192.0.2.1:7777"]).contains("no interface here has that address"));
    assert!(open(&[]).contains("at least one"));
}

#[test]
fn a_stopped_port_receives_no_more_but_sends() {
    for (mut port, bound) in every_port(&LOOPBACK[..1], &SocketConfig::default()) {
        let client = client(bound[0]);
        port.stop_rx();
        client.send_to(b"late", bound[0]).unwrap();
        assert_eq!(turn(&mut *port, |_| panic!("received after the stop")), 0);
        let path = Path::to(0, bound[0], client.local_addr().unwrap()).unwrap();
        port.send(&path, 3, &mut |room| room.copy_from_slice(b"bye")).unwrap();
        port.flush();
        let mut buffer = [0; 8];
        assert_eq!(client.recv(&mut buffer).unwrap(), 3);
        assert!(port.is_drained());
    }
}
