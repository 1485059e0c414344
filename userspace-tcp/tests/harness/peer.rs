//! A peer made by hand: it says exactly what a test tells it to, and shows exactly what the stack said.
#![allow(dead_code, reason = "each test file uses a part of it")]

use super::{Outbox, Packet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use volley_tcp::{
    Config, ConnectionId, ConnectionOptions, Event, EventKind, Instant, ListenOptions, ListenerId,
    SegmentOut, Stack,
};
use volley_wire::checksum::Sum;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const ECE: u8 = 64;
pub const CWR: u8 = 128;

/// A segment to be sent by the peer, or one that the stack sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seg {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    pub ecn: u8,
}

pub fn seg(flags: u8, seq: u32, ack: u32) -> Seg {
    Seg { flags, seq, ack, window: 60_000, options: Vec::new(), payload: Vec::new(), ecn: 0 }
}

impl Seg {
    pub fn data(mut self, bytes: &[u8]) -> Seg {
        self.payload = bytes.to_vec();
        self
    }
    pub fn window(mut self, window: u16) -> Seg {
        self.window = window;
        self
    }
    pub fn opt(mut self, bytes: &[u8]) -> Seg {
        self.options.extend_from_slice(bytes);
        self
    }
    pub fn mss(self, mss: u16) -> Seg {
        let [a, b] = mss.to_be_bytes();
        self.opt(&[2, 4, a, b])
    }
    pub fn sack_ok(self) -> Seg {
        self.opt(&[1, 1, 4, 2])
    }
    pub fn scale(self, shift: u8) -> Seg {
        self.opt(&[1, 3, 3, shift])
    }
    pub fn ts(self, val: u32, ecr: u32) -> Seg {
        let mut o = vec![1, 1, 8, 10];
        o.extend(val.to_be_bytes());
        o.extend(ecr.to_be_bytes());
        self.opt(&o)
    }
    pub fn sack(self, blocks: &[(u32, u32)]) -> Seg {
        let mut o = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
        for (a, b) in blocks {
            o.extend(a.to_be_bytes());
            o.extend(b.to_be_bytes());
        }
        self.opt(&o)
    }
    pub fn ecn(mut self, ecn: u8) -> Seg {
        self.ecn = ecn;
        self
    }

