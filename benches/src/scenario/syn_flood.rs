//! What a flood of SYNs does to the TCP echo: to the connections that are there, and to clients that come.
//!
//! ```text
//!   quiet ──► 100,000 SYNs a second, new clients come ──► quiet ──► as many SYNs as a core sends ──► a second after
//!     └─────── echoes at a fixed rate, timed from when each was due ───────┘        └── echoes, closed loop ──┘
//! ```
//!
//! The SYNs come from addresses that nobody has. Flood and clients share the generator's core: what the flood takes of it is in
//! both percentiles that are compared only as far as it disturbs, so the flood sleeps between its batches.

use crate::lab::Lab;
use crate::process::Interrupt;
use crate::server::Server;
use crate::setup::{Machine, Setup};
use crate::table;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use volley_testlab::{Flood, Netns};

/// p99 during the flood, in terms of the quiet one.
const WANTED_P99: f64 = 2.0;
/// Share of new clients that are served within [`CONNECT`].
const WANTED_CONNECTS: f64 = 0.95;
/// What a new client waits for its connection and first echo.
const CONNECT: Duration = Duration::from_secs(3);
/// An echo that takes longer is a connection that is stuck.
const STUCK: Duration = Duration::from_secs(30);
/// New clients at once: enough that one that waits does not keep the others from coming.
const COMERS: usize = 8;
/// Between two clients of one of those.
const PAUSE: Duration = Duration::from_millis(100);
/// Throughput is counted over this, before the flood and from this long after it.
const SECOND: Duration = Duration::from_secs(1);
/// What throughput after the flood must be of what it was before, to be back: a noisy machine's own spread.
const BACK: f64 = 0.8;
/// Growth of the engine's memory that is none: allocators round, page tables grow.
const FLAT_BYTES: u64 = 4 << 20;

/// Options of `volley-bench syn-flood`.
#[derive(Args, Clone, Debug)]
pub struct SynFloodArgs {
    /// SYNs a second of the measured flood
    #[arg(long, default_value_t = 100_000)]
    pub syns: u32,

    /// Connections that are there before it
    #[arg(long, default_value_t = 50)]
    pub connections: usize,

    /// Echoes a second over them
    #[arg(long, default_value_t = 2_000)]
    pub echoes: u32,

