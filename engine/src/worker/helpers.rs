//! Helper threads: for what blocks or takes too long for a worker.

use super::mailbox::{PostError, Waker};
use rtrb::{Consumer, Producer, RingBuffer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

type Job<M> = Box<dyn FnOnce() -> M + Send>;

/// One worker's helper thread: jobs out, results back, both bounded.
///
/// The thread starts with the first job and ends when this is dropped, after the job it is at. A job that panics
/// has no result; it is counted ([`Helpers::panicked`]) and the thread goes on.
pub struct Helpers<M> {
    capacity: usize,
    waker: Arc<Waker>,
    running: Option<Running<M>>,
    in_flight: usize,
    panicked: u64,
}

struct Running<M> {
    jobs: Producer<Job<M>>,
    /// `None` for a job that panicked.
    results: Consumer<Option<M>>,
    thread: JoinHandle<()>,
}

impl<M: Send + 'static> Helpers<M> {
    /// At most `capacity` jobs under way; `waker` wakes the worker when one is done.
    pub fn new(capacity: usize, waker: Arc<Waker>) -> Helpers<M> {
        Helpers { capacity, waker, running: None, in_flight: 0, panicked: 0 }
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
        let running = self.running.as_mut()?;
        while let Ok(result) = running.results.pop() {
            self.in_flight -= 1;
            match result {
                Some(result) => return Some(result),
                None => self.panicked += 1,
            }
        }
        None
    }

    /// True when no result waits.
    pub fn is_empty(&self) -> bool {
        self.running.as_ref().is_none_or(|r| r.results.is_empty())
    }

    /// Jobs that panicked, as far as [`Helpers::take`] has seen.
    pub fn panicked(&self) -> u64 {
        self.panicked
    }

    fn start(&self) -> std::io::Result<Running<M>> {
        let (jobs, mut inbox) = RingBuffer::<Job<M>>::new(self.capacity);
        let (mut outbox, results) = RingBuffer::new(self.capacity);
        let waker = Arc::clone(&self.waker);
        let thread = std::thread::Builder::new().name("volley-helper".into()).spawn(move || {
            super::affinity::unpin();
            loop {
                match inbox.pop() {
                    // Never full: no more than `capacity` jobs are under way.
                    Ok(job) => {
                        let _ = outbox.push(catch_unwind(AssertUnwindSafe(job)).ok());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    fn take<M: Send + 'static>(helpers: &mut Helpers<M>) -> M {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match helpers.take() {
                Some(result) => return result,
                None if Instant::now() > until => panic!("no result within 10 s"),
                None => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn results_come_back_in_order_and_the_bound_holds() {
        let mut helpers = Helpers::new(2, Arc::new(Waker::new(|| ())));
        let (go, gate) = mpsc::channel::<()>();
        helpers
            .run(Box::new(move || {
                gate.recv().unwrap();
                1
            }))
            .unwrap();
        helpers.run(Box::new(|| 2)).unwrap();
        let refused = helpers.run(Box::new(|| 3)).unwrap_err();
        assert_eq!(helpers.take(), None);
        go.send(()).unwrap();
        assert_eq!((take(&mut helpers), take(&mut helpers)), (1, 2));
        helpers.run(refused.0).unwrap();
        assert_eq!(take(&mut helpers), 3);
        assert!(helpers.is_empty());
    }

    #[test]
    fn a_job_that_panics_is_counted_and_frees_its_place() {
        let mut helpers = Helpers::new(1, Arc::new(Waker::new(|| ())));
        helpers.run(Box::new(|| panic!("on purpose"))).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while helpers.panicked() == 0 && Instant::now() < until {
            assert_eq!(helpers.take(), None::<u8>);
        }
        assert_eq!(helpers.panicked(), 1);
        helpers.run(Box::new(|| 5)).unwrap();
        assert_eq!(take(&mut helpers), 5);
    }

    #[test]
    fn a_sleeping_worker_is_woken_by_a_result() {
        let (bell, rung) = mpsc::channel();
        let waker = Arc::new(Waker::new(move || bell.send(()).unwrap()));
        let mut helpers = Helpers::new(1, Arc::clone(&waker));
        waker.about_to_sleep();
        helpers.run(Box::new(|| 9)).unwrap();
        rung.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(helpers.take(), Some(9));
    }
}
