//! What the kernel has told, and what of it matters to the port of one interface.

use crate::net::Tag;
use crate::net::neighbours::{Address, Link, Neighbour, Reached, Route, address};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use volley_wire::ethernet::ethertype;

/// Everything heard. Interfaces by number.
#[derive(Debug, Default)]
pub(super) struct Model {
    links: BTreeMap<u32, Device>,
    addresses: BTreeSet<(u32, Address)>,
    neighbours: BTreeMap<(u32, Address), Reached>,
    /// The tag is filled in by the view.
    routes: BTreeSet<(u32, Route)>,
    routes_changed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Device {
    up: bool,
    mac: [u8; 6],
    mtu: u32,
    /// Of a VLAN interface, the interface it is on and the tag it adds.
    vlan: Option<(u32, Tag)>,
}

/// What one interface's port should know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) link: Option<Link>,
    pub(super) addresses: BTreeSet<Address>,
    pub(super) routes: BTreeSet<Route>,
    pub(super) neighbours: BTreeMap<Neighbour, Reached>,
}

impl Model {
    /// Takes in one message, of a dump or an event.
    pub(super) fn hear(&mut self, message: &Message) {
        match message {
            // Bridges and the like speak of the same links in their own family; a DELLINK there removes no link.
            Message::NewLink(m) if m.header.interface_family == AddressFamily::Unspec => self.new_link(m),
            Message::DelLink(m) if m.header.interface_family == AddressFamily::Unspec => {
                let gone = m.header.index;
                self.links.remove(&gone);
                self.neighbours.retain(|(interface, _), _| *interface != gone);
                self.addresses.retain(|(interface, _)| *interface != gone);
                self.routes_changed = true;
            }
            Message::NewAddress(m) => self.addresses.extend(own_address(m).map(|a| (m.header.index, a))),
            Message::DelAddress(m) => {
                if let Some(address) = own_address(m) {
                    self.addresses.remove(&(m.header.index, address));
                }
                self.routes_changed = true;
            }
            Message::NewNeighbour(m) => self.neighbour(m, true),
            Message::DelNeighbour(m) => self.neighbour(m, false),
            // Not every change of the routes is told (a replaced route's end, those that go down with a link), so
            // they are dumped again instead of followed.
            Message::NewRoute(_) | Message::DelRoute(_) => self.routes_changed = true,
            _ => {}
        }
    }

    /// True when the routes should be dumped again.
    pub(super) fn wants_routes(&self) -> bool {
        self.routes_changed
    }

