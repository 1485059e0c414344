//! Time as an argument.
//!
//! Nothing above the worker asks a clock: a worker reads [`Now`] once per loop and hands it down, so that
//! recorded traffic replays exactly and tests own the time.

/// The moment a worker's loop began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic nanoseconds (CLOCK_MONOTONIC on a running engine). Deadlines are on this scale.
    pub ns: u64,
    /// Seconds since the Unix epoch, for tokens and logs; never for deadlines.
    pub unix_secs: u64,
}
