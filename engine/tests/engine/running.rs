//! A `volley run` under test.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use volley_testlab::Lab;

/// Longest wait for anything that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The binary.
pub const VOLLEY: &str = env!("CARGO_BIN_EXE_volley");

/// A running engine process, ready to answer. Killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    report: tempfile::NamedTempFile,
}

/// How an engine process ended.
pub struct Ended {
    pub code: Option<i32>,
    /// Everything on standard error.
    pub said: String,
    /// The JSON report; null when it wrote none.
    pub report: Value,
}

impl Running {
    /// `volley run` on the lab's engine interface, waited for until it is ready.
    pub fn start(lab: &Lab, arguments: &[&str]) -> Running {
        let mut command = Command::new(VOLLEY);
        command.args(["run", lab.engine_if(), "--netns", lab.engine_ns()]).args(arguments);
        Running::spawn(command).ready()
    }

    /// Any command that ends in `volley run …`; it may fail.
    pub fn spawn(mut command: Command) -> Running {
        let report = tempfile::NamedTempFile::new().unwrap();
        command.arg("--report").arg(report.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        Running { child, lines, said: Vec::new(), report }
    }

    /// Waits for the ready line.
    pub fn ready(mut self) -> Running {
        if !self.wait_for("volley: ready") {
            panic!("not ready: {:?}\n{}", self.child.try_wait(), self.said.join("\n"));
        }
        self
    }

    /// Waits until a line with `text` was said; false when the process ended or was silent before.
    pub fn wait_for(&mut self, text: &str) -> bool {
        let until = Instant::now() + PATIENCE;
        while !self.said.iter().any(|line| line.contains(text)) {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(_) => return false,
            }
        }
        true
    }

    /// What was said until now.
    pub fn said(&self) -> String {
        self.said.join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < until, "still running:\n{}", self.said()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.said.extend(self.lines.iter());
        let text = std::fs::read_to_string(self.report.path()).unwrap();
        let report = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ended { code: status.code(), said: self.said(), report }
    }

    /// SIGTERM, and its end: a good one, with every frame accounted for.
    pub fn stop(self) -> Ended {
        self.signal(nix::libc::SIGTERM);
        let ended = self.ended();
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        ended.assert_balanced();
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Every frame of every port is in one place, and none is with the app, the kernel or lost.
    pub fn assert_balanced(&self) {
        let total = &self.report["total"];
        assert_eq!(total["ledger_balances"], true, "{total:#}");
        for owner in ["app", "kernel_tx", "held", "abandoned"] {
            assert_eq!(total["ledger"][owner], 0, "{owner}: {total:#}");
        }
    }

    /// One of the totals.
    pub fn total(&self, name: &str) -> u64 {
        self.report["total"][name].as_u64().unwrap_or_else(|| panic!("{name}: {:#}", self.report))
    }

    /// Datagrams dropped for `reason`.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.report["total"]["dropped_by_reason"][reason].as_u64().unwrap_or(0)
    }

    /// Packets the XDP program counted under `name`.
    pub fn verdict(&self, name: &str) -> u64 {
        self.report["xdp"]["counters"][name].as_u64().unwrap_or_else(|| panic!("{name}: {:#}", self.report))
    }
}
