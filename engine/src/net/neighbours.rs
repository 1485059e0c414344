//! What a worker knows of the link: its own copy of neighbours, routes and addresses, fed by the control thread.
//!
//! ```text
//!   kernel ── rtnetlink ──► control thread ── Update (bounded SPSC) ──► Neighbours of each Net
//!                                 ▲                                          │ not known
//!                                 └─────────── Ask (bounded SPSC) ───────────┘
//! ```
//!
//! All tables have their full size from the start; what does not fit is refused and counted. It never waits for an answer:
//! a send that finds no link-layer address fails and asks for one.

use super::Tag;
use super::path::{Path, mapped};
use crate::datagram::SendError;
use crate::worker::Waker;
use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use volley_wire::ethernet::Mac;

/// An IP address in 16 bytes, IPv4 in its mapped form (::ffff:a.b.c.d).
pub type Address = [u8; 16];

/// Most neighbours kept. Four times the kernel's own default limit (`gc_thresh3`, 1,024); beyond, sends to the rest of a
/// larger LAN need a path heard from the peer.
pub const MAX_NEIGHBOURS: usize = 4096;
/// Most routes kept, best known first come. They are searched one by one, by sends to peers never heard from only.
pub const MAX_ROUTES: usize = 1024;
/// Most addresses of our own kept.
pub const MAX_ADDRESSES: usize = 256;
/// Updates under way to one worker. A full ring delays: the control thread keeps what is left and tries again.
const UPDATES: usize = 1024;
/// Questions under way to the control thread. A full ring loses them; the next send asks again.
const ASKS: usize = 256;
/// Updates applied per receive, at some 50 ns each: a burst of them must not hold up packets.
const BUDGET: usize = 32;
/// Nanoseconds before the same question is asked again (0.1 s): the kernel itself retries once a second. Lower is work for
/// nothing, higher delays the first datagram after a question was lost.
const ASK_AGAIN: u64 = 100_000_000;
/// Questions remembered in order not to repeat them; two that collide repeat each other.
const RECENT: usize = 64;

/// A host on the link, untagged or in one VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// The VLAN; [`Tag::default`] is none.
    pub tag: Tag,
    /// Its address.
    pub address: Address,
}

/// Where a neighbour can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its MAC.
    pub mac: Mac,
    /// The kernel is no longer sure; using it asks the kernel to make sure.
    pub stale: bool,
}

/// A route out of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The destination's leading bits.
    pub prefix: Address,
    /// How many of them count, 0 to 128 (an IPv4 prefix has 96 more than usual).
    pub prefix_len: u8,
    /// Smaller is better among routes with the same prefix.
    pub metric: u32,
    /// The next hop; `None` when the destination is on the link.
    pub gateway: Option<Address>,
    /// The source address the kernel would choose.
    pub source: Option<Address>,
    /// The VLAN it leaves in.
    pub tag: Tag,
}

/// The interface under a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is there.
    Present {
        /// It may carry packets: up, with a carrier.
        up: bool,
        /// Its MAC.
        mac: Mac,
        /// Its MTU, in bytes.
        mtu: u32,
    },
    /// It was removed, or moved to another network namespace.
    Removed,
}

/// One change of what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The interface changed.
    Link(Link),
    /// An address of this host (of any interface) came or went.
    Address(Address, bool),
    /// A route came or went.
    Route(Route, bool),
    /// A neighbour's MAC; `None` when it is not known any more.
    Neighbour(Neighbour, Option<Reached>),
    /// Everything known at the start has been told.
    Complete,
}

/// A worker's end of the two rings to the control thread.
pub struct Subscription {
    updates: Consumer<Update>,
    asks: Producer<Neighbour>,
    control: Arc<Waker>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

/// The control thread's end.
pub struct Publisher {
    /// What goes to the worker.
    pub updates: Producer<Update>,
    /// Neighbours the worker wants resolved.
    pub asks: Consumer<Neighbour>,
}

/// The two rings between a [`super::Net`] and whoever knows the link; `control` is woken when a question was put.
pub fn subscription(control: Arc<Waker>) -> (Subscription, Publisher) {
    let (publish, updates) = RingBuffer::new(UPDATES);
    let (ask, asks) = RingBuffer::new(ASKS);
    (Subscription { updates, asks: ask, control }, Publisher { updates: publish, asks })
}

/// How to reach a peer: what a packet to it needs besides addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(super) mac: Mac,
    pub(super) tag: Tag,
    pub(super) local: Address,
}

/// The tables.
pub(super) struct Neighbours {
    subscription: Option<Subscription>,
    link: Option<Link>,
    complete: bool,
    table: HashMap<Neighbour, Reached, BuildHasherDefault<DefaultHasher>>,
    /// Longest prefix first, then smallest metric.
    routes: Vec<Route>,
    addresses: Vec<Address>,
    recent: [Option<(Neighbour, u64)>; RECENT],
    refused: u64,
}

impl Neighbours {
    pub(super) fn new(subscription: Option<Subscription>) -> Neighbours {
        let active = subscription.is_some();
        let room = |entries| if active { entries } else { 0 };
        Neighbours {
            subscription,
            link: None,
            complete: false,
            // Twice the most entries, so that entries coming and going never make it grow.
            table: HashMap::with_capacity_and_hasher(room(2 * MAX_NEIGHBOURS), BuildHasherDefault::new()),
            routes: Vec::with_capacity(room(MAX_ROUTES)),
            addresses: Vec::with_capacity(room(MAX_ADDRESSES)),
            recent: [None; RECENT],
            refused: 0,
        }
    }

