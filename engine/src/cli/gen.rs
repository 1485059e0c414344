//! `volley gen`: send packets, check every answer, report.

use super::gen_tcp::{self, TcpArgs};
use crate::generator::af_xdp::AfXdpLink;
use crate::generator::approach::{Approach, Wanted};
use crate::generator::blast;
use crate::generator::ceiling::PROBE;
use crate::generator::link::Link;
use crate::generator::live::Live;
use crate::generator::payload::HEADER_LEN;
use crate::generator::plan::Plan;
use crate::generator::report::Report;
use crate::generator::run::Limits;
use crate::generator::schedule::Rate;
use crate::generator::session::Outcome;
use crate::generator::socket::SocketLink;
use crate::generator::{Generator, Load};
use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use volley_wire::ethernet::Mac;

/// Generate traffic: open loop, on a schedule fixed in advance, every answer checked byte for byte
///
/// Latency counts from the time a packet was meant to leave, so that a stall shows in every packet it held
/// up (corrected for coordinated omission). Exits with 1 when an answer was corrupted.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    volley gen 10.0.0.2:7777 --rate 100k --duration 5\n  \
    volley gen '[fd00::2]:7777' --rate max --size 84 --json -\n  \
    volley gen 10.0.0.2:7777 --tcp echo --mode af-xdp --connections 100")]
pub struct GenArgs {
    /// Where to send, as ADDRESS:PORT
    pub(super) target: SocketAddr,

    /// What carries the packets
    #[arg(long, value_enum, default_value_t = Mode::Socket)]
    pub(super) mode: Mode,

    /// Packets per second (100000, 100k, 1.5M); "max" is flat out; "50%" is half of the highest rate at
    /// which nothing is lost, which is searched first
    #[arg(long, default_value = "10k", value_name = "RATE", value_parser = parse_rate)]
    rate: Asked,

    /// Seconds to send and measure
    #[arg(long, default_value = "10", value_parser = parse_seconds, value_name = "SECONDS")]
    pub(super) duration: Duration,

    /// Packets to send at most [default: as many as there is time for]
    #[arg(long, value_name = "PACKETS")]
    count: Option<u64>,

    /// Seconds to send before measuring
    #[arg(long, default_value = "0", value_parser = parse_seconds, value_name = "SECONDS")]
    pub(super) warmup: Duration,

    /// Seconds to wait for answers after the last packet
    #[arg(long, default_value = "0.2", value_parser = parse_seconds, value_name = "SECONDS")]
    pub(super) linger: Duration,

    /// Bytes of each frame on the wire, frame check sequence included: one size, or a range LOW-HIGH.
    /// The least is 64 over IPv4 and 84 over IPv6 [default: the least]
    #[arg(long, value_name = "BYTES", value_parser = parse_range, conflicts_with = "payload")]
    size: Option<RangeInclusive<usize>>,

    /// Bytes of UDP payload instead of --size: one length, or a range LOW-HIGH. The least is 18
    #[arg(long, value_name = "BYTES", value_parser = parse_range)]
    payload: Option<RangeInclusive<usize>>,

    /// Flows: source ports (and addresses, when several are given) that take turns
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    flows: u32,

    /// Packets of a flow in a row
    #[arg(long, value_name = "PACKETS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    run: u32,

    /// Source addresses; given more than once, flows are spread over them [default: what the route says; dpdk: the target's
    /// neighbour in number, as 10.0.0.2 for 10.0.0.1]
    #[arg(long, value_name = "IP")]
    pub(super) source: Vec<IpAddr>,

    /// First source port; flows take the ones after it [default: any free ports; af-xdp, dpdk, blast: 20000]
    #[arg(long, value_name = "PORT")]
    pub(super) source_port: Option<u16>,

    /// Most packets that leave back to back (1 to 64)
    #[arg(long, value_name = "PACKETS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=64))]
    burst: u16,

    /// Interface to send on (af-xdp, blast) [default: what the route says]
    #[arg(long, value_name = "NIC")]
    pub(super) interface: Option<String>,

    /// Queues to use, as LOW-HIGH (af-xdp) [default: all of the interface]
    #[arg(long, value_name = "QUEUES", value_parser = parse_range)]
    pub(super) queues: Option<RangeInclusive<usize>>,

    /// Take the interface over from another XDP program (af-xdp)
    #[arg(long)]
    pub(super) replace: bool,

