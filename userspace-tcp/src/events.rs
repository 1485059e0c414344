//! Events: edge-triggered, coalesced per connection, pulled by the caller.

use crate::tcb::{ConnectionId, Hot, f};
use std::collections::VecDeque;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// Both sides have closed and everything is acknowledged.
    Finished,
    /// The peer sent a reset.
    Reset,
    /// The peer refused the connection: a reset in answer to SYN.
    Refused,
    /// `abort`, `close` with unread data, or linger ran out: we sent a reset.
    Aborted,
    /// The peer did not answer in time: connect timeout, user timeout, retransmissions, or keep-alive.
    TimedOut,
    /// An ICMP error said that the peer cannot be reached, during an active open.
    Unreachable,
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The handshake is done. A passive one waits in its listener's queue for `accept`.
    Established,
    /// There is data to read where there was less than the low-water mark.
    Readable,
    /// There is room to write again after a write came back short.
    Writable,
    /// The peer has sent FIN: after what is still unread there comes nothing more.
    PeerClosed,
    /// The last event of a connection, exactly once. Unread data can still be read after [`CloseReason::Finished`]; then, or
    /// else at once, `close` gives the slot back (if the application has closed already, it is back).
    Closed(CloseReason),
}

/// An event of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// The connection.
    pub connection: ConnectionId,
    /// What happened.
    pub kind: EventKind,
}

pub(crate) mod bit {
    pub const ESTABLISHED: u8 = 1;
    pub const READABLE: u8 = 2;
    pub const WRITABLE: u8 = 4;
    pub const PEER_CLOSED: u8 = 8;
    pub const CLOSED: u8 = 16;
    /// `Closed` has been told.
    pub const TOLD: u8 = 32;
}

/// Slots with something to tell, in the order in which it happened first. Never longer than the number of connections.
pub(crate) struct EventQueue {
    slots: VecDeque<u32>,
}

impl EventQueue {
    pub(crate) fn new(max: u32) -> EventQueue {
        EventQueue { slots: VecDeque::with_capacity(max as usize + 1) }
    }

    /// Notes an event.
    #[inline]
    pub(crate) fn raise(&mut self, slot: u32, hot: &mut Hot, bit: u8) {
        if bit == bit::CLOSED && hot.events & bit::TOLD != 0 {
            return;
        }
        hot.events |= bit;
        if !hot.has(f::IN_EVENTS) {
            hot.set(f::IN_EVENTS);
            self.slots.push_back(slot);
        }
    }

    pub(crate) fn front(&self) -> Option<u32> {
        self.slots.front().copied()
    }

    pub(crate) fn pop(&mut self) {
        self.slots.pop_front();
    }

    pub(crate) fn bytes(&self) -> usize {
        self.slots.capacity() * 4
    }
}

/// Takes the next event out of the bits.
pub(crate) fn next(events: &mut u8, reason: CloseReason) -> Option<EventKind> {
    let (taken, kind) = match *events {
        e if e & bit::ESTABLISHED != 0 => (bit::ESTABLISHED, EventKind::Established),
        e if e & bit::READABLE != 0 => (bit::READABLE, EventKind::Readable),
        e if e & bit::WRITABLE != 0 => (bit::WRITABLE, EventKind::Writable),
        e if e & bit::PEER_CLOSED != 0 => (bit::PEER_CLOSED, EventKind::PeerClosed),
        e if e & bit::CLOSED != 0 => (bit::CLOSED, EventKind::Closed(reason)),
        _ => return None,
    };
    *events &= !taken;
    if taken == bit::CLOSED {
        *events |= bit::TOLD;
    }
    Some(kind)
}
