//! The command line.

use crate::demo::dpdk::DemoDpdkArgs;
use crate::demo::{self, DemoArgs};
use crate::process::Interrupted;
use crate::scenario::connections::{self, ConnectionsArgs, client};
use crate::scenario::dpdk::{self, DpdkArgs};
use crate::scenario::echo::{self, EchoArgs};
use crate::scenario::latency::{self, LatencyArgs};
use crate::scenario::matrix::guard::{self, CompareArgs};
use crate::scenario::matrix::{self, MatrixArgs};
use crate::scenario::steer_cost;
use crate::scenario::syn_flood::{self, SynFloodArgs};
use crate::scenario::tcp::{self, TcpArgs};
use crate::scenario::tcp_memory::{self, TcpMemoryArgs};
use crate::setup::{Setup, SetupArgs};
use anyhow::ensure;
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;
use std::time::Instant;

/// What a process that a signal ended returns: 128 and SIGINT's number.
const INTERRUPTED: u8 = 130;

/// Measures Volley, against its peers and on its own
#[derive(Parser)]
#[command(name = "volley-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole way of a packet on this machine, in half a minute
    Demo(With<DemoArgs>),
    /// The same over DPDK: engine and generator over shared memory
    DemoDpdk(With<DemoDpdkArgs>),
    /// Saturation: 64-byte echo, ours against its peers
    Echo(With<EchoArgs>),
    /// Saturation over DPDK: echo over memif and vhost, ours against testpmd
    Dpdk(With<DpdkArgs>),
    /// Every I/O model side by side: rate, latency, processor time, memory, system calls; a table and plots
    Matrix(With<MatrixArgs>),
    /// Open TCP connections, 100,000 of them: an echo on each, and what they cost in descriptors and memory
    Connections(With<ConnectionsArgs>),
    /// The other end of `connections`
    #[command(hide = true)]
    Hold(client::HoldArgs),
    /// A matrix against the stored baseline: fails when a row fell, as a ratio to recvmmsg
    Compare(With<CompareArgs>),
    /// Round trips at half the verified ceiling
    Latency(With<LatencyArgs>),
    /// TCP: echo, ping-pong, connects and bulk, our own stack beside the kernel's
    Tcp(With<TcpArgs>),
    /// Our TCP in memory: 64-byte echo at 10 to 100,000 connections, and beside smoltcp
    TcpMemory(With<TcpMemoryArgs>),
    /// The steering program: ns per packet and instructions, beside a bare filter
    SteerCost(With<NoArgs>),
    /// What a flood of SYNs does to the TCP echo, its connections and its new clients
    SynFlood(With<SynFloodArgs>),
    /// Every scenario, one after the other
    All(With<AllArgs>),
}

#[derive(Args)]
struct With<A: Args> {
    #[command(flatten)]
    own: A,
    #[command(flatten)]
    setup: SetupArgs,
}

#[derive(Args)]
struct NoArgs {}

#[derive(Args)]
struct AllArgs {
    /// Rounds of every scenario
    #[arg(long, default_value_t = 10)]
    rounds: usize,
}

/// Runs the command line of this process: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(With { own, setup }) => {
            Setup::new(&setup, "demo").and_then(|setup| demo::run(&own, &setup))
        }
        Command::DemoDpdk(With { own, setup }) => {
            Setup::new(&setup, "demo").and_then(|setup| demo::dpdk::run(&own, &setup))
        }
        Command::Echo(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| echo::run(&own, &setup))
        }
        Command::Dpdk(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| dpdk::run(&own, &setup))
        }
        Command::Matrix(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| matrix::run(&own, &setup))
        }
        Command::Connections(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| connections::run(&own, &setup))
        }
        Command::Hold(arguments) => client::run(&arguments),
        Command::Compare(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| guard::run(&own, &setup))
        }
        Command::Latency(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| latency::run(&own, &setup))
        }
        Command::Tcp(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| tcp::run(&own, &setup))
        }
        Command::TcpMemory(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| tcp_memory::run(&own, &setup))
        }
        Command::SteerCost(With { own: NoArgs {}, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| steer_cost::run(&setup))
        }
        Command::SynFlood(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| syn_flood::run(&own, &setup))
        }
        Command::All(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| all(&own, &setup))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("volley-bench: interrupted; everything that was made has been removed");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("volley-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One scenario's failure does not keep the others from running; a signal does.
fn all(arguments: &AllArgs, setup: &Setup) -> anyhow::Result<()> {
    let rounds = arguments.rounds;
    let scenarios: [(&str, &dyn Fn() -> anyhow::Result<()>); 9] = [
        ("echo", &|| echo::run(&EchoArgs { rounds, ..EchoArgs::default() }, setup)),
        ("dpdk", &|| dpdk::run(&DpdkArgs { rounds, ..DpdkArgs::default() }, setup)),
        ("matrix", &|| matrix::run(&MatrixArgs { rounds, ..MatrixArgs::default() }, setup)),
        ("latency", &|| latency::run(&LatencyArgs { rounds, ..LatencyArgs::default() }, setup)),
        ("tcp", &|| tcp::run(&TcpArgs { rounds: 2 * rounds, ..TcpArgs::default() }, setup)),
        ("tcp-memory", &|| tcp_memory::run(&TcpMemoryArgs { rounds }, setup)),
        ("steer-cost", &|| steer_cost::run(setup)),
        ("syn-flood", &|| syn_flood::run(&SynFloodArgs { rounds, ..SynFloodArgs::default() }, setup)),
        ("connections", &|| connections::run(&ConnectionsArgs::default(), setup)),
    ];
    let begun = Instant::now();
    let mut failed = Vec::new();
    for (at, (name, scenario)) in scenarios.iter().enumerate() {
        let minutes = begun.elapsed().as_secs() / 60;
        println!("all: {name}, {} of {}, after {minutes} min", at + 1, scenarios.len());
        if let Err(error) = scenario() {
            setup.interrupt.check()?;
            eprintln!("volley-bench: {error:#}");
            failed.push(*name);
        }
    }
    println!("all: JSON is in {}, after {} min", setup.out.display(), begun.elapsed().as_secs() / 60);
    ensure!(failed.is_empty(), "something failed in {}: see above", failed.join(", "));
    Ok(())
}
