//! The ports of one worker, and how to open them again.

use super::companion::Companion;
use super::config::{Config, Io, Rings, ZeroCopy};
use super::error::StartError;
use super::plan::Share;
use super::seat::{Opened, Role};
use crate::control::Control;
use crate::datagram::{DatagramPort, SocketError};
use crate::net::{Net, NetConfig};
use crate::port::Port;
use crate::port::af_xdp::{self, AfXdp, AfXdpConfig, AfXdpError};
use crate::worker::Waker;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a port that was ours is waited for, and how often it is tried. Between fork and exec lie milliseconds; who
/// has the port after a second has it to keep.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);
const REOPEN_INTERVAL: Duration = Duration::from_millis(5);

/// How one worker's ports are opened: at the start, and again after a panic.
pub(super) struct Recipe {
    worker: u16,
    links: Option<Links>,
    af_xdp: Option<AfXdpConfig>,
    sockets: Option<Sockets>,
    /// Sockets opened ahead, so that a port in use is known before the interface is touched.
    ready: Option<Box<dyn DatagramPort>>,
}

/// Who tells about links and neighbours, and the interface this is about.
#[derive(Clone)]
pub(super) struct Links {
    pub control: Arc<Control>,
    pub interface: u32,
}

/// Kernel sockets to open.
#[derive(Clone)]
struct Sockets {
    role: Role,
    io: Io,
    addresses: Vec<SocketAddr>,
    index: u8,
    shared: bool,
    offload: bool,
    receive_buffer: Option<u32>,
}

impl Sockets {
    /// What `config` says: over AF_XDP the companion's, else those of each of `workers`.
    fn of(config: &Config, workers: usize) -> Sockets {
        let bypass = config.io == Io::AfXdp;
        let mut addresses = Vec::new();
        for address in config.bind_addresses() {
            addresses.extend(config.ports.0.clone().map(|port| SocketAddr::new(address, port)));
        }
        Sockets {
            role: if bypass { Role::Companion } else { Role::Kernel },
            io: if bypass { Io::Mmsg } else { config.io },
            addresses,
            index: u8::from(bypass),
            shared: !bypass && workers > 1,
            offload: config.sockets.offload,
            receive_buffer: config.sockets.receive_buffer,
        }
    }
}

/// The companion's sockets, opened before the interface is touched.
///
/// # Errors
/// When a port is in use.
pub(super) fn companion(config: &Config) -> Result<Box<dyn DatagramPort>, StartError> {
    Sockets::of(config, 1).open()
}

/// The recipes of all workers. Over AF_XDP the first worker has the companion, opened already; over kernel sockets each worker
/// has sockets of its own, among which the kernel distributes the peers (SO_REUSEPORT).
///
/// # Errors
/// When a port is in use.
pub(super) fn recipes(
    config: &Config,
    shares: &[Share],
    links: Option<Links>,
    mut companion: Option<Box<dyn DatagramPort>>,
) -> Result<Vec<Recipe>, StartError> {
    let bypass = config.io == Io::AfXdp;
    let sockets = Sockets::of(config, shares.len());
    if sockets.shared {
        // A group of sockets that share a port lets strangers join: look once whether it is free.
        drop(Sockets { shared: false, ..sockets.clone() }.open()?);
    }
    let recipe = |(worker, share): (usize, &Share)| {
        let sockets = (!bypass || worker == 0).then(|| sockets.clone());
        let ready = match companion.take() {
            Some(companion) => Some(companion),
            None => sockets.as_ref().map(Sockets::open).transpose()?,
        };
        let af_xdp = bypass.then(|| af_xdp(config, share));
        Ok(Recipe { worker: worker as u16, links: links.clone(), af_xdp, sockets, ready })
    };
    shares.iter().enumerate().map(recipe).collect()
}

