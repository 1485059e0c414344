//! Tables for people.

use crate::rounds::{Ratio, Rounds};
use crate::stats::Estimate;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

/// One line for each row: the median and its interval.
pub fn rows(rounds: &Rounds, unit: &str) -> String {
    let mut table = Builder::default();
    table.push_record(["", &format!("median {unit}"), "interval", "rounds"]);
    for row in rounds.rows() {
        let (median, interval) = estimate(row.estimate);
        let measured = row.values.iter().flatten().count();
        table.push_record([row.name.clone(), median, interval, measured.to_string()]);
    }
    right(table)
}

/// One line for each ratio.
pub fn ratios(ratios: &[Ratio]) -> String {
    let mut table = Builder::default();
    table.push_record(["", "median ratio", "interval", "wanted", ""]);
    for ratio in ratios {
        let (median, interval) = estimate(ratio.estimate);
        let verdict = if ratio.met { "met" } else { "missed" };
        let name = format!("{} / {}", ratio.of, ratio.to);
        table.push_record([name, median, interval, format!("{:.2}", ratio.wanted), verdict.into()]);
    }
    right(table)
}

/// A table with numbers on the right.
pub fn right(table: Builder) -> String {
    table.build().with(Style::sharp()).modify(Columns::new(1..), Alignment::right()).to_string()
}

/// A time in the unit that suits it.
pub fn time(ns: u64) -> String {
    match ns {
        0..1000 => format!("{ns} ns"),
        1000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
}

/// A rate in the unit that suits it.
pub fn rate(pps: f64) -> String {
    if pps >= 1e6 { format!("{:.2} Mpps", pps / 1e6) } else { format!("{:.1} kpps", pps / 1e3) }
}

fn estimate(estimate: Option<Estimate>) -> (String, String) {
    match estimate {
        Some(Estimate { median, low, high, coverage, .. }) => {
            (format!("{median:.3}"), format!("{low:.3} – {high:.3} ({:.0} %)", coverage * 100.0))
        }
        None => ("–".into(), "–".into()),
    }
}
