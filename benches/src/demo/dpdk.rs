//! `volley-bench demo-dpdk`: the same job with no kernel in it: engine and generator over shared memory.
//!
//! ```text
//!   core 0: volley gen --mode dpdk ──► memif ──► core 1: volley run --io dpdk
//! ```
//!
//! Flat out and at half of that, every byte checked, over IPv4 and IPv6; then dpdk-testpmd in the engine's place and at the far end,
//! for comparison. Huge pages are reserved for it and given back; nothing stays behind.

use super::family;
use crate::dpdk::contender::Contender;
use crate::dpdk::far_end;
use crate::dpdk::pages::HugePages;
use crate::dpdk::wire::{self, Wire};
use crate::generator::{Load, Measured, Mode, Rate, SMALL};
use crate::scenario::dpdk::{PAGES, circulated};
use crate::setup::{Machine, Setup};
use crate::table::{rate, right, time};
use crate::testpmd::Testpmd;
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tabled::builder::Builder;

/// Options of `volley-bench demo-dpdk`.
#[derive(Args, Clone, Debug)]
pub struct DemoDpdkArgs {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3)]
    pub seconds: u64,

    /// The wire
    #[arg(long, value_enum, default_value_t = Wire::Memif)]
    pub wire: Wire,

    /// Answers per second below which it is a failure
    #[arg(long, default_value_t = 1e6, value_name = "PPS")]
    pub at_least: f64,
}

/// The report.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    wire: Wire,
    at_least: f64,
    engine_core: usize,
    generator_core: usize,
    flat_out: Vec<(IpAddr, Measured)>,
    half: Vec<(IpAddr, Measured)>,
    /// Packets per second that testpmd got back, by who answered.
    circulated: Vec<(&'static str, f64)>,
    engine: Value,
    failures: Vec<String>,
}

/// Runs the demo, prints its report and writes `dpdk.json`.
pub fn run(arguments: &DemoDpdkArgs, setup: &Setup) -> Result<()> {
    let (machine, wire) = (Machine::here(), arguments.wire);
    println!("demo: {machine}");
    let _pages = HugePages::reserve(PAGES)?;
    let socket = wire::socket(wire);
    let seconds = Duration::from_secs(arguments.seconds);
    let addresses: [IpAddr; 2] =
        [Ipv4Addr::new(10, 77, 0, 1).into(), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).into()];
    let load = |address, rate| Load {
        mode: Mode::Dpdk,
        target: SocketAddr::new(address, setup.port),
        rate,
        time: seconds,
        flows: 64,
        size: SMALL,
    };
    let mut report = Report {
        machine,
        wire,
        at_least: arguments.at_least,
        engine_core: setup.engine_core,
        generator_core: setup.generator_core,
        flat_out: Vec::new(),
        half: Vec::new(),
        circulated: Vec::new(),
        engine: Value::Null,
        failures: Vec::new(),
    };

    let mut engine = Contender::Volley.start(wire, &socket, setup.port, setup)?;
    println!("demo: the engine listens on {} on core {}", wire.as_str(), setup.engine_core);
    for address in addresses {
        println!("demo: flat out, every byte checked, {}", family(address));
        let measured = answered(&|| far_end::generate(load(address, Rate::Max), wire, &socket, setup))?;
        engine.must_run()?;
        ensure!(measured.received > 0, "nothing came back from {address} in {TRIES} tries");
        let half = measured.received_pps / 2.0;
        println!("demo: {} answered; now {half:.0} packets per second", rate(measured.received_pps));
        report.flat_out.push((address, measured));
        let rate = Rate::Fixed(half.max(1.0));
        let measured = answered(&|| far_end::generate(load(address, rate), wire, &socket, setup))?;
        engine.must_run()?;
        report.half.push((address, measured));
    }
    println!("demo: stopping the engine");
    let (status, engine) = engine.stop()?;
    if !status.success() {
        report.failures.push(format!("the engine ended with {status}"));
    }
    report.engine = engine;

    match Testpmd::missing(wire.drivers()) {
        Some(why) => println!("demo: no comparison with testpmd: {why}"),
        None => {
            for contender in [Contender::Volley, Contender::Swap5] {
                println!("demo: 512 packets in circles, testpmd at the far end: {}", contender.as_str());
                let pps = circulated(contender, wire, arguments.seconds as usize, setup)?;
                report.circulated.push((contender.as_str(), pps));
            }
        }
    }
    report.judge();
    println!("\n{report}");
    println!("JSON: {}", setup.write("dpdk", &report)?.display());
    ensure!(report.failures.is_empty(), "the demo failed: {}", report.failures.join("; "));
    Ok(())
}

