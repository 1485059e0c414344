//! What the demo found: one page for people, the same as JSON for programs.

use super::{bystander, family, tcp};
use crate::generator::Measured;
use crate::lab::Lab;
use crate::server::Server;
use crate::setup::{Machine, Setup};
use crate::table::{rate, right, time};
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::net::IpAddr;
use std::process::ExitStatus;
use tabled::builder::Builder;

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    /// What carried the packets.
    server: Server,
    /// The interface at the engine's end.
    interface: String,
    engine_core: usize,
    generator_core: usize,
    /// Why AF_XDP was not used.
    missing: Option<String>,
    /// As many packets as the generator can send.
    pub flat_out: Vec<FlatOut>,
    /// At half of what a checking generator gets back flat out.
    pub fixed: Vec<Fixed>,
    /// TCP on the same port.
    pub tcp: Vec<tcp::Outcome>,
    /// What is none of the engine's business.
    pub bystanders: Vec<bystander::Outcome>,
    /// The engine's load meanwhile.
    pub meanwhile: Measured,
    /// The engine's own report.
    engine: Value,
    /// What was not as it must be; empty is success.
    pub failures: Vec<String>,
}

/// One run flat out.
#[derive(Debug, Serialize)]
pub struct FlatOut {
    server: Server,
    address: IpAddr,
    sent_pps: f64,
    answered_pps: f64,
}

impl FlatOut {
    /// Of what the generator measured.
    pub fn new(server: Server, address: IpAddr, measured: &Measured) -> FlatOut {
        FlatOut { server, address, sent_pps: measured.sent_pps, answered_pps: measured.received_pps }
    }
}

/// One run at a fixed rate.
#[derive(Debug, Serialize)]
pub struct Fixed {
    /// Where to.
    pub address: IpAddr,
    /// Flat out, every answer checked: it set the rate.
    pub verified: Measured,
    /// What was measured at half of that.
    pub measured: Measured,
}

impl Report {
    /// An empty one.
    pub fn new(
        server: Server,
        lab: Option<&Lab>,
        setup: &Setup,
        machine: Machine,
        missing: Option<String>,
    ) -> Report {
        Report {
            machine,
            server,
            interface: lab.map_or("lo", |lab| &lab.engine().interface).to_owned(),
            engine_core: setup.engine_core,
            generator_core: setup.generator_core,
            missing,
            flat_out: Vec::new(),
            fixed: Vec::new(),
            tcp: Vec::new(),
            bystanders: Vec::new(),
            meanwhile: Measured::default(),
            engine: Value::Null,
            failures: Vec::new(),
        }
    }

    /// Notes how the engine ended.
    pub fn engine_ended(&mut self, status: ExitStatus, report: Value) {
        if !status.success() {
            self.failures.push(format!("the engine ended with {status}"));
        }
        if report["total"]["ledger_balances"] != Value::Bool(true) {
            self.failures.push("the engine cannot account for all of its frames".into());
        }
        self.engine = report;
    }

    /// Finds what was not as it must be. Loss is shown, and no failure: this machine may be busy with other things.
    pub fn judge(&mut self) {
        for FlatOut { server, address, answered_pps, .. } in &self.flat_out {
            if *answered_pps <= 0.0 {
                self.failures.push(format!("{} answered nothing to {address}", server.as_str()));
            }
        }
        let runs =
            self.fixed.iter().flat_map(|fixed| [&fixed.verified, &fixed.measured]).chain([&self.meanwhile]);
        let corrupted: u64 = runs.map(|run| run.corrupted).sum();
        if corrupted > 0 {
            self.failures.push(format!("{corrupted} answers were corrupted"));
        }
        for bystander::Outcome { what, asked, answered } in &self.bystanders {
            if answered < asked {
                self.failures.push(format!("{what}: {answered} of {asked} answered"));
            }
        }
    }

    /// How many times more than kernel sockets.
    fn gain(&self) -> Option<f64> {
        let of = |server| self.flat_out.iter().find(|run| run.server == server && run.address.is_ipv4());
        Some(of(Server::AfXdp)?.answered_pps / of(Server::Mmsg)?.answered_pps)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { machine, interface, engine_core, generator_core, engine, .. } = self;
        let way = self.server.in_words();
        writeln!(f, "Volley on {machine}")?;
        writeln!(
            f,
            "Engine on core {engine_core}, interface {interface}, over {way}; generator on core {generator_core}."
        )?;
        if let Some(missing) = &self.missing {
            writeln!(f, "Not over AF_XDP: {missing}.")?;
        }

        writeln!(f, "\nFlat out, smallest frames")?;
        let mut table = Builder::default();
        table.push_record(["", "sent", "answered"]);
        for FlatOut { server, address, sent_pps, answered_pps } in &self.flat_out {
            let name = format!("{}, {}", server.in_words(), family(*address));
            table.push_record([name, rate(*sent_pps), rate(*answered_pps)]);
        }
        writeln!(f, "{}", right(table))?;
        if let Some(gain) = self.gain() {
            writeln!(f, "AF_XDP answers {gain:.1} times as many as kernel sockets.")?;
        }

        writeln!(f, "\nHalf of what can be verified flat out, every byte checked: round trip")?;
        let mut table = Builder::default();
        table.push_record([
            "",
            "rate",
            "p50",
            "p99",
            "p99.9",
            "max",
            "sent",
            "lost",
            "corrupted",
            "generator late",
        ]);
        for Fixed { address, measured, .. } in &self.fixed {
            let Measured { latency, lateness, sent, lost, corrupted, .. } = measured;
            let mut record = vec![family(*address).to_owned(), rate(measured.rate_pps.unwrap_or_default())];
            record.extend([latency.p50_ns, latency.p99_ns, latency.p999_ns, latency.max_ns].map(time));
            record.extend([sent, lost, corrupted].map(u64::to_string));
            // Its share of the round trip: it counts from the intended send time.
            record.push(format!("p99 {}", time(lateness.p99_ns)));
            table.push_record(record);
        }
        writeln!(f, "{}", right(table))?;

        let whose = if self.server == Server::AfXdp { "our own TCP" } else { "the kernel's TCP" };
        writeln!(f, "\nTCP echo on the same port, over {whose}; the kernel's as the client")?;
        for outcome in &self.tcp {
            writeln!(f, "  {outcome}")?;
        }

        writeln!(f, "\nMeanwhile, through the same interface, under {}", rate(self.meanwhile.sent_pps))?;
        for bystander::Outcome { what, asked, answered } in &self.bystanders {
            writeln!(f, "  {what}: {answered} of {asked} answered")?;
        }

        let total = &engine["total"];
        let balances = total["ledger_balances"] == Value::Bool(true);
        writeln!(
            f,
            "\nThe engine received {} packets and answered {}; frames: {}.",
            total["received"],
            total["answered"],
            if balances { "all accounted for" } else { "NOT all accounted for" }
        )?;
        match self.failures.as_slice() {
            [] => write!(f, "Everything that was made has been removed. All is well."),
            failures => write!(f, "FAILED: {}", failures.join("; ")),
        }
    }
}
