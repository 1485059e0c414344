//! What an I/O model is to the port above it: sockets, a way to receive, a way to send.
//!
//! A model owns its sockets and everything the kernel knows of; frames, verdicts, what is held and what is counted are the
//! port's ([`super::SocketPort`]). Readiness models (select, poll, epoll, mio) are done with a datagram when the call returns;
//! a completion model (io_uring) keeps the frame until the kernel says so:
//!
//! ```text
//!   transmit ──► Taken | Refused                       the frame is free again
//!            └─► Kept ──keep(frame)──► … ──reap──► Completion { frame, result }
//! ```

use super::{SocketConfig, SocketError};
use crate::datagram::RawFd;
use crate::frame::{Burst, Frame, FramePool};
use crate::net::Path;
use crate::port::PortStats;
use std::net::SocketAddr;
use volley_wire::DropReason;

/// What is known of one bound socket.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// The address it is bound to.
    pub(crate) local: SocketAddr,
    /// Bound to no address of its own.
    pub(crate) wildcard: bool,
    /// The path of this socket's datagrams, the peer not filled in. Its queue is the socket's index.
    pub(crate) template: Path,
}

impl Bound {
    /// A socket bound to `local`, the `index`-th of its port.
    pub(crate) fn new(local: SocketAddr, index: u16, config: &SocketConfig) -> Bound {
        let mut template = Path::to(config.port, local, local).expect("one address is of one family");
        template.queue = index;
        Bound { local, wildcard: local.ip().is_unspecified(), template }
    }

    /// True when datagrams over `path` may leave here.
    #[inline]
    pub(crate) fn serves(&self, path: &Path) -> bool {
        let own = &self.template;
        own.local_port == path.local_port
            && own.is_ipv4() == path.is_ipv4()
            && (self.wildcard || own.local == path.local)
    }
}

/// What is known of a received buffer besides its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) path: Path,
    /// Bytes of each datagram in it (GRO), the last maybe fewer; 0: it is one datagram.
    pub(crate) segment: u32,
    /// Not to be given to the app.
    pub(crate) refused: Option<DropReason>,
}

/// A datagram on its way out.
#[derive(Clone, Copy)]
pub(crate) struct Out<'a> {
    /// Index of the socket it leaves from.
    pub(crate) socket: u16,
    pub(crate) path: &'a Path,
    pub(crate) bytes: &'a [u8],
    /// It answers one that was received; otherwise it was sent unasked.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "read by io_uring"))]
    pub(crate) answer: bool,
}

/// What became of a datagram offered to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The kernel has it, and its frame is free.
    Taken,
    /// The kernel refused it.
    Refused,
    /// It is on its way, and its frame belongs to the model ([`Model::keep`]) under this number.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "said by io_uring"))]
    Kept(u16),
}

/// What became of a datagram whose frame the model had kept.
pub(crate) struct Completion {
    pub(crate) frame: Frame,
    pub(crate) path: Path,
    pub(crate) socket: u16,
    pub(crate) answer: bool,
    pub(crate) result: Completed,
}

/// How the kernel completed it.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "said by io_uring"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completed {
    Sent,
    Refused,
    /// There was no room: to be offered again.
    Blocked,
}

/// An I/O model. See the module.
pub(crate) trait Model: Send + Sized {
    /// Bytes before the payload that the kernel writes to in a received frame.
    const PREFIX: u32 = 0;
    /// Bytes of a frame beyond those a datagram may have: how a model that is not told of it sees that one was too long.
    const SPARE: u32 = 0;
    /// The descriptors of [`Model::poll_fds`] also wake for room to send.
    const WAKES_FOR_ROOM: bool = true;

    /// Opens a socket for each of `addresses`, at least one.
    fn open(addresses: &[SocketAddr], config: &SocketConfig) -> Result<Self, SocketError>;

    /// For reports, as `--io` says it.
    fn name(&self) -> &'static str;

    /// Its sockets, in the order of the addresses.
    fn bound(&self) -> Vec<Bound>;

    /// Frames it needs besides those with the app and those held.
    fn frames(&self) -> u32 {
        0
    }

    /// Told once, before anything is received: where the frames are.
    fn adopt(&mut self, _pool: &mut FramePool) -> Result<(), SocketError> {
        Ok(())
    }

    /// Receives into frames of `pool`, pushed to `frames` (empty before); the entry of `arrived` with the same index says the rest.
    fn receive(
        &mut self,
        pool: &mut FramePool,
        frames: &mut Burst,
        arrived: &mut [Arrived],
        stats: &mut PortStats,
    );

    /// Offers the kernel a prefix of `out` (at most a burst) and returns its length; less than all means that it takes no more now.
    /// `done` hears of each, by index.
    fn transmit(&mut self, out: &[Out<'_>], stats: &mut PortStats, done: impl FnMut(usize, Sent)) -> usize;

    /// Takes the frame of a datagram that [`Sent::Kept`] spoke of.
    fn keep(&mut self, _slot: u16, _frame: Frame) {
        unreachable!("this model keeps nothing")
    }

    /// Hands what was offered to the kernel.
    fn submit(&mut self, _stats: &mut PortStats) {}

    /// Says what the kernel is done with.
    fn reap(
        &mut self,
        _pool: &mut FramePool,
        _stats: &mut PortStats,
        _done: impl FnMut(&mut FramePool, Completion),
    ) {
    }

    /// Frames with the kernel for receive, and for transmit.
    fn in_kernel(&self) -> (u64, u64) {
        (0, 0)
    }

    /// True when there is something to receive that the kernel is done with already.
    fn has_arrived(&self) -> bool {
        false
    }

    /// Chooses what to be woken for: datagrams, room to send.
    fn watch(&mut self, datagrams: bool, room: bool);

    /// Datagrams that the kernel has dropped, its buffer being full.
    fn drops(&self) -> u64 {
        0
    }

    /// Descriptors that are readable when there is something to do.
    fn poll_fds(&self) -> Vec<RawFd>;

    /// Makes them ready to be waited on; true when there is something to do already.
    fn before_sleep(&mut self) -> bool {
        false
    }

    /// The sockets are of no use any more; the reason.
    fn failure(&self) -> Option<String> {
        None
    }

    /// Gives every frame back that the kernel has; nothing is received or sent any more. Returns how many datagrams had been
    /// received and are lost.
    fn close(&mut self, _pool: &mut FramePool) -> u64 {
        0
    }
}
