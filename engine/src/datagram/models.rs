//! The I/O models over kernel sockets: one type each, one list of all.
//!
//! | model | who is ready | how datagrams move |
//! | --- | --- | --- |
//! | `select` | select(2), descriptors below 1,024 | recvfrom, sendto |
//! | `poll` | poll(2) | recvfrom, sendto |
//! | `epoll` | epoll, level-triggered | recvfrom, sendto |
//! | `epoll-et` | epoll, edge-triggered | recvfrom, sendto |
//! | `mmsg` | epoll, level-triggered | recvmmsg, sendmmsg |
//! | `gso` | epoll, level-triggered | recvmmsg, sendmmsg, UDP GRO and GSO |
//! | `io-uring` | – | multishot receive, sends in one submission |
//! | `mio` | epoll, kqueue or IOCP, by system | recv_from, send_to; everywhere |

use super::DatagramPort;
use super::mio::Mio;
use super::socket::{SocketConfig, SocketError, SocketPort};
#[cfg(target_os = "linux")]
use super::{mmsg, one_by_one, readiness, uring};
use std::net::SocketAddr;

#[cfg(target_os = "linux")]
mod linux {
    use super::mmsg::Batched;
    use super::one_by_one::OneByOne;
    use super::readiness::{Epoll, Poll, Ready, Select};
    use super::{SocketPort, uring};

    /// select, recvfrom and sendto.
    pub type SelectPort = SocketPort<Ready<Select, OneByOne>>;
    /// poll, recvfrom and sendto.
    pub type PollPort = SocketPort<Ready<Poll, OneByOne>>;
    /// epoll, recvfrom and sendto.
    pub type EpollPort = SocketPort<Ready<Epoll<false>, OneByOne>>;
    /// Edge-triggered epoll, recvfrom and sendto.
    pub type EpollEtPort = SocketPort<Ready<Epoll<true>, OneByOne>>;
    /// epoll, recvmmsg and sendmmsg; with [`super::SocketConfig::gso`] and `gro` also the model `gso`.
    pub type MmsgPort = SocketPort<Ready<Epoll<false>, Batched>>;
    /// io_uring.
    pub type UringPort = SocketPort<uring::Uring>;
}
#[cfg(target_os = "linux")]
pub use linux::*;

/// mio, on every system that it knows.
pub type MioPort = SocketPort<Mio>;

/// An I/O model over kernel sockets. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SocketModel {
    #[cfg(target_os = "linux")]
    Select,
    #[cfg(target_os = "linux")]
    Poll,
    #[cfg(target_os = "linux")]
    Epoll,
    #[cfg(target_os = "linux")]
    EpollEt,
    #[cfg(target_os = "linux")]
    Mmsg,
    #[cfg(target_os = "linux")]
    Gso,
    #[cfg(target_os = "linux")]
    IoUring,
    Mio,
}

/// A port just opened.
pub struct OpenPort {
    /// The port.
    pub port: Box<dyn DatagramPort>,
    /// The addresses its sockets are bound to, in the order they were given.
    pub addresses: Vec<SocketAddr>,
}

impl SocketModel {
    /// Every model there is on this system.
    pub const ALL: &'static [SocketModel] = &[
        #[cfg(target_os = "linux")]
        SocketModel::Select,
        #[cfg(target_os = "linux")]
        SocketModel::Poll,
        #[cfg(target_os = "linux")]
        SocketModel::Epoll,
        #[cfg(target_os = "linux")]
        SocketModel::EpollEt,
        #[cfg(target_os = "linux")]
        SocketModel::Mmsg,
        #[cfg(target_os = "linux")]
        SocketModel::Gso,
        #[cfg(target_os = "linux")]
        SocketModel::IoUring,
        SocketModel::Mio,
    ];

    /// Its name, as `--io` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            #[cfg(target_os = "linux")]
            SocketModel::Select => "select",
            #[cfg(target_os = "linux")]
            SocketModel::Poll => "poll",
            #[cfg(target_os = "linux")]
            SocketModel::Epoll => "epoll",
            #[cfg(target_os = "linux")]
            SocketModel::EpollEt => "epoll-et",
            #[cfg(target_os = "linux")]
            SocketModel::Mmsg => "mmsg",
            #[cfg(target_os = "linux")]
            SocketModel::Gso => "gso",
            #[cfg(target_os = "linux")]
            SocketModel::IoUring => "io-uring",
            SocketModel::Mio => "mio",
        }
    }

    /// True when a datagram on a wildcard address says which of our addresses it was sent to, so that its answer leaves from there.
    pub fn tells_local_address(self) -> bool {
        self != SocketModel::Mio
    }

    /// Binds a socket to each of `addresses`. Port 0 takes a free one.
    ///
    /// # Errors
    /// See [`SocketError`]; nothing is bound then.
    pub fn open(self, addresses: &[SocketAddr], config: &SocketConfig) -> Result<OpenPort, SocketError> {
        match self {
            #[cfg(target_os = "linux")]
            SocketModel::Select => SelectPort::open(addresses, config).map(OpenPort::of),
            #[cfg(target_os = "linux")]
            SocketModel::Poll => PollPort::open(addresses, config).map(OpenPort::of),
            #[cfg(target_os = "linux")]
            SocketModel::Epoll => EpollPort::open(addresses, config).map(OpenPort::of),
            #[cfg(target_os = "linux")]
            SocketModel::EpollEt => EpollEtPort::open(addresses, config).map(OpenPort::of),
            #[cfg(target_os = "linux")]
            SocketModel::Mmsg => MmsgPort::open(addresses, config).map(OpenPort::of),
            #[cfg(target_os = "linux")]
            SocketModel::Gso => {
                let config = SocketConfig { gso: true, gro: true, ..config.clone() };
                MmsgPort::open(addresses, &config).map(OpenPort::of)
            }
            #[cfg(target_os = "linux")]
            SocketModel::IoUring => UringPort::open(addresses, config).map(OpenPort::of),
            SocketModel::Mio => MioPort::open(addresses, config).map(OpenPort::of),
        }
    }
}

impl OpenPort {
    #[allow(private_bounds)]
    fn of<M: super::socket::Model + 'static>(port: SocketPort<M>) -> OpenPort {
        let addresses = port.local_addresses();
        OpenPort { port: Box::new(port), addresses }
    }
}
