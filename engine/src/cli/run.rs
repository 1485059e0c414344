//! `volley run`: an engine with one of the built-in apps.

use crate::app::{App, Ctx, Echo, Sink};
use crate::datagram::Datagram;
use crate::engine::config::{Attach, Io, Numbers, OnPanic, Ports, Unbound, ZeroCopy};
use crate::engine::{Config, Engine, Notice, Report};
use crate::worker::IdlePolicy;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the main thread looks at signals and at the time, in between waiting for notices. Bounds how late a signal
/// is acted on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Answer UDP on an interface: XDP steers, AF_XDP workers answer
///
/// Takes UDP for the game port past the kernel; everything else on the interface stays the kernel's. Without the privilege, or
/// without an interface, it does the same job over kernel sockets and says so (--require xdp makes that an error).
/// Stops at SIGINT or SIGTERM: receives no more, sends what is left, detaches, reports; a second signal ends it at once.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    volley run eth1 --queues 0-3 --cores 2-5\n  \
    volley run eth1 --port 7777-7780 --address 192.0.2.1 --require xdp\n  \
    volley run --io mmsg --port 9000\n\n\
    Exit codes: 0 stopped as asked, 1 failed (also when a worker panicked or the interface went away), 2 wrong usage")]
pub struct RunArgs {
    /// The interface; without one: kernel sockets
    #[arg(value_name = "NIC")]
    interface: Option<String>,

    /// Read settings from a TOML file; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The app
    #[arg(long, value_enum, default_value_t = AppName::Echo)]
    app: AppName,

    /// UDP port, or ports FIRST-LAST [default: 7777]
    #[arg(long, short, value_name = "PORTS")]
    port: Option<Ports>,

    /// Address to serve; several times for several [default: all]
    #[arg(long, value_name = "IP")]
    address: Vec<IpAddr>,

    /// What carries the packets [default: af-xdp]
    #[arg(long, value_enum, alias = "port-kind")]
    io: Option<Io>,

    /// Fail without this, rather than fall back to kernel sockets
    #[arg(long, value_enum, value_name = "WHAT")]
    require: Option<Required>,

    /// Take the interface over from another XDP program
    #[arg(long)]
    replace: bool,

    /// How the XDP program is attached [default: auto]
    #[arg(long, value_enum)]
    mode: Option<Attach>,

    /// Zero-copy: the device's DMA goes straight to the engine's memory [default: auto]
    #[arg(long, value_enum)]
    zero_copy: Option<ZeroCopy>,

    /// Receive queues to serve, as in 0-3,6 [default: all]
    #[arg(long)]
    queues: Option<Numbers>,

    /// Workers; queues are dealt among them [default: one for each queue, at most one for each core]
    #[arg(long)]
    workers: Option<u16>,

    /// Cores to pin workers to, in their order, as in 2-5 [default: the highest ones]
    #[arg(long)]
    cores: Option<Numbers>,

    /// Do not pin workers
    #[arg(long, conflicts_with = "cores")]
    no_pin: bool,

    /// What an idle worker does [default: sleep below four cores, else spin]
    #[arg(long, value_enum)]
    idle: Option<Idle>,

    /// What happens to a worker that panics [default: exit]
    #[arg(long, value_enum)]
    on_panic: Option<OnPanic>,

    /// What becomes of steered packets on queues that no worker serves [default: pass]
    #[arg(long, value_enum)]
    unbound: Option<Unbound>,

    /// Frames of each worker's memory
    #[arg(long)]
    frames: Option<u32>,

    /// Bytes of a frame: 2048 or 4096
    #[arg(long)]
    chunk: Option<u32>,

    /// Entries of the receive and fill rings (a power of two)
    #[arg(long, value_name = "ENTRIES")]
    rx_ring: Option<u32>,

    /// Entries of the transmit and completion rings (a power of two)
    #[arg(long, value_name = "ENTRIES")]
    tx_ring: Option<u32>,

    /// Poll the device from our own system calls, for this many microseconds at a time
    #[arg(long, value_name = "MICROSECONDS")]
    busy_poll: Option<u32>,

    /// UDP GRO and GSO on kernel sockets
    #[arg(long)]
    offload: bool,

    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,

    /// Work in this network namespace (of `ip netns`), and only there
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,

