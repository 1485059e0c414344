//! Times, gathered without allocating and summed up at the end.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time told apart, in ns; what is longer counts as this long. Ten seconds is far beyond any
/// linger.
const LONGEST_NS: u64 = 10_000_000_000;
/// Significant decimal digits kept: times are exact to 0.1 %. One more would take ten times the memory (and
/// cache misses).
const DIGITS: u8 = 3;

/// A histogram of times in ns.
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Times {
        Times(Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("the bounds are constants that fit"))
    }
}

impl Times {
    /// Adds one time. Never allocates.
    #[inline(always)]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// The percentiles so far; all zero when nothing was recorded.
    pub fn summary(&self) -> Summary {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Summary {
            count: self.0.len(),
            mean_ns: if self.0.is_empty() { 0.0 } else { self.0.mean() },
            min_ns: if self.0.is_empty() { 0 } else { self.0.min() },
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: self.0.max(),
        }
    }
}

/// Percentiles of [`Times`], in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many times were recorded.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_ns: f64,
    /// Least.
    pub min_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Greatest.
    pub max_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_row() {
        let mut times = Times::default();
        (1..=1000).for_each(|ns| times.record(ns));
        let summary = times.summary();
        assert_eq!((summary.count, summary.min_ns, summary.max_ns), (1000, 1, 1000));
        assert_eq!((summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p999_ns), (500, 900, 990, 999));
    }

    #[test]
    fn what_is_beyond_the_bound_is_kept_at_the_bound() {
        let mut times = Times::default();
        times.record(u64::MAX);
        assert_eq!(times.summary().count, 1);
        assert!(times.summary().max_ns >= LONGEST_NS);
    }

    #[test]
    fn an_empty_summary_is_all_zero() {
        assert_eq!(Times::default().summary(), Summary::default());
    }
}
