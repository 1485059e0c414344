//! How large packets to a peer may be (RFC 1191, RFC 8201).
//!
//! An error is believed only about a flow to which a packet that large was sent lately: who would lower our MTU from afar has to
//! know both addresses, both ports, and that we send large packets. What it can do then is bounded below by what every link
//! carries, and ends by itself.

use crate::net::Path;
use crate::net::neighbours::Address;

/// Smallest MTU believed over IPv4. RFC 1191 allows 68, but no link in use has less than 576 (RFC 791's reassembly size), and
/// smaller packets would cost us more than a peer is worth.
pub(in crate::net) const FLOOR_V4: u32 = 576;
/// Smallest MTU of any IPv6 link (RFC 8200, section 5).
pub(in crate::net) const FLOOR_V6: u32 = 1280;
/// How long an MTU is believed before a larger packet is tried again: RFC 1191 and RFC 8201 say ten minutes.
const AGE_NS: u64 = 600_000_000_000;
/// How long a large packet is remembered. An error takes a round trip; a minute covers any.
const NOTE_NS: u64 = 60_000_000_000;
/// Ways of a set: the oldest makes room.
const WAYS: usize = 4;
/// Flows remembered to have got large packets, 16 bytes each.
const NOTES: usize = 4096;
/// Common MTUs, for routers that do not say theirs (RFC 1191, section 7.1).
const PLATEAUS: [u32; 7] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006];

#[derive(Clone, Copy)]
struct Entry {
    peer: Address,
    mtu: u32,
    /// Zero: empty.
    until_ns: u64,
}

/// What became of a router's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lowered {
    /// Believed: packets to the peer have so many bytes from now on.
    To(u32),
    /// Nothing new, or nothing that can be.
    Known,
    /// This queue has sent no packet that large there.
    NotSent,
}

/// See the module.
pub(super) struct PathMtus {
    entries: Box<[[Entry; WAYS]]>,
    notes: Box<[(u64, u64)]>,
    seed: u64,
}

impl PathMtus {
    pub fn new(capacity: usize, seed: u64) -> PathMtus {
        let empty = Entry { peer: [0; 16], mtu: 0, until_ns: 0 };
        let sets = (capacity / WAYS).next_power_of_two();
        PathMtus { entries: vec![[empty; WAYS]; sets].into(), notes: vec![(0, 0); NOTES].into(), seed }
    }

    /// What is known about the peer.
    pub fn get(&self, peer: &Address, now_ns: u64) -> Option<u32> {
        let set = &self.entries[self.set(peer)];
        set.iter().find(|entry| entry.until_ns > now_ns && entry.peer == *peer).map(|entry| entry.mtu)
    }

    /// A large packet goes out.
    pub fn note(&mut self, path: &Path, now_ns: u64) {
        let flow = self.flow(path);
        self.notes[flow as usize % NOTES] = (flow, now_ns + NOTE_NS);
    }

    /// A router says that a packet of `len` bytes over `path` did not fit a link of `mtu`.
    pub fn lower(&mut self, path: &Path, len: usize, mtu: u32, now_ns: u64) -> Lowered {
        let floor = if path.is_ipv4() { FLOOR_V4 } else { FLOOR_V6 };
        let mtu = match mtu {
            0 => PLATEAUS.into_iter().find(|plateau| (*plateau as usize) < len).unwrap_or(floor),
            said => said,
        };
        // A packet that was small enough for any link does not need to be smaller, whatever the router says.
        if mtu as usize >= len || len <= floor as usize {
            return Lowered::Known;
        }
        let flow = self.flow(path);
        let (noted, until) = self.notes[flow as usize % NOTES];
        if noted != flow || until <= now_ns {
            return Lowered::NotSent;
        }
        let mtu = mtu.max(floor);
        if self.believe(&path.peer, mtu, now_ns) { Lowered::To(mtu) } else { Lowered::Known }
    }

    /// Packets to the peer have at most `mtu` bytes from now on; false when it was known that they have no more.
    pub fn believe(&mut self, peer: &Address, mtu: u32, now_ns: u64) -> bool {
        if self.get(peer, now_ns).is_some_and(|known| known <= mtu) {
            return false;
        }
        let at = self.set(peer);
        let set = &mut self.entries[at];
        let way = set.iter().position(|entry| entry.peer == *peer && entry.until_ns > 0);
        let oldest = (0..WAYS).min_by_key(|way| set[*way].until_ns).unwrap_or(0);
        set[way.unwrap_or(oldest)] = Entry { peer: *peer, mtu, until_ns: now_ns + AGE_NS };
        true
    }

    fn set(&self, peer: &Address) -> usize {
        super::cache::hash(peer, 0, self.seed) as usize & (self.entries.len() - 1)
    }

    fn flow(&self, path: &Path) -> u64 {
        let ports = u64::from(path.local_port) << 16 | u64::from(path.peer_port);
        let local = super::cache::hash(&path.local, ports, self.seed);
        super::cache::hash(&path.peer, local, self.seed) | 1
    }
}
