//! What steering costs in the kernel: the verifier's count of instructions, and ns per packet by `BPF_PROG_TEST_RUN`.
//!
//! The measuring is `volley-xdp`'s (its example `steer-cost`); this pins it to the engine's core and keeps the result.

use crate::process::Job;
use crate::setup::{Machine, Setup};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// Redirect may cost this many times a bare port filter.
const WANTED: f64 = 1.5;
/// It takes some seconds.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    machine: Machine,
    costs: Value,
    ratio_wanted: f64,
    met: bool,
}

/// Measures, prints, and writes `steer-cost.json`.
pub fn run(setup: &Setup) -> Result<()> {
    let machine = Machine::here();
    println!("steer-cost: on {machine}");
    let program = std::env::current_exe()?.with_file_name("examples").join("steer-cost");
    let remedy = "cargo build --release -p volley-xdp --example steer-cost";
    ensure!(program.is_file(), "{}: there is no such program: {remedy}", program.display());
    let job =
        Job::new(&program, setup.logs().join("steer-cost.log")).core(setup.engine_core).args(["--json"]);
    let said = job.run(LIMIT, &setup.interrupt)?.output();
    let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let costs: Value = serde_json::from_str(line).with_context(|| format!("steer-cost said {said:?}"))?;

    for case in costs["cases"].as_array().into_iter().flatten() {
        println!(
            "steer-cost: {:<24} {:>6.1} ns, {} instructions verified",
            case["case"].as_str().unwrap_or_default(),
            case["mean_ns"].as_f64().unwrap_or_default(),
            case["verified_instructions"]
        );
    }
    let ratio = costs["redirect_ratio"].as_f64().context("steer-cost gave no redirect_ratio")?;
    let met = ratio <= WANTED;
    let verdict = if met { "met" } else { "missed" };
    println!("steer-cost: redirect / bare filter {ratio:.2}, wanted at most {WANTED}: {verdict}");
    let report = Report { scenario: "steer-cost", machine, costs, ratio_wanted: WANTED, met };
    println!("steer-cost: {}", setup.write("steer-cost", &report)?.display());
    Ok(())
}
