//! Helper threads: for what blocks or takes too long for a worker.

use super::mailbox::{PostError, Waker};
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::thread::JoinHandle;

type Job<M> = Box<dyn FnOnce() -> M + Send>;

/// One worker's helper thread: jobs out, results back, both bounded.
///
/// The thread starts with the first job and ends when this is dropped, after the job it is at.
pub struct Helpers<M> {
    capacity: usize,
    waker: Arc<Waker>,
    running: Option<Running<M>>,
    in_flight: usize,
}

struct Running<M> {
    jobs: Producer<Job<M>>,
    results: Consumer<M>,
    thread: JoinHandle<()>,
}

impl<M: Send + 'static> Helpers<M> {
    /// At most `capacity` jobs under way; `waker` wakes the worker when one is done.
    pub fn new(capacity: usize, waker: Arc<Waker>) -> Helpers<M> {
        Helpers { capacity, waker, running: None, in_flight: 0 }
    }

    /// Hands a job over.
    ///
    /// # Errors
    /// Gives the job back when too many are under way or no thread can be started.
    pub fn run(&mut self, job: Job<M>) -> Result<(), PostError<Job<M>>> {
        if self.in_flight == self.capacity {
            return Err(PostError(job));
        }
        if self.running.is_none() {
            match self.start() {
                Ok(running) => self.running = Some(running),
                Err(_) => return Err(PostError(job)),
            }
        }
        let Some(running) = &mut self.running else { return Err(PostError(job)) };
        running.jobs.push(job).map_err(|rtrb::PushError::Full(job)| PostError(job))?;
        running.thread.thread().unpark();
        self.in_flight += 1;
        Ok(())
    }

    /// The next result.
    pub fn take(&mut self) -> Option<M> {
        let result = self.running.as_mut()?.results.pop().ok()?;
        self.in_flight -= 1;
        Some(result)
    }

    /// True when no result waits.
    pub fn is_empty(&self) -> bool {
        self.running.as_ref().is_none_or(|r| r.results.is_empty())
    }

    fn start(&self) -> std::io::Result<Running<M>> {
        let (jobs, mut inbox) = RingBuffer::<Job<M>>::new(self.capacity);
        let (mut outbox, results) = RingBuffer::new(self.capacity);
        let waker = Arc::clone(&self.waker);
        let thread = std::thread::Builder::new().name("volley-helper".into()).spawn(move || {
            loop {
                match inbox.pop() {
                    // Never full: no more than `capacity` jobs are under way.
                    Ok(job) => {
                        let _ = outbox.push(job());
                        waker.notify();
                    }
                    Err(_) if inbox.is_abandoned() => return,
                    Err(_) => std::thread::park(),
                }
            }
        })?;
        Ok(Running { jobs, results, thread })
    }
}

impl<M> Drop for Helpers<M> {
    fn drop(&mut self) {
        if let Some(Running { jobs, results, thread }) = self.running.take() {
            drop(jobs);
            thread.thread().unpark();
            let _ = thread.join();
            drop(results);
        }
    }
}
