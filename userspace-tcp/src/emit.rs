//! One segment built in a buffer of the egress: header, options, payload, checksum; and segments that carry no data.

use crate::buffer::{Cursor, NIL};
use crate::connections::Connections;
use crate::events::CloseReason;
use crate::input::parts;
use crate::options::OptionBytes;
use crate::receiver::{delayed_ack, window};
use crate::reply::Reply;
use crate::segment::{Egress, Header, SegmentOut, ecn, flag};
use crate::sequence::Seq;
use crate::state::State;
use crate::tcb::{Timer, f};

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is out.
    Yes,
    /// There is nothing (more) to send now.
    Nothing,
    /// The egress has no room.
    Full,
}

/// One segment to be built.
pub(crate) struct Out {
    pub seq: Seq,
    pub cursor: Cursor,
    pub len: u16,
    pub flags: u8,
    pub ecn: u8,
}

impl Connections {
    /// A segment without payload.
    pub(crate) fn send_ack<E: Egress + ?Sized>(&mut self, slot: u32, egress: &mut E) -> Sent {
        let seq = self.slab.hot[slot as usize].sequence_to_say();
        self.emit(
            slot,
            egress,
            &Out { seq, cursor: Cursor::NONE, len: 0, flags: flag::ACK, ecn: ecn::NOT_ECT },
        )
    }

    /// Builds a segment in a buffer of the egress.
    pub(crate) fn emit<E: Egress + ?Sized>(&mut self, slot: u32, egress: &mut E, out: &Out) -> Sent {
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        let mut options = OptionBytes::EMPTY;
        if hot.has(f::TIMESTAMPS) {
            options.timestamps((self.now.ms().wrapping_add(hot.ts_offset), hot.ts_recent));
        }
        if hot.has(f::SACK) && (cold.ranges != NIL || cold.dsack.is_some()) {
            let (blocks, n) = self.ranges.sack_blocks(cold);
            options.sack(&blocks[..n]);
        }
        let edge = hot.rcv_edge;
        let window = window::advertise(hot, cold, &self.pool, true);
        let mut flags = out.flags;
        if hot.has(f::ECE) {
            flags |= flag::ECE;
        }
        let header = Header { seq: out.seq, ack: hot.rcv_nxt, flags, window, options };
        let head = header.len();
        let segment = SegmentOut {
            source: crate::address::ip(&hot.key.local),
            destination: crate::address::ip(&hot.key.remote),
            tos: cold.tos | out.ecn,
            ttl: cold.ttl,
            dont_fragment: true,
            path: cold.path,
            len: head + usize::from(out.len),
        };
        let offload = egress.checksum_offload();
        let Some(buffer) = egress.lend(&segment) else {
            hot.rcv_edge = edge;
            return Sent::Full;
        };
        let buffer = &mut buffer[..segment.len];
        if out.len > 0 {
            out.cursor.copy(&self.pool, &mut buffer[head..]);
        }
        header.write(&hot.key, buffer, offload);
        egress.commit(&segment);
        delayed_ack::sent(hot);
        cold.last_ack_sent = hot.rcv_nxt;
        cold.dsack = None;
        self.counters.transmitted += 1;
        self.counters.bytes_sent += u64::from(out.len);
        Sent::Yes
    }

