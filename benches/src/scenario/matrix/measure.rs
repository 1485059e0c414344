//! The single measurements: one server, on its core, under one load.

use super::row::{COLLAPSE, Point, Row, Sample};
use super::watch::{self, Cost, Look};
use super::{FLOWS, LOADS, SIZES, Sweep};
use crate::generator::{Load, Measured, Mode, Rate, SMALL};
use crate::lab::Lab;
use crate::server::{Running, Server};
use crate::setup::Setup;
use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;

/// The load before the first look, beyond the generator's own warm-up: it starts, resolves, loads its program.
const SETTLE: Duration = Duration::from_millis(700);
/// Part of the measured time between the two looks: neither the beginning nor the end of the load is in the figures.
const WATCHED: f64 = 0.8;
/// How long the kernel counts the system calls of a server that does not do so itself.
const COUNTED: Duration = Duration::from_millis(200);
/// Times that a load is offered before it counts as too much: a shared machine stops one end or the other for longer than its rings
/// last, now and then.
const TRIES: usize = 3;
/// A generator that sends less than this part of what it was asked for has reached its own end.
const SENT: f64 = 0.98;

/// Where and on what it measures.
pub struct Bench<'a> {
    /// The run.
    pub setup: &'a Setup,
    /// The wire.
    pub lab: &'a Lab,
    /// The server's address.
    pub target: SocketAddr,
}

impl Bench<'_> {
    fn load(&self, mode: Mode, rate: Rate, seconds: f64, flows: u32, size: u32) -> Load {
        Load { mode, target: self.target, rate, time: Duration::from_secs_f64(seconds), flows, size }
    }

    /// Runs `work` against a fresh server, which must still run at its end.
    fn with<T>(&self, server: Server, work: impl FnOnce(&mut Running) -> Result<T>) -> Result<T> {
        let mut running = server.start(self.setup, Some(self.lab))?;
        let result = work(&mut running)?;
        running.must_run()?;
        running.stop()?;
        Ok(result)
    }

    fn send(&self, load: &Load) -> Result<Measured> {
        let measured = load.run(self.setup, Some(self.lab))?;
        ensure!(measured.received > 0, "it answered nothing");
        // A row that answers with other bytes is no row.
        ensure!(measured.corrupted == 0, "{} of its answers were corrupted", measured.corrupted);
        Ok(measured)
    }

    /// A quick look at its saturation, in packets a second.
    pub fn probe(&self, server: Server) -> Result<f64> {
        let load = self.load(Mode::Blast, Rate::Max, 0.5, 1, SMALL);
        self.with(server, |_| Ok(self.send(&load)?.received_pps))
    }

    /// One round of a row: saturation, then the common rate, on the same server.
    pub fn sample(&self, server: Server, seconds: f64, common_rate: f64) -> Result<Sample> {
        self.with(server, |running| {
            let (saturated, cost) = self.saturate(running, seconds)?;
            let load = self.load(Mode::AfXdp, Rate::Fixed(common_rate), seconds, 64, SMALL);
            Ok(Sample {
                mpps: saturated.received_pps / 1e6,
                loss: 1.0 - saturated.received_pps / saturated.sent_pps,
                cost,
                latency: self.send(&load)?,
            })
        })
    }

    /// Saturation, with two looks at the server.
    fn saturate(&self, running: &Running, seconds: f64) -> Result<(Measured, Cost)> {
        let load = self.load(Mode::Blast, Rate::Max, seconds + SETTLE.as_secs_f64(), 1, SMALL);
        let sending = load.start(self.setup, Some(self.lab))?;
        self.setup.interrupt.sleep(SETTLE)?;
        let before = Look::at(running, self.setup)?;
        self.setup.interrupt.sleep(Duration::from_secs_f64(seconds * WATCHED))?;
        let after = Look::at(running, self.setup)?;
        let calls = match before.tells() {
            true => None,
            false => watch::calls_per_second(running.pid(), COUNTED, self.setup)?,
        };
        let measured = sending.finish(self.setup)?;
        ensure!(measured.received > 0, "it answered nothing");
        let mut cost = before.cost(&after, measured.received_pps);
        cost.calls = cost.calls.or(calls.map(|calls| calls / measured.received_pps));
        Ok((measured, cost))
    }

    /// One sweep of a row, in place of what was there.
    pub fn sweep(&self, server: Server, sweep: Sweep, row: &mut Row, seconds: f64) -> Result<()> {
        self.with(server, |_| {
            match sweep {
                Sweep::Sizes => row.sizes = self.sizes(seconds)?,
                Sweep::Flows => row.flows = self.flows(seconds)?,
                Sweep::Loads => row.loads = self.loads(seconds)?,
            }
            Ok(())
        })
    }

    fn blast(&self, seconds: f64, flows: u32, size: u32) -> Result<f64> {
        Ok(self.send(&self.load(Mode::Blast, Rate::Max, seconds, flows, size))?.received_pps / 1e6)
    }

    fn sizes(&self, seconds: f64) -> Result<Vec<(f64, f64)>> {
        SIZES.iter().map(|&size| Ok((f64::from(size), self.blast(seconds, 1, size)?))).collect()
    }

    fn flows(&self, seconds: f64) -> Result<Vec<(f64, f64)>> {
        FLOWS.iter().map(|&flows| Ok((f64::from(flows), self.blast(seconds, flows, SMALL)?))).collect()
    }

    fn loads(&self, seconds: f64) -> Result<Vec<Point>> {
        let mut points = Vec::new();
        for pps in LOADS {
            let Some(point) = self.offered(pps, seconds)? else { break };
            points.push(point);
            if point.lost > COLLAPSE {
                break;
            }
        }
        Ok(points)
    }

    /// What becomes of an offered load, at the best of the tries; `None` when the generator cannot send as much.
    fn offered(&self, pps: f64, seconds: f64) -> Result<Option<Point>> {
        let load = self.load(Mode::AfXdp, Rate::Fixed(pps), seconds, 64, SMALL);
        let mut best: Option<Point> = None;
        for _ in 0..TRIES {
            let measured = self.send(&load)?;
            if measured.sent_pps < pps * SENT {
                continue;
            }
            let on_time = Some(measured.latency_on_time.p99_ns).filter(|ns| *ns > 0);
            let point = Point {
                pps,
                p50_ns: measured.latency.p50_ns as f64,
                p99_ns: measured.latency.p99_ns as f64,
                p99_on_time_ns: on_time.map(|ns| ns as f64),
                lost: measured.lost as f64 / measured.sent.max(1) as f64,
            };
            if best.is_none_or(|best| point.lost < best.lost) {
                best = Some(point);
            }
            if point.lost <= COLLAPSE {
                break;
            }
        }
        Ok(best)
    }
}
