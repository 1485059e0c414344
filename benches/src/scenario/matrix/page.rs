//! The report for people: a Markdown table, and an HTML page with the table and the plots.

use super::Matrix;
use super::plot::{self, Axes};
use super::row::{Point, Row, Sample, latency_verdicts};
use crate::setup::Setup;
use crate::table::time;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

const HEAD: [&str; 16] = [
    "model",
    "Mpps (median)",
    "least – most",
    "lost at saturation",
    "p50",
    "p99",
    "p99.9",
    "p99, sent on time",
    "p99, actual send",
    "lost at common rate",
    "user ns/packet",
    "system ns/packet",
    "calls/packet",
    "MiB",
    "most flows",
    "collapses at",
];

fn dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "–".into())
}

/// One row's cells.
fn cells(row: &Row) -> Vec<String> {
    let percent = |part: f64| format!("{:.1} %", part * 100.0);
    let latency =
        |of: fn(&Sample) -> u64| dash(row.median(|sample| of(sample) as f64).map(|ns| time(ns as u64)));
    let cost = |of: fn(&Sample) -> f64, digits: usize| {
        dash(row.median(of).map(|value| format!("{value:.digits$}")))
    };
    let mpps = row.each(|sample| sample.mpps);
    let least = mpps.iter().copied().fold(f64::MAX, f64::min);
    let most = mpps.iter().copied().fold(0.0, f64::max);
    let counts = row.each(|sample| (sample.latency.sent, sample.latency.lost));
    let (sent, lost) = counts.iter().fold((0, 0), |(sent, lost), one| (sent + one.0, lost + one.1));
    let calls = row.each(|sample| sample.cost.calls).into_iter().flatten().collect::<Vec<_>>();
    vec![
        row.name.clone(),
        dash(row.median(|sample| sample.mpps).map(|rate| format!("{rate:.3}"))),
        dash((most > 0.0).then(|| format!("{least:.3} – {most:.3}"))),
        dash(row.median(|sample| sample.loss).map(percent)),
        latency(|sample| sample.latency.latency.p50_ns),
        latency(|sample| sample.latency.latency.p99_ns),
        latency(|sample| sample.latency.latency.p999_ns),
        // Nothing was sent on time, or an earlier version measured.
        dash(
            row.median(|sample| sample.latency.latency_on_time.p99_ns as f64)
                .filter(|ns| *ns > 0.0)
                .map(|ns| time(ns as u64)),
        ),
        latency(|sample| sample.latency.latency_uncorrected.p99_ns),
        dash((sent > 0).then(|| percent(lost as f64 / sent as f64))),
        cost(|sample| sample.cost.user_ns, 0),
        cost(|sample| sample.cost.system_ns, 0),
        dash(crate::stats::estimate(&calls).map(|calls| format!("{:.3}", calls.median))),
        cost(|sample| sample.cost.resident_mib, 0),
        dash(row.most_flows().map(|flows| format!("{flows:.0}"))),
        dash(match (row.collapse(), row.most_offered()) {
            (Some(pps), _) => Some(format!("{:.0} k/s", pps / 1e3)),
            (None, most) => most.map(|pps| format!("> {:.0} k/s", pps / 1e3)),
        }),
    ]
}

/// The Markdown table, with what was skipped and why below it.
pub fn table(matrix: &Matrix) -> String {
    let mut text = format!("| {} |\n|{}\n", HEAD.join(" | "), " --- |".repeat(HEAD.len()));
    for row in &matrix.rows {
        let _ = writeln!(text, "| {} |", cells(row).join(" | "));
    }
    let _ = writeln!(text, "\n{}", how(matrix));
    for verdict in latency_verdicts(&matrix.rows) {
        let _ = writeln!(text, "\nAt the common rate, {verdict}");
    }
    for (name, why) in &matrix.skipped {
        let _ = writeln!(text, "\nSkipped: {name}: {why}");
    }
    for failure in &matrix.failures {
        let _ = writeln!(text, "\nFailed: {failure}");
    }
    text
}

/// How it was measured.
fn how(matrix: &Matrix) -> String {
    format!(
        "Medians of {} rounds of {} s. Latency is the round trip at a common {:.0} packets/s, counted from the intended send \
         unless the column says otherwise; sent on time is what the generator sent within 20 µs of its schedule. Collapsed is \
         what loses more than 1 %; > is the most that the generator could send, all of it answered. {}",
        matrix.count(),
        matrix.seconds,
        matrix.common_rate,
        matrix.machine
    )
}

