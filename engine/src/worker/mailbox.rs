//! Messages between workers: bounded SPSC rings, one for each ordered pair, and the waker that ends a sleep.
//!
//! ```text
//!   producer                       consumer
//!   publish to the ring            about_to_sleep(): sleeping = true
//!   ───── fence ─────              ───── fence ─────
//!   sleeping? ring the eventfd     anything in a ring? then do not sleep
//! ```
//!
//! Either the producer sees the flag or the consumer sees the message: the two fences forbid that both miss.

use crate::app::WorkerId;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A message that could not be delivered, given back.
#[derive(thiserror::Error)]
#[error("the mailbox of that worker is full or does not exist")]
pub struct PostError<T>(pub T);

impl<T> std::fmt::Debug for PostError<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostError(..)")
    }
}

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
    /// The ring to look at first: the one after the last that gave a message, so that no sender starves the others.
    turn: usize,
}

impl<M: Send> Mailboxes<M> {
    /// The mailboxes of `wakers.len()` workers, each pair joined by a ring of `capacity` messages.
    pub fn mesh(wakers: &[Arc<Waker>], capacity: usize) -> Vec<Mailboxes<M>> {
        let mut boxes: Vec<_> = wakers
            .iter()
            .map(|_| Mailboxes { outgoing: Vec::new(), incoming: Vec::new(), turn: 0 })
            .collect();
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

    /// The next message for this worker, from each sender in turn.
    pub fn take(&mut self) -> Option<M> {
        let rings = self.incoming.len();
        for step in 0..rings {
            let at = (self.turn + step) % rings;
            if let Ok(msg) = self.incoming[at].pop() {
                self.turn = at + 1;
                return Some(msg);
            }
        }
        None
    }

    /// True when no message waits.
    pub fn is_empty(&self) -> bool {
        self.incoming.iter().all(Consumer::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    fn silent(workers: usize) -> Vec<Arc<Waker>> {
        (0..workers).map(|_| Arc::new(Waker::new(|| ()))).collect()
    }

    #[test]
    fn a_full_ring_and_an_unknown_worker_give_the_message_back() {
        let mut mesh = Mailboxes::mesh(&silent(2), 2);
        let mut first = mesh.remove(0);
        assert!(first.post(WorkerId(1), 10).is_ok() && first.post(WorkerId(1), 11).is_ok());
        assert_eq!(first.post(WorkerId(1), 12).unwrap_err().0, 12);
        assert_eq!(first.post(WorkerId(2), 13).unwrap_err().0, 13);
        let second = &mut mesh[0];
        assert_eq!((second.take(), second.take(), second.take()), (Some(10), Some(11), None));
        assert!(second.is_empty());
    }

    #[test]
    fn a_worker_may_write_to_itself() {
        let mut mesh = Mailboxes::mesh(&silent(1), 4);
        mesh[0].post(WorkerId(0), 7).unwrap();
        assert_eq!(mesh[0].take(), Some(7));
    }

    #[test]
    fn a_flooding_sender_does_not_starve_another() {
        let mut mesh = Mailboxes::mesh(&silent(3), 16);
        for n in 0..10 {
            mesh[0].post(WorkerId(2), n).unwrap();
        }
        mesh[1].post(WorkerId(2), 100).unwrap();
        let got: Vec<i32> = std::iter::from_fn(|| mesh[2].take()).take(2).collect();
        assert!(got.contains(&100), "{got:?}");
    }

    #[test]
    fn the_eventfd_is_left_alone_while_the_worker_is_awake() {
        let (bell, rung) = mpsc::channel();
        let waker = Arc::new(Waker::new(move || bell.send(()).unwrap()));
        let mut mesh = Mailboxes::mesh(&[Arc::clone(&waker)], 4);
        mesh[0].post(WorkerId(0), 1).unwrap();
        assert!(rung.try_recv().is_err());
        waker.about_to_sleep();
        mesh[0].post(WorkerId(0), 2).unwrap();
        assert!(rung.try_recv().is_ok());
        waker.awake();
        mesh[0].post(WorkerId(0), 3).unwrap();
        assert!(rung.try_recv().is_err());
    }

    /// Two producers post as fast as they can, the consumer sleeps whenever it finds nothing. A lost wake-up would leave it
    /// asleep with messages in its rings: the bounded wait sees that.
    #[test]
    fn no_wake_up_is_lost_and_every_sender_keeps_its_order() {
        const MESSAGES: u64 = 20_000;
        let (bell, rung) = mpsc::sync_channel::<()>(1);
        let wakers: Vec<_> = (0..3)
            .map(|n| {
                let bell = bell.clone();
                Arc::new(Waker::new(move || {
                    if n == 2 {
                        let _ = bell.try_send(());
                    }
                }))
            })
            .collect();
        let mut mesh = Mailboxes::mesh(&wakers, 8);
        let mut consumer = mesh.pop().unwrap();
        let producers: Vec<_> = mesh
            .into_iter()
            .enumerate()
            .map(|(sender, mut mailboxes)| {
                std::thread::spawn(move || {
                    for n in 0..MESSAGES {
                        let mut msg = (sender, n);
                        while let Err(PostError(back)) = mailboxes.post(WorkerId(2), msg) {
                            msg = back;
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0u64; 2];
        while next != [MESSAGES; 2] {
            if let Some((sender, n)) = consumer.take() {
                assert_eq!(n, next[sender]);
                next[sender] += 1;
                continue;
            }
            wakers[2].about_to_sleep();
            if consumer.is_empty() {
                rung.recv_timeout(Duration::from_secs(20)).expect("woken while messages come");
            }
            wakers[2].awake();
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert!(consumer.is_empty());
    }
}
