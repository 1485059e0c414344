//! What a flood of SYNs does to the TCP echo: to the connections that are there, and to clients that come.
//!
//! ```text
//!   quiet ──► 100,000 SYNs a second, new clients come ──► quiet ──► all SYNs the kernel's generator sends ──► a second after
//!     └─────── echoes at a fixed rate, timed from when each was due ───────┘        └── echoes, closed loop ──┘
//! ```
//!
//! That is a round; one engine lives through all of them, and its connections with it. The SYNs come from addresses that nobody
//! has. Flood and clients share the generator's core: what the flood takes of it is in both percentiles that are compared only as
//! far as it disturbs, so the measured flood sleeps between its batches. The one at the full rate does not.

mod client;
mod round;

use crate::lab::Lab;
use crate::process::Interrupted;
use crate::rounds::Rounds;
use crate::server::Server;
use crate::setup::{Machine, Setup};
use crate::stats::{self, Estimate};
use crate::table;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use client::{Comers, STUCK, connect};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use round::{Ground, Round};
use serde::Serialize;
use serde_json::Value;
use std::net::{IpAddr, SocketAddrV4, TcpStream};
use volley_testlab::Netns;

/// p99 during the flood, in terms of the quiet one.
const WANTED_P99: f64 = 2.0;
/// Share of new clients that are served within [`client::CONNECT`].
const WANTED_CONNECTS: f64 = 0.95;
/// What throughput after the flood must be of what it was before, to be back: a noisy machine's own spread.
const BACK: f64 = 0.8;
/// Growth of the engine's memory that is none: allocators round, page tables grow.
const FLAT_BYTES: u64 = 4 << 20;

/// Options of `volley-bench syn-flood`.
#[derive(Args, Clone, Debug)]
pub struct SynFloodArgs {
    /// Rounds: quiet, flooded, flooded with all there are. Below six the intervals are the whole range
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,

    /// SYNs a second of the measured flood
    #[arg(long, default_value_t = 100_000)]
    pub syns: u32,

    /// Connections that are there before it
    #[arg(long, default_value_t = 50)]
    pub connections: usize,

    /// Echoes a second over them
    #[arg(long, default_value_t = 2_000)]
    pub echoes: u32,

    /// Seconds of each part of a round
    #[arg(long, default_value_t = 1.5)]
    pub seconds: f64,
}

impl Default for SynFloodArgs {
    fn default() -> Self {
        SynFloodArgs { rounds: 10, syns: 100_000, connections: 50, echoes: 2_000, seconds: 1.5 }
    }
}

#[derive(Serialize)]
struct Verdict {
    what: &'static str,
    wanted: f64,
    estimate: Option<Estimate>,
    met: bool,
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    machine: Machine,
    syns_per_second: u32,
    seconds: f64,
    rounds: Vec<Round>,
    rows: Rounds,
    comers: Comers,
    verdicts: Vec<Verdict>,
    memory_before: u64,
    memory_after: u64,
    cookies_sent: Value,
    cookies_accepted: Value,
    syn_limited: Value,
    reset: Value,
    ledger_balances: bool,
    /// Why there are fewer rounds than were asked for.
    failure: Option<String>,
    met: bool,
}

