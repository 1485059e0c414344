//! What a server costs while it is under load: processor time and memory as /proc tells (what getrusage(2) would say from inside),
//! system calls as the server counts them, or, when it does not, as the kernel's tracepoint does.
//!
//! Two looks in the middle of the load, so that neither its beginning nor its end is in the figures.

use crate::process::Job;
use crate::rust_peer::told;
use crate::server::Running;
use crate::setup::Setup;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

/// What a look at the engine may take.
const LIMIT: Duration = Duration::from_secs(10);
/// USER_HZ, which is 100 on every Linux: the unit of the times in /proc/PID/stat.
const TICKS_PER_S: f64 = 100.0;

/// One look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    at: Instant,
    user_s: f64,
    system_s: f64,
    /// Resident memory, in bytes.
    resident: u64,
    /// Datagrams answered and system calls made, as an engine of ours counts them at this moment.
    engine: Option<(u64, u64)>,
    /// The same, as a peer told them some time ago.
    told: Option<(u64, u64)>,
}

/// What it cost, of one round.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Cost {
    /// User time a packet, in ns.
    pub user_ns: f64,
    /// System time a packet, in ns.
    pub system_ns: f64,
    /// Resident memory, in MiB.
    pub resident_mib: f64,
    /// System calls a packet that the port made.
    pub calls: Option<f64>,
}

impl Look {
    /// Looks at a running server.
    pub fn at(server: &Running, setup: &Setup) -> Result<Look> {
        let pid = server.pid();
        let engine = engine(pid, setup)?;
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        let stat = read("stat").context("the server has ended")?;
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let time = |at: usize| {
            fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0) / TICKS_PER_S
        };
        let status = read("status").context("the server has ended")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Ok(Look {
            at: Instant::now(),
            user_s: time(11),
            system_s: time(12),
            resident: resident.unwrap_or(0) * 1024,
            engine,
            told: told(&server.output()),
        })
    }

    /// Whether the server counts its system calls.
    pub fn tells(&self) -> bool {
        self.engine.or(self.told).is_some()
    }

    /// The cost from this look to a later one, at `pps` packets a second.
    pub fn cost(&self, later: &Look, pps: f64) -> Cost {
        let packets = match (self.engine, later.engine) {
            (Some((before, _)), Some((after, _))) => (after - before) as f64,
            _ => pps * (later.at - self.at).as_secs_f64(),
        };
        let counts = self.engine.zip(later.engine).or(self.told.zip(later.told));
        let calls = counts.and_then(|((packets, calls), (later, more))| {
            (later > packets).then(|| (more - calls) as f64 / (later - packets) as f64)
        });
        Cost {
            user_ns: (later.user_s - self.user_s) * 1e9 / packets,
            system_ns: (later.system_s - self.system_s) * 1e9 / packets,
            resident_mib: later.resident as f64 / f64::from(1 << 20),
            calls,
        }
    }
}

/// System calls a second that a process makes, by the tracepoint at their entry: for a server that does not count its own.
/// `None` without perf, or where it may not. Each call costs some 100 ns more meanwhile.
pub fn calls_per_second(pid: u32, time: Duration, setup: &Setup) -> Result<Option<f64>> {
    let log = setup.logs().join("perf.log");
    let job = Job::new("perf", log).args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p"]);
    let (pid, seconds) = (pid.to_string(), time.as_secs_f64().to_string());
    let job = job.args([&pid, "--", "sleep", &seconds]).core(setup.generator_core);
    let Ok(perf) = job.run(LIMIT, &setup.interrupt) else {
        setup.interrupt.check()?;
        return Ok(None);
    };
    let counted = perf.output().lines().find_map(|line| line.split(',').next()?.parse::<f64>().ok());
    Ok(counted.map(|calls| calls / time.as_secs_f64()))
}

/// Datagrams answered and system calls made by the engine that is process `pid`; `None` when it is no engine of ours.
fn engine(pid: u32, setup: &Setup) -> Result<Option<(u64, u64)>> {
    let job = Job::new(&setup.volley, setup.logs().join("status.log")).args(["status", "--json"]);
    let said = job.core(setup.generator_core).run(LIMIT, &setup.interrupt)?.output();
    let begin = said.find('{').unwrap_or(said.len());
    let status: Value = serde_json::from_str(&said[begin..]).context("volley status")?;
    let engines = status["engines"].as_array();
    let ours = engines.into_iter().flatten().find(|engine| engine["pid"] == pid);
    Ok(ours.map(|engine| {
        let ports = engine["workers"].as_array().into_iter().flatten();
        let ports = ports.flat_map(|worker| worker["ports"].as_array().into_iter().flatten());
        let calls = ports.filter_map(|port| port["port"]["wakeups"].as_u64()).sum();
        (engine["total"]["answered"].as_u64().unwrap_or(0), calls)
    }))
}
