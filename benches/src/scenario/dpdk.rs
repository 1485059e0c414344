//! Saturation over DPDK: echo over shared memory, ours against testpmd, the same far end for both.
//!
//! The far end is testpmd with macswap, circulating 512 packets of 64 bytes; a row's value is what comes back to it. A row with our
//! own generator at the far end, every byte checked, stands beside them. testpmd `io` in the contender's place shows
//! how much the far end can take: a ratio counts only where that is at least 1.3 times as much as the row had. In the same rounds, in
//! runs of their own since the stopwatch takes time too: what a packet costs above the driver.

use crate::dpdk::above;
use crate::dpdk::contender::Contender;
use crate::dpdk::far_end;
use crate::dpdk::pages::HugePages;
use crate::dpdk::wire::{self, Wire};
use crate::generator::{Load, Measured, Mode, Rate, SMALL};
use crate::process::Interrupted;
use crate::rounds::{Ratio, Rounds};
use crate::setup::{Machine, Setup};
use crate::table;
use crate::testpmd::Testpmd;
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What ours should reach, in multiples of testpmd 5tswap.
const WANTED: [(Contender, f64); 2] = [(Contender::Volley, 0.75), (Contender::Trusting, 0.9)];
/// Nanoseconds that the work above the driver may take for a packet.
const ABOVE_NS: f64 = 15.0;
/// How much faster the far end alone must be than a row for its ratio to count.
const FAR_END_FREE: f64 = 1.3;
/// The row of our own generator.
const CHECKED: &str = "volley, every byte checked by volley gen";
/// Pages of 2 MiB: both ends' packet memory. 8,192 mbufs of 2.3 KiB take ten of them, rings and the libraries' own some more; the kernel
/// may make as many again.
pub const PAGES: u64 = 2 * 32;

/// Options of `volley-bench dpdk`.
#[derive(Args, Clone, Debug)]
pub struct DpdkArgs {
    /// Rounds: each row once, in turning order. Below six the intervals are the whole range
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,

    /// Seconds measured for each row of a round
    #[arg(long, default_value_t = 2)]
    pub seconds: usize,

    /// Wires
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Wire::ALL)]
    pub wires: Vec<Wire>,
}

impl Default for DpdkArgs {
    fn default() -> Self {
        DpdkArgs { rounds: 10, seconds: 2, wires: Wire::ALL.to_vec() }
    }
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    unit: &'static str,
    machine: Machine,
    seconds: usize,
    wires: Vec<OverWire>,
    failures: Vec<String>,
}

#[derive(Serialize)]
struct OverWire {
    wire: Wire,
    rounds: Rounds,
    ratios: Vec<Ratio>,
    /// How much more the far end can take than each row had.
    far_end: Vec<Ratio>,
    /// Nanoseconds above the driver for each packet.
    above: Rounds,
    /// Packets in a burst then, in the last round.
    packets_per_burst: f64,
    lost: u64,
    corrupted: u64,
}

/// Measures, prints, and writes `dpdk.json`.
pub fn run(arguments: &DpdkArgs, setup: &Setup) -> Result<()> {
    for wire in &arguments.wires {
        if let Some(why) = Testpmd::missing(wire.drivers()) {
            println!("dpdk: skipped: {why}");
            return Ok(());
        }
    }
    ensure!(!arguments.wires.is_empty() && arguments.rounds > 0, "dpdk: nothing to measure");
    let machine = Machine::here();
    println!("dpdk: {} rounds of {} s for each row, on {machine}", arguments.rounds, arguments.seconds);
    let _pages = HugePages::reserve(PAGES)?;
    let mut failures = Vec::new();
    let mut wires = Vec::new();
    for &wire in &arguments.wires {
        wires.push(over(wire, arguments, setup, &mut failures)?);
    }
    let unit = "million packets per second, 64-byte frames";
    let report = Report { scenario: "dpdk", unit, machine, seconds: arguments.seconds, wires, failures };
    for over in &report.wires {
        println!("\nover {}\n{}", over.wire.as_str(), table::rows(&over.rounds, "Mpps"));
        println!("{}\nthe far end's room\n{}", table::ratios(&over.ratios), table::ratios(&over.far_end));
        println!(
            "above the driver, in bursts of {:.1} packets (wanted: {ABOVE_NS} ns or less)\n{}",
            over.packets_per_burst,
            table::rows(&over.above, "ns")
        );
    }
    for failure in &report.failures {
        println!("dpdk: failed: {failure}");
    }
    println!("dpdk: {}", setup.write("dpdk", &report)?.display());
    ensure!(report.failures.is_empty(), "dpdk: {} measurements failed", report.failures.len());
    Ok(())
}

