//! What an engine has done: for people as text, for programs as JSON. The same shape serves `volley status` while it runs
//! and the report at its end.

mod text;

use super::ladder::{Demotion, Rung};
use super::seat::{Ended, Final, PortName, Role};
use crate::frame::Ledger;
use crate::net::standalone::StandaloneStats;
use crate::stream::StreamStats;
use crate::worker::{End, LoopStats, PortCounters};
use serde::Serialize;
use std::collections::BTreeMap;
use volley_wire::DropReason;

/// A running or stopped engine.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the engine.
    pub version: &'static str,
    /// Its process.
    pub pid: u32,
    /// The interface, when there is one.
    pub interface: Option<String>,
    /// The UDP ports served.
    pub ports: String,
    /// The TCP ports served, when there are any, and by what.
    pub tcp: Option<String>,
    /// The addresses served; empty: all.
    pub addresses: Vec<String>,
    /// What carries the packets: "af-xdp", "mmsg" or "epoll".
    pub io: &'static str,
    /// Why AF_XDP does not, although it was asked for.
    pub fallback: Option<String>,
    /// The rung it stands on; `None` for an engine that was never meant for AF_XDP.
    pub rung: Option<Rung>,
    /// How it came down to that, step by step.
    pub demotions: Vec<Demotion>,
    /// Seconds since it was ready.
    pub seconds: f64,
    /// Whether it still runs.
    pub running: bool,
    /// The XDP program, when there is one.
    pub xdp: Option<Xdp>,
    /// DPDK's devices, when they carry the packets.
    pub dpdk: Option<Dpdk>,
    /// Each worker.
    pub workers: Vec<Worker>,
    /// Sums over all workers and their predecessors.
    pub total: Total,
}

/// The XDP program in front of the engine.
#[derive(Clone, Debug, Serialize)]
pub struct Xdp {
    /// The kernel's number for it.
    pub program: u32,
    /// "native", "generic" or "offloaded".
    pub mode: String,
    /// It stays attached when the engine goes.
    pub pinned: bool,
    /// The rules this engine has claimed.
    pub rules: Vec<String>,
    /// Packets by verdict since this engine attached.
    pub counters: BTreeMap<&'static str, u64>,
}

/// DPDK's side.
#[derive(Clone, Debug, Serialize)]
pub struct Dpdk {
    /// The library's version.
    pub version: String,
    /// Each device.
    pub devices: Vec<Device>,
    /// The rules the workers steer by.
    pub rules: Vec<String>,
    /// Packets by verdict of the rules.
    pub steered: BTreeMap<&'static str, u64>,
    /// Mbufs that had not come back when the devices were closed: 0, or a bug. `None` while it runs.
    pub mbufs_missing: Option<u64>,
}

/// One device of DPDK's.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// "up" or "down".
    pub link: &'static str,
    /// Mbit/s, when the device knows.
    pub mbps: Option<u32>,
    /// Queues in use.
    pub queues: u16,
    /// What it takes over.
    pub offloads: String,
    /// What its RSS hash is over; empty with one queue.
    pub hash: String,
    /// Entries of its RSS indirection table that this engine has set; 0 with one queue, or where the driver has none.
    pub indirection: u16,
    /// Rules for the game ports that it has accepted; 0 when the workers steer alone.
    pub rules: usize,
    /// What the driver says of the first that it has refused.
    pub rules_refused: Option<String>,
    /// The driver's own counters that are not 0.
    pub counters: BTreeMap<String, u64>,
}

/// One worker.
#[derive(Clone, Debug, Serialize)]
pub struct Worker {
    /// Its number.
    pub worker: usize,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// The queues it serves.
    pub queues: Vec<u16>,
    /// "running", "drained", "timed out" or "panicked".
    pub state: &'static str,
    /// What the last panic said.
    pub panic: Option<String>,
    /// Times it was started anew after a panic.
    pub restarts: u32,
    /// The loop.
    pub turns: LoopStats,
    /// The ports, predecessors' counters included.
    pub ports: Vec<Port>,
}

/// One port of a worker.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// Its name and purpose.
    #[serde(flatten)]
    pub name: PortName,
    /// What it counts.
    #[serde(flatten)]
    pub counters: PortCounters,
}

