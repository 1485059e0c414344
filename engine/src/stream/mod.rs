//! Streams, and the ports that carry them.
//!
//! A stream port is TCP: the kernel's over a readiness model, or our own over a frame port. A worker drives each the same way,
//! beside its datagram ports:
//!
//! ```text
//!  poll(now)                  what arrived, what timers are due
//!  next_event() ─► app        opened · readable · writable · peer closed · closed(reason), until there is none
//!    peek · consume · write   the app works on the streams it was told about, or on any other
//!  flush()                    one doorbell
//! ```
//!
//! **Events are edges, coalesced per burst.** `Readable` comes once for however much arrived; whoever leaves bytes unread hears
//! again only when more arrive, or after asking with [`StreamPort::again`]. `Writable` follows a short write, once. `Opened` is
//! the first event of a stream and `Closed` the last, each exactly once, whoever closed it.
//!
//! **Buffers are bounded.** `write` takes what there is room for and says how much; nothing queues behind it. A peer that takes
//! nothing for longer than the port's limit is disconnected: [`CloseReason::SlowReader`].
//!
//! | module | what |
//! | --- | --- |
//! | [`framing`] | messages on a stream: a byte layer, the same for every port |
//! | [`slots`] | pooled connection slots with generations, and their coalesced events |
//! | [`slow`] | who reads too slowly |
//! | [`StreamStats`] | what a port counts |
//! | [`kernel`] | kernel TCP over epoll or io_uring (Linux) |
//! | [`own`] | our own TCP, over a frame port |
//!
//! What never happens here: waiting, or a thread of its own.

pub mod framing;
#[cfg(target_os = "linux")]
pub mod kernel;
pub mod own;
pub mod slots;
pub mod slow;
mod stats;

#[cfg(target_os = "linux")]
pub use kernel::{EpollStreams, StreamConfig, StreamOpenError, UringStreams};
pub use stats::StreamStats;
pub use volley_tcp::{CongestionControl, KeepAlive, SocketOption as StreamOption};

use crate::app::WorkerId;
use crate::datagram::RawFd;
use crate::frame::Ledger;
use crate::time::Now;
use std::net::SocketAddr;

/// Names one stream of one worker. Never an address: a stale name is an error, not another peer's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// The worker whose stream it is.
    pub worker: WorkerId,
    /// Index of the port among the worker's.
    pub(crate) port: u16,
    /// The slot and its generation, within the port.
    pub(crate) id: StreamId,
}

impl Peer {
    /// The stream `id` of the port with this index. For who drives ports; an app is told its peers.
    pub fn new(worker: WorkerId, port: u16, id: StreamId) -> Peer {
        Peer { worker, port, id }
    }

    /// The slot: small numbers, used again. An index for tables of the app's own, as long as it forgets at `Closed`.
    pub fn slot(&self) -> usize {
        self.id.slot as usize
    }

    /// How often the slot was used before.
    pub fn generation(&self) -> u32 {
        self.id.generation
    }
}

/// Names one stream within its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// Which slot.
    pub slot: u32,
    /// Which use of that slot.
    pub generation: u32,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Both sides have closed, or we have and what was written is on its way.
    Finished,
    /// The peer sent a reset.
    Reset,
    /// The peer refused the connection.
    Refused,
    /// We ended it with a reset.
    Aborted,
    /// The peer did not answer in time.
    TimedOut,
    /// No way to the peer.
    Unreachable,
    /// The peer took nothing of what was written for too long.
    SlowReader,
    /// There was no memory left for what the app had not read.
    NoMemory,
    /// The engine has stepped down to another way of carrying packets, which could not take the connection along.
    SteppedDown,
    /// Any other failure of the port below.
    Failed,
}

impl CloseReason {
    /// The word for it in logs and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::Reset => "reset",
            CloseReason::Refused => "refused",
            CloseReason::Aborted => "aborted",
            CloseReason::TimedOut => "timed out",
            CloseReason::Unreachable => "unreachable",
            CloseReason::SlowReader => "slow reader",
            CloseReason::NoMemory => "no memory",
            CloseReason::SteppedDown => "stepped down",
            CloseReason::Failed => "failed",
        }
    }
}

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamEvent {
    /// It is there: accepted, or connected. The first event.
    Opened,
    /// There is something to read that was not there before.
    Readable,
    /// There is room again after a short write.
    Writable,
    /// The peer sends no more: what is still unread is the last.
    PeerClosed,
    /// It is gone; the last event. What is unread can still be read during this callback, after
    /// [`CloseReason::Finished`] by the peer.
    Closed(CloseReason),
}

