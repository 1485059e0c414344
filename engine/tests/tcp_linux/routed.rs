//! Clients behind a router: its links shrink, and strangers send in a client's name.

use crate::rig::{PATIENCE, Rig, V4, V6, assert_same, connect_from, pattern};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use volley::app::tcp::TcpEcho;
use volley_testlab::{ENGINE_IPV4, Host, Lab, LabOptions, Netns, require_root};
use volley_wire::checksum::Sum;

/// Writes all of it and reads its echo, and leaves the connection open.
#[track_caller]
fn exchange(stream: &TcpStream, data: &[u8]) {
    let mut got = vec![0; data.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| { stream }.write_all(data).unwrap());
        { stream }.read_exact(&mut got).unwrap();
    });
    assert_same(&got, data, "the echo");
}

const RST: u8 = 4;
const SYN: u8 = 2;
const ACK: u8 = 16;
const PSH: u8 = 8;

/// An IPv4 packet in somebody's name.
fn forged(source: SocketAddrV4, flags: u8, sequence: u32, acknowledgment: u32, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (source.ip().octets(), ENGINE_IPV4.octets());
    let mut packet = vec![0x45, 0];
    packet.extend((40 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    let checksum = Sum::ZERO.bytes(&packet).complement();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut segment = Vec::new();
    segment.extend(source.port().to_be_bytes());
    segment.extend(V4.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgment.to_be_bytes());
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    let sum = Sum::ZERO.pseudo_header(&from, &to, 6, segment.len() as u32);
    let checksum = sum.bytes(&segment).complement();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(segment);
    packet
}

/// Sprays one kind of segment over the whole sequence space, densely enough to hit every window several times.
fn spray(mallory: &Host, client: SocketAddrV4, flags: u8, payload: &[u8]) {
    /// A quarter of the window that our engine offers.
    const STEP: u32 = 64 << 10;
    mallory.netns.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
        let to = SocketAddr::from((ENGINE_IPV4, 0)).into();
        for n in 0..1 << 16 {
            // Odd, so that it is no place where a block of the client's begins; and any acknowledgment.
            let sequence = (n * STEP) | 0x2a1;
            let packet = forged(client, flags, sequence, sequence.wrapping_mul(0x9e37_79b1), payload);
            // A full queue loses some, which the density has room for.
            let _ = socket.send_to(&packet, &to);
        }
    });
}

#[test]
fn a_stranger_who_sends_in_the_clients_name_changes_nothing() {
    if !require_root() {
        return;
    }
    let mut lab = Lab::with(LabOptions::default());
    let (client, mallory) = (lab.host_behind_peer(), lab.host_behind_peer());
    let rig = Rig::on(lab, |_| {}, TcpEcho::default);
    // Without timestamps, which would be the better part of the defence, and with them.
    for timestamps in ["0", "1"] {
        let sysctl = format!("net.ipv4.tcp_timestamps={timestamps}");
        client.netns.exec(["sysctl", "-q", "-w", &sysctl]);
        let stream = connect_from(&client.netns, V4);
        let port = stream.local_addr().unwrap().port();
        let name = SocketAddrV4::new(Ipv4Addr::from(client.ipv4.octets()), port);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while !over.load(Ordering::Relaxed) {
                    exchange(&stream, &pattern(n, 20_000));
                    n += 1;
                }
            });
            let outcome = std::panic::catch_unwind(|| {
                spray(&mallory, name, RST, b"");
                spray(&mallory, name, RST | ACK, b"");
                spray(&mallory, name, SYN, b"");
                spray(&mallory, name, ACK | PSH, b"injected");
            });
            over.store(true, Ordering::Relaxed);
            outcome.unwrap();
        });
        exchange(&stream, &pattern(99, 100_000));
        drop(stream);
    }
    let report = rig.stop();
    let streams = report.total.streams;
    assert_eq!((streams.accepted, streams.reset, streams.timed_out), (2, 0, 0), "{report}");
    assert!(streams.challenge_acks > 0 && streams.segments_dropped > 100_000, "{report}");
}

/// One of the namespace's counters, summed over its lifetime (`nstat`).
fn counter(netns: &Netns, name: &str) -> u64 {
    let said = netns.exec(["nstat", "-asz", name]);
    let line = said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {said}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A transfer under way while the router's link to the client shrinks to each of `mtus`. What does not fit any more is dropped by the
/// router, whose counter of that ICMP error is `errors`.
fn transfer_while_the_path_shrinks(address: SocketAddr, errors: &str, mtus: [&str; 3]) {
    let mut lab = Lab::with(LabOptions::default());
    let host = lab.host_behind_peer();
    let rig = Rig::on(lab, |_| {}, TcpEcho::default);
    let router = rig.lab.peer();
    let stream = connect_from(&host.netns, address);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As soon as the echo of one block is there, the next goes out.
        let transfer = scope.spawn(|| {
            let mut blocks = 0;
            while !over.load(Ordering::Relaxed) {
                exchange(&stream, &pattern(blocks, 300_000));
                blocks += 1;
            }
        });
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            for mtu in mtus {
                let before = counter(router, errors);
                router.exec(["ip", "link", "set", &host.router_if, "mtu", mtu]);
                host.netns.exec(["ip", "link", "set", &host.interface, "mtu", mtu]);
                let deadline = Instant::now() + PATIENCE;
                while counter(router, errors) == before && !transfer.is_finished() {
                    assert!(Instant::now() < deadline, "{mtu}: nothing was too large");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }));
        over.store(true, Ordering::Relaxed);
        transfer.join().unwrap();
        outcome.unwrap();
    });
    // And at the smallest, for as long as one likes.
    exchange(&stream, &pattern(99, 1_000_000));
    drop(stream);
    let report = rig.stop();
    let streams = report.total.streams;
    assert_eq!((streams.accepted, streams.reset, streams.timed_out), (1, 0, 0), "{report}");
}

#[test]
fn a_transfer_goes_on_when_fragmentation_would_be_needed() {
    if require_root() {
        transfer_while_the_path_shrinks(V4, "IcmpOutDestUnreachs", ["1400", "900", "600"]);
    }
}

#[test]
fn a_transfer_goes_on_when_packets_are_too_big() {
    if require_root() {
        transfer_while_the_path_shrinks(V6, "Icmp6OutPktTooBigs", ["1450", "1400", "1280"]);
    }
}
