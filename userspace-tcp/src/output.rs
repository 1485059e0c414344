//! What leaves: data and acknowledgments of connections, first what is lost, then what is new; then replies.

use crate::buffer::{Cursor, NIL};
use crate::connections::Connections;
use crate::emit::{Out, Sent};
use crate::input::parts;
use crate::receiver::delayed_ack;
use crate::segment::{Egress, ecn, flag};
use crate::sender::record::{Record, r};
use crate::sender::recovery::{Frto, Phase};
use crate::state::State;
use crate::tcb::f;
use crate::time::Instant;

/// Segments one connection may send before it is another's turn.
const TURN: u32 = 64;

impl Connections {
    /// Hands what is to be sent to `egress`. Returns how many segments; stops when the egress has no more room.
    pub fn transmit<E: Egress + ?Sized>(&mut self, now: Instant, egress: &mut E) -> usize {
        self.tell(now);
        let before = self.counters.transmitted;
        for _ in 0..self.output.len() {
            let Some(&slot) = self.output.front() else { break };
            match self.send_some(slot, egress) {
                Sent::Full => return (self.counters.transmitted - before) as usize,
                Sent::Nothing => {
                    self.output.pop_front();
                    self.slab.hot[slot as usize].clear(f::IN_OUTPUT);
                    if self.slab.hot[slot as usize].has(f::FINISHED) {
                        self.try_free(slot);
                    }
                }
                // Its turn is over, and it has more: behind the others.
                Sent::Yes => {
                    self.output.pop_front();
                    self.output.push_back(slot);
                }
            }
        }
        self.replies.transmit(&mut self.counters, egress);
        (self.counters.transmitted - before) as usize
    }

    /// Whether `transmit` has something to do.
    pub fn wants_transmit(&self) -> bool {
        !self.output.is_empty() || !self.replies.is_empty()
    }

    /// Sends what a connection may send now, up to its turn. `Yes` when it may have more.
    fn send_some<E: Egress + ?Sized>(&mut self, slot: u32, egress: &mut E) -> Sent {
        let at = slot as usize;
        if self.slab.hot[at].has(f::FINISHED) || !self.slab.hot[at].has(f::USED) {
            return Sent::Nothing;
        }
        if self.slab.hot[at].has(f::SYN_DUE) {
            return match self.send_syn(slot, egress) {
                Sent::Full => Sent::Full,
                _ => Sent::Nothing,
            };
        }
        if !self.slab.hot[at].state.synchronized() {
            // In SYN-RECEIVED of a simultaneous open an unacceptable segment is acknowledged, as in every later state.
            if self.slab.hot[at].state == State::SynReceived && self.slab.hot[at].has(f::ACK_NOW) {
                return match self.send_ack(slot, egress) {
                    Sent::Full => Sent::Full,
                    _ => Sent::Nothing,
                };
            }
            return Sent::Nothing;
        }
        let mut outcome = Sent::Yes;
        let was_idle = self.slab.hot[at].records.0 == NIL;
        let mut sent = 0;
        while sent < TURN {
            outcome = self.send_data(slot, egress);
            if outcome != Sent::Yes {
                break;
            }
            sent += 1;
        }
        let now = self.now;
        if sent > 0 {
            let (mut tcb, shared) = parts!(self, slot);
            if was_idle {
                tcb.restart_rto(shared.config, now);
            }
            tcb.cold.sent_at = now.ms();
        }
        if outcome == Sent::Nothing && self.slab.hot[at].has(f::KEEP_PROBE) {
            // RFC 9293, section 3.8.4: a sequence number that has been acknowledged, no data.
            let seq = self.slab.hot[at].snd_una - 1;
            if self.emit(slot, egress, &Out { seq, cursor: Cursor::NONE, len: 0, flags: flag::ACK, ecn: 0 })
                == Sent::Full
            {
                return Sent::Full;
            }
            self.slab.hot[at].clear(f::KEEP_PROBE);
            self.counters.keepalive_probes += 1;
        }
        if outcome == Sent::Nothing && self.slab.hot[at].has(f::ACK_NOW) {
            outcome = self.send_ack(slot, egress);
            if outcome == Sent::Yes {
                outcome = Sent::Nothing;
            }
        } else if outcome == Sent::Nothing && self.slab.hot[at].has(f::ACK_PENDING) {
            let (hot, cold) = (&mut self.slab.hot[at], &mut self.slab.cold[at]);
            if cold.delayed_ack == 0 {
                hot.set(f::ACK_NOW);
                outcome = match self.send_ack(slot, egress) {
                    Sent::Full => Sent::Full,
                    _ => Sent::Nothing,
                };
            } else if let Some(at) = delayed_ack::arm(hot, cold, now) {
                self.wheel.arm_no_later(slot, at);
            }
        }
        let (mut tcb, shared) = parts!(self, slot);
        tcb.hot.clear(f::PUSH_NOW);
        tcb.arm_sender(shared.config, now, sent > 0);
        self.sync_timer(slot);
        outcome
    }