/// The plots: file name and SVG.
fn plots(matrix: &Matrix) -> Result<Vec<(&'static str, String)>> {
    let rows = |of: fn(&Row) -> Vec<(f64, f64)>| -> Vec<(&str, Vec<(f64, f64)>)> {
        matrix.rows.iter().map(|row| (row.name.as_str(), of(row))).collect()
    };
    let load = |of: fn(&Point) -> f64| -> Vec<(&str, Vec<(f64, f64)>)> {
        let line = |row: &Row| row.loads.iter().map(|point| (point.pps / 1e3, of(point) / 1e3)).collect();
        matrix.rows.iter().map(|row| (row.name.as_str(), line(row))).collect()
    };
    let mut plots = vec![("matrix-rate.svg", plot::bars(&matrix.rows)?)];
    let swept = |row: &Row| !(row.sizes.is_empty() && row.flows.is_empty() && row.loads.is_empty());
    if matrix.rows.iter().any(swept) {
        let axes = |title, x, y, log_y| Axes { title, x, y, log_y };
        let size = axes("Answers a second over frame size", "bytes of a frame", "Mpps", false);
        let flows = axes("Answers a second over flows", "flows", "Mpps", false);
        let p50 = axes(
            "Median round trip over offered load, until 1 % is lost or the generator has reached its end",
            "thousand packets/s",
            "µs",
            true,
        );
        let p99 = axes("p99 round trip of what was sent on time", "thousand packets/s", "µs", true);
        plots.push(("matrix-load-p50.svg", plot::lines(&p50, &load(|point| point.p50_ns))?));
        plots.push((
            "matrix-load-p99.svg",
            plot::lines(&p99, &load(|point| point.p99_on_time_ns.unwrap_or(point.p99_ns)))?,
        ));
        plots.push(("matrix-sizes.svg", plot::lines(&size, &rows(|row| row.sizes.clone()))?));
        plots.push(("matrix-flows.svg", plot::lines(&flows, &rows(|row| row.flows.clone()))?));
    }
    Ok(plots)
}

/// Text for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Writes table, plots and page, and returns where the page is.
pub fn write(matrix: &Matrix, setup: &Setup) -> Result<PathBuf> {
    let put = |name: &str, text: &str| -> Result<PathBuf> {
        let path = setup.out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    put("matrix.md", &table(matrix))?;
    let plots = plots(matrix)?;
    for (name, svg) in &plots {
        put(name, svg)?;
    }
    put("matrix.html", &page(matrix, &plots))
}

/// The page's looks: a table wider than the window scrolls for itself, plots shrink to it.
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#222;margin:2rem auto;max-width:78rem;padding:0 1rem}\
    h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}.wide{overflow-x:auto}\
    table{border-collapse:collapse;font-size:.78rem}td,th{border-bottom:1px solid #ccc;padding:.25rem .4rem;text-align:right}\
    td{white-space:nowrap}th{vertical-align:bottom}td:first-child,th:first-child{text-align:left}\
    figure{margin:1.2rem 0}svg{display:block;max-width:100%;height:auto}\
    dl{display:grid;grid-template-columns:max-content auto;gap:0 1rem}dt{font-weight:600}dd{margin:0}";

fn page(matrix: &Matrix, plots: &[(&str, String)]) -> String {
    let row = |cells: &[String], tag: &str| -> String {
        let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let list = |lines: Vec<String>| -> String {
        let lines = lines.iter().map(|line| format!("<li>{}</li>\n", escaped(line)));
        format!("<ul>\n{}</ul>\n", lines.collect::<String>())
    };
    let body: String = matrix.rows.iter().map(|one| row(&cells(one), "td")).collect();
    let table = row(&HEAD.map(String::from), "th") + &body;
    let ratio = |ratio: &crate::rounds::Ratio| {
        let found = ratio.estimate.map_or("–".into(), |found| {
            format!("{:.2} × ({:.2} – {:.2})", found.median, found.low, found.high)
        });
        let verdict = if ratio.met { "met" } else { "missed" };
        format!("{} ÷ {}: {found}; wanted at least {}: {verdict}", ratio.of, ratio.to, ratio.wanted)
    };
    let mut verdicts: Vec<String> = matrix.ratios.iter().map(ratio).collect();
    verdicts.extend(latency_verdicts(&matrix.rows));
    let what = |row: &Row| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(&row.name), escaped(&row.what));
    let what: String = matrix.rows.iter().map(what).collect();
    let mut remarks: Vec<String> =
        matrix.skipped.iter().map(|(name, why)| format!("Skipped: {name}: {why}")).collect();
    remarks.extend(matrix.failures.iter().map(|failure| format!("Failed: {failure}")));
    let plots: String = plots.iter().map(|(_, svg)| format!("<figure>{svg}</figure>\n")).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Volley: every I/O model</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n\
         <body><h1>Every I/O model, side by side</h1>\n<p>{}</p>\n\
         <div class=\"wide\"><table>\n{table}</table></div>\n{}\
         <h2>What was wanted</h2>\n{}<h2>Plots</h2>\n{plots}<h2>Models</h2>\n<dl>\n{what}</dl>\n</body></html>\n",
        escaped(&how(matrix)),
        list(remarks),
        list(verdicts),
    )
}

#[cfg(test)]
mod tests;
