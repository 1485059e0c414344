//! Recovery: proportional rate reduction (RFC 6937), NewReno's rules (RFC 6582), F-RTO (RFC 5682), and undoing a reduction
//! that reordering or delay caused (RFC 3522, RFC 3708).

use super::Shared;
use super::congestion::Saved;
use super::record::r;
use crate::buffer::NIL;
use crate::sequence::Seq;
use crate::tcb::{Tcb, f};
use crate::time::{Instant, before};

/// Where the sender stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nothing is known to be lost.
    #[default]
    Open,
    /// Fast recovery.
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

/// F-RTO's steps (RFC 5682, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Frto {
    /// Not under way: conventional recovery.
    #[default]
    Off,
    /// The first segment has been sent again; the next acknowledgment decides (step 2).
    Waiting,
    /// An acknowledgment advanced: send new data now instead of old (step 2b).
    SendNew,
    /// New data has been sent; the next acknowledgment decides (step 3).
    Sent,
}

/// Recovery's variables.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recovery {
    pub phase: Phase,
    pub frto: Frto,
    /// RecoveryPoint of RFC 6675, `recover` of RFC 6582: SND.NXT when it began.
    pub recover: Seq,
    /// Consecutive duplicate acknowledgments, without SACK.
    pub dupacks: u32,
    /// Bytes that duplicate acknowledgments say have left the network, without SACK.
    pub reno_left: u32,
    /// RFC 6937's variables.
    pub prr_delivered: u32,
    pub prr_out: u32,
    pub recover_fs: u32,
    /// SND.UNA when the window was reduced; `None` when there is nothing to undo.
    pub undo: Option<Seq>,
    /// After recovery: a duplicate report of its retransmissions still counts until this is acknowledged.
    pub undo_until: Seq,
    /// Retransmissions not yet reported as duplicates.
    pub undo_resent: u32,
    pub undo_cwnd: u32,
    pub undo_saved: Saved,
    /// When the first retransmission of this recovery left (milliseconds), for Eifel detection.
    pub first_resend: Option<u32>,
    /// The window, and nothing else, held data back at the last transmission.
    pub limited: bool,
    /// FlightSize just after new data was last sent. Acknowledgments of a burst come together, with no transmission between, so
    /// that what is outstanding when the last of them shows a loss is less than what was.
    pub flight: u32,
    /// ECN has reduced the window for what was sent up to here.
    pub ecn_until: Option<Seq>,
}

