//! The rules of the XDP program, applied by the worker: the same function over the same table, with the same counters.
//!
//! Redirected packets are the app's. What a rule drops is dropped here. What would be the kernel's is marked
//! ([`flag::NOT_STEERED`]): no kernel stands behind the port, so the net layer answers for it (ARP, neighbour discovery, ICMP) or
//! hands it on.
//!
//! [`flag::NOT_STEERED`]: crate::frame::flag::NOT_STEERED

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use volley_steer::abi::{COUNTER_SLOTS, Counter, Counters, MAX_BUCKETS, RuleList, RuleTable};
use volley_steer::{Env, Protocol, Unbound, Verdict, headers, steer};

/// Rules, and what all ports under them have counted.
#[derive(Clone)]
pub struct Steering {
    rules: Arc<RuleTable>,
    boards: Arc<Mutex<Vec<Arc<Board>>>>,
}

/// Where one port publishes its counters.
struct Board([AtomicU64; COUNTER_SLOTS]);

/// One port's share: the rules to read, counters of its own.
pub struct Steerer {
    rules: Arc<RuleTable>,
    counted: [Cell<u64>; COUNTER_SLOTS],
    buckets: Box<[Cell<u64>]>,
    since: Instant,
    /// Where the last plain datagram that was redirected went, for the next, which most often goes there too.
    last: Cell<Goal>,
    board: Arc<Board>,
}

impl Steering {
    /// Steers by `rules`.
    pub fn new(rules: Box<RuleTable>) -> Steering {
        Steering { rules: Arc::from(rules), boards: Arc::default() }
    }

    /// A port's share.
    pub fn steerer(&self) -> Steerer {
        let board = Arc::new(Board(std::array::from_fn(|_| AtomicU64::new(0))));
        if let Ok(mut boards) = self.boards.lock() {
            boards.push(Arc::clone(&board));
        }
        Steerer {
            rules: Arc::clone(&self.rules),
            counted: std::array::from_fn(|_| Cell::new(0)),
            buckets: (0..MAX_BUCKETS).map(|_| Cell::new(0)).collect(),
            since: Instant::now(),
            last: Cell::new(Goal::NONE),
            board,
        }
    }

    /// Packets by verdict, as published.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for board in self.boards.lock().iter().flat_map(|boards| boards.iter()) {
            for (sum, count) in sum.values.iter_mut().zip(&board.0) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        sum
    }
}

impl Steerer {
    /// Decides for one packet, and counts it.
    #[inline(always)]
    pub fn steer(&self, packet: &[u8]) -> Verdict {
        if self.last.get().is_of(packet) {
            self.count(Counter::Redirected);
            return Verdict::Redirect;
        }
        self.decide(packet)
    }

    /// Decides for a burst of at most 64, and counts each.
    #[inline(always)]
    pub fn steer_all<'p>(&self, packets: impl Iterator<Item = &'p [u8]>) -> Steered {
        let mut steered = Steered { passed: 0, dropped: 0 };
        let (mut last, mut redirected) = (self.last.get(), 0);
        for (at, packet) in packets.enumerate() {
            if last.is_of(packet) {
                redirected += 1;
                continue;
            }
            match self.decide(packet) {
                Verdict::Redirect => {}
                Verdict::Pass => steered.passed |= 1 << at,
                Verdict::Drop => steered.dropped |= 1 << at,
            }
            last = self.last.get();
        }
        self.count_more(Counter::Redirected, redirected);
        steered
    }

    /// As [`Steerer::steer`], by the rules.
    #[inline(never)]
    fn decide(&self, packet: &[u8]) -> Verdict {
        let verdict = steer(packet, self);
        // The rules of a port stay what they are, and nothing else of a plain datagram counts.
        if verdict == Verdict::Redirect && headers::find_plain(packet).is_some() {
            self.last.set(Goal::of(packet));
        }
        verdict
    }

    #[inline(always)]
    fn count_more(&self, counter: Counter, more: u64) {
        let place = &self.counted[counter as usize];
        place.set(place.get() + more);
    }

    /// Packets counted for one reason.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counted[counter as usize].get()
    }

    /// Lets others see the counters.
    pub fn publish(&self) {
        for (count, place) in self.counted.iter().zip(&self.board.0) {
            place.store(count.get(), Ordering::Relaxed);
        }
    }
}

