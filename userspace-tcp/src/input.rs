//! A segment arrives for a connection (RFC 9293, section 3.10.7, with RFC 5961 and RFC 7323).

use crate::connections::Connections;
use crate::counters::Drop;
use crate::events::{CloseReason, bit};
use crate::receiver::pieces::Frames;
use crate::reply::plain;
use crate::segment::{Segment, ecn, flag};

use crate::sender::ack::{AckIn, AckOutcome};
use crate::state::State;
use crate::tcb::f;
use crate::time::ms_of;

/// RFC 7323, section 5.5: a timestamp older than 24 days says nothing.
const PAWS_IDLE_MS: u32 = 24 * 24 * 3600 * 1000;

/// The connection's two halves and what all share, borrowed apart.
macro_rules! parts {
    ($self:ident, $slot:expr) => {
        (
            $crate::tcb::Tcb {
                hot: &mut $self.slab.hot[$slot as usize],
                cold: &mut $self.slab.cold[$slot as usize],
            },
            $crate::sender::Shared {
                pool: &mut $self.pool,
                records: &mut $self.records,
                counters: &mut $self.counters,
                config: &$self.config,
            },
        )
    };
}
pub(crate) use parts;

impl Connections {
    /// A segment for the connection in `slot`.
    pub(crate) fn segment_arrives(
        &mut self,
        slot: u32,
        segment: &Segment,
        hash: u64,
        frames: Frames<'_, '_>,
    ) {
        let outcome = if self.slab.hot[slot as usize].state == State::SynSent {
            self.syn_sent(slot, segment, frames)
        } else {
            self.synchronized(slot, segment, frames)
        };
        self.account(outcome);
        debug_assert_eq!(hash, self.secret.flow(&segment.key));
    }

    /// SYN-RECEIVED (after a simultaneous open) and all states from ESTABLISHED on.
    pub(crate) fn synchronized(
        &mut self,
        slot: u32,
        segment: &Segment,
        frames: Frames<'_, '_>,
    ) -> Option<Drop> {
        let at = slot as usize;
        let now_ms = self.now.ms();
        let hot = &mut self.slab.hot[at];
        // A simultaneous open ends with a SYN-ACK of which only the acknowledgment is new (RFC 9293, section 3.5, figure 8).
        let crossed = hot.state == State::SynReceived
            && segment.flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN | flag::ACK
            && segment.seq + 1 == hot.rcv_nxt
            && segment.ack == hot.snd_nxt;
        if !crossed {
            if let Err(verdict) = self.check_sequence(slot, segment) {
                return verdict;
            }
            // Fourth: SYN (RFC 5961, section 4.2); `check_sequence` has challenged those outside the window.
            if segment.has(flag::SYN) {
                self.challenge(slot);
                return Some(Drop::SynInWindow);
            }
        }
        // Fifth: ACK.
        if !segment.has(flag::ACK) {
            return Some(Drop::NoAck);
        }
        if let Some(reason) = self.check_ack(slot, segment) {
            return Some(reason);
        }
        let hot = &mut self.slab.hot[at];
        let cold = &mut self.slab.cold[at];
        cold.heard_at = now_ms;
        cold.path = segment.path;
        if hot.has(f::KEEP_TIMER) {
            cold.keep_probes = 0;
            cold.keep_at = now_ms.wrapping_add(cold.keep_alive.idle);
        }
        if let Some((value, _)) = segment.options.timestamps
            && hot.has(f::TIMESTAMPS)
            && value.wrapping_sub(hot.ts_recent) as i32 >= 0
            && segment.seq.le(cold.last_ack_sent)
        {
            // RFC 7323, section 4.3, (2).
            hot.ts_recent = value;
        }
        if hot.has(f::ECN) {
            // RFC 3168, section 6.1.3: ECE until CWR; a CE mark on the same segment begins it anew.
            if segment.has(flag::CWR) {
                hot.clear(f::ECE);
            }
            if segment.ecn == ecn::CE {
                hot.set(f::ECE);
            }
        }
        if hot.state == State::SynReceived {
            self.established(slot, segment);
        }
        let outcome = self.take_ack(slot, segment);
        if outcome.fin {
            self.fin_acknowledged(slot);
        }
        let hot = &mut self.slab.hot[at];
        if hot.has(f::FINISHED) {
            return None;
        }
        let mut dropped = None;
        if (segment.len > 0 || segment.has(flag::FIN)) && !crossed {
            if hot.has(f::ORPHAN) && segment.len > 0 && self.data_after_close(slot, segment) {
                return Some(Drop::AfterClose);
            }
            dropped = self.take_data(slot, segment, frames);
        }
        let hot = &mut self.slab.hot[at];
        if hot.has(f::ACK_PENDING | f::ACK_NOW | f::LOST) || hot.unsent_bytes() > 0 || hot.fin_due() {
            self.want_output(slot);
        }
        self.sync_timer(slot);
        dropped
    }

