//! One connection, and which requests of it the kernel has.

use super::chunks::Chain;
use crate::stream::{CloseReason, StreamInfo};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// A request, from when it is queued to its last completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Request {
    #[default]
    None,
    Queued,
    /// The kernel has been asked to end it.
    Cancelled,
}

impl Request {
    pub fn is_out(self) -> bool {
        self != Request::None
    }
}

pub(super) struct Connection {
    /// `None` once it is closed.
    pub fd: Option<OwnedFd>,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub active: bool,
    /// The handshake of an active open is still under way.
    pub connecting: bool,
    /// It is of no use to the app any more, for this reason; `Closed` follows when the kernel is done with it.
    pub leaving: Option<CloseReason>,
    /// What is not sent yet will not be.
    pub dead: bool,
    /// The peer sends no more.
    pub finished: bool,
    /// The app has shut down reading or writing.
    pub shut: (bool, bool),
    /// The kernel has been told of the latter: once everything is sent.
    pub shut_told: bool,
    /// A write came back short: `Writable` is owed.
    pub short: bool,
    /// It stands in the list of those that wait for a chunk to write to.
    pub starved: bool,
    /// It stands in the list of those whose requests are to be looked at.
    pub due: bool,
    pub receive: Request,
    pub send: Request,
    pub connect: Request,
    pub hangup: Request,
    /// Received, and not read by the app yet.
    pub unread: Chain,
    /// Written by the app, and not taken by the kernel yet.
    pub unsent: Chain,
}

impl Connection {
    pub fn new(fd: OwnedFd, local: SocketAddr, remote: SocketAddr, active: bool) -> Connection {
        Connection {
            fd: Some(fd),
            local,
            remote,
            active,
            connecting: active,
            leaving: None,
            dead: false,
            finished: false,
            shut: (false, false),
            shut_told: false,
            short: false,
            starved: false,
            due: false,
            receive: Request::None,
            send: Request::None,
            connect: Request::None,
            hangup: Request::None,
            unread: Chain::default(),
            unsent: Chain::default(),
        }
    }

    /// The kernel has a request of it, or is about to get one.
    pub fn is_out(&self) -> bool {
        [self.receive, self.send, self.connect, self.hangup].into_iter().any(Request::is_out)
    }

    /// Nothing is left to be sent.
    pub fn is_sent(&self) -> bool {
        self.dead || self.unsent.is_empty()
    }

    pub fn info(&self) -> StreamInfo {
        StreamInfo { local: self.local, remote: self.remote, active: self.active }
    }
}
