//! What is measured.

use super::TcpArgs;
use super::client::Client;
use super::contender::{self, Contender};
use super::ground::Ground;
use super::sockperf;
use crate::dpdk::contender::MEGABYTES;
use crate::dpdk::pages::HugePages;
use crate::dpdk::wire::{self, Wire};
use crate::generator::Mode;
use crate::setup::Setup;
use crate::testpmd::Testpmd;
use anyhow::{Result, ensure};
use serde::Serialize;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Connections of the echo part.
const CONNECTIONS: u32 = 100;
/// What a bulk transfer may take.
const BULK: Duration = Duration::from_secs(300);
/// Part of the packets lost, in each direction.
const LOSS: f64 = 0.01;
/// Of both stacks in bulk.
const CONGESTION_CONTROL: &str = "cubic";

/// One thing measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Echo of 64-byte messages at 100 connections
    Echo,
    /// Ping-pong, our client
    PingPong,
    /// Ping-pong, sockperf
    Sockperf,
    /// Connect, echo, close, from 64 addresses
    Connect,
    /// Bulk to the server
    Send,
    /// Bulk from the server
    Receive,
    /// Bulk to the server, each end's receive work on its own core
    SendSteered,
    /// Bulk from the server, each end's receive work on its own core
    ReceiveSteered,
    /// Bulk to the server, one packet in a hundred lost each way
    SendLoss,
    /// Bulk from the server, one packet in a hundred lost each way
    ReceiveLoss,
    /// Bulk to the server, the kernel's with all its offloads
    SendOffloads,
    /// Bulk from the server, the kernel's with all its offloads
    ReceiveOffloads,
    /// Bulk between two of our stacks over memif
    Memif,
}

/// What ours should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// As many times the kernel's.
    TimesTheKernel(f64),
    /// A median time no longer than the kernel's.
    NoLaterThanTheKernel,
    /// A number.
    AtLeast(f64),
    /// Nothing: shown for comparison.
    None,
}