    /// First to third: timestamps, sequence number, RST. An error ends the segment's way: dropped for a reason, or done.
    fn check_sequence(&mut self, slot: u32, segment: &Segment) -> Result<(), Option<Drop>> {
        let hot = &mut self.slab.hot[slot as usize];
        let cold = &mut self.slab.cold[slot as usize];
        let reset = segment.has(flag::RST);
        if hot.has(f::TIMESTAMPS) && !reset {
            match segment.options.timestamps {
                // RFC 7323, section 3.2. A SYN gets its challenge whatever it carries.
                None if !segment.has(flag::SYN) => return Err(Some(Drop::MissingTimestamp)),
                Some((value, _)) if (value.wrapping_sub(hot.ts_recent) as i32) < 0 => {
                    if self.now.ms().wrapping_sub(cold.heard_at) < PAWS_IDLE_MS {
                        // Section 5.3, R1: acknowledged, and dropped.
                        let data = segment.len > 0;
                        self.acknowledge_old(slot, data);
                        return Err(Some(Drop::Paws));
                    }
                    hot.ts_recent = value;
                }
                _ => {}
            }
        }
        // RFC 9293, section 3.4, table 6.
        let window = hot.rcv_edge.after(hot.rcv_nxt);
        let len = segment.seq_len();
        let inside = |seq: crate::sequence::Seq| seq - hot.rcv_nxt < window;
        let acceptable = match (len, window) {
            // With a closed window what stands exactly at its edge is looked at for its ACK, RST and URG.
            (_, 0) => segment.seq == hot.rcv_nxt,
            (0, _) => inside(segment.seq),
            // One that covers the window and more on both sides has its part in it, too.
            _ => {
                inside(segment.seq)
                    || inside(segment.seq + (len - 1))
                    || (segment.seq.lt(hot.rcv_nxt) && (segment.seq + len).gt(hot.rcv_edge))
            }
        };
        if !acceptable {
            if reset {
                return Err(Some(Drop::OutOfWindow));
            }
            if segment.has(flag::SYN) {
                // RFC 5961, section 4.2: whatever its sequence number.
                self.challenge(slot);
                return Err(Some(Drop::SynInWindow));
            }
            let old = len > 0 && (segment.seq + len).le(hot.rcv_nxt) && hot.rcv_nxt - segment.seq < 1 << 30;
            if old && segment.len > 0 && hot.has(f::SACK) {
                cold.dsack =
                    Some((segment.data_seq(), (segment.data_seq() + segment.len).min(hot.rcv_nxt)));
            }
            self.acknowledge_old(slot, segment.len > 0 || segment.has(flag::FIN));
            return Err(Some(if old { Drop::Duplicate } else { Drop::OutOfWindow }));
        }
        if reset {
            // RFC 5961, section 3.2.
            if segment.seq != hot.rcv_nxt {
                self.challenge(slot);
                return Err(Some(Drop::ResetNotExact));
            }
            self.counters.resets_received += 1;
            let reason =
                if hot.state == State::SynReceived { CloseReason::Refused } else { CloseReason::Reset };
            self.finish(slot, reason);
            self.try_free(slot);
            return Err(None);
        }
        Ok(())
    }

    /// Fifth: whether the acknowledgment is one that could have been sent.
    fn check_ack(&mut self, slot: u32, segment: &Segment) -> Option<Drop> {
        let hot = &self.slab.hot[slot as usize];
        if hot.state == State::SynReceived {
            // RFC 9293: SND.UNA < SEG.ACK =< SND.NXT, or a reset.
            if !(segment.ack.gt(hot.snd_una) && segment.ack.le(hot.snd_nxt)) {
                self.replies.push(
                    &mut self.counters,
                    plain(segment, segment.ack, crate::sequence::Seq(0), flag::RST, 0),
                );
                return Some(Drop::AckOutOfRange);
            }
            return None;
        }
        if segment.ack.gt(hot.snd_nxt) {
            self.challenge(slot);
            return Some(Drop::AckOutOfRange);
        }
        // RFC 5961, section 5.2: not older than the largest window the peer has offered.
        if segment.ack.lt(hot.snd_una) {
            let window = self.slab.cold[slot as usize].max_window.max(1);
            if hot.snd_una - segment.ack > window {
                self.challenge(slot);
                return Some(Drop::AckOutOfRange);
            }
        }
        None
    }

