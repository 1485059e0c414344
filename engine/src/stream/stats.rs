//! What a stream port counts.

use super::CloseReason;
use serde::Serialize;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Counters of a stream port since it was opened, in connections unless said otherwise.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StreamStats {
    /// Open now.
    pub open: u64,
    /// Accepted.
    pub accepted: u64,
    /// Opened by us.
    pub connected: u64,
    /// Ended, for whatever reason.
    pub closed: u64,
    /// Of those, by the peer's reset.
    pub reset: u64,
    /// Of those, because the peer did not answer.
    pub timed_out: u64,
    /// Of those, because the peer read too slowly.
    pub slow_readers: u64,
    /// Of those, because there was no memory for what the app left unread.
    pub no_memory: u64,
    /// Of those, because the engine stepped down to another way of carrying packets.
    pub stepped_down: u64,
    /// Turned away: every slot was in use.
    pub refused_full: u64,
    /// Turned away: the process had no descriptor left.
    pub refused_descriptors: u64,
    /// Bytes given to the app.
    pub received_bytes: u64,
    /// Bytes taken from the app.
    pub sent_bytes: u64,
    /// Events told.
    pub events: u64,
    /// System calls.
    pub calls: u64,
    /// TCP segments received; own stack only, as all that follow.
    pub segments_received: u64,
    /// TCP segments sent.
    pub segments_sent: u64,
    /// Segments sent again.
    pub retransmitted: u64,
    /// Segments dropped, all reasons.
    pub segments_dropped: u64,
    /// Of those, with a wrong checksum.
    pub bad_checksum: u64,
    /// Resets sent.
    pub resets_sent: u64,
    /// SYNs received.
    pub syns: u64,
    /// SYNs answered with a cookie.
    pub cookies_sent: u64,
    /// Connections made from a cookie.
    pub cookies_accepted: u64,
    /// Challenge ACKs sent (RFC 5961).
    pub challenge_acks: u64,
    /// Segments copied to the worker that owns their connection.
    pub handed_over: u64,
    /// Segments taken over from other workers.
    pub taken_over: u64,
    /// Segments for other workers dropped: the ring between was full.
    pub hand_over_full: u64,
    /// Segments that could not be sent for want of a frame, a neighbour or a route; TCP sends them again.
    pub unsent: u64,
    /// Payload bytes that the app read where they arrived.
    pub in_place_bytes: u64,
    /// Payload bytes that were copied out of their frames: unread when their burst was over.
    pub copied_bytes: u64,
    /// Bytes of the pool in use now: for what is unread, out of order, or not acknowledged.
    pub pool_bytes: u64,
}

impl StreamStats {
    /// Counts the end of a connection.
    pub(crate) fn ended(&mut self, reason: CloseReason) {
        self.closed += 1;
        match reason {
            CloseReason::Reset => self.reset += 1,
            CloseReason::TimedOut => self.timed_out += 1,
            CloseReason::SlowReader => self.slow_readers += 1,
            CloseReason::NoMemory => self.no_memory += 1,
            CloseReason::SteppedDown => self.stepped_down += 1,
            _ => {}
        }
    }
}
