//! TCP: our own stack over AF_XDP beside the kernel's, on one core, with the same clients.
//!
//! ```text
//!   core 0: client ──► veth ──► core 1: volley run --tcp-io own | epoll
//!           our own stack, kernel sockets, or sockperf
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`part`] | what is measured: rows, units, bars |
//! | [`contender`] | the server under test |
//! | [`client`] | `volley gen --tcp` and what it measured |
//! | [`sockperf`] | the same by somebody else's program |
//! | [`ground`] | the lab's addresses, offloads and congestion control |
//!
//! Each part has rounds of its own, in which its rows take turns; ratios are taken within a round.

mod client;
mod contender;
mod ground;
mod part;
mod sockperf;

use crate::lab::Lab;
use crate::process::Interrupted;
use crate::rounds::{Ratio, Rounds};
use crate::setup::{Machine, Setup};
use crate::stats::Estimate;
use crate::table;
use anyhow::{Result, ensure};
use clap::Args;
use ground::Ground;
use part::{Bar, Part};
use serde::Serialize;

/// Options of `volley-bench tcp`.
#[derive(Args, Clone, Debug)]
pub struct TcpArgs {
    /// Rounds of each part: every row once, in turning order. Below six the intervals are the whole range
    #[arg(long, default_value_t = 20)]
    pub rounds: usize,

    /// Seconds measured for each row of a round, in the parts that are not a fixed number of bytes
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,

    /// Millions of bytes of each bulk transfer
    #[arg(long, default_value_t = 2_000)]
    pub megabytes: u64,

    /// Parts to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Part::ALL)]
    pub parts: Vec<Part>,
}

impl Default for TcpArgs {
    fn default() -> Self {
        TcpArgs { rounds: 20, seconds: 2.0, megabytes: 2_000, parts: Part::ALL.to_vec() }
    }
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    machine: Machine,
    seconds: f64,
    megabytes: u64,
    parts: Vec<Measured>,
    /// Parts that were not measured, and why.
    skipped: Vec<(&'static str, String)>,
    /// What went wrong in single rounds.
    failures: Vec<String>,
}

#[derive(Serialize)]
struct Measured {
    part: Part,
    unit: &'static str,
    rounds: Rounds,
    /// Ours to the kernel's; of times the other way round, so that more is better.
    ratio: Option<Ratio>,
    /// Ours alone.
    bar: Option<Absolute>,
}

/// A bar that is a number of its own.
#[derive(Serialize)]
struct Absolute {
    estimate: Option<Estimate>,
    wanted: f64,
    met: bool,
}

/// Measures, prints, and writes `tcp.json`.
pub fn run(arguments: &TcpArgs, setup: &Setup) -> Result<()> {
    ensure!(arguments.rounds > 0 && !arguments.parts.is_empty(), "tcp: nothing to measure");
    let machine = Machine::here();
    println!("tcp: {} rounds of each part, on {machine}", arguments.rounds);
    let lab = Lab::up(&setup.lab, &setup.logs(), &setup.interrupt)?;
    let ground = Ground::new(&lab, setup)?;
    let (mut parts, mut skipped, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for &part in &arguments.parts {
        match part.missing() {
            Some(why) => {
                println!("tcp: {} is skipped: {why}", part.as_str());
                skipped.push((part.as_str(), why));
            }
            None => parts.push(measure(part, arguments, &ground, setup, &mut failures)?),
        }
    }
    lab.down()?;
    let (seconds, megabytes) = (arguments.seconds, arguments.megabytes);
    let report = Report { scenario: "tcp", machine, seconds, megabytes, parts, skipped, failures };
    for Measured { part, unit, rounds, ratio, bar } in &report.parts {
        println!("\ntcp {}: {}\n{}", part.as_str(), part.in_words(), table::rows(rounds, unit));
        if let Some(ratio) = ratio {
            println!("{}", table::ratios(std::slice::from_ref(ratio)));
        }
        if let Some(Absolute { wanted, met, .. }) = bar {
            println!("wanted: {wanted} {unit}: {}", if *met { "met" } else { "missed" });
        }
    }
    for failure in &report.failures {
        println!("tcp: failed: {failure}");
    }
    println!("tcp: {}", setup.write("tcp", &report)?.display());
    ensure!(report.failures.is_empty(), "tcp: {} measurements failed", report.failures.len());
    Ok(())
}

/// The rounds of one part.
fn measure(
    part: Part,
    arguments: &TcpArgs,
    ground: &Ground<'_>,
    setup: &Setup,
    failures: &mut Vec<String>,
) -> Result<Measured> {
    let rows = part.rows();
    let mut rounds = Rounds::new(rows.iter().map(|row| row.as_str()));
    for round in 0..arguments.rounds {
        let mut line = format!("tcp: {} round {:>2}/{}", part.as_str(), round + 1, arguments.rounds);
        for row in rounds.order(round) {
            let name = rows[row].as_str();
            let value = match part.value(rows[row], arguments, ground, setup) {
                Ok(value) => Some(value),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                // One failed measurement does not throw the others away; it shows in the report and in the exit code.
                Err(error) => {
                    failures.push(format!("{} round {}, {name}: {error:#}", part.as_str(), round + 1));
                    None
                }
            };
            line += &format!("  {name} {}", value.map_or("failed".into(), |value| format!("{value:.3}")));
            rounds.note(row, value);
        }
        println!("{line} {}", part.unit());
    }
    let (ours, kernels) = (contender::Contender::Own.as_str(), contender::Contender::Kernel.as_str());
    let (mut ratio, mut bar) = (None, None);
    match part.bar() {
        Bar::TimesTheKernel(wanted) => ratio = rounds.ratio(ours, kernels, wanted),
        Bar::NoLaterThanTheKernel => ratio = rounds.ratio(kernels, ours, 1.0),
        Bar::AtLeast(wanted) => {
            let estimate = rounds.rows()[0].estimate;
            let met = estimate.is_some_and(|estimate| estimate.median >= wanted);
            bar = Some(Absolute { estimate, wanted, met });
        }
        Bar::None => {}
    }
    Ok(Measured { part, unit: part.unit(), rounds, ratio, bar })
}