impl Tcb<'_> {
    /// Bytes in the network (pipe, RFC 6675).
    #[inline]
    pub(crate) fn pipe(&self) -> u32 {
        if self.cold.recovery.reno_left == 0 {
            self.hot.in_flight
        } else {
            self.hot.in_flight.saturating_sub(self.cold.recovery.reno_left)
        }
    }

    /// Bytes sent and not acknowledged: FlightSize.
    #[inline]
    pub(crate) fn flight(&self) -> u32 {
        self.hot.snd_nxt.after(self.hot.snd_una)
    }

    /// FlightSize for a reduction (RFC 5681, equation 4), without what limited transmit has added (RFC 5681, section 3.2, step 2).
    pub(crate) fn flight_for_reduction(&self) -> u32 {
        self.flight().max(self.cold.recovery.flight).min(self.hot.cwnd)
    }

    fn remember(&mut self) {
        let recovery = &mut self.cold.recovery;
        recovery.undo = Some(self.hot.snd_una);
        recovery.undo_resent = 0;
        recovery.undo_cwnd = self.hot.cwnd;
        recovery.undo_saved = self.cold.congestion.save();
        recovery.first_resend = None;
    }

    /// Fast recovery begins (RFC 6675, section 5, step 4; RFC 6937, section 3).
    pub(crate) fn enter_recovery(&mut self, shared: &mut Shared<'_>) {
        self.remember();
        let (flight, mss) = (self.flight_for_reduction(), u32::from(self.hot.mss));
        self.cold.congestion.reduce(self.hot.cwnd, flight, mss);
        let recovery = &mut self.cold.recovery;
        recovery.phase = Phase::Recovery;
        recovery.recover = self.hot.snd_nxt;
        recovery.prr_delivered = 0;
        recovery.prr_out = 0;
        recovery.recover_fs = flight.max(1);
        self.congestion_told();
        shared.counters.fast_recoveries += 1;
    }

    /// The window was reduced: with ECN, the peer is told (RFC 3168, section 6.1.2).
    fn congestion_told(&mut self) {
        if self.hot.has(f::ECN) {
            self.hot.set(f::CWR);
            self.cold.recovery.ecn_until = Some(self.hot.snd_nxt);
        }
    }

    /// How much may be sent after an acknowledgment that delivered `delivered` bytes (RFC 6937, section 3.1, with the
    /// slow-start reduction bound).
    pub(crate) fn prr(&mut self, delivered: u32, first: bool) {
        let mss = u32::from(self.hot.mss);
        let pipe = self.pipe();
        let ssthresh = self.cold.congestion.ssthresh;
        let recovery = &mut self.cold.recovery;
        recovery.prr_delivered = recovery.prr_delivered.saturating_add(delivered);
        let send = if pipe > ssthresh {
            let target = (u64::from(recovery.prr_delivered) * u64::from(ssthresh))
                .div_ceil(u64::from(recovery.recover_fs));
            (target as u32).saturating_sub(recovery.prr_out)
        } else {
            let limit =
                recovery.prr_delivered.saturating_sub(recovery.prr_out).max(delivered).saturating_add(mss);
            (ssthresh - pipe).min(limit)
        };
        // The fast retransmission itself is never held back.
        let send = if first || recovery.prr_out == 0 { send.max(mss) } else { send };
        self.hot.cwnd = pipe + send;
    }

    /// All that was in flight when recovery began is acknowledged.
    pub(crate) fn leave_recovery(&mut self) {
        let mss = u32::from(self.hot.mss);
        let recovery = &mut self.cold.recovery;
        recovery.undo_until = self.hot.snd_nxt;
        if recovery.phase == Phase::Loss {
            recovery.undo = None;
        }
        if recovery.phase == Phase::Recovery {
            // RFC 6937: "at the end of recovery, cwnd = ssthresh".
            self.hot.cwnd = self.cold.congestion.ssthresh.max(2 * mss);
        }
        recovery.phase = Phase::Open;
        recovery.frto = Frto::Off;
        recovery.dupacks = 0;
        recovery.reno_left = 0;
        self.cold.rack.recovery_ended();
    }

    /// A retransmission timeout (RFC 5681, section 3.1; RFC 6298, section 5; RFC 8985, section 6.3).
    pub(crate) fn enter_loss(&mut self, shared: &mut Shared<'_>, now: Instant) {
        let mss = u32::from(self.hot.mss);
        let again =
            self.cold.recovery.phase == Phase::Loss && self.hot.snd_una.lt(self.cold.recovery.recover);
        // RFC 5681: ssthresh is not reduced again for a segment that was sent again already.
        if !again {
            if self.cold.recovery.phase == Phase::Open {
                self.remember();
            } else {
                self.cold.recovery.first_resend = None;
            }
            let flight = self.flight_for_reduction();
            self.cold.congestion.reduce(self.hot.cwnd, flight, mss);
            self.cold.congestion.new_epoch();
        }
        // RFC 5682, step 1: not when an earlier recovery is still going on, since what was sent again then confuses it.
        let fresh = self.cold.recovery.phase == Phase::Open;
        let recovery = &mut self.cold.recovery;
        recovery.frto = if fresh && !again { Frto::Waiting } else { Frto::Off };
        recovery.phase = Phase::Loss;
        recovery.recover = self.hot.snd_nxt;
        recovery.dupacks = 0;
        recovery.reno_left = 0;
        self.cold.rack.probe = None;
        self.hot.cwnd = mss;
        self.congestion_told();
        // RFC 2018, section 8: the peer has given up what it said it holds if the very first is SACKed.
        let first = self.hot.records.0;
        let reneged = first != NIL && shared.records.get(first).has(r::SACKED);
        let limit = self.cold.rack.rtt_us;
        let mut at = first;
        while at != NIL {
            let record = *shared.records.get(at);
            if reneged && record.has(r::SACKED) {
                shared.records.get_mut(at).flags = (record.flags & !r::SACKED) | r::LOST;
                self.hot.set(f::LOST);
            } else if at == first
                || !self.hot.has(f::SACK)
                || now.us().wrapping_sub(record.sent_us) >= limit
            {
                // RFC 8985, section 6.3: the first, and all that were sent more than a round trip ago.
                self.cold.rack.mark_lost(self.hot, shared.records, at);
            }
            at = record.next;
        }
        if reneged {
            self.cold.rack.sacked = 0;
        }
    }

    /// The reduction was not called for: everything as it was.
    pub(crate) fn undo(&mut self, shared: &mut Shared<'_>) {
        let recovery = &mut self.cold.recovery;
        if recovery.undo.take().is_none() {
            return;
        }
        match recovery.phase {
            Phase::Loss => shared.counters.spurious_timeouts += 1,
            _ => shared.counters.undone_recoveries += 1,
        }
        self.hot.cwnd = self.hot.cwnd.max(recovery.undo_cwnd);
        let saved = recovery.undo_saved;
        recovery.phase = Phase::Open;
        recovery.frto = Frto::Off;
        recovery.dupacks = 0;
        recovery.reno_left = 0;
        self.cold.congestion.restore(&saved);
        self.hot.clear(f::CWR | f::LOST);
        let mut at = self.hot.records.0;
        while at != NIL {
            let record = *shared.records.get(at);
            if record.has(r::LOST) {
                shared.records.get_mut(at).flags &= !r::LOST;
                self.hot.in_flight += record.seq_len();
                shared.records.insert_by_time(&mut self.cold.rack.times, at);
            }
            at = record.next;
        }
    }

    /// Whether the acknowledgment's timestamp is of before the first retransmission: the original had arrived (RFC 3522).
    pub(crate) fn eifel(&self, echo: Option<u32>) -> bool {
        let recovery = &self.cold.recovery;
        recovery.undo.is_some()
            && matches!((echo, recovery.first_resend), (Some(echo), Some(at)) if before(echo, at))
    }
}
