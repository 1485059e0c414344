//! What a packet costs above the driver: the engine's own stopwatch, read from its report.

use super::contender::Contender;
use super::far_end;
use super::wire::{self, Wire};
use crate::setup::Setup;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Nanoseconds a packet, and packets a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Above {
    /// Time from the driver's receive call to the next one, less its transmit call, of bursts that brought something.
    pub ns_per_packet: f64,
    /// How many packets such a burst brought.
    pub packets_per_burst: f64,
}

/// Runs `contender`, one of ours, with the stopwatch on, against the circulating far end.
pub fn measure(contender: Contender, wire: Wire, seconds: usize, setup: &Setup) -> Result<Above> {
    let socket = wire::socket(wire);
    far_end::until_something_comes_back(|| {
        let mut running = contender.start_timed(wire, &socket, far_end::PORT, setup)?;
        let pps = far_end::circulate(wire, &socket, seconds, setup)?;
        running.must_run()?;
        let (_, report) = running.stop()?;
        let _ = std::fs::remove_file(&socket);
        let measured =
            || of(&report).context("the engine's report says nothing of its work above the driver");
        pps.map(|_| measured()).transpose()
    })
}

fn of(report: &Value) -> Result<Above> {
    let port = &report["workers"][0]["ports"][0]["port"];
    let count = |name: &str| port[name].as_u64().filter(|count| *count > 0).context(name.to_owned());
    let (ns, frames, bursts) = (count("work_ns")?, count("work_frames")?, count("work_bursts")?);
    ensure!(frames >= bursts, "{frames} frames in {bursts} bursts");
    Ok(Above { ns_per_packet: ns as f64 / frames as f64, packets_per_burst: frames as f64 / bursts as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_stopwatch_is_read_from_the_report() {
        let report = |ns: u64| json!({"workers": [{"ports": [{"port": {"work_ns": ns, "work_frames": 640, "work_bursts": 20}}]}]});
        assert_eq!(of(&report(9_600)).unwrap(), Above { ns_per_packet: 15.0, packets_per_burst: 32.0 });
        assert!(of(&report(0)).is_err());
        assert!(of(&json!({})).is_err());
    }
}