    /// Sends one segment that carries sequence numbers.
    fn send_data<E: Egress + ?Sized>(&mut self, slot: u32, egress: &mut E) -> Sent {
        let hot = &self.slab.hot[slot as usize];
        if hot.has(f::LOST) {
            let frto = self.slab.cold[slot as usize].recovery.frto;
            // F-RTO's step 2b: new data in place of old, if there is any.
            if frto != Frto::SendNew && frto != Frto::Sent {
                match self.send_lost(slot, egress) {
                    Sent::Nothing => {}
                    other => return other,
                }
                if self.slab.hot[slot as usize].has(f::LOST) {
                    return Sent::Nothing; // the window is full; nothing new overtakes
                }
            }
        }
        match self.send_new(slot, egress) {
            Sent::Nothing => {}
            other => return other,
        }
        let hot = &mut self.slab.hot[slot as usize];
        let recovery = &mut self.slab.cold[slot as usize].recovery;
        if recovery.frto == Frto::SendNew {
            // Nothing new could be sent: conventional recovery (RFC 5682, step 2b).
            recovery.frto = Frto::Off;
            if hot.has(f::LOST) {
                return self.send_lost(slot, egress);
            }
        }
        if hot.has(f::TAIL_PROBE) {
            return self.send_tail_probe(slot, egress);
        }
        Sent::Nothing
    }

    /// Sends the first lost segment again, if the window has room.
    fn send_lost<E: Egress + ?Sized>(&mut self, slot: u32, egress: &mut E) -> Sent {
        let (tcb, shared) = parts!(self, slot);
        let mut at = tcb.hot.records.0;
        while at != NIL && !shared.records.get(at).has(r::LOST) {
            at = shared.records.get(at).next;
        }
        if at == NIL {
            tcb.hot.clear(f::LOST | f::PROBE);
            return Sent::Nothing;
        }
        let record = *shared.records.get(at);
        let pipe = tcb.pipe();
        if pipe > 0 && pipe + record.seq_len() > tcb.hot.cwnd && !tcb.hot.has(f::PROBE) {
            return Sent::Nothing;
        }
        match self.resend(slot, at, egress) {
            Sent::Yes => {
                self.slab.hot[slot as usize].clear(f::PROBE);
                Sent::Yes
            }
            other => other,
        }
    }

