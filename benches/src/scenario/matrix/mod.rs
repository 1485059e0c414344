//! The matrix: every I/O model and peer over the same wire, under the same load, in interleaved rounds.
//!
//! ```text
//!   probe      each row once, to find the common rate: half of what the slowest row answers
//!   rounds     each row: saturation (rate, loss, processor time, memory, system calls), then the round trip at the common rate
//!   sweeps     each row: rate over packet size, rate over flows, latency over offered load until it collapses
//!   report     matrix.json, matrix.md, matrix.html with SVG plots
//! ```
//!
//! Saturation is measured as in [`super::echo`]: an in-kernel generator on one core, the server on the other, answers counted and
//! dropped by XDP at the generator's end. At the common rate, and over offered load, every answer is compared byte for byte.
//!
//! matrix.json is written after every round and every row's sweep, and `--add` goes on from there: a run may be taken in parts.

pub mod guard;
mod measure;
mod page;
mod plot;
mod row;
mod watch;

use crate::lab::Lab;
use crate::process::Interrupted;
use crate::rounds::Rounds;
use crate::server::Server;
use crate::setup::Setup;
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use measure::Bench;
pub use row::Matrix;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

/// Offered loads of the latency sweep, in packets per second.
const LOADS: [f64; 15] =
    [20e3, 50e3, 100e3, 150e3, 175e3, 200e3, 225e3, 250e3, 275e3, 300e3, 350e3, 400e3, 500e3, 600e3, 800e3];
/// Bytes of a frame in the size sweep. The largest is 1,400 bytes of UDP payload.
const SIZES: [u32; 5] = [64, 256, 512, 1024, 1446];
/// Flows of the flow sweep.
const FLOWS: [u32; 5] = [1, 10, 100, 1000, 10_000];

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sweep {
    /// Frame size: 64 to 1,446 bytes
    Sizes,
    /// Source ports: 1 to 10,000
    Flows,
    /// Offered load, until more than 1 % is lost
    Loads,
}

/// Options of `volley-bench matrix`.
#[derive(Args, Clone, Debug)]
pub struct MatrixArgs {
    /// Rounds: each row once, in turning order. Below six the intervals are the whole range; 0 measures sweeps only
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,

    /// Seconds measured for each row of a round, at saturation and again at the common rate
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,

    /// Seconds measured for each point of the sweeps
    #[arg(long, default_value_t = 0.5)]
    pub sweep_seconds: f64,

    /// Sweeps to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = ALL_SWEEPS)]
    pub sweeps: Vec<Sweep>,

    /// Leave the sweeps away
    #[arg(long)]
    pub no_sweeps: bool,

    /// Rows to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Server::MODELS)]
    pub servers: Vec<Server>,

    /// Packets per second of the latency rounds [default: half of the slowest row's saturation]
    #[arg(long)]
    pub rate: Option<f64>,

    /// Add to the matrix.json that is there: more rounds, other rows, sweeps in place of those there were
    #[arg(long)]
    pub add: bool,

    /// Compare with a stored baseline afterwards, as `volley-bench compare` does, and fail when a row fell
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,

    /// How far a ratio may fall below the baseline's, as a part of it
    #[arg(long, default_value_t = guard::TOLERANCE)]
    pub tolerance: f64,
}

const ALL_SWEEPS: [Sweep; 3] = [Sweep::Sizes, Sweep::Flows, Sweep::Loads];

impl Default for MatrixArgs {
    fn default() -> Self {
        MatrixArgs {
            rounds: 10,
            seconds: 1.0,
            sweep_seconds: 0.5,
            sweeps: ALL_SWEEPS.to_vec(),
            no_sweeps: false,
            servers: Server::MODELS.to_vec(),
            rate: None,
            add: false,
            baseline: None,
            tolerance: guard::TOLERANCE,
        }
    }
}

/// How far it is.
struct Progress {
    begun: Instant,
    /// Steps done and to do; a row of a round and a sweep of a row take about as long.
    done: usize,
    all: usize,
}

impl Progress {
    fn line(&mut self, what: &str) {
        self.done += 1;
        let elapsed = self.begun.elapsed().as_secs_f64();
        let left = elapsed / self.done as f64 * (self.all - self.done) as f64;
        println!("matrix: {:>3} % {what} ({left:.0} s left)", 100 * self.done / self.all);
    }
}

/// Notes a failure, except a signal: one failed measurement does not throw the others away.
fn note<T>(outcome: Result<T>, what: String, failures: &mut Vec<String>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is::<Interrupted>() => Err(error),
        Err(error) => {
            println!("matrix: failed: {what}: {error:#}");
            failures.push(format!("{what}: {error:#}"));
            Ok(None)
        }
    }
}

