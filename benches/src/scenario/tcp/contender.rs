//! The server under test: one worker on the engine's core, its TCP our own or the kernel's.

use crate::dpdk::contender::MEGABYTES;
use crate::dpdk::wire::Wire;
use crate::lab::Lab;
use crate::server::Running;
use crate::setup::Setup;
use anyhow::{Result, ensure};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// What EAL may take until a device is there.
const START: Duration = Duration::from_secs(15);

/// Whose TCP the server's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// `volley run --io af-xdp --tcp-io own`
    Own,
    /// `volley run --io epoll --tcp-io epoll`
    Kernel,
}

impl Contender {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Contender::Own => "own",
            Contender::Kernel => "kernel",
        }
    }

    /// Starts it with a TCP app at the lab's engine end and waits until it serves.
    pub fn start(self, app: &str, setup: &Setup, lab: &Lab) -> Result<Running> {
        let port = setup.port.to_string();
        let core = setup.engine_core.to_string();
        let mut words: Vec<&str> = vec!["run"];
        match self {
            Contender::Own => words.extend([
                lab.engine().interface.as_str(),
                "--io",
                "af-xdp",
                "--require",
                "xdp",
                "--tcp-io",
                "own",
            ]),
            Contender::Kernel => words.extend(["--io", "epoll", "--tcp-io", "epoll"]),
        }
        words.extend(["--app", "echo", "--workers", "1", "--idle", "spin", "--cores", &core]);
        words.extend(["--port", &port, "--tcp-port", &port, "--tcp-app", app]);
        let log = setup.logs().join(format!("tcp-{}.log", self.as_str()));
        let words = words.into_iter().map(str::to_owned).collect();
        Running::volley(words, log, Some(&lab.engine().netns), setup)
    }
}

/// Our own TCP over one end of a memif, and waits until the other end can come.
pub fn over_memif(app: &str, socket: &Path, setup: &Setup) -> Result<Running> {
    let (port, core) = (setup.port.to_string(), setup.engine_core.to_string());
    let (device, memory) = (Wire::Memif.near(socket), MEGABYTES.to_string());
    let words = [
        "run",
        "--io",
        "dpdk",
        "--vdev",
        &device,
        "--eal=--single-file-segments",
        "--memory",
        &memory,
        "--app",
        "echo",
        "--workers",
        "1",
        "--idle",
        "spin",
        "--cores",
        &core,
        "--port",
        &port,
        "--tcp-port",
        &port,
        "--tcp-app",
        app,
    ];
    let words = words.into_iter().map(str::to_owned).collect();
    let mut running = Running::spawn_volley(words, setup.logs().join("tcp-memif.log"), None, setup)?;
    let until = Instant::now() + START;
    while !socket.exists() {
        running.must_run()?;
        ensure!(Instant::now() < until, "no {} after {START:?}", socket.display());
        setup.interrupt.sleep(Duration::from_millis(20))?;
    }
    Ok(running)
}
