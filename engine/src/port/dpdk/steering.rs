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
use volley_steer::{Address, Env, Protocol, Unbound, Verdict, headers, steer};

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
    /// Address and port of the last plain datagram that was redirected, for the next, which most often goes there too.
    last: Cell<(Address, u16)>,
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
            // Plain datagrams are IPv4.
            last: Cell::new((Address::V6([0; 4]), 0)),
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
        let plain = headers::find_plain(packet);
        let to = plain.map(|found| (found.destination, found.destination_port));
        if to == Some(self.last.get()) {
            self.count(Counter::Redirected);
            return Verdict::Redirect;
        }
        self.decide(packet, to)
    }

    /// As [`Steerer::steer`], by the rules.
    fn decide(&self, packet: &[u8], to: Option<(Address, u16)>) -> Verdict {
        let verdict = steer(packet, self);
        // The rules of a port stay what they are, and nothing else of a plain datagram counts.
        if let (Verdict::Redirect, Some(to)) = (verdict, to) {
            self.last.set(to);
        }
        verdict
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
        let place = &self.counted[counter as usize];
        place.set(place.get() + 1);
    }
}
