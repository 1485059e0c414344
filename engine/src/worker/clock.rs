//! The worker's clock: read once per turn, handed down as [`Now`].

use crate::time::Now;

/// How long the seconds of the Unix epoch may be old, in ns: they serve tokens and logs, so they are read anew
/// twenty times a second rather than each turn, which would cost a second clock reading per burst.
const UNIX_REFRESH_NS: u64 = 50_000_000;

/// Reads CLOCK_MONOTONIC, and every 50 ms the Unix time.
#[derive(Debug, Default)]
pub struct Clock {
    unix_secs: u64,
    refresh_ns: u64,
}

impl Clock {
    /// A clock that has not been read yet.
    pub fn new() -> Clock {
        Clock::default()
    }

    /// The time.
    #[inline]
    pub fn now(&mut self) -> Now {
        let ns = monotonic_ns();
        if ns >= self.refresh_ns {
            self.refresh_ns = ns + UNIX_REFRESH_NS;
            let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            self.unix_secs = unix.map_or(self.unix_secs, |since| since.as_secs());
        }
        Now { ns, unix_secs: self.unix_secs }
    }
}

/// CLOCK_MONOTONIC in ns: the scale of every deadline.
#[cfg(target_os = "linux")]
#[inline]
pub fn monotonic_ns() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(time) => time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
        // The clock exists on every Linux; a wrong constant would be the only way here.
        Err(_) => 0,
    }
}

/// Monotonic ns since the first call in this process.
#[cfg(not(target_os = "linux"))]
pub fn monotonic_ns() -> u64 {
    use std::{sync::OnceLock, time::Instant};
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_and_unix_time_is_ours() {
        let mut clock = Clock::new();
        let (a, b) = (clock.now(), clock.now());
        assert!(b.ns >= a.ns && a.ns > 0);
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(unix - b.unix_secs <= 1);
    }
}