/// Which direction to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing more will be read.
    Read,
    /// Nothing more will be written: the peer sees the end after what was.
    Write,
    /// Both.
    Both,
}

/// Why an operation on a stream was refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The stream is gone, or belongs to another worker or port.
    #[error("no such stream here: it was closed, or it is another worker's")]
    Stale,
    /// It has ended, or this direction is closed.
    #[error("the stream is closed in this direction")]
    Closed,
    /// Every slot is in use.
    #[error("every connection slot of the port is in use")]
    Full,
    /// No local port is left, or the local address is in use.
    #[error("no local port is left towards that address")]
    NoPort,
    /// There is no route to that address from here.
    #[error("there is no route to that address")]
    NoRoute,
    /// The worker has no stream port of that number.
    #[error("this worker has no such stream port")]
    NoStreamPort,
    /// The port cannot do that: this is what.
    #[error("this port does not support {0}")]
    Unsupported(&'static str),
}

/// Both ends of a stream, and what waits in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// We opened it.
    pub active: bool,
}

/// Streams in and out, owned by one worker. Nothing blocks, nothing is another worker's.
pub trait StreamPort: Send {
    /// For messages and reports.
    fn name(&self) -> &str;

    /// Looks for what arrived and what is due, and notes the events. Returns how much there was to do (0: nothing).
    fn poll(&mut self, now: Now) -> usize;

    /// The next event. The worker pulls until there is none, or for a bounded number of times in a turn.
    fn next_event(&mut self) -> Option<(StreamId, StreamEvent)>;

    /// The unread bytes that stand together, as many as there are without another call; empty when there are none for now (or,
    /// after `PeerClosed`, at all). They stay unread until [`StreamPort::consume`]. Another stream's `peek` may move them.
    ///
    /// # Errors
    /// [`StreamError::Stale`], or [`StreamError::Closed`] after [`Shutdown::Read`].
    fn peek(&mut self, id: StreamId) -> Result<&[u8], StreamError>;

    /// Takes the first `n` bytes of what [`StreamPort::peek`] showed as read.
    ///
    /// # Errors
    /// [`StreamError::Stale`].
    fn consume(&mut self, id: StreamId, n: usize) -> Result<(), StreamError>;

    /// Takes as much of `bytes` as there is room for, in order, and returns how much: none to all. After less than all,
    /// `Writable` tells when there is room.
    ///
    /// # Errors
    /// [`StreamError::Stale`], or [`StreamError::Closed`] when we have shut down, or it has ended.
    fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StreamError>;

    /// Tells `Readable` once more with the next [`StreamPort::poll`]: for an app that stops in the middle to let others have
    /// their turn.
    ///
    /// # Errors
    /// [`StreamError::Stale`].
    fn again(&mut self, id: StreamId) -> Result<(), StreamError>;

    /// Closes one direction or both; the stream stays until it is closed.
    ///
    /// # Errors
    /// [`StreamError::Stale`].
    fn shutdown(&mut self, id: StreamId, how: Shutdown) -> Result<(), StreamError>;

    /// Ends our use of the stream: what was written is still delivered; with unread bytes the peer gets a reset. Only `Closed`
    /// comes after it.
    ///
    /// # Errors
    /// [`StreamError::Stale`].
    fn close(&mut self, id: StreamId) -> Result<(), StreamError>;

    /// Ends the stream with a reset. Only `Closed` comes after it.
    ///
    /// # Errors
    /// [`StreamError::Stale`].
    fn abort(&mut self, id: StreamId) -> Result<(), StreamError>;

    /// Opens a stream to `remote`, from `local` if that matters. `Opened` or `Closed` tells how it went.
    ///
    /// # Errors
    /// What can be known at once.
    fn connect(&mut self, local: Option<SocketAddr>, remote: SocketAddr) -> Result<StreamId, StreamError>;

    /// Both ends.
    ///
    /// # Errors
    /// [`StreamError::Stale`].
    fn info(&self, id: StreamId) -> Result<StreamInfo, StreamError>;

