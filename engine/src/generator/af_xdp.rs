//! Opens the AF_XDP way to a target: sockets on every queue, and the rule that brings the answers back.

use super::approach::{Approach, ApproachError, Wanted};
use super::frames::FrameLink;
use super::link::Link;
use super::session::Session;
use super::template::{EndsError, Templates, headers_len};
use crate::host;
use crate::port::Port;
use crate::port::af_xdp::{AfXdp, AfXdpConfig, AfXdpError};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use thiserror::Error;
use volley_xdp::{Action, AttachError, AttachOptions, Prefix, Protocol, Rule, RuleError, SocketError};
use volley_xdp::{Steering, Unbound};

/// The name under which the generator's rule stands in the steering program.
const OWNER: &str = "gen";
/// Addresses a rule can name; with more sources it names none and takes the ports on every address.
const RULE_ADDRESSES: usize = 4;

/// Why the way cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The way to the target.
    #[error(transparent)]
    Approach(#[from] ApproachError),
    /// A packet is longer than a frame.
    #[error(
        "{longest} bytes of payload do not fit a frame of {CHUNK_MOST} bytes: choose at most {most}, or \
         --mode socket"
    )]
    TooLong {
        /// What was asked.
        longest: usize,
        /// What fits.
        most: usize,
    },
    /// Source addresses and ports.
    #[error(transparent)]
    Ends(#[from] EndsError),
    /// The stack above the sockets.
    #[error("a TCP stack: {0}")]
    Stack(#[from] io::Error),
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

/// Bytes of the longest frame the kernel takes, see [`AfXdpConfig::chunk`].
const CHUNK_MOST: u32 = 4096;

/// Frames over AF_XDP, and the program that brings their answers.
pub struct AfXdpLink {
    // Dropped in this order: the rule goes before the sockets it redirects to.
    _steering: Steering,
    frames: FrameLink,
    name: String,
}

impl AfXdpLink {
    /// Opens sockets on `queues` (`None`: all of the interface's), attaches the steering program or uses
    /// the pinned one (`replace`: in another's place), and claims the source ports.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is left behind then.
    pub fn open(wanted: &Wanted, queues: Option<Vec<u16>>, replace: bool) -> Result<AfXdpLink, OpenError> {
        let Approach { link, ends } = Approach::find(wanted)?;
        let mut config = sockets_on(&link, queues);
        let headers = headers_len(ends.target.is_ipv4());
        if headers + wanted.longest > config.packet_room() as usize {
            config.chunk = CHUNK_MOST;
        }
        let most = config.packet_room() as usize - headers;
        if wanted.longest > most {
            return Err(OpenError::TooLong { longest: wanted.longest, most });
        }
        let sources = ends.sources.clone();
        let templates = Templates::new(ends)?;
        let (port, steering) = steered(&config, &sources, (Protocol::Udp, templates.ports()), replace)?;
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

/// Sockets on `queues`, or on all of the link's.
pub(super) fn sockets_on(link: &host::link::Link, queues: Option<Vec<u16>>) -> AfXdpConfig {
    let queues = queues.unwrap_or_else(|| (0..link.queues.unwrap_or(1) as u16).collect());
    AfXdpConfig::new(&link.name, queues)
}

/// Opens the sockets, attaches the steering program or uses the pinned one (`replace`: in another's place), and has what
/// comes to `ports` at `sources` redirected to them.
pub(super) fn steered(
    config: &AfXdpConfig,
    sources: &[IpAddr],
    (protocol, ports): (Protocol, RangeInclusive<u16>),
    replace: bool,
) -> Result<(AfXdp, Steering), OpenError> {
    let addresses = match sources.len() {
        0..=RULE_ADDRESSES => sources.iter().copied().map(Prefix::from).collect(),
        _ => Vec::new(),
    };
    let port = AfXdp::open(config)?;
    let steering = Steering::attach(&AttachOptions {
        interface: config.interface.clone(),
        replace,
        ..AttachOptions::default()
    })?;
    for (queue, socket) in port.sockets() {
        steering.bind_socket(queue.into(), socket)?;
    }
    let action = Action::Redirect { unbound: Unbound::Pass };
    steering.claim(OWNER, &[Rule { protocol, ports, addresses, action, syn_limit: None }])?;
    Ok((port, steering))
}

impl Link for AfXdpLink {
    fn send(&mut self, session: &mut Session, count: usize) -> io::Result<()> {
        self.frames.send(session, count)
    }

    fn recv(&mut self, session: &mut Session) -> io::Result<usize> {
        self.frames.recv(session)
    }
}
