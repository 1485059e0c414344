//! Opening TCP listeners: options, the descriptor limit, and errors that say who is in the way.

use super::StreamConfig;
use crate::datagram::socket::holder::tcp_holder;
use crate::host::Tree;
use crate::host::process::Holder;
use crate::stream::StreamError;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Connections when none are named and the descriptor limit allows.
pub const CONNECTIONS: u32 = 16_384;

/// Descriptors a process needs besides its connections: rings, sockets, maps, log, and a library's odd file.
const OTHER_DESCRIPTORS: u64 = 128;

/// Connections the kernel completes before we accept them; it takes at most net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Why a kernel stream port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamOpenError {
    /// Somebody else has the port.
    #[error("TCP {address} is taken by {}: stop it, or choose another address or port", held_by(.holder))]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// Who has it, when we may see it.
        holder: Option<Holder>,
    },
    /// No interface has the address.
    #[error("TCP {address}: no interface here has that address (`ip address` lists them)")]
    NoSuchAddress {
        /// The address asked for.
        address: SocketAddr,
    },
    /// A port below 1024 without the privilege.
    #[error("TCP {address}: ports below 1024 need CAP_NET_BIND_SERVICE: choose another, or run as root")]
    Privileged {
        /// The address asked for.
        address: SocketAddr,
    },
    /// More connections than descriptors.
    #[error(
        "{connections} TCP connections need {needed} descriptors, but RLIMIT_NOFILE is {limit} here and cannot be raised: \
         lower --tcp-connections, raise the limit (`ulimit -Hn`, LimitNOFILE=), or run several processes on the port"
    )]
    Descriptors {
        /// Connections asked for.
        connections: u64,
        /// Descriptors they need, with everything else.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// Any other failure.
    #[error("TCP {address}: {call}: {errno}")]
    Call {
        /// The address asked for.
        address: SocketAddr,
        /// The call, or the option that was set.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// io_uring cannot be had.
    #[error("{0}; choose --tcp-io epoll")]
    IoUring(#[from] crate::uring::UringError),
    /// No address was given.
    #[error("no TCP address to bind: give at least one")]
    NoAddress,
    /// The readiness descriptor or the spare one cannot be made.
    #[error("TCP port: {call}: {errno}")]
    Setup {
        /// The call.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
}

fn held_by(holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => holder.to_string(),
        None => "a process that this one may not see (`ss -tlpn` as root names it)".to_owned(),
    }
}

/// How many connections each of `ports` stream ports of this process may have, after raising the soft descriptor limit as far as
/// that needs. All the ports' connections are counted together: they share the process's limit.
///
/// # Errors
/// [`StreamOpenError::Descriptors`] when that many were asked for and the hard limit is in the way.
pub fn connections(config: &StreamConfig, ports: u32) -> Result<u32, StreamOpenError> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| StreamOpenError::Setup { call: "getrlimit", errno })?;
    let most = limited(config.connections, ports, hard)?;
    let needed = u64::from(most) * u64::from(ports) + OTHER_DESCRIPTORS;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard)
            .map_err(|errno| StreamOpenError::Setup { call: "setrlimit(RLIMIT_NOFILE)", errno })?;
    }
    Ok(most)
}

fn limited(asked: Option<u32>, ports: u32, hard: u64) -> Result<u32, StreamOpenError> {
    let ports = u64::from(ports.max(1));
    match asked {
        Some(connections) => {
            let connections = u64::from(connections) * ports;
            let needed = connections + OTHER_DESCRIPTORS;
            match needed <= hard {
                true => Ok((connections / ports) as u32),
                false => Err(StreamOpenError::Descriptors { connections, needed, limit: hard }),
            }
        }
        None => {
            let room = hard.saturating_sub(OTHER_DESCRIPTORS) / ports;
            match room {
                0 => Err(StreamOpenError::Descriptors {
                    connections: ports,
                    needed: OTHER_DESCRIPTORS + ports,
                    limit: hard,
                }),
                room => Ok(room.min(u64::from(CONNECTIONS)) as u32),
            }
        }
    }
}

/// A socket that listens on `address`, with every option its connections inherit: non-blocking itself, 256 KiB buffers, no delay,
/// keep-alive.
///
/// # Errors
/// See [`StreamOpenError`].
pub fn listener(address: SocketAddr, config: &StreamConfig) -> Result<OwnedFd, StreamOpenError> {
    // A port whose last connections wait in TIME-WAIT is free; one that somebody listens on is not.
    let fd = bound(address, config, true)?;
    let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
    socket::listen(&fd, backlog).map_err(|errno| refused(address, "listen", errno))?;
    Ok(fd)
}

/// A socket that reserves `address` and does not listen: nobody else may bind it, and the kernel answers a SYN that reaches it all
/// the same with a reset, as for a closed port.
///
/// # Errors
/// See [`StreamOpenError`].
pub fn reserve(address: SocketAddr) -> Result<OwnedFd, StreamOpenError> {
    bound(address, &StreamConfig::default(), false)
}