/// What `config` says about one worker's AF_XDP port.
fn af_xdp(config: &Config, share: &Share) -> AfXdpConfig {
    let Rings {
        frames,
        chunk,
        headroom,
        rx_ring,
        tx_ring,
        fill_ring,
        completion_ring,
        busy_poll_us,
        tx_budget,
        huge_pages,
    } = config.af_xdp;
    let default = AfXdpConfig::new(config.interface.clone().unwrap_or_default(), share.queues.clone());
    AfXdpConfig {
        frames: frames.unwrap_or(default.frames),
        chunk: chunk.unwrap_or(default.chunk),
        headroom: headroom.unwrap_or(default.headroom),
        rx_ring: rx_ring.unwrap_or(default.rx_ring),
        tx_ring: tx_ring.unwrap_or(default.tx_ring),
        fill_ring: fill_ring.unwrap_or(default.fill_ring),
        completion_ring: completion_ring.unwrap_or(default.completion_ring),
        tx_budget: tx_budget.unwrap_or(default.tx_budget),
        huge_pages: huge_pages.unwrap_or(default.huge_pages),
        busy_poll: busy_poll_us.map(|usecs| af_xdp::BusyPoll { usecs, ..af_xdp::BusyPoll::default() }),
        zero_copy: match config.zero_copy {
            ZeroCopy::Auto => af_xdp::ZeroCopy::Auto,
            ZeroCopy::Require => af_xdp::ZeroCopy::Require,
            ZeroCopy::Never => af_xdp::ZeroCopy::Never,
        },
        ..default
    }
}

impl Recipe {
    /// Opens the ports, on the thread of the worker that `waker` wakes. The AF_XDP port comes first, so that it is closed first.
    pub fn open(&mut self, waker: &Arc<Waker>) -> Result<Opened, StartError> {
        let mut opened = Opened { ports: Vec::new(), sockets: Vec::new() };
        let kernel = match (self.ready.take(), &self.sockets) {
            (Some(ready), _) => Some(ready),
            (None, Some(sockets)) => Some(sockets.open_again()?),
            (None, None) => None,
        };
        if let Some(config) = &self.af_xdp {
            let port = AfXdp::open(config).map_err(|error| match error {
                AfXdpError::NotPermitted { .. } | AfXdpError::Unsupported { .. } => {
                    StartError::XdpRequired { why: error.to_string() }
                }
                error => StartError::Xdp(error.to_string()),
            })?;
            for (queue, socket) in port.sockets() {
                let socket = socket.try_clone_to_owned().map_err(|source| StartError::Thread {
                    worker: self.worker,
                    what: "no descriptor left for its socket",
                    source,
                })?;
                opened.sockets.push((queue, socket));
            }
            let subscribe =
                |links: &Links| links.control.subscribe(links.interface, Some(Arc::clone(waker)));
            let links = self.links.as_ref().map(subscribe);
            let port: Box<dyn Port> = Box::new(port);
            opened.ports.push((Role::AfXdp, Box::new(Net::new(port, NetConfig { index: 0, links }))));
        }
        if let (Some(kernel), Some(sockets)) = (kernel, &self.sockets) {
            let port: Box<dyn DatagramPort> = match sockets.role {
                Role::Companion => Box::new(Companion::new(kernel)),
                _ => kernel,
            };
            opened.ports.push((sockets.role, port));
        }
        Ok(opened)
    }
}

impl Sockets {
    fn open(&self) -> Result<Box<dyn DatagramPort>, StartError> {
        use crate::datagram::{EpollPort, MmsgPort, SocketConfig};
        let default = SocketConfig::default();
        let config = SocketConfig {
            port: self.index,
            reuse_port: self.shared,
            gso: self.offload,
            gro: self.offload,
            receive_buffer: self.receive_buffer.map_or(default.receive_buffer, |bytes| bytes as usize),
            ..default
        };
        Ok(match self.io {
            Io::Epoll => Box::new(EpollPort::open(&self.addresses, &config)?),
            Io::Mmsg | Io::AfXdp => Box::new(MmsgPort::open(&self.addresses, &config)?),
        })
    }

    /// Opens sockets that were ours a moment ago. A process being started elsewhere in this program has copies of them until it
    /// executes, so a port in use is tried again for a while.
    fn open_again(&self) -> Result<Box<dyn DatagramPort>, StartError> {
        let until = Instant::now() + REOPEN_PATIENCE;
        loop {
            match self.open() {
                Err(StartError::Socket(SocketError::InUse { .. })) if Instant::now() < until => {
                    std::thread::sleep(REOPEN_INTERVAL);
                }
                outcome => return outcome,
            }
        }
    }
}
