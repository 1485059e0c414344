//! What sends to a contender from the other end of the wire.

use super::contender::EAL;
use super::wire::{NEAR_MAC, Wire};
use crate::generator::{Load, Measured, Mode};
use crate::server::Running;
use crate::setup::Setup;
use crate::testpmd::Testpmd;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The UDP port of the packets that testpmd makes (discard, as in its txonly.c).
pub const PORT: u16 = 9;

/// Seconds before a rate counts: the first packets meet cold caches, and the first second is not whole.
const WARM_UP: usize = 2;

/// How much longer than its seconds the far end may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a run in which nothing came back is made anew, both ends. testpmd sends its packets once, after nine seconds also over a link
/// that is not up yet, and they are gone then: on a machine whose cores others keep busy.
const TRIES: usize = 3;

/// What `run` gives, which is `None` when nothing came back: it is then tried again, and that is said.
pub fn until_something_comes_back<T>(run: impl Fn() -> Result<Option<T>>) -> Result<T> {
    for left in (0..TRIES).rev() {
        if let Some(measured) = run()? {
            return Ok(measured);
        }
        if left > 0 {
            println!("dpdk: nothing came back to testpmd, whose link was up too late; once more");
        }
    }
    bail!("nothing came back in {TRIES} tries")
}

/// Lets `dpdk-testpmd` circulate 512 packets of 64 bytes (frame check sequence included), turned around with macswap, with
/// whatever answers at the other end, and returns how many come back a second; `None` when none does.
pub fn circulate(wire: Wire, socket: &Path, seconds: usize, setup: &Setup) -> Result<Option<f64>> {
    let commands = setup.logs().join("far-end.commands");
    // Eight bursts of 64.
    fs::write(&commands, "start tx_first 8\n")?;
    let more = ["--stats-period=1".to_owned(), format!("--cmdline-file={}", commands.display())];
    let testpmd = Testpmd {
        core: setup.generator_core,
        drivers: wire.drivers(),
        vdev: wire.far(socket),
        eal: EAL,
        forward: "macswap",
        mbufs: 8192,
        more: more.into(),
    };
    let mut far = Running::testpmd(&testpmd, setup.logs().join("far-end.log"), None, setup)?;
    let until = Instant::now() + Duration::from_secs((WARM_UP + seconds) as u64) + PATIENCE;
    let rates = loop {
        let rates = rates(&far.output());
        if rates.len() >= WARM_UP + seconds {
            break rates;
        }
        far.must_run()?;
        ensure!(Instant::now() < until, "the far end printed {} rates, too few", rates.len());
        setup.interrupt.sleep(Duration::from_millis(50))?;
    };
    far.stop()?;
    let measured = &rates[WARM_UP..];
    let mean = measured.iter().sum::<f64>() / measured.len() as f64;
    Ok((mean > 0.0).then_some(mean))
}

/// The rates in what testpmd prints each second.
fn rates(output: &str) -> Vec<f64> {
    let after = |line: &str| line.split_once("Rx-pps:")?.1.split_whitespace().next()?.parse().ok();
    output.lines().filter_map(after).collect()
}

/// Sends `load` with our own generator, which checks every byte.
pub fn generate(load: Load, wire: Wire, socket: &Path, setup: &Setup) -> Result<Measured> {
    ensure!(load.mode == Mode::Dpdk, "only a generator over DPDK reaches the wire");
    let source = if load.target.is_ipv4() { "10.77.0.2" } else { "fd77::2" };
    let mut words = vec!["--vdev".to_owned(), wire.far(socket), "--mac".into(), NEAR_MAC.into()];
    words.extend(["--source".into(), source.into(), "--eal=--single-file-segments".into()]);
    load.start_with(&words, setup, None)?.finish(setup).context("the generator over DPDK")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_run_in_which_nothing_came_back_is_made_anew_and_not_for_ever() {
        let runs = Cell::new(0);
        let run = |good: usize| {
            runs.set(runs.get() + 1);
            Ok((runs.get() >= good).then_some(7.0))
        };
        assert_eq!(until_something_comes_back(|| run(3)).unwrap(), 7.0);
        runs.set(0);
        assert!(until_something_comes_back(|| run(9)).unwrap_err().to_string().contains("3 tries"));
        assert_eq!(runs.get(), 3);
        runs.set(0);
        let failing = || -> Result<Option<f64>> {
            runs.set(runs.get() + 1);
            bail!("no testpmd")
        };
        assert!(until_something_comes_back(failing).is_err() && runs.get() == 1, "an error is one at once");
    }

    #[test]
    fn rates_are_read_from_what_testpmd_prints() {
        let text = "  Rx-pps:            0          Rx-bps:            0\n  Tx-pps: 7\n  Rx-pps:     18154394   Rx-bps: 1\n";
        assert_eq!(super::rates(text), [0.0, 18_154_394.0]);
    }
}
