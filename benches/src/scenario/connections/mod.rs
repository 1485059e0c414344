//! Open TCP connections: so many at once, an echo on each of them, and what each costs.
//!
//! ```text
//!   client 1 ── 127.1.0.1 ─┐                 ┌─ server 1   volley run --share-port
//!   client 2 ── 127.1.0.2 ─┼──► one port ────┼─ server 2
//!        …                 ┘  (SO_REUSEPORT) └─    …
//! ```
//!
//! A process may have no more descriptors than its limit, and a source address no more connections than ephemeral ports: so there
//! are several of each, as few as the limits allow, which are looked at first and named when they are in the way. With privilege
//! it runs in a network namespace of its own, so that counts are its own and nothing is left behind.
//!
//! A loopback has both ends of each connection on one machine: kernel memory is that of both.

pub mod client;
mod memory;
mod plan;

use crate::process::{Child, Interrupt, Job};
use crate::setup::{Machine, Setup};
use crate::table;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use memory::{Kernel, Processes};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use plan::{Limits, Plan};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tabled::builder::Builder;

/// The connections that are wanted.
const WANTED: u64 = 100_000;
/// What a step may take: opening, or an echo on each. Alone on two cores it is some ten seconds.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(50);
/// What frees itself after a step (sockets of handshakes, RCU) has this long before it is counted.
const SETTLE: Duration = Duration::from_millis(500);
/// Slab caches named in the report.
const CACHES: usize = 8;

/// A way to serve connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// `volley run --io epoll`
    Epoll,
    /// `volley run --io io-uring`
    IoUring,
}

impl Model {
    fn as_str(self) -> &'static str {
        match self {
            Model::Epoll => "epoll",
            Model::IoUring => "io-uring",
        }
    }
}

/// Options of `volley-bench connections`.
#[derive(Args, Clone, Debug)]
pub struct ConnectionsArgs {
    /// Connections open at once
    #[arg(long, default_value_t = WANTED)]
    pub connections: u64,

    /// Server processes [default: as few as RLIMIT_NOFILE allows, at least 2]
    #[arg(long)]
    pub servers: Option<u64>,

    /// Client processes, each with a source address of its own [default: as few as the limits allow, at least 2]
    #[arg(long)]
    pub clients: Option<u64>,

    /// What serves them, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Model::Epoll, Model::IoUring])]
    pub io: Vec<Model>,
}

impl Default for ConnectionsArgs {
    fn default() -> Self {
        ConnectionsArgs {
            connections: WANTED,
            servers: None,
            clients: None,
            io: vec![Model::Epoll, Model::IoUring],
        }
    }
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    machine: Machine,
    limits: Limits,
    plan: Plan,
    own_namespace: bool,
    models: Vec<Row>,
}

/// What one model came to. Bytes are for one connection.
#[derive(Serialize)]
struct Row {
    io: Model,
    connections: u64,
    echoed: u64,
    refused: u64,
    connect_seconds: f64,
    echo_seconds: f64,
    servers: Processes,
    clients: Processes,
    server_user_bytes: f64,
    client_user_bytes: f64,
    kernel_slab_bytes: f64,
    kernel_buffer_bytes: f64,
    all_bytes: f64,
    kernel_caches: Vec<(String, f64)>,
    tcp_sockets: u64,
}

