//! Two stacks and the wire between them, in virtual time: it delays, loses, repeats, reorders and marks segments.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod peer;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use volley_tcp::{
    Config, ConnectionId, ConnectionOptions, Egress, Event, EventKind, Instant, ListenOptions, ListenerId,
    SegmentIn, SegmentOut, Stack,
};

/// What the wire does to segments, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    /// One way.
    pub delay: Duration,
    /// Added to some, which thereby fall behind others.
    pub jitter: Duration,
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
    /// CE on segments that allow it.
    pub mark: f64,
}

impl Default for Wire {
    fn default() -> Wire {
        Wire {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            mark: 0.0,
        }
    }
}

/// A segment on the wire.
#[derive(Clone, Debug)]
pub struct Packet {
    pub meta: SegmentOut,
    pub bytes: Vec<u8>,
}

impl Packet {
    pub fn flags(&self) -> u8 {
        self.bytes[13]
    }
    pub fn seq(&self) -> u32 {
        u32::from_be_bytes(self.bytes[4..8].try_into().unwrap())
    }
    pub fn ack(&self) -> u32 {
        u32::from_be_bytes(self.bytes[8..12].try_into().unwrap())
    }
    pub fn window(&self) -> u16 {
        u16::from_be_bytes(self.bytes[14..16].try_into().unwrap())
    }
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.bytes[12] >> 4) * 4..]
    }
    pub fn segment(&self) -> SegmentIn<'_> {
        SegmentIn {
            source: self.meta.source,
            destination: self.meta.destination,
            ecn: self.meta.tos & 3,
            checksum: Default::default(),
            path: 7,
            bytes: &self.bytes,
        }
    }
}

/// Collects what a stack sends.
#[derive(Default)]
pub struct Outbox {
    pub packets: Vec<Packet>,
    pub room: Option<usize>,
}

impl Egress for Outbox {
    fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]> {
        if self.room.is_some_and(|room| self.packets.len() >= room) {
            return None;
        }
        self.packets.push(Packet { meta: *segment, bytes: vec![0; segment.len] });
        self.packets.last_mut().map(|p| &mut p.bytes[..])
    }
    fn commit(&mut self, _segment: &SegmentOut) {}
}

/// One end: a stack and what its application does.
pub struct End {
    pub stack: Stack,
    pub events: Vec<Event>,
    /// Everything read, per connection.
    pub received: BTreeMap<ConnectionId, Vec<u8>>,
    /// What is still to be written, and whether to close afterwards.
    pub to_send: BTreeMap<ConnectionId, (Vec<u8>, bool)>,
    /// Reads at once whatever is readable.
    pub reads: bool,
    pub echoes: bool,
    /// Closes when the peer has.
    pub closes: bool,
    pub listener: Option<ListenerId>,
}

impl End {
    fn new(config: Config, key: u8, now: Instant) -> End {
        End {
            stack: Stack::new(config, &[key; 64], now),
            events: Vec::new(),
            received: BTreeMap::new(),
            to_send: BTreeMap::new(),
            reads: true,
            echoes: false,
            closes: true,
            listener: None,
        }
    }

    fn push(stack: &mut volley_tcp::Connections, to_send: &mut BTreeMap<ConnectionId, (Vec<u8>, bool)>) {
        to_send.retain(|&id, (bytes, close)| {
            let n = stack.write(id, bytes).unwrap_or(0);
            bytes.drain(..n);
            if bytes.is_empty() && *close {
                let _ = stack.shutdown(id, volley_tcp::Shutdown::Write);
            }
            !bytes.is_empty()
        });
    }

