//! What an app may do from a callback.

use super::WorkerId;
use crate::datagram::{DatagramPort, SendError};
use crate::net::Path;
use crate::stream::{Peer, Stream, StreamError, StreamPort};
use crate::time::Now;
use crate::worker::{Helpers, Mailboxes, PostError, TimerId, Timers};
use rand::rngs::SmallRng;
use std::net::SocketAddr;

/// The worker, as seen by its app during one callback.
pub struct Ctx<'w, M> {
    pub(crate) now: Now,
    pub(crate) worker: WorkerId,
    pub(crate) rng: &'w mut SmallRng,
    pub(crate) ports: &'w mut [Box<dyn DatagramPort>],
    pub(crate) streams: &'w mut [Box<dyn StreamPort>],
    pub(crate) timers: &'w mut Timers,
    pub(crate) mailboxes: &'w mut Mailboxes<M>,
    pub(crate) helpers: &'w mut Helpers<M>,
}

impl<M: Send + 'static> Ctx<'_, M> {
    /// The time this loop of the worker began.
    pub fn now(&self) -> Now {
        self.now
    }

    /// The worker this app runs on.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// A fast generator seeded at construction; not for keys.
    pub fn rng(&mut self) -> &mut SmallRng {
        self.rng
    }

    /// Sends `payload` to the peer of `path`, copied; it leaves with this burst's doorbell.
    ///
    /// # Errors
    /// See [`SendError`]. It never blocks: what to do about `Full` is the caller's policy.
    pub fn send(&mut self, path: &Path, payload: &[u8]) -> Result<(), SendError> {
        self.send_with(path, payload.len(), |room| room.copy_from_slice(payload))
    }

    /// Sends `len` bytes that `fill` writes straight into the frame.
    ///
    /// # Errors
    /// As [`Ctx::send`]; `fill` is not called then.
    pub fn send_with(
        &mut self,
        path: &Path,
        len: usize,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        let port = self.ports.get_mut(path.port() as usize).ok_or(SendError::NoPort)?;
        port.send(path, len, &mut fill)
    }

    /// The stream of `peer`, to read, write and close.
    ///
    /// # Errors
    /// [`StreamError::Stale`] when it is gone or another worker's.
    pub fn stream(&mut self, peer: Peer) -> Result<Stream<'_>, StreamError> {
        if peer.worker != self.worker {
            return Err(StreamError::Stale);
        }
        let port = self.stream_port(peer.port).ok_or(StreamError::Stale)?;
        port.info(peer.id)?;
        Ok(Stream::new(port, peer.id))
    }

    /// Opens a stream to `remote`, from `local` if that matters, over the worker's stream port number `port` (from 0; most
    /// workers have one). [`super::App::on_stream`] tells how it went.
    ///
    /// # Errors
    /// What can be known at once.
    pub fn connect(
        &mut self,
        port: usize,
        local: Option<SocketAddr>,
        remote: SocketAddr,
    ) -> Result<Peer, StreamError> {
        let worker = self.worker;
        let beneath = 0..self.ports.len();
        let all = beneath.chain(STREAM_PORTS..STREAM_PORTS + self.streams.len()).map(|index| index as u16);
        let index = all.into_iter().filter(|index| self.stream_port(*index).is_some()).nth(port);
        let index = index.ok_or(StreamError::NoStreamPort)?;
        let port = self.stream_port(index).ok_or(StreamError::NoStreamPort)?;
        Ok(Peer::new(worker, index, port.connect(local, remote)?))
    }

    fn stream_port(&mut self, index: u16) -> Option<&mut dyn StreamPort> {
        stream_port(self.ports, self.streams, usize::from(index))
    }

    /// Calls [`super::App::on_timer`] with `key` at `at_ns` (monotonic), or as soon after as the worker comes to it. `None` when the
    /// worker's timers are used up.
    pub fn timer(&mut self, at_ns: u64, key: u64) -> Option<TimerId> {
        self.timers.insert(at_ns, key)
    }

    /// Forgets a timer; false when it has fired or was cancelled already.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.timers.cancel(timer)
    }

    /// Sends a message to the app of another worker (or this one). Bounded: a full mailbox gives the message back.
    ///
    /// # Errors
    /// The message, when the worker does not exist or its mailbox is full.
    pub fn post(&mut self, to: WorkerId, msg: M) -> Result<(), PostError<M>> {
        self.mailboxes.post(to, msg)
    }

    /// Runs `job` on a helper thread; what it returns arrives as [`super::App::on_post`].
    ///
    /// # Errors
    /// The job, when too many are waiting.
    pub fn offload(
        &mut self,
        job: impl FnOnce() -> M + Send + 'static,
    ) -> Result<(), PostError<Box<dyn FnOnce() -> M + Send>>> {
        self.helpers.run(Box::new(job))
    }
}

/// Indices of stream ports from here on; those within datagram ports have the index of these, which fits a byte. So neither moves
/// when a worker gets a port more.
pub(crate) const STREAM_PORTS: usize = 256;

/// The stream port with that index: within a datagram port, or by itself.
pub(crate) fn stream_port<'p>(
    ports: &'p mut [Box<dyn DatagramPort>],
    streams: &'p mut [Box<dyn StreamPort>],
    index: usize,
) -> Option<&'p mut dyn StreamPort> {
    match index.checked_sub(STREAM_PORTS) {
        None => ports.get_mut(index)?.streams(),
        Some(index) => match streams.get_mut(index) {
            Some(port) => Some(port.as_mut()),
            None => None,
        },
    }
}