    /// MAC to send to (af-xdp, blast, dpdk) [default: what the kernel knows of the next hop; dpdk: asked for on the link]
    #[arg(long, value_parser = parse_mac)]
    pub(super) mac: Option<Mac>,

    /// Network namespace to run in
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,

    /// Core to run on [default: any]
    #[arg(long)]
    core: Option<usize>,

    /// Fail (exit 1) when a packet was lost
    #[arg(long)]
    fail_on_loss: bool,

    /// Write the report as JSON to this file ("-": standard output, instead of the table)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// No progress line
    #[arg(long)]
    quiet: bool,

    #[command(flatten)]
    pub(super) tcp: TcpArgs,

    #[command(flatten)]
    pub(super) dpdk: super::dpdk::DpdkArgs,
}

/// A rate as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Rate(Rate),
    /// A part of the highest rate without loss.
    OfCeiling(f64),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Kernel UDP sockets; needs no privileges
    Socket,
    /// AF_XDP: a socket per queue of the interface, flows spread over them
    AfXdp,
    /// DPDK: a device of our own, named by --vdev or --pci
    Dpdk,
    /// From inside the kernel: the most packets one core can send. Answers are counted and dropped by XDP,
    /// not verified
    Blast,
}

/// First source port where none is asked for: below the kernel's ephemeral ports (32768 and up on Linux),
/// so that the rule that redirects the answers takes nothing from the kernel's own sockets.
pub(super) const FIRST_PORT: u16 = 20_000;

/// Bytes of a frame that are not payload: Ethernet header, IP header, UDP header, frame check sequence.
fn overhead(target: &SocketAddr) -> usize {
    14 + if target.is_ipv4() { 20 } else { 40 } + 8 + 4
}

