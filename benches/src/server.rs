//! What is measured: our engine over every I/O model, and its peers. One at a time, on the engine's core.

use crate::lab::Lab;
use crate::process::{Child, Job};
use crate::rust_peer::RustPeer;
use crate::setup::Setup;
use crate::testpmd::Testpmd;
use anyhow::{Result, bail};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
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
    /// An echo on the `xdp` crate
    Xdp,
    /// An echo on the `xsk-rs` crate
    XskRs,
    /// `volley run --io mmsg`: recvmmsg and sendmmsg
    Mmsg,
    /// `volley run --io epoll`: recvfrom and sendto
    Epoll,
    /// `volley run --io gso`: recvmmsg and sendmmsg, UDP GRO and GSO
    Gso,
    /// `volley run --io io-uring`
    IoUring,
    /// `volley run --io io-uring --sqpoll`
    IoUringSqpoll,
    /// `volley run --io epoll-et`: edge-triggered epoll, recvfrom and sendto
    EpollEt,
    /// `volley run --io poll`: recvfrom and sendto
    Poll,
    /// `volley run --io select`: recvfrom and sendto
    Select,
    /// `volley run --io mio`: recvfrom and sendto
    Mio,
}

impl Server {
    /// Those that are not ours.
    pub const PEERS: [Server; 3] = [Server::Testpmd, Server::Xdp, Server::XskRs];

    /// Every I/O model and peer of the matrix. Not with SQPOLL: its kernel thread takes a second core, or half of the only one.
    pub const MODELS: [Server; 12] = [
        Server::AfXdp,
        Server::Testpmd,
        Server::Xdp,
        Server::XskRs,
        Server::IoUring,
        Server::Gso,
        Server::Mmsg,
        Server::EpollEt,
        Server::Epoll,
        Server::Poll,
        Server::Select,
        Server::Mio,
    ];

    /// Those that the echo scenario compares, ours first.
    pub const ALL: [Server; 4] = [Server::AfXdp, Server::Testpmd, Server::Mmsg, Server::Epoll];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Server::AfXdp => "af-xdp",
            Server::Testpmd => "testpmd",
            Server::Xdp => "xdp",
            Server::XskRs => "xsk-rs",
            Server::Mmsg => "mmsg",
            Server::Epoll => "epoll",
            Server::Gso => "gso",
            Server::IoUring => "io-uring",
            Server::IoUringSqpoll => "io-uring-sqpoll",
            Server::EpollEt => "epoll-et",
            Server::Poll => "poll",
            Server::Select => "select",
            Server::Mio => "mio",
        }
    }

    /// What it is, for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Server::AfXdp => "AF_XDP",
            Server::Testpmd => "dpdk-testpmd net_af_xdp",
            Server::Xdp => "an echo on the xdp crate",
            Server::XskRs => "an echo on the xsk-rs crate",
            Server::Mmsg => "kernel sockets (recvmmsg, sendmmsg)",
            Server::Epoll => "kernel sockets (recvfrom, sendto)",
            Server::Gso => "kernel sockets (recvmmsg, sendmmsg, UDP GRO and GSO)",
            Server::IoUring => "kernel sockets (io_uring)",
            Server::IoUringSqpoll => "kernel sockets (io_uring, polling kernel thread)",
            Server::EpollEt => "kernel sockets (edge-triggered epoll, recvfrom, sendto)",
            Server::Poll => "kernel sockets (poll, recvfrom, sendto)",
            Server::Select => "kernel sockets (select, recvfrom, sendto)",
            Server::Mio => "kernel sockets (mio, recvfrom, sendto)",
        }
    }

    /// Why it cannot be measured here, and what to do about it.
    pub fn missing(self) -> Option<String> {
        match self {
            Server::Testpmd => Testpmd::missing(&["net_af_xdp"]),
            _ => self.rust_peer()?.missing(),
        }
    }

    /// The program it is, when it is one of the Rust peers.
    pub fn rust_peer(self) -> Option<RustPeer> {
        match self {
            Server::Xdp => Some(RustPeer::XDP),
            Server::XskRs => Some(RustPeer::XSK_RS),
            _ => None,
        }
    }

    /// As [`Server::start`], of ours, with the TCP echo on the same port.
    pub fn start_with_tcp(self, setup: &Setup, lab: Option<&Lab>) -> Result<Running> {
        let log = setup.logs().join(format!("{}.log", self.as_str()));
        let mut words = self.volley(setup, lab);
        words.extend(["--tcp-port".into(), setup.port.to_string(), "--tcp-app".into(), "tcp-echo".into()]);
        Running::volley(words, log, lab.map(|lab| lab.engine().netns.as_str()), setup)
    }

    /// Starts it at the lab's engine end, or over loopback without a lab, and waits until it serves.
    pub fn start(self, setup: &Setup, lab: Option<&Lab>) -> Result<Running> {
        let log = setup.logs().join(format!("{}.log", self.as_str()));
        let namespace = lab.map(|lab| lab.engine().netns.as_str());
        match (self, lab) {
            (Server::Testpmd | Server::Xdp | Server::XskRs, None) => {
                bail!("{} needs a lab", self.as_str())
            }
            (Server::Testpmd, Some(lab)) => Running::testpmd(
                &testpmd(setup.engine_core, &lab.engine().interface),
                log,
                namespace,
                setup,
            ),
            (_, lab) => match (self.rust_peer(), lab) {
                (Some(peer), Some(lab)) => {
                    let interface = &lab.engine().interface;
                    let job = Job::new(peer.program(), log).args([interface, &setup.port.to_string()]);
                    Running::peer(job.core(setup.engine_core).namespace(namespace), peer.ready, setup)
                }
                _ => Running::volley(self.volley(setup, lab), log, namespace, setup),
            },
        }
    }

    fn volley(self, setup: &Setup, lab: Option<&Lab>) -> Vec<String> {
        let mut words: Vec<String> =
            ["run", "--app", "echo", "--workers", "1", "--idle", "spin"].map(String::from).into();
        words.extend([
            "--port".into(),
            setup.port.to_string(),
            "--cores".into(),
            setup.engine_core.to_string(),
        ]);
        match self {
            Server::IoUringSqpoll => words.extend(["--io", "io-uring", "--sqpoll"].map(String::from)),
            _ => words.extend(["--io".into(), self.as_str().into()]),
        }
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

/// The peer over AF_XDP.
fn testpmd(core: usize, interface: &str) -> Testpmd {
    Testpmd {
        core,
        drivers: &["net_af_xdp"],
        vdev: format!("net_af_xdp0,iface={interface},start_queue=0,queue_count=1"),
        // Plain pages: the copy into the UMEM is the kernel's, through its own mapping, so that huge pages change nothing.
        eal: &["--no-huge", "-m", "512"],
        forward: "5tswap",
        mbufs: 32_768,
        more: vec!["--auto-start".into()],
    }
}

/// A server that serves; ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    report: PathBuf,
    leftover: Option<PathBuf>,
    /// What it prints once it serves.
    ready: &'static str,
}

