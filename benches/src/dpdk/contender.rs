//! An echo server at the near end of a wire.

use super::wire::Wire;
use crate::server::Running;
use crate::setup::Setup;
use crate::testpmd::Testpmd;
use anyhow::{Result, ensure};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// MiB of packet memory of a process whose memory is taken at its start. Over [`EAL`], nobody's is: it would refuse to start when a page
/// of that is another process's, even if the kernel could make one.
pub const MEGABYTES: u32 = 256;

/// Memory without files, in segments of one descriptor each: virtio-user hands at most eight of them to its peer.
pub const EAL: &[&str] = &["--in-memory", "--single-file-segments"];

/// What it may take until it listens: EAL takes a second or two, on a busy machine longer.
const START: Duration = Duration::from_secs(15);

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// `volley run --io dpdk`: every checksum verified in software.
    Volley,
    /// The same, with the port vouching for checksums.
    Trusting,
    /// `dpdk-testpmd` 5tswap: swaps MACs, addresses and ports, and verifies nothing.
    Swap5,
    /// `dpdk-testpmd` io: sends back what it got, unseen. As fast as the far end can be met.
    Unseen,
}

impl Contender {
    /// Every one, ours first.
    pub const ALL: [Contender; 4] =
        [Contender::Volley, Contender::Trusting, Contender::Swap5, Contender::Unseen];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Contender::Volley => "volley",
            Contender::Trusting => "volley trusting",
            Contender::Swap5 => "testpmd 5tswap",
            Contender::Unseen => "testpmd io",
        }
    }

    /// Starts it on the engine's core, serving UDP port `port`, and waits until it listens. It may not answer yet: virtio-user
    /// waits for its peer before there is a device.
    pub fn start(self, wire: Wire, socket: &Path, port: u16, setup: &Setup) -> Result<Running> {
        self.start_with(wire, socket, port, &[], setup)
    }

    /// As [`Contender::start`], of ours, with a stopwatch for the work above the driver.
    pub fn start_timed(self, wire: Wire, socket: &Path, port: u16, setup: &Setup) -> Result<Running> {
        self.start_with(wire, socket, port, &["--time-work"], setup)
    }

    fn start_with(
        self,
        wire: Wire,
        socket: &Path,
        port: u16,
        more: &[&str],
        setup: &Setup,
    ) -> Result<Running> {
        let _ = fs::remove_file(socket);
        let mut running = self.spawn(wire, socket, port, more, setup)?;
        let until = Instant::now() + START;
        while !socket.exists() {
            running.must_run()?;
            ensure!(Instant::now() < until, "{}: no {} after {START:?}", self.as_str(), socket.display());
            setup.interrupt.sleep(Duration::from_millis(20))?;
        }
        Ok(running)
    }

    /// `more` is for ours.
    fn spawn(self, wire: Wire, socket: &Path, port: u16, more: &[&str], setup: &Setup) -> Result<Running> {
        let (core, device) = (setup.engine_core, wire.near(socket));
        let log = setup.logs().join(format!("{}-{}.log", wire.as_str(), self.as_str().replace(' ', "-")));
        let forward = match self {
            Contender::Volley | Contender::Trusting => return self.volley(device, port, log, more, setup),
            Contender::Swap5 => "5tswap",
            Contender::Unseen => "io",
        };
        let more: &[&str] = match wire {
            // Testpmd has died at times, most likely of its driver (22.11), polled while the peer connects. So it waits for the link
            // before it polls, for nine seconds at most.
            Wire::Memif => &["--auto-start"],
            // The device itself waits for its peer.
            Wire::Vhost => &["--auto-start", "--disable-link-check"],
        };
        let testpmd = Testpmd {
            core,
            drivers: wire.drivers(),
            vdev: device,
            eal: EAL,
            forward,
            mbufs: 8192,
            more: more.iter().map(|&word| word.to_owned()).collect(),
        };
        Running::spawn_testpmd(&testpmd, log, None)
    }

    fn volley(
        self,
        device: String,
        port: u16,
        log: PathBuf,
        more: &[&str],
        setup: &Setup,
    ) -> Result<Running> {
        let mut words: Vec<String> =
            ["run", "--io", "dpdk", "--app", "echo", "--workers", "1", "--idle", "spin", "--vdev"]
                .map(String::from)
                .into();
        words.extend([device, format!("--port={port}"), format!("--cores={}", setup.engine_core)]);
        words.push("--eal=--single-file-segments".into());
        if self == Contender::Trusting {
            words.push("--trust-checksums".into());
        }
        words.extend(more.iter().map(|&word| word.to_owned()));
        Running::spawn_volley(words, log, None, setup)
    }
}
