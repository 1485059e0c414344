//! Time as the caller tells it. Nothing in this crate reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the caller's monotonic clock, in nanoseconds from an origin of its choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// From nanoseconds since the origin.
    pub const fn from_nanos(ns: u64) -> Instant {
        Instant(ns)
    }

    /// From milliseconds since the origin.
    pub const fn from_millis(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    /// Nanoseconds since the origin.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since the origin, wrapping: the unit of timers and of the timestamp option.
    pub(crate) const fn ms(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    /// Microseconds since the origin, wrapping: the unit of round-trip times.
    pub(crate) const fn us(self) -> u32 {
        (self.0 / 1_000) as u32
    }

    /// The time from `earlier` to this one; zero when `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// A duration in whole milliseconds, at least one, for timers.
pub(crate) fn ms_of(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX / 4).clamp(1, u32::MAX / 4)
}

/// A duration in whole microseconds.
pub(crate) fn us_of(d: Duration) -> u32 {
    u32::try_from(d.as_micros()).unwrap_or(u32::MAX / 4).min(u32::MAX / 4)
}

/// The millisecond after `us` microseconds from `now`, rounded up so that no timer fires early.
pub(crate) const fn deadline_us(now: Instant, us: u32) -> u32 {
    ((now.0 + us as u64 * 1_000).div_ceil(1_000_000)) as u32
}

/// The millisecond after `ms` milliseconds from `now`, rounded up.
pub(crate) const fn deadline_ms(now: Instant, ms: u32) -> u32 {
    ((now.0 + ms as u64 * 1_000_000).div_ceil(1_000_000)) as u32
}

/// Whether wrapping millisecond `deadline` has come at `now`.
pub(crate) const fn due(deadline: u32, now_ms: u32) -> bool {
    now_ms.wrapping_sub(deadline) as i32 >= 0
}

/// Whether wrapping time `a` is before `b`.
pub(crate) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