    /// Hands in a burst and lets the application act.
    pub fn receive(&mut self, now: Instant, packets: &[Packet]) {
        let frames: Vec<SegmentIn<'_>> = packets.iter().map(Packet::segment).collect();
        let mut burst = self.stack.receive_burst(now, &frames);
        while let Some(event) = burst.next_event() {
            self.events.push(event);
            let id = event.connection;
            match event.kind {
                EventKind::Established => {
                    if let Some(listener) = self.listener {
                        while burst.accept(listener).is_some() {}
                    }
                }
                EventKind::Readable if self.reads => loop {
                    let bytes = burst.peek(id).unwrap_or(&[]).to_vec();
                    if bytes.is_empty() {
                        break;
                    }
                    burst.read(id, bytes.len()).unwrap();
                    self.received.entry(id).or_default().extend_from_slice(&bytes);
                    if self.echoes {
                        self.to_send.entry(id).or_default().0.extend_from_slice(&bytes);
                    }
                },
                _ => {}
            }
        }
        End::push(&mut burst, &mut self.to_send);
        drop(burst);
        self.after();
    }

    /// Timers have fired, or a burst is over.
    pub fn after(&mut self) {
        while let Some(event) = self.stack.next_event() {
            self.events.push(event);
        }
        if self.closes {
            let done: Vec<ConnectionId> = self
                .events
                .iter()
                .filter(|e| matches!(e.kind, EventKind::PeerClosed))
                .map(|e| e.connection)
                .filter(|id| !self.to_send.contains_key(id))
                .collect();
            for id in done {
                if self.stack.unread(id) == Ok(0) {
                    let _ = self.stack.close(id);
                }
            }
        }
    }

    pub fn kinds(&self, id: ConnectionId) -> Vec<EventKind> {
        self.events.iter().filter(|e| e.connection == id).map(|e| e.kind).collect()
    }

    pub fn saw(&self, kind: EventKind) -> bool {
        self.events.iter().any(|e| e.kind == kind)
    }
}

/// Whether a segment that an end (the first argument) has sent gets through.
pub type Filter = Box<dyn FnMut(usize, &Packet) -> bool>;

/// The two ends and what is on its way: index 0 the client, 1 the server.
pub struct Net {
    pub ends: [End; 2],
    pub now: Instant,
    pub wire: [Wire; 2],
    rng: SmallRng,
    flying: BTreeMap<(u64, u64), (usize, Packet)>,
    count: u64,
    /// Every segment sent, before the wire did anything to it, with its sender.
    pub trace: Vec<(Instant, usize, Packet)>,
    pub keep_trace: bool,
    /// Decides about each segment: false loses it.
    pub filter: Filter,
}

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;

pub fn server_address() -> SocketAddr {
    "10.0.0.1:7000".parse().unwrap()
}

pub fn client_address() -> SocketAddr {
    "10.0.0.2:0".parse().unwrap()
}

impl Net {
    pub fn new(config: Config, seed: u64) -> Net {
        Net::with(config, config, ListenOptions::default(), seed)
    }

    pub fn with(client: Config, server: Config, listen: ListenOptions, seed: u64) -> Net {
        // Not zero, so that nothing depends on it.
        let now = Instant::from_millis(1_234_567);
        let mut net = Net {
            ends: [End::new(client, 1, now), End::new(server, 2, now)],
            now,
            wire: [Wire::default(); 2],
            rng: SmallRng::seed_from_u64(seed),
            flying: BTreeMap::new(),
            count: 0,
            trace: Vec::new(),
            keep_trace: true,
            filter: Box::new(|_, _| true),
        };
        net.ends[SERVER].listener = Some(net.ends[SERVER].stack.listen(server_address(), listen).unwrap());
        net
    }

    pub fn connect(&mut self, options: &ConnectionOptions) -> ConnectionId {
        self.ends[CLIENT].stack.connect(client_address(), server_address(), 3, options).unwrap()
    }

    /// Sends what both ends have to send.
    pub fn flush(&mut self) {
        for from in 0..2 {
            loop {
                let mut out = Outbox::default();
                End::push(&mut self.ends[from].stack, &mut self.ends[from].to_send);
                if self.ends[from].stack.transmit(self.now, &mut out) == 0 {
                    break;
                }
                for packet in out.packets {
                    self.put(from, packet);
                }
            }
        }
    }

