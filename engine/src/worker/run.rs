//! The loop around [`Worker::turn`]: clock, sleep, housekeeping, stop.

use super::clock::Clock;
use super::idle::{IdlePolicy, Sleeper};
use super::turn::{Board, Exchange, Worker};
use crate::app::App;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a busy worker publishes its counters and looks whether a port is gone, in ns. Publishing costs about a
/// hundred stores: each millisecond it would show in a profile, each second a progress line would be stale.
const HOUSEKEEPING_NS: u64 = 10_000_000;

/// Longest sleep, in ns: bounds how late a port is noticed to be gone when its descriptors stay silent about it.
const SLEEP_MAX_NS: u64 = 100_000_000;

/// Longest sleep while frames are on their way out, in ns. A completion wakes nobody, and frames that wait to be reaped
/// are frames the receive side does not have.
const SLEEP_UNDRAINED_NS: u64 = 1_000_000;

/// Empty turns before a worker goes to sleep. Packets arrive in trains: looking a few times more (a microsecond or two)
/// is cheaper than a sleep and a wake-up between two cars of a train; looking for longer would be spinning.
const TURNS_BEFORE_SLEEP: u32 = 16;

/// Asks workers to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Not asked yet.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks. Wake the worker afterwards: it may sleep.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True once asked.
    #[inline]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything that was to be sent has been, and every frame is back.
    Drained,
    /// The time to drain was over first.
    TimedOut,
}

/// How a worker is run.
pub struct Run<'r> {
    /// Spin or sleep.
    pub idle: IdlePolicy,
    /// Time to drain after a stop, in ns.
    pub drain_ns: u64,
    /// Asks the worker to stop.
    pub stop: &'r Stop,
    /// Where counters go.
    pub board: &'r Board,
    /// Called when a port (its index, the reason) is gone; the worker goes on with the others.
    pub on_failure: &'r mut dyn FnMut(usize, String),
    /// Called with every look after the house, between two turns: it may exchange ports, and says whether it did.
    pub exchange: &'r mut dyn FnMut(&mut Exchange<'_>) -> bool,
}

/// Runs `worker` until it is asked to stop and has drained.
pub fn run<A: App>(worker: &mut Worker<A>, sleeper: &mut Sleeper, run: Run<'_>) -> End {
    let Run { idle, drain_ns, stop, board, on_failure, exchange } = run;
    let mut clock = Clock::new();
    sleeper.watch(worker.poll_fds());
    let mut now = clock.now();
    worker.start(now);
    let mut housekeeping_ns = now.ns;
    let mut drain_until = u64::MAX;
    let mut empty = 0u32;
    loop {
        now = clock.now();
        let turn = worker.turn(now);
        if now.ns >= housekeeping_ns {
            housekeeping_ns = now.ns + HOUSEKEEPING_NS;
            worker.publish(board);
            while let Some((port, reason)) = worker.failed_port() {
                sleeper.watch(worker.poll_fds());
                on_failure(port, reason);
            }
            if exchange(&mut worker.exchange()) {
                sleeper.watch(worker.poll_fds());
                worker.publish(board);
            }
        }
        if stop.is_requested() && !worker.is_stopping() {
            drain_until = now.ns.saturating_add(drain_ns);
            worker.stop(now, drain_until);
        } else if worker.is_stopping() && (worker.is_drained() || now.ns >= drain_until) {
            worker.publish(board);
            return if worker.is_drained() { End::Drained } else { End::TimedOut };
        }
        if turn.work > 0 {
            empty = 0;
            continue;
        }
        empty += 1;
        if idle == IdlePolicy::Spin || empty < TURNS_BEFORE_SLEEP {
            std::hint::spin_loop();
            continue;
        }
        empty = 0;
        worker.publish(board);
        let longest = if worker.is_drained() { SLEEP_MAX_NS } else { SLEEP_UNDRAINED_NS };
        let deadline = worker.next_deadline().map_or(longest, |at| at.saturating_sub(now.ns).min(longest));
        if deadline == 0 || worker.before_sleep() {
            continue;
        }
        if sleeper.sleep(deadline, || worker.has_messages() || stop.is_requested() != worker.is_stopping())
        {
            worker.slept();
        }
    }
}
