//! The next hop's MAC, asked for on the link itself: there is no kernel to ask.
//!
//! The port is lent to the engine's own [`Net`], which asks by ARP or neighbour discovery, answers for the source meanwhile, and is then
//! closed. While packets are generated the link answers for the source itself.

use crate::datagram::{DatagramPort, SendError, turn};
use crate::net::standalone::{LocalAddress, StandaloneConfig};
use crate::net::{Net, NetConfig, Path};
use crate::port::Port;
use crate::time::Now;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;
use volley_wire::ethernet::Mac;

/// How long the next hop is asked: a link that comes up late, and its first questions lost, take seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the next hop is not known.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// Nobody says where it is.
    #[error(
        "{hop} does not answer on {device} when {source_address} asks where it is ({protocol}, for {} s): is it there, with that \
         address on that link? Name its MAC with --mac, another source with --source, or a router with --gateway",
        PATIENCE.as_secs()
    )]
    Silent {
        /// Who was asked for.
        hop: IpAddr,
        /// The device.
        device: String,
        /// Who asked.
        source_address: IpAddr,
        /// "ARP" or "neighbour discovery".
        protocol: &'static str,
    },
    /// The source is somebody else's.
    #[error("{0} is the address of another host on the link: choose one that is free with --source")]
    Taken(IpAddr),
    /// No source can be made up.
    #[error("no source address goes with {0}: give one with --source")]
    NoSource(IpAddr),
    /// The source cannot ask.
    #[error(
        "{hop} cannot be asked for from {source_address}: give a --source of its family, and a unicast one"
    )]
    NoWay {
        /// Who was to be asked for.
        hop: IpAddr,
        /// From where.
        source_address: IpAddr,
    },
    /// Stopped by whoever may.
    #[error("stopped while {0} was being asked for")]
    Stopped(IpAddr),
}

/// A source where none is given: the target's neighbour in number, which shares its link unless that is very narrow.
pub fn source_beside(target: IpAddr) -> Result<IpAddr, ResolveError> {
    let none = || ResolveError::NoSource(target);
    let unfit = target.is_loopback() || target.is_multicast() || target.is_unspecified();
    match target {
        _ if unfit => Err(none()),
        IpAddr::V4(four) if four.is_broadcast() => Err(none()),
        IpAddr::V4(four) => {
            let [a, b, c, last] = four.octets();
            // 0 and 255 are the link itself and everybody on it, if it is a /24.
            Ok(Ipv4Addr::new(a, b, c, if last < 254 { last + 1 } else { 253 }).into())
        }
        IpAddr::V6(six) => {
            let bits = u128::from(six);
            let beside = if bits & 0xffff == 0xffff { bits - 1 } else { bits + 1 };
            Ok(Ipv6Addr::from(beside).into())
        }
    }
}

/// Asks for the MAC of `hop` from `source` over `port`, which is closed then.
///
/// # Errors
/// See [`ResolveError`].
pub fn next_hop(
    port: Box<dyn Port>,
    source: IpAddr,
    hop: IpAddr,
    mac: Mac,
    stop: &AtomicBool,
) -> Result<Mac, ResolveError> {
    let no_way = || ResolveError::NoWay { hop, source_address: source };
    let standalone = StandaloneConfig {
        // Everybody of its family is on the link.
        addresses: vec![LocalAddress { address: source, prefix_len: 0, vlan: None }],
        mac: Some(mac),
        ..StandaloneConfig::default()
    };
    standalone.check().map_err(|_| no_way())?;
    let path = Path::to(0, SocketAddr::new(source, 9), SocketAddr::new(hop, 9)).ok_or_else(no_way)?;
    let device = port.info().name.clone();
    let mut net = Net::new(port, NetConfig { standalone: Some(standalone), ..NetConfig::default() });
    let begun = Instant::now();
    let outcome = loop {
        // A second later than nothing: deadlines of 0 are due at once.
        let now = Now { ns: 1_000_000_000 + begun.elapsed().as_nanos() as u64, ..Now::default() };
        turn(&mut net, now, |datagram| datagram.consume());
        match net.next_hop(&path) {
            Ok(found) => break Ok(found),
            Err(SendError::Unresolved) => {}
            Err(_) => break Err(no_way()),
        }
        if net.standalone_stats().is_some_and(|stats| stats.conflicts > 0) {
            break Err(ResolveError::Taken(source));
        }
        if stop.load(Ordering::Acquire) {
            break Err(ResolveError::Stopped(hop));
        }
        if begun.elapsed() > PATIENCE {
            let protocol = if hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
            break Err(ResolveError::Silent { hop, device, source_address: source, protocol });
        }
        std::thread::sleep(Duration::from_micros(100));
    };
    net.close();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{MemoryConfig, MemoryPort};

    #[test]
    fn a_source_is_a_neighbour_of_the_target() {
        for (target, source) in [
            ("10.0.0.1", "10.0.0.2"),
            ("10.0.0.254", "10.0.0.253"),
            ("10.0.0.255", "10.0.0.253"),
            ("fd00::1", "fd00::2"),
            ("fd00::ffff", "fd00::fffe"),
        ] {
            assert_eq!(source_beside(target.parse().unwrap()).unwrap(), source.parse::<IpAddr>().unwrap());
        }
        for bad in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "ff02::1"] {
            let error = source_beside(bad.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("--source") && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn who_cannot_or_may_not_ask_says_so() {
        let ask = |source: &str, hop: &str, stop: bool| {
            let (port, _wire) = MemoryPort::new(&MemoryConfig::default());
            let (source, hop) = (source.parse().unwrap(), hop.parse().unwrap());
            next_hop(Box::new(port), source, hop, [2; 6], &AtomicBool::new(stop)).unwrap_err().to_string()
        };
        assert!(ask("10.0.0.2", "10.0.0.1", true).contains("stopped while 10.0.0.1"));
        assert!(ask("224.0.0.1", "10.0.0.1", false).contains("--source"));
        assert!(ask("fd00::1", "10.0.0.1", false).contains("--source"));
    }
}