/// How often a run is tried. On a machine whose cores others keep busy, the wire may be up only after its seconds are over.
const TRIES: usize = 5;

/// A run in which something came back, or the last of so many.
fn answered(run: &dyn Fn() -> Result<Measured>) -> Result<Measured> {
    for _ in 1..TRIES {
        let measured = run()?;
        if measured.received > 0 {
            return Ok(measured);
        }
        println!("demo: nothing came back in time: the machine is busy; once more");
    }
    run()
}

impl Report {
    /// Finds what was not as it must be. Loss at the fixed rate is shown, and no failure: the machine may be busy.
    fn judge(&mut self) {
        let runs = || self.flat_out.iter().chain(&self.half);
        let corrupted: u64 = runs().map(|(_, run)| run.corrupted).sum();
        let silent: Vec<_> = runs().filter(|(_, run)| run.received == 0).collect();
        let mut failures: Vec<_> =
            silent.iter().map(|(address, _)| format!("nothing came back from {address}")).collect();
        if corrupted > 0 {
            failures.push(format!("{corrupted} answers were corrupted"));
        }
        let best = self.flat_out.iter().map(|(_, run)| run.received_pps).fold(0.0, f64::max);
        if best < self.at_least {
            failures.push(format!("{} answered, {} wanted", rate(best), rate(self.at_least)));
        }
        if !self.balances() {
            failures.push("the engine cannot account for all of its frames".into());
        }
        self.failures.append(&mut failures);
    }

    /// Every frame is in one place, and every mbuf came back to its pool.
    fn balances(&self) -> bool {
        self.engine["total"]["ledger_balances"] == Value::Bool(true)
            && self.engine["dpdk"]["mbufs_missing"] == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { machine, wire, engine_core, generator_core, engine, .. } = self;
        writeln!(f, "Volley over DPDK on {machine}")?;
        writeln!(
            f,
            "Engine on core {engine_core}, generator on core {generator_core}, {} between them; no kernel.",
            wire.as_str()
        )?;
        writeln!(f, "\nEvery byte checked")?;
        let mut table = Builder::default();
        table.push_record(["", "rate", "answered", "p50", "p99", "sent", "lost", "corrupted"]);
        for (address, run) in self.flat_out.iter().chain(&self.half) {
            let asked = run.rate_pps.map_or("flat out".into(), rate);
            let mut record = vec![family(*address).to_owned(), asked, rate(run.received_pps)];
            record.extend([run.latency.p50_ns, run.latency.p99_ns].map(time));
            record.extend([run.sent, run.lost, run.corrupted].map(|count| count.to_string()));
            table.push_record(record);
        }
        writeln!(f, "{}", right(table))?;
        if let [(_, ours), (peer, theirs)] = self.circulated.as_slice() {
            writeln!(
                f,
                "\n512 packets in circles with testpmd macswap at the far end: {} a second through the engine, {} through \
                 {peer} ({:.2} times; one run each, `volley-bench dpdk` measures it properly).",
                rate(*ours),
                rate(*theirs),
                ours / theirs
            )?;
        }
        let total = &engine["total"];
        writeln!(
            f,
            "\nThe engine received {} packets and answered {}; frames and mbufs: {}.",
            total["received"],
            total["answered"],
            if self.balances() { "all accounted for" } else { "NOT all accounted for" }
        )?;
        match self.failures.as_slice() {
            [] => write!(f, "Everything that was made has been removed. All is well."),
            failures => write!(f, "FAILED: {}", failures.join("; ")),
        }
    }
}
