//! Medians and their intervals: pure functions over numbers.
//!
//! Interleaved rounds give one ratio each. Their distribution is unknown and has outliers (a shared machine), so nothing here
//! assumes a shape: the estimate is the median, its interval stands between two order statistics, and the chance that the
//! interval holds the true median follows from the binomial distribution alone:
//!
//! ```text
//!   sorted:  x1  x2  x3  x4  x5  x6  x7  x8  x9  x10
//!                └─────────── 97.9 % ────────┘            k = 2:  1 − 2·P(Binomial(10, ½) < 2)
//! ```

use serde::Serialize;

/// The least chance with which an interval should hold the true median. Higher widens every interval and needs more rounds
/// (0.99: eight at least); lower calls noise a difference.
const COVERAGE: f64 = 0.95;

/// A median with the interval it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The median of the values.
    pub median: f64,
    /// The interval's lower end, one of the values.
    pub low: f64,
    /// The interval's upper end, one of the values.
    pub high: f64,
    /// The chance that the interval holds the true median. Below 0.95 when there are fewer than six values.
    pub coverage: f64,
    /// How many values there were.
    pub count: usize,
}

/// The median of `values` and the narrowest symmetric interval of order statistics that holds the true one with a chance of at
/// least 95 %, or the whole range when there are too few. `None` when there are no values, or one is not a number.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let (rank, coverage) = (1..=count.div_ceil(2))
        .map(|rank| (rank, coverage(count, rank)))
        .take_while(|&(rank, coverage)| rank == 1 || coverage >= COVERAGE)
        .last()?;
    let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
    Some(Estimate { median, low: sorted[rank - 1], high: sorted[count - rank], coverage, count })
}

/// The ratio of each round: a round in which either side is missing, or the divisor is 0, gives none.
pub fn ratios(of: &[Option<f64>], to: &[Option<f64>]) -> Vec<f64> {
    of.iter().zip(to).filter_map(|(of, to)| Some((*of)? / (*to).filter(|to| *to > 0.0)?)).collect()
}

/// The chance that the true median lies between the `rank`-th smallest and the `rank`-th largest of `count` values:
/// 1 − 2·P(Binomial(count, ½) < rank).
fn coverage(count: usize, rank: usize) -> f64 {
    let mut chance = 0.5f64.powi(count as i32);
    let mut below = 0.0;
    for successes in 0..rank {
        below += chance;
        chance *= (count - successes) as f64 / (successes + 1) as f64;
    }
    (1.0 - 2.0 * below).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ten_values_leave_out_one_at_each_end() {
        let values: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        let found = estimate(&values).unwrap();
        assert_eq!((found.median, found.low, found.high, found.count), (5.5, 2.0, 9.0, 10));
        // 1 − 2·(1 + 10)/1024
        assert!((found.coverage - (1.0 - 22.0 / 1024.0)).abs() < 1e-12);
    }

    #[test]
    fn few_values_give_their_range_and_say_how_little_it_is_worth() {
        let found = estimate(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((found.median, found.low, found.high), (2.0, 1.0, 3.0));
        assert!((found.coverage - 0.75).abs() < 1e-12);
        assert_eq!(estimate(&[7.0]).unwrap().coverage, 0.0);
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn six_values_are_the_fewest_with_full_coverage() {
        assert!(estimate(&[1.0; 5]).unwrap().coverage < COVERAGE);
        assert!(estimate(&[1.0; 6]).unwrap().coverage >= COVERAGE);
    }

    #[test]
    fn rounds_without_both_sides_give_no_ratio() {
        let of = [Some(4.0), None, Some(9.0), Some(1.0)];
        let to = [Some(2.0), Some(1.0), Some(3.0), Some(0.0)];
        assert_eq!(ratios(&of, &to), [2.0, 3.0]);
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_median_and_is_made_of_values(values in prop::collection::vec(-1e9..1e9f64, 1..64)) {
            let found = estimate(&values).unwrap();
            prop_assert!(found.low <= found.median && found.median <= found.high);
            prop_assert!(values.contains(&found.low) && values.contains(&found.high));
            prop_assert!(values.len() < 6 || found.coverage >= COVERAGE);
        }
    }
}