    /// Write the final report as JSON to this file ("-": standard output, instead of the table)
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AppName {
    /// Sends every datagram back
    Echo,
    /// Takes every datagram, answers none
    Sink,
    /// An echo that panics when it is told to, to see what --on-panic does
    #[value(hide = true)]
    Fragile,
}

/// See [`AppName::Fragile`].
struct Fragile;

impl App for Fragile {
    type Msg = ();

    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, _: &mut Ctx<'_, ()>) {
        assert!(datagram.payload() != b"panic", "a datagram said so");
        datagram.reply(datagram.payload().len());
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Required {
    /// AF_XDP
    Xdp,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Idle {
    /// Look again at once
    Spin,
    /// Until something happens
    Sleep,
}

impl RunArgs {
    /// The file's settings, or the defaults, with the flags on top.
    fn settings(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            None => Config::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                Config::from_toml(&text).with_context(|| path.display().to_string())?
            }
        };
        fn over<T: Clone>(setting: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                *setting = value.clone();
            }
        }
        fn some<T: Clone>(setting: &mut Option<T>, flag: &Option<T>) {
            if flag.is_some() {
                setting.clone_from(flag);
            }
        }
        some(&mut config.interface, &self.interface);
        over(&mut config.ports, &self.port);
        over(&mut config.io, &self.io);
        over(&mut config.attach, &self.mode);
        over(&mut config.zero_copy, &self.zero_copy);
        over(&mut config.cores, &self.cores);
        over(&mut config.on_panic, &self.on_panic);
        over(&mut config.unbound, &self.unbound);
        some(&mut config.queues, &self.queues);
        some(&mut config.workers, &self.workers);
        some(&mut config.af_xdp.frames, &self.frames);
        some(&mut config.af_xdp.chunk, &self.chunk);
        some(&mut config.af_xdp.rx_ring, &self.rx_ring);
        some(&mut config.af_xdp.fill_ring, &self.rx_ring);
        some(&mut config.af_xdp.tx_ring, &self.tx_ring);
        some(&mut config.af_xdp.completion_ring, &self.tx_ring);
        some(&mut config.af_xdp.busy_poll_us, &self.busy_poll);
        if !self.address.is_empty() {
            config.addresses.clone_from(&self.address);
        }
        if let Some(idle) = self.idle {
            config.idle = Some(match idle {
                Idle::Spin => IdlePolicy::Spin,
                Idle::Sleep => IdlePolicy::Sleep,
            });
        }
        config.require_xdp |= self.require.is_some();
        config.replace |= self.replace;
        config.pin &= !self.no_pin;
        config.sockets.offload |= self.offload;
        Ok(config)
    }
}

/// Runs `volley run`.
pub fn main(args: RunArgs) -> anyhow::Result<()> {
    let config = args.settings()?;
    let duration = args.duration.map(Duration::try_from_secs_f64).transpose().context("--duration")?;
    // Before any thread is started: threads inherit the namespace.
    if let Some(name) = &args.netns {
        volley_xdp::netns::enter(name)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second signal ends the process at once; the kernel then detaches and closes everything for us.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let what = format!("UDP {}", config.ports);
    let on = config.interface.clone().map(|name| format!(" on {name}")).unwrap_or_default();
    let engine = match args.app {
        AppName::Echo => Engine::start(config, |_| Echo)?,
        AppName::Sink => Engine::start(config, |_| Sink)?,
        AppName::Fragile => Engine::start(config, |_| Fragile)?,
    };
    // Whoever waits for this line (a script, a test) may send from now on.
    eprintln!("volley: ready: {what}{on}, {}", engine.description());

    let begun = Instant::now();
    let mut trouble = None;
    while !stop.load(Ordering::Acquire) && trouble.is_none() {
        let left = duration.map(|duration| duration.saturating_sub(begun.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        trouble = match engine.wait(LOOK_EVERY.min(left.unwrap_or(LOOK_EVERY))) {
            Some(Notice::Panicked { again: true, .. } | Notice::Restarted { .. }) | None => None,
            Some(notice) => Some(notice.to_string()),
        };
    }
    // From here on a signal is the second one, whoever asked first.
    stop.store(true, Ordering::Release);
    let report = engine.stop().context("the control thread panicked: there is no report")?;
    print(&report, args.report.as_deref())?;
    if let Some(trouble) = trouble {
        bail!("stopped: {trouble}");
    }
    Ok(())
}

fn print(report: &Report, file: Option<&Path>) -> anyhow::Result<()> {
    match file {
        Some(path) if path.as_os_str() == "-" => println!("{}", report.to_json()),
        Some(path) => {
            println!("{report}");
            std::fs::write(path, report.to_json()).with_context(|| path.display().to_string())?;
        }
        None => println!("{report}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "interface = 'eth1'\nports = '9000-9001'\nworkers = 3\nidle = 'spin'")
            .unwrap();
        let path = file.path().to_str().unwrap();
        let parse = |args: &[&str]| {
            Cli::parse_from(["run", "--config", path].iter().chain(args)).run.settings().unwrap()
        };
        let config = parse(&[]);
        assert_eq!((config.interface.as_deref(), config.workers), (Some("eth1"), Some(3)));
        let config = parse(&["eth2", "--port", "7777", "--idle", "sleep", "--require", "xdp", "--no-pin"]);
        assert_eq!((config.interface.as_deref(), config.workers), (Some("eth2"), Some(3)));
        assert_eq!((config.ports, config.idle), (Ports(7777..=7777), Some(IdlePolicy::Sleep)));
        assert!(config.require_xdp && !config.pin);
    }

    #[test]
    fn a_file_that_is_wrong_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "workers = 'many'").unwrap();
        let path = file.path().to_str().unwrap();
        let error = Cli::parse_from(["run", "--config", path]).run.settings().unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains(path) && text.contains("workers"), "{text}");
    }
}
