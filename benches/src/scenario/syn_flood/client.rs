//! The clients: kernel sockets, 64 bytes there and back.

use crate::process::Interrupt;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a new client waits for its connection and first echo.
pub const CONNECT: Duration = Duration::from_secs(3);
/// An echo that takes longer is a connection that is stuck.
pub const STUCK: Duration = Duration::from_secs(30);
/// Between two clients of one of those that come one after the other.
const PAUSE: Duration = Duration::from_millis(100);
/// Echoes between two looks at whether Ctrl-C was pressed.
const LOOK: usize = 256;

/// Round trips at a fixed rate, from when each was due.
#[derive(Serialize, Clone, Copy, Debug, Default)]
pub struct Latency {
    /// How many.
    pub echoes: usize,
    /// Median.
    pub p50_ns: u64,
    /// One in a hundred is slower.
    pub p99_ns: u64,
    /// The slowest.
    pub max_ns: u64,
}

/// New clients.
#[derive(Serialize, Clone, Copy, Debug, Default)]
pub struct Comers {
    /// How many.
    pub came: usize,
    /// How many had their echo within [`CONNECT`].
    pub served: usize,
    /// What the slowest took.
    pub slowest_ms: u64,
}

/// A connection, within `patience`.
pub fn connect(target: SocketAddr, patience: Duration) -> Result<TcpStream> {
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
pub fn paced(
    there: &[TcpStream],
    per_second: u32,
    time: Duration,
    interrupt: &Interrupt,
) -> Result<Latency> {
    let every = Duration::from_secs(1) / per_second.max(1);
    let echoes = (time.as_nanos() / every.as_nanos().max(1)) as usize;
    let mut took = Vec::with_capacity(echoes);
    let start = Instant::now();
    for n in 0..echoes {
        let due = start + every * n as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if n % LOOK == 0 {
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

/// Echoes one after the other, as many a second as there are in `time`.
pub fn closed_loop(there: &[TcpStream], time: Duration, interrupt: &Interrupt) -> Result<f64> {
    let (start, mut n) = (Instant::now(), 0);
    while start.elapsed() < time {
        if n % LOOK == 0 {
            interrupt.check()?;
        }
        echo(&there[n % there.len()], n).context("over a connection that was there before")?;
        n += 1;
    }
    Ok(n as f64 / start.elapsed().as_secs_f64())
}

/// New clients, one after the other: connect, echo, close.
pub fn come(target: SocketAddr, over: &AtomicBool, comers: &Mutex<Comers>) {
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