impl Running {
    /// Starts `volley` with `words` on the engine's core, asks it for a report, and waits until it serves.
    pub fn volley(
        words: Vec<String>,
        log: PathBuf,
        namespace: Option<&str>,
        setup: &Setup,
    ) -> Result<Running> {
        let mut running = Running::spawn_volley(words, log, namespace, setup)?;
        running.wait(setup)?;
        Ok(running)
    }

    /// As [`Running::volley`], without waiting.
    pub fn spawn_volley(
        words: Vec<String>,
        log: PathBuf,
        namespace: Option<&str>,
        setup: &Setup,
    ) -> Result<Running> {
        let report = setup.logs().join("engine.json");
        let _ = fs::remove_file(&report);
        let job = Job::new(&setup.volley, log).args(words).args(["--report".as_ref(), report.as_os_str()]);
        let child = job.core(setup.engine_core).namespace(namespace).start()?;
        Ok(Running { child, report, leftover: None, ready: "volley: ready" })
    }

    /// Starts a testpmd on its core and waits until it forwards.
    pub fn testpmd(
        testpmd: &Testpmd,
        log: PathBuf,
        namespace: Option<&str>,
        setup: &Setup,
    ) -> Result<Running> {
        let mut running = Running::spawn_testpmd(testpmd, log, namespace)?;
        running.wait(setup)?;
        Ok(running)
    }

    /// As [`Running::testpmd`], without waiting.
    pub fn spawn_testpmd(testpmd: &Testpmd, log: PathBuf, namespace: Option<&str>) -> Result<Running> {
        let job = Job::new(Testpmd::PROGRAM, log).args(testpmd.words()).core(testpmd.core);
        let child = job.namespace(namespace).start()?;
        let leftover = Some(Testpmd::leftover(testpmd.core));
        Ok(Running { child, report: PathBuf::new(), leftover, ready: testpmd.ready() })
    }

    /// Starts another echo and waits until it prints `ready`.
    pub fn peer(job: Job, ready: &'static str, setup: &Setup) -> Result<Running> {
        let mut running = Running { child: job.start()?, report: PathBuf::new(), leftover: None, ready };
        running.wait(setup)?;
        Ok(running)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        self.child.output()
    }

    /// Waits until it serves.
    pub fn wait(&mut self, setup: &Setup) -> Result<()> {
        let until = Instant::now() + START;
        while !self.child.output().contains(self.ready) {
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
