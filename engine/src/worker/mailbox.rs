//! Messages between workers, and from helper threads: bounded SPSC rings, one for each ordered pair.

use crate::app::WorkerId;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A message that could not be delivered, given back.
#[derive(Debug, thiserror::Error)]
#[error("the mailbox of that worker is full or does not exist")]
pub struct PostError<T>(pub T);

/// Wakes a sleeping worker: an eventfd, written only when the worker says that it sleeps.
pub struct Waker {
    sleeping: AtomicBool,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl Waker {
    /// A waker that calls `ring` to end the worker's sleep.
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Waker {
        Waker { sleeping: AtomicBool::new(false), ring: Box::new(ring) }
    }

    /// The producer's side, after it published something.
    pub fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            (self.ring)();
        }
    }

    /// The consumer's side: says that it is about to sleep. It must look for work once more after this.
    pub fn about_to_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The consumer's side: awake again.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

/// One worker's ends of all rings.
pub struct Mailboxes<M> {
    outgoing: Vec<(Producer<M>, Arc<Waker>)>,
    incoming: Vec<Consumer<M>>,
}

impl<M: Send> Mailboxes<M> {
    /// The mailboxes of `wakers.len()` workers, each pair joined by a ring of `capacity` messages.
    pub fn mesh(wakers: &[Arc<Waker>], capacity: usize) -> Vec<Mailboxes<M>> {
        let mut boxes: Vec<_> =
            wakers.iter().map(|_| Mailboxes { outgoing: Vec::new(), incoming: Vec::new() }).collect();
        for from in 0..wakers.len() {
            for (to, waker) in wakers.iter().enumerate() {
                let (producer, consumer) = RingBuffer::new(capacity);
                boxes[from].outgoing.push((producer, Arc::clone(waker)));
                boxes[to].incoming.push(consumer);
            }
        }
        boxes
    }

    /// Sends `msg` to worker `to`.
    ///
    /// # Errors
    /// Gives the message back when the ring is full or there is no such worker.
    pub fn post(&mut self, to: WorkerId, msg: M) -> Result<(), PostError<M>> {
        let Some((ring, waker)) = self.outgoing.get_mut(to.0 as usize) else { return Err(PostError(msg)) };
        ring.push(msg).map_err(|rtrb::PushError::Full(msg)| PostError(msg))?;
        waker.notify();
        Ok(())
    }

    /// The next message for this worker.
    pub fn take(&mut self) -> Option<M> {
        self.incoming.iter_mut().find_map(|ring| ring.pop().ok())
    }

    /// True when no message waits.
    pub fn is_empty(&self) -> bool {
        self.incoming.iter().all(Consumer::is_empty)
    }
}
