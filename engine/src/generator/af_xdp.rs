//! Opens the AF_XDP way to a target: route, sockets on every queue, and the rule that brings the answers back.

use super::frames::FrameLink;
use super::link::Link;
use super::route::{self, RouteError};
use super::session::Session;
use super::template::{Ends, EndsError, Templates, headers_len};
use crate::host;
use crate::port::Port;
use crate::port::af_xdp::{AfXdp, AfXdpConfig, AfXdpError};
use std::io;
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;
use volley_wire::ethernet::Mac;
use volley_xdp::{Action, AttachError, AttachOptions, Prefix, Protocol, Rule, RuleError, SocketError};
use volley_xdp::{Steering, Unbound};

/// The name under which the generator's rule stands in the steering program.
const OWNER: &str = "gen";
/// Addresses a rule can name; with more sources it names none and takes the ports on every address.
const RULE_ADDRESSES: usize = 4;

/// What to open.
#[derive(Clone, Debug)]
pub struct AfXdpOptions {
    /// Where the packets go.
    pub target: SocketAddr,
    /// The interface; `None` takes the route's.
    pub interface: Option<String>,
    /// Queues; `None` takes all of the interface's.
    pub queues: Option<Vec<u16>>,
    /// The next hop's MAC; `None` asks the kernel.
    pub mac: Option<Mac>,
    /// Source addresses; empty takes the route's.
    pub sources: Vec<IpAddr>,
    /// The first source port.
    pub first_port: u16,
    /// Flows.
    pub flows: usize,
    /// Bytes of the longest payload.
    pub longest: usize,
}

/// Why the way cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No route, or no MAC.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The interface cannot be looked up.
    #[error("interface {interface}: {error}")]
    Interface {
        /// Its name.
        interface: String,
        /// Why.
        error: io::Error,
    },
    /// The target is this host.
    #[error("{0} is an address of this host, which no interface leads to: use --mode socket, or --netns")]
    Local(IpAddr),
    /// A packet is longer than the interface or a frame takes.
    #[error("{longest} bytes of payload do not fit {what}: the most is {most}")]
    TooLong {
        /// What was asked.
        longest: usize,
        /// What is too small.
        what: String,
        /// What fits.
        most: usize,
    },
    /// Source addresses and ports.
    #[error(transparent)]
    Ends(#[from] EndsError),
    /// The sockets.
    #[error(transparent)]
    Port(#[from] AfXdpError),
    /// The XDP program.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The rule for the answers.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The sockets in the program.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Frames over AF_XDP, and the program that brings their answers.
pub struct AfXdpLink {
    // Dropped in this order: the rule goes before the sockets it redirects to.
    _steering: Steering,
    frames: FrameLink,
    name: String,
}

impl AfXdpLink {
    /// Opens the sockets, attaches the steering program (or uses the pinned one) and claims the source ports.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is left behind then.
    pub fn open(options: &AfXdpOptions) -> Result<AfXdpLink, OpenError> {
        let AfXdpOptions { target, longest, .. } = *options;
        let route = route::find(target.ip())?;
        if route.source == target.ip() {
            return Err(OpenError::Local(target.ip()));
        }
        let interface = options.interface.clone().unwrap_or_else(|| route.interface.clone());
        let link = host::link::Link::find(&interface)
            .map_err(|error| OpenError::Interface { interface: interface.clone(), error })?;
        let headers = headers_len(target.is_ipv4());
        let fits = |room: usize, what: &str| match room.checked_sub(headers) {
            Some(most) if longest <= most => Ok(()),
            most => Err(OpenError::TooLong { longest, what: what.into(), most: most.unwrap_or(0) }),
        };
        // The MTU does not count the Ethernet header.
        fits(link.mtu as usize + 14, &format!("the MTU {} of {interface}", link.mtu))?;

        let queues =
            options.queues.clone().unwrap_or_else(|| (0..link.queues.unwrap_or(1) as u16).collect());
        let mut config = AfXdpConfig::new(&interface, queues);
        if headers + longest > config.packet_room() as usize {
            config.chunk = 4096;
        }
        fits(config.packet_room() as usize, "a frame of 4096 bytes")?;
        let sources = if options.sources.is_empty() { vec![route.source] } else { options.sources.clone() };
        let addresses = match sources.len() {
            0..=RULE_ADDRESSES => sources.iter().copied().map(Prefix::from).collect(),
            _ => Vec::new(),
        };
        let target_mac = match options.mac {
            Some(mac) => mac,
            None => route.resolve()?,
        };
        let templates = Templates::new(Ends {
            target,
            target_mac,
            sources,
            source_mac: link.mac,
            first_port: options.first_port,
            flows: options.flows,
        })?;

        let port = AfXdp::open(&config)?;
        let steering = Steering::attach(&AttachOptions { interface, ..AttachOptions::default() })?;
        for (queue, socket) in port.sockets() {
            steering.bind_socket(queue.into(), socket)?;
        }
        let action = Action::Redirect { unbound: Unbound::Pass };
        let rule = Rule { protocol: Protocol::Udp, ports: templates.ports(), addresses, action };
        steering.claim(OWNER, &[rule])?;
        let name = port.info().name.clone();
        Ok(AfXdpLink { _steering: steering, frames: FrameLink::new(Box::new(port), templates), name })
    }

    /// What it runs over, for the report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As [`FrameLink::notes`].
    pub fn notes(&self) -> Vec<String> {
        self.frames.notes()
    }
}

impl Link for AfXdpLink {
    fn send(&mut self, session: &mut Session, count: usize) -> io::Result<()> {
        self.frames.send(session, count)
    }

    fn recv(&mut self, session: &mut Session) -> io::Result<usize> {
        self.frames.recv(session)
    }
}
