//! Latency at half the verified ceiling, every byte checked.
//!
//! The verified ceiling is the highest rate that is answered without loss, every byte checked. At half of it nothing may be
//! lost, and the median over the rounds of the 99th percentile of the round trip must be below a millisecond. Times
//! count from the moment a packet was meant to leave.

use crate::generator::{Load, Measured, Mode, Rate, SMALL};
use crate::lab::Lab;
use crate::server::Server;
use crate::setup::{Machine, Setup};
use crate::stats::{self, Estimate};
use crate::table;
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;
use tabled::builder::Builder;

/// The round trip that p99 should stay below, in ns.
const WANTED_P99_NS: f64 = 1e6;

/// Options of `volley-bench latency`.
#[derive(Args, Clone, Debug)]
pub struct LatencyArgs {
    /// Rounds: ceiling, then half of it
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,

    /// Seconds at half the ceiling, each round
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
}

impl Default for LatencyArgs {
    fn default() -> Self {
        LatencyArgs { rounds: 10, seconds: 3.0 }
    }
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    machine: Machine,
    seconds: f64,
    rounds: Vec<Measured>,
    p99_ns: Option<Estimate>,
    p99_wanted_ns: f64,
    lost: u64,
    corrupted: u64,
    met: bool,
}

/// Measures, prints, and writes `latency.json`.
pub fn run(arguments: &LatencyArgs, setup: &Setup) -> Result<()> {
    ensure!(arguments.rounds > 0, "latency: nothing to measure");
    let machine = Machine::here();
    println!(
        "latency: {} rounds of {} s at half the verified ceiling, on {machine}",
        arguments.rounds, arguments.seconds
    );
    let lab = Lab::up(&setup.lab, &setup.logs(), &setup.interrupt)?;
    let target = SocketAddr::new(lab.engine().ipv4, setup.port);
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        let mut engine = Server::AfXdp.start(setup, Some(&lab))?;
        let time = Duration::from_secs_f64(arguments.seconds);
        let load =
            Load { mode: Mode::AfXdp, target, rate: Rate::HalfCeiling, time, flows: 64, size: SMALL };
        let half = load.run(setup, Some(&lab))?;
        engine.must_run()?;
        engine.stop()?;
        println!(
            "latency: round {round:>2}/{}  ceiling {}  at half of it: p50 {}  p99 {}  lost {}  corrupted {}",
            arguments.rounds,
            table::rate(half.ceiling.unwrap_or_default().rate_pps),
            table::time(half.latency.p50_ns),
            table::time(half.latency.p99_ns),
            half.lost,
            half.corrupted
        );
        rounds.push(half);
    }
    lab.down()?;

    let p99_ns =
        stats::estimate(&rounds.iter().map(|round| round.latency.p99_ns as f64).collect::<Vec<_>>());
    let lost = rounds.iter().map(|round| round.lost).sum();
    let corrupted = rounds.iter().map(|round| round.corrupted).sum();
    let met = lost == 0 && corrupted == 0 && p99_ns.is_some_and(|p99| p99.median < WANTED_P99_NS);
    let seconds = arguments.seconds;
    let p99_wanted_ns = WANTED_P99_NS;
    let report = Report {
        scenario: "latency",
        machine,
        seconds,
        rounds,
        p99_ns,
        p99_wanted_ns,
        lost,
        corrupted,
        met,
    };

    let mut lines = Builder::default();
    lines.push_record(["", "median of rounds", "interval"]);
    type Of = fn(&Measured) -> u64;
    let percentiles: [(&str, Of); 7] = [
        ("p50", |round| round.latency.p50_ns),
        ("p90", |round| round.latency.p90_ns),
        ("p99", |round| round.latency.p99_ns),
        ("p99.9", |round| round.latency.p999_ns),
        ("max", |round| round.latency.max_ns),
        ("p99 from actual send", |round| round.latency_uncorrected.p99_ns),
        ("p99 of the generator's lateness", |round| round.lateness.p99_ns),
    ];
    for (name, of) in percentiles {
        let values: Vec<f64> = report.rounds.iter().map(|round| of(round) as f64).collect();
        let Some(Estimate { median, low, high, .. }) = stats::estimate(&values) else { continue };
        let time = |ns: f64| table::time(ns as u64);
        lines.push_record([name.to_owned(), time(median), format!("{} – {}", time(low), time(high))]);
    }
    println!("{}", table::right(lines));
    let verdict = if met { "met" } else { "missed" };
    println!("latency: lost {lost}, corrupted {corrupted}; wanted: none, and p99 below 1 ms: {verdict}");
    println!("latency: {}", setup.write("latency", &report)?.display());
    ensure!(report.corrupted == 0, "latency: {} answers were corrupted", report.corrupted);
    Ok(())
}
