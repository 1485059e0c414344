//! What is measured: our engine in its three ways, and its peers. One at a time, on the engine's core.

use crate::lab::Lab;
use crate::process::{Child, Job};
use crate::setup::Setup;
use anyhow::{Result, bail};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// What a server may take until it answers: attaching XDP can retry a busy queue for seconds.
const START: Duration = Duration::from_secs(15);

/// An echo server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// `volley run --io af-xdp`
    AfXdp,
    /// `dpdk-testpmd`, net_af_xdp, 5tswap, bursts of 64
    Testpmd,
    /// `volley run --io mmsg`: recvmmsg and sendmmsg
    Mmsg,
    /// `volley run --io epoll`: recvfrom and sendto
    Epoll,
}

impl Server {
    /// Every one, ours first.
    pub const ALL: [Server; 4] = [Server::AfXdp, Server::Testpmd, Server::Mmsg, Server::Epoll];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Server::AfXdp => "af-xdp",
            Server::Testpmd => "testpmd",
            Server::Mmsg => "mmsg",
            Server::Epoll => "epoll",
        }
    }

    /// What it is, for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Server::AfXdp => "AF_XDP",
            Server::Testpmd => "dpdk-testpmd net_af_xdp",
            Server::Mmsg => "kernel sockets (recvmmsg, sendmmsg)",
            Server::Epoll => "kernel sockets (recvfrom, sendto)",
        }
    }

    /// Why it cannot be measured here, and what to do about it.
    pub fn missing(self) -> Option<String> {
        let needed = ["net_af_xdp", "mempool_ring"];
        match self {
            Server::Testpmd
                if !on_path("dpdk-testpmd") || needed.iter().any(|name| driver(name).is_none()) =>
            {
                Some("dpdk-testpmd or its net_af_xdp driver is not installed: hw-setup/deps bench".into())
            }
            _ => None,
        }
    }

    /// Starts it at the lab's engine end, or over loopback without a lab, and waits until it serves.
    pub fn start(self, setup: &Setup, lab: Option<&Lab>) -> Result<Running> {
        let log = setup.logs().join(format!("{}.log", self.as_str()));
        let report = setup.logs().join("engine.json");
        let (program, arguments) = match (self, lab) {
            (Server::Testpmd, None) => bail!("testpmd needs a lab"),
            (Server::Testpmd, Some(lab)) => {
                ("stdbuf".into(), testpmd(setup.engine_core, &lab.engine().interface))
            }
            (_, lab) => (setup.volley.clone(), self.volley(setup, lab, &report)),
        };
        let _ = fs::remove_file(&report);
        let job = Job::new(program, log).args(arguments).core(setup.engine_core);
        let child = job.namespace(lab.map(|lab| lab.engine().netns.as_str())).start()?;
        let leftover = (self == Server::Testpmd).then(|| Path::new("/var/run/dpdk").join(prefix()));
        let mut running = Running { child, report, leftover };
        running.wait(self.ready(), setup)?;
        Ok(running)
    }

    /// What it prints once it serves.
    fn ready(self) -> &'static str {
        match self {
            Server::Testpmd => "Press enter to exit",
            _ => "volley: ready",
        }
    }

    fn volley(self, setup: &Setup, lab: Option<&Lab>, report: &Path) -> Vec<String> {
        let mut words: Vec<String> =
            ["run", "--app", "echo", "--workers", "1", "--idle", "spin"].map(String::from).into();
        words.extend([
            "--port".into(),
            setup.port.to_string(),
            "--cores".into(),
            setup.engine_core.to_string(),
        ]);
        words.extend([
            "--io".into(),
            self.as_str().into(),
            "--report".into(),
            report.display().to_string(),
        ]);
        if self == Server::AfXdp {
            words.extend(["--require".into(), "xdp".into()]);
        }
        // Over kernel sockets too: the engine then serves the same addresses in every row.
        if let (Server::AfXdp, Some(lab)) = (self, lab) {
            words.push(lab.engine().interface.clone());
        }
        words
    }
}

/// The peer's command line: one queue, bursts of 64, main and forwarding lcore both on the engine's core.
fn testpmd(core: usize, interface: &str) -> Vec<String> {
    // Into a file it would write its lines only when it ends, and we wait for one of them.
    let mut words: Vec<String> = ["-oL", "dpdk-testpmd", "--lcores"].map(String::from).into();
    words.push(format!("0@{core},1@{core}"));
    // Plain pages: the copy into the UMEM is the kernel's, through its own mapping, so that huge pages change nothing.
    words.extend(["--no-pci", "--no-telemetry", "--no-huge", "-m", "512"].map(String::from));
    words.extend(["--file-prefix".into(), prefix()]);
    for driver in ["mempool_ring", "net_af_xdp"].iter().filter_map(|name| driver(name)) {
        words.extend(["-d".into(), driver.display().to_string()]);
    }
    words.extend([
        "--vdev".into(),
        format!("net_af_xdp0,iface={interface},start_queue=0,queue_count=1"),
        "--".into(),
    ]);
    words.extend(
        ["--forward-mode=5tswap", "--burst=64", "--nb-cores=1", "--rxq=1", "--txq=1"].map(String::from),
    );
    words.extend(["--total-num-mbufs=32768", "--no-mlockall", "--auto-start"].map(String::from));
    words
}

/// DPDK's name for this run: the directory of its sockets, which it leaves behind.
fn prefix() -> String {
    format!("volley-bench-{}", std::process::id())
}

/// A DPDK driver of Debian's packages: the plug-in must be of the same build as the linked libraries.
fn driver(name: &str) -> Option<PathBuf> {
    let multiarch =
        fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("dpdk/pmds-23.0"));
    multiarch.map(|directory| directory.join(format!("librte_{name}.so"))).find(|path| path.is_file())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// A server that serves; ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    report: PathBuf,
    leftover: Option<PathBuf>,
}

impl Running {
    fn wait(&mut self, ready: &str, setup: &Setup) -> Result<()> {
        let until = Instant::now() + START;
        while !self.child.output().contains(ready) {
            self.child.must_run()?;
            if Instant::now() > until {
                bail!("not ready within {} s: {}", START.as_secs(), self.child.last_words());
            }
            setup.interrupt.sleep(Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// An error when it has ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        self.child.must_run()
    }

    /// Asks it to end, waits, and returns how it ended and what it reported (null for a peer).
    pub fn stop(mut self) -> Result<(ExitStatus, serde_json::Value)> {
        let status = self.child.stop()?;
        let report = fs::read(&self.report).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Ok((status, report.unwrap_or_default()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(directory) = &self.leftover {
            // It must have ended: a running one would miss its sockets.
            let _ = self.child.stop();
            let _ = fs::remove_dir_all(directory);
        }
    }
}