/// Sums, in datagrams unless said otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Total {
    /// Valid datagrams given to the app.
    pub received: u64,
    /// Payload bytes of those.
    pub received_bytes: u64,
    /// Answered in place.
    pub answered: u64,
    /// Sent unasked.
    pub sent: u64,
    /// Consumed without an answer.
    pub consumed: u64,
    /// Dropped, all reasons.
    pub dropped: u64,
    /// Dropped, by reason.
    pub dropped_by_reason: BTreeMap<&'static str, u64>,
    /// Of the received, those that came through the kernel although they are steered: reassembled fragments, unserved queues.
    pub via_kernel: u64,
    /// Frames of all ports.
    pub ledger: Ledger,
    /// Every frame of every port is in exactly one place.
    pub ledger_balances: bool,
    /// Streams of all ports.
    pub streams: StreamStats,
    /// Ports without a kernel behind them: ARP, neighbour discovery, echo, path MTUs, in messages.
    pub standalone: StandaloneStats,
}

impl Total {
    /// Sums up `workers`.
    pub fn of(workers: &[Worker]) -> Total {
        let mut total = Total { ledger_balances: true, ..Total::default() };
        for port in workers.iter().flat_map(|worker| &worker.ports) {
            let PortCounters { datagrams, ledger, .. } = &port.counters;
            total.received += datagrams.received;
            total.received_bytes += datagrams.received_bytes;
            total.answered += datagrams.answered;
            total.sent += datagrams.sent;
            total.consumed += datagrams.consumed;
            total.dropped += datagrams.dropped_total();
            for (reason, count) in DropReason::ALL.iter().zip(datagrams.dropped).filter(|(_, n)| *n > 0) {
                *total.dropped_by_reason.entry(reason.as_str()).or_default() += count;
            }
            if port.name.role == Role::Companion {
                total.via_kernel += datagrams.received;
            }
            total.ledger = plus(total.ledger, *ledger);
            total.streams = sum(&total.streams, &port.counters.streams);
            total.standalone = sum(&total.standalone, &port.counters.standalone);
            total.ledger_balances &= ledger.balances();
        }
        total
    }
}

impl Ended {
    /// The word for it in reports.
    pub fn as_str(&self) -> &'static str {
        match self {
            Ended::Stopped(End::Drained) => "drained",
            Ended::Stopped(End::TimedOut) => "timed out",
            Ended::Panicked(_) => "panicked",
        }
    }
}

/// Adds what a worker's predecessors in its seat counted. Their frames are gone with their ports, so the ledger is the
/// successor's alone.
pub fn add(past: &Final, counters: &mut Final) {
    let (old, new) = (&past.stats, &mut counters.stats);
    new.tick_late_max_ns = new.tick_late_max_ns.max(old.tick_late_max_ns);
    for (new, old) in [
        (&mut new.turns, old.turns),
        (&mut new.idle_turns, old.idle_turns),
        (&mut new.sleeps, old.sleeps),
        (&mut new.bursts, old.bursts),
        (&mut new.frames, old.frames),
        (&mut new.stream_events, old.stream_events),
        (&mut new.ticks, old.ticks),
        (&mut new.ticks_skipped, old.ticks_skipped),
        (&mut new.timers, old.timers),
        (&mut new.posts, old.posts),
        (&mut new.results, old.results),
        (&mut new.jobs_panicked, old.jobs_panicked),
    ] {
        *new += old;
    }
    let ports = counters.ports.iter_mut().zip(&past.ports);
    for (new, old) in ports.chain(counters.streams.iter_mut().zip(&past.streams)) {
        let (ledger, open, pool_bytes) = (new.ledger, new.streams.open, new.streams.pool_bytes);
        *new = sum(new, old);
        (new.ledger, new.streams.open, new.streams.pool_bytes) = (ledger, open, pool_bytes);
    }
}

/// Adds two structs made of counters, word by word.
fn sum<T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable>(a: &T, b: &T) -> T {
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    let pairs = a.as_bytes().chunks_exact(8).zip(b.as_bytes().chunks_exact(8));
    let bytes: Vec<u8> = pairs.flat_map(|(a, b)| word(a).wrapping_add(word(b)).to_ne_bytes()).collect();
    T::read_from_bytes(&bytes).unwrap_or_else(|_| T::new_zeroed())
}

