//! Ping-pong by sockperf: an independent client's word on round trips.

use crate::lab::Lab;
use crate::process::Job;
use crate::setup::Setup;
use anyhow::{Context, Result};
use std::process::Command;
use std::time::Duration;

/// The program.
const PROGRAM: &str = "sockperf";
/// What it may take beyond its seconds.
const OVERTIME: Duration = Duration::from_secs(20);

/// Why it cannot be run here.
pub fn missing() -> Option<String> {
    let runs = Command::new(PROGRAM).arg("--version").output().is_ok();
    (!runs).then(|| "sockperf is not installed: hw-setup/deps bench".to_owned())
}

/// The median round trip of 64-byte messages over TCP, in µs.
pub fn median(seconds: f64, setup: &Setup, lab: &Lab) -> Result<f64> {
    let (address, port) = (lab.engine().ipv4.to_string(), setup.port.to_string());
    // It takes whole seconds.
    let time = (seconds.ceil() as u64).max(1);
    let said = Job::new(PROGRAM, setup.logs().join("sockperf.log"))
        .core(setup.generator_core)
        .namespace(Some(&lab.peer().netns))
        .args(["ping-pong", "--tcp", "-i", &address, "-p", &port, "-t", &time.to_string()])
        .args(["-m", "64", "--full-rtt"])
        .run(Duration::from_secs(time) + OVERTIME, &setup.interrupt)?
        .output();
    percentile(&said, "50.000").with_context(|| format!("sockperf said {said:?}"))
}

fn percentile(said: &str, which: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.contains(&format!("percentile {which} =")))?;
    line.rsplit('=').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn percentiles_are_read_from_what_it_prints() {
        let said =
            "sockperf: ---> percentile 99.000 =  128.470\nsockperf: ---> percentile 50.000 =   43.564\n";
        assert_eq!(super::percentile(said, "50.000"), Some(43.564));
        assert_eq!(super::percentile(said, "90.000"), None);
    }
}
