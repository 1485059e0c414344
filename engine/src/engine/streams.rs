//! The stream ports of one worker, and how to open them again.

use super::config::{Config, Io, Ports, Tcp, TcpIo};
use super::error::StartError;
use crate::net::Net;
use crate::net::owner::HandOverPlace;
use crate::stream::kernel::open;
use crate::stream::own::{OwnConfig, OwnStreams};
use crate::stream::{EpollStreams, StreamConfig, StreamOpenError, StreamPort, UringStreams};
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long listeners that were ours are waited for, and how often they are tried: see [`super::ports`].
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);
const REOPEN_INTERVAL: Duration = Duration::from_millis(5);

/// Between two looks of a busy worker that also has a frame port, in ns: a system call (some 300 ns) in 20 µs is 1.5 % of a core.
const LOOK_EVERY_NS: u64 = 20_000;

/// How one worker's stream port is opened: at the start, and again after a panic.
pub(super) struct Recipe {
    /// Over io_uring; else over epoll.
    uring: bool,
    addresses: Vec<SocketAddr>,
    config: StreamConfig,
    workers: u32,
    ready: Option<Box<dyn StreamPort>>,
}

/// Our own TCP on one worker's frame port: how it is made, at the start and again after a panic.
#[derive(Clone)]
pub(super) struct Own {
    listen: Vec<SocketAddr>,
    tcp: Tcp,
    /// Kernel sockets that are bound and do not listen: the port is taken, by us.
    _reserved: Arc<Vec<OwnedFd>>,
    /// Where this worker's ends of the rings to the others are.
    place: Option<HandOverPlace>,
}

impl Own {
    /// What `config` says, the ports reserved; `None` when TCP is not our own.
    ///
    /// # Errors
    /// When a port is in use.
    pub fn of(config: &Config) -> Result<Option<Own>, StartError> {
        let Some(tcp) = config.tcp.as_ref().filter(|_| config.tcp_is_own()) else { return Ok(None) };
        let listen = addresses(config, &tcp.ports);
        let local = tcp.local_ports.as_ref().map(|ports| addresses(config, ports)).unwrap_or_default();
        // A device that is the engine's as a whole has no kernel beside it.
        let reserve = config.io == Io::AfXdp;
        let reserved: Result<_, StreamOpenError> = listen
            .iter()
            .chain(&local)
            .filter(|_| reserve)
            .map(|address| open::reserve(*address))
            .collect();
        Ok(Some(Own { listen, tcp: tcp.clone(), _reserved: Arc::new(reserved?), place: None }))
    }

    /// The same for one of several workers.
    pub fn at(&mut self, place: Option<HandOverPlace>) {
        self.place = place;
    }

    /// Puts a stack over `net`.
    ///
    /// # Errors
    /// When the system has no entropy to give.
    pub fn over(&self, mut net: Net) -> std::io::Result<Net> {
        // Several workers hand segments over in rings whose places take what fits one frame.
        let most = if self.place.is_some() { SHARED_MTU } else { OWN_MTU };
        let streams = self.open(net.largest_packet().min(most))?;
        Ok(net.with_streams(streams, self.place.as_ref()))
    }

    /// The stack, for a port that carries packets of `mtu` bytes.
    ///
    /// # Errors
    /// When the system has no entropy to give.
    fn open(&self, mtu: usize) -> std::io::Result<OwnStreams> {
        let mut entropy = [0; 64];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut entropy)?;
        let default = volley_tcp::Config::default();
        let stack = volley_tcp::Config {
            max_connections: self.tcp.connections.unwrap_or(open::CONNECTIONS),
            mtu: mtu as u16,
            cookie_rate: if self.tcp.syn_rate > 0 { self.tcp.syn_rate } else { default.cookie_rate },
            ephemeral_ports: self
                .tcp
                .local_ports
                .as_ref()
                .map_or(default.ephemeral_ports, |ports| (*ports.0.start(), *ports.0.end())),
            ..default
        };
        Ok(OwnStreams::new(&OwnConfig {
            listen: self.listen.clone(),
            stack,
            buffer: OWN_BUFFER,
            slow_reader_ns: self.tcp.slow_reader_ms.saturating_mul(1_000_000),
            keep_alive_secs: self.tcp.keep_alive_secs,
            entropy,
        }))
    }
}

/// Largest IP packet that our own TCP makes, in bytes, where the interface carries such.
const OWN_MTU: usize = 9000;

/// The same where there are several workers.
const SHARED_MTU: usize = 1500;

/// Bytes an app may leave unread, and may have unacknowledged, in each connection of our own TCP.
const OWN_BUFFER: u32 = 256 << 10;

fn addresses(config: &Config, ports: &Ports) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in config.bind_addresses() {
        addresses.extend(ports.0.clone().map(|port| SocketAddr::new(address, port)));
    }
    addresses
}

/// The recipes of `workers` workers, their ports opened already; empty when no TCP is asked for. The workers' listeners share
/// each address, and the kernel spreads the clients over them (SO_REUSEPORT).
///
/// # Errors
/// When a port is in use or descriptors are short.
pub(super) fn recipes(config: &Config, workers: usize) -> Result<Vec<Recipe>, StartError> {
    let Some(tcp) = &config.tcp else { return Ok(Vec::new()) };
    if config.tcp_is_own() {
        return Ok(Vec::new());
    }
    if tcp.io == TcpIo::Own {
        return Err(StartError::OwnTcp { io: config.io.as_str() });
    }
    let addresses = addresses(config, &tcp.ports);
    let recipe = |shared| Recipe {
        uring: config.tcp_is_uring(),
        addresses: addresses.clone(),
        config: stream_config(config, tcp, shared),
        workers: workers as u32,
        ready: None,
    };
    let shared = workers > 1 || config.sockets.share;
    let looked = shared && !config.sockets.share;
    if looked {
        // A group of listeners that share a port lets strangers join: look once whether it is free.
        drop(recipe(false).listen()?);
    }
    let open = |_| {
        let mut recipe = recipe(shared);
        recipe.ready = Some(if looked { recipe.open()? } else { recipe.listen()? });
        Ok(recipe)
    };
    (0..workers).map(open).collect()
}

fn stream_config(config: &Config, tcp: &Tcp, shared: bool) -> StreamConfig {
    StreamConfig {
        connections: tcp.connections,
        reuse_port: shared,
        slow_reader_ns: tcp.slow_reader_ms.saturating_mul(1_000_000),
        keep_alive_secs: tcp.keep_alive_secs,
        sqpoll: config.sockets.sqpoll,
        look_every_ns: if config.io == Io::AfXdp { LOOK_EVERY_NS } else { 0 },
        ..StreamConfig::default()
    }
}

impl Recipe {
    /// The port, on the thread of its worker.
    ///
    /// # Errors
    /// When a listener that was ours is somebody else's now.
    pub fn open(&mut self) -> Result<Box<dyn StreamPort>, StartError> {
        if let Some(ready) = self.ready.take() {
            return Ok(ready);
        }
        let until = Instant::now() + REOPEN_PATIENCE;
        loop {
            match self.listen() {
                Err(StartError::Stream(StreamOpenError::InUse { .. })) if Instant::now() < until => {
                    std::thread::sleep(REOPEN_INTERVAL);
                }
                outcome => return outcome,
            }
        }
    }

    fn listen(&self) -> Result<Box<dyn StreamPort>, StartError> {
        Ok(match self.uring {
            true => Box::new(UringStreams::open(&self.addresses, &self.config, self.workers)?),
            false => Box::new(EpollStreams::open(&self.addresses, &self.config, self.workers)?),
        })
    }
}