/// Adds what a port counted that a worker has given back to what its predecessors did.
pub fn add_port(past: &mut Final, index: usize, counters: &PortCounters) {
    if past.ports.len() <= index {
        past.ports.resize(index + 1, PortCounters::default());
    }
    past.ports[index] = PortCounters { ledger: Ledger::default(), ..sum(&past.ports[index], counters) };
}

/// Adds two ledgers.
pub fn plus(a: Ledger, b: Ledger) -> Ledger {
    sum(&a, &b)
}

impl Report {
    /// As JSON, indented.
    pub fn to_json(&self) -> String {
        // Only maps with keys that are no strings, or a failing Serialize, could make this fail; there are none.
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(role: Role, received: u64, runts: u64, ledger: Ledger) -> Port {
        let mut counters = PortCounters { ledger, ..PortCounters::default() };
        counters.datagrams.received = received;
        counters.standalone.arp_answered = received;
        counters.datagrams.drop(DropReason::UdpChecksum);
        counters.datagrams.dropped[DropReason::Runt as usize] = runts;
        Port { name: PortName { name: "p".into(), role }, counters }
    }

    fn report() -> Report {
        let even = Ledger { total: 10, free: 6, kernel_rx: 4, ..Ledger::default() };
        let workers = vec![Worker {
            worker: 0,
            core: Some(1),
            queues: vec![0],
            state: "drained",
            panic: Some("on purpose".into()),
            restarts: 1,
            turns: LoopStats::default(),
            ports: vec![port(Role::AfXdp, 100, 3, even), port(Role::Companion, 5, 0, Ledger::default())],
        }];
        Report {
            version: "0",
            pid: 1,
            interface: Some("eth1".into()),
            ports: "7777".into(),
            tcp: Some("7777 over epoll".into()),
            addresses: vec![],
            io: "af-xdp",
            fallback: None,
            rung: Some(Rung::Copy),
            demotions: vec![Demotion {
                from: Rung::ZeroCopy,
                to: Rung::Copy,
                why: "queue 0 stalled".into(),
                ledger: Ledger { total: 3, abandoned: 3, ..Ledger::default() },
            }],
            seconds: 1.0,
            running: false,
            xdp: None,
            dpdk: None,
            total: Total::of(&workers),
            workers,
        }
    }

    #[test]
    fn totals_add_up_and_the_companion_is_via_kernel() {
        let total = report().total;
        assert_eq!((total.received, total.via_kernel, total.dropped), (105, 5, 5));
        assert_eq!(total.dropped_by_reason["udp_checksum"], 2);
        assert!(total.ledger_balances);
    }

    #[test]
    fn one_ledger_that_does_not_balance_is_seen_even_if_the_sum_would() {
        let mut workers = report().workers;
        workers[0].ports[0].counters.ledger.free += 1;
        workers[0].ports[1].counters.ledger.total += 1;
        assert!(!Total::of(&workers).ledger_balances);
    }

    #[test]
    fn both_forms_say_what_happened() {
        let report = report();
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["workers"][0]["ports"][1]["role"], "companion");
        assert_eq!(json["workers"][0]["ports"][0]["datagrams"]["dropped"]["runt"], 3);
        let text = report.to_string();
        assert_eq!((&json["rung"], &json["demotions"][0]["from"]), (&"copy".into(), &"zero-copy".into()));
        for part in [
            "zero-copy → copy: queue 0 stalled (3 frames given up)",
            "runt 3",
            "link: ARP answered 105",
            "5 via the kernel",
            "on purpose",
            "ledger balances",
            "TCP 7777 over epoll: 0 open",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_successor_counts_on_from_its_predecessor() {
        let mut past = Final { ports: vec![report().workers[0].ports[0].counters], ..Final::default() };
        past.stats.turns = 7;
        let mut now = past.clone();
        add(&past, &mut now);
        assert_eq!((now.stats.turns, now.ports[0].datagrams.received), (14, 200));
        assert!(now.ports[0].ledger.balances() && now.ports[0].ledger.total == 10);
    }
}
