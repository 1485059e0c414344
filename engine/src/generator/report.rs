//! What a run measured, as a table for people and as JSON for programs.

use super::ceiling::Ceiling;
use super::latency::Summary;
use super::session::Outcome;
use serde::Serialize;
use std::fmt;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

/// The result of one run of the generator. The JSON has these names; they are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `socket`, `af_xdp` or `blast`.
    pub mode: &'static str,
    /// Where the packets went.
    pub target: String,
    /// Flows (source address and port pairs).
    pub flows: usize,
    /// Shortest and longest payload, in bytes.
    pub payload_bytes: (usize, usize),
    /// Packets per second asked for; `None` when flat out.
    pub rate_pps: Option<f64>,
    /// The highest rate at which nothing was lost, if it was searched.
    pub ceiling: Option<Ceiling>,
    /// What was measured.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Remarks for the reader: what the link saw that explains the numbers.
    pub notes: Vec<String>,
}

/// A number with thousands separated, as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in the unit that suits it: ns, µs, ms or s.
pub fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { counts, latency, latency_uncorrected, latency_on_time, lateness, .. } = &self.outcome;
        let (shortest, longest) = self.payload_bytes;
        let bytes =
            if shortest == longest { shortest.to_string() } else { format!("{shortest} to {longest}") };
        let rate = self.rate_pps.map_or("flat out".into(), |pps| format!("{} pps", grouped(pps as u64)));
        writeln!(
            f,
            "{} to {}: {} flows, {bytes} bytes of payload, {rate}, {:.1} s",
            self.mode,
            self.target,
            self.flows,
            self.outcome.duration_ns as f64 / 1e9
        )?;
        if let Some(ceiling) = &self.ceiling {
            let pps = grouped(ceiling.rate_pps as u64);
            writeln!(f, "highest rate without loss: {pps} pps ({} probes)", ceiling.probes.len())?;
        }
        let mut table = Builder::default();
        table.push_record(["", "packets", "per second"]);
        let pps = |pps: f64| grouped(pps.round() as u64);
        table.push_record(["sent".into(), grouped(counts.sent), pps(self.outcome.sent_pps)]);
        table.push_record(["received".into(), grouped(counts.received), pps(self.outcome.received_pps)]);
        for (name, count) in [
            ("lost", counts.lost),
            ("duplicated", counts.duplicated),
            ("reordered", counts.reordered),
            ("corrupted", counts.corrupted),
            ("stale", counts.stale),
        ] {
            table.push_record([name.to_string(), grouped(count), String::new()]);
        }
        write!(f, "{}", right(table))?;

        let mut table = Builder::default();
        table.push_record(["", "p50", "p90", "p99", "p99.9", "max"]);
        let rows = [
            ("round trip, from intended send", latency),
            ("round trip, from actual send", latency_uncorrected),
            ("round trip, of those sent on time", latency_on_time),
            ("generator's own lateness", lateness),
        ];
        for (name, summary) in rows {
            let Summary { p50_ns, p90_ns, p99_ns, p999_ns, max_ns, .. } = summary;
            let times = [p50_ns, p90_ns, p99_ns, p999_ns, max_ns].map(|ns| time(*ns));
            table.push_record(std::iter::once(name.to_string()).chain(times));
        }
        if lateness.count > 0 {
            write!(f, "\n{}", right(table))?;
        }
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}

/// Lines up numbers on the right.
pub(super) fn right(table: Builder) -> String {
    table.build().with(Style::sharp()).modify(Columns::new(1..), Alignment::right()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1000, 1_234_567].map(grouped)[..]);
    }

    #[test]
    fn times_choose_their_unit() {
        let times = [999, 12_345, 12_345_678, 12_345_678_901].map(time);
        assert_eq!(times, ["999 ns", "12.3 µs", "12.3 ms", "12.3 s"]);
    }

    #[test]
    fn json_names_are_flat_and_stable() {
        let report = Report {
            mode: "socket",
            target: "[::1]:7777".into(),
            flows: 1,
            payload_bytes: (18, 18),
            rate_pps: None,
            ceiling: None,
            outcome: Outcome::default(),
            notes: vec![],
        };
        let json = serde_json::to_value(&report).unwrap();
        for name in
            ["sent", "received", "lost", "duplicated", "reordered", "corrupted", "stale", "sent_pps"]
        {
            assert!(json.get(name).is_some(), "{name}");
        }
        for name in ["latency", "latency_uncorrected", "latency_on_time", "lateness"] {
            assert!(json[name].get("p999_ns").is_some(), "{name}");
        }
    }
}
