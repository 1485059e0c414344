//! The ports of one worker, and how to open them again.

use super::companion::Companion;
use super::config::{self, Config, Io, Rings, TxChecksum, ZeroCopy};
use super::error::StartError;
use super::ladder::{Rung, Standing};
use super::plan::Share;
use super::seat::{Opened, Role};
use super::streams;
use crate::control::Control;
use crate::datagram::socket::Group;
use crate::datagram::{DatagramPort, SocketConfig, SocketError, SocketModel};
use crate::host::{Tree, cores};
use crate::net::owner::HandOverPlace;
use crate::net::{Net, NetConfig};
use crate::port::Port;
use crate::port::af_xdp::{self, AfXdp, AfXdpConfig, AfXdpError};
use crate::worker::Waker;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a port that was ours is waited for, and how often it is tried. Between fork and exec lie milliseconds; who
/// has the port after a second has it to keep.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);
const REOPEN_INTERVAL: Duration = Duration::from_millis(5);

/// How one worker's ports are opened: at the start, and again after a panic.
pub(super) struct Recipe {
    first: Option<First>,
    sockets: Option<Sockets>,
    /// Opens frame ports that lie ready elsewhere: queues of a device that is the engine's as a whole.
    elsewhere: Option<OpenPorts>,
    /// Sockets opened ahead, so that a port in use is known before the interface is touched.
    ready: Option<Box<dyn DatagramPort>>,
    streams: Option<streams::Recipe>,
}

/// Opens a worker's ports, on the worker's thread, which `Waker` wakes.
pub(super) type OpenPorts =
    Box<dyn FnMut(&Arc<Waker>) -> Result<Vec<(Role, Box<dyn DatagramPort>)>, StartError> + Send>;

/// What a worker's first port is made of, on whatever rung the engine stands: at the start, after a panic, after a step down.
#[derive(Clone)]
pub(super) struct First {
    worker: u16,
    links: Option<Links>,
    af_xdp: AfXdpConfig,
    /// On the last rung.
    sockets: Sockets,
    /// Should the worker inherit it.
    companion: Sockets,
    standing: Standing,
    tcp: Option<streams::Own>,
}

/// A worker's first port, opened.
pub(super) struct FirstPort {
    pub role: Role,
    pub port: Box<dyn DatagramPort>,
    /// AF_XDP sockets to put into the XDP program's map, by queue.
    pub sockets: Vec<(u16, OwnedFd)>,
    pub zero_copy: bool,
    /// Why not, although the device offers it.
    pub refused_zero_copy: Option<String>,
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
    model: SocketModel,
    addresses: Vec<SocketAddr>,
    index: u8,
    shared: bool,
    /// Others of this process may join later.
    joinable: bool,
    group: Group,
    settings: config::Sockets,
}

/// The model of kernel sockets that `io` names; of the companion, which is asked seldom, the one that has the fewest calls.
fn model(io: Io) -> SocketModel {
    match io {
        Io::AfXdp | Io::Dpdk | Io::Mmsg => SocketModel::Mmsg,
        Io::Select => SocketModel::Select,
        Io::Poll => SocketModel::Poll,
        Io::Epoll => SocketModel::Epoll,
        Io::EpollEt => SocketModel::EpollEt,
        Io::Gso => SocketModel::Gso,
        Io::IoUring => SocketModel::IoUring,
        Io::Mio => SocketModel::Mio,
    }
}

impl Sockets {
    /// What `config` says: over AF_XDP the companion's, else those of each of the workers on `cores`.
    fn of(config: &Config, cores: Vec<Option<usize>>) -> Sockets {
        let bypass = config.io == Io::AfXdp;
        let mut addresses = Vec::new();
        for address in config.bind_addresses() {
            addresses.extend(config.ports.0.clone().map(|port| SocketAddr::new(address, port)));
        }
        Sockets {
            role: if bypass { Role::Companion } else { Role::Kernel },
            model: model(config.io),
            addresses,
            index: u8::from(bypass),
            shared: !bypass && (cores.len() > 1 || config.sockets.share),
            joinable: bypass,
            group: Group { spread: config.sockets.spread, cores, worker: 0 },
            settings: config.sockets.clone(),
        }
    }
}

