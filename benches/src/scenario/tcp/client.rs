//! Runs `volley gen --tcp` and reads what it measured.

use crate::generator::{Mode, Times};
use crate::process::Job;
use crate::setup::Setup;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Time exchanged before measuring.
const WARM_UP: Duration = Duration::from_millis(300);
/// What a client may take beyond its warm-up and measuring time.
const OVERTIME: Duration = Duration::from_secs(40);

/// What to do.
#[derive(Clone, Debug)]
pub struct Client {
    /// Whose TCP the client's is.
    pub mode: Mode,
    /// `echo`, `ping-pong`, `connect`, `send` or `receive`.
    pub what: &'static str,
    /// Time measured, at most.
    pub time: Duration,
    /// Without warm-up: everything is measured from the first byte on.
    pub whole: bool,
    /// Where it runs.
    pub namespace: Option<String>,
    /// The server.
    pub target: IpAddr,
    /// Further flags.
    pub flags: Vec<String>,
}

/// What it measured; the names are those of its JSON.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Measured {
    /// Messages back a second.
    pub messages_per_second: f64,
    /// Connections closed in good order, a second.
    pub connections_per_second: f64,
    /// Payload sent, in Gbit/s.
    pub sent_gbit: f64,
    /// Payload received, in Gbit/s.
    pub received_gbit: f64,
    /// Connections closed in good order.
    pub closed: u64,
    /// Connections that ended otherwise.
    pub failed: u64,
    /// Messages without an answer.
    pub unanswered: u64,
    /// Wrong bytes.
    pub corrupted: u64,
    /// Round trips.
    pub latency: Times,
}

impl Client {
    /// Runs it to its end. Anything lost, failed or corrupted is an error.
    pub fn run(&self, setup: &Setup) -> Result<Measured> {
        let target = SocketAddr::new(self.target, setup.port);
        let json = setup.logs().join("gen-tcp.json");
        let _ = fs::remove_file(&json);
        let warm_up = if self.whole { Duration::ZERO } else { WARM_UP };
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        let mode = match self.mode {
            Mode::Socket => "socket",
            Mode::AfXdp => "af-xdp",
            Mode::Dpdk => "dpdk",
            Mode::Blast => bail!("there is no TCP from inside the kernel"),
        };
        let job = Job::new(&setup.volley, setup.logs().join(format!("gen-tcp-{mode}.log")))
            .core(setup.generator_core)
            .namespace(self.namespace.as_deref())
            .args(["gen", &target.to_string(), "--tcp", self.what, "--mode", mode])
            .args(["--duration", &seconds(self.time), "--warmup", &seconds(warm_up), "--linger", "2"])
            .args(&self.flags)
            .args(["--quiet", "--json"])
            .args([&json]);
        let mut child = job.start()?;
        let ended = child.wait(warm_up + self.time + OVERTIME, &setup.interrupt)?;
        let status = ended.with_context(|| format!("volley gen does not end: {}", child.last_words()))?;
        ensure!(status.success(), "volley gen ended with {status}: {}", child.last_words());
        let text = fs::read(&json).with_context(|| json.display().to_string())?;
        let measured: Measured = serde_json::from_slice(&text)?;
        let Measured { failed, unanswered, corrupted, .. } = measured;
        ensure!(
            failed + unanswered + corrupted == 0,
            "{failed} connections failed, {unanswered} messages unanswered, {corrupted} corrupted"
        );
        Ok(measured)
    }
}
