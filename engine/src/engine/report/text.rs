//! The report as text, for people.

use super::{Device, Port, Report};
use crate::stream::StreamStats;
use std::fmt::{self, Write as _};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { io, ports, seconds, running, .. } = self;
        let on = self.interface.as_deref().map(|name| format!(" on {name}")).unwrap_or_default();
        let state = if *running { "running" } else { "stopped" };
        writeln!(
            f,
            "volley {} (pid {}): UDP {ports}{on} over {io}, {state}, {seconds:.1} s",
            self.version, self.pid
        )?;
        if let Some(why) = &self.fallback {
            writeln!(f, "kernel sockets instead of AF_XDP: {why}")?;
        }
        for step in &self.demotions {
            let given_up = match step.ledger.abandoned {
                0 => String::new(),
                frames => format!(" ({frames} frames given up)"),
            };
            writeln!(f, "stepped down: {step}{given_up}")?;
        }
        if let Some(xdp) = &self.xdp {
            let kept = if xdp.pinned { ", pinned" } else { "" };
            writeln!(
                f,
                "xdp program {} ({}{kept}); rules: {}",
                xdp.program,
                xdp.mode,
                xdp.rules.join("; ")
            )?;
            list(f, "  verdicts", xdp.counters.iter().filter(|(_, n)| **n > 0))?;
        }
        if let Some(dpdk) = &self.dpdk {
            writeln!(f, "{}; rules: {}", dpdk.version, dpdk.rules.join("; "))?;
            for device in &dpdk.devices {
                let Device { name, driver, link, queues, offloads, .. } = device;
                let speed = device.mbps.map(|mbps| format!(" {mbps} Mbit/s")).unwrap_or_default();
                let rules = match (device.rules, &device.rules_refused) {
                    (0, None) => String::new(),
                    (0, Some(_)) => ", rules in the device: refused, the workers steer alone".into(),
                    (count, None) => format!(", rules in the device: {count} accepted"),
                    (count, Some(_)) => format!(", rules in the device: {count} accepted, others refused"),
                };
                let table = match device.indirection {
                    0 => String::new(),
                    entries => format!(", RSS table of {entries} set"),
                };
                writeln!(
                    f,
                    "  {name} ({driver}): link {link}{speed}, {queues} queues, offloads: {offloads}{table}{rules}"
                )?;
            }
            list(f, "  verdicts", dpdk.steered.iter().filter(|(_, n)| **n > 0))?;
            if let Some(missing) = dpdk.mbufs_missing.filter(|missing| *missing > 0) {
                writeln!(f, "  {missing} mbufs ARE MISSING")?;
            }
        }
        let mut table = tabled::builder::Builder::default();
        table.push_record([
            "worker", "core", "port", "state", "received", "answered", "sent", "consumed", "dropped",
            "wake-ups",
        ]);
        for worker in &self.workers {
            for (n, port) in worker.ports.iter().enumerate() {
                let first = |text: String| if n == 0 { text } else { String::new() };
                let datagrams = &port.counters.datagrams;
                table.push_record([
                    first(worker.worker.to_string()),
                    first(worker.core.map_or("any".into(), |core| core.to_string())),
                    port.name.name.clone(),
                    first(worker.state.into()),
                    datagrams.received.to_string(),
                    datagrams.answered.to_string(),
                    datagrams.sent.to_string(),
                    datagrams.consumed.to_string(),
                    datagrams.dropped_total().to_string(),
                    port.counters.port.wakeups.to_string(),
                ]);
            }
        }
        let mut table = table.build();
        table.with(tabled::settings::Style::blank());
        writeln!(f, "{table}")?;
        for worker in &self.workers {
            if let Some(panic) = &worker.panic {
                writeln!(f, "worker {} panicked ({} restarts): {panic}", worker.worker, worker.restarts)?;
            }
            for port in &worker.ports {
                let Port { name, counters } = port;
                let kernel = &counters.port;
                list(
                    f,
                    &format!("worker {} {} lost", worker.worker, name.name),
                    [
                        ("rx ring full", kernel.rx_ring_full),
                        ("rx dropped", kernel.rx_dropped),
                        ("fill ring empty", kernel.fill_ring_empty),
                        ("tx dropped", kernel.tx_dropped),
                        ("invalid descriptors", kernel.invalid_descriptors),
                    ]
                    .iter()
                    .filter(|(_, n)| *n > 0)
                    .map(|(name, n)| (name, n)),
                )?;
            }
        }
        let total = &self.total;
        if let Some(tcp) = &self.tcp {
            writeln!(f, "TCP {tcp}: {}", Streams(&total.streams))?;
        }
        let link = total.standalone.named();
        list(f, "link", link.iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name, n)))?;
        list(f, "drops", total.dropped_by_reason.iter())?;
        writeln!(
            f,
            "total: {} received ({} via the kernel), {} answered, {} sent, {} dropped",
            total.received, total.via_kernel, total.answered, total.sent, total.dropped
        )?;
        let balance = if total.ledger_balances { "balances" } else { "DOES NOT BALANCE" };
        write!(f, "ledger {balance}: {}", total.ledger)
    }
}

/// Stream counters in a line: the first few always, the others when they count something.
struct Streams<'a>(&'a StreamStats);

impl fmt::Display for Streams<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        write!(
            f,
            "{} open, {} accepted, {} connected, {} closed, {} bytes in, {} out",
            s.open, s.accepted, s.connected, s.closed, s.received_bytes, s.sent_bytes
        )?;
        let rest = [
            ("reset", s.reset),
            ("timed out", s.timed_out),
            ("slow readers", s.slow_readers),
            ("no memory", s.no_memory),
            ("stepped down", s.stepped_down),
            ("refused, slots full", s.refused_full),
            ("refused, no descriptor", s.refused_descriptors),
            ("segments in", s.segments_received),
            ("segments out", s.segments_sent),
            ("retransmitted", s.retransmitted),
            ("segments dropped", s.segments_dropped),
            ("bad checksum", s.bad_checksum),
            ("resets sent", s.resets_sent),
            ("SYNs", s.syns),
            ("cookies sent", s.cookies_sent),
            ("cookies accepted", s.cookies_accepted),
            ("challenge ACKs", s.challenge_acks),
            ("handed over", s.handed_over),
            ("taken over", s.taken_over),
            ("hand-over full", s.hand_over_full),
            ("unsent", s.unsent),
            ("bytes read in place", s.in_place_bytes),
            ("bytes copied", s.copied_bytes),
            ("bytes in the pool", s.pool_bytes),
        ];
        for (name, count) in rest.iter().filter(|(_, count)| *count > 0) {
            write!(f, ", {name} {count}")?;
        }
        Ok(())
    }
}

/// `title: a 1, b 2`, or nothing when there is nothing.
fn list<'a, K: fmt::Display + 'a>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    items: impl Iterator<Item = (K, &'a u64)>,
) -> fmt::Result {
    let mut line = String::new();
    for (name, count) in items {
        let comma = if line.is_empty() { "" } else { ", " };
        write!(line, "{comma}{name} {count}")?;
    }
    if line.is_empty() { Ok(()) } else { writeln!(f, "{title}: {line}") }
}
