//! Saturation: how many 64-byte packets a second each echo server answers, on one core, against the same load.
//!
//! ```text
//!   core 0: generator, in-kernel blast ──► veth ──► core 1: the server under test
//!           XDP: count answers by length and port, drop ◄──
//! ```
//!
//! One queue, threaded NAPI off, the peer's end the same for every row. A row's value is the number of its answers
//! that arrived at the generator's end, a second: what the server handed to the device less what the device dropped.

use crate::generator::{Load, Mode, Rate, SMALL};
use crate::lab::Lab;
use crate::process::Interrupted;
use crate::rounds::{Ratio, Rounds};
use crate::server::Server;
use crate::setup::{Machine, Setup};
use crate::table;
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;

/// What ours should reach, in multiples of each peer.
const WANTED: [(Server, f64); 3] = [(Server::Testpmd, 1.05), (Server::Mmsg, 2.6), (Server::Epoll, 3.3)];

/// Options of `volley-bench echo`.
#[derive(Args, Clone, Debug)]
pub struct EchoArgs {
    /// Rounds: each row once, in turning order. Below six the intervals are the whole range
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,

    /// Seconds measured for each row of a round
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,

    /// Rows to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Server::ALL)]
    pub servers: Vec<Server>,
}

impl Default for EchoArgs {
    fn default() -> Self {
        EchoArgs { rounds: 10, seconds: 2.0, servers: Server::ALL.to_vec() }
    }
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    unit: &'static str,
    machine: Machine,
    seconds: f64,
    rounds: Rounds,
    ratios: Vec<Ratio>,
    /// Rows that were not measured, and why.
    skipped: Vec<(&'static str, String)>,
    /// What went wrong in single rounds.
    failures: Vec<String>,
}

/// Measures, prints, and writes `echo.json`.
pub fn run(arguments: &EchoArgs, setup: &Setup) -> Result<()> {
    let (mut servers, mut skipped) = (Vec::new(), Vec::new());
    for &server in &arguments.servers {
        match server.missing() {
            None => servers.push(server),
            Some(why) => {
                println!("echo: {} is skipped: {why}", server.as_str());
                skipped.push((server.as_str(), why));
            }
        }
    }
    ensure!(!servers.is_empty() && arguments.rounds > 0, "echo: nothing to measure");
    let machine = Machine::here();
    println!("echo: {} rounds of {} s for each row, on {machine}", arguments.rounds, arguments.seconds);

    let lab = Lab::up(&setup.lab, &setup.logs(), &setup.interrupt)?;
    let mut rounds = Rounds::new(servers.iter().map(|server| server.as_str()));
    let mut failures = Vec::new();
    for round in 0..arguments.rounds {
        let mut line = format!("echo: round {:>2}/{}", round + 1, arguments.rounds);
        for row in rounds.order(round) {
            let value = match answered(servers[row], arguments.seconds, setup, &lab) {
                Ok(pps) => Some(pps / 1e6),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                // One failed measurement does not throw the others away; it shows in the report and in the exit code.
                Err(error) => {
                    failures.push(format!("round {}, {}: {error:#}", round + 1, servers[row].as_str()));
                    None
                }
            };
            line += &format!(
                "  {} {}",
                servers[row].as_str(),
                value.map_or("failed".into(), |mpps| format!("{mpps:.3}"))
            );
            rounds.note(row, value);
        }
        println!("{line} Mpps");
    }
    lab.down()?;

    let ours = Server::AfXdp.as_str();
    let ratios =
        WANTED.iter().filter_map(|(server, wanted)| rounds.ratio(ours, server.as_str(), *wanted)).collect();
    let unit = "million answers per second, 64-byte frames";
    let seconds = arguments.seconds;
    let report = Report { scenario: "echo", unit, machine, seconds, rounds, ratios, skipped, failures };
    println!("{}\n{}", table::rows(&report.rounds, "Mpps"), table::ratios(&report.ratios));
    for failure in &report.failures {
        println!("echo: failed: {failure}");
    }
    println!("echo: {}", setup.write("echo", &report)?.display());
    ensure!(report.failures.is_empty(), "echo: {} measurements failed", report.failures.len());
    Ok(())
}

fn answered(server: Server, seconds: f64, setup: &Setup, lab: &Lab) -> Result<f64> {
    let mut running = server.start(setup, Some(lab))?;
    let target = SocketAddr::new(lab.engine().ipv4, setup.port);
    let load = Load {
        mode: Mode::Blast,
        target,
        rate: Rate::Max,
        time: Duration::from_secs_f64(seconds),
        flows: 1,
        size: SMALL,
    };
    let measured = load.run(setup, Some(lab))?;
    running.must_run()?;
    running.stop()?;
    ensure!(measured.received > 0, "it answered nothing");
    Ok(measured.received_pps)
}
