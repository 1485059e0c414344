//! Runs `volley gen` and reads what it measured.

use crate::lab::Lab;
use crate::process::{Child, Job};
use crate::setup::Setup;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How the generator sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From inside the kernel, as live frames; answers are counted and dropped by XDP.
    Blast,
    /// AF_XDP sockets; every answer checked byte for byte.
    AfXdp,
    /// A DPDK device; every answer checked byte for byte.
    Dpdk,
    /// Kernel sockets; every answer checked byte for byte.
    Socket,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Mode::Blast => "blast",
            Mode::AfXdp => "af-xdp",
            Mode::Dpdk => "dpdk",
            Mode::Socket => "socket",
        }
    }
}

/// How fast it sends.
#[derive(Clone, Copy, Debug)]
pub enum Rate {
    /// As fast as it can.
    Max,
    /// Packets per second.
    Fixed(f64),
    /// Half of the verified ceiling: the highest rate that is answered without loss, which it searches first.
    HalfCeiling,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rate::Max => f.write_str("max"),
            Rate::Fixed(pps) => write!(f, "{pps:.0}"),
            Rate::HalfCeiling => f.write_str("50%"),
        }
    }
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How.
    pub mode: Mode,
    /// Where to.
    pub target: SocketAddr,
    /// How fast.
    pub rate: Rate,
    /// Time measured.
    pub time: Duration,
    /// Source ports that take turns.
    pub flows: u32,
    /// Bytes of a frame on the wire, frame check sequence included.
    pub size: u32,
}

/// The least frame over IPv4, the default of every scenario.
pub const SMALL: u32 = 64;

/// Time sent before measuring: caches, neighbours and the engine's idle policy settle.
const WARM_UP: Duration = Duration::from_millis(300);
/// What a generator may take beyond its warm-up and measuring time: opening, searching the ceiling, the last answers.
const OVERTIME: Duration = Duration::from_secs(30);

/// What it measured; the names are those of its JSON.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Measured {
    /// Packets per second it was to send; `None` when flat out.
    pub rate_pps: Option<f64>,
    /// The search for the ceiling, when there was one.
    pub ceiling: Option<Ceiling>,
    /// Packets sent.
    pub sent: u64,
    /// Whole answers.
    pub received: u64,
    /// Packets without an answer.
    pub lost: u64,
    /// Answers that came twice.
    pub duplicated: u64,
    /// Answers that came after a later one.
    pub reordered: u64,
    /// Answers with a wrong byte.
    pub corrupted: u64,
    /// Packets sent per second.
    pub sent_pps: f64,
    /// Whole answers per second.
    pub received_pps: f64,
    /// Round trip, counted from the intended send time.
    pub latency: Times,
    /// Round trip, counted from the actual send time: what the engine and the wire took.
    pub latency_uncorrected: Times,
    /// Round trip, from the intended send time, of what the generator sent on time.
    pub latency_on_time: Times,
    /// The generator's own lateness.
    pub lateness: Times,
    /// Its remarks.
    pub notes: Vec<String>,
}

/// The verified ceiling.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Ceiling {
    /// The highest rate without loss, in packets per second.
    pub rate_pps: f64,
}

/// Percentiles of a time, in ns.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Times {
    /// Median.
    pub p50_ns: u64,
    /// One in ten is slower.
    pub p90_ns: u64,
    /// One in a hundred is slower.
    pub p99_ns: u64,
    /// One in a thousand is slower.
    pub p999_ns: u64,
    /// The slowest.
    pub max_ns: u64,
}

impl Load {
    /// Sends and measures, from the lab's peer end, or over loopback without a lab.
    pub fn run(&self, setup: &Setup, lab: Option<&Lab>) -> Result<Measured> {
        self.start(setup, lab)?.finish(setup)
    }

    /// Begins to send.
    pub fn start(&self, setup: &Setup, lab: Option<&Lab>) -> Result<Sending> {
        self.start_with(&[], setup, lab)
    }

    /// Begins to send, with further flags.
    pub fn start_with(&self, flags: &[String], setup: &Setup, lab: Option<&Lab>) -> Result<Sending> {
        let json = setup.logs().join("gen.json");
        let _ = fs::remove_file(&json);
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        let job = Job::new(&setup.volley, setup.logs().join(format!("gen-{}.log", self.mode.as_str())))
            .core(setup.generator_core)
            .namespace(lab.map(|lab| lab.peer().netns.as_str()))
            .args([
                "gen",
                &self.target.to_string(),
                "--mode",
                self.mode.as_str(),
                "--rate",
                &self.rate.to_string(),
            ])
            .args(["--duration", &seconds(self.time), "--warmup", &seconds(WARM_UP)])
            .args(flags)
            // The least is another one over IPv6, and the generator's own default.
            .args(if self.size == SMALL {
                Vec::new()
            } else {
                vec!["--size".to_owned(), self.size.to_string()]
            })
            .args(["--flows", &self.flows.to_string(), "--quiet", "--json"])
            .args([&json]);
        Ok(Sending { child: job.start()?, json, limit: WARM_UP + self.time + OVERTIME })
    }
}

/// A generator at work; ended when dropped.
#[derive(Debug)]
pub struct Sending {
    child: Child,
    json: PathBuf,
    limit: Duration,
}

impl Sending {
    /// Waits for its end and returns what it measured. A corrupted answer, which makes the generator fail, is in there.
    pub fn finish(mut self, setup: &Setup) -> Result<Measured> {
        let ended = self.child.wait(self.limit, &setup.interrupt)?;
        let status =
            ended.with_context(|| format!("volley gen does not end: {}", self.child.last_words()))?;
        let measured =
            fs::read(&self.json).ok().and_then(|text| serde_json::from_slice::<Measured>(&text).ok());
        match measured {
            Some(measured) if status.success() || measured.corrupted > 0 => Ok(measured),
            _ => bail!("volley gen ended with {status}: {}", self.child.last_words()),
        }
    }
}
