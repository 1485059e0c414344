//! Opening UDP sockets: options, bind, and errors that say who is in the way.

use super::SocketConfig;
use super::holder::udp_holder;
use crate::host::Tree;
use crate::host::process::Holder;
use crate::net::Path;
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Why a kernel socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else has the port.
    #[error("UDP {address} is taken by {}: stop it, or choose another address or port", held_by(.holder))]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// Who has it, when we may see it.
        holder: Option<Holder>,
    },
    /// No interface has the address.
    #[error("UDP {address}: no interface here has that address (`ip address` lists them)")]
    NoSuchAddress {
        /// The address asked for.
        address: SocketAddr,
    },
    /// A port below 1024 without the privilege.
    #[error("UDP {address}: ports below 1024 need CAP_NET_BIND_SERVICE: choose another, or run as root")]
    Privileged {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Any other failure.
    #[error("UDP {address}: {call}: {errno}")]
    Call {
        /// The address asked for.
        address: SocketAddr,
        /// The call, or the option that was set.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// No address was given.
    #[error("no UDP address to bind: give at least one")]
    NoAddress,
    /// The epoll descriptor cannot be made.
    #[error("epoll: {0}")]
    Epoll(Errno),
}

fn held_by(holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => holder.to_string(),
        None => "a process that this one may not see (`ss -ulpn` as root names it)".to_owned(),
    }
}

/// One bound socket.
pub(crate) struct Socket {
    fd: OwnedFd,
    local: SocketAddr,
    /// Bound to no address of its own: each message carries the one it was sent to.
    pub(crate) wildcard: bool,
    /// The path of this socket's datagrams, the peer not filled in. Its queue is the socket's index.
    pub(crate) template: Path,
}

impl Socket {
    /// Opens a non-blocking socket bound to `address`.
    pub(super) fn open(
        address: SocketAddr,
        index: u16,
        gro: bool,
        config: &SocketConfig,
    ) -> Result<Socket, SocketError> {
        let call = |call| move |errno| SocketError::Call { address, call, errno };
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(family, SockType::Datagram, flags, None).map_err(call("socket"))?;
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
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).map_err(|errno| match errno {
            Errno::EADDRINUSE => SocketError::InUse { address, holder: udp_holder(&Tree::root(), address) },
            Errno::EADDRNOTAVAIL => SocketError::NoSuchAddress { address },
            Errno::EACCES if address.port() < 1024 => SocketError::Privileged { address },
            errno => SocketError::Call { address, call: "bind", errno },
        })?;
        let bound: SockaddrStorage = socket::getsockname(fd.as_raw_fd()).map_err(call("getsockname"))?;
        let port = bound
            .as_sockaddr_in()
            .map(|v4| v4.port())
            .or_else(|| bound.as_sockaddr_in6().map(|v6| v6.port()))
            .unwrap_or(address.port());
        let local = SocketAddr::new(address.ip(), port);
        let mut template = Path::to(config.port, local, local).expect("one address is of one family");
        template.queue = index;
        Ok(Socket { fd, local, wildcard, template })
    }

    /// The address it is bound to.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// True when datagrams over `path` may leave here.
    #[inline]
    pub(super) fn serves(&self, path: &Path) -> bool {
        let own = &self.template;
        own.local_port == path.local_port
            && own.is_ipv4() == path.is_ipv4()
            && (self.wildcard || own.local == path.local)
    }

    pub(super) fn as_fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
