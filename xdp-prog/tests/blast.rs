//! The in-kernel generator over a real link: needs root.
#![cfg(target_os = "linux")]

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use volley_steer::blast::Stamp;
use volley_steer::wire::checksum::Sum;
use volley_testlab::{Lab, LabOptions, require_root};
use volley_xdp::blast::{BlastError, BlastOptions, Blaster};
use zerocopy::FromBytes;

const PORT: u16 = 7777;
const FIRST_PORT: u16 = 65_530; // so that ten flows run over the last port
const FLOWS: u32 = 10;
const PAYLOAD: usize = 18;
/// Packets per burst: what fits the server's default socket buffer while nobody reads.
const BURST: u32 = 20;
const BURSTS: u32 = 10;
/// Bound on every wait; never reached when things work.
const PATIENCE: Duration = Duration::from_secs(10);

fn template(lab: &Lab, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut frame = [lab.peer_mac(), lab.engine_mac()].concat();
    let udp_len = 8 + PAYLOAD as u16;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([8, 0]);
            let mut ip = vec![0x45, 0, 0, 20 + udp_len as u8, 0, 0, 0x40, 0, 64, 17, 0, 0];
            ip.extend(from.octets());
            ip.extend(to.octets());
            let checksum = Sum::ZERO.bytes(&ip).complement();
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(ip);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, udp_len as u8, 17, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => unreachable!("one version of IP"),
    }
    frame.extend([0; 2]);
    frame.extend(PORT.to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0; 2]);
    frame.extend(b"VG");
    frame.resize(frame.len() + PAYLOAD - 2, 0xee);
    frame
}

fn options(lab: &Lab, template: Vec<u8>) -> BlastOptions {
    let len = 8 + PAYLOAD as u16;
    BlastOptions {
        interface: lab.engine_if().to_owned(),
        template,
        flows: FLOWS,
        first_port: FIRST_PORT,
        answer_len: len..=len,
    }
}

