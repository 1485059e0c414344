//! The portable model: mio tells who is ready (epoll, kqueue or IOCP, by system), `recv_from` and `send_to` move datagrams.
//!
//! What other systems do not offer in one way is left out: on a wildcard address, answers leave from the address that the system
//! chooses, and broadcasts are not told from datagrams to us; so serve named addresses with it. Linux has better models.

use super::RawFd;
use super::socket::{Arrived, Bound, Model, Out, Sent, SocketConfig, SocketError};
use crate::frame::{BURST, Burst, FramePool};
use crate::net::Path;
use crate::port::PortStats;
use ::mio::net::UdpSocket;
use ::mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockAddr, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV6};
use std::time::Duration;
use volley_wire::DropReason;

/// Receive errors in a row after which a socket is left alone until the next turn: ICMP answers come back as such.
const MAX_ERRORS: usize = 8;
/// What Windows says of a datagram longer than the room for it, having cut it.
const WSAEMSGSIZE: i32 = 10_040;

/// The mio model.
pub struct Mio {
    poll: Poll,
    events: Events,
    sockets: Vec<(UdpSocket, Bound)>,
    /// Sockets that may have something: not to be asked about.
    ready: Vec<bool>,
    registered: bool,
    first: usize,
    frame_bytes: usize,
}

fn open(address: SocketAddr, index: u16, config: &SocketConfig) -> Result<(UdpSocket, Bound), SocketError> {
    let call = |call| move |errno| SocketError::Call { address, call, errno };
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None)
        .map_err(|errno| SocketError::of_socket(address, errno))?;
    socket.set_nonblocking(true).map_err(call("making it non-blocking"))?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own, whose answers need no mapped addresses.
        socket.set_only_v6(true).map_err(call("IPV6_V6ONLY"))?;
    }
    #[cfg(unix)]
    if config.reuse_port {
        socket.set_reuse_port(true).map_err(call("SO_REUSEPORT"))?;
    }
    // The system gives what it allows.
    let _ = socket.set_recv_buffer_size(config.receive_buffer);
    let _ = socket.set_send_buffer_size(config.send_buffer);
    socket.bind(&SockAddr::from(address)).map_err(|errno| SocketError::of_bind(address, errno))?;
    #[cfg(unix)]
    if config.joinable {
        socket.set_reuse_port(true).map_err(call("SO_REUSEPORT"))?;
    }
    let local = socket.local_addr().map_err(call("getsockname"))?;
    let port = local.as_socket().map_or(address.port(), |local| local.port());
    let bound = Bound::new(SocketAddr::new(address.ip(), port), index, config);
    Ok((UdpSocket::from_std(socket.into()), bound))
}

/// Where a datagram goes.
fn peer(path: &Path) -> SocketAddr {
    match path.peer() {
        SocketAddr::V6(peer) => SocketAddrV6::new(*peer.ip(), peer.port(), 0, path.scope()).into(),
        peer => peer,
    }
}

/// The way back to where a datagram came from.
fn path(bound: &Bound, from: SocketAddr) -> Path {
    let mut path = bound.template;
    path.peer = crate::net::mapped(from.ip());
    path.peer_port = from.port();
    if let SocketAddr::V6(from) = from {
        path.set_scope(from.scope_id());
    }
    path
}

/// True for the errors of sending that will pass.
fn is_blocked(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory)
        || cfg!(target_os = "linux") && error.raw_os_error() == Some(NO_BUFFERS)
}

/// ENOBUFS of Linux: the device's queue is full.
const NO_BUFFERS: i32 = 105;

impl Mio {
    /// Receives on one socket; false when it has no more.
    fn receive_on(
        &mut self,
        index: usize,
        pool: &mut FramePool,
        frames: &mut Burst,
        arrived: &mut [Arrived],
        stats: &mut PortStats,
    ) -> bool {
        let (socket, bound) = &self.sockets[index];
        let mut errors = 0;
        while !frames.is_full() {
            let Some(mut frame) = pool.take(bound.template.queue()) else { return true };
            stats.wakeups += 1;
            // One byte more than a datagram may have: one that fills it was longer.
            let room = &mut frame.room_mut()[..=self.frame_bytes];
            let (len, from) = match socket.recv_from(room) {
                Ok((len, from)) => (len, Some(from)),
                Err(error) if error.raw_os_error() == Some(WSAEMSGSIZE) => (room.len(), None),
                Err(error) => {
                    pool.give(frame);
                    errors += 1;
                    match error.kind() {
                        ErrorKind::WouldBlock => return false,
                        _ if errors >= MAX_ERRORS => return true,
                        _ => continue,
                    }
                }
            };
            let fits = frame.set_len(len);
            debug_assert!(fits, "no more than the room");
            let path = from.map_or(bound.template, |from| path(bound, from));
            let refused = match () {
                () if len > self.frame_bytes => Some(DropReason::Truncated),
                () if path.peer_port == 0 => Some(DropReason::BadSource),
                () => None,
            };
            arrived[frames.len()] = Arrived { path, segment: 0, refused };
            frames.push(frame);
        }
        true
    }
}