fn bound(address: SocketAddr, config: &StreamConfig, reuse: bool) -> Result<OwnedFd, StreamOpenError> {
    let call = |call| move |errno| StreamOpenError::Call { address, call, errno };
    let fd = stream_socket(address, config).map_err(|(name, errno)| call(name)(errno))?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own: peers' addresses then are what they are.
        setsockopt(&fd, sockopt::Ipv6V6Only, &true).map_err(call("IPV6_V6ONLY"))?;
    }
    setsockopt(&fd, sockopt::ReuseAddr, &reuse).map_err(call("SO_REUSEADDR"))?;
    if config.reuse_port {
        setsockopt(&fd, sockopt::ReusePort, &true).map_err(call("SO_REUSEPORT"))?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
        .map_err(|errno| refused(address, "bind", errno))?;
    Ok(fd)
}

/// A non-blocking TCP socket with the options of every connection.
///
/// # Errors
/// The call, and what it failed with.
pub fn stream_socket(address: SocketAddr, config: &StreamConfig) -> Result<OwnedFd, (&'static str, Errno)> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(family, SockType::Stream, flags, None).map_err(|errno| ("socket", errno))?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true).map_err(|errno| ("TCP_NODELAY", errno))?;
    setsockopt(&fd, sockopt::KeepAlive, &true).map_err(|errno| ("SO_KEEPALIVE", errno))?;
    let secs = config.keep_alive_secs.max(1);
    setsockopt(&fd, sockopt::TcpKeepIdle, &secs).map_err(|errno| ("TCP_KEEPIDLE", errno))?;
    setsockopt(&fd, sockopt::TcpKeepInterval, &(secs / 3).max(1))
        .map_err(|errno| ("TCP_KEEPINTVL", errno))?;
    setsockopt(&fd, sockopt::TcpKeepCount, &3).map_err(|errno| ("TCP_KEEPCNT", errno))?;
    // Beyond net.core.*mem_max only with CAP_NET_ADMIN; without it the kernel gives what it allows.
    let _ = setsockopt(&fd, sockopt::RcvBufForce, &config.buffer)
        .or_else(|_| setsockopt(&fd, sockopt::RcvBuf, &config.buffer));
    let _ = setsockopt(&fd, sockopt::SndBufForce, &config.buffer)
        .or_else(|_| setsockopt(&fd, sockopt::SndBuf, &config.buffer));
    Ok(fd)
}

/// A socket on its way to `remote`, and its local address as far as it is known.
///
/// # Errors
/// What can be known at once.
pub(super) fn dial(
    local: Option<SocketAddr>,
    remote: SocketAddr,
    config: &StreamConfig,
) -> Result<(OwnedFd, SocketAddr), StreamError> {
    let refused = |errno| match errno {
        Errno::EADDRINUSE | Errno::EADDRNOTAVAIL => StreamError::NoPort,
        Errno::EMFILE | Errno::ENFILE => StreamError::Full,
        _ => StreamError::NoRoute,
    };
    let fd = stream_socket(remote, config).map_err(|(_, errno)| refused(errno))?;
    if let Some(local) = local {
        // Leaves the choice of the port to `connect`, which knows the peer: more connections from one address.
        let _ = setsockopt(&fd, sockopt::IpBindAddressNoPort, &(local.port() == 0));
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(local)).map_err(refused)?;
    }
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(refused(errno)),
    }
    let local = local.or_else(|| local_address(&fd)).unwrap_or(remote);
    Ok((fd, local))
}

fn refused(address: SocketAddr, call: &'static str, errno: Errno) -> StreamOpenError {
    match errno {
        Errno::EADDRINUSE => StreamOpenError::InUse { address, holder: tcp_holder(&Tree::root(), address) },
        Errno::EADDRNOTAVAIL => StreamOpenError::NoSuchAddress { address },
        Errno::EACCES if address.port() < 1024 => StreamOpenError::Privileged { address },
        errno => StreamOpenError::Call { address, call, errno },
    }
}

/// The address a socket is bound to, or connected from.
pub fn local_address(fd: &OwnedFd) -> Option<SocketAddr> {
    address(&socket::getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok()?)
}

/// The address a socket is connected to.
pub fn peer_address(fd: &OwnedFd) -> Option<SocketAddr> {
    address(&socket::getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok()?)
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_limit_is_named() {
        let error = limited(Some(100_000), 1, 20_000).unwrap_err().to_string();
        for part in ["100000 TCP connections", "100128", "RLIMIT_NOFILE is 20000", "--tcp-connections"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert_eq!(limited(Some(19_000), 1, 20_000).unwrap(), 19_000);
        assert!(limited(Some(10_000), 2, 20_000).is_err(), "two ports share one limit");
        assert_eq!(limited(None, 1, 1024).unwrap(), 896);
        assert_eq!(limited(None, 2, 1 << 20).unwrap(), CONNECTIONS);
        assert!(limited(None, 1, 100).is_err());
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let config = StreamConfig::default();
        let first = listener("127.0.0.1:0".parse().unwrap(), &config).unwrap();
        let address = local_address(&first).unwrap();
        let error = listener(address, &config).unwrap_err().to_string();
        let pid = std::process::id().to_string();
        assert!(error.contains(&address.to_string()) && error.contains(&pid), "{error}");
        assert!(matches!(reserve(address), Err(StreamOpenError::InUse { .. })));
        drop(first);
        let reserved = reserve(address).unwrap();
        assert!(matches!(listener(address, &config), Err(StreamOpenError::InUse { .. })));
        assert!(std::net::TcpStream::connect(address).is_err(), "the kernel resets");
        drop(reserved);
        let error = listener("192.0.2.77:9".parse().unwrap(), &config).unwrap_err();
        assert!(matches!(error, StreamOpenError::NoSuchAddress { .. }), "{error}");
    }
}
