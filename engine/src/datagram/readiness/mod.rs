//! Readiness: the kernel says which sockets have something, and calls move it.
//!
//! ```text
//!   ready?  ── no socket is known to have something ──► select | poll | epoll | epoll edge-triggered
//!     │ yes
//!     ▼
//!   calls:  recvfrom … sendto   |   recvmmsg … sendmmsg
//! ```
//!
//! The two halves are independent: a [`Readiness`] never moves a datagram, [`Calls`] never ask who is ready. A socket that had more
//! than a burst is read again without asking, under every model alike, so that what differs between two models is the model.

mod epoll;
mod poll;
mod select;

pub(crate) use epoll::Epoll;
pub(crate) use poll::Poll;
pub(crate) use select::Select;

use super::RawFd;
use super::socket::{Arrived, Bound, Model, Out, Sent, Socket, SocketConfig, SocketError, drops};
use crate::frame::{Burst, FramePool};
use crate::port::PortStats;
use std::net::SocketAddr;

/// How one learns which sockets have something.
pub(crate) trait Readiness: Send + Sized {
    /// For reports, as `--io` says it.
    const NAME: &'static str;
    /// The descriptors of [`Readiness::poll_fds`] also wake for room to send.
    const WAKES_FOR_ROOM: bool;

    fn new(sockets: &[Socket]) -> Result<Self, SocketError>;

    /// Asks, without waiting, and marks the sockets that have something; one system call.
    fn ask(&mut self, sockets: &[Socket], ready: &mut [bool]);

    /// Chooses what to be woken for: datagrams, room to send.
    fn watch(&mut self, sockets: &[Socket], datagrams: bool, room: bool);

    /// Descriptors that are readable when there is something to do.
    fn poll_fds(&self, sockets: &[Socket]) -> Vec<RawFd>;
}

/// What one round of receiving came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The socket may have more.
    More,
    /// The socket has no more.
    Drained,
}

/// How datagrams are moved.
pub(crate) trait Calls: Send + Sized {
    fn new(config: &SocketConfig) -> Self;

    /// Its name in reports, when that is the model's.
    fn name(&self) -> Option<&'static str> {
        None
    }

    /// True when the sockets are to be opened with UDP_GRO.
    fn wants_gro(&self) -> bool {
        false
    }

    /// Receives into frames of `pool`, pushed to `frames`; the entry of `arrived` with the same index says the rest.
    fn receive(
        &mut self,
        socket: &Socket,
        pool: &mut FramePool,
        frames: &mut Burst,
        arrived: &mut [Arrived],
        stats: &mut PortStats,
    ) -> Received;

    /// Sends a prefix of `out` (at most a burst) and returns its length; less than all means that the kernel takes no more now.
    /// `done` hears of each, by index, whether the kernel took it or refused it.
    fn transmit(
        &mut self,
        sockets: &[Socket],
        out: &[Out<'_>],
        stats: &mut PortStats,
        done: impl FnMut(usize, bool),
    ) -> usize;
}

/// A model made of the two.
pub struct Ready<R, C> {
    readiness: R,
    calls: C,
    sockets: Vec<Socket>,
    /// Sockets that may have something: not to be asked about.
    ready: Vec<bool>,
    first: usize,
}

impl<R: Readiness, C: Calls> Model for Ready<R, C> {
    const WAKES_FOR_ROOM: bool = R::WAKES_FOR_ROOM;

    fn open(addresses: &[SocketAddr], config: &SocketConfig) -> Result<Self, SocketError> {
        let calls = C::new(config);
        let sockets = Socket::open_all(addresses, calls.wants_gro(), config)?;
        let readiness = R::new(&sockets)?;
        Ok(Ready { readiness, calls, ready: vec![true; sockets.len()], sockets, first: 0 })
    }

    fn name(&self) -> &'static str {
        self.calls.name().unwrap_or(R::NAME)
    }

    fn bound(&self) -> Vec<Bound> {
        self.sockets.iter().map(|socket| socket.bound.clone()).collect()
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
            self.readiness.ask(&self.sockets, &mut self.ready);
        }
        // Each turn begins with another socket, so that a busy one does not starve the rest.
        let count = self.sockets.len();
        self.first = (self.first + 1) % count;
        for index in (self.first..count).chain(0..self.first) {
            if self.ready[index] && !frames.is_full() {
                let received = self.calls.receive(&self.sockets[index], pool, frames, arrived, stats);
                self.ready[index] = received == Received::More;
            }
        }
    }

    fn transmit(
        &mut self,
        out: &[Out<'_>],
        stats: &mut PortStats,
        mut done: impl FnMut(usize, Sent),
    ) -> usize {
        self.calls.transmit(&self.sockets, out, stats, |index, taken| {
            done(index, if taken { Sent::Taken } else { Sent::Refused });
        })
    }

    fn watch(&mut self, datagrams: bool, room: bool) {
        self.readiness.watch(&self.sockets, datagrams, room);
    }

    fn drops(&self) -> u64 {
        self.sockets.iter().map(drops).sum()
    }

    fn poll_fds(&self) -> Vec<RawFd> {
        self.readiness.poll_fds(&self.sockets)
    }
}