    /// Seconds of each part
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

impl Default for SynFloodArgs {
    fn default() -> Self {
        SynFloodArgs { syns: 100_000, connections: 50, echoes: 2_000, seconds: 5.0 }
    }
}

/// Round trips at a fixed rate, from when each was due.
#[derive(Serialize, Clone, Copy, Default)]
struct Latency {
    echoes: usize,
    p50_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

#[derive(Serialize, Default)]
struct Comers {
    came: usize,
    served: usize,
    slowest_ms: u64,
}

#[derive(Serialize)]
struct Full {
    syns_sent: u64,
    syns_per_second: f64,
    echoes_before: usize,
    echoes_during: usize,
    echoes_after: usize,
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    machine: Machine,
    syns_per_second: u32,
    quiet: Latency,
    flood: Latency,
    p99_ratio: f64,
    p99_wanted: f64,
    syns_sent: u64,
    comers: Comers,
    comers_wanted: f64,
    full: Full,
    memory_before: u64,
    memory_after: u64,
    cookies_sent: Value,
    cookies_accepted: Value,
    syn_limited: Value,
    reset: Value,
    ledger_balances: bool,
    met: bool,
}

/// Measures, prints, and writes `syn-flood.json`.
pub fn run(arguments: &SynFloodArgs, setup: &Setup) -> Result<()> {
    let machine = Machine::here();
    println!("syn-flood: {} SYNs a second, then all there are, on {machine}", arguments.syns);
    let lab = Lab::up(&setup.lab, &setup.logs(), &setup.interrupt)?;
    let IpAddr::V4(address) = lab.engine().ipv4 else { bail!("the lab has no IPv4 address") };
    let target = SocketAddrV4::new(address, setup.port);
    let engine = Server::AfXdp.start_with_tcp(setup, Some(&lab))?;
    let mut own = CpuSet::new();
    own.set(setup.generator_core)?;
    // Threads made from here on are there as well.
    sched_setaffinity(Pid::from_raw(0), &own)?;

    let outcome = lab.peer().run(|| measure(arguments, target, &lab, engine.pid(), &setup.interrupt));
    let (_, said) = engine.stop()?;
    let Measured { quiet, flood, syns_sent, comers, full, memory } = outcome?;
    lab.down()?;

    let p99_ratio = flood.p99_ns as f64 / quiet.p99_ns.max(1) as f64;
    let streams = &said["total"]["streams"];
    let ledger_balances = said["total"]["ledger_balances"] == Value::Bool(true);
    let served = comers.served as f64 / comers.came.max(1) as f64;
    let grown = memory.1.saturating_sub(memory.0);
    let back = full.echoes_after as f64 / full.echoes_before.max(1) as f64;
    let verdicts = [
        (p99_ratio <= WANTED_P99, "p99 at most twice the quiet one"),
        (served >= WANTED_CONNECTS, "95 % of new clients served within 3 s"),
        (streams["reset"].as_u64() == Some(0), "no connection reset"),
        (grown <= FLAT_BYTES, "memory flat"),
        (ledger_balances, "ledger balances"),
        (back >= BACK, "throughput back within a second"),
    ];
    println!("syn-flood: quiet   p50 {}  p99 {}", table::time(quiet.p50_ns), table::time(quiet.p99_ns));
    println!(
        "syn-flood: flood   p50 {}  p99 {}  ({p99_ratio:.2} times), {syns_sent} SYNs, no echo lost of {}",
        table::time(flood.p50_ns),
        table::time(flood.p99_ns),
        flood.echoes
    );
    println!(
        "syn-flood: new clients {} of {} served within 3 s, the slowest after {} ms",
        comers.served, comers.came, comers.slowest_ms
    );
    println!(
        "syn-flood: all there are: {:.0} SYNs a second; echoes a second {} before, {} during, {} a second after",
        full.syns_per_second, full.echoes_before, full.echoes_during, full.echoes_after
    );
    println!(
        "syn-flood: cookies {} sent, {} accepted; dropped in XDP {}; resets {}; memory {} KiB more",
        streams["cookies_sent"],
        streams["cookies_accepted"],
        said["xdp"]["counters"]["syn_limited"],
        streams["reset"],
        grown >> 10
    );
    for (met, what) in verdicts {
        println!("syn-flood: {what}: {}", if met { "met" } else { "missed" });
    }
    let report = Report {
        scenario: "syn-flood",
        machine,
        syns_per_second: arguments.syns,
        quiet,
        flood,
        p99_ratio,
        p99_wanted: WANTED_P99,
        syns_sent,
        comers,
        comers_wanted: WANTED_CONNECTS,
        full,
        memory_before: memory.0,
        memory_after: memory.1,
        cookies_sent: streams["cookies_sent"].clone(),
        cookies_accepted: streams["cookies_accepted"].clone(),
        syn_limited: said["xdp"]["counters"]["syn_limited"].clone(),
        reset: streams["reset"].clone(),
        ledger_balances,
        met: verdicts.iter().all(|(met, _)| *met),
    };
    println!("syn-flood: {}", setup.write("syn-flood", &report)?.display());
    Ok(())
}

struct Measured {
    quiet: Latency,
    flood: Latency,
    syns_sent: u64,
    comers: Comers,
    full: Full,
    memory: (u64, u64),
}

/// Inside the peer's namespace, on the generator's core.
fn measure(
    arguments: &SynFloodArgs,
    target: SocketAddrV4,
    lab: &Lab,
    engine: u32,
    interrupt: &Interrupt,
) -> Result<Measured> {
    let there: Vec<TcpStream> = (0..arguments.connections)
        .map(|_| connect(target.into(), STUCK).context("before the flood"))
        .collect::<Result<_>>()?;
    let time = Duration::from_secs_f64(arguments.seconds);
    let namespace = Netns::named(&lab.peer().netns);
    let paced = |time| paced(&there, arguments.echoes, time, interrupt);
    paced(SECOND)?;
    let quiet = paced(time)?;

    let storm = Flood::start(&namespace, target, Some(arguments.syns))?;
    paced(SECOND)?;
    let memory = resident(engine)?;
    let over = AtomicBool::new(false);
    let comers = Mutex::new(Comers::default());
    let flood = std::thread::scope(|scope| {
        for _ in 0..COMERS {
            scope.spawn(|| come(target.into(), &over, &comers));
        }
        let flood = paced(time);
        over.store(true, Ordering::Relaxed);
        flood
    })?;
    let syns_sent = storm.stop();

    let echoes_before = closed_loop(&there, SECOND, interrupt)?;
    let storm = Flood::start(&namespace, target, None)?;
    let begun = Instant::now();
    let echoes_during = closed_loop(&there, time, interrupt)?;
    let elapsed = begun.elapsed().as_secs_f64();
    let sent = storm.stop();
    let ended = Instant::now();
    closed_loop(&there, SECOND.saturating_sub(ended.elapsed()), interrupt)?;
    let echoes_after = closed_loop(&there, SECOND, interrupt)?;
    let full = Full {
        syns_sent: sent,
        syns_per_second: sent as f64 / elapsed,
        echoes_before,
        echoes_during: (echoes_during as f64 / elapsed) as usize,
        echoes_after,
    };
    let comers = comers.into_inner().unwrap_or_default();
    Ok(Measured { quiet, flood, syns_sent, comers, full, memory: (memory, resident(engine)?) })
}

fn connect(target: SocketAddr, patience: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, patience)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STUCK))?;
    Ok(stream)
}

