//! `volley run`: an engine with one of the built-in apps.

use crate::app::tcp::{TcpChargen, TcpDiscard, TcpEcho, TcpSockperf};
use crate::app::{App, Beside, Ctx, Echo, Sink};
use crate::datagram::Datagram;
use crate::datagram::socket::Spread;
use crate::engine::config::{
    Attach, Io, LinkAddress, Numbers, OnPanic, Ports, Tcp, TcpIo, TxChecksum, Unbound, ZeroCopy,
};
use crate::engine::{Config, Engine, Notice, Report, StartError};
use crate::worker::IdlePolicy;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the main thread looks at signals and at the time, in between waiting for notices. Bounds how late a signal
/// is acted on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Answer UDP, and TCP where told, over AF_XDP, DPDK or kernel sockets
///
/// Takes UDP for the game port past the kernel; everything else on the interface stays the kernel's. Without the privilege, or
/// without an interface, it does the same job over kernel sockets and says so (--require xdp makes that an error).
/// Stops at SIGINT or SIGTERM: receives no more, sends what is left, detaches, reports; a second signal ends it at once.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    volley run eth1 --queues 0-3 --cores 2-5\n  \
    volley run eth1 --port 7777-7780 --address 192.0.2.1 --require xdp\n  \
    volley run --io mmsg --port 9000\n  \
    volley run --io dpdk --vdev net_memif0,role=server,socket=/run/volley.memif\n\n\
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

    /// TCP port, or ports FIRST-LAST, to serve beside the UDP [default: none; 7777 with another of the --tcp flags]
    #[arg(long, value_name = "PORTS")]
    tcp_port: Option<Ports>,

    /// The app on TCP
    #[arg(long, value_enum, default_value_t = TcpAppName::Echo)]
    tcp_app: TcpAppName,

    /// Whose TCP [default: auto]
    #[arg(long, value_enum)]
    tcp_io: Option<TcpIo>,

    /// TCP connections of each worker at once [default: 16384, or what the descriptor limit leaves room for]
    #[arg(long, value_name = "CONNECTIONS")]
    tcp_connections: Option<u32>,

    /// TCP ports that the app's own connections leave from, with our own TCP: reserved, and steered
    #[arg(long, value_name = "PORTS")]
    tcp_local_ports: Option<Ports>,

    /// SYNs a second that each CPU lets through to our own TCP; beyond, they are dropped in XDP (0: no limit) [default: 150000]
    #[arg(long, value_name = "SYNS")]
    tcp_syn_rate: Option<u32>,

    /// Address to serve; several times for several [default: all]
    #[arg(long, value_name = "IP")]
    address: Vec<LinkAddress>,

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
    #[arg(long, value_name = "QUEUES")]
    queues: Option<Numbers>,

    /// Workers; queues are dealt among them [default: one for each queue, at most one for each core]
    #[arg(long, value_name = "WORKERS")]
    workers: Option<u16>,

    /// Cores to pin workers to, in their order, as in 2-5 [default: the highest ones]
    #[arg(long, value_name = "CORES")]
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

    /// Frames of each worker's memory [default: 4096 for each queue; dpdk: 8192]
    #[arg(long, value_name = "FRAMES")]
    frames: Option<u32>,

    /// Bytes of a frame: over AF_XDP 2048 or 4096 [default: 2048, 4096 where zero-copy needs it; dpdk: 2176]
    #[arg(long, value_name = "BYTES")]
    chunk: Option<u32>,

    /// Entries of the receive and fill rings, a power of two [default: 2048; dpdk: the driver's choice]
    #[arg(long, value_name = "ENTRIES")]
    rx_ring: Option<u32>,

    /// Entries of the transmit and completion rings, a power of two [default: 2048; dpdk: the driver's choice]
    #[arg(long, value_name = "ENTRIES")]
    tx_ring: Option<u32>,

    /// Poll the device from our own system calls, for this many microseconds at a time
    #[arg(long, value_name = "MICROSECONDS")]
    busy_poll: Option<u32>,

    /// Who finishes checksums over AF_XDP: the device when it can, or the engine [default: auto]
    #[arg(long, value_enum)]
    tx_checksum: Option<TxChecksum>,

    /// UDP GRO and GSO on kernel sockets (what --io gso says as well)
    #[arg(long)]
    offload: bool,

    /// Let other processes of this user serve the same ports of kernel sockets, too (SO_REUSEPORT)
    #[arg(long)]
    share_port: bool,

    /// How kernel sockets spread peers over several workers [default: hash]
    #[arg(long, value_enum, value_name = "BY")]
    spread: Option<Spread>,

    /// io_uring: a kernel thread looks for work
    #[arg(long)]
    sqpoll: bool,

    /// io_uring: answers of at least so many bytes leave without a copy [default: none]
    #[arg(long, value_name = "BYTES")]
    zero_copy_from: Option<u32>,

    #[command(flatten)]
    dpdk: super::dpdk::DpdkArgs,

    /// Stop after so many seconds [default: at SIGINT or SIGTERM]
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TcpAppName {
    /// Sends every byte back
    #[value(name = "tcp-echo", alias = "echo")]
    Echo,
    /// Reads every byte, sends none
    #[value(name = "tcp-discard", alias = "discard")]
    Discard,
    /// Sends lines of characters as fast as they are read
    #[value(name = "tcp-chargen", alias = "chargen")]
    Chargen,
    /// Answers sockperf's client (ping-pong, under-load)
    #[value(name = "tcp-sockperf", alias = "sockperf")]
    Sockperf,
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

impl TcpAppName {
    fn app(self) -> Box<dyn App<Msg = ()>> {
        match self {
            TcpAppName::Echo => Box::new(TcpEcho::default()),
            TcpAppName::Discard => Box::new(TcpDiscard),
            TcpAppName::Chargen => Box::new(TcpChargen::default()),
            TcpAppName::Sockperf => Box::new(TcpSockperf::default()),
        }
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
        over(&mut config.af_xdp.tx_checksum, &self.tx_checksum);
        some(&mut config.queues, &self.queues);
        some(&mut config.workers, &self.workers);
        some(&mut config.af_xdp.frames, &self.frames);
        some(&mut config.af_xdp.chunk, &self.chunk);
        some(&mut config.af_xdp.rx_ring, &self.rx_ring);
        some(&mut config.af_xdp.fill_ring, &self.rx_ring);
        some(&mut config.af_xdp.tx_ring, &self.tx_ring);
        some(&mut config.af_xdp.completion_ring, &self.tx_ring);
        some(&mut config.af_xdp.busy_poll_us, &self.busy_poll);
        some(
            &mut config.dpdk.rx_ring,
            &self.rx_ring.map(|entries| entries.min(u32::from(u16::MAX)) as u16),
        );
        some(
            &mut config.dpdk.tx_ring,
            &self.tx_ring.map(|entries| entries.min(u32::from(u16::MAX)) as u16),
        );
        over(&mut config.dpdk.frames, &self.frames);
        over(&mut config.dpdk.chunk, &self.chunk.map(|bytes| bytes.min(u32::from(u16::MAX)) as u16));
        self.dpdk.apply(&mut config.dpdk);
        if !self.address.is_empty() {
            config.addresses = self.address.iter().map(|link| link.address).collect();
            config.dpdk.addresses =
                self.address.iter().copied().filter(|link| link.prefix_len.is_some()).collect();
        }
        if let Some(idle) = self.idle {
            config.idle = Some(match idle {
                Idle::Spin => IdlePolicy::Spin,
                Idle::Sleep => IdlePolicy::Sleep,
            });
        }
        let asks_for_tcp = self.tcp_port.is_some()
            || self.tcp_io.is_some()
            || self.tcp_connections.is_some()
            || self.tcp_local_ports.is_some()
            || self.tcp_syn_rate.is_some();
        if asks_for_tcp {
            let tcp = config.tcp.get_or_insert_with(Tcp::default);
            over(&mut tcp.ports, &self.tcp_port);
            over(&mut tcp.io, &self.tcp_io);
            some(&mut tcp.connections, &self.tcp_connections);
            some(&mut tcp.local_ports, &self.tcp_local_ports);
            over(&mut tcp.syn_rate, &self.tcp_syn_rate);
        }
        config.require_xdp |= self.require.is_some();
        config.replace |= self.replace;
        config.pin &= !self.no_pin;
        config.sockets.share |= self.share_port;
        config.sockets.offload |= self.offload;
        config.sockets.sqpoll |= self.sqpoll;
        over(&mut config.sockets.spread, &self.spread);
        some(&mut config.sockets.zero_copy_from, &self.zero_copy_from);
        Ok(config)
    }
}

/// Runs `volley run`.
pub fn main(args: RunArgs) -> anyhow::Result<()> {
    let mut config = args.settings()?;
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
    config.dpdk.give_up = Some(Arc::clone(&stop));
    let mut what = format!("UDP {}", config.ports);
    if let Some(tcp) = &config.tcp {
        write!(what, " and TCP {}", tcp.ports)?;
    }
    let on = config.interface.clone().map(|name| format!(" on {name}")).unwrap_or_default();
    let tcp = args.tcp_app;
    let started = match args.app {
        AppName::Echo => Engine::start(config, move |_| Beside(Echo, tcp.app())),
        AppName::Sink => Engine::start(config, move |_| Beside(Sink, tcp.app())),
        AppName::Fragile => Engine::start(config, move |_| Beside(Fragile, tcp.app())),
    };
    let engine = match started {
        Err(StartError::GivenUp { why }) => {
            eprintln!("volley: stopped before it was ready: {why}");
            return Ok(());
        }
        started => started?,
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
            None
            | Some(
                Notice::Panicked { again: true, .. } | Notice::Restarted { .. } | Notice::Demoted { .. },
            ) => None,
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
        assert!(config.require_xdp && !config.pin && config.tcp.is_none());
        let config = parse(&["--tcp-port", "8000-8001", "--tcp-connections", "9"]);
        let tcp = config.tcp.unwrap();
        assert_eq!((tcp.ports, tcp.connections), (Ports(8000..=8001), Some(9)));
        let tcp = parse(&["--tcp-syn-rate", "5"]).tcp.unwrap();
        assert_eq!((tcp.ports, tcp.syn_rate), (Ports(7777..=7777), 5));
        let tcp = parse(&["--tcp-local-ports", "100-199"]).tcp.unwrap();
        assert_eq!(tcp.local_ports, Some(Ports(100..=199)));
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
