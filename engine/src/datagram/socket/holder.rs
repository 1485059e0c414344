//! Who holds a UDP or TCP port: /proc/net/udp (tcp) names the socket's inode, /proc/PID/fd the process that has it open.

use crate::host::Tree;
use crate::host::process::{Holder, holder_of_socket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The process that holds a UDP socket in the way of binding `address`, as far as /proc shows it to us.
///
/// `None` too when the socket is another user's, another container's, or the kernel's own.
pub fn udp_holder(tree: &Tree, address: SocketAddr) -> Option<Holder> {
    holder(tree, ["udp", "udp6"], address)
}

/// The same for TCP: who listens, or has connections on, `address`. A socket that is bound and does neither is in no table.
pub fn tcp_holder(tree: &Tree, address: SocketAddr) -> Option<Holder> {
    holder(tree, ["tcp", "tcp6"], address)
}

fn holder(tree: &Tree, tables: [&str; 2], address: SocketAddr) -> Option<Holder> {
    // Of the thread, whose network namespace may differ from its process's.
    let tables = tables.map(|table| tree.text(&format!("proc/thread-self/net/{table}")));
    let sockets = tables.iter().flatten().flat_map(|table| sockets(table));
    let in_the_way: Vec<_> = sockets.filter(|(bound, _)| collide(*bound, address)).collect();
    in_the_way.into_iter().find_map(|(_, inode)| holder_of_socket(tree, inode))
}

/// The sockets of a /proc/net/udp or udp6: bound address and inode.
fn sockets(table: &str) -> Vec<(SocketAddr, u64)> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (ip, port) = fields.nth(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((SocketAddr::new(address(ip)?, port), fields.nth(7)?.parse().ok()?))
    };
    table.lines().skip(1).filter_map(parse).collect()
}

/// An address as /proc/net prints it: 32-bit words, each in the machine's byte order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into())
        }
        _ => None,
    }
}

/// A wildcard socket takes the port on every address of its family, and an IPv6 one usually on IPv4 too.
fn collide(bound: SocketAddr, wanted: SocketAddr) -> bool {
    let (one, other) = (bound.ip().to_canonical(), wanted.ip().to_canonical());
    bound.port() == wanted.port()
        && (one == other
            || (one.is_unspecified() && (bound.is_ipv6() || wanted.is_ipv4()))
            || (other.is_unspecified() && one.is_ipv4() == other.is_ipv4()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::recorded;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_recorded_proc_names_the_process() {
        let head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
        let udp = "  512: 01004D0A:1E61 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n";
        let udp6 = "  513: 000077FD000000000000000001000000:1E62 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0\n";
        let (dir, tree) = recorded(&[
            ("proc/thread-self/net/udp", &format!("{head}{udp}")),
            ("proc/thread-self/net/udp6", &format!("{head}{udp6}")),
            ("proc/812/comm", "game-server\n"),
            ("proc/812/fd/x", ""),
        ]);
        std::os::unix::fs::symlink("socket:[4711]", dir.path().join("proc/812/fd/3")).unwrap();

        let holder = |address: &str| udp_holder(&tree, address.parse().unwrap());
        let expected = Some(Holder { pid: 812, name: "game-server".to_owned() });
        assert_eq!(holder("10.77.0.1:7777"), expected);
        assert_eq!(holder("0.0.0.0:7777"), expected);
        assert_eq!(holder("10.77.0.2:7777"), None, "another address");
        assert_eq!(holder("10.77.0.1:7776"), None, "another port");
        assert_eq!(holder("[fd77::1]:7778"), None, "its process is out of sight");
        assert_eq!(sockets(&format!("{head}{udp6}")), [("[fd77::1]:7778".parse().unwrap(), 4712)]);
    }

    #[test]
    fn wildcards_are_in_the_way() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("0.0.0.0:1", "127.0.0.1:1") && collide("[::]:1", "127.0.0.1:1"));
        assert!(collide("127.0.0.1:1", "0.0.0.0:1") && collide("[::1]:1", "[::]:1"));
        assert!(!collide("0.0.0.0:1", "[::1]:1") && !collide("127.0.0.1:1", "[::]:1"));
    }
}
