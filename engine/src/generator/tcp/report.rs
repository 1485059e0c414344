//! What a run measured, as a table for people and as JSON for programs.

use super::super::latency::Summary;
use super::super::report::{grouped, right, time};
use super::Load;
use super::tally::Counts;
use crate::stream::StreamStats;
use serde::Serialize;
use std::fmt;
use tabled::builder::Builder;

/// What a run measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// How long was measured, in ns.
    pub duration_ns: u64,
    /// The counts of that time; what was opened, failed or corrupted, of the whole run.
    #[serde(flatten)]
    pub counts: Counts,
    /// Messages (or connects) without an answer at the end.
    pub unanswered: u64,
    /// Whole messages back, a second.
    pub messages_per_second: f64,
    /// Connections closed in good order, a second.
    pub connections_per_second: f64,
    /// Payload sent, in Gbit/s.
    pub sent_gbit: f64,
    /// Payload received, in Gbit/s.
    pub received_gbit: f64,
    /// From the sending of a message (or the begin of a connect) to the last byte of its echo.
    pub latency: Summary,
    /// Segments that our own stack sent again.
    pub retransmitted: u64,
    /// Segments that our own stack received and sent.
    pub segments: (u64, u64),
}

impl Outcome {
    pub(super) fn new(
        counts: Counts,
        late: Counts,
        unanswered: u64,
        latency: Summary,
        duration_ns: u64,
        (before, after): (StreamStats, StreamStats),
    ) -> Outcome {
        let Counts { opened, failed, reset, timed_out, corrupted, .. } = late;
        let seconds = (duration_ns as f64 / 1e9).max(1e-9);
        let gbit = |bytes: u64| bytes as f64 * 8e-9 / seconds;
        Outcome {
            duration_ns,
            counts: Counts { opened, failed, reset, timed_out, corrupted, ..counts },
            unanswered,
            messages_per_second: counts.messages as f64 / seconds,
            connections_per_second: counts.closed as f64 / seconds,
            sent_gbit: gbit(counts.bytes_sent),
            received_gbit: gbit(counts.bytes_received),
            latency,
            retransmitted: after.retransmitted - before.retransmitted,
            segments: (
                after.segments_received - before.segments_received,
                after.segments_sent - before.segments_sent,
            ),
        }
    }
}

/// The result of one run. The JSON has these names; they are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `socket`, `af_xdp` or `dpdk`: whose TCP the client's is.
    pub mode: &'static str,
    /// `echo`, `connect`, `send` or `receive`.
    pub exchange: &'static str,
    /// The server.
    pub target: String,
    /// Connections at once.
    pub connections: u32,
    /// Addresses connected from.
    pub sources: usize,
    /// Bytes of a message.
    pub message_bytes: usize,
    /// Messages of a connection on their way at once.
    pub window: u32,
    /// What was measured.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

impl Report {
    /// Of a run of `load`.
    pub fn new(mode: &'static str, load: &Load, outcome: Outcome) -> Report {
        Report {
            mode,
            exchange: load.exchange.as_str(),
            target: load.target.to_string(),
            connections: load.connections,
            sources: load.sources.len().max(1),
            message_bytes: load.size,
            window: load.window,
            outcome,
            notes: Vec::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = &self.outcome;
        let counts = &outcome.counts;
        writeln!(
            f,
            "tcp {} over {} to {}: {} connections from {} addresses, messages of {} bytes, {} at once, {:.2} s",
            self.exchange,
            self.mode,
            self.target,
            grouped(self.connections.into()),
            self.sources,
            self.message_bytes,
            self.window,
            outcome.duration_ns as f64 / 1e9
        )?;
        let mut table = Builder::default();
        table.push_record(["", "number", "a second"]);
        let rate = |rate: f64| grouped(rate.round() as u64);
        table.push_record([
            "messages there and back".into(),
            grouped(counts.messages),
            rate(outcome.messages_per_second),
        ]);
        table.push_record([
            "connections closed".into(),
            grouped(counts.closed),
            rate(outcome.connections_per_second),
        ]);
        let gbit = |gbit: f64| format!("{gbit:.3} Gbit");
        table.push_record(["bytes sent".into(), grouped(counts.bytes_sent), gbit(outcome.sent_gbit)]);
        table.push_record([
            "bytes received".into(),
            grouped(counts.bytes_received),
            gbit(outcome.received_gbit),
        ]);
        for (name, count) in [
            ("connections opened", counts.opened),
            ("failed", counts.failed),
            ("unanswered", outcome.unanswered),
            ("corrupted", counts.corrupted),
            ("segments sent again", outcome.retransmitted),
        ] {
            table.push_record([name.to_string(), grouped(count), String::new()]);
        }
        write!(f, "{}", right(table))?;
        if outcome.latency.count > 0 {
            let mut table = Builder::default();
            table.push_record(["", "p50", "p90", "p99", "p99.9", "max"]);
            let Summary { p50_ns, p90_ns, p99_ns, p999_ns, max_ns, .. } = outcome.latency;
            let times = [p50_ns, p90_ns, p99_ns, p999_ns, max_ns].map(time);
            table.push_record(std::iter::once("round trip".to_string()).chain(times));
            write!(f, "\n{}", right(table))?;
        }
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}