    fn put(&mut self, from: usize, mut packet: Packet) {
        let wire = self.wire[from];
        if self.keep_trace {
            self.trace.push((self.now, from, packet.clone()));
        }
        if !(self.filter)(from, &packet) || self.rng.random_bool(wire.loss) {
            return;
        }
        if packet.meta.tos & 3 != 0 && self.rng.random_bool(wire.mark) {
            packet.meta.tos |= 3;
        }
        let copies = 1 + u32::from(self.rng.random_bool(wire.duplicate));
        for _ in 0..copies {
            let mut at = (self.now + wire.delay).nanos();
            if self.rng.random_bool(wire.reorder) {
                at += self.rng.random_range(0..=wire.jitter.as_nanos() as u64);
            }
            self.count += 1;
            self.flying.insert((at, self.count), (1 - from, packet.clone()));
        }
    }

    /// The next thing that happens, at or before `until`. False when nothing does.
    pub fn step(&mut self, until: Instant) -> bool {
        self.flush();
        let arrival = self.flying.keys().next().map(|k| Instant::from_nanos(k.0));
        let timers = self.ends.iter().filter_map(|e| e.stack.next_deadline()).min();
        let next = match (arrival, timers) {
            (Some(a), Some(t)) => a.min(t),
            (Some(a), None) => a,
            (None, Some(t)) => t,
            (None, None) => {
                self.now = until;
                return false;
            }
        };
        if next > until {
            self.now = until;
            return false;
        }
        self.now = self.now.max(next);
        let mut bursts = [Vec::new(), Vec::new()];
        while let Some((&key, _)) = self.flying.first_key_value() {
            if key.0 > self.now.nanos() {
                break;
            }
            let (to, packet) = self.flying.remove(&key).unwrap();
            bursts[to].push(packet);
        }
        let now = self.now;
        for (to, burst) in bursts.iter().enumerate() {
            for packets in burst.chunks(64) {
                self.ends[to].receive(now, packets);
            }
            self.ends[to].stack.timers(now);
            self.ends[to].after();
        }
        self.flush();
        true
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Runs until `done`, or fails after `limit` of virtual time.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Net) -> bool) {
        let until = self.now + limit;
        while !done(self) {
            if !self.step(until) {
                assert!(done(self), "not done after {limit:?}: {:?}", self.ends[0].stack.counters());
                return;
            }
        }
    }

    /// A client connection and its server side, established.
    pub fn pair(&mut self, options: &ConnectionOptions) -> (ConnectionId, ConnectionId) {
        let known = self.ends[SERVER].events.len();
        let client = self.connect(options);
        self.run_until(Duration::from_secs(100), |net| {
            net.ends[SERVER].events[known..].iter().any(|e| e.kind == EventKind::Established)
                && net.ends[CLIENT].kinds(client).contains(&EventKind::Established)
        });
        let server = self.ends[SERVER].events[known..]
            .iter()
            .find(|e| e.kind == EventKind::Established)
            .unwrap()
            .connection;
        (client, server)
    }

    pub fn send(&mut self, end: usize, id: ConnectionId, bytes: &[u8], close: bool) {
        let entry = self.ends[end].to_send.entry(id).or_default();
        entry.0.extend_from_slice(bytes);
        entry.1 |= close;
        let e = &mut self.ends[end];
        End::push(&mut e.stack, &mut e.to_send);
    }

    /// Nothing of any connection may be left.
    pub fn assert_clean(&mut self) {
        for end in &self.ends {
            let p = end.stack.population();
            assert_eq!(
                (p.connections, p.half_open, p.segments_in_flight, p.chunks, p.ranges),
                (0, 0, 0, 0, 0),
                "left over: {p:?}"
            );
            let counters = end.stack.counters();
            let dropped: u64 = counters.drops().filter(|(r, _)| !later(*r)).map(|(_, n)| n).sum();
            assert_eq!(
                counters.received,
                counters.accepted + dropped,
                "the ledger does not balance: {counters:?}"
            );
        }
    }
}

/// Reasons that are no received segment's.
fn later(reason: volley_tcp::Drop) -> bool {
    matches!(reason, volley_tcp::Drop::ReplyQueueFull | volley_tcp::Drop::IcmpUnverified)
}

pub fn stream(n: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; n];
    SmallRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}