/// The companion's sockets, opened before the interface is touched.
///
/// # Errors
/// When a port is in use.
pub(super) fn companion(config: &Config) -> Result<Box<dyn DatagramPort>, StartError> {
    Sockets::of(config, Vec::new()).open()
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
    standing: &Standing,
) -> Result<Vec<Recipe>, StartError> {
    let bypass = config.io == Io::AfXdp;
    let all = Sockets::of(config, shares.iter().map(|share| share.core).collect());
    let looked = all.shared && !config.sockets.share;
    if looked {
        // A group of sockets that share a port lets strangers join: look once whether it is free.
        drop(Sockets { shared: false, ..all.clone() }.open()?);
    }
    let own = streams::Own::of(config)?;
    let mut all_streams = streams::recipes(config, shares.len())?.into_iter();
    let recipe = |(worker, share): (usize, &Share)| {
        let own_sockets = || Sockets { group: Group { worker, ..all.group.clone() }, ..all.clone() };
        let sockets = (!bypass || worker == 0).then(own_sockets);
        let ready = match companion.take() {
            Some(companion) => Some(companion),
            None if looked => sockets.as_ref().map(Sockets::open_again).transpose()?,
            None => sockets.as_ref().map(Sockets::open).transpose()?,
        };
        let first = bypass.then(|| First {
            worker: worker as u16,
            links: links.clone(),
            af_xdp: af_xdp(config, share),
            sockets: Sockets { role: Role::Kernel, index: 0, shared: true, joinable: false, ..all.clone() },
            companion: all.clone(),
            standing: standing.clone(),
            tcp: own.clone(),
        });
        let streams = all_streams.next();
        Ok(Recipe { first, sockets, elsewhere: None, ready, streams })
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
        tx_checksum,
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
        // The node of the worker's core, whoever opens the port.
        numa_node: share.core.and_then(|core| cores::node_of(&Tree::root(), core)),
        busy_poll: busy_poll_us.map(|usecs| af_xdp::BusyPoll { usecs, ..af_xdp::BusyPoll::default() }),
        tx_checksum: match tx_checksum {
            TxChecksum::Auto => af_xdp::TxChecksum::Auto,
            TxChecksum::Kernel => af_xdp::TxChecksum::Kernel,
            TxChecksum::Never => af_xdp::TxChecksum::Never,
        },
        zero_copy: match config.zero_copy {
            ZeroCopy::Auto => af_xdp::ZeroCopy::Auto,
            ZeroCopy::Require => af_xdp::ZeroCopy::Require,
            ZeroCopy::Never => af_xdp::ZeroCopy::Never,
        },
        ..default
    }
}

impl First {
    /// Opens it, for the worker that `waker` wakes.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is left open then.
    pub fn open(&self, waker: &Arc<Waker>) -> Result<FirstPort, StartError> {
        let zero_copy = match (self.standing.rung(), self.af_xdp.zero_copy) {
            (Rung::Socket, _) => return self.open_sockets(),
            (Rung::ZeroCopy, asked) | (_, asked @ af_xdp::ZeroCopy::Require) => asked,
            _ => af_xdp::ZeroCopy::Never,
        };
        let config = AfXdpConfig { zero_copy, ..self.af_xdp.clone() };
        let port = AfXdp::open(&config).map_err(|error| match error {
            AfXdpError::NotPermitted { .. } | AfXdpError::Unsupported { .. } => {
                StartError::XdpRequired { why: error.to_string() }
            }
            AfXdpError::QueueBusy { .. } | AfXdpError::Refused { .. } => {
                StartError::Bind { why: error.to_string() }
            }
            error => StartError::Xdp(error.to_string()),
        })?;
        let mut sockets = Vec::new();
        for (queue, socket) in port.sockets() {
            let socket = socket.try_clone_to_owned().map_err(|source| StartError::Thread {
                worker: self.worker,
                what: "no descriptor left for its socket",
                source,
            })?;
            sockets.push((queue, socket));
        }
        let (zero_copy, refused) = (port.is_zero_copy(), port.refused_zero_copy().map(str::to_owned));
        let subscribe = |links: &Links| links.control.subscribe(links.interface, Some(Arc::clone(waker)));
        let links = self.links.as_ref().map(subscribe);
        let port: Box<dyn Port> = Box::new(port);
        let mut net = Net::new(port, NetConfig { links, ..NetConfig::default() });
        if let Some(tcp) = &self.tcp {
            net = tcp.over(net).map_err(|source| StartError::Thread {
                worker: self.worker,
                what: "no entropy for its TCP",
                source,
            })?;
        }
        Ok(FirstPort {
            role: Role::AfXdp,
            port: Box::new(net),
            sockets,
            zero_copy,
            refused_zero_copy: refused,
        })
    }

