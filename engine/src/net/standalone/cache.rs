//! Neighbours and what is known of them: RFC 4861, 7.3, and ARP the same way.
//!
//! ```text
//!   our send ──► Incomplete ── answer ──► Reachable ── 30 s ──► Stale ── our send ──► Delay ── 5 s ──► Probe
//!                    │ 3 asked                ▲                   ▲                                     │  │ 3 asked
//!                    ▼ (a gateway: on and on) └───── confirmed ───┼─────────────────────────────────────┘  ▼
//!                  gone                                           └── claimed                          Incomplete
//! ```
//!
//! Only our own sends make entries; gateways have theirs from the start, for good. A message that names another MAC for a neighbour
//! whose own is believed changes nothing by itself: the neighbour is asked at the MAC that is known, and only when it keeps silent
//! is everyone asked, and the first answer believed. So no flood can turn a gateway away, and one that really moved is found in
//! less than a second.
//!
//! An open hash table with entries of half a cache line: a lookup touches one line, seldom two, however many there are.

mod entry;
#[cfg(test)]
mod tests;

pub(super) use entry::{Answer, Ask, Key};

use super::StandaloneStats;
use crate::net::neighbours::Address;
use entry::{EMPTY, Entry, State};
use volley_wire::ethernet::Mac;

/// How long an answer is believed (RFC 4861, 10: REACHABLE_TIME).
const REACHABLE_MS: u32 = 30_000;
/// How long a stale neighbour is used before it is asked (DELAY_FIRST_PROBE_TIME).
const DELAY_NS: u64 = 5_000_000_000;
/// Between two questions (RETRANS_TIMER).
const RETRANSMIT_NS: u64 = 1_000_000_000;
/// Between two questions to a neighbour for which somebody else claims another MAC: all of them come before a player notices.
const CONTEST_NS: u64 = 200_000_000;
/// Between two questions for a gateway that does not answer, in the long run.
const PATIENCE_NS: u64 = 5_000_000_000;
/// Questions before giving up (MAX_UNICAST_SOLICIT, MAX_MULTICAST_SOLICIT).
const TRIES: u8 = 3;
/// How many slots are looked at for one that makes room.
const EVICTION_SCAN: usize = 64;

/// An entry that waits for an answer, or to be asked.
#[derive(Clone, Copy)]
struct Pending {
    key: Key,
    due_ns: u64,
    interval_ns: u64,
    tries: u8,
}

/// See the module.
pub(super) struct Cache {
    slots: Box<[Entry]>,
    mask: usize,
    len: usize,
    capacity: usize,
    pending: Vec<Pending>,
    most_pending: usize,
    pins: usize,
    next_due: u64,
    hand: usize,
    seed: u64,
    confirmed: u64,
    failed: u64,
    evicted: u64,
    refused: u64,
    contested: u64,
}

impl Cache {
    pub fn new(capacity: usize, most_pending: usize, seed: u64) -> Cache {
        let capacity = capacity.max(1);
        // At most four fifths full: a lookup looks at three neighbouring slots then, and a smaller table leaves less to the
        // caches of memory and of addresses than emptier slots would save.
        let slots = (capacity + capacity / 4 + 1).next_power_of_two();
        Cache {
            slots: vec![EMPTY; slots].into(),
            mask: slots - 1,
            len: 0,
            capacity,
            pending: Vec::with_capacity(most_pending.max(1)),
            most_pending: most_pending.max(1),
            pins: 0,
            next_due: u64::MAX,
            hand: 0,
            seed,
            confirmed: 0,
            failed: 0,
            evicted: 0,
            refused: 0,
            contested: 0,
        }
    }

    pub fn count_in(&self, stats: &mut StandaloneStats) {
        stats.confirmed = self.confirmed;
        stats.failed = self.failed;
        stats.evicted = self.evicted;
        stats.refused = self.refused;
        stats.contested = self.contested;
    }

    /// Makes a gateway's entry, before anything else, and has it asked for at once.
    pub fn pin(&mut self, key: Key) {
        if self.find(&key).is_none() && self.make_room() {
            let at = self.insert(key);
            self.slots[at].pinned = true;
            // A place of its own: whatever else is being asked for, a gateway can be.
            self.pins += 1;
            self.pending.reserve_exact(self.most_pending + self.pins);
            // Before the first turn: what is due at 0 is due.
            self.ask(key, 0, RETRANSMIT_NS);
        }
    }