/// 64 bytes there and back.
fn echo(mut stream: &TcpStream, n: usize) -> Result<()> {
    let message = [n as u8; 64];
    stream.write_all(&message)?;
    let mut got = [0; 64];
    stream.read_exact(&mut got)?;
    ensure!(got == message, "another answer than what was said");
    Ok(())
}

/// Echoes over all connections in turn, so many a second.
fn paced(there: &[TcpStream], per_second: u32, time: Duration, interrupt: &Interrupt) -> Result<Latency> {
    let every = Duration::from_secs(1) / per_second.max(1);
    let echoes = (time.as_nanos() / every.as_nanos().max(1)) as usize;
    let mut took = Vec::with_capacity(echoes);
    let start = Instant::now();
    for n in 0..echoes {
        let due = start + every * n as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if n % 256 == 0 {
            interrupt.check()?;
        }
        echo(&there[n % there.len()], n).context("over a connection that was there before")?;
        took.push(due.elapsed().as_nanos() as u64);
    }
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
    Ok(Latency {
        echoes,
        p50_ns: at(0.5),
        p99_ns: at(0.99),
        max_ns: took.last().copied().unwrap_or_default(),
    })
}

/// Echoes one after the other, as many as there are in `time`.
fn closed_loop(there: &[TcpStream], time: Duration, interrupt: &Interrupt) -> Result<usize> {
    let (start, mut n) = (Instant::now(), 0);
    while start.elapsed() < time {
        if n % 256 == 0 {
            interrupt.check()?;
        }
        echo(&there[n % there.len()], n).context("over a connection that was there before")?;
        n += 1;
    }
    Ok(n)
}

/// New clients, one after the other: connect, echo, close.
fn come(target: SocketAddr, over: &AtomicBool, comers: &Mutex<Comers>) {
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let served = connect(target, CONNECT).and_then(|stream| echo(&stream, 1)).is_ok();
        let took = begun.elapsed();
        if let Ok(mut comers) = comers.lock() {
            comers.came += 1;
            comers.served += usize::from(served && took <= CONNECT);
            comers.slowest_ms = comers.slowest_ms.max(took.as_millis() as u64);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Bytes of memory that the process has touched.
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    Ok(kilobytes << 10)
}