    /// Opens the companion again, for another worker than the one that had it.
    ///
    /// # Errors
    /// When somebody else has taken the port meanwhile.
    pub fn open_companion(&self) -> Result<Box<dyn DatagramPort>, StartError> {
        Ok(Box::new(Companion::new(self.companion(&self.companion).open_again()?)))
    }

    /// The companion's sockets; on the last rung they are some among others.
    fn companion(&self, sockets: &Sockets) -> Sockets {
        let last = self.standing.rung() == Rung::Socket;
        Sockets { shared: sockets.shared || last, ..sockets.clone() }
    }

    /// Sockets of the worker's own beside the companion's: the kernel spreads the peers over all of them.
    fn open_sockets(&self) -> Result<FirstPort, StartError> {
        let port = self.sockets.open_again()?;
        let role = self.sockets.role;
        Ok(FirstPort { role, port, sockets: Vec::new(), zero_copy: false, refused_zero_copy: None })
    }
}

impl Recipe {
    /// The ports that `open` opens, and no others.
    pub fn elsewhere(open: OpenPorts) -> Recipe {
        Recipe { first: None, sockets: None, elsewhere: Some(open), ready: None, streams: None }
    }

    /// Where this worker's ends of the rings to the other workers are, for our own TCP.
    pub fn hand_over_at(&mut self, place: Option<HandOverPlace>) {
        if let Some(tcp) = self.first.as_mut().and_then(|first| first.tcp.as_mut()) {
            tcp.at(place);
        }
    }

    /// The part that is opened again when the engine steps down.
    pub fn first(&self) -> Option<&First> {
        self.first.as_ref()
    }

    /// Opens the ports, on the thread of the worker that `waker` wakes. The AF_XDP port comes first, so that it is closed first.
    pub fn open(&mut self, waker: &Arc<Waker>) -> Result<Opened, StartError> {
        let mut opened = Opened::default();
        if let Some(open) = &mut self.elsewhere {
            opened.ports = open(waker)?;
        }
        let kernel = match (self.ready.take(), &self.sockets) {
            (Some(ready), _) => Some(ready),
            (None, Some(sockets)) => {
                let sockets = match &self.first {
                    Some(first) => first.companion(sockets),
                    None => sockets.clone(),
                };
                Some(sockets.open_again()?)
            }
            (None, None) => None,
        };
        if let Some(first) = &self.first {
            let FirstPort { role, port, sockets, zero_copy, refused_zero_copy } = first.open(waker)?;
            opened.ports.push((role, port));
            (opened.sockets, opened.zero_copy) = (sockets, zero_copy);
            opened.refused_zero_copy = refused_zero_copy;
        }
        if let (Some(kernel), Some(sockets)) = (kernel, &self.sockets) {
            let port: Box<dyn DatagramPort> = match sockets.role {
                Role::Companion => Box::new(Companion::new(kernel)),
                _ => kernel,
            };
            opened.ports.push((sockets.role, port));
        }
        if let Some(streams) = &mut self.streams {
            opened.streams.push(streams.open()?);
        }
        Ok(opened)
    }
}

impl Sockets {
    fn open(&self) -> Result<Box<dyn DatagramPort>, StartError> {
        let default = SocketConfig::default();
        let config = SocketConfig {
            port: self.index,
            reuse_port: self.shared,
            joinable: self.joinable,
            group: self.group.clone(),
            gso: self.settings.offload,
            gro: self.settings.offload,
            receive_buffer: self
                .settings
                .receive_buffer
                .map_or(default.receive_buffer, |bytes| bytes as usize),
            sqpoll: self.settings.sqpoll,
            zero_copy_from: self.settings.zero_copy_from.unwrap_or(default.zero_copy_from),
            ..default
        };
        Ok(self.model.open(&self.addresses, &config)?.port)
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