/// Runs `volley gen`.
pub fn main(args: GenArgs) -> anyhow::Result<()> {
    if let Some(netns) = &args.netns {
        volley_xdp::netns::enter(netns)?;
    }
    if let Some(core) = args.core {
        pin(core)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second signal ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    if args.tcp.asked() {
        let report = gen_tcp::run(&args, &stop)?;
        let counts = &report.outcome.counts;
        let (corrupted, failed) = (counts.corrupted, counts.failed + report.outcome.unanswered);
        write(&report, args.json.as_deref())?;
        ensure!(corrupted == 0, "{corrupted} pieces of what came back were corrupted");
        ensure!(!args.fail_on_loss || failed == 0, "{failed} connections failed or messages were lost");
        return Ok(());
    }
    let live = Live::default();
    let report = std::thread::scope(|scope| {
        if !args.quiet {
            scope.spawn(|| live.print_progress());
        }
        let report = match args.mode {
            Mode::Socket => over_sockets(&args, &live, &stop),
            Mode::AfXdp => over_af_xdp(&args, &live, &stop),
            Mode::Dpdk => over_dpdk(&args, &live, &stop),
            Mode::Blast => from_the_kernel(&args, &live, &stop),
        };
        live.finish();
        report
    })?;
    write(&report, args.json.as_deref())?;
    let counts = &report.outcome.counts;
    ensure!(counts.corrupted == 0, "{} answers were corrupted", counts.corrupted);
    ensure!(!args.fail_on_loss || counts.lost == 0, "{} of {} packets were lost", counts.lost, counts.sent);
    Ok(())
}

fn over_sockets(args: &GenArgs, live: &Live, stop: &AtomicBool) -> anyhow::Result<Report> {
    let plan = plan(args)?;
    let any: IpAddr =
        if args.target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sources = if args.source.is_empty() { vec![any] } else { args.source.clone() };
    let first_port = args.source_port.unwrap_or(0);
    let last_port = first_port as usize + (args.flows as usize - 1) / sources.len();
    ensure!(
        args.source_port.is_none() || last_port < 65_536,
        "{} flows do not fit above source port {first_port}: lower it, or give more --source addresses",
        args.flows
    );
    let sources = (0..args.flows as usize).map(|flow| {
        let port = args.source_port.map_or(0, |first| first + (flow / sources.len()) as u16);
        SocketAddr::new(sources[flow % sources.len()], port)
    });
    let mut generator = Generator::new(SocketLink::open(args.target, sources, plan.longest())?);
    let mut report = measure(args, "socket", plan, &mut generator, live, stop)?;
    if generator.link().refused() > 0 {
        let refused = generator.link().refused();
        report
            .notes
            .push(format!("{refused} port unreachable messages: nobody listens on {}", args.target));
    }
    Ok(report)
}

fn wanted(args: &GenArgs, plan: &Plan) -> Wanted {
    Wanted {
        target: args.target,
        interface: args.interface.clone(),
        mac: args.mac,
        sources: args.source.clone(),
        first_port: args.source_port.unwrap_or(FIRST_PORT),
        flows: plan.flows(),
        longest: plan.longest(),
    }
}

fn over_af_xdp(args: &GenArgs, live: &Live, stop: &AtomicBool) -> anyhow::Result<Report> {
    let plan = plan(args)?;
    let queues = args.queues.clone().map(|queues| queues.map(|number| number as u16).collect());
    let link = AfXdpLink::open(&wanted(args, &plan), queues, args.replace)?;
    let name = link.name().to_owned();
    let mut generator = Generator::new(link);
    let mut report = measure(args, "af_xdp", plan, &mut generator, live, stop)?;
    report.notes.push(name);
    report.notes.extend(generator.link().notes());
    Ok(report)
}

#[cfg(feature = "dpdk")]
fn over_dpdk(args: &GenArgs, live: &Live, stop: &Arc<AtomicBool>) -> anyhow::Result<Report> {
    use crate::generator::dpdk::{DpdkLink, Wanted};
    let plan = plan(args)?;
    let wanted = Wanted {
        target: args.target,
        mac: args.mac,
        sources: args.source.clone(),
        first_port: args.source_port.unwrap_or(FIRST_PORT),
        flows: plan.flows(),
        longest: plan.longest(),
    };
    let mut options = crate::engine::config::Dpdk::default();
    args.dpdk.apply(&mut options);
    options.give_up = Some(Arc::clone(stop));
    let link = DpdkLink::open(&wanted, &options, stop)?;
    let name = link.name().to_owned();
    let mut generator = Generator::new(link);
    let mut report = measure(args, "dpdk", plan, &mut generator, live, stop)?;
    report.notes.push(name);
    report.notes.extend(generator.link().notes());
    Ok(report)
}

#[cfg(not(feature = "dpdk"))]
fn over_dpdk(_: &GenArgs, _: &Live, _: &Arc<AtomicBool>) -> anyhow::Result<Report> {
    Err(crate::engine::StartError::NoDpdk.into())
}

fn from_the_kernel(args: &GenArgs, live: &Live, stop: &AtomicBool) -> anyhow::Result<Report> {
    let plan = plan(args)?;
    ensure!(
        args.rate == Asked::Rate(Rate::Max),
        "blast mode sends as fast as it can: give --rate max, or use --mode af-xdp for a rate"
    );
    ensure!(plan.shortest() == plan.longest(), "blast mode sends packets of one size: give no range");
    let approach = Approach::find(&wanted(args, &plan))?;
    let outcome = blast::run(approach, plan.longest(), &limits(args), live, stop)?;
    Ok(report(args, "blast", &plan, Rate::Max, outcome))
}

/// Searches the ceiling if the rate is a part of it, then measures.
fn measure<L: Link>(
    args: &GenArgs,
    mode: &'static str,
    plan: Plan,
    generator: &mut Generator<L>,
    live: &Live,
    stop: &AtomicBool,
) -> anyhow::Result<Report> {
    let limits =
        Limits { warmup: args.warmup, duration: args.duration, count: args.count, linger: args.linger };
    let mut load = Load { plan, rate: Rate::Max, burst: args.burst as usize, limits };
    let ceiling = match args.rate {
        Asked::Rate(rate) => {
            load.rate = rate;
            None
        }
        Asked::OfCeiling(part) => {
            let ceiling =
                generator.find_ceiling(&load, PROBE, live, stop).context("searching the ceiling")?;
            ensure!(
                ceiling.rate_pps > 0.0,
                "packets were lost at every rate tried, down to {:.0} pps: is {} an echo, the path clean?",
                ceiling.probes.last().map_or(0.0, |probe| probe.rate_pps),
                args.target
            );
            load.rate = Rate::Fixed(ceiling.rate_pps * part);
            Some(ceiling)
        }
    };
    let outcome = generator.measure(&load, live, stop).with_context(|| format!("{mode} mode"))?;
    Ok(Report { ceiling, ..report(args, mode, &load.plan, load.rate, outcome) })
}

fn report(args: &GenArgs, mode: &'static str, plan: &Plan, rate: Rate, outcome: Outcome) -> Report {
    Report {
        mode,
        target: args.target.to_string(),
        flows: plan.flows(),
        payload_bytes: (plan.shortest(), plan.longest()),
        rate_pps: match rate {
            Rate::Fixed(pps) => Some(pps),
            Rate::Max => None,
        },
        ceiling: None,
        outcome,
        notes: Vec::new(),
    }
}

fn limits(args: &GenArgs) -> Limits {
    Limits { warmup: args.warmup, duration: args.duration, count: args.count, linger: args.linger }
}

fn plan(args: &GenArgs) -> anyhow::Result<Plan> {
    Ok(Plan::new(args.flows, args.run, payload_lengths(args)?))
}

fn payload_lengths(args: &GenArgs) -> anyhow::Result<RangeInclusive<usize>> {
    let overhead = overhead(&args.target);
    let least = HEADER_LEN;
    match (&args.size, &args.payload) {
        (Some(size), _) => {
            let (low, high) = (*size.start(), *size.end());
            ensure!(
                low >= overhead + least,
                "--size {low} is too short: frames to {} have at least {} bytes",
                args.target,
                overhead + least
            );
            Ok(low - overhead..=high - overhead)
        }
        (None, Some(payload)) => {
            ensure!(*payload.start() >= least, "--payload: the least is {least} bytes");
            Ok(payload.clone())
        }
        (None, None) => Ok(least..=least),
    }
}

fn write(
    report: &(impl Serialize + std::fmt::Display),
    json: Option<&std::path::Path>,
) -> anyhow::Result<()> {
    match json {
        Some(path) if path.as_os_str() == "-" => println!("{}", serde_json::to_string_pretty(report)?),
        Some(path) => {
            println!("{report}");
            std::fs::write(path, serde_json::to_string_pretty(report)? + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => println!("{report}"),
    }
    Ok(())
}

fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = nix::sched::CpuSet::new();
    cores.set(core).with_context(|| format!("--core {core}: there is no such core"))?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cores)
        .with_context(|| format!("--core {core}: cannot run there"))
}

fn parse_rate(text: &str) -> anyhow::Result<Asked> {
    if text == "max" {
        return Ok(Asked::Rate(Rate::Max));
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse::<f64>().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
        return percent
            .map(|percent| Asked::OfCeiling(percent / 100.0))
            .context("more than 0 %, at most 100 %");
    }
    let (number, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let pps = number.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    match pps {
        Some(number) => Ok(Asked::Rate(Rate::Fixed(number * unit))),
        None => bail!("a number of packets per second above 0 (100000, 100k, 1.5M) or max"),
    }
}

fn parse_mac(text: &str) -> anyhow::Result<Mac> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).context("six bytes such as 02:00:00:00:00:01")
}