    /// Replaces all routes by those of a dump.
    pub(super) fn set_routes<'m>(&mut self, messages: impl Iterator<Item = &'m RouteMessage>) {
        self.routes = messages.flat_map(routes).collect();
        self.routes_changed = false;
    }

    /// The number of the interface that carries `tag` on `parent`.
    pub(super) fn interface_of(&self, parent: u32, tag: Tag) -> Option<u32> {
        self.family(parent).find(|(_, carried)| *carried == tag).map(|(interface, _)| interface)
    }

    /// The interface itself, and the VLAN interfaces on it.
    fn family(&self, interface: u32) -> impl Iterator<Item = (u32, Tag)> + '_ {
        let vlans = self.links.iter().filter_map(move |(index, device)| match device.vlan {
            Some((parent, tag)) if parent == interface => Some((*index, tag)),
            _ => None,
        });
        std::iter::once((interface, Tag::default())).chain(vlans)
    }

    /// What the port of `interface` should know.
    pub(super) fn view(&self, interface: u32) -> View {
        let family: BTreeMap<u32, Tag> = self.family(interface).collect();
        let link = match self.links.get(&interface) {
            Some(device) => Link::Present { up: device.up, mac: device.mac, mtu: device.mtu },
            None => Link::Removed,
        };
        View {
            link: Some(link),
            // Of any interface: an address on lo is as much ours.
            addresses: self.addresses.iter().map(|(_, address)| *address).collect(),
            routes: self
                .routes
                .iter()
                .filter_map(|(out, route)| family.get(out).map(|tag| Route { tag: *tag, ..*route }))
                .collect(),
            neighbours: self
                .neighbours
                .iter()
                .filter_map(|((on, address), reached)| {
                    family.get(on).map(|tag| (Neighbour { tag: *tag, address: *address }, *reached))
                })
                .collect(),
        }
    }

    fn new_link(&mut self, message: &LinkMessage) {
        let header = &message.header;
        let mut device = Device {
            up: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            mac: [0; 6],
            mtu: 0,
            vlan: None,
        };
        let (mut parent, mut tag) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(mac) => device.mac = mac.as_slice().try_into().unwrap_or([0; 6]),
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::Link(index) => parent = Some(*index),
                LinkAttribute::LinkInfo(infos) => tag = vlan_tag(infos),
                _ => {}
            }
        }
        device.vlan = parent.zip(tag);
        // The routes over a link come and go with it, often untold.
        let before = self.links.insert(header.index, device);
        self.routes_changed |= before.is_none_or(|before| before.up != device.up);
    }

    fn neighbour(&mut self, message: &NeighbourMessage, exists: bool) {
        let mut ip = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
                NeighbourAttribute::LinkLocalAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
                _ => {}
            }
        }
        // Others (bridge forwarding entries) have no IP address.
        let Some(ip) = ip else { return };
        if ip.is_multicast() {
            return;
        }
        let key = (message.header.ifindex, address(ip));
        let valid = !matches!(
            message.header.state,
            NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
        );
        match mac.filter(|_| exists && valid) {
            Some(mac) => {
                let stale = message.header.state == NeighbourState::Stale;
                self.neighbours.insert(key, Reached { mac, stale });
            }
            None => _ = self.neighbours.remove(&key),
        }
    }
}

/// The tag a VLAN interface adds.
fn vlan_tag(infos: &[LinkInfo]) -> Option<Tag> {
    let is_vlan = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Vlan)));
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    });
    let mut tag = Tag { tpid: ethertype::VLAN, tci: 0 };
    for item in data.filter(|_| is_vlan)? {
        match item {
            InfoVlan::Id(id) => tag.tci = *id,
            InfoVlan::Protocol(VlanProtocol::Ieee8021Ad) => tag.tpid = ethertype::QINQ,
            _ => {}
        }
    }
    Some(tag)
}

/// The address of ours that a message speaks of: on a point-to-point link, not the peer's.
fn own_address(message: &AddressMessage) -> Option<Address> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    };
    local.or_else(any).map(address)
}

/// The unicast routes of the main table in a message: one for each next hop.
fn routes(message: &RouteMessage) -> Vec<(u32, Route)> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let ipv4 = header.address_family == AddressFamily::Inet;
    let mut route = Route {
        prefix: if ipv4 { address(IpAddr::from([0, 0, 0, 0])) } else { [0; 16] },
        prefix_len: header.destination_prefix_length + if ipv4 { 96 } else { 0 },
        metric: 0,
        gateway: None,
        source: None,
        tag: Tag::default(),
    };
    let mut out = None;
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => route.prefix = ip(to).unwrap_or(route.prefix),
            RouteAttribute::PrefSource(from) => route.source = ip(from),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(interface) => out = Some(*interface),
            RouteAttribute::MultiPath(several) => hops.extend(several),
            _ => {}
        }
    }
    if header.kind != RouteType::Unicast || table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return Vec::new();
    }
    let single = out.map(|interface| (interface, gateway(&message.attributes)));
    let several = hops.iter().map(|hop| (hop.interface_index, gateway(&hop.attributes)));
    single.into_iter().chain(several).map(|(to, gateway)| (to, Route { gateway, ..route })).collect()
}

fn gateway(attributes: &[RouteAttribute]) -> Option<Address> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(via) => ip(via),
        RouteAttribute::Via(RouteVia::Inet(via)) => Some(address(IpAddr::V4(*via))),
        RouteAttribute::Via(RouteVia::Inet6(via)) => Some(address(IpAddr::V6(*via))),
        _ => None,
    })
}