impl Model for Mio {
    const SPARE: u32 = 1;

    fn open(addresses: &[SocketAddr], config: &SocketConfig) -> Result<Self, SocketError> {
        let open = |(index, address): (usize, &SocketAddr)| open(*address, index as u16, config);
        let mut sockets: Vec<_> = addresses.iter().enumerate().map(open).collect::<Result<_, _>>()?;
        let poll = Poll::new().map_err(SocketError::Mio)?;
        for (index, (socket, _)) in sockets.iter_mut().enumerate() {
            poll.registry().register(socket, Token(index), Interest::READABLE).map_err(SocketError::Mio)?;
        }
        Ok(Mio {
            poll,
            events: Events::with_capacity(BURST),
            ready: vec![true; sockets.len()],
            sockets,
            registered: true,
            first: 0,
            frame_bytes: config.frame_bytes as usize,
        })
    }

    fn name(&self) -> &'static str {
        "mio"
    }

    fn bound(&self) -> Vec<Bound> {
        self.sockets.iter().map(|(_, bound)| bound.clone()).collect()
    }

    fn receive(
        &mut self,
        pool: &mut FramePool,
        frames: &mut Burst,
        arrived: &mut [Arrived],
        stats: &mut PortStats,
    ) {
        if !self.ready.contains(&true) {
            stats.wakeups += 1;
            // EINTR passes: the next turn asks again.
            if self.poll.poll(&mut self.events, Some(Duration::ZERO)).is_ok() {
                for event in &self.events {
                    self.ready[event.token().0] |= event.is_readable() || event.is_error();
                }
            }
        }
        // Each turn begins with another socket, so that a busy one does not starve the rest.
        let count = self.sockets.len();
        self.first = (self.first + 1) % count;
        for index in (self.first..count).chain(0..self.first) {
            if self.ready[index] && !frames.is_full() {
                self.ready[index] = self.receive_on(index, pool, frames, arrived, stats);
            }
        }
    }

    fn transmit(
        &mut self,
        out: &[Out<'_>],
        stats: &mut PortStats,
        mut done: impl FnMut(usize, Sent),
    ) -> usize {
        for (index, datagram) in out.iter().enumerate() {
            let (socket, _) = &self.sockets[usize::from(datagram.socket)];
            let to = peer(datagram.path);
            let mut call = || {
                stats.wakeups += 1;
                socket.send_to(datagram.bytes, to)
            };
            // An ICMP answer to an earlier datagram is reported by the next call: so once more.
            let result = call().or_else(|error| if is_blocked(&error) { Err(error) } else { call() });
            match result {
                Ok(_) => {
                    stats.tx_frames += 1;
                    stats.tx_completed += 1;
                    done(index, Sent::Taken);
                }
                Err(error) if is_blocked(&error) => return index,
                Err(_) => done(index, Sent::Refused),
            }
        }
        out.len()
    }

    fn watch(&mut self, datagrams: bool, room: bool) {
        let interest = match (datagrams, room) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let registry = self.poll.registry();
        for (index, (socket, _)) in self.sockets.iter_mut().enumerate() {
            // It fails for what is not registered as asked, which ours are.
            let _ = match interest {
                Some(interest) if self.registered => registry.reregister(socket, Token(index), interest),
                Some(interest) => registry.register(socket, Token(index), interest),
                None if self.registered => registry.deregister(socket),
                None => Ok(()),
            };
        }
        self.registered = interest.is_some();
    }

    #[cfg(unix)]
    fn poll_fds(&self) -> Vec<RawFd> {
        use std::os::fd::AsRawFd;
        vec![self.poll.as_raw_fd()]
    }

    #[cfg(not(unix))]
    fn poll_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }
}