fn parse_seconds(text: &str) -> anyhow::Result<Duration> {
    let seconds: f64 = text.parse()?;
    Duration::try_from_secs_f64(seconds).context("a number of seconds, 0 or more")
}

fn parse_range(text: &str) -> anyhow::Result<RangeInclusive<usize>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high): (usize, usize) = (low.parse()?, high.parse()?);
    // 65,507 is the longest payload UDP over IPv4 has (RFC 768, RFC 791).
    ensure!(low <= high && high <= 65_507, "LOW-HIGH, both at most 65507");
    Ok(low..=high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_take_units() {
        let rates = ["250", "100k", "1.5M", "max"].map(|text| parse_rate(text).unwrap());
        let fixed = |pps| Asked::Rate(Rate::Fixed(pps));
        assert_eq!(rates, [fixed(250.0), fixed(1e5), fixed(1.5e6), Asked::Rate(Rate::Max)]);
        assert_eq!(parse_rate("50%").unwrap(), Asked::OfCeiling(0.5));
        for wrong in ["", "k", "0", "-1", "inf", "fast", "0%", "101%"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_are_one_number_or_two() {
        assert_eq!(parse_range("64").unwrap(), 64..=64);
        assert_eq!(parse_range("64-1518").unwrap(), 64..=1518);
        assert!(parse_range("9-8").is_err());
        assert!(parse_range("70000").is_err());
    }
}
