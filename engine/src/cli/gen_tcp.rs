//! `volley gen --tcp`: connections rather than datagrams.

use super::r#gen::{FIRST_PORT, GenArgs, Mode};
use crate::generator::approach::Wanted;
use crate::generator::tcp::carrier::Carrier;
use crate::generator::tcp::open::{OverAfXdp, over_sockets};
use crate::generator::tcp::pattern::LONGEST;
use crate::generator::tcp::report::Report;
use crate::generator::tcp::{Exchange, Load, run};
use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Ports that connections of our own stack leave from, from the first one on: the rest below the kernel's ephemeral ones.
const PORTS: u16 = 12_768;

/// Options of TCP.
#[derive(Args)]
pub(super) struct TcpArgs {
    /// Connections instead of datagrams, and what they do. The client is the kernel's TCP with --mode socket, our own with
    /// af-xdp and dpdk. A closed loop: --rate, --size, --flows, --run, --burst and --count do not apply
    #[arg(long, value_enum, value_name = "WHAT")]
    tcp: Option<What>,

    /// TCP: connections at once [default: 1; connect: 64]
    #[arg(long, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: Option<u32>,

    /// TCP: bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    message: usize,

    /// TCP: messages of a connection on their way at once
    #[arg(long, value_name = "MESSAGES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    window: u32,

    /// TCP: bytes to send or receive in all (2G, 100M, 5000) [default: as many as there is time for]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    bytes: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Messages there and back, to an echo
    Echo,
    /// The same on one connection, one message at a time
    PingPong,
    /// Connect, one message there and back, close, and again; to an echo
    Connect,
    /// Bytes there, to a discard service
    Send,
    /// Bytes back, from a character generator
    Receive,
}

impl TcpArgs {
    /// Whether it is TCP at all.
    pub(super) fn asked(&self) -> bool {
        self.tcp.is_some()
    }
}

/// Runs what `args` ask for and returns the report.
pub(super) fn run(args: &GenArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<Report> {
    let mut load = load(args)?;
    match args.mode {
        Mode::Socket => {
            let mut streams = over_sockets(&load)?;
            measured("socket", &load, &mut streams, stop)
        }
        Mode::AfXdp => {
            let first = args.source_port.unwrap_or(FIRST_PORT);
            let wanted = Wanted {
                target: args.target,
                interface: args.interface.clone(),
                mac: args.mac,
                sources: args.source.clone(),
                first_port: first,
                flows: 1,
                longest: 0,
            };
            let queues = args.queues.clone().map(|queues| queues.map(|number| number as u16).collect());
            let mut way = OverAfXdp::open(&mut load, &wanted, ports(first), queues, args.replace)?;
            let name = way.name().to_owned();
            let mut report = measured("af_xdp", &load, way.carrier(), stop)?;
            report.notes.push(name);
            Ok(report)
        }
        Mode::Dpdk => over_dpdk(args, &mut load, stop),
        Mode::Blast => bail!("--tcp needs a TCP: choose --mode socket, af-xdp or dpdk"),
    }
}

fn measured(
    mode: &'static str,
    load: &Load,
    carrier: &mut dyn Carrier,
    stop: &AtomicBool,
) -> anyhow::Result<Report> {
    let outcome = run::run(load, carrier, stop)?;
    let counts = outcome.counts;
    ensure!(
        counts.opened > 0,
        "none of {} connections to {} could be opened ({} refused or reset, {} without an answer): who listens there?",
        counts.failed,
        load.target,
        counts.reset,
        counts.timed_out
    );
    Ok(Report::new(mode, load, outcome))
}

#[cfg(not(feature = "dpdk"))]
fn over_dpdk(_: &GenArgs, _: &mut Load, _: &Arc<AtomicBool>) -> anyhow::Result<Report> {
    Err(crate::engine::StartError::NoDpdk.into())
}

#[cfg(feature = "dpdk")]
fn over_dpdk(args: &GenArgs, load: &mut Load, stop: &Arc<AtomicBool>) -> anyhow::Result<Report> {
    use crate::generator::tcp::open::OverDpdk;
    let mut options = crate::engine::config::Dpdk::default();
    args.dpdk.apply(&mut options);
    options.give_up = Some(Arc::clone(stop));
    let ports = ports(args.source_port.unwrap_or(FIRST_PORT));
    let mut way = OverDpdk::open(load, args.mac, ports, &options, stop)?;
    let mut report = measured("dpdk", load, way.carrier(), stop)?;
    report.notes.extend(way.notes().cloned());
    Ok(report)
}

fn ports(first: u16) -> RangeInclusive<u16> {
    first..=first.saturating_add(PORTS - 1)
}

fn load(args: &GenArgs) -> anyhow::Result<Load> {
    let TcpArgs { tcp, connections, message, window, bytes } = &args.tcp;
    let what = tcp.unwrap_or(What::Echo);
    ensure!((1..=LONGEST).contains(message), "--message: 1 to {LONGEST} bytes");
    let wrong = |source: &&IpAddr| source.is_ipv4() != args.target.is_ipv4();
    if let Some(source) = args.source.iter().find(wrong) {
        bail!("--source {source} and the target {} are of two families", args.target);
    }
    let (exchange, most) = match what {
        What::Echo => (Exchange::Echo, None),
        What::PingPong => (Exchange::Echo, Some(1)),
        What::Connect => (Exchange::Connect, None),
        What::Send => (Exchange::Send, None),
        What::Receive => (Exchange::Receive, None),
    };
    let default = if what == What::Connect { 64 } else { 1 };
    Ok(Load {
        exchange,
        target: args.target,
        sources: args.source.clone(),
        connections: most.or(*connections).unwrap_or(default),
        size: *message,
        window: most.unwrap_or(*window),
        bytes: *bytes,
        warmup: args.warmup,
        duration: args.duration,
        linger: args.linger,
    })
}

fn parse_bytes(text: &str) -> anyhow::Result<u64> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(bytes @ 1..) => Ok(bytes),
        _ => bail!("a number of bytes above 0, such as 2G, 100M or 5000"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_units() {
        let bytes = ["5000", "3k", "100M", "2G"].map(|text| parse_bytes(text).unwrap());
        assert_eq!(bytes, [5_000, 3_000, 100_000_000, 2_000_000_000]);
        for wrong in ["", "0", "G", "-1", "1.5G", "99999999999999G"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
