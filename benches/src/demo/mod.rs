//! `volley-bench demo`: the whole way of a packet on this machine, in half a minute.
//!
//! ```text
//!   core 0: generator ──► veth ──► XDP: game port ──► AF_XDP ──► core 1: volley run
//!                                  everything else ──► kernel: ping, UDP sockets
//! ```
//!
//! Flat out; a TCP echo on the same port and interface; then at half of what can be verified, every byte checked; then, under load, what is none of the engine's
//! business. Without root or AF_XDP the same job runs over kernel sockets on loopback. Nothing stays behind, however it ends.

mod bystander;
pub mod dpdk;
mod report;
mod tcp;

use crate::generator::{Load, Mode, Rate, SMALL};
use crate::lab::Lab;
use crate::process::Interrupted;
use crate::server::{Running, Server};
use crate::setup::{Machine, Setup};
use anyhow::{Result, ensure};
use clap::Args;
use report::{Fixed, FlatOut, Report};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Options of `volley-bench demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,

    /// Run over kernel sockets on loopback, whatever else would work
    #[arg(long)]
    pub loopback: bool,
}

/// Where the job runs: over a lab through AF_XDP, or over loopback.
struct Wire {
    lab: Option<Lab>,
    /// IPv4, and IPv6 when there is any.
    addresses: Vec<IpAddr>,
    /// The engine, already serving.
    engine: Running,
    server: Server,
    /// How the generator sends flat out, and how it checks.
    flat_out: Mode,
    checking: Mode,
}

/// Runs the demo, prints its report and writes `report.json`.
pub fn run(arguments: &DemoArgs, setup: &Setup) -> Result<()> {
    let machine = Machine::here();
    println!("demo: {machine}");
    let mut missing = None;
    let wire = match through_xdp(arguments, setup) {
        Ok(wire) => wire,
        Err(error) if error.is::<Interrupted>() => return Err(error),
        Err(error) => {
            println!(
                "demo: no AF_XDP here: {error:#}\ndemo: the same job over kernel sockets on loopback instead"
            );
            missing = Some(format!("{error:#}"));
            over_loopback(setup)?
        }
    };
    let report = measure(wire, missing, machine, arguments, setup)?;
    println!("\n{report}");
    println!("JSON: {}", setup.write("report", &report)?.display());
    ensure!(report.failures.is_empty(), "the demo failed: {}", report.failures.join("; "));
    Ok(())
}

fn through_xdp(arguments: &DemoArgs, setup: &Setup) -> Result<Wire> {
    ensure!(!arguments.loopback, "loopback was asked for");
    let program = std::env::current_exe()?;
    ensure!(nix::unistd::geteuid().is_root(), "it needs root: sudo {} demo", program.display());
    let lab = Lab::up(&setup.lab, &setup.logs(), &setup.interrupt)?;
    let engine = Server::AfXdp.start_with_tcp(setup, Some(&lab))?;
    println!("demo: the engine serves {} on core {}", lab.engine().interface, setup.engine_core);
    let addresses = vec![lab.engine().ipv4, lab.engine().ipv6];
    Ok(Wire {
        lab: Some(lab),
        addresses,
        engine,
        server: Server::AfXdp,
        flat_out: Mode::Blast,
        checking: Mode::AfXdp,
    })
}

fn over_loopback(setup: &Setup) -> Result<Wire> {
    let engine = Server::Mmsg.start_with_tcp(setup, None)?;
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push(Ipv6Addr::LOCALHOST.into());
    }
    let (flat_out, checking) = (Mode::Socket, Mode::Socket);
    Ok(Wire { lab: None, addresses, engine, server: Server::Mmsg, flat_out, checking })
}

fn measure(
    wire: Wire,
    missing: Option<String>,
    machine: Machine,
    arguments: &DemoArgs,
    setup: &Setup,
) -> Result<Report> {
    let Wire { lab, addresses, mut engine, server, flat_out, checking } = wire;
    let time = Duration::from_secs_f64(arguments.seconds);
    let link = lab.as_ref();
    let load = |mode, address| {
        let target = SocketAddr::new(address, setup.port);
        Load { mode, target, rate: Rate::Max, time, flows: 64, size: SMALL }
    };
    let mut report = Report::new(server, link, setup, machine, missing);

    for &address in &addresses {
        println!("demo: flat out, {}", family(address));
        let measured = load(flat_out, address).run(setup, link)?;
        report.flat_out.push(FlatOut::new(server, address, &measured));
        engine.must_run()?;
    }
    for &address in &addresses {
        // What a checking generator gets back flat out. Searching the highest rate without loss takes longer than this demo
        // may; `volley-bench latency` does that.
        let verified = load(checking, address).run(setup, link)?;
        let half = verified.received_pps / 2.0;
        println!("demo: {half:.0} packets per second, every byte checked, {}", family(address));
        let measured = Load { rate: Rate::Fixed(half), ..load(checking, address) }.run(setup, link)?;
        report.fixed.push(Fixed { address, verified, measured });
        engine.must_run()?;
    }

    for &address in &addresses {
        println!("demo: TCP echo on the same port, {}", family(address));
        report.tcp.push(tcp::echo(address, time, setup, link)?);
        engine.must_run()?;
    }

    println!("demo: everything else on the same interface, under load");
    let quarter = report.fixed[0].measured.rate_pps.unwrap_or_default() / 2.0;
    let load_meanwhile =
        Load { rate: Rate::Fixed(quarter), time: time * 2, ..load(checking, addresses[0]) };
    let sending = load_meanwhile.start(setup, link)?;
    for &address in &addresses {
        if let Some(lab) = link {
            report.bystanders.push(bystander::ping(address, setup, lab)?);
        }
        report.bystanders.push(bystander::kernel_socket(address, setup, link)?);
    }
    report.meanwhile = sending.finish(setup)?;
    engine.must_run()?;

    println!("demo: stopping the engine");
    let (status, engine) = engine.stop()?;
    report.engine_ended(status, engine);

    if link.is_some() {
        println!("demo: the same flat out over kernel sockets, for comparison");
        let peer = Server::Mmsg.start(setup, link)?;
        let measured = load(flat_out, addresses[0]).run(setup, link)?;
        report.flat_out.push(FlatOut::new(Server::Mmsg, addresses[0], &measured));
        peer.stop()?;
    }
    if let Some(lab) = lab {
        lab.down()?;
    }
    report.judge();
    Ok(report)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