    /// SYN, or SYN-ACK of a simultaneous open.
    pub(crate) fn send_syn<E: Egress + ?Sized>(&mut self, slot: u32, egress: &mut E) -> Sent {
        let now = self.now;
        let config = &self.config;
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        let answer = hot.state == State::SynReceived;
        let scale = if answer {
            (hot.rcv_scale > 0 || hot.snd_scale > 0).then_some(hot.rcv_scale)
        } else {
            config.window_scaling.then_some(hot.rcv_scale)
        };
        let stamp = now.ms().wrapping_add(hot.ts_offset);
        let stamps = match answer {
            true => hot.has(f::TIMESTAMPS).then_some((stamp, hot.ts_recent)),
            false => config.timestamps.then_some((stamp, 0)),
        };
        let sack = if answer { hot.has(f::SACK) } else { config.sack };
        let mut flags = flag::SYN;
        if answer {
            flags |= flag::ACK | if hot.has(f::ECN) { flag::ECE } else { 0 };
        } else if config.ecn == crate::config::Ecn::Request && cold.syn_attempts < 2 {
            // RFC 3168, section 6.1.1.1: a SYN that got no answer is sent again without.
            flags |= flag::ECE | flag::CWR;
        }
        let header = Header {
            seq: cold.iss,
            ack: if answer { hot.rcv_nxt } else { Seq(0) },
            flags,
            window: cold.rcv_buf.min(0xffff) as u16,
            options: OptionBytes::syn(cold.our_mss, scale, sack, stamps),
        };
        let segment = SegmentOut {
            source: crate::address::ip(&hot.key.local),
            destination: crate::address::ip(&hot.key.remote),
            tos: cold.tos,
            ttl: cold.ttl,
            dont_fragment: true,
            path: cold.path,
            len: header.len(),
        };
        let offload = egress.checksum_offload();
        let Some(buffer) = egress.lend(&segment) else { return Sent::Full };
        header.write(&hot.key, &mut buffer[..segment.len], offload);
        egress.commit(&segment);
        hot.clear(f::SYN_DUE);
        cold.syn_attempts = cold.syn_attempts.saturating_add(1);
        if cold.syn_attempts == 1 {
            cold.syn_us = now.us();
        }
        self.counters.transmitted += 1;
        if cold.syn_attempts > 1 && !answer {
            self.counters.retransmits += 1;
        }
        let (mut tcb, shared) = parts!(self, slot);
        tcb.restart_rto(shared.config, now);
        tcb.hot.timer = Timer::Retransmit;
        tcb.hot.timer_at = tcb.cold.rto_at;
        self.sync_timer(slot);
        Sent::Yes
    }

    /// Queues an acknowledgment that must leave although the connection will be gone.
    pub(crate) fn send_plain_ack(&mut self, slot: u32) {
        let seq = self.slab.hot[slot as usize].snd_nxt;
        self.reply_from(slot, seq, flag::ACK);
    }

    /// Queues the reset that ends a connection (RFC 9293, section 3.10.5).
    pub(crate) fn send_reset(&mut self, slot: u32) {
        let hot = &self.slab.hot[slot as usize];
        if matches!(hot.state, State::Closed | State::SynSent | State::TimeWait) {
            return;
        }
        // Both have closed, and the peer waits for nothing. (Before our FIN is out this is still CLOSE-WAIT in the RFC's terms.)
        if matches!(hot.state, State::Closing | State::LastAck) && hot.has(f::FIN_SENT) {
            return;
        }
        let seq = hot.sequence_to_say();
        self.reply_from(slot, seq, flag::RST | flag::ACK);
    }

    fn reply_from(&mut self, slot: u32, seq: Seq, flags: u8) {
        let (hot, cold) = (&self.slab.hot[slot as usize], &self.slab.cold[slot as usize]);
        let mut options = OptionBytes::EMPTY;
        if hot.has(f::TIMESTAMPS) {
            options.timestamps((self.now.ms().wrapping_add(hot.ts_offset), hot.ts_recent));
        }
        let window = (hot.rcv_edge.after(hot.rcv_nxt) >> hot.rcv_scale).min(0xffff) as u16;
        let header = Header { seq, ack: hot.rcv_nxt, flags, window, options };
        let reply = Reply { key: hot.key, header, path: cold.path, ttl: cold.ttl, tos: cold.tos };
        self.replies.push(&mut self.counters, reply);
    }

    /// The connection has waited too long for its peer.
    pub(crate) fn give_up(&mut self, slot: u32) {
        self.counters.connections_timed_out += 1;
        self.send_reset(slot);
        self.finish(slot, CloseReason::TimedOut);
        self.try_free(slot);
    }
}