    /// The neighbour's MAC, if it is known; if not, it is being asked for.
    #[inline]
    pub fn resolve(&mut self, key: Key, now_ns: u64) -> Option<Mac> {
        let Some(at) = self.find(&key) else {
            self.start(key, now_ns);
            return None;
        };
        let entry = &mut self.slots[at];
        // Written once and not each time, so that the lines of a large table stay clean.
        if !entry.used {
            entry.used = true;
        }
        match entry.state {
            State::Reachable if ms(now_ns).wrapping_sub(entry.since_ms) < REACHABLE_MS => {}
            State::Reachable | State::Stale => {
                entry.state = State::Stale;
                self.ask_later(at, key, now_ns);
            }
            State::Incomplete | State::Empty => return None,
            State::Delay | State::Probe => {}
        }
        Some(self.slots[at].mac)
    }

    #[cold]
    fn start(&mut self, key: Key, now_ns: u64) {
        if self.pending.len() < self.most_pending && self.make_room() {
            self.insert(key);
            self.ask(key, now_ns, RETRANSMIT_NS);
        } else {
            self.refused += 1;
        }
    }

    #[cold]
    fn ask_later(&mut self, at: usize, key: Key, now_ns: u64) {
        // With no room it stays stale: still good to send to, and looked at again by the next send.
        if self.ask(key, now_ns + DELAY_NS, RETRANSMIT_NS) {
            self.slots[at].state = State::Delay;
        }
    }

    /// A message says that the neighbour is at `mac`.
    pub fn heard(&mut self, key: Key, mac: Mac, answer: Answer, now_ns: u64) {
        let Some(at) = self.find(&key) else { return };
        let entry = &mut self.slots[at];
        let asked = matches!(answer, Answer::Solicited | Answer::Confirmation);
        match entry.state {
            State::Empty => {}
            State::Incomplete => {
                entry.mac = mac;
                entry.since_ms = ms(now_ns);
                entry.state = if asked { State::Reachable } else { State::Stale };
                self.settled(&key);
            }
            _ if entry.mac == mac => {
                if asked {
                    entry.state = State::Reachable;
                    entry.since_ms = ms(now_ns);
                    self.settled(&key);
                }
            }
            // It is being asked at its own MAC: until it has kept silent, nobody speaks for it.
            State::Probe => {}
            _ if matches!(answer, Answer::Confirmation | Answer::Hint) => {}
            state => {
                self.contested += 1;
                // A delay is cut short. A neighbour that has just answered is believed for a while: else every forged message
                // would cost a question.
                let believed = state == State::Reachable
                    && ms(now_ns).wrapping_sub(entry.since_ms) < (RETRANSMIT_NS / 1_000_000) as u32;
                if !believed {
                    self.forget(&key);
                    if self.ask(key, now_ns, CONTEST_NS) {
                        self.slots[at].state = State::Probe;
                    } else {
                        self.slots[at].state = State::Stale;
                    }
                }
            }
        }
    }

    fn settled(&mut self, key: &Key) {
        self.confirmed += 1;
        self.forget(key);
    }

    /// The next question that is due.
    pub fn next_ask(&mut self, now_ns: u64) -> Option<(Key, Ask)> {
        if now_ns < self.next_due {
            return None;
        }
        let mut found = None;
        let mut index = 0;
        while found.is_none() && index < self.pending.len() {
            let Pending { key, due_ns, interval_ns, tries } = self.pending[index];
            if due_ns > now_ns {
                index += 1;
                continue;
            }
            let Some(at) = self.find(&key) else {
                self.pending.swap_remove(index);
                continue;
            };
            let entry = &mut self.slots[at];
            let waits = &mut self.pending[index];
            match (entry.state, tries < TRIES) {
                (State::Incomplete, true) => {
                    (waits.due_ns, waits.tries) = (now_ns + interval_ns, tries + 1);
                    found = Some((key, Ask::Everyone));
                }
                (State::Incomplete, false) if entry.pinned => {
                    waits.due_ns = now_ns + PATIENCE_NS;
                    found = Some((key, Ask::Everyone));
                }
                (State::Incomplete, false) => {
                    self.failed += 1;
                    self.pending.swap_remove(index);
                    self.remove(at);
                }
                (State::Delay | State::Probe, true) => {
                    entry.state = State::Probe;
                    (waits.due_ns, waits.tries) = (now_ns + interval_ns, tries + 1);
                    found = Some((key, Ask::At(entry.mac)));
                }
                (State::Delay | State::Probe, false) => {
                    entry.state = State::Incomplete;
                    (waits.due_ns, waits.tries) = (now_ns + interval_ns, 1);
                    found = Some((key, Ask::Everyone));
                }
                _ => _ = self.pending.swap_remove(index),
            }
        }
        if found.is_none() {
            self.next_due = self.pending.iter().map(|waits| waits.due_ns).min().unwrap_or(u64::MAX);
        }
        found
    }