fn ip(from: &RouteAddress) -> Option<Address> {
    match from {
        RouteAddress::Inet(v4) => Some(address(IpAddr::V4(*v4))),
        RouteAddress::Inet6(v6) => Some(address(IpAddr::V6(*v6))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::route::RouteNextHop;
    use std::net::Ipv4Addr;

    fn link(index: u32, attributes: Vec<LinkAttribute>) -> Message {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = attributes;
        message.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, index as u8]));
        Message::NewLink(message)
    }

    fn vlan(index: u32, parent: u32, id: u16) -> Message {
        let data = vec![InfoVlan::Id(id), InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)];
        let infos = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(data))];
        link(index, vec![LinkAttribute::Link(parent), LinkAttribute::LinkInfo(infos)])
    }

    fn neighbour(on: u32, last: u8, state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = on;
        message.header.state = state;
        let ip = NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, last));
        message.attributes = vec![
            NeighbourAttribute::Destination(ip),
            NeighbourAttribute::LinkLocalAddress(vec![2, 0, 0, 0, 9, last]),
        ];
        message
    }

    #[test]
    fn a_vlan_on_the_interface_belongs_to_its_port_and_a_veth_peer_does_not() {
        let mut model = Model::default();
        // A veth end names its peer as "link" too, but is no VLAN.
        for message in
            [link(3, vec![]), vlan(8, 3, 9), vlan(9, 4, 9), link(4, vec![LinkAttribute::Link(3)])]
        {
            model.hear(&message);
        }
        let tag = Tag { tpid: ethertype::QINQ, tci: 9 };
        assert_eq!(model.interface_of(3, tag), Some(8));
        assert_eq!(model.interface_of(3, Tag::default()), Some(3));
        for on in [3, 4, 8, 9] {
            model.hear(&Message::NewNeighbour(neighbour(on, on as u8, NeighbourState::Reachable)));
        }
        let known: Vec<_> = model.view(3).neighbours.into_keys().map(|n| (n.tag, n.address[15])).collect();
        assert_eq!(known, [(Tag::default(), 3), (tag, 8)]);
        model.hear(&Message::DelLink(match vlan(8, 3, 9) {
            Message::NewLink(message) => message,
            _ => unreachable!("made a link"),
        }));
        assert_eq!(model.view(3).neighbours.len(), 1);
        assert_eq!(model.view(77).link, Some(Link::Removed));
    }

    #[test]
    fn a_neighbour_counts_only_while_its_mac_is_valid() {
        let mut model = Model::default();
        model.hear(&link(3, vec![]));
        for (state, known) in [
            (NeighbourState::Incomplete, None),
            (NeighbourState::Reachable, Some(false)),
            (NeighbourState::Stale, Some(true)),
            (NeighbourState::Probe, Some(false)),
            (NeighbourState::Failed, None),
            (NeighbourState::Permanent, Some(false)),
        ] {
            model.hear(&Message::NewNeighbour(neighbour(3, 1, state)));
            assert_eq!(model.view(3).neighbours.values().next().map(|r| r.stale), known, "{state:?}");
        }
        model.hear(&Message::DelNeighbour(neighbour(3, 1, NeighbourState::Reachable)));
        assert!(model.view(3).neighbours.is_empty());
    }

    #[test]
    fn each_next_hop_of_a_route_is_a_route() {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        let hop = |interface_index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface_index;
            hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, 1].into()))];
            hop
        };
        route.attributes = vec![RouteAttribute::MultiPath(vec![hop(3), hop(4)])];
        let mut model = Model::default();
        model.set_routes([&route].into_iter());
        let routes = model.view(3).routes;
        let gateway = Some(address([10, 0, 0, 1].into()));
        assert!(routes.len() == 1 && routes.iter().all(|r| r.prefix_len == 96 && r.gateway == gateway));
        assert!(routes.iter().all(|r| r.covers(&address([192, 0, 2, 1].into()))));
        route.header.table = 255;
        model.set_routes([&route].into_iter());
        assert!(model.view(3).routes.is_empty(), "the local table is not ours to send by");
    }
}
