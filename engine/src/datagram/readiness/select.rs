//! select: three bit sets, which the call overwrites, of descriptors below 1,024.
//!
//! The limit is the bit set's size (FD_SETSIZE, 1,024 in every C library of Linux): a higher descriptor would be written beyond it.
//! So it is refused when the port is opened, whatever RLIMIT_NOFILE says.

use super::Readiness;
use crate::datagram::RawFd;
use crate::datagram::socket::{Socket, SocketError};
use nix::sys::select::{FD_SETSIZE, FdSet, select};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::AsFd;

/// select(2).
pub struct Select {
    /// The highest descriptor and one: what the kernel scans.
    end: RawFd,
    datagrams: bool,
}

impl Readiness for Select {
    const NAME: &'static str = "select";
    const WAKES_FOR_ROOM: bool = false;

    fn new(sockets: &[Socket]) -> Result<Self, SocketError> {
        let highest = sockets.iter().map(Socket::raw).max().unwrap_or(0);
        if highest as usize >= FD_SETSIZE {
            return Err(SocketError::SelectLimit { descriptor: highest, limit: FD_SETSIZE });
        }
        Ok(Select { end: highest + 1, datagrams: true })
    }

    fn ask(&mut self, sockets: &[Socket], ready: &mut [bool]) {
        if !self.datagrams {
            return;
        }
        let mut set = FdSet::new();
        sockets.iter().for_each(|socket| set.insert(socket.as_fd().as_fd()));
        let mut at_once = TimeVal::zero();
        if select(self.end, Some(&mut set), None, None, Some(&mut at_once)).is_ok_and(|count| count > 0) {
            for (socket, ready) in sockets.iter().zip(ready) {
                *ready |= set.contains(socket.as_fd().as_fd());
            }
        }
    }

    fn watch(&mut self, _sockets: &[Socket], datagrams: bool, _room: bool) {
        self.datagrams = datagrams;
    }

    fn poll_fds(&self, sockets: &[Socket]) -> Vec<RawFd> {
        sockets.iter().map(Socket::raw).collect()
    }
}
