//! The command line.

use crate::demo::{self, DemoArgs};
use crate::process::Interrupted;
use crate::scenario::echo::{self, EchoArgs};
use crate::scenario::latency::{self, LatencyArgs};
use crate::scenario::steer_cost;
use crate::setup::{Setup, SetupArgs};
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

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
    /// Saturation: 64-byte echo, ours against its peers
    Echo(With<EchoArgs>),
    /// Round trips at half the verified ceiling
    Latency(With<LatencyArgs>),
    /// The steering program: ns per packet and instructions, beside a bare filter
    SteerCost(With<NoArgs>),
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
        Command::Echo(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| echo::run(&own, &setup))
        }
        Command::Latency(With { own, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| latency::run(&own, &setup))
        }
        Command::SteerCost(With { own: NoArgs {}, setup }) => {
            Setup::new(&setup, "bench").and_then(|setup| steer_cost::run(&setup))
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
    let scenarios: [&dyn Fn() -> anyhow::Result<()>; 3] = [
        &|| echo::run(&EchoArgs { rounds, ..EchoArgs::default() }, setup),
        &|| latency::run(&LatencyArgs { rounds, ..LatencyArgs::default() }, setup),
        &|| steer_cost::run(setup),
    ];
    let mut failed = None;
    for scenario in scenarios {
        if let Err(error) = scenario() {
            setup.interrupt.check()?;
            eprintln!("volley-bench: {error:#}");
            failed = Some(error);
        }
    }
    println!("all: JSON is in {}", setup.out.display());
    failed.map_or(Ok(()), Err)
}
