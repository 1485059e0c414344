//! Opening UDP sockets: options, bind, and errors that say who is in the way.

use super::{Bound, SocketConfig, SocketError, spread};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// One bound socket. With a wildcard address each message carries the address it was sent to.
pub(crate) struct Socket {
    fd: OwnedFd,
    pub(crate) bound: Bound,
}

impl Socket {
    /// Opens a socket for each of `addresses`.
    ///
    /// # Errors
    /// The first that cannot be opened; none is bound then.
    pub(crate) fn open_all(
        addresses: &[SocketAddr],
        gro: bool,
        config: &SocketConfig,
    ) -> Result<Vec<Socket>, SocketError> {
        let open =
            |(index, address): (usize, &SocketAddr)| Socket::open(*address, index as u16, gro, config);
        addresses.iter().enumerate().map(open).collect()
    }

    /// Opens a non-blocking socket bound to `address`.
    fn open(
        address: SocketAddr,
        index: u16,
        gro: bool,
        config: &SocketConfig,
    ) -> Result<Socket, SocketError> {
        let call = |call| move |errno: Errno| SocketError::Call { address, call, errno: errno.into() };
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(family, SockType::Datagram, flags, None)
            .map_err(|errno| SocketError::of_socket(address, errno.into()))?;
        if address.is_ipv6() {
            // IPv4 has a socket of its own, whose answers need no mapped addresses.
            setsockopt(&fd, sockopt::Ipv6V6Only, &true).map_err(call("IPV6_V6ONLY"))?;
        }
        if config.reuse_port {
            setsockopt(&fd, sockopt::ReusePort, &true).map_err(call("SO_REUSEPORT"))?;
        }
        let wildcard = address.ip().is_unspecified();
        match address {
            SocketAddr::V4(_) if wildcard => setsockopt(&fd, sockopt::Ipv4PacketInfo, &true),
            SocketAddr::V6(_) if wildcard => setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true),
            _ => Ok(()),
        }
        .map_err(call("IP_PKTINFO"))?;
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it the kernel gives what it allows.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &config.receive_buffer)
            .or_else(|_| setsockopt(&fd, sockopt::RcvBuf, &config.receive_buffer));
        let _ = setsockopt(&fd, sockopt::SndBufForce, &config.send_buffer)
            .or_else(|_| setsockopt(&fd, sockopt::SndBuf, &config.send_buffer));
        if gro {
            setsockopt(&fd, sockopt::UdpGroSegment, &true).map_err(call("UDP_GRO"))?;
        }
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
            .map_err(|errno| SocketError::of_bind(address, errno.into()))?;
        if config.joinable {
            setsockopt(&fd, sockopt::ReusePort, &true).map_err(call("SO_REUSEPORT"))?;
        }
        if config.reuse_port {
            spread::apply(&fd, address.is_ipv4(), &config.group)
                .map_err(|(by, errno)| SocketError::Spread { address, by, errno })?;
        }
        let bound: SockaddrStorage = socket::getsockname(fd.as_raw_fd()).map_err(call("getsockname"))?;
        let port = bound
            .as_sockaddr_in()
            .map(|v4| v4.port())
            .or_else(|| bound.as_sockaddr_in6().map(|v6| v6.port()))
            .unwrap_or(address.port());
        Ok(Socket { fd, bound: Bound::new(SocketAddr::new(address.ip(), port), index, config) })
    }

    pub(crate) fn as_fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
