//! What the progress line shows while the generator runs: counters written by the loop, read by another
//! thread.

use super::tracker::Counts;
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The counters of a running measurement.
#[derive(Default)]
pub struct Live {
    sent: CachePadded<AtomicU64>,
    received: AtomicU64,
    wrong: AtomicU64,
    done: Mutex<bool>,
    ended: Condvar,
}

impl Live {
    /// Shows `counts`. Called by the loop: three relaxed stores.
    #[inline]
    pub fn publish(&self, counts: &Counts) {
        self.sent.store(counts.sent, Ordering::Relaxed);
        self.received.store(counts.received, Ordering::Relaxed);
        self.wrong.store(counts.corrupted + counts.duplicated, Ordering::Relaxed);
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends [`Live::print_progress`].
    pub fn finish(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.notify_all();
    }

    /// Prints a line to standard error each second until [`Live::finish`]. It sleeps in between, so it may
    /// share the loop's core.
    pub fn print_progress(&self) {
        let (mut before, mut last) = ((0, 0), Instant::now());
        let start = last;
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while !*done {
            let left = Duration::from_secs(1).saturating_sub(last.elapsed());
            done = self.ended.wait_timeout(done, left).unwrap_or_else(PoisonError::into_inner).0;
            let (now, gap) = (Instant::now(), last.elapsed());
            if gap < Duration::from_secs(1) {
                continue;
            }
            let after = (self.sent(), self.received.load(Ordering::Relaxed));
            // Each measurement, and the end of a warm-up, begins again at 0.
            let pps =
                |after: u64, before| after.checked_sub(before).unwrap_or(after) as f64 / gap.as_secs_f64();
            eprintln!(
                "{:>4} s  sent {:>10.0} pps  answered {:>10.0} pps  not answered {:>9}  wrong {}",
                (now - start).as_secs(),
                pps(after.0, before.0),
                pps(after.1, before.1),
                after.0.saturating_sub(after.1),
                self.wrong.load(Ordering::Relaxed),
            );
            (before, last) = (after, now);
        }
    }
}