/// Measures, prints, and writes `connections.json`.
pub fn run(arguments: &ConnectionsArgs, setup: &Setup) -> Result<()> {
    // A thread can leave the machine's network for good, and its children with it; the process stays.
    let inside = || {
        let own_namespace = own_network(setup)?;
        let limits = Limits::here()?;
        let plan = Plan::new(&limits, arguments.connections, arguments.servers, arguments.clients)?;
        let machine = Machine::here();
        let Plan { connections, servers, clients } = plan;
        println!(
            "connections: {connections} over {servers} servers and {clients} clients: RLIMIT_NOFILE is {}, a source address has {} \
             ephemeral ports; on {machine}",
            limits.descriptors, limits.ports
        );
        let mut models = Vec::new();
        for (number, io) in arguments.io.iter().enumerate() {
            models.push(measure(*io, number, plan, setup)?);
        }
        let report = Report { scenario: "connections", machine, limits, plan, own_namespace, models };
        print(&report);
        println!("connections: {}", setup.write("connections", &report)?.display());
        Ok(())
    };
    std::thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Moves this thread to a network namespace of its own with a loopback that is up. False without the privilege.
fn own_network(setup: &Setup) -> Result<bool> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {
            let job = Job::new("ip", setup.logs().join("ip.log")).args(["link", "set", "lo", "up"]);
            job.run(Duration::from_secs(10), &setup.interrupt)?;
            Ok(true)
        }
        Err(Errno::EPERM) => Ok(false),
        Err(errno) => Err(errno).context("a network namespace"),
    }
}

/// A server, and where its report will be.
struct Server {
    child: Child,
    report: PathBuf,
}

fn start_server(io: Model, number: u64, plan: Plan, setup: &Setup) -> Result<Server> {
    let name = format!("connections-{}-server-{number}", io.as_str());
    let report = setup.logs().join(format!("{name}.json"));
    let _ = std::fs::remove_file(&report);
    let port = setup.port.to_string();
    let job = Job::new(&setup.volley, setup.logs().join(format!("{name}.log")))
        .args(["run", "--io", io.as_str(), "--workers", "1", "--no-pin", "--idle", "sleep", "--share-port"])
        .args(["--address", "127.0.0.1", "--port", &port, "--tcp-port", &port, "--tcp-app", "tcp-echo"])
        .args(["--tcp-connections", &plan.server_room().to_string(), "--report"])
        .args([&report]);
    Ok(Server { child: job.start()?, report })
}

/// Waits until each child's output has the line.
fn all_say(children: &mut [Child], line: impl Fn(usize) -> String, interrupt: &Interrupt) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    for (number, child) in children.iter_mut().enumerate() {
        let line = line(number);
        while !child.output().lines().any(|said| said == line) {
            child.must_run()?;
            if Instant::now() > until {
                bail!("no {line:?} within {} s: {}", PATIENCE.as_secs(), child.last_words());
            }
            interrupt.sleep(LOOK)?;
        }
    }
    Ok(())
}