    /// Sets one option of the stream. Our own TCP has all of them; kernel sockets have no time for delayed acknowledgments, no
    /// low-water mark, no MSS after the handshake, and no time to linger other than 0.
    ///
    /// # Errors
    /// [`StreamError::Stale`], or [`StreamError::Unsupported`].
    fn set_option(&mut self, id: StreamId, option: StreamOption) -> Result<(), StreamError>;

    /// Sends what is queued: one doorbell. Ports that send with each write have nothing to do here.
    fn flush(&mut self) {}

    /// Accepts no more (shutdown). The streams there are go on until the app closes them or the port is.
    fn stop(&mut self);

    /// True when nothing that was written waits in this process.
    fn is_drained(&self) -> bool {
        true
    }

    /// Closes every stream and the port, for good.
    fn close_port(&mut self);

    /// Ends every stream with a reset, because the port is given up while the worker goes on. `tell` hears of each that the app
    /// knows; it is told [`CloseReason::SteppedDown`] by whoever calls this, and there are no events any more.
    fn give_up(&mut self, tell: &mut dyn FnMut(StreamId)) {
        let _ = tell;
        self.close_port();
    }

    /// Counters so far.
    fn stats(&self) -> StreamStats;

    /// Where the frames are, for ports that have their own.
    fn ledger(&self) -> Ledger {
        Ledger::default()
    }

    /// Descriptors to wait on when the worker sleeps; asked once, after opening.
    fn poll_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// Told when the worker is about to wait on [`StreamPort::poll_fds`], for ports whose descriptors have to be made ready for that.
    /// True when there is something to do already: then it does not sleep.
    fn before_sleep(&mut self) -> bool {
        false
    }

    /// The next moment (monotonic ns) at which the port wants `poll` called even if nothing arrives.
    fn next_deadline(&self) -> Option<u64> {
        None
    }
}

/// One stream in an app's hands, for the length of a callback. From [`crate::app::Ctx::stream`].
pub struct Stream<'p> {
    port: &'p mut dyn StreamPort,
    id: StreamId,
}

impl<'p> Stream<'p> {
    /// The stream `id` of `port`.
    pub fn new(port: &'p mut dyn StreamPort, id: StreamId) -> Stream<'p> {
        Stream { port, id }
    }

    /// See [`StreamPort::peek`].
    ///
    /// # Errors
    /// As there.
    pub fn peek(&mut self) -> Result<&[u8], StreamError> {
        self.port.peek(self.id)
    }

    /// See [`StreamPort::consume`].
    ///
    /// # Errors
    /// As there.
    pub fn consume(&mut self, n: usize) -> Result<(), StreamError> {
        self.port.consume(self.id, n)
    }

    /// Copies unread bytes into `into` and takes them as read; returns how many, 0 when there are none for now.
    ///
    /// # Errors
    /// As [`StreamPort::peek`].
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, StreamError> {
        let mut read = 0;
        while read < into.len() {
            let bytes = self.port.peek(self.id)?;
            let n = bytes.len().min(into.len() - read);
            if n == 0 {
                break;
            }
            into[read..read + n].copy_from_slice(&bytes[..n]);
            self.port.consume(self.id, n)?;
            read += n;
        }
        Ok(read)
    }

    /// See [`StreamPort::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        self.port.write(self.id, bytes)
    }

    /// See [`StreamPort::again`].
    ///
    /// # Errors
    /// As there.
    pub fn again(&mut self) -> Result<(), StreamError> {
        self.port.again(self.id)
    }

    /// See [`StreamPort::shutdown`].
    ///
    /// # Errors
    /// As there.
    pub fn shutdown(&mut self, how: Shutdown) -> Result<(), StreamError> {
        self.port.shutdown(self.id, how)
    }

    /// See [`StreamPort::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(&mut self) -> Result<(), StreamError> {
        self.port.close(self.id)
    }

    /// See [`StreamPort::abort`].
    ///
    /// # Errors
    /// As there.
    pub fn abort(&mut self) -> Result<(), StreamError> {
        self.port.abort(self.id)
    }

    /// See [`StreamPort::info`].
    ///
    /// # Errors
    /// As there.
    pub fn info(&self) -> Result<StreamInfo, StreamError> {
        self.port.info(self.id)
    }

    /// See [`StreamPort::set_option`].
    ///
    /// # Errors
    /// As there.
    pub fn set_option(&mut self, option: StreamOption) -> Result<(), StreamError> {
        self.port.set_option(self.id, option)
    }
}
