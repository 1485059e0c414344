//! What a kernel would do for a port that has none behind it: ARP, neighbour discovery, echo, and the MTU of paths.
//!
//! ```text
//!   ARP, NDP, ICMP ──► Standalone ──► answered in the frame · learned from · none of ours (to the exception path)
//!   send to a peer not heard from ──► resolve ──► Hop, or a solicitation that `next_output` gives out
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`config`] | addresses, gateways, sizes, limits |
//! | `cache` | neighbours and their states (RFC 4861, 7.3; ARP the same way) |
//! | `pmtu` | how large packets to a peer may be (RFC 1191, RFC 8201) |
//! | `arp`, `ndp`, `icmp` | one message each: what it says, and its answer |
//! | `output` | what is sent unasked: solicitations, announcements |
//! | [`siblings`] | what neighbours and routers say, told to the other queues of the device |
//! | `limiter` | so many a second, and no more |
//!
//! Nothing here allocates after construction, asks a clock, or owns a frame. Nothing that arrives makes an entry: only our own sends
//! do, and what arrives changes them as far as it may.

mod arp;
mod cache;
pub mod config;
mod icmp;
mod limiter;
mod ndp;
mod output;
mod pmtu;
pub mod siblings;

pub use config::{Gateway, Limits, LocalAddress, StandaloneConfig, StandaloneError};

use super::ip::{self, LinkHeader};
use super::neighbours::{Address, Hop, Route};
use super::{Path, Tag};
use crate::datagram::SendError;
use crate::frame::{BURST, Frame, flag};
use crate::time::Now;
use cache::{Answer, Cache, Key};
use limiter::Limiter;
use pmtu::{Lowered, PathMtus};
use serde::Serialize;
use siblings::{News, Siblings};
use volley_wire::DropReason;
use volley_wire::ethernet::{self, Mac, ethertype};
use volley_wire::ipv4::protocol;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Packets up to this length reach everybody, whatever a router says.
pub(super) const SMALLEST_MTU: usize = pmtu::FLOOR_V4 as usize;

/// What happened on a port without a kernel, since it was opened. In messages unless said otherwise.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StandaloneStats {
    /// ARP requests answered.
    pub arp_answered: u64,
    /// Neighbour solicitations answered.
    pub ndp_answered: u64,
    /// Echoes answered, ICMP and ICMPv6.
    pub echo_answered: u64,
    /// Requests and solicitations sent.
    pub solicited: u64,
    /// Announcements of our addresses sent.
    pub announced: u64,
    /// Neighbours whose MAC became known, or was confirmed.
    pub confirmed: u64,
    /// Neighbours given up: they did not answer.
    pub failed: u64,
    /// Neighbours that made room for others.
    pub evicted: u64,
    /// Neighbours not asked for, because as many as may be are asked for already, or because the cache is full.
    pub refused: u64,
    /// Messages that claimed another MAC for a neighbour whose own is still believed; it is asked first.
    pub contested: u64,
    /// Messages of somebody else with one of our addresses.
    pub conflicts: u64,
    /// Path MTUs lowered.
    pub pmtu_lowered: u64,
    /// "Too big" about packets that this queue has not sent (another may have, and is told), or smaller than there need to be.
    pub pmtu_refused: u64,
    /// Other ICMP errors about our datagrams.
    pub errors: u64,
    /// Packets of the kernel sent on.
    pub forwarded: u64,
    /// Packets of the kernel for which there was no room.
    pub forward_dropped: u64,
    /// What neighbours and routers had said to other queues of the device, heard from those.
    pub told: u64,
    /// What neighbours and routers had said, and another queue had no room to hear.
    pub untold: u64,
}

impl StandaloneStats {
    /// Each counter with its name for people.
    pub fn named(&self) -> [(&'static str, u64); 18] {
        [
            ("ARP answered", self.arp_answered),
            ("NDP answered", self.ndp_answered),
            ("pings answered", self.echo_answered),
            ("solicited", self.solicited),
            ("announced", self.announced),
            ("neighbours confirmed", self.confirmed),
            ("neighbours failed", self.failed),
            ("neighbours evicted", self.evicted),
            ("neighbours refused", self.refused),
            ("MACs contested", self.contested),
            ("address conflicts", self.conflicts),
            ("path MTUs lowered", self.pmtu_lowered),
            ("path MTUs refused", self.pmtu_refused),
            ("ICMP errors", self.errors),
            ("forwarded for the kernel", self.forwarded),
            ("dropped for the kernel", self.forward_dropped),
            ("heard from other queues", self.told),
            ("not told to other queues", self.untold),
        ]
    }
}

/// An address of ours, as it is compared.
#[derive(Clone, Copy, Debug)]
struct Own {
    address: Address,
    tag: Tag,
}

/// What becomes of a packet.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Its frames hold the answer.
    Answered,
    /// Done with.
    Handled,
    /// Learned from, and the kernel, if there is one, wants to know as well.
    Learned,
    /// None of ours.
    NotOurs,
    /// Refused.
    Drop(DropReason),
}