    /// When the next question is due; no later than that.
    pub fn next_due(&self) -> u64 {
        self.next_due
    }

    fn ask(&mut self, key: Key, due_ns: u64, interval_ns: u64) -> bool {
        let pinned = self.find(&key).is_some_and(|at| self.slots[at].pinned);
        let room = self.pending.len() < self.most_pending + if pinned { self.pins } else { 0 };
        if room {
            self.pending.push(Pending { key, due_ns, interval_ns, tries: 0 });
            self.next_due = self.next_due.min(due_ns);
        }
        room
    }

    fn forget(&mut self, key: &Key) {
        self.pending.retain(|waits| waits.key != *key);
    }

    #[inline]
    fn find(&self, key: &Key) -> Option<usize> {
        let mut at = self.home(&key.address, key.tag.tci);
        loop {
            let entry = &self.slots[at];
            if entry.state == State::Empty {
                return None;
            }
            if entry.address == key.address && entry.vlan == key.tag.tci {
                return Some(at);
            }
            at = (at + 1) & self.mask;
        }
    }

    #[inline]
    fn home(&self, address: &Address, vlan: u16) -> usize {
        hash(address, u64::from(vlan), self.seed) as usize & self.mask
    }

    /// There is room, or something makes room; false when all that was looked at is in use.
    fn make_room(&mut self) -> bool {
        if self.len < self.capacity {
            return true;
        }
        for _ in 0..EVICTION_SCAN.min(self.slots.len()) {
            let at = self.hand;
            self.hand = (self.hand + 1) & self.mask;
            let entry = &mut self.slots[at];
            let idle = matches!(entry.state, State::Reachable | State::Stale);
            if entry.pinned || !idle || std::mem::take(&mut entry.used) {
                continue;
            }
            self.evicted += 1;
            self.remove(at);
            return true;
        }
        false
    }

    fn insert(&mut self, key: Key) -> usize {
        let mut at = self.home(&key.address, key.tag.tci);
        while self.slots[at].state != State::Empty {
            at = (at + 1) & self.mask;
        }
        self.slots[at] = Entry {
            address: key.address,
            vlan: key.tag.tci,
            state: State::Incomplete,
            used: true,
            ..EMPTY
        };
        self.len += 1;
        at
    }

    /// Empties a slot, and moves up what stood behind it because of it.
    fn remove(&mut self, mut hole: usize) {
        self.len -= 1;
        let mut at = hole;
        loop {
            self.slots[hole] = EMPTY;
            loop {
                at = (at + 1) & self.mask;
                let entry = &self.slots[at];
                if entry.state == State::Empty {
                    return;
                }
                let home = self.home(&entry.address, entry.vlan);
                // It may move to the hole unless its home lies behind that.
                if at.wrapping_sub(home) & self.mask >= at.wrapping_sub(hole) & self.mask {
                    break;
                }
            }
            self.slots[hole] = self.slots[at];
            hole = at;
        }
    }
}

/// Milliseconds, wrapping after 49 days: ages are compared only as differences, and one that wraps is asked for once too seldom.
fn ms(now_ns: u64) -> u32 {
    (now_ns / 1_000_000) as u32
}

/// Spreads an address over a table: two folded multiplications, keyed.
#[inline]
pub(super) fn hash(address: &Address, with: u64, seed: u64) -> u64 {
    let value = u128::from_be_bytes(*address);
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let high = (value >> 64) as u64 ^ seed ^ 0x9e37_79b9_7f4a_7c15;
    let low = value as u64 ^ with.rotate_left(32) ^ 0xd1b5_4a32_d192_ed03;
    fold(fold(high | 1, low ^ seed.rotate_left(17)), 0xa076_1d64_78bd_642f)
}
