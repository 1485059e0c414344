//! Child processes that cannot be left behind: each dies with its parent, is pinned to its core, runs in its network namespace,
//! and writes to a log that error messages quote.
//!
//! ```text
//!   setpriv --pdeathsig TERM ─exec─► nsenter --net=… ─exec─► taskset -c N ─exec─► PROGRAM
//! ```
//!
//! One process from end to end: the id we signal is the program's own.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a wait looks. Shorter burns the core the generator runs on; longer adds as much to every step.
const POLL: Duration = Duration::from_millis(10);
/// What a process may take to end after it was asked to, before it is killed: an engine drains within a second.
const GRACE: Duration = Duration::from_secs(10);

/// Ctrl-C, or a request to end. Waits return an [`Interrupted`] error, and what was made is removed on the way out.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

/// The error of a wait that was cut short by a signal.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on.
    pub fn catch() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in
            [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))?;
        }
        Ok(interrupt)
    }

    /// An error once a signal came.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Sleeps, but not past a signal.
    pub fn sleep(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            match until.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(POLL)),
                _ => return Ok(()),
            }
        }
    }
}

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct Job {
    program: OsString,
    arguments: Vec<OsString>,
    namespace: Option<String>,
    core: Option<usize>,
    log: PathBuf,
}

impl Job {
    /// A program whose output goes to the file `log`.
    pub fn new(program: impl AsRef<OsStr>, log: impl Into<PathBuf>) -> Job {
        let program = program.as_ref().to_owned();
        Job { program, arguments: Vec::new(), namespace: None, core: None, log: log.into() }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Job {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Runs it in a network namespace under /run/netns, or right here.
    pub fn namespace(mut self, name: Option<&str>) -> Job {
        self.namespace = name.map(str::to_owned);
        self
    }

    /// Pins it to a core.
    pub fn core(mut self, core: usize) -> Job {
        self.core = Some(core);
        self
    }

    fn command(&self) -> Command {
        let mut words: Vec<OsString> = ["setpriv", "--pdeathsig", "TERM"].map(OsString::from).into();
        if let Some(name) = &self.namespace {
            // Not `ip netns exec`: that hides /sys/fs/bpf.
            words.extend(["nsenter".into(), format!("--net=/run/netns/{name}").into()]);
        }
        if let Some(core) = self.core {
            words.extend(["taskset".into(), "-c".into(), core.to_string().into()]);
        }
        words.push(self.program.clone());
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Starts it.
    pub fn start(self) -> Result<Child> {
        let name =
            Path::new(&self.program).file_name().unwrap_or(&self.program).to_string_lossy().into_owned();
        if let Some(directory) = self.log.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let log =
            File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let child = self
            .command()
            // A pipe nobody writes to: programs that wait for a key (testpmd) wait.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us; we end our children in their order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Child { name, log: self.log, child })
    }

    /// Runs it to its end, which must be a success within `limit`.
    pub fn run(self, limit: Duration, interrupt: &Interrupt) -> Result<Child> {
        let mut child = self.start()?;
        match child.wait(limit, interrupt)? {
            Some(status) if status.success() => Ok(child),
            Some(status) => bail!("{} ended with {status}: {}", child.name, child.last_words()),
            None => {
                bail!("{} did not end within {} s: {}", child.name, limit.as_secs(), child.last_words())
            }
        }
    }
}

/// A running process; ended when dropped.
#[derive(Debug)]
pub struct Child {
    name: String,
    log: PathBuf,
    child: std::process::Child,
}

impl Child {
    /// Waits for its end at most `limit`: `None` when it still runs then.
    pub fn wait(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<Option<ExitStatus>> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            interrupt.sleep(POLL)?;
        }
    }

    /// An error when it has ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}: {}", self.name, self.last_words()),
        }
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let Some(stdin) = &mut self.child.stdin else { bail!("{} hears nothing", self.name) };
        writeln!(stdin, "{line}").with_context(|| format!("{} hears nothing", self.name))
    }

    /// Asks it to end (SIGINT), and kills it when it does not.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        // Not reaped yet, so the id is still this process's.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT);
        let until = Instant::now() + GRACE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!(
            "{} did not end within {} s and was killed: {}",
            self.name,
            GRACE.as_secs(),
            self.last_words()
        )
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines it wrote, on one line, for an error message.
    pub fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        match lines.len() {
            0 => "it wrote nothing".into(),
            count => {
                format!("{} (log: {})", lines[count.saturating_sub(3)..].join(" / "), self.log.display())
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("volley-bench: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Job) {
        let directory = tempfile::tempdir().unwrap();
        let job = Job::new("sh", directory.path().join("log")).args(["-c", script]);
        (directory, job)
    }

    #[test]
    fn a_failure_quotes_the_log() {
        let (_directory, job) = shell("echo the ring is full >&2; exit 3");
        let error = job.run(Duration::from_secs(10), &Interrupt::default()).unwrap_err().to_string();
        assert!(error.contains("the ring is full") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let (_directory, job) = shell("exec sleep 600");
        let child = job.core(0).start().unwrap();
        let pid = Pid::from_raw(child.child.id() as i32);
        assert!(kill(pid, None).is_ok());
        drop(child);
        assert!(kill(pid, None).is_err());
    }

    #[test]
    fn a_signal_cuts_a_wait_short() {
        let (_directory, job) = shell("exec sleep 600");
        let interrupt = Interrupt::default();
        interrupt.0.store(true, Ordering::Relaxed);
        let mut child = job.start().unwrap();
        let error = child.wait(Duration::from_secs(600), &interrupt).unwrap_err();
        assert!(error.is::<Interrupted>());
    }
}