fn over(wire: Wire, arguments: &DpdkArgs, setup: &Setup, failures: &mut Vec<String>) -> Result<OverWire> {
    let names = Contender::ALL.iter().map(|contender| contender.as_str()).chain([CHECKED]);
    let mut rounds = Rounds::new(names);
    const OURS: [Contender; 2] = [Contender::Volley, Contender::Trusting];
    let mut above = Rounds::new(OURS.map(Contender::as_str));
    let mut packets_per_burst = 0.0;
    let (mut lost, mut corrupted) = (0, 0);
    for round in 0..arguments.rounds {
        let mut line = format!("dpdk: {} round {:>2}/{}", wire.as_str(), round + 1, arguments.rounds);
        for row in rounds.order(round) {
            let measured = match Contender::ALL.get(row) {
                Some(contender) => circulated(*contender, wire, arguments.seconds, setup),
                None => {
                    checked(wire, Duration::from_secs(arguments.seconds as u64), setup).map(|measured| {
                        lost += measured.lost;
                        corrupted += measured.corrupted;
                        measured.received_pps
                    })
                }
            };
            let name = &rounds.rows()[row].name;
            let value = match measured {
                Ok(pps) => Some(pps / 1e6),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                // As in the echo scenario: shown, and in the exit code.
                Err(error) => {
                    failures.push(format!("{} round {}, {name}: {error:#}", wire.as_str(), round + 1));
                    None
                }
            };
            let said = value.map_or("failed".into(), |mpps| format!("{mpps:.2}"));
            let short = if name == CHECKED { "checked" } else { name };
            line += &format!("  {short} {said}");
            rounds.note(row, value);
        }
        for row in above.order(round) {
            let name = OURS[row].as_str();
            let value = match above::measure(OURS[row], wire, arguments.seconds, setup) {
                Ok(measured) => {
                    packets_per_burst = measured.packets_per_burst;
                    Some(measured.ns_per_packet)
                }
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => {
                    failures.push(format!(
                        "{} round {}, {name}, timed: {error:#}",
                        wire.as_str(),
                        round + 1
                    ));
                    None
                }
            };
            above.note(row, value);
        }
        println!("{line} Mpps");
    }
    if corrupted > 0 {
        failures.push(format!("{}: {corrupted} answers were corrupted", wire.as_str()));
    }
    let peer = Contender::Swap5.as_str();
    let ratios =
        WANTED.iter().filter_map(|(ours, wanted)| rounds.ratio(ours.as_str(), peer, *wanted)).collect();
    let room = |row: Contender| rounds.ratio(Contender::Unseen.as_str(), row.as_str(), FAR_END_FREE);
    let far_end =
        [Contender::Volley, Contender::Trusting, Contender::Swap5].into_iter().filter_map(room).collect();
    Ok(OverWire { wire, rounds, ratios, far_end, above, packets_per_burst, lost, corrupted })
}

/// What comes back to testpmd a second, `contender` answering.
pub fn circulated(contender: Contender, wire: Wire, seconds: usize, setup: &Setup) -> Result<f64> {
    let socket = wire::socket(wire);
    far_end::until_something_comes_back(|| {
        let mut running = contender.start(wire, &socket, far_end::PORT, setup)?;
        let pps = far_end::circulate(wire, &socket, seconds, setup)?;
        // The memif driver of 22.11 unmaps under testpmd's poller when the far end goes, which may end it: it has been measured by then.
        match contender {
            Contender::Volley | Contender::Trusting => {
                running.must_run()?;
                running.stop()?;
            }
            Contender::Swap5 | Contender::Unseen => _ = running.stop(),
        }
        let _ = std::fs::remove_file(&socket);
        Ok(pps)
    })
}

/// Our own generator at the far end, flat out.
fn checked(wire: Wire, time: Duration, setup: &Setup) -> Result<Measured> {
    let socket = wire::socket(wire);
    let mut running = Contender::Volley.start(wire, &socket, setup.port, setup)?;
    let target = SocketAddr::new(Ipv4Addr::new(10, 77, 0, 1).into(), setup.port);
    let load = Load { mode: Mode::Dpdk, target, rate: Rate::Max, time, flows: 64, size: SMALL };
    let measured = far_end::generate(load, wire, &socket, setup)?;
    running.must_run()?;
    running.stop()?;
    let _ = std::fs::remove_file(socket);
    Ok(measured)
}