impl Part {
    /// Every one.
    pub const ALL: [Part; 13] = [
        Part::Echo,
        Part::PingPong,
        Part::Sockperf,
        Part::Connect,
        Part::Send,
        Part::Receive,
        Part::SendSteered,
        Part::ReceiveSteered,
        Part::SendLoss,
        Part::ReceiveLoss,
        Part::SendOffloads,
        Part::ReceiveOffloads,
        Part::Memif,
    ];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Echo => "echo",
            Part::PingPong => "ping-pong",
            Part::Sockperf => "sockperf",
            Part::Connect => "connect",
            Part::Send => "send",
            Part::Receive => "receive",
            Part::SendSteered => "send-steered",
            Part::ReceiveSteered => "receive-steered",
            Part::SendLoss => "send-loss",
            Part::ReceiveLoss => "receive-loss",
            Part::SendOffloads => "send-offloads",
            Part::ReceiveOffloads => "receive-offloads",
            Part::Memif => "memif",
        }
    }

    /// What it is, for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Part::Echo => "64-byte messages there and back, 100 connections, one message each at a time",
            Part::PingPong => "median round trip of one 64-byte message, our client",
            Part::Sockperf => "median round trip of one 64-byte message, sockperf",
            Part::Connect => "connect, one 64-byte message there and back, close, from 64 addresses",
            Part::Send => "one connection, to the server; a kernel client; no offloads",
            Part::Receive => "one connection, from the server; a kernel client; no offloads",
            Part::SendSteered => "the same to the server, what a kernel receives steered to its own core",
            Part::ReceiveSteered => {
                "the same from the server, what a kernel receives steered to its own core"
            }
            Part::SendLoss => "the same to the server, with 1 % of the packets lost in each direction",
            Part::ReceiveLoss => "the same from the server, with 1 % of the packets lost in each direction",
            Part::SendOffloads => "to the server; the kernel's row with tx, TSO, GSO and GRO at both ends",
            Part::ReceiveOffloads => {
                "from the server; the kernel's row with tx, TSO, GSO and GRO at both ends"
            }
            Part::Memif => "one connection between two of our stacks, over shared memory",
        }
    }

    /// The unit of its values.
    pub fn unit(self) -> &'static str {
        match self {
            Part::Echo => "thousand messages/s",
            Part::PingPong | Part::Sockperf => "µs",
            Part::Connect => "thousand/s",
            _ => "Gbit/s",
        }
    }

    /// What ours should reach.
    pub fn bar(self) -> Bar {
        match self {
            Part::Echo => Bar::TimesTheKernel(2.0),
            Part::PingPong | Part::Sockperf => Bar::NoLaterThanTheKernel,
            Part::Connect => Bar::AtLeast(50.0),
            Part::Send | Part::Receive | Part::SendSteered | Part::ReceiveSteered => {
                Bar::TimesTheKernel(0.8)
            }
            Part::SendLoss | Part::ReceiveLoss => Bar::TimesTheKernel(0.9),
            Part::SendOffloads | Part::ReceiveOffloads => Bar::None,
            Part::Memif => Bar::AtLeast(10.0),
        }
    }

    /// Its rows, ours first.
    pub fn rows(self) -> Vec<Contender> {
        match self {
            Part::Memif => vec![Contender::Own],
            _ => vec![Contender::Own, Contender::Kernel],
        }
    }

    /// Why it cannot be measured here, and what to do about it.
    pub fn missing(self) -> Option<String> {
        match self {
            Part::Sockperf => sockperf::missing(),
            Part::Memif => Testpmd::missing(Wire::Memif.drivers()),
            _ => None,
        }
    }

    /// One value of one row.
    pub fn value(
        self,
        row: Contender,
        arguments: &TcpArgs,
        ground: &Ground<'_>,
        setup: &Setup,
    ) -> Result<f64> {
        let client = |mode, what, flags: Vec<String>| Client {
            mode,
            what,
            time: Duration::from_secs_f64(arguments.seconds),
            whole: false,
            namespace: Some(ground.lab.peer().netns.clone()),
            target: ground.lab.engine().ipv4,
            flags,
        };
        match self {
            Part::Echo => {
                let flags = vec!["--connections".into(), CONNECTIONS.to_string()];
                let measured = with(row, "tcp-echo", client(Mode::AfXdp, "echo", flags), ground, setup)?;
                Ok(measured.messages_per_second / 1e3)
            }
            Part::PingPong => {
                let client = client(Mode::AfXdp, "ping-pong", Vec::new());
                let measured = with(row, "tcp-echo", client, ground, setup)?;
                Ok(measured.latency.p50_ns as f64 / 1e3)
            }
            Part::Sockperf => {
                let mut running = row.start("tcp-sockperf", setup, ground.lab)?;
                let median = sockperf::median(arguments.seconds, setup, ground.lab)?;
                running.must_run()?;
                running.stop()?;
                Ok(median)
            }
            Part::Connect => {
                let flags = ground
                    .clients()
                    .flat_map(|source| ["--source".to_owned(), source.to_string()])
                    .collect();
                let measured = with(row, "tcp-echo", client(Mode::AfXdp, "connect", flags), ground, setup)?;
                Ok(measured.connections_per_second / 1e3)
            }
            Part::Send | Part::Receive => self.bulk(row, arguments, ground, setup),
            Part::SendSteered | Part::ReceiveSteered => {
                let _steered = ground.steered(setup)?;
                self.bulk(row, arguments, ground, setup)
            }
            Part::SendLoss | Part::ReceiveLoss => {
                let _lossy = ground.lossy(LOSS);
                self.bulk(row, arguments, ground, setup)
            }
            Part::Memif => memif(arguments, setup),
            Part::SendOffloads | Part::ReceiveOffloads => {
                let on = row == Contender::Kernel;
                ground.offloads(on, setup)?;
                let value = self.bulk(row, arguments, ground, setup);
                ground.offloads(false, setup)?;
                value
            }
        }
    }

    /// As many bytes as asked for, one way, with a kernel client.
    fn bulk(self, row: Contender, arguments: &TcpArgs, ground: &Ground<'_>, setup: &Setup) -> Result<f64> {
        let sends = matches!(self, Part::Send | Part::SendSteered | Part::SendLoss | Part::SendOffloads);
        let (app, what) = if sends { ("tcp-discard", "send") } else { ("tcp-chargen", "receive") };
        let flags = vec!["--bytes".into(), format!("{}M", arguments.megabytes)];
        let client = Client {
            mode: Mode::Socket,
            what,
            time: BULK,
            whole: true,
            namespace: Some(ground.lab.peer().netns.clone()),
            target: ground.lab.engine().ipv4,
            flags,
        };
        let measured = ground
            .with_congestion_control(CONGESTION_CONTROL, setup, || with(row, app, client, ground, setup))?;
        ensure!(measured.closed == 1, "not through after {} s", BULK.as_secs());
        Ok(if sends { measured.sent_gbit } else { measured.received_gbit })
    }
}

/// Pages of 2 MiB: both ends' packet memory, which they take whole.
const PAGES: u64 = 2 * MEGABYTES as u64 / 2;

/// As many bytes as asked for, to a discard service at the other end of a memif.
fn memif(arguments: &TcpArgs, setup: &Setup) -> Result<f64> {
    let _pages = HugePages::reserve(PAGES)?;
    let socket = wire::socket(Wire::Memif);
    let _ = std::fs::remove_file(&socket);
    let mut running = contender::over_memif("tcp-discard", &socket, setup)?;
    let (device, memory) = (Wire::Memif.far(&socket), MEGABYTES.to_string());
    let flags = [
        "--vdev",
        &device,
        "--mac",
        wire::NEAR_MAC,
        "--source",
        "10.77.0.2",
        "--memory",
        &memory,
        "--eal=--single-file-segments",
        "--bytes",
        &format!("{}M", arguments.megabytes),
    ];
    let client = Client {
        mode: Mode::Dpdk,
        what: "send",
        time: BULK,
        whole: true,
        namespace: None,
        target: Ipv4Addr::new(10, 77, 0, 1).into(),
        flags: flags.map(str::to_owned).into(),
    };
    let measured = client.run(setup)?;
    ensure!(measured.closed == 1, "not through after {} s", BULK.as_secs());
    running.must_run()?;
    running.stop()?;
    let _ = std::fs::remove_file(socket);
    Ok(measured.sent_gbit)
}

/// A client's run against a server that is there for it alone.
fn with(
    row: Contender,
    app: &str,
    client: Client,
    ground: &Ground<'_>,
    setup: &Setup,
) -> Result<super::client::Measured> {
    let mut running = row.start(app, setup, ground.lab)?;
    let measured = client.run(setup)?;
    running.must_run()?;
    running.stop()?;
    Ok(measured)
}
