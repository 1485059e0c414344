//! poll: the set is an array that goes into the kernel with every question, and every socket of it is looked at.

use super::Readiness;
use crate::datagram::RawFd;
use crate::datagram::socket::{Socket, SocketError};

/// poll(2). No limit but the number of descriptors, and a cost that grows with the number of sockets.
pub struct Poll(Vec<libc::pollfd>);

impl Readiness for Poll {
    const NAME: &'static str = "poll";
    const WAKES_FOR_ROOM: bool = false;

    fn new(sockets: &[Socket]) -> Result<Self, SocketError> {
        let entry = |socket: &Socket| libc::pollfd { fd: socket.raw(), events: libc::POLLIN, revents: 0 };
        Ok(Poll(sockets.iter().map(entry).collect()))
    }

    fn ask(&mut self, _sockets: &[Socket], ready: &mut [bool]) {
        // SAFETY: the array is valid, and of that length, for the whole call; the descriptors are our sockets'.
        let count = unsafe { libc::poll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, 0) };
        if count <= 0 {
            return;
        }
        for (entry, ready) in self.0.iter().zip(ready) {
            *ready |= entry.revents & (libc::POLLIN | libc::POLLERR) != 0;
        }
    }

    fn watch(&mut self, _sockets: &[Socket], datagrams: bool, _room: bool) {
        let events = if datagrams { libc::POLLIN } else { 0 };
        self.0.iter_mut().for_each(|entry| entry.events = events);
    }

    fn poll_fds(&self, sockets: &[Socket]) -> Vec<RawFd> {
        sockets.iter().map(Socket::raw).collect()
    }
}