/// The rows, and where a round has them.
type Row = (&'static str, fn(&Round) -> f64);
const ROWS: [Row; 10] = [
    ("quiet, p50, µs", |round| round.quiet.p50_ns as f64 / 1e3),
    ("flooded, p50, µs", |round| round.flood.p50_ns as f64 / 1e3),
    (QUIET, |round| round.quiet.p99_ns as f64 / 1e3),
    (FLOODED, |round| round.flood.p99_ns as f64 / 1e3),
    ("SYNs, thousand/s", |round| round.syns_per_second / 1e3),
    ("new clients served, %", |round| 100.0 * round.comers.served as f64 / round.comers.came.max(1) as f64),
    ("all there are: SYNs, thousand/s", |round| round.full.syns_per_second / 1e3),
    (BEFORE, |round| round.full.echoes_before / 1e3),
    ("during it", |round| round.full.echoes_during / 1e3),
    (AFTER, |round| round.full.echoes_after / 1e3),
];
const QUIET: &str = "quiet, p99, µs";
const FLOODED: &str = "flooded, p99, µs";
const BEFORE: &str = "echoes before it, thousand/s";
const AFTER: &str = "from a second after it";

/// Measures, prints, and writes `syn-flood.json`.
pub fn run(arguments: &SynFloodArgs, setup: &Setup) -> Result<()> {
    ensure!(arguments.rounds > 0, "syn-flood: nothing to measure");
    let machine = Machine::here();
    println!(
        "syn-flood: {} rounds, {} SYNs a second, then all there are, on {machine}",
        arguments.rounds, arguments.syns
    );
    let lab = Lab::up(&setup.lab, &setup.logs(), &setup.interrupt)?;
    let engine = Server::AfXdp.start_with_tcp(setup, Some(&lab))?;
    let outcome = lab.peer().run(|| measure(arguments, &lab, engine.pid(), setup));
    let (_, said) = engine.stop()?;
    let Measured { rounds, rows, memory, failure } = outcome?;
    lab.down()?;

    println!("{}", table::rows(&rows, ""));
    let comers = rounds.iter().fold(Comers::default(), |sum, Round { comers, .. }| Comers {
        came: sum.came + comers.came,
        served: sum.served + comers.served,
        slowest_ms: sum.slowest_ms.max(comers.slowest_ms),
    });
    println!(
        "syn-flood: new clients {} of {} served within 3 s, the slowest after {} ms; no echo lost of {}",
        comers.served,
        comers.came,
        comers.slowest_ms,
        rounds.iter().map(|round| round.quiet.echoes + round.flood.echoes).sum::<usize>()
    );
    let streams = &said["total"]["streams"];
    let ledger_balances = said["total"]["ledger_balances"] == Value::Bool(true);
    println!(
        "syn-flood: cookies {} sent, {} accepted; dropped in XDP {}; resets {}; ledger {}; memory {} KiB more",
        streams["cookies_sent"],
        streams["cookies_accepted"],
        said["xdp"]["counters"]["syn_limited"],
        streams["reset"],
        if ledger_balances { "balances" } else { "does not balance" },
        memory.1.saturating_sub(memory.0) >> 10
    );
    let served = comers.served as f64 / comers.came.max(1) as f64;
    let grown = memory.1.saturating_sub(memory.0);
    let of = |of, to| rows.ratio(of, to, 0.0).and_then(|ratio| ratio.estimate);
    let (p99, back) = (of(FLOODED, QUIET), of(AFTER, BEFORE));
    let median = |estimate: Option<Estimate>| estimate.map(|estimate| estimate.median);
    let truth = |what, met| Verdict { what, wanted: 1.0, estimate: None, met };
    let verdicts = vec![
        Verdict {
            what: "p99 in terms of the quiet one, at most",
            wanted: WANTED_P99,
            estimate: p99,
            met: median(p99).is_some_and(|ratio| ratio <= WANTED_P99),
        },
        Verdict {
            what: "new clients served within 3 s, at least",
            wanted: WANTED_CONNECTS,
            estimate: stats::estimate(&[served]),
            met: served >= WANTED_CONNECTS,
        },
        Verdict {
            what: "throughput from a second after in terms of before, at least",
            wanted: BACK,
            estimate: back,
            met: median(back).is_some_and(|ratio| ratio >= BACK),
        },
        truth("every echo answered", failure.is_none()),
        truth("no connection reset", streams["reset"].as_u64() == Some(0)),
        truth("memory flat", grown <= FLAT_BYTES),
        truth("ledger balances", ledger_balances),
    ];
    for Verdict { what, wanted, estimate, met } in &verdicts {
        let figures = estimate.map_or(String::new(), |Estimate { median, low, high, .. }| {
            format!(" {wanted}: {median:.2} ({low:.2} – {high:.2})")
        });
        println!("syn-flood: {what}{figures}: {}", if *met { "met" } else { "missed" });
    }
    let report = Report {
        scenario: "syn-flood",
        machine,
        syns_per_second: arguments.syns,
        seconds: arguments.seconds,
        met: verdicts.iter().all(|verdict| verdict.met),
        rounds,
        rows,
        comers,
        verdicts,
        memory_before: memory.0,
        memory_after: memory.1,
        cookies_sent: streams["cookies_sent"].clone(),
        cookies_accepted: streams["cookies_accepted"].clone(),
        syn_limited: said["xdp"]["counters"]["syn_limited"].clone(),
        reset: streams["reset"].clone(),
        ledger_balances,
        failure,
    };
    println!("syn-flood: {}", setup.write("syn-flood", &report)?.display());
    match report.failure {
        Some(failure) => bail!("syn-flood: {failure}"),
        None => Ok(()),
    }
}

struct Measured {
    rounds: Vec<Round>,
    rows: Rounds,
    /// Of the engine, in bytes: once its tables are full, and at the end.
    memory: (u64, u64),
    failure: Option<String>,
}

/// Inside the peer's namespace.
fn measure(arguments: &SynFloodArgs, lab: &Lab, engine: u32, setup: &Setup) -> Result<Measured> {
    let IpAddr::V4(address) = lab.engine().ipv4 else { bail!("the lab has no IPv4 address") };
    let target = SocketAddrV4::new(address, setup.port);
    let mut own = CpuSet::new();
    own.set(setup.generator_core)?;
    // This thread lives as long as the measurement, and those made from here on are there as well.
    sched_setaffinity(Pid::from_raw(0), &own)?;
    let there: Vec<TcpStream> = (0..arguments.connections)
        .map(|_| connect(target.into(), STUCK).context("before the flood"))
        .collect::<Result<_>>()?;
    let ground = Ground {
        arguments,
        there: &there,
        target,
        namespace: &Netns::named(&lab.peer().netns),
        interface: &lab.peer().interface,
        next_hop: Netns::named(&lab.engine().netns).mac(&lab.engine().interface),
        interrupt: &setup.interrupt,
    };
    let (mut rounds, mut rows, mut failure) = (Vec::new(), Rounds::new(ROWS.map(|(name, _)| name)), None);
    // Fills whatever a flood fills; its figures count like any other's.
    let mut filled = None;
    for number in 0..arguments.rounds {
        let round = match ground.round(number) {
            Ok(round) => round,
            Err(error) if error.is::<Interrupted>() => return Err(error),
            // The connections are not what they were: no further round would mean anything.
            Err(error) => {
                failure = Some(format!("round {}: {error:#}", number + 1));
                break;
            }
        };
        filled = filled.or(Some(resident(engine)?));
        for (at, (_, value)) in ROWS.iter().enumerate() {
            rows.note(at, Some(value(&round)));
        }
        println!("{}", line(number, arguments.rounds, &round));
        rounds.push(round);
    }
    let end = resident(engine)?;
    Ok(Measured { rounds, rows, memory: (filled.unwrap_or(end), end), failure })
}

fn line(number: usize, of: usize, round: &Round) -> String {
    let Round { quiet, flood, syns_per_second, comers, full } = round;
    format!(
        "syn-flood: round {:>2}/{of}  p99 quiet {}  flooded {} ({:.0} k/s)  new clients {} of {}  all there are {:.2} M/s: echoes \
         a second {:.0} before, {:.0} during, {:.0} after",
        number + 1,
        table::time(quiet.p99_ns),
        table::time(flood.p99_ns),
        syns_per_second / 1e3,
        comers.served,
        comers.came,
        full.syns_per_second / 1e6,
        full.echoes_before,
        full.echoes_during,
        full.echoes_after
    )
}

/// Bytes of memory that the process has touched.
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    Ok(kilobytes << 10)
}