    /// Sends a record again.
    fn resend<E: Egress + ?Sized>(&mut self, slot: u32, at: u32, egress: &mut E) -> Sent {
        let limit = self.payload_limit(slot);
        let now = self.now;
        let (tcb, shared) = parts!(self, slot);
        let mut record = *shared.records.get(at);
        let mut part = None;
        if u32::from(record.len) > limit {
            // The path takes less than it did.
            let cursor = record.cursor().advance(shared.pool, limit as usize);
            if shared.records.split(tcb.hot, &mut tcb.cold.rack.times, at, limit as u16, cursor) {
                record = *shared.records.get(at);
            } else {
                // No record is left for the rest. The beginning goes all the same: its acknowledgment shortens the record, and the
                // rest is found lost again. Else nobody would ever free a record.
                part = Some(limit as u16);
            }
        }
        let mut flags = flag::ACK;
        if record.has(r::FIN) && part.is_none() {
            flags |= flag::FIN;
        }
        if record.has(r::PUSH) && part.is_none() {
            flags |= flag::PSH;
        }
        // RFC 3168, section 6.1.5: no ECT on what is sent again.
        let out = Out {
            seq: record.seq,
            cursor: record.cursor(),
            len: part.unwrap_or(record.len),
            flags,
            ecn: ecn::NOT_ECT,
        };
        if self.emit(slot, egress, &out) == Sent::Full {
            return Sent::Full;
        }
        let (tcb, shared) = parts!(self, slot);
        let times = &mut tcb.cold.rack.times;
        if record.in_flight() {
            shared.records.unlink_time(times, at);
        } else {
            tcb.hot.in_flight += record.seq_len();
        }
        let sent = shared.records.get_mut(at);
        sent.flags = (sent.flags & !r::LOST) | r::RESENT;
        sent.sent_us = now.us();
        shared.records.sent(times, at);
        let recovery = &mut tcb.cold.recovery;
        recovery.prr_out = recovery.prr_out.saturating_add(record.seq_len());
        recovery.undo_resent += 1;
        recovery.first_resend.get_or_insert(now.ms());
        tcb.cold.retransmits += 1;
        shared.counters.retransmits += 1;
        Sent::Yes
    }

    /// A tail loss probe: new data if there is any that the window takes (it was tried before this is called), else the last
    /// segment again (RFC 8985, section 7.3); in recovery the first.
    fn send_tail_probe<E: Egress + ?Sized>(&mut self, slot: u32, egress: &mut E) -> Sent {
        let (tcb, shared) = parts!(self, slot);
        // In recovery the first that is out: if it arrived, it is answered at once as a duplicate, and if not, it is what is missed.
        let recovering = tcb.cold.recovery.phase != Phase::Open;
        let mut which = if recovering { tcb.hot.records.0 } else { tcb.hot.records.1 };
        while recovering && which != NIL && !shared.records.get(which).in_flight() {
            which = shared.records.get(which).next;
        }
        if which == NIL || tcb.cold.rack.probe.is_some() || shared.records.get(which).has(r::SACKED) {
            tcb.hot.clear(f::TAIL_PROBE);
            return Sent::Nothing;
        }
        if self.resend(slot, which, egress) == Sent::Full {
            return Sent::Full;
        }
        let hot = &mut self.slab.hot[slot as usize];
        hot.clear(f::TAIL_PROBE);
        // Whether it repairs a loss is to be told only where nothing was known to be lost.
        self.slab.cold[slot as usize].rack.probe = Some((hot.snd_nxt, !recovering));
        self.counters.tail_probes += 1;
        Sent::Yes
    }

    /// Payload that fits a segment beside the options it will carry now.
    fn payload_limit(&self, slot: u32) -> u32 {
        let (hot, cold) = (&self.slab.hot[slot as usize], &self.slab.cold[slot as usize]);
        let mut limit = u32::from(hot.mss);
        if hot.has(f::SACK) && (cold.ranges != NIL || cold.dsack.is_some()) {
            let (_, n) = self.ranges.sack_blocks(cold);
            let room = (40 - hot.option_len() as usize - 4) / 8;
            limit -= 4 + 8 * n.min(room) as u32;
        }
        limit
    }

