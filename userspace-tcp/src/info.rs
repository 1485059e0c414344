//! What can be asked about a connection and about the stack.

use crate::listen::ListenerId;
use crate::state::State;
use std::net::SocketAddr;
use std::time::Duration;

/// A snapshot of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Its state.
    pub state: State,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The listener that took it, while that is open.
    pub listener: Option<ListenerId>,
    /// What names the way to the peer: see [`crate::SegmentIn::path`].
    pub path: u32,
    /// Bytes received and not yet read.
    pub unread: u32,
    /// Bytes written and not yet acknowledged, sent or not.
    pub queued: u32,
    /// Of those, bytes not yet sent.
    pub unsent: u32,
    /// Bytes that `write` would take now, as far as the pool has them.
    pub writable: u32,
    /// Payload of a full segment we send.
    pub mss: u16,
    /// Path MTU.
    pub mtu: u16,
    /// Congestion window, bytes.
    pub cwnd: u32,
    /// Slow start threshold, bytes.
    pub ssthresh: u32,
    /// Bytes thought to be in the network.
    pub in_flight: u32,
    /// The peer's window, bytes.
    pub send_window: u32,
    /// The window we offer, bytes.
    pub receive_window: u32,
    /// Smoothed round-trip time; `None` before the first sample.
    pub rtt: Option<Duration>,
    /// Its variation.
    pub rtt_variation: Duration,
    /// The retransmission timeout as it stands, backoff included.
    pub rto: Duration,
    /// Segments sent again.
    pub retransmits: u32,
    /// Timeouts in a row.
    pub backoff: u8,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Payload bytes acknowledged by the peer.
    pub bytes_acked: u64,
    /// SACK was negotiated.
    pub sack: bool,
    /// Timestamps were negotiated.
    pub timestamps: bool,
    /// Window shifts, the peer's and ours.
    pub window_scale: (u8, u8),
    /// ECN was negotiated.
    pub ecn: bool,
    /// Reordering has been seen (RFC 8985).
    pub reordering: bool,
    /// Fast recovery or a timeout's recovery is under way.
    pub recovering: bool,
}

/// Bytes of memory, all of them allocated once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Of one connection without data.
    pub per_connection: usize,
    /// All connections there is room for.
    pub connections: usize,
    /// Demultiplexer, timers, queues.
    pub tables: usize,
    /// Half-open connections.
    pub syn_table: usize,
    /// TIME-WAIT.
    pub time_wait: usize,
    /// Records of segments in flight.
    pub records: usize,
    /// The pool, and how much of it is in use.
    pub pool: usize,
    /// Bytes of the pool in use.
    pub pool_used: usize,
    /// The cap: the sum of all of the above.
    pub total: usize,
}

/// How many of everything there are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Population {
    /// Connections, with those that have ended and are not closed yet.
    pub connections: u32,
    /// Half-open connections.
    pub half_open: u32,
    /// TIME-WAIT entries.
    pub time_wait: u32,
    /// Segments in flight.
    pub segments_in_flight: u32,
    /// Chunks of the pool in use.
    pub chunks: u32,
    /// Out-of-order ranges.
    pub ranges: u32,
}