/// See the module.
pub(crate) struct Standalone {
    mac: Mac,
    own: Vec<Own>,
    /// Longest prefix first.
    routes: Vec<Route>,
    cache: Cache,
    pmtus: PathMtus,
    answers: Limiter,
    echoes: Limiter,
    errors: Limiter,
    announcements: output::Announcements,
    siblings: Option<Siblings>,
    stats: StandaloneStats,
}

/// What a packet is besides its bytes.
#[derive(Clone, Copy)]
struct Arrived<'a> {
    link: &'a LinkHeader,
    verify: bool,
    now_ns: u64,
}

impl Standalone {
    pub fn new(config: &mut StandaloneConfig, mac: Mac) -> Standalone {
        let own: Vec<Own> =
            config.addresses.iter().map(|local| Own { address: local.key(), tag: local.tag() }).collect();
        let routes = config.routes();
        let mut cache = Cache::new(config.neighbours, config.pending, config.seed);
        for route in &routes {
            if let Some(gateway) = route.gateway {
                cache.pin(Key { address: gateway, tag: route.tag });
            }
        }
        let Limits { answers, echoes, errors } = config.limits;
        Standalone {
            mac,
            announcements: output::Announcements::new(own.len()),
            own,
            routes,
            cache,
            pmtus: PathMtus::new(config.path_mtus, config.seed),
            answers: Limiter::new(answers),
            echoes: Limiter::new(echoes),
            errors: Limiter::new(errors),
            siblings: config.siblings.take(),
            stats: StandaloneStats::default(),
        }
    }

    pub fn mac(&self) -> Mac {
        self.mac
    }

    pub fn stats(&self) -> StandaloneStats {
        let mut stats = self.stats;
        self.cache.count_in(&mut stats);
        stats
    }

    pub fn stats_mut(&mut self) -> &mut StandaloneStats {
        &mut self.stats
    }

    /// True when `address` is ours in the VLAN of `link`.
    fn owns(&self, address: &Address, link: &LinkHeader) -> bool {
        let Some(tag) = vlan(link) else { return false };
        self.own.iter().any(|own| own.address == *address && own.tag == tag)
    }

    /// Looks at a packet (in one frame or several) that is no datagram for the app.
    pub fn handle(&mut self, chain: &mut [Frame], now: Now) -> Outcome {
        let total = chain.iter().map(Frame::len).sum();
        let verify = !chain.iter().all(|f| f.has(flag::CHECKSUM_VERIFIED | flag::CHECKSUM_PARTIAL));
        let link = match ip::link(chain[0].bytes()) {
            Ok(link) => link,
            Err(reason) => return Outcome::Drop(reason),
        };
        // A frame that says it comes from ourselves is an echo of the link, or a forgery.
        if ethernet::is_multicast(&link.source) || link.source == self.mac {
            return Outcome::Drop(DropReason::BadSource);
        }
        let arrived = Arrived { link: &link, verify, now_ns: now.ns };
        if link.ethertype == ethertype::ARP {
            return self.arp(&mut chain[0], arrived);
        }
        let header = match ip::header(chain[0].bytes(), &link, total, verify) {
            Ok(header) => header,
            Err(DropReason::EtherType | DropReason::Fragment) => return Outcome::NotOurs,
            Err(reason) => return Outcome::Drop(reason),
        };
        match (header.ipv4, header.protocol) {
            (true, protocol::ICMP) | (false, protocol::ICMPV6) => self.icmp(chain, &header, arrived),
            _ => Outcome::NotOurs,
        }
    }