    /// The timestamps it carries.
    pub fn stamps(&self) -> Option<(u32, u32)> {
        self.option(8).map(|o| (word(&o[..4]), word(&o[4..])))
    }
    pub fn sack_blocks(&self) -> Vec<(u32, u32)> {
        self.option(5).map_or(Vec::new(), |o| o.chunks(8).map(|b| (word(&b[..4]), word(&b[4..]))).collect())
    }
    pub fn option(&self, kind: u8) -> Option<&[u8]> {
        let mut rest = &self.options[..];
        loop {
            match rest {
                [] | [0, ..] => return None,
                [1, tail @ ..] => rest = tail,
                [k, n, ..] => {
                    if *k == kind {
                        return Some(&rest[2..usize::from(*n)]);
                    }
                    rest = &rest[usize::from(*n)..];
                }
                _ => panic!("bad options {:?}", self.options),
            }
        }
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

/// One stack and its hand-made peer.
pub struct Lab {
    pub stack: Stack,
    pub now: Instant,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub listener: ListenerId,
    pub events: Vec<Event>,
    /// Between SYN-ACK and the acknowledgment of a passive open.
    pub rtt: Duration,
}

impl Lab {
    pub fn new(config: Config) -> Lab {
        Lab::with(config, ListenOptions::default())
    }

    pub fn with(config: Config, listen: ListenOptions) -> Lab {
        let now = Instant::from_millis(10_000_000);
        let mut stack = Stack::new(config, &[5; 64], now);
        let local = "192.0.2.1:80".parse().unwrap();
        let listener = stack.listen(local, listen).unwrap();
        Lab {
            stack,
            now,
            local,
            remote: "192.0.2.2:5000".parse().unwrap(),
            listener,
            events: Vec::new(),
            rtt: Duration::ZERO,
        }
    }

    fn packet(&self, s: &Seg) -> Packet {
        let mut options = s.options.clone();
        while !options.len().is_multiple_of(4) {
            options.push(0);
        }
        let mut bytes = Vec::new();
        bytes.extend(self.remote.port().to_be_bytes());
        bytes.extend(self.local.port().to_be_bytes());
        bytes.extend(s.seq.to_be_bytes());
        bytes.extend(s.ack.to_be_bytes());
        bytes.push(((20 + options.len()) as u8 / 4) << 4);
        bytes.push(s.flags);
        bytes.extend(s.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&options);
        bytes.extend(&s.payload);
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let sum = Sum::ZERO.pseudo_header(
            &octets(self.remote.ip()),
            &octets(self.local.ip()),
            6,
            bytes.len() as u32,
        );
        let checksum = sum.bytes(&bytes).complement();
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        let meta = SegmentOut {
            source: self.remote.ip(),
            destination: self.local.ip(),
            tos: s.ecn,
            ttl: 64,
            dont_fragment: true,
            path: 0,
            len: bytes.len(),
        };
        Packet { meta, bytes }
    }

    /// The peer sends segments in one burst; nothing is sent yet.
    pub fn put(&mut self, segments: &[Seg]) {
        let packets: Vec<Packet> = segments.iter().map(|s| self.packet(s)).collect();
        let frames: Vec<_> = packets.iter().map(Packet::segment).collect();
        drop(self.stack.receive_burst(self.now, &frames));
        self.pull();
    }

    /// Several peers send segments in one burst, each from a port of its own.
    pub fn put_from(&mut self, segments: &[(u16, Seg)]) {
        let own = self.remote;
        let packets: Vec<Packet> = segments
            .iter()
            .map(|(port, s)| {
                self.remote.set_port(*port);
                self.packet(s)
            })
            .collect();
        self.remote = own;
        let frames: Vec<_> = packets.iter().map(Packet::segment).collect();
        drop(self.stack.receive_burst(self.now, &frames));
        self.pull();
    }

    fn pull(&mut self) {
        while let Some(event) = self.stack.next_event() {
            self.events.push(event);
        }
    }

    /// What the stack sends now.
    pub fn out(&mut self) -> Vec<Seg> {
        self.out_into(None)
    }

    /// What the stack sends now, where there is room for so many segments.
    pub fn out_into(&mut self, room: Option<usize>) -> Vec<Seg> {
        let mut out = Outbox { room, ..Outbox::default() };
        while self.stack.transmit(self.now, &mut out) > 0 {}
        out.packets.iter().map(read).collect()
    }

    /// The peer sends one segment; what the stack answers at once.
    pub fn inject(&mut self, s: Seg) -> Vec<Seg> {
        self.put(&[s]);
        self.out()
    }

    /// Time passes; what the stack sends meanwhile, with the milliseconds since the start of the wait.
    pub fn wait(&mut self, time: Duration) -> Vec<(u64, Seg)> {
        let start = self.now;
        let until = start + time;
        let mut sent = Vec::new();
        loop {
            let at = self.now.since(start).as_millis() as u64;
            sent.extend(self.out().into_iter().map(|s| (at, s)));
            let Some(next) = self.stack.next_deadline().filter(|&d| d <= until) else { break };
            self.now = self.now.max(next);
            self.stack.timers(self.now);
            self.pull();
        }
        self.now = until;
        self.stack.timers(until);
        self.pull();
        let at = time.as_millis() as u64;
        sent.extend(self.out().into_iter().map(|s| (at, s)));
        sent
    }

    pub fn one(&mut self, s: Seg) -> Seg {
        let answers = self.inject(s);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.into_iter().next().unwrap()
    }

    pub fn silent(&mut self, s: Seg) {
        let answers = self.inject(s);
        assert!(answers.is_empty(), "{answers:?}");
    }

    /// A passive open with plain options: the connection and the stack's next sequence number. The peer's next is 1001.
    pub fn accepted(&mut self, syn: Seg) -> (ConnectionId, u32) {
        let stamped = syn.stamps();
        let answer = self.one(syn.clone());
        assert_eq!((answer.flags & (SYN | ACK), answer.ack), (SYN | ACK, syn.seq.wrapping_add(1)));
        self.now = self.now + self.rtt;
        let mut ack = seg(ACK, syn.seq.wrapping_add(1), answer.seq.wrapping_add(1)).window(syn.window);
        if let Some((val, _)) = stamped {
            ack = ack.ts(val, answer.stamps().unwrap().0);
        }
        self.silent(ack);
        let id = self.stack.accept(self.listener).expect("established");
        (id, answer.seq.wrapping_add(1))
    }

    pub fn plain(&mut self) -> (ConnectionId, u32) {
        self.accepted(seg(SYN, 1000, 0).mss(1460))
    }

    pub fn sacking(&mut self) -> (ConnectionId, u32) {
        self.accepted(seg(SYN, 1000, 0).mss(1460).sack_ok())
    }

    /// An active open up to SYN-SENT: the connection and its SYN.
    pub fn syn_sent(&mut self) -> (ConnectionId, Seg) {
        self.remote.set_port(443);
        let local = SocketAddr::new(self.local.ip(), 0);
        let id = self.stack.connect(local, self.remote, 0, &ConnectionOptions::default()).unwrap();
        self.local = self.stack.info(id).unwrap().local;
        let out = self.out();
        assert_eq!((out.len(), out[0].flags), (1, SYN));
        (id, out[0].clone())
    }

    pub fn state(&self, id: ConnectionId) -> Option<volley_tcp::State> {
        self.stack.info(id).ok().map(|i| i.state)
    }

    pub fn kinds(&self, id: ConnectionId) -> Vec<EventKind> {
        self.events.iter().filter(|e| e.connection == id).map(|e| e.kind).collect()
    }
}

fn read(p: &Packet) -> Seg {
    let head = usize::from(p.bytes[12] >> 4) * 4;
    Seg {
        flags: p.flags(),
        seq: p.seq(),
        ack: p.ack(),
        window: p.window(),
        options: p.bytes[20..head].to_vec(),
        payload: p.bytes[head..].to_vec(),
        ecn: p.meta.tos & 3,
    }
}
