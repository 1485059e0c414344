//! Checksums left to the kernel in the device's place, over real rings, verified by the kernel at the other end.

use super::{PATIENCE, config, wait};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use volley::frame::Burst;
use volley::net::packet::Packet;
use volley::port::Port;
use volley::port::af_xdp::{AfXdp, TxChecksum};
use volley_testlab::{ENGINE_IPV4, ENGINE_IPV6, Lab, LabOptions, PEER_IPV4, PEER_IPV6, require_root};

/// UDP datagrams that the peer's kernel has refused for their checksum, both families.
fn refused(lab: &Lab) -> u64 {
    let text = lab.peer().exec(["cat", "/proc/net/snmp", "/proc/net/snmp6"]);
    let mut lines = text.lines();
    let mut count = 0;
    while let Some(line) = lines.next() {
        if let Some(names) = line.strip_prefix("Udp: ").filter(|names| names.contains("InCsumErrors")) {
            let values = lines.next().unwrap().strip_prefix("Udp: ").unwrap();
            let column = names.split(' ').position(|name| name == "InCsumErrors").unwrap();
            count += values.split(' ').nth(column).unwrap().parse::<u64>().unwrap();
        }
        if let Some(value) = line.strip_prefix("Udp6InCsumErrors") {
            count += value.trim().parse::<u64>().unwrap();
        }
    }
    count
}

/// A packet whose checksum field holds the sum of the pseudo-header only, and where its UDP header begins.
fn unfinished(lab: &Lab, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> (Vec<u8>, usize) {
    let macs = (lab.engine_mac(), lab.peer_mac());
    let mut bytes = Packet { macs, ..Packet::new(from, to, payload) }.build();
    let udp = if from.is_ipv4() { 34 } else { 54 };
    let addresses = if from.is_ipv4() { 26..34 } else { 22..54 };
    let len = (8 + payload.len()) as u32;
    let mut sum = 17 + len;
    for pair in bytes[addresses].chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[udp + 6..udp + 8].copy_from_slice(&(sum as u16).to_be_bytes());
    (bytes, udp)
}

fn send(port: &mut AfXdp, bytes: &[u8], partial_at: Option<usize>) {
    let mut burst = Burst::new();
    assert_eq!(port.alloc(&mut burst, 1), 1);
    assert!(burst[0].set_len(bytes.len()));
    burst[0].bytes_mut().copy_from_slice(bytes);
    if let Some(udp) = partial_at {
        assert!(burst[0].set_partial_checksum(udp, false));
    }
    assert_eq!(port.tx(&mut burst), 1);
    wait(|| {
        port.flush();
        port.ledger().kernel_tx == 0
    });
}

#[test]
fn a_checksum_that_is_asked_for_is_finished_and_one_that_is_not_is_refused() {
    if !require_root() {
        return;
    }
    let lab = Lab::with(LabOptions { neighbours: true, peer_gro: true, ..LabOptions::default() });
    let mut config = config(lab.engine_if(), &[0]);
    config.tx_checksum = TxChecksum::Kernel;
    let mut port = lab.engine().run(|| AfXdp::open(&config).unwrap());
    assert!(port.info().tx_checksum);
    for (engine, peer) in
        [(ENGINE_IPV4.into(), PEER_IPV4.into()), (ENGINE_IPV6.into(), std::net::IpAddr::from(PEER_IPV6))]
    {
        let socket = lab.peer().run(|| UdpSocket::bind((peer, 0)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (from, to) = (SocketAddr::new(engine, 7777), socket.local_addr().unwrap());
        let mut buffer = [0; 2048];
        for len in [1, 18, 19, 1400] {
            let payload: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
            let (bytes, udp) = unfinished(&lab, from, to, &payload);
            let (before, until) = (refused(&lab), Instant::now() + PATIENCE);
            // Left as it is, the kernel at the other end throws it away: it does look.
            send(&mut port, &bytes, None);
            wait(|| {
                // Of a long one the sum is looked at while it is copied to who asks for it.
                assert!(socket.recv(&mut buffer).is_err(), "{len} bytes to {peer} arrived unfinished");
                refused(&lab) > before
            });
            let refused_now = refused(&lab);
            loop {
                assert!(Instant::now() < until, "{len} bytes to {peer} did not arrive");
                send(&mut port, &bytes, Some(udp));
                if let Ok(received) = socket.recv(&mut buffer) {
                    assert_eq!(buffer[..received], payload);
                    break;
                }
            }
            assert_eq!(refused(&lab), refused_now, "{len} bytes to {peer}");
        }
    }
    let stats = port.stats();
    assert_eq!((stats.invalid_descriptors, stats.tx_dropped), (0, 0), "{stats:?}");
    assert!(port.close().balances());
}
