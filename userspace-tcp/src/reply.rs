//! Replies: segments that no connection sends. Resets, SYN-ACKs, acknowledgments from TIME-WAIT.
//!
//! They wait for the next transmission in a queue of bounded length; one that finds it full is dropped and counted, since
//! whoever it was meant for will ask again.

use crate::address::{FlowKey, ip};
use crate::counters::{Counters, Drop};
use crate::options::OptionBytes;
use crate::segment::{Egress, Header, Segment, SegmentOut, flag};
use crate::sequence::Seq;
use crate::time::Instant;
use std::collections::VecDeque;

/// Replies that may wait: some bursts' worth.
const MAX_REPLIES: usize = 4096;

/// A segment without payload and without a connection.
#[derive(Clone, Copy)]
pub(crate) struct Reply {
    pub key: FlowKey,
    pub header: Header,
    pub path: u32,
    pub ttl: u8,
    pub tos: u8,
}

pub(crate) struct Replies {
    queue: VecDeque<Reply>,
}

impl Replies {
    pub(crate) fn new() -> Replies {
        Replies { queue: VecDeque::with_capacity(MAX_REPLIES) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn push(&mut self, counters: &mut Counters, reply: Reply) {
        if self.queue.len() >= MAX_REPLIES {
            counters.drop(Drop::ReplyQueueFull);
            return;
        }
        counters.resets_sent += u64::from(reply.header.flags & flag::RST != 0);
        self.queue.push_back(reply);
    }

    /// Sends what waits. Returns how many, and whether the egress had no more room.
    pub(crate) fn transmit<E: Egress + ?Sized>(
        &mut self,
        counters: &mut Counters,
        egress: &mut E,
    ) -> (usize, bool) {
        let mut sent = 0;
        while let Some(reply) = self.queue.front() {
            let segment = SegmentOut {
                source: ip(&reply.key.local),
                destination: ip(&reply.key.remote),
                tos: reply.tos,
                ttl: reply.ttl,
                dont_fragment: true,
                path: reply.path,
                len: reply.header.len(),
            };
            let offload = egress.checksum_offload();
            let Some(buffer) = egress.lend(&segment) else { return (sent, true) };
            reply.header.write(&reply.key, &mut buffer[..segment.len], offload);
            egress.commit(&segment);
            counters.transmitted += 1;
            sent += 1;
            self.queue.pop_front();
        }
        (sent, false)
    }
}

/// The reset that answers a segment of no connection (RFC 9293, section 3.10.7.1).
pub(crate) fn reset_for(segment: &Segment) -> Reply {
    let (seq, ack, flags) = if segment.has(flag::ACK) {
        (segment.ack, Seq(0), flag::RST)
    } else {
        (Seq(0), segment.seq + segment.seq_len(), flag::RST | flag::ACK)
    };
    plain(segment, seq, ack, flags, 0)
}

/// A reply without options to `segment`.
pub(crate) fn plain(segment: &Segment, seq: Seq, ack: Seq, flags: u8, window: u16) -> Reply {
    let header = Header { seq, ack, flags, window, options: OptionBytes::EMPTY };
    Reply { key: segment.key, header, path: segment.path, ttl: 64, tos: 0 }
}

/// A token bucket: so many a second, as many at once.
pub(crate) struct Bucket {
    rate: u32,
    /// Tokens, in 1/1,000,000.
    level: u64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: u32, now: Instant) -> Bucket {
        Bucket { rate, level: u64::from(rate.max(1)) * 100_000, at: now }
    }

    /// Takes a token if there is one. A tenth of a second's worth may gather.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let elapsed_us = (now.since(self.at).as_micros() as u64).min(10_000_000);
        self.at = self.at.max(now);
        let most = (u64::from(self.rate) * 100_000).max(1_000_000);
        self.level = (self.level + elapsed_us * u64::from(self.rate)).min(most);
        if self.rate == 0 || self.level < 1_000_000 {
            return false;
        }
        self.level -= 1_000_000;
        true
    }
}
