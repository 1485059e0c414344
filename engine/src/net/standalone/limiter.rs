//! So many a second, and no more.

/// A token bucket that holds a tenth of a second's tokens (at least 8), in one number: the time at which it is full again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limiter {
    interval_ns: u64,
    depth_ns: u64,
    full_at: u64,
}

impl Limiter {
    /// `per_second` in the long run; 0 is none at all.
    pub fn new(per_second: u32) -> Limiter {
        let interval_ns = match per_second {
            0 => 0,
            n => (1_000_000_000 / u64::from(n)).max(1),
        };
        Limiter { interval_ns, depth_ns: interval_ns * u64::from(per_second / 10).max(8), full_at: 0 }
    }

    /// Takes a token, if there is one.
    pub fn allow(&mut self, now_ns: u64) -> bool {
        let full_at = self.full_at.max(now_ns) + self.interval_ns;
        let allowed = self.interval_ns > 0 && full_at - now_ns <= self.depth_ns;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_after_silence_a_burst_again() {
        let mut limiter = Limiter::new(100);
        let second = 1_000_000_000;
        assert_eq!((0..1000).filter(|_| limiter.allow(5 * second)).count(), 10);
        let spread = (0..10_000).filter(|n| limiter.allow(5 * second + n * second / 10_000)).count();
        assert!((98..=101).contains(&spread), "{spread}");
        assert_eq!((0..1000).filter(|_| limiter.allow(9 * second)).count(), 10);
        assert!(!Limiter::new(0).allow(second));
    }
}
