//! What a port without a kernel is told.

use super::super::Tag;
use super::super::neighbours::{Address, Route, address};
use super::siblings::Siblings;
use crate::port::Port;
use std::net::IpAddr;
use volley_wire::ethernet::{Mac, ethertype};

/// An address of ours, and the link it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address: of one host.
    pub address: IpAddr,
    /// How many leading bits the hosts of the link share: 0 to 32, or to 128.
    pub prefix_len: u8,
    /// The VLAN it is in; `None`: untagged.
    pub vlan: Option<u16>,
}

/// A router on the link of one of our addresses, for everything that is on no link of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway(pub IpAddr);

/// How many messages are answered or acted on in a second. In bursts of up to a tenth of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// ARP requests and neighbour solicitations. Too few, and a large LAN that starts up does not find us; each costs some 50 ns.
    pub answers: u32,
    /// Echoes. Too few, and monitoring sees losses.
    pub echoes: u32,
    /// ICMP errors that are looked at. Too few, and a change of many paths is learned late; each may cost a look into the tables.
    pub errors: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { answers: 10_000, echoes: 1_000, errors: 1_000 }
    }
}

/// A port without a kernel behind it. See [`super`].
pub struct StandaloneConfig {
    /// Our addresses, at most 256: they are compared one by one.
    pub addresses: Vec<LocalAddress>,
    /// Default gateways: the first of each family and VLAN is used.
    pub gateways: Vec<Gateway>,
    /// The MAC to answer with; `None`: the port's own.
    pub mac: Option<Mac>,
    /// Most neighbours known at once, 40 to 80 bytes each. More peers than that on one link are resolved again and again.
    pub neighbours: usize,
    /// Most neighbours being asked for, or asked again, at once. Each is a packet a second.
    pub pending: usize,
    /// Most path MTUs known at once, 24 bytes each.
    pub path_mtus: usize,
    /// What may be answered.
    pub limits: Limits,
    /// For the places of entries in tables, so that nobody outside can choose them.
    pub seed: u64,
    /// Where packets go that are not ours, and come from: a port with a kernel behind it. Off when `None`.
    pub exception: Option<Box<dyn Port>>,
    /// The other queues of the device, to which what neighbours and routers say is told. `None` with one queue.
    pub siblings: Option<Siblings>,
}

impl std::fmt::Debug for StandaloneConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let exception = self.exception.as_ref().map(|port| port.info().name.as_str());
        f.debug_struct("StandaloneConfig")
            .field("addresses", &self.addresses)
            .field("gateways", &self.gateways)
            .field("mac", &self.mac)
            .field("exception", &exception)
            .finish_non_exhaustive()
    }
}

impl Default for StandaloneConfig {
    fn default() -> Self {
        StandaloneConfig {
            addresses: Vec::new(),
            gateways: Vec::new(),
            mac: None,
            neighbours: 4096,
            pending: 256,
            path_mtus: 4096,
            limits: Limits::default(),
            seed: 0,
            exception: None,
            siblings: None,
        }
    }
}

/// Why a port cannot do without a kernel in the way it is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StandaloneError {
    /// Nothing to answer for.
    #[error(
        "no address is given to the port: nobody could reach it; give it at least one, with its prefix"
    )]
    NoAddress,
    /// Not an address a host can have.
    #[error("{0} is no address of one host: give the port a unicast address")]
    NotUnicast(IpAddr),
    /// A prefix longer than the address.
    #[error("{address}/{prefix_len}: an address of that family has at most {most} bits")]
    Prefix {
        /// The address.
        address: IpAddr,
        /// What was said.
        prefix_len: u8,
        /// What there is.
        most: u8,
    },
    /// Not a VLAN.
    #[error("VLAN {0}: choose one from 1 to 4094")]
    Vlan(u16),
    /// A gateway nobody can reach.
    #[error("gateway {0} is on no link of the port: give it an address whose prefix the gateway shares")]
    GatewayOffLink(IpAddr),
    /// More than are searched through for each packet.
    #[error("{0} addresses are too many for one port: at most {MAX_ADDRESSES}")]
    TooMany(usize),
    /// The port has no MAC of its own, and none was given.
    #[error("{0} has no MAC address of its own: give one")]
    NoMac(String),
}

/// Most addresses of a port.
pub const MAX_ADDRESSES: usize = 256;

/// A VLAN in the form paths have it; 0 is none (a tag for priority alone).
pub(super) fn tag(vlan: u16) -> Tag {
    match vlan {
        0 => Tag::default(),
        vlan => Tag { tpid: ethertype::VLAN, tci: vlan },
    }
}

impl LocalAddress {
    pub(super) fn key(&self) -> Address {
        address(self.address)
    }

    pub(super) fn tag(&self) -> Tag {
        tag(self.vlan.unwrap_or(0))
    }

    fn route(&self) -> Route {
        Route {
            prefix: self.key(),
            prefix_len: self.prefix_len + if self.address.is_ipv4() { 96 } else { 0 },
            metric: 0,
            gateway: None,
            source: Some(self.key()),
            tag: self.tag(),
        }
    }
}

impl StandaloneConfig {
    /// Whether a port can do without a kernel in this way.
    ///
    /// # Errors
    /// The first thing that is wrong, and what to do about it.
    pub fn check(&self) -> Result<(), StandaloneError> {
        if self.addresses.is_empty() {
            return Err(StandaloneError::NoAddress);
        }
        if self.addresses.len() > MAX_ADDRESSES {
            return Err(StandaloneError::TooMany(self.addresses.len()));
        }
        for local in &self.addresses {
            let LocalAddress { address, prefix_len, vlan } = *local;
            let broadcast = matches!(address, IpAddr::V4(four) if four.is_broadcast());
            if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
                return Err(StandaloneError::NotUnicast(address));
            }
            let most = if address.is_ipv4() { 32 } else { 128 };
            if prefix_len > most {
                return Err(StandaloneError::Prefix { address, prefix_len, most });
            }
            if let Some(vlan) = vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
                return Err(StandaloneError::Vlan(vlan));
            }
        }
        let on_link = |gateway: &&Gateway| self.link_of(gateway.0).is_some();
        match self.gateways.iter().find(|gateway| !on_link(gateway)) {
            Some(gateway) => Err(StandaloneError::GatewayOffLink(gateway.0)),
            None => Ok(()),
        }
    }

    /// The address of ours whose link a gateway is on.
    fn link_of(&self, gateway: IpAddr) -> Option<&LocalAddress> {
        let key = address(gateway);
        let links = self.addresses.iter().filter(|local| {
            local.address.is_ipv4() == gateway.is_ipv4() && local.key() != key && local.route().covers(&key)
        });
        links.max_by_key(|local| local.prefix_len)
    }

    /// The links of our addresses, then the gateways; the longest prefix first.
    pub(super) fn routes(&self) -> Vec<Route> {
        let mut routes: Vec<Route> = self.addresses.iter().map(LocalAddress::route).collect();
        for Gateway(gateway) in &self.gateways {
            let Some(link) = self.link_of(*gateway) else { continue };
            let (prefix, prefix_len) = match gateway.is_ipv4() {
                true => (address(IpAddr::from([0, 0, 0, 0])), 96),
                false => ([0; 16], 0),
            };
            let gateway = Some(address(*gateway));
            routes.push(Route { prefix, prefix_len, metric: 0, gateway, ..link.route() });
        }
        // Stable: among equals the one named first.
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix_len));
        routes
    }
}
