//! Every model on loopback, without privilege. What needs a wire is in tests/kernel_sockets_netns.rs.

use super::*;
use crate::datagram::models::{EpollPort, MmsgPort, OpenPort, SocketModel};
use crate::datagram::{Datagram, DatagramPort, SendError, turn};
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

/// A port of each model over `list`, with the addresses it got.
fn every_port(list: &[&str], config: &SocketConfig) -> Vec<(Port, Vec<SocketAddr>)> {
    every_port_of(|_| true, list, config)
}

/// As [`every_port`], of the models that `are` so.
fn every_port_of(
    are: impl Fn(SocketModel) -> bool,
    list: &[&str],
    config: &SocketConfig,
) -> Vec<(Port, Vec<SocketAddr>)> {
    let open = |model: &SocketModel| {
        let OpenPort { port, addresses } = model.open(&addresses(list), config).unwrap();
        (port, addresses)
    };
    SocketModel::ALL.iter().filter(|model| are(**model)).map(open).collect()
}

/// A client of an address, with a bounded wait.
fn client(of: SocketAddr) -> UdpSocket {
    let ip = if of.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(ip).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// Turns until the app has seen `count` datagrams.
fn turns(port: &mut dyn DatagramPort, count: usize, mut app: impl FnMut(&mut Datagram<'_>)) {
    let (deadline, mut seen) = (Instant::now() + Duration::from_secs(10), 0);
    while seen < count {
        seen += turn(port, Now::default(), &mut app);
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
    assert_eq!(ledger.free + ledger.kernel_rx, ledger.total, "{}: {ledger}", port.name());
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
fn a_datagram_wakes_who_waits_on_the_descriptors() {
    for (mut port, bound) in every_port(&LOOPBACK[..1], &SocketConfig::default()) {
        for _ in 0..3 {
            let deadline = Instant::now() + Duration::from_secs(10);
            // A worker has looked before it sleeps: only then is a receive with the kernel.
            loop {
                assert_eq!(turn(&mut *port, Now::default(), echo), 0, "nothing has arrived");
                assert!(Instant::now() < deadline, "{}: there is always something to do", port.name());
                if !port.before_sleep() {
                    break;
                }
            }
            let mut fds: Vec<_> = port.poll_fds().into_iter().map(readable).collect();
            let (client, address) = (client(bound[0]), bound[0]);
            let sender = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                client.send_to(b"hello", address).unwrap();
                client
            });
            // SAFETY: a valid array of its length, which outlives the call.
            let woken = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 30_000) };
            assert_eq!(woken, 1, "{} slept on", port.name());
            turns(&mut *port, 1, echo);
            assert_eq!(sender.join().unwrap().recv(&mut [0; 16]).unwrap(), 5);
        }
        assert_nothing_is_out(&*port);
    }
}

fn readable(fd: i32) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
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
    let list = ["0.0.0.0:0", "[::]:0"];
    for (mut port, bound) in
        every_port_of(SocketModel::tells_local_address, &list, &SocketConfig::default())
    {
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
                heard = Some(datagram.path());
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
                turn(&mut *port, Now::default(), |_| {});
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
        for model in SocketModel::ALL {
            let error =
                model.open(&[taken], &SocketConfig::default()).err().expect("it is taken").to_string();
            assert!(error.contains(&taken.to_string()), "{}: {error}", model.as_str());
            assert!(
                error.contains(&format!("(pid {})", std::process::id())),
                "{}: {error}",
                model.as_str()
            );
            assert!(error.contains("stop it, or choose another"), "{}: {error}", model.as_str());
        }
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
        assert_eq!(turn(&mut *port, Now::default(), |_| panic!("received after the stop")), 0);
        let path = Path::to(0, bound[0], client.local_addr().unwrap()).unwrap();
        port.send(&path, 3, &mut |room| room.copy_from_slice(b"bye")).unwrap();
        port.flush();
        let mut buffer = [0; 8];
        assert_eq!(client.recv(&mut buffer).unwrap(), 3);
        assert!(port.is_drained());
    }
}

/// What io_uring does otherwise when it is told to: a kernel thread that submits, answers that leave without a copy.
#[test]
fn io_uring_with_a_polling_thread_and_without_copies_loses_nothing() {
    for (sqpoll, zero_copy_from) in [(true, 0), (false, 1), (true, 512)] {
        let config = SocketConfig { sqpoll, zero_copy_from, ..SocketConfig::default() };
        for list in [LOOPBACK, ["0.0.0.0:0", "[::]:0"]] {
            let OpenPort { mut port, addresses } =
                SocketModel::IoUring.open(&addresses(&list), &config).unwrap();
            let port = &mut *port;
            for (bound, own) in addresses.iter().zip(["127.0.0.1", "::1"]) {
                let address = SocketAddr::new(own.parse().unwrap(), bound.port());
                let client = client(address);
                client.set_nonblocking(true).unwrap();
                let before = port.stats().answered;
                for round in 0..20u16 {
                    for n in 0..10u16 {
                        let len = [1, 64, 700, 1400, 9000][usize::from(n) % 5];
                        client.send_to(&vec![(round + n) as u8; len], address).unwrap();
                    }
                    turns(port, 10, echo);
                    let (mut buffer, mut bytes) = (vec![0; 10_000], 0);
                    let deadline = Instant::now() + Duration::from_secs(10);
                    while bytes < 2 * (1 + 64 + 700 + 1400 + 9000) {
                        // A thread of the kernel submits when it comes to it, and what found no room is offered again.
                        turn(port, Now::default(), |_| {});
                        bytes += client.recv(&mut buffer).unwrap_or(0);
                        assert!(
                            Instant::now() < deadline,
                            "{bytes} bytes: {} {:?}",
                            port.ledger(),
                            port.stats()
                        );
                    }
                }
                let deadline = Instant::now() + Duration::from_secs(10);
                while !port.is_drained() {
                    turn(port, Now::default(), |_| {});
                    assert!(Instant::now() < deadline, "{}", port.ledger());
                }
                assert_eq!(port.stats().answered - before, 200);
            }
            assert_eq!(port.stats().dropped_total(), 0);
            assert_nothing_is_out(port);
            let ledger = port.close();
            assert_eq!((ledger.free, ledger.abandoned), (ledger.total, 0), "{ledger}");
        }
    }
}

#[test]
fn a_closed_port_is_free_again_at_once() {
    for model in SocketModel::ALL {
        let OpenPort { mut port, addresses } =
            model.open(&addresses(&LOOPBACK), &SocketConfig::default()).unwrap();
        let client = client(addresses[0]);
        client.send_to(b"hello", addresses[0]).unwrap();
        turns(&mut *port, 1, echo);
        drop(port);
        let again = model.open(&addresses, &SocketConfig::default());
        // A process that another test starts has copies of the sockets until it executes.
        let again = again.or_else(|_| {
            std::thread::sleep(Duration::from_secs(1));
            model.open(&addresses, &SocketConfig::default())
        });
        assert!(again.is_ok(), "{}", model.as_str());
    }
}
