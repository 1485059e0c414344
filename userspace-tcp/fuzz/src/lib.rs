//! What the targets share: bytes as decisions, and the wire between two stacks.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, TcpPacket, TcpRepr};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use volley_tcp::{Egress, Instant, SegmentIn, SegmentOut, Stack};
use volley_wire::checksum::Sum;

/// The input as a row of decisions. When it ends, every decision is zero: the tamest.
pub struct Choices<'d> {
    rest: &'d [u8],
}

impl<'d> Choices<'d> {
    pub fn new(data: &'d [u8]) -> Choices<'d> {
        Choices { rest: data }
    }
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    pub fn byte(&mut self) -> u8 {
        match self.rest {
            [first, rest @ ..] => {
                self.rest = rest;
                *first
            }
            [] => 0,
        }
    }
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }
    pub fn long(&mut self) -> u32 {
        u32::from(self.word()) << 16 | u32::from(self.word())
    }
    pub fn bit(&mut self) -> bool {
        self.byte() & 1 == 1
    }
    pub fn bytes(&mut self, n: usize) -> &'d [u8] {
        let (taken, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// A segment on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    pub meta: SegmentOut,
    pub bytes: Vec<u8>,
}

impl Packet {
    pub fn segment(&self) -> SegmentIn<'_> {
        SegmentIn {
            source: self.meta.source,
            destination: self.meta.destination,
            ecn: self.meta.tos & 3,
            checksum: Default::default(),
            path: 0,
            bytes: &self.bytes,
        }
    }
}

/// Collects what a stack sends, up to a number.
pub struct Outbox {
    pub packets: Vec<Packet>,
    pub room: usize,
}

impl Outbox {
    pub fn new(room: usize) -> Outbox {
        Outbox { packets: Vec::new(), room }
    }
}

impl Egress for Outbox {
    fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]> {
        if self.packets.len() >= self.room {
            return None;
        }
        self.packets.push(Packet { meta: *segment, bytes: vec![0xa5; segment.len] });
        self.packets.last_mut().map(|packet| &mut packet.bytes[..])
    }
    fn commit(&mut self, _segment: &SegmentOut) {}
}

/// What a stack sends another implementation can read, checksum and all.
pub fn assert_readable(packet: &Packet) {
    let segment = TcpPacket::new_checked(&packet.bytes[..]).expect("a whole header");
    let (source, destination) =
        (IpAddress::from(packet.meta.source), IpAddress::from(packet.meta.destination));
    let repr = TcpRepr::parse(&segment, &source, &destination, &ChecksumCapabilities::default());
    repr.unwrap_or_else(|_| panic!("no other implementation reads {:02x?}", packet.bytes));
    assert!(is_right(packet.meta.source, packet.meta.destination, &packet.bytes), "a wrong checksum");
}

/// With TRACE in the environment: shows a segment that an end has sent.
pub fn trace(now: Instant, end: usize, packet: &Packet) {
    static ASKED: OnceLock<bool> = OnceLock::new();
    if !*ASKED.get_or_init(|| std::env::var_os("TRACE").is_some()) {
        return;
    }
    let word = |at: usize| u32::from_be_bytes(packet.bytes[at..at + 4].try_into().expect("four bytes"));
    let head = usize::from(packet.bytes[12] >> 4) * 4;
    let (flags, len) = (packet.bytes[13], packet.bytes.len() - head);
    let options = &packet.bytes[20..head];
    let ms = now.nanos() / 1_000_000;
    eprintln!("{ms} {end}: {flags:#010b} seq {} +{len} ack {} {options:02x?}", word(4), word(8));
}

/// Every segment handed in is accepted, or dropped for a reason.
pub fn assert_balanced(stack: &Stack) {
    use volley_tcp::Drop::{IcmpUnverified, ReplyQueueFull};
    let counters = stack.counters();
    let beside = counters.dropped(ReplyQueueFull) + counters.dropped(IcmpUnverified);
    let dropped: u64 = counters.drops().map(|(_, n)| n).sum();
    assert_eq!(counters.received, counters.accepted + dropped - beside, "{counters:?}");
}

/// Nothing of any connection is left.
pub fn assert_clean(stack: &Stack) {
    let p = stack.population();
    assert_eq!((p.connections, p.segments_in_flight, p.chunks, p.ranges), (0, 0, 0, 0), "{p:?}");
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Whether a segment's checksum is right (RFC 9293, section 3.1), computed word by word.
pub fn is_right(source: IpAddr, destination: IpAddr, bytes: &[u8]) -> bool {
    let mut all =
        [octets(source), octets(destination), vec![0, 6], (bytes.len() as u16).to_be_bytes().to_vec()]
            .concat();
    all.extend_from_slice(bytes);
    let mut sum: u32 =
        all.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

/// Puts the right checksum into a segment that has room for one.
pub fn mend_checksum(source: IpAddr, destination: IpAddr, bytes: &mut [u8]) {
    if bytes.len() < 20 {
        return;
    }
    bytes[16..18].fill(0);
    let sum = Sum::ZERO.pseudo_header(&octets(source), &octets(destination), 6, bytes.len() as u32);
    let sum = sum.bytes(bytes).complement();
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("a literal")
}