impl Env for Steerer {
    #[inline(always)]
    fn rules(&self, protocol: Protocol, port: u16) -> Option<&RuleList> {
        self.rules.rules(protocol, port)
    }

    /// The port's own queue always has somebody to take the packet.
    #[inline(always)]
    fn redirect(&self, _: Unbound) -> Verdict {
        Verdict::Redirect
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        self.since.elapsed().as_nanos() as u64
    }

    #[inline(always)]
    fn bucket(&self, number: u32) -> Option<&Cell<u64>> {
        self.buckets.get(number as usize)
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        self.count_more(counter, 1);
    }
}

/// What became of a burst: a bit for each packet, the lowest for the first. All others are redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steered {
    /// Those that are the kernel's.
    pub passed: u64,
    /// Those that are dropped.
    pub dropped: u64,
}

/// What plain datagrams for one address and port have in common: four words of their headers, as far as [`Goal::MASK`] goes. They are
/// compared without finding the fields first, which is why this is quicker than [`headers::find_plain`] with what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Goal([u64; 4]);

impl Goal {
    /// Where the words begin.
    const AT: usize = 8;
    /// Bytes of a datagram's headers, over IPv4.
    const HEAD: usize = 14 + 20 + 8;
    /// EtherType, version and header length; fragment and protocol; destination address, in two words; destination port.
    const MASK: [u64; 4] = [
        u64::from_le_bytes([0, 0, 0, 0, 0xff, 0xff, 0xff, 0]),
        u64::from_le_bytes([0, 0, 0, 0, 0x3f, 0xff, 0, 0xff]),
        u64::from_le_bytes([0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        u64::from_le_bytes([0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]),
    ];
    /// No packet's.
    const NONE: Goal = Goal([u64::MAX; 4]);

    #[inline(always)]
    fn words(head: &[u8; Goal::HEAD]) -> [u64; 4] {
        std::array::from_fn(|n| {
            let word = head[Goal::AT + 8 * n..].first_chunk().expect("the fourth ends within the headers");
            u64::from_le_bytes(*word) & Goal::MASK[n]
        })
    }

    /// Of a packet that is a plain datagram.
    fn of(packet: &[u8]) -> Goal {
        packet.first_chunk().map_or(Goal::NONE, |head| Goal(Goal::words(head)))
    }

    /// True when the packet is a plain datagram for there.
    #[inline(always)]
    fn is_of(&self, packet: &[u8]) -> bool {
        let Some(head) = packet.first_chunk::<{ Goal::HEAD }>() else { return false };
        let differ =
            Goal::words(head).iter().zip(&self.0).fold(0, |differ, (ours, its)| differ | ours ^ its);
        differ == 0 && usize::from(u16::from_be_bytes([head[16], head[17]])) >= Goal::HEAD - 14
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::packet::Packet;
    use proptest::prelude::*;

    /// To 10.0.0.1, port 7777.
    fn packet() -> Vec<u8> {
        Packet::new("10.0.0.2:1".parse().unwrap(), "10.0.0.1:7777".parse().unwrap(), b"hello").build()
    }

    proptest! {
        /// Whatever is wrong with a packet, or other: what the goal says it has in common with the last, find_plain says, too.
        #[test]
        fn a_packet_for_the_same_goal_is_a_plain_datagram_for_it(
            changes in proptest::collection::vec((0usize..60, any::<u8>()), 0..4), len in 30usize..70,
        ) {
            let first = packet();
            let goal = Goal::of(&first);
            prop_assert!(goal.is_of(&first));
            let mut other = first.clone();
            other.resize(len, 0);
            for (at, byte) in changes {
                if let Some(place) = other.get_mut(at) { *place = byte; }
            }
            let to = |bytes: &[u8]| headers::find_plain(bytes).map(|found| (found.destination, found.destination_port));
            prop_assert_eq!(goal.is_of(&other), to(&other) == to(&first), "{:?}", other);
            prop_assert!(!Goal::NONE.is_of(&other));
        }
    }
}
