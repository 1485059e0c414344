//! Round-trip time and the retransmission timeout (RFC 6298).

use crate::config::Config;
use crate::time::us_of;

/// Clock granularity G of RFC 6298 (2.3): timers have one millisecond.
const GRANULARITY_US: u32 = 1_000;
/// How long a minimum stays one (RFC 8985, section 6.2, step 1 wants "a windowed min").
const MIN_WINDOW_MS: u32 = 300_000;

/// What is known of the path's round-trip time, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rtt {
    /// Smoothed; zero before the first sample.
    pub smoothed: u32,
    pub variance: u32,
    /// The timeout, without backoff.
    pub rto: u32,
    /// The least of the last five minutes.
    pub min: u32,
    min_at: u32,
}

impl Rtt {
    pub(crate) fn start(config: &Config) -> Rtt {
        Rtt { rto: us_of(config.initial_rto), ..Rtt::default() }
    }

    /// Takes a sample (RFC 6298, section 2).
    pub(crate) fn sample(&mut self, us: u32, now_ms: u32, config: &Config) {
        let us = us.clamp(1, 1 << 28);
        if self.min == 0 || us <= self.min || now_ms.wrapping_sub(self.min_at) > MIN_WINDOW_MS {
            self.min = us;
            self.min_at = now_ms;
        }
        if self.smoothed == 0 {
            // (2.2)
            self.smoothed = us;
            self.variance = us / 2;
        } else {
            // (2.3): beta 1/4, alpha 1/8, the variance first.
            let error = self.smoothed.abs_diff(us);
            self.variance = self.variance - self.variance / 4 + error / 4;
            self.smoothed = (self.smoothed - self.smoothed / 8 + us / 8).max(1);
        }
        let rto = self.smoothed.saturating_add(GRANULARITY_US.max(4 * self.variance));
        // (2.4), with our own minimum, and (2.5).
        self.rto = rto.clamp(us_of(config.min_rto), us_of(config.max_rto));
    }

    /// The timeout after `backoff` timeouts in a row (5.5).
    pub(crate) fn backed_off(&self, backoff: u8, config: &Config) -> u32 {
        let max = us_of(config.max_rto).max(1);
        self.rto
            .checked_shl(u32::from(backoff))
            .filter(|rto| rto >> backoff == self.rto)
            .unwrap_or(max)
            .min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_formulas() {
        let config = Config::default();
        let mut rtt = Rtt::start(&config);
        assert_eq!(rtt.rto, 1_000_000);
        rtt.sample(400_000, 0, &config);
        assert_eq!((rtt.smoothed, rtt.variance, rtt.rto), (400_000, 200_000, 1_200_000));
        rtt.sample(480_000, 1, &config);
        assert_eq!((rtt.smoothed, rtt.variance, rtt.rto), (410_000, 170_000, 1_090_000));
        assert_eq!(rtt.min, 400_000);
        assert_eq!(rtt.backed_off(2, &config), 4_360_000);
        assert_eq!(rtt.backed_off(12, &config), 60_000_000);
        let mut lan = Rtt::start(&config);
        lan.sample(50, 0, &config);
        assert_eq!(lan.rto, 200_000);
    }
}