/// Waits until `done` says so. Panics after [`PATIENCE`], with what it said last.
fn until<T: std::fmt::Debug>(mut look: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if done(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "still {seen:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn over(from: &str, to: &str) {
    if !require_root() {
        return;
    }
    let lab = Lab::with(LabOptions { peer_gro: true, ..LabOptions::default() });
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let server = lab.peer().run(|| UdpSocket::bind(SocketAddr::new(to, PORT)).unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let blaster = lab.engine().run(|| Blaster::open(&options(&lab, template(&lab, from, to))).unwrap());

    let mut ids = HashSet::new();
    let mut flows = HashSet::new();
    for _ in 0..BURSTS {
        lab.engine().run(|| blaster.burst(BURST).unwrap());
        for _ in 0..BURST {
            let mut payload = [0; 64];
            // Arrives only when the checksums are right: the kernel verifies them.
            let (len, client) = server.recv_from(&mut payload).unwrap();
            assert_eq!(len, PAYLOAD);
            assert_eq!(&payload[..Stamp::OFFSET], b"VG");
            let stamp = Stamp::read_from_bytes(&payload[Stamp::OFFSET..][..Stamp::LEN]).unwrap();
            let flow = stamp.id.get() >> Stamp::SEQUENCE_BITS;
            assert!(ids.insert(stamp.id.get()), "id {:x} came twice", stamp.id);
            assert_eq!(client, SocketAddr::new(from, FIRST_PORT.wrapping_add(flow as u16)));
            assert!(stamp.sent_ns.get() <= monotonic_ns());
            flows.insert(flow);
            // Port 0 cannot be answered; it is one of the flows on purpose.
            if client.port() != 0 {
                server.send_to(&payload[..len], client).unwrap();
            }
        }
    }
    let sent = u64::from(BURST * BURSTS);
    assert_eq!(blaster.sent().unwrap(), sent);
    assert_eq!(flows, (0..u64::from(FLOWS)).collect());

    let answered = sent - sent / u64::from(FLOWS);
    let answers = until(|| blaster.answers().unwrap(), |answers| answers.answers >= answered);
    assert_eq!((answers.answers, answers.odd_length), (answered, 0));
    assert_eq!(answers.udp_bytes, answered * (8 + PAYLOAD as u64));

    // An answer of another length is counted apart.
    server.send_to(b"short", SocketAddr::new(from, 40_000)).unwrap();
    until(|| blaster.answers().unwrap().odd_length, |odd| *odd == 1);
    assert_eq!(blaster.answers().unwrap().answers, answered);

    // And what is no answer still reaches the kernel.
    let (other, client) = (SocketAddr::new(to, 5000), SocketAddr::new(from, 5001));
    let client_socket = lab.engine().run(|| UdpSocket::bind(client).unwrap());
    client_socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let other_socket = lab.peer().run(|| UdpSocket::bind(other).unwrap());
    other_socket.send_to(b"not an answer", client).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(client_socket.recv_from(&mut buffer).unwrap(), (13, other));
}

fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

#[test]
fn stamped_packets_arrive_and_answers_are_counted_ipv4() {
    over("10.77.0.1", "10.77.0.2");
}

#[test]
fn stamped_packets_arrive_and_answers_are_counted_ipv6() {
    over("fd77::1", "fd77::2");
}

#[test]
fn the_counting_program_leaves_with_the_generator() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let template = template(&lab, "10.77.0.1".parse().unwrap(), "10.77.0.2".parse().unwrap());
    let open = || lab.engine().run(|| Blaster::open(&options(&lab, template.clone())));
    let blaster = open().unwrap();
    assert!(matches!(open(), Err(BlastError::Attach { .. })), "two generators on one interface");
    drop(blaster);
    drop(open().unwrap());
}

#[test]
fn a_wrong_interface_is_named() {
    if !require_root() {
        return;
    }
    let lab = Lab::new(1);
    let template = template(&lab, "10.77.0.1".parse().unwrap(), "10.77.0.2".parse().unwrap());
    let wrong = BlastOptions { interface: "no-such-nic".to_owned(), ..options(&lab, template) };
    let error = lab.engine().run(|| Blaster::open(&wrong)).err().expect("an error");
    assert!(error.to_string().contains("no-such-nic"), "{error}");
}

/// A receiver with UDP GRO writes the lengths of the merged packet into the first one's headers, and the kernel sends that page again.
#[test]
fn pages_that_a_receiver_merged_are_sent_as_the_template_says() {
    if !require_root() {
        return;
    }
    let lab = Lab::with(LabOptions { neighbours: true, peer_gro: true, ..LabOptions::default() });
    let server = lab.peer().run(|| {
        let server = UdpSocket::bind((volley_testlab::PEER_IPV4, PORT)).unwrap();
        nix::sys::socket::setsockopt(&server, nix::sys::socket::sockopt::UdpGroSegment, &true).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server
    });
    let template = template(&lab, volley_testlab::ENGINE_IPV4.into(), volley_testlab::PEER_IPV4.into());
    // One flow, so that packets in a row can be merged.
    let options = BlastOptions { flows: 1, ..options(&lab, template) };
    let (mut buffer, mut merged) = (vec![0; 1 << 16], false);
    lab.engine().run(|| {
        let blaster = Blaster::open(&options).unwrap();
        for burst in 0..20 * BURSTS {
            blaster.burst(BURST).unwrap();
            let mut came = 0;
            while came < BURST as usize {
                let len = server
                    .recv(&mut buffer)
                    .unwrap_or_else(|error| panic!("{error}: {came} in burst {burst}"));
                merged |= len > PAYLOAD;
                assert_eq!(len % PAYLOAD, 0, "burst {burst}");
                came += len / PAYLOAD;
            }
        }
    });
    assert!(merged, "nothing was merged, so nothing was shown");
}
