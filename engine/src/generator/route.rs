//! How this host reaches the target: interface, source address and next hop's MAC, as the kernel would do
//! it.

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};
use thiserror::Error;
use volley_wire::ethernet::Mac;

/// How long the kernel may take to learn a MAC: three requests a second apart (neigh/DEV/mcast_solicit) and
/// a little more.
const RESOLVE_WITHIN: Duration = Duration::from_millis(3_500);
/// The port of the datagram that makes the kernel resolve the next hop: discard (RFC 863).
const DISCARD: u16 = 9;

/// The way to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name of the interface packets leave on.
    pub interface: String,
    /// The address they leave from.
    pub source: IpAddr,
    /// The neighbour they go to: the target itself, or a gateway.
    pub next_hop: IpAddr,
    index: u32,
}

/// Why there is no way.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The kernel has none, or cannot be asked.
    #[error("no route to {target}: {error}: check `ip route get {target}`, or choose --netns")]
    None {
        /// Where to.
        target: IpAddr,
        /// Why.
        error: io::Error,
    },
    /// The next hop does not answer.
    #[error(
        "{next_hop} on {interface} does not tell its MAC within {} ms: is it up? or give --mac",
        RESOLVE_WITHIN.as_millis()
    )]
    Unresolved {
        /// Who was asked.
        next_hop: IpAddr,
        /// Where.
        interface: String,
    },
}

/// The kernel's route to `target`, over the interface numbered `over` if one is given.
///
/// # Errors
/// [`RouteError::None`].
pub fn find(target: IpAddr, over: Option<u32>) -> Result<Route, RouteError> {
    let none = |error| RouteError::None { target, error };
    let mut ask = RouteMessage::default();
    ask.header.address_family = family(&target);
    ask.header.destination_prefix_length = if target.is_ipv4() { 32 } else { 128 };
    ask.attributes.push(RouteAttribute::Destination(target.into()));
    ask.attributes.extend(over.map(RouteAttribute::Oif));
    let answer = exchange(RouteNetlinkMessage::GetRoute(ask)).map_err(none)?;
    let RouteNetlinkMessage::NewRoute(route) = answer else {
        return Err(none(io::Error::other("unexpected answer to a route request")));
    };
    let (mut index, mut source, mut next_hop) = (0, None, target);
    for attribute in route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = oif,
            RouteAttribute::PrefSource(address) => source = ip(&address),
            RouteAttribute::Gateway(gateway) => next_hop = ip(&gateway).unwrap_or(target),
            _ => {}
        }
    }
    let source = source.ok_or_else(|| none(io::Error::other("no source address: give --source")))?;
    let name = nix::net::if_::if_indextoname(index).map_err(|errno| none(errno.into()))?;
    Ok(Route { interface: name.to_string_lossy().into_owned(), source, next_hop, index })
}

impl Route {
    /// The next hop's MAC: from the kernel's table, where a datagram to its discard port puts it if it is
    /// not there.
    ///
    /// # Errors
    /// [`RouteError::Unresolved`].
    pub fn resolve(&self) -> Result<Mac, RouteError> {
        let give_up = Instant::now() + RESOLVE_WITHIN;
        let any: IpAddr = if self.next_hop.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0));
        let mut asked = false;
        loop {
            match self.neighbour() {
                Some(mac) => return Ok(mac),
                None if Instant::now() >= give_up => break,
                None => {}
            }
            if let (false, Ok(socket)) = (asked, &socket) {
                // A link-local next hop needs its interface; the answer, if any, is nobody's.
                let to = match self.next_hop {
                    IpAddr::V6(address) => {
                        std::net::SocketAddrV6::new(address, DISCARD, 0, self.index).into()
                    }
                    address => std::net::SocketAddr::new(address, DISCARD),
                };
                asked = socket.send_to(&[], to).is_ok();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(RouteError::Unresolved { next_hop: self.next_hop, interface: self.interface.clone() })
    }

    fn neighbour(&self) -> Option<Mac> {
        let mut ask = NeighbourMessage::default();
        ask.header.family = family(&self.next_hop);
        ask.header.ifindex = self.index;
        let next_hop = match self.next_hop {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        };
        ask.attributes.push(NeighbourAttribute::Destination(next_hop));
        let Ok(RouteNetlinkMessage::NewNeighbour(neighbour)) =
            exchange(RouteNetlinkMessage::GetNeighbour(ask))
        else {
            return None;
        };
        neighbour.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLocalAddress(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        })
    }
}

fn family(address: &IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// One question, one answer.
fn exchange(ask: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut message = NetlinkMessage::from(ask);
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    socket.send(&buffer, 0)?;
    let (mut answer, _) = socket.recv_from_full()?;
    crate::control::hide_metrics(&mut answer);
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(message) => Ok(message),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("unexpected answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_over_lo_from_itself() {
        let route = find([127, 0, 0, 1].into(), None).unwrap();
        assert_eq!(route.source, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(route.next_hop, route.source);
        assert_eq!(nix::net::if_::if_nametoindex(route.interface.as_str()).unwrap(), route.index);
    }
}
