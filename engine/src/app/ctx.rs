//! What an app may do from a callback.

use super::WorkerId;
use crate::datagram::{DatagramPort, SendError};
use crate::net::Path;
use crate::time::Now;
use crate::worker::{Helpers, Mailboxes, PostError, TimerId, Timers};
use rand::rngs::SmallRng;

/// The worker, as seen by its app during one callback.
pub struct Ctx<'w, M> {
    pub(crate) now: Now,
    pub(crate) worker: WorkerId,
    pub(crate) rng: &'w mut SmallRng,
    pub(crate) ports: &'w mut [Box<dyn DatagramPort>],
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
