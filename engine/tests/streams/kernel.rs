//! Over the kernel's TCP, by epoll and by io_uring, without privilege: two workers share the port.

use crate::client::{assert_echoes, connect, output};
use crate::http::Http;
use crate::options::{Setter, assert_set};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use volley::app::tcp::TcpEcho;
use volley::app::{Beside, Echo};
use volley::engine::config::{Io, Numbers, Ports, Tcp};
use volley::engine::{Config, Engine};
use volley_testlab::free_port;

/// What carries UDP, and what TCP then goes over.
const BOTH: [(Io, &str); 2] = [(Io::Mmsg, "tcp epoll"), (Io::IoUring, "tcp io-uring")];

fn config(io: Io, port: u16, workers: u16) -> Config {
    Config {
        io,
        ports: Ports(port..=port),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        workers: Some(workers),
        cores: Numbers::default(),
        pin: false,
        tcp: Some(Tcp { ports: Ports(port..=port), connections: Some(64), ..Tcp::default() }),
        ..Config::default()
    }
}

#[test]
fn udp_and_tcp_are_echoed_side_by_side_by_two_workers() {
    BOTH.into_iter().for_each(|(io, name)| echo_side_by_side(io, name));
}

fn echo_side_by_side(io: Io, name: &str) {
    let port = free_port();
    let engine = Engine::start(config(io, port, 2), |_| Beside(Echo, TcpEcho::default())).unwrap();
    assert!(engine.description().contains(name), "{}", engine.description());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let streams: Vec<_> = (0..16).map(|_| connect(address)).collect();
    for stream in &streams {
        assert_echoes(stream, 100_000);
    }
    let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    udp.set_read_timeout(Some(crate::client::PATIENCE)).unwrap();
    udp.send_to(b"hello", address).unwrap();
    assert_eq!(udp.recv(&mut [0; 16]).unwrap(), 5);
    drop(streams);
    let error = Engine::start(config(io, port, 1), |_| Beside(Echo, TcpEcho::default())).err().unwrap();
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    let report = engine.stop().unwrap();
    let streams = report.total.streams;
    assert_eq!((streams.accepted, streams.open), (16, 0), "{report}");
    assert_eq!(streams.received_bytes, streams.sent_bytes, "{report}");
    let over = if io == Io::IoUring { "over io_uring: " } else { "over epoll: " };
    let said = report.to_string();
    assert!(said.contains("16 accepted") && said.contains(over), "{report}");
    assert!(report.workers.iter().all(|w| w.ports.iter().any(|p| p.name.name == name)), "{report}");
}

#[test]
fn options_are_set_and_what_the_kernel_has_not_is_named() {
    for (io, _) in BOTH {
        let port = free_port();
        let engine = Engine::start(config(io, port, 1), |_| Beside(Echo, Setter)).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_set(address, "set; this port does not support a low-water mark");
        engine.stop().unwrap();
    }
}

#[test]
fn more_connections_than_descriptors_are_refused_at_the_start() {
    let tcp = Tcp { connections: Some(u32::MAX), ..Tcp::default() };
    let config = Config { tcp: Some(tcp), ..config(Io::Mmsg, free_port(), 1) };
    let error = Engine::start(config, |_| Beside(Echo, TcpEcho::default())).err().unwrap().to_string();
    assert!(error.contains("RLIMIT_NOFILE") && error.contains("--tcp-connections"), "{error}");
}

#[test]
fn http_over_the_kernels_tcp_is_understood_by_curl_and_by_hand() {
    BOTH.into_iter().for_each(|(io, _)| http_by_curl_and_by_hand(io));
}

fn http_by_curl_and_by_hand(io: Io) {
    let port = free_port();
    let engine = Engine::start(config(io, port, 1), |_| Beside(Echo, Http::default())).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "30", &format!("http://127.0.0.1:{port}/bytes/3000000")]);
    assert_eq!(output(curl).len(), 3_000_000);
    let exchange = |request: &[u8]| {
        let mut stream = connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        // Byte by byte: a request may come in any number of pieces.
        request.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let two = exchange(b"GET / HTTP/1.1\r\n\r\nHEAD /bytes/7 HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(two.matches("200 OK").count(), 2, "{two}");
    assert!(two.contains("says hello") && two.contains("Content-Length: 7\r\nConnection: close"), "{two}");
    assert!(exchange(b"GET / HTTP/1.0\r\n\r\n").ends_with("says hello\n"));
    assert!(exchange(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").starts_with("HTTP/1.1 413"));
    assert!(exchange(b"BREW / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(exchange(b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(exchange(b"GET /none HTTP/1.1\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(exchange(&[b'a'; 9000]).starts_with("HTTP/1.1 431"));
    engine.stop().unwrap();
}