fn measure(io: Model, number: usize, plan: Plan, setup: &Setup) -> Result<Row> {
    let interrupt = &setup.interrupt;
    let mut servers: Vec<Server> =
        (0..plan.servers).map(|number| start_server(io, number, plan, setup)).collect::<Result<_>>()?;
    let until = Instant::now() + PATIENCE;
    for server in &mut servers {
        while !server.child.output().contains("volley: ready") {
            server.child.must_run()?;
            ensure!(Instant::now() < until, "a server is not ready: {}", server.child.last_words());
            interrupt.sleep(LOOK)?;
        }
    }
    interrupt.sleep(SETTLE)?;
    let pids = |servers: &[Server]| servers.iter().map(|server| server.child.pid()).collect::<Vec<_>>();
    let (kernel_before, servers_before) = (Kernel::now(), Processes::now(pids(&servers)));

    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, setup.port));
    let started = Instant::now();
    let start_client = |client: u64| {
        // Other addresses for each model: ports of the one before may still be in TIME-WAIT.
        let from = Ipv4Addr::new(127, 1 + number as u8, 0, 1 + client as u8);
        let log = setup.logs().join(format!("connections-{}-client-{client}.log", io.as_str()));
        Job::new(std::env::current_exe()?, log)
            .args(["hold", "--to", &to.to_string(), "--from", &from.to_string()])
            .args(["--connections", &plan.of_client(client).to_string()])
            .start()
    };
    let mut clients: Vec<Child> = (0..plan.clients).map(start_client).collect::<Result<_>>()?;
    all_say(&mut clients, |n| format!("connected {}", plan.of_client(n as u64)), interrupt)?;
    let connect_seconds = started.elapsed().as_secs_f64();

    let started = Instant::now();
    clients.iter_mut().try_for_each(|client| client.tell("echo"))?;
    all_say(&mut clients, |n| format!("echoed {}", plan.of_client(n as u64)), interrupt)?;
    let echo_seconds = started.elapsed().as_secs_f64();

    interrupt.sleep(SETTLE)?;
    let kernel = Kernel::now();
    let servers_now = Processes::now(pids(&servers));
    let clients_now = Processes::now(clients.iter().map(Child::pid));

    clients.iter_mut().try_for_each(|client| client.tell("close"))?;
    for client in &mut clients {
        let ended = client.wait(PATIENCE, interrupt)?;
        ensure!(ended.is_some_and(|status| status.success()), "a client failed: {}", client.last_words());
    }
    let (mut accepted, mut refused) = (0, 0);
    for Server { mut child, report } in servers {
        let status = child.stop()?;
        ensure!(status.success(), "a server ended with {status}: {}", child.last_words());
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report)?)?;
        let count = |what: &str| report["total"]["streams"][what].as_u64().unwrap_or(0);
        accepted += count("accepted");
        refused += count("refused_full") + count("refused_descriptors");
    }
    ensure!(
        accepted == plan.connections && refused == 0,
        "{}: of {} connections {accepted} were accepted and {refused} refused",
        io.as_str(),
        plan.connections
    );

    let each = |after: u64, before: u64| (after as f64 - before as f64) / plan.connections as f64;
    let grown = kernel.grown(&kernel_before, CACHES);
    Ok(Row {
        io,
        connections: accepted,
        echoed: plan.connections,
        refused,
        connect_seconds,
        echo_seconds,
        servers: servers_now,
        clients: clients_now,
        server_user_bytes: each(servers_now.pss, servers_before.pss),
        client_user_bytes: each(clients_now.pss, 0),
        kernel_slab_bytes: each(kernel.slab, kernel_before.slab),
        kernel_buffer_bytes: each(kernel.tcp_buffers, kernel_before.tcp_buffers),
        all_bytes: each(kernel_before.available, kernel.available),
        kernel_caches: grown.into_iter().map(|(name, bytes)| (name, each(bytes, 0))).collect(),
        tcp_sockets: kernel.tcp_sockets,
    })
}

fn print(report: &Report) {
    let Plan { servers, clients, .. } = report.plan;
    let mut lines = Builder::default();
    let names = report.models.iter().map(|row| row.io.as_str().to_owned());
    lines.push_record(std::iter::once(String::new()).chain(names));
    let mut line = |name: &str, of: &dyn Fn(&Row) -> String| {
        lines.push_record(std::iter::once(name.to_owned()).chain(report.models.iter().map(of)));
    };
    line("connections open, an echo on each", &|row| row.echoed.to_string());
    line("seconds to open them", &|row| format!("{:.1}", row.connect_seconds));
    line("seconds to echo on each", &|row| format!("{:.1}", row.echo_seconds));
    line("server processes", &|_| servers.to_string());
    line("client processes and addresses", &|_| clients.to_string());
    line("descriptors of all servers", &|row| row.servers.descriptors.to_string());
    line("most descriptors of one server", &|row| row.servers.most_descriptors.to_string());
    line("server user memory (PSS), bytes a connection", &|row| format!("{:.0}", row.server_user_bytes));
    line("client user memory (PSS), bytes a connection", &|row| format!("{:.0}", row.client_user_bytes));
    line("kernel slab, both ends, bytes a connection", &|row| format!("{:.0}", row.kernel_slab_bytes));
    line("kernel TCP buffers, bytes a connection", &|row| format!("{:.0}", row.kernel_buffer_bytes));
    line("all memory (MemAvailable), bytes a connection", &|row| format!("{:.0}", row.all_bytes));
    println!("{}", table::right(lines));
    for row in &report.models {
        let caches: Vec<_> =
            row.kernel_caches.iter().map(|(name, bytes)| format!("{name} {bytes:.0}")).collect();
        println!("connections: {}: slab bytes a connection: {}", row.io.as_str(), caches.join(", "));
    }
}
