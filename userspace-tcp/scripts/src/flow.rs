//! One pair of addresses: whose sequence numbers count from where, and which bytes stand where.

use crate::segment::Data;
use std::net::SocketAddr;

/// Offset of the stack's pattern against the peer's, so that an echo is not taken for an answer.
const OURS: u8 = 0x55;

/// The byte that the peer's pattern has at a place (the first is 0).
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at / 251)) as u8
}

/// A pair of addresses and what has been said between them.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// The peer's initial sequence number.
    pub peer_isn: u32,
    /// The stack's, once a SYN of its has been seen.
    pub stack_isn: Option<u32>,
    /// What a timestamp of the stack's was when the script began, once one has been seen.
    pub stamp: Option<u32>,
    /// What the application has written.
    pub written: Vec<u8>,
    /// How much it has read.
    pub read: usize,
}

impl Flow {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr, peer_isn: u32) -> Flow {
        Flow { local, remote, peer_isn, stack_isn: None, stamp: None, written: Vec::new(), read: 0 }
    }

    /// A sequence number of the peer's as it is on the wire.
    pub(crate) fn peer(&self, relative: i64) -> u32 {
        self.peer_isn.wrapping_add(relative as u32)
    }

    /// One of the stack's.
    pub(crate) fn stack(&self, relative: i64) -> u32 {
        self.stack_isn.unwrap_or(0).wrapping_add(relative as u32)
    }

    /// How far a sequence number of the peer's is from its initial one.
    pub(crate) fn peer_place(&self, wire: u32) -> i64 {
        i64::from(wire.wrapping_sub(self.peer_isn) as i32)
    }

    /// One of the stack's; absolute while that has none.
    pub(crate) fn stack_place(&self, wire: u32) -> i64 {
        self.stack_isn.map_or(i64::from(wire), |isn| i64::from(wire.wrapping_sub(isn) as i32))
    }

    /// Payload of the peer's that begins at a relative sequence number.
    pub(crate) fn peer_bytes(&self, seq: i64, data: &Data) -> Vec<u8> {
        match data {
            Data::Text(text) => text.clone(),
            Data::Pattern(n) => (0..*n as usize).map(|i| pattern((seq - 1) as usize + i)).collect(),
        }
    }

    /// What the application writes next.
    pub(crate) fn to_write(&self, data: &Data) -> Vec<u8> {
        match data {
            Data::Text(text) => text.clone(),
            Data::Pattern(n) => (0..*n as usize).map(|i| pattern(self.written.len() + i) ^ OURS).collect(),
        }
    }

    /// Whether payload of the stack's at a relative sequence number is what was written there.
    pub(crate) fn was_written(&self, seq: i64, bytes: &[u8]) -> bool {
        let start = usize::try_from(seq - 1).unwrap_or(usize::MAX);
        self.written.get(start..).is_some_and(|rest| rest.starts_with(bytes))
    }

    /// What the application should read next.
    pub(crate) fn to_read(&self, data: &Data) -> Vec<u8> {
        match data {
            Data::Text(text) => text.clone(),
            Data::Pattern(n) => (0..*n as usize).map(|i| pattern(self.read + i)).collect(),
        }
    }
}
