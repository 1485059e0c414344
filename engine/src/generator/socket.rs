//! The generator over kernel UDP sockets: one connected socket a flow, `sendmmsg` and `recvmmsg`.

use super::link::{Link, monotonic_ns};
use super::mmsg::Messages;
use super::session::Session;
use crate::frame::BURST;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use thiserror::Error;

/// Bytes of each socket's receive buffer asked for (the kernel may grant less): at 2 KiB of bookkeeping a
/// packet some 2,000 answers, so that a pause of the generator of a few ms is not read as loss. With less
/// it is; with more a flat-out run keeps answers so long that they are stale.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Why the sockets could not be opened.
#[derive(Debug, Error)]
pub enum SocketError {
    /// No socket for a source.
    #[error(
        "cannot bind {source_address} (flow {flow}): {error}: choose another --source or --source-port"
    )]
    Bind {
        /// The flow.
        flow: usize,
        /// Its address and port.
        source_address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A socket a flow needs a descriptor a flow.
    #[error(
        "no file descriptor left for flow {flow}: lower --flows, raise `ulimit -n`, or use --mode af-xdp"
    )]
    Descriptors {
        /// The flow.
        flow: usize,
    },
    /// The target cannot be reached.
    #[error("no way to {target} from {source_address}: {error}")]
    Connect {
        /// Where to.
        target: SocketAddr,
        /// Where from.
        source_address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Other system calls.
    #[error("kernel sockets: {0}")]
    Io(#[from] io::Error),
}

/// One kernel UDP socket per flow.
pub struct SocketLink {
    sockets: Vec<UdpSocket>,
    /// Finds the sockets with something to read; one socket needs none.
    epoll: Option<Epoll>,
    ready: Vec<EpollEvent>,
    out: Messages,
    answers: Messages,
    refused: u64,
}

impl SocketLink {
    /// Opens a socket per source, in the order of the flows, and connects it to `target`. Payloads are up
    /// to `longest` bytes.
    pub fn open(
        target: SocketAddr,
        sources: impl Iterator<Item = SocketAddr>,
        longest: usize,
    ) -> Result<SocketLink, SocketError> {
        let sockets = sources
            .enumerate()
            .map(|(flow, source_address)| {
                let socket = UdpSocket::bind(source_address).map_err(|error| SocketError::Bind {
                    flow,
                    source_address,
                    error,
                })?;
                socket.connect(target).map_err(|error| SocketError::Connect {
                    target,
                    source_address,
                    error,
                })?;
                if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
                    setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER).map_err(io::Error::from)?;
                }
                Ok(socket)
            })
            .collect::<Result<Vec<_>, SocketError>>()?;
        let epoll = match sockets.len() {
            1 => None,
            _ => {
                let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
                for (flow, socket) in sockets.iter().enumerate() {
                    epoll
                        .add(socket, EpollEvent::new(EpollFlags::EPOLLIN, flow as u64))
                        .map_err(io::Error::from)?;
                }
                Some(epoll)
            }
        };
        Ok(SocketLink {
            sockets,
            epoll,
            ready: vec![EpollEvent::empty(); BURST],
            out: Messages::new(longest),
            // One byte more than was sent, so that an answer that grew is seen to have grown.
            answers: Messages::new(longest + 1),
            refused: 0,
        })
    }

    /// How often the target's host said that nobody listens (ICMP port unreachable).
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn drain(&mut self, flow: usize, session: &mut Session) -> io::Result<usize> {
        match self.answers.recv(self.sockets[flow].as_fd()) {
            Ok(count) => {
                let now = monotonic_ns();
                for n in 0..count {
                    session.answer(flow as u16, self.answers.received(n), now);
                }
                Ok(count)
            }
            Err(error) => self.minor(error).map(|()| 0),
        }
    }

    /// Passes over errors that only mean "not now".
    fn minor(&mut self, error: io::Error) -> io::Result<()> {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => Ok(()),
            Some(Errno::ECONNREFUSED) => {
                self.refused += 1;
                Ok(())
            }
            _ => Err(error),
        }
    }
}

impl Link for SocketLink {
    fn send(&mut self, session: &mut Session, count: usize) -> io::Result<()> {
        let end = session.next() + count as u64;
        while session.next() < end {
            let first = session.next();
            let flow = session.plan().flow(first) as usize;
            let run = session.plan().same_flow(first, (end - first) as usize).min(BURST);
            let now = monotonic_ns();
            for at in 0..run {
                let n = first + at as u64;
                let room = self.out.write(at, session.plan().payload_len(n));
                session.encode(n, now, room);
            }
            match self.out.send(self.sockets[flow].as_fd(), run) {
                Ok(sent) => {
                    session.sent(sent, now);
                    if sent < run {
                        return Ok(());
                    }
                }
                Err(error) => return self.minor(error),
            }
        }
        Ok(())
    }

    fn recv(&mut self, session: &mut Session) -> io::Result<usize> {
        let Some(epoll) = &self.epoll else { return self.drain(0, session) };
        let ready = epoll.wait(&mut self.ready, EpollTimeout::ZERO).map_err(io::Error::from)?;
        let mut received = 0;
        for at in 0..ready {
            let flow = self.ready[at].data() as usize;
            received += self.drain(flow, session)?;
        }
        Ok(received)
    }
}
