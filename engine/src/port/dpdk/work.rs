//! How long a worker is busy above the driver with each burst: for benches, and off otherwise.
//!
//! ```text
//!   driver's rx ──► frames, steering, Net, app, answers ──► driver's tx ──► the rest of the turn ──► driver's rx
//!              └─────────── counted ──────────────────┘               └──────── counted ───────┘
//! ```
//!
//! Bursts that brought nothing are not counted, nor is the time in the driver. Reading the clock is in the figure: about 10 ns for
//! each of a burst's two spans.

use std::time::Instant;

/// A stopwatch over the bursts of one queue.
#[derive(Debug)]
pub(super) struct Work {
    on: bool,
    /// When the span under way began, in ticks; 0 outside one.
    since: u64,
    /// A burst is under way.
    burst: bool,
    ticks: u64,
    frames: u64,
    bursts: u64,
    began: (Instant, u64),
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measured {
    /// Time above the driver.
    pub ns: u64,
    /// The frames it was spent on.
    pub frames: u64,
    /// The bursts they came in.
    pub bursts: u64,
}

impl Work {
    pub fn new(on: bool) -> Work {
        let began = (Instant::now(), ticks());
        Work { on, since: 0, burst: false, ticks: 0, frames: 0, bursts: 0, began }
    }

    /// The driver has returned so many frames.
    #[inline(always)]
    pub fn begin(&mut self, frames: usize) {
        if self.on && frames > 0 {
            self.frames += frames as u64;
            self.bursts += 1;
            self.burst = true;
            self.since = ticks();
        }
    }

    /// The driver is called once more in this burst.
    #[inline(always)]
    pub fn pause(&mut self) {
        if self.burst {
            self.ticks += ticks().saturating_sub(self.since);
        }
    }

    /// It has returned.
    #[inline(always)]
    pub fn resume(&mut self) {
        if self.burst {
            self.since = ticks();
        }
    }

    /// The next burst is asked for.
    #[inline(always)]
    pub fn end(&mut self) {
        if self.burst {
            self.pause();
            self.burst = false;
        }
    }

    /// What was measured so far. Ticks become time by how many there were since the start.
    pub fn so_far(&self) -> Measured {
        let (at, tick) = self.began;
        let passed = u128::from(ticks().saturating_sub(tick)).max(1);
        let ns = u128::from(self.ticks) * at.elapsed().as_nanos() / passed;
        Measured { ns: ns as u64, frames: self.frames, bursts: self.bursts }
    }
}

/// A clock that is quick to read.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: reading the time-stamp counter has no effect and needs no feature.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    crate::worker::clock::monotonic_ns()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn nap(ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    #[test]
    fn what_is_above_the_driver_counts_and_nothing_else() {
        let mut work = Work::new(true);
        work.begin(0);
        nap(30);
        work.end();
        assert_eq!(work.so_far(), Measured::default());
        work.begin(5);
        nap(20);
        work.pause();
        nap(200);
        work.resume();
        nap(20);
        work.end();
        nap(200);
        let Measured { ns, frames, bursts } = work.so_far();
        assert_eq!((frames, bursts), (5, 1));
        // A sleep may take longer than asked, the driver's long ones are not in it.
        assert!(ns >= 39_000_000, "{ns}");
        let before = ns;
        nap(50);
        assert!(work.so_far().ns.abs_diff(before) < before / 20, "{:?}", work.so_far());
    }

    #[test]
    fn switched_off_it_measures_nothing() {
        let mut work = Work::new(false);
        work.begin(5);
        work.end();
        assert_eq!(work.so_far(), Measured::default());
    }
}
