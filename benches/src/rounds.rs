//! Interleaved rounds: every row once a round, in an order that turns, so that whatever the machine does meanwhile meets
//! every row alike; then medians, and medians of the ratios within a round.

use crate::stats::{self, Estimate};
use serde::Serialize;

/// The measurements of several rows over several rounds. A round in which a row failed has no value for it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rounds {
    rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// One value a round.
    pub values: Vec<Option<f64>>,
    /// The median of the values.
    pub estimate: Option<Estimate>,
}

/// How one row stands to another.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// The row above the line.
    pub of: String,
    /// The row below it.
    pub to: String,
    /// The median of the per-round ratios.
    pub estimate: Option<Estimate>,
    /// What it should be at least.
    pub wanted: f64,
    /// Whether the median reaches that.
    pub met: bool,
}

impl Rounds {
    /// No rounds yet.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a str>) -> Rounds {
        let row = |name: &str| Row { name: name.to_owned(), values: Vec::new(), estimate: None };
        Rounds { rows: rows.into_iter().map(row).collect() }
    }

    /// The order of the rows in a round: it turns, and every other round runs backwards, so that no row always follows the same
    /// other one.
    pub fn order(&self, round: usize) -> Vec<usize> {
        let count = self.rows.len();
        let turned = (0..count).map(|at| (at + round / 2) % count);
        if round.is_multiple_of(2) { turned.collect() } else { turned.rev().collect() }
    }

    /// Notes a row's value of this round.
    pub fn note(&mut self, row: usize, value: Option<f64>) {
        let row = &mut self.rows[row];
        row.values.push(value);
        row.estimate = stats::estimate(&row.values.iter().flatten().copied().collect::<Vec<_>>());
    }

    /// The rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The ratio of two rows by name; `None` when there is no such row.
    pub fn ratio(&self, of: &str, to: &str, wanted: f64) -> Option<Ratio> {
        let row = |name: &str| self.rows.iter().find(|row| row.name == name);
        let estimate = stats::estimate(&stats::ratios(&row(of)?.values, &row(to)?.values));
        let met = estimate.is_some_and(|estimate| estimate.median >= wanted);
        Some(Ratio { of: of.to_owned(), to: to.to_owned(), estimate, wanted, met })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_row_and_every_row_leads_alike() {
        let rounds = Rounds::new(["a", "b", "c"]);
        let mut leads = [0; 3];
        for round in 0..6 {
            let mut order = rounds.order(round);
            leads[order[0]] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
        assert_eq!(leads, [2, 2, 2]);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // A machine that gets slower by half does not change the ratio.
        let mut rounds = Rounds::new(["ours", "theirs"]);
        for speed in [1.0, 0.9, 0.8, 0.7, 0.6, 0.5] {
            rounds.note(0, Some(3.0 * speed));
            rounds.note(1, Some(2.0 * speed));
        }
        let ratio = rounds.ratio("ours", "theirs", 1.5 - 1e-9).unwrap();
        let estimate = ratio.estimate.unwrap();
        assert!((estimate.median - 1.5).abs() < 1e-9 && (estimate.high - estimate.low).abs() < 1e-9);
        assert!(ratio.met && !rounds.ratio("ours", "theirs", 1.6).unwrap().met);
        assert!(rounds.ratio("ours", "nobody", 1.0).is_none());
    }

    #[test]
    fn a_failed_row_does_not_meet_anything() {
        let mut rounds = Rounds::new(["ours", "theirs"]);
        rounds.note(0, Some(1.0));
        rounds.note(1, None);
        let ratio = rounds.ratio("ours", "theirs", 0.1).unwrap();
        assert!(ratio.estimate.is_none() && !ratio.met);
    }
}
