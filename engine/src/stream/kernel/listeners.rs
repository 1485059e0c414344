//! The listening sockets of a port, and the descriptor kept in reserve.

use super::StreamConfig;
use super::ending::reset;
use super::open::{self, StreamOpenError};
use crate::stream::StreamStats;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{self, SockFlag};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// One listener for each address.
pub(super) struct Listeners {
    sockets: Vec<(OwnedFd, SocketAddr)>,
    /// Given up for a moment when no descriptor is left, so that a client can be turned away rather than left hanging.
    spare: Option<OwnedFd>,
    /// It was said that descriptors are short; every client that is turned away is counted, too.
    said: bool,
}

/// What an attempt to accept came to.
pub(super) enum Accepted {
    /// A connection.
    Connection(OwnedFd),
    /// One was turned away: no descriptor is left for it.
    TurnedAway,
    /// A connection that was reset before we came to it; the next is fine.
    Aborted,
    /// There is none.
    None,
}

impl Listeners {
    /// Listens on each of `addresses`, at least one.
    pub fn open(addresses: &[SocketAddr], config: &StreamConfig) -> Result<Listeners, StreamOpenError> {
        if addresses.is_empty() {
            return Err(StreamOpenError::NoAddress);
        }
        let listen = |&address: &SocketAddr| {
            let fd = open::listener(address, config)?;
            let local = open::local_address(&fd).unwrap_or(address);
            Ok((fd, local))
        };
        let sockets = addresses.iter().map(listen).collect::<Result<_, StreamOpenError>>()?;
        Ok(Listeners { sockets, ..Listeners::none()? })
    }

    /// Listens nowhere.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn none() -> Result<Listeners, StreamOpenError> {
        let spare =
            spare().map_err(|errno| StreamOpenError::Setup { call: "a spare descriptor", errno })?;
        Ok(Listeners { sockets: Vec::new(), spare: Some(spare), said: false })
    }

    /// Each socket.
    pub fn sockets(&self) -> impl Iterator<Item = &OwnedFd> {
        self.sockets.iter().map(|(fd, _)| fd)
    }

    /// Where they listen, with the port the kernel chose for port 0.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.sockets.iter().map(|(_, address)| *address)
    }

    /// Accepts a connection from the listener with that index, or turns it away.
    pub fn accept(&mut self, index: usize, stats: &mut StreamStats) -> Accepted {
        let Some((listener, _)) = self.sockets.get(index) else { return Accepted::None };
        stats.calls += 1;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        match socket::accept4(listener.as_raw_fd(), flags) {
            // SAFETY: a fresh descriptor, ours alone.
            Ok(fd) => Accepted::Connection(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(Errno::EMFILE | Errno::ENFILE) => match self.turn_away(index, stats) {
                true => Accepted::TurnedAway,
                false => Accepted::None,
            },
            Err(Errno::ECONNABORTED | Errno::EINTR | Errno::EPROTO) => Accepted::Aborted,
            Err(_) => Accepted::None,
        }
    }

    /// No descriptor is left: closes the spare one, takes a client with its number, and resets it. False when there was none.
    fn turn_away(&mut self, index: usize, stats: &mut StreamStats) -> bool {
        self.spare = None;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let client = socket::accept4(self.sockets[index].0.as_raw_fd(), flags);
        if let Ok(fd) = client {
            if !std::mem::replace(&mut self.said, true) {
                let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
                log::warn!(
                    "TCP {}: no descriptor is left (RLIMIT_NOFILE is {limit}): clients are turned away until connections end; raise \
                     the limit, or lower --tcp-connections",
                    self.sockets[index].1
                );
            }
            // SAFETY: a fresh descriptor, ours alone.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            reset(&fd);
            stats.refused_descriptors += 1;
        }
        self.spare = spare().ok();
        stats.calls += 3;
        client.is_ok()
    }

    /// Listens no more. Clients the kernel has accepted in our name are reset by this; new ones are refused.
    pub fn close(&mut self) {
        self.sockets.clear();
    }
}

fn spare() -> Result<OwnedFd, Errno> {
    EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).map(OwnedFd::from)
}
