//! What every scenario shares: the binary under test, the cores, where logs and reports go.

use crate::process::Interrupt;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The options of every scenario.
#[derive(Args, Clone, Debug)]
pub struct SetupArgs {
    /// The `volley` command to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    volley: Option<PathBuf>,

    /// Core of the engine, and of each peer in its place [default: 1, or 0 when there is no other]
    #[arg(long)]
    engine_core: Option<usize>,

    /// Core of the generator
    #[arg(long, default_value_t = 0)]
    generator_core: usize,

    /// Name of the lab: namespaces and interfaces begin with it
    #[arg(long, default_value = "volley-bench")]
    pub lab: String,

    /// UDP port of the echo servers
    #[arg(long, default_value_t = 7777)]
    port: u16,

    /// Directory of logs and reports [default: beside the build, target/bench or target/demo]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

/// The same, resolved.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The `volley` command.
    pub volley: PathBuf,
    /// Where the engine runs.
    pub engine_core: usize,
    /// Where the generator runs.
    pub generator_core: usize,
    /// The lab's name.
    pub lab: String,
    /// The servers' UDP port.
    pub port: u16,
    /// Where reports go; logs are in `logs` below it.
    pub out: PathBuf,
    /// Ctrl-C.
    pub interrupt: Interrupt,
}

impl Setup {
    /// Finds what was not named. `kind` is the directory under target/ for the reports.
    pub fn new(arguments: &SetupArgs, kind: &str) -> Result<Setup> {
        let here = std::env::current_exe()?;
        let beside = here.parent().unwrap_or(Path::new("."));
        let volley = arguments.volley.clone().unwrap_or_else(|| beside.join("volley"));
        ensure!(
            volley.is_file(),
            "{}: there is no such program: cargo build --release -p volley, or --volley FILE",
            volley.display()
        );
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let setup = Setup {
            volley: volley.canonicalize()?,
            engine_core: arguments.engine_core.unwrap_or(usize::from(cores > 1)),
            generator_core: arguments.generator_core,
            lab: arguments.lab.clone(),
            port: arguments.port,
            // target/release/volley-bench → target/bench
            out: match &arguments.out {
                Some(directory) => directory.clone(),
                None => beside.parent().unwrap_or(beside).join(kind),
            },
            interrupt: Interrupt::catch()?,
        };
        fs::create_dir_all(setup.logs())
            .with_context(|| format!("cannot make {}", setup.logs().display()))?;
        Ok(setup)
    }

    /// The directory of logs.
    pub fn logs(&self) -> PathBuf {
        self.out.join("logs")
    }

    /// Writes a report as JSON and returns where it is.
    pub fn write(&self, name: &str, report: &impl Serialize) -> Result<PathBuf> {
        let path = self.out.join(format!("{name}.json"));
        fs::write(&path, serde_json::to_string_pretty(report)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// The machine and the moment of a measurement: numbers mean nothing without them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Machine {
    /// Unix time, in seconds.
    unix_seconds: u64,
    /// Kernel release.
    kernel: String,
    /// Processor, as /proc/cpuinfo names it.
    processor: String,
    /// Cores this process may use.
    cores: usize,
    /// Load average over the last minute when the measurement began: what else the machine was doing.
    load: f64,
}

impl Machine {
    /// Looks.
    pub fn here() -> Machine {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split(": ").nth(1));
        Machine {
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine { kernel, processor, cores, load, .. } = self;
        write!(f, "{processor}, {cores} cores, kernel {kernel}, load {load}")
    }
}
