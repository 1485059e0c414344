//! epoll: the kernel keeps the set, and a question costs what is ready, not what is watched.
//!
//! Level-triggered it answers as long as a socket has something. Edge-triggered it answers once for each arrival: a socket must be
//! read until it is empty, which the port's bookkeeping does for every model. It then saves the kernel looking at the socket again
//! when the answer is fetched.

use super::Readiness;
use crate::datagram::RawFd;
use crate::datagram::socket::{Socket, SocketError};
use crate::frame::BURST;
use nix::sys::epoll::{Epoll as Descriptor, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::AsRawFd;

/// epoll, level-triggered or (`EDGE`) edge-triggered.
pub struct Epoll<const EDGE: bool>(Descriptor);

impl<const EDGE: bool> Epoll<EDGE> {
    fn event(index: usize, mut flags: EpollFlags) -> EpollEvent {
        flags.set(EpollFlags::EPOLLET, EDGE);
        EpollEvent::new(flags, index as u64)
    }
}

impl<const EDGE: bool> Readiness for Epoll<EDGE> {
    const NAME: &'static str = if EDGE { "epoll-et" } else { "epoll" };
    const WAKES_FOR_ROOM: bool = true;

    fn new(sockets: &[Socket]) -> Result<Self, SocketError> {
        let epoll = Descriptor::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| SocketError::Epoll(errno.into()))?;
        for (index, socket) in sockets.iter().enumerate() {
            let event = Self::event(index, EpollFlags::EPOLLIN);
            epoll.add(socket.as_fd(), event).map_err(|errno| SocketError::Epoll(errno.into()))?;
        }
        Ok(Epoll(epoll))
    }

    fn ask(&mut self, _sockets: &[Socket], ready: &mut [bool]) {
        let mut events = [EpollEvent::empty(); BURST];
        let count = self.0.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..count] {
            if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR)
                && let Some(ready) = ready.get_mut(event.data() as usize)
            {
                *ready = true;
            }
        }
    }

    fn watch(&mut self, sockets: &[Socket], datagrams: bool, room: bool) {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, datagrams);
        flags.set(EpollFlags::EPOLLOUT, room);
        for (index, socket) in sockets.iter().enumerate() {
            // It fails for a descriptor that is not registered, which ours are. Edge-triggered, it arms the edge anew.
            let _ = self.0.modify(socket.as_fd(), &mut Self::event(index, flags));
        }
    }

    fn poll_fds(&self, _sockets: &[Socket]) -> Vec<RawFd> {
        vec![self.0.0.as_raw_fd()]
    }
}