    /// The next update, if there is one.
    #[inline(always)]
    pub(super) fn has_news(&self) -> bool {
        self.subscription.as_ref().is_some_and(|s| !s.updates.is_empty())
    }

    /// Applies waiting updates, a bounded number; returns the link's state when it is among them.
    #[cold]
    pub(super) fn catch_up(&mut self) -> Option<Link> {
        let mut link = None;
        for _ in 0..BUDGET {
            let Some(update) = self.subscription.as_mut().and_then(|s| s.updates.pop().ok()) else { break };
            if let Update::Link(news) = update {
                link = Some(news);
            }
            self.apply(update);
        }
        link
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Link(link) => self.link = Some(link),
            Update::Complete => self.complete = true,
            Update::Neighbour(neighbour, None) => {
                self.table.remove(&neighbour);
            }
            Update::Neighbour(neighbour, Some(reached)) => {
                match self.table.len() < MAX_NEIGHBOURS || self.table.contains_key(&neighbour) {
                    true => _ = self.table.insert(neighbour, reached),
                    false => self.refused += 1,
                }
            }
            Update::Address(address, there) => {
                let at = self.addresses.iter().position(|known| *known == address);
                match (at, there) {
                    (Some(at), false) => _ = self.addresses.swap_remove(at),
                    (None, true) if self.addresses.len() < MAX_ADDRESSES => self.addresses.push(address),
                    (None, true) => self.refused += 1,
                    _ => {}
                }
            }
            Update::Route(route, there) => {
                let order = |r: &Route| (std::cmp::Reverse(r.prefix_len), r.metric, *r);
                match (self.routes.binary_search_by_key(&order(&route), order), there) {
                    (Ok(at), false) => _ = self.routes.remove(at),
                    (Err(at), true) if self.routes.len() < MAX_ROUTES => self.routes.insert(at, route),
                    (Err(_), true) => self.refused += 1,
                    _ => {}
                }
            }
        }
    }

    /// Updates that found no room since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn link(&self) -> Option<Link> {
        self.link
    }

    /// The way to the peer of a path that has not been heard from.
    pub(super) fn resolve(&mut self, path: &Path, now_ns: u64) -> Result<Hop, SendError> {
        match self.find(path) {
            Ok((hop, neighbour, stale)) => {
                if stale {
                    self.ask(neighbour, now_ns);
                }
                Ok(hop)
            }
            Err(Miss::NoRoute) => Err(SendError::NoRoute),
            Err(Miss::NotYet) => Err(SendError::Unresolved),
            Err(Miss::Unknown(neighbour)) => {
                self.ask(neighbour, now_ns);
                Err(SendError::Unresolved)
            }
        }
    }

    fn find(&self, path: &Path) -> Result<(Hop, Neighbour, bool), Miss> {
        if self.subscription.is_none() {
            return Err(Miss::NoRoute);
        }
        if !self.complete {
            return Err(Miss::NotYet);
        }
        let route = self.routes.iter().find(|route| route.covers(&path.peer)).ok_or(Miss::NoRoute)?;
        let unspecified = path.local().ip().is_unspecified();
        let local = match unspecified {
            false if self.addresses.contains(&path.local) => path.local,
            // An answer to an address that is not ours would never come back.
            false => return Err(Miss::NoRoute),
            true => route.source.or_else(|| self.address_within(route)).ok_or(Miss::NoRoute)?,
        };
        let neighbour = Neighbour { tag: route.tag, address: route.gateway.unwrap_or(path.peer) };
        match self.table.get(&neighbour) {
            Some(reached) => {
                Ok((Hop { mac: reached.mac, tag: route.tag, local }, neighbour, reached.stale))
            }
            None => Err(Miss::Unknown(neighbour)),
        }
    }

    /// The first of our addresses that the kernel could have meant: on the link the route leads over.
    fn address_within(&self, route: &Route) -> Option<Address> {
        let reach = |address: &&Address| match route.gateway {
            None => route.covers(address),
            Some(gateway) => self
                .routes
                .iter()
                .any(|link| link.gateway.is_none() && link.covers(&gateway) && link.covers(address)),
        };
        self.addresses.iter().find(reach).copied()
    }

    /// Asks the control thread to have `neighbour` resolved, unless it was asked a moment ago.
    fn ask(&mut self, neighbour: Neighbour, now_ns: u64) {
        let mut hasher = DefaultHasher::new();
        neighbour.hash(&mut hasher);
        let slot = &mut self.recent[hasher.finish() as usize % RECENT];
        if slot.is_some_and(|(last, at)| last == neighbour && now_ns.saturating_sub(at) < ASK_AGAIN) {
            return;
        }
        let Some(subscription) = &mut self.subscription else { return };
        if subscription.asks.push(neighbour).is_ok() {
            *slot = Some((neighbour, now_ns));
            subscription.control.notify();
        }
    }
}

enum Miss {
    NoRoute,
    NotYet,
    Unknown(Neighbour),
}

impl Route {
    /// True when `address` lies under the prefix.
    pub fn covers(&self, address: &Address) -> bool {
        let difference = u128::from_be_bytes(self.prefix) ^ u128::from_be_bytes(*address);
        difference.leading_zeros() >= u32::from(self.prefix_len)
    }
}

/// An address in the form the tables hold.
pub fn address(ip: IpAddr) -> Address {
    mapped(ip)
}