/// Measures, prints, and writes `matrix.json`, `.md` and `.html`.
pub fn run(arguments: &MatrixArgs, setup: &Setup) -> Result<()> {
    let stored = setup.out.join("matrix.json");
    let mut matrix = match arguments.add {
        true => Matrix::read(&stored)?,
        false => Matrix::new(arguments.seconds),
    };
    let failed_before = matrix.failures.len();
    let servers = servers(arguments, &mut matrix);
    let sweeps: &[Sweep] = if arguments.no_sweeps { &[] } else { &arguments.sweeps };
    if arguments.rounds > 0 || !sweeps.is_empty() {
        ensure!(!servers.is_empty(), "matrix: nothing to measure");
        measure(arguments, &servers, sweeps, &mut matrix, setup)?;
    }

    println!("{}", page::table(&matrix));
    println!("{}", crate::table::ratios(&matrix.ratios));
    for verdict in row::latency_verdicts(&matrix.rows) {
        println!("matrix: at the common rate, {verdict}");
    }
    println!("matrix: {}", setup.write("matrix", &matrix)?.display());
    println!("matrix: {}", page::write(&matrix, setup)?.display());
    if let Some(path) = &arguments.baseline {
        guard::compare(&matrix, path, arguments.tolerance)?;
    }
    let failed = matrix.failures.len() - failed_before;
    ensure!(failed == 0, "matrix: {failed} measurements failed");
    Ok(())
}

/// Those of the rows asked for that can run here; the others are noted with their reason.
fn servers(arguments: &MatrixArgs, matrix: &mut Matrix) -> Vec<Server> {
    let mut servers = Vec::new();
    for &server in &arguments.servers {
        matrix.skipped.retain(|(name, _)| name != server.as_str());
        match server.missing() {
            None => servers.push(server),
            Some(why) => {
                println!("matrix: {} is skipped: {why}", server.as_str());
                matrix.skipped.push((server.as_str().to_owned(), why));
            }
        }
    }
    servers
}

fn measure(
    arguments: &MatrixArgs,
    servers: &[Server],
    sweeps: &[Sweep],
    matrix: &mut Matrix,
    setup: &Setup,
) -> Result<()> {
    let MatrixArgs { rounds, seconds, sweep_seconds, .. } = *arguments;
    println!(
        "matrix: {} rows, {rounds} rounds of {seconds} s, {} sweeps; on {}",
        servers.len(),
        sweeps.len(),
        matrix.machine
    );
    let lab = Lab::up(&setup.lab, &setup.logs(), &setup.interrupt)?;
    let bench = Bench { setup, lab: &lab, target: SocketAddr::new(lab.engine().ipv4, setup.port) };
    let begun = Instant::now();
    let mut progress = Progress { begun, done: 0, all: servers.len() * (rounds + sweeps.len()) };

    if rounds > 0 && matrix.common_rate == 0.0 {
        matrix.common_rate = match arguments.rate {
            Some(rate) => rate,
            None => probe(&bench, servers, &mut matrix.failures)?,
        };
    }
    let places: Vec<usize> = servers.iter().map(|server| matrix.row(*server)).collect();
    let before = matrix.count();
    let order = Rounds::new(servers.iter().map(|server| server.as_str()));
    for round in 0..rounds {
        // Every row has a value, or none, in every round.
        matrix.rows.iter_mut().for_each(|row| row.rounds.push(None));
        for at in order.order(before + round) {
            let (server, number) = (servers[at], before + round + 1);
            let outcome = bench.sample(server, seconds, matrix.common_rate);
            let what = format!("round {number}, {}", server.as_str());
            let sample = note(outcome, what.clone(), &mut matrix.failures)?;
            let found = sample.as_ref().map_or("failed".into(), |sample| {
                format!(
                    "{:.3} Mpps, p50 {}",
                    sample.mpps,
                    crate::table::time(sample.latency.latency.p50_ns)
                )
            });
            progress.line(&format!("{what}: {found}"));
            matrix.rows[places[at]].rounds[number - 1] = sample;
        }
        matrix.ratios = row::ratios(&matrix.rounds());
        setup.write("matrix", matrix)?;
    }
    for (server, place) in servers.iter().zip(places) {
        for sweep in sweeps {
            let what = format!("{sweep:?} of {}", server.as_str()).to_lowercase();
            let outcome = bench.sweep(*server, *sweep, &mut matrix.rows[place], sweep_seconds);
            note(outcome, what.clone(), &mut matrix.failures)?;
            progress.line(&what);
        }
        setup.write("matrix", matrix)?;
    }
    lab.down()?;
    println!("matrix: measured for {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Half of what the slowest row answers.
fn probe(bench: &Bench<'_>, servers: &[Server], failures: &mut Vec<String>) -> Result<f64> {
    let mut slowest: Option<f64> = None;
    for &server in servers {
        let pps = note(bench.probe(server), format!("probe, {}", server.as_str()), failures)?;
        slowest = pps.into_iter().chain(slowest).reduce(f64::min);
    }
    let slowest = slowest.ok_or_else(|| anyhow::anyhow!("matrix: no row answers"))?;
    println!("matrix: the slowest row answers {slowest:.0} packets/s: latency is measured at half of it");
    Ok(slowest / 2.0)
}