    /// Sends one segment of new data, or FIN, if windows and the avoidance of silly ones allow.
    fn send_new<E: Egress + ?Sized>(&mut self, slot: u32, egress: &mut E) -> Sent {
        let at = slot as usize;
        let hot = &self.slab.hot[at];
        let remaining = hot.unsent_bytes();
        let fin = hot.fin_due();
        if (remaining == 0 && !fin) || self.records.is_full() {
            return Sent::Nothing;
        }
        let limit = self.payload_limit(slot);
        let now = self.now;
        let (mut tcb, _) = parts!(self, slot);
        let flight = tcb.flight();
        let idle = flight == 0;
        if idle {
            tcb.restart_after_idle(&self.config, now);
        }
        let (hot, cold) = (&*tcb.hot, &*tcb.cold);
        // Usable window (RFC 9293, section 3.8.6.2.1).
        let mut usable = (hot.snd_una + hot.snd_wnd).after(hot.snd_nxt);
        let probe = hot.has(f::PROBE) && usable == 0 && idle;
        if probe {
            usable = 1;
        }
        // In recovery a probe asks for an answer at once, which new data need not get.
        let tail_probe =
            hot.has(f::TAIL_PROBE) && cold.rack.probe.is_none() && cold.recovery.phase == Phase::Open;
        let len = remaining.min(limit).min(usable);
        let last = len == remaining;
        let with_fin = fin && last && usable > len;
        if len == 0 && !with_fin {
            return Sent::Nothing;
        }
        if !hot.has(f::PUSH_NOW) && !probe && !with_fin && len < limit {
            let send = if last {
                // Nagle (RFC 9293, section 3.7.4) when it is on; cork always.
                (hot.has(f::NO_DELAY) || idle || hot.has(f::FIN_QUEUED)) && !hot.has(f::CORK)
            } else {
                // The window is too small: only if it is half of the largest ever seen.
                len >= cold.max_window / 2
            };
            if !send {
                return Sent::Nothing;
            }
        }
        let pipe = tcb.pipe();
        let over = pipe > 0 && pipe.saturating_add(len) > tcb.hot.cwnd;
        if over && !probe && !tail_probe {
            tcb.cold.recovery.limited = true;
            return Sent::Nothing;
        }
        if tcb.cold.recovery.phase != Phase::Loss {
            // Is the window still what limits? In slow start a window half full will do (RFC 9438, section 4.2, and 2861).
            let (pipe, cwnd) = (pipe.saturating_add(len), tcb.hot.cwnd);
            let full = if cwnd < tcb.cold.congestion.ssthresh {
                pipe.saturating_mul(2) >= cwnd
            } else {
                pipe + limit >= cwnd
            };
            tcb.cold.recovery.limited = full;
        }
        let mut flags = flag::ACK;
        let mut marks = 0;
        if last && len > 0 {
            flags |= flag::PSH;
            marks |= r::PUSH;
        }
        if with_fin {
            flags |= flag::FIN;
            marks |= r::FIN;
        }
        if probe {
            marks |= r::PROBE;
        }
        let ect = if tcb.hot.has(f::ECN) && !probe { ecn::ECT0 } else { ecn::NOT_ECT };
        if tcb.hot.has(f::CWR) && len > 0 {
            flags |= flag::CWR;
        }
        let seq = tcb.hot.snd_nxt;
        let cursor = tcb.hot.cursor().advance(&self.pool, 0);
        let out = Out { seq, cursor, len: len as u16, flags, ecn: ect };
        if self.emit(slot, egress, &out) == Sent::Full {
            return Sent::Full;
        }
        let (tcb, shared) = parts!(self, slot);
        if flags & flag::CWR != 0 {
            tcb.hot.clear(f::CWR);
        }
        let record = Record::new(seq, len as u16, marks, cursor, now.us());
        tcb.hot.in_flight += record.seq_len();
        tcb.hot.snd_nxt = record.end();
        if with_fin {
            tcb.hot.set(f::FIN_SENT);
        }
        let after = cursor.advance(shared.pool, len as usize);
        tcb.hot.set_cursor(after);
        let pushed = shared.records.push(tcb.hot, &mut tcb.cold.rack.times, record);
        debug_assert!(pushed.is_some(), "checked above");
        if idle {
            tcb.cold.first_sent = now.ms();
        }
        let recovery = &mut tcb.cold.recovery;
        recovery.flight = tcb.hot.snd_nxt - tcb.hot.snd_una;
        recovery.prr_out = recovery.prr_out.saturating_add(record.seq_len());
        if recovery.frto == Frto::SendNew {
            // RFC 5682, step 2b: up to two new segments; what is acknowledged next decides.
            recovery.frto = Frto::Sent;
            recovery.recover = seq;
        }
        if tail_probe {
            tcb.hot.clear(f::TAIL_PROBE);
            tcb.cold.rack.probe = Some((tcb.hot.snd_nxt, false));
            shared.counters.tail_probes += 1;
        }
        tcb.hot.clear(f::PROBE);
        Sent::Yes
    }
}