    /// The acknowledgment, and the window it brings.
    pub(crate) fn take_ack(&mut self, slot: u32, segment: &Segment) -> AckOutcome {
        let now = self.now;
        let (mut tcb, mut shared) = parts!(self, slot);
        if segment.ack.lt(tcb.hot.snd_una) {
            return AckOutcome::default(); // an old duplicate; its data may still be new
        }
        let window = u32::from(segment.window) << tcb.hot.snd_scale;
        let unchanged = window == tcb.hot.snd_wnd;
        // RFC 5681, section 2; what answers the probes of a closed window says nothing of loss.
        let duplicate = window > 0
            && segment.ack == tcb.hot.snd_una
            && segment.len == 0
            && !segment.has(flag::FIN | flag::SYN)
            && tcb.hot.records.0 != crate::buffer::NIL
            && (unchanged || segment.options.sack_len > 0);
        // RFC 9293, section 3.10.7.4: SND.WL1 < SEG.SEQ, or equal and SND.WL2 =< SEG.ACK, which holds here: SND.WL2 is never
        // above SND.UNA.
        if tcb.hot.snd_wl1.le(segment.seq) {
            let opened = tcb.hot.snd_wnd == 0 && window > 0;
            tcb.hot.snd_wnd = window;
            tcb.hot.snd_wl1 = segment.seq;
            if window > tcb.cold.max_window {
                tcb.cold.max_window = window;
            }
            if opened {
                tcb.window_opened(&mut shared, now);
            }
        }
        let echo = segment
            .options
            .timestamps
            .filter(|_| tcb.hot.has(f::TIMESTAMPS))
            .and_then(|(_, echo)| tcb.plausible_echo(echo, now));
        let input = AckIn {
            ack: segment.ack,
            sack: segment.options.sack_blocks(),
            echo,
            duplicate,
            ece: segment.has(flag::ECE) && tcb.hot.has(f::ECN),
        };
        let outcome = tcb.on_ack(&mut shared, &input, now);
        if outcome.bytes > 0 && tcb.hot.has(f::WANT_WRITE) {
            let free = tcb.cold.snd_buf.saturating_sub(tcb.hot.queued());
            if free >= tcb.cold.low_water.min(tcb.cold.snd_buf).max(tcb.cold.snd_buf / 4) {
                tcb.hot.clear(f::WANT_WRITE);
                self.events.raise(slot, tcb.hot, bit::WRITABLE);
            }
        }
        outcome
    }

    /// Our FIN has been acknowledged.
    fn fin_acknowledged(&mut self, slot: u32) {
        match self.slab.hot[slot as usize].state {
            State::FinWait1 => {
                self.slab.hot[slot as usize].state = State::FinWait2;
                if self.slab.hot[slot as usize].has(f::ORPHAN)
                    && !self.slab.hot[slot as usize].has(f::LIFE_TIMER)
                {
                    self.live_until(slot, ms_of(self.config.fin_wait_2));
                }
            }
            State::Closing => self.enter_time_wait(slot),
            State::LastAck => {
                self.finish(slot, CloseReason::Finished);
                self.try_free(slot);
            }
            _ => {}
        }
    }

    /// New data for a connection that the application has closed: nobody will read it, and the peer must learn that
    /// (RFC 9293, section 3.6.1; RFC 1122, section 4.2.2.13).
    fn data_after_close(&mut self, slot: u32, segment: &Segment) -> bool {
        let hot = &self.slab.hot[slot as usize];
        if !(segment.data_seq() + segment.len).gt(hot.rcv_nxt) {
            return false;
        }
        self.send_reset(slot);
        self.finish(slot, CloseReason::Aborted);
        self.try_free(slot);
        true
    }

    /// A challenge ACK (RFC 5961), within the connection's own limit.
    pub(crate) fn challenge(&mut self, slot: u32) {
        if !self.challenge_allowed(slot) {
            return;
        }
        self.counters.challenge_acks += 1;
        self.slab.hot[slot as usize].set(f::ACK_PENDING | f::ACK_NOW);
        self.want_output(slot);
    }

    fn challenge_allowed(&mut self, slot: u32) -> bool {
        let cold = &mut self.slab.cold[slot as usize];
        let now_ms = self.now.ms();
        if now_ms.wrapping_sub(cold.challenge_since) >= 1000 {
            cold.challenge_since = now_ms;
            cold.challenges = 0;
        }
        if cold.challenges >= self.config.challenge_acks {
            self.counters.challenge_acks_limited += 1;
            return false;
        }
        cold.challenges += 1;
        true
    }

    /// An unacceptable segment is answered with an acknowledgment (RFC 9293, section 3.10.7.4, first). One without data counts
    /// against the challenge limit, or two ends that are out of step would answer each other for ever.
    fn acknowledge_old(&mut self, slot: u32, data: bool) {
        if data || self.challenge_allowed(slot) {
            self.slab.hot[slot as usize].set(f::ACK_PENDING | f::ACK_NOW);
            self.want_output(slot);
        }
    }
}