    /// The way to the peer of a path that has not been heard from.
    pub fn resolve(&mut self, path: &Path, now_ns: u64) -> Result<Hop, SendError> {
        let route = self.routes.iter().find(|route| route.covers(&path.peer)).ok_or(SendError::NoRoute)?;
        let local = match path.local().ip().is_unspecified() {
            true => route.source.ok_or(SendError::NoRoute)?,
            false => {
                let ours = self.own.iter().any(|own| own.address == path.local && own.tag == route.tag);
                if ours { path.local } else { return Err(SendError::NoRoute) }
            }
        };
        let key = Key { address: route.gateway.unwrap_or(path.peer), tag: route.tag };
        match self.cache.resolve(key, now_ns) {
            Some(mac) => Ok(Hop { mac, tag: route.tag, local }),
            None => Err(SendError::Unresolved),
        }
    }

    /// A neighbour says where it is.
    fn heard(&mut self, address: Address, link: &LinkHeader, mac: Mac, answer: Answer, now_ns: u64) {
        if let Some(tag) = vlan(link) {
            let key = Key { address, tag };
            self.cache.heard(key, mac, answer, now_ns);
            if let Some(siblings) = &mut self.siblings {
                self.stats.untold += siblings.tell(News::Neighbour { key, mac, answer });
            }
        }
    }

    /// A router says that a packet of `len` bytes over `path` was too big for a link of `mtu`.
    fn too_big(&mut self, path: &Path, len: usize, mtu: u32, now_ns: u64) {
        let believed = self.pmtus.lower(path, len, mtu, now_ns);
        match believed {
            Lowered::To(_) => self.stats.pmtu_lowered += 1,
            Lowered::Known | Lowered::NotSent => self.stats.pmtu_refused += 1,
        }
        let Some(siblings) = &mut self.siblings else { return };
        self.stats.untold += match believed {
            Lowered::To(mtu) => siblings.tell(News::PathMtu { peer: path.peer, mtu }),
            // Another queue may have sent it.
            Lowered::NotSent => siblings.tell(News::TooBig { path: *path, len, mtu }),
            Lowered::Known => 0,
        };
    }

    /// Hears what neighbours and routers have said to other queues.
    pub fn hear_siblings(&mut self, now_ns: u64) {
        let Some(siblings) = &mut self.siblings else { return };
        // So many a turn: whoever is told more lets the rest wait, and the rings fill.
        for _ in 0..BURST {
            let Some(news) = siblings.hear() else { return };
            match news {
                News::Neighbour { key, mac, answer } => self.cache.heard(key, mac, answer, now_ns),
                News::PathMtu { peer, mtu } => {
                    self.stats.pmtu_lowered += u64::from(self.pmtus.believe(&peer, mtu, now_ns));
                }
                News::TooBig { path, len, mtu } => {
                    // Refused was it by the one who heard it: if it is not ours either, nothing new has happened.
                    if let Lowered::To(mtu) = self.pmtus.lower(&path, len, mtu, now_ns) {
                        self.stats.pmtu_lowered += 1;
                        self.stats.untold += siblings.tell(News::PathMtu { peer: path.peer, mtu });
                    }
                }
            }
            self.stats.told += 1;
        }
    }

    /// Largest IP packet that reaches the peer, as far as is known and at most `mtu`.
    pub fn path_mtu(&self, path: &Path, mtu: usize, now_ns: u64) -> usize {
        self.pmtus.get(&path.peer, now_ns).map_or(mtu, |known| mtu.min(known as usize))
    }

    /// True when a packet of `len` bytes (from the IP header on) reaches the peer, as far as is known. A packet this large is
    /// remembered, so that an error about it is believed.
    pub fn admits(&mut self, path: &Path, len: usize, mtu: usize, now_ns: u64) -> bool {
        let fits = len <= self.path_mtu(path, mtu, now_ns);
        if fits {
            self.pmtus.note(path, now_ns);
        }
        fits
    }

    /// The next moment at which [`Standalone::next_output`] has something. O(1).
    pub fn next_deadline(&self) -> u64 {
        self.cache.next_due().min(self.announcements.next_due())
    }
}

/// The VLAN a packet is in, as [`Hop::tag`] has it; `None` for stacked tags, in which no address of ours is.
fn vlan(link: &LinkHeader) -> Option<Tag> {
    match link.depth {
        0 => Some(Tag::default()),
        1 if link.tags[0].tpid == ethertype::VLAN => Some(config::tag(link.tags[0].tci & 0xfff)),
        _ => None,
    }
}
