//! Our TCP without a network: a 64-byte echo in memory, in bursts of 64, at 10, 10,000 and 100,000 connections that are all busy,
//! and connect–echo–close; beside smoltcp, which walks all of its sockets for each packet.
//!
//! The measuring is `volley-tcp`'s (its example `echo_speed`, which does not count the client's work); this interleaves the rows,
//! pins them to the engine's core, and compares.

use crate::process::Job;
use crate::rounds::{Ratio, Rounds};
use crate::setup::{Machine, Setup};
use crate::table;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// Rows of the example, and what each should reach at least, a second.
const ROWS: [(&str, Option<f64>); 6] = [
    ("ours/10", Some(4.8e6)),
    ("ours/10000", Some(3.0e6)),
    ("ours/100000", Some(1.0e6)),
    ("ours/connect", Some(300e3)),
    ("smoltcp/10", None),
    ("smoltcp/10000", None),
];
/// How many times smoltcp ours should be, at 10,000 connections.
const WANTED: f64 = 20.0;
/// A row takes some seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Options of `volley-bench tcp-memory`.
#[derive(Args, Clone, Debug)]
pub struct TcpMemoryArgs {
    /// Interleaved rounds
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,
}

#[derive(Serialize)]
struct Bar {
    row: &'static str,
    wanted: f64,
    median: Option<f64>,
    met: bool,
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    machine: Machine,
    rows: Rounds,
    bars: Vec<Bar>,
    ratio: Option<Ratio>,
    bytes_per_idle_connection: u64,
    bytes_at_100_000: u64,
}

/// Measures, prints, and writes `tcp-memory.json`.
pub fn run(arguments: &TcpMemoryArgs, setup: &Setup) -> Result<()> {
    ensure!(arguments.rounds > 0, "tcp-memory: nothing to measure");
    let machine = Machine::here();
    println!("tcp-memory: {} rounds, on {machine}", arguments.rounds);
    let program = std::env::current_exe()?.with_file_name("examples").join("echo_speed");
    let remedy = "cargo build --release -p volley-tcp --example echo_speed";
    ensure!(program.is_file(), "{}: there is no such program: {remedy}", program.display());

    let mut rounds = Rounds::new(ROWS.map(|(row, _)| row));
    let (mut each, mut all) = (0, 0);
    for round in 0..arguments.rounds {
        let mut progress = format!("tcp-memory: round {:>2}/{}", round + 1, arguments.rounds);
        for at in rounds.order(round) {
            let (row, _) = ROWS[at];
            let log = setup.logs().join(format!("tcp-memory-{}.log", row.replace('/', "-")));
            let said =
                Job::new(&program, log).core(setup.engine_core).args([row]).run(LIMIT, &setup.interrupt)?;
            let said = said.output();
            let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_default();
            let value: Value =
                serde_json::from_str(line).with_context(|| format!("echo_speed said {said:?}"))?;
            let per_second = value["per_second"].as_f64();
            progress += &format!("  {row} {:.0}", per_second.unwrap_or_default() / 1e3);
            rounds.note(at, per_second);
            if row == "ours/100000" {
                each = value["bytes_per_connection"].as_u64().unwrap_or_default();
                all = value["bytes"].as_u64().unwrap_or_default();
            }
        }
        println!("{progress} thousand/s");
    }
    println!("{}", table::rows(&rounds, "a second"));
    let bars: Vec<Bar> = ROWS
        .iter()
        .zip(rounds.rows())
        .filter_map(|(&(row, wanted), measured)| {
            let (wanted, median) = (wanted?, measured.estimate.map(|estimate| estimate.median));
            Some(Bar { row, wanted, median, met: median.is_some_and(|median| median >= wanted) })
        })
        .collect();
    for Bar { row, wanted, median, met } in &bars {
        let (median, verdict) = (median.unwrap_or_default(), if *met { "met" } else { "missed" });
        println!(
            "tcp-memory: {row:<14} {:>8.0} k/s, wanted {:>6.0}: {verdict}",
            median / 1e3,
            wanted / 1e3
        );
    }
    let ratio = rounds.ratio("ours/10000", "smoltcp/10000", WANTED);
    println!("{}", table::ratios(ratio.as_slice()));
    println!("tcp-memory: {each} B an idle connection; {} MiB for 100,000 with data", all >> 20);
    let report = Report {
        scenario: "tcp-memory",
        machine,
        rows: rounds,
        bars,
        ratio,
        bytes_per_idle_connection: each,
        bytes_at_100_000: all,
    };
    println!("tcp-memory: {}", setup.write("tcp-memory", &report)?.display());
    Ok(())
}
