//! Free ports of the machine itself, for the tests that need no namespace.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range that the kernel gives out by default (32768–60999): what it gave to another test's client is not free.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;
const TABLES: [&str; 4] = ["/proc/net/udp", "/proc/net/udp6", "/proc/net/tcp", "/proc/net/tcp6"];

/// A port that no socket of this network namespace has, UDP or TCP, and that this process gets once.
///
/// It looks into the kernel's tables and binds nothing: between `fork` and `exec` a child that another test starts at that
/// moment would hold the probing socket, and with it the port, for longer than the probe does.
///
/// # Panics
///
/// When all are taken.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test processes that run side by side begin at different ports.
    let begin = std::process::id().wrapping_mul(101);
    (0..COUNT)
        .map(|_| FIRST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .map(|port| u16::try_from(port).expect("below 30,000"))
        .find(|port| {
            !TABLES.iter().any(|table| holds(&fs::read_to_string(table).unwrap_or_default(), *port))
        })
        .expect("a port between 10,000 and 29,999 that nothing has")
}

/// Whether a socket of this table (proc(5), `/proc/net/udp`) has this local port.
fn holds(table: &str, port: u16) -> bool {
    let end = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn what_is_given_can_be_bound_and_is_given_once() {
        let ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
        for (at, port) in ports.iter().enumerate() {
            assert!(!ports[..at].contains(port));
            UdpSocket::bind(("127.0.0.1", *port)).unwrap();
            TcpListener::bind(("127.0.0.1", *port)).unwrap();
        }
    }

    #[test]
    fn a_port_that_a_socket_has_is_seen() {
        let port = free_port();
        let udp = || fs::read_to_string("/proc/net/udp").unwrap();
        assert!(!holds(&udp(), port));
        let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        assert!(holds(&udp(), port));
        drop(socket);
        let tcp = TcpListener::bind(("::1", port)).unwrap();
        assert!(holds(&fs::read_to_string("/proc/net/tcp6").unwrap(), port));
        drop(tcp);
    }
}
