//! What frames need to get to the target: interface, addresses, MACs; from the command line or from the
//! kernel's route.

use super::route::{self, RouteError};
use super::template::{Ends, headers_len};
use crate::host::link::Link;
use std::io;
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;
use volley_wire::ethernet::{EthernetHeader, Mac};

/// What is known beforehand; the rest is asked of the kernel.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the packets go.
    pub target: SocketAddr,
    /// The interface; `None` takes the route's.
    pub interface: Option<String>,
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

/// Why there is no way for frames.
#[derive(Debug, Error)]
pub enum ApproachError {
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
    /// A packet is longer than the interface takes.
    #[error("{longest} bytes of payload do not fit the MTU {mtu} of {interface}: the most is {most}")]
    TooLong {
        /// What was asked.
        longest: usize,
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// What fits.
        most: usize,
    },
}

/// The way for frames.
#[derive(Clone, Debug)]
pub struct Approach {
    /// The interface they leave on.
    pub link: Link,
    /// Who sends to whom.
    pub ends: Ends,
}

impl Approach {
    /// Finds the way; the kernel may have to resolve the next hop, which takes it up to some seconds.
    ///
    /// # Errors
    /// See [`ApproachError`].
    pub fn find(wanted: &Wanted) -> Result<Approach, ApproachError> {
        let Wanted { target, longest, first_port, flows, .. } = *wanted;
        let link_of = |interface: &str| {
            Link::find(interface)
                .map_err(|error| ApproachError::Interface { interface: interface.into(), error })
        };
        let chosen = wanted.interface.as_deref().map(link_of).transpose()?;
        let route = route::find(target.ip(), chosen.as_ref().map(|link| link.index))?;
        if route.source == target.ip() {
            return Err(ApproachError::Local(target.ip()));
        }
        let link = chosen.map_or_else(|| link_of(&route.interface), Ok)?;
        // The MTU does not count the Ethernet header.
        let most = (link.mtu as usize + EthernetHeader::LEN).saturating_sub(headers_len(target.is_ipv4()));
        if longest > most {
            return Err(ApproachError::TooLong { longest, interface: link.name, mtu: link.mtu, most });
        }
        let sources = if wanted.sources.is_empty() { vec![route.source] } else { wanted.sources.clone() };
        let target_mac = match wanted.mac {
            Some(mac) => mac,
            None => route.resolve()?,
        };
        let ends = Ends { target, target_mac, sources, source_mac: link.mac, first_port, flows };
        Ok(Approach { link, ends })
    }
}
