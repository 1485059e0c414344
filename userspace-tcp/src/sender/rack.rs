//! RACK: loss is deduced from time (RFC 8985, section 6), and the tail loss probe (section 7).
//!
//! A segment is lost when one sent later has been delivered and more than a reordering window has passed. The window is zero
//! until reordering has been seen and three segments are SACKed, which is the rule of RFC 6675 (DupThresh) in RACK's terms.

use super::record::{ByTime, Records, r};
use crate::buffer::NIL;
use crate::sequence::Seq;
use crate::tcb::{Hot, f};
use crate::time::before;

/// Duplicate acknowledgments that mean loss (RFC 5681, section 3.2).
pub(crate) const DUP_THRESHOLD: u32 = 3;
/// Recoveries after which a widened reordering window shrinks again (RFC 8985, section 6.2, step 4).
const PERSIST: u8 = 16;

/// RACK's variables (RFC 8985, section 5.2).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rack {
    pub times: ByTime,
    /// When the most recently sent delivered segment was sent: RACK.xmit_ts.
    pub sent_us: u32,
    /// Its end: RACK.end_seq.
    pub end: Seq,
    /// Its round-trip time.
    pub rtt_us: u32,
    /// Something has been delivered: the three above are valid.
    pub valid: bool,
    /// Highest sequence number delivered: RACK.fack.
    pub fack: Seq,
    /// A segment was delivered after one sent before it.
    pub reordering: bool,
    pub window_mult: u8,
    pub window_persist: u8,
    /// Where the last widening for a DSACK ends: once a round trip.
    pub dsack_round: Option<Seq>,
    /// Segments SACKed.
    pub sacked: u32,
    /// TLP.end_seq and TLP.is_retrans.
    pub probe: Option<(Seq, bool)>,
}

/// Whether (time, end) `a` was sent after `b` (RFC 8985, RACK_sent_after).
fn sent_after(a: (u32, Seq), b: (u32, Seq)) -> bool {
    before(b.0, a.0) || (a.0 == b.0 && a.1.gt(b.1))
}

impl Rack {
    /// Takes note of a record just delivered (steps 2 and 3).
    pub(crate) fn delivered(
        &mut self,
        sent_us: u32,
        end: Seq,
        resent: bool,
        echoed: Option<(u32, u32)>,
        now_us: u32,
        min: u32,
    ) {
        let rtt = now_us.wrapping_sub(sent_us);
        if resent {
            // Step 2: the acknowledgment may be of the first transmission: if TSecr is older than this one, or it came
            // back sooner than the path allows.
            if echoed.is_some_and(|(echo, sent)| before(echo, sent)) || rtt < min {
                return;
            }
        } else if self.valid && end.lt(self.fack) {
            // Step 3.
            self.reordering = true;
        }
        if !self.valid || end.gt(self.fack) {
            self.fack = end;
        }
        if !self.valid || sent_after((sent_us, end), (self.sent_us, self.end)) {
            self.sent_us = sent_us;
            self.end = end;
            self.rtt_us = rtt;
        }
        self.valid = true;
    }

    /// A duplicate was reported: the window was too small (step 4).
    pub(crate) fn dsack(&mut self, snd_una: Seq, snd_nxt: Seq) {
        if self.dsack_round.is_some_and(|round| snd_una.ge(round)) {
            self.dsack_round = None;
        }
        if self.dsack_round.is_none() {
            self.dsack_round = Some(snd_nxt);
            self.window_mult = self.window_mult.saturating_add(1);
            self.window_persist = PERSIST;
        }
    }

    /// A recovery has ended (step 4).
    pub(crate) fn recovery_ended(&mut self) {
        self.window_persist = self.window_persist.saturating_sub(1);
        if self.window_persist == 0 {
            self.window_mult = 0;
        }
    }

    /// The reordering window (step 4), in microseconds.
    fn reorder_window(&self, recovering: bool, smoothed: u32, min: u32) -> u32 {
        if !self.reordering && (recovering || self.sacked >= DUP_THRESHOLD) {
            return 0;
        }
        // Multiples of a quarter of the least round-trip time, at most SRTT.
        (u32::from(self.window_mult) + 1).saturating_mul(min / 4).min(smoothed)
    }

    /// Marks what is lost (step 5). Returns whether anything was, and when to look again, in microseconds from now.
    pub(crate) fn detect(
        &mut self,
        hot: &mut Hot,
        records: &mut Records,
        recovering: bool,
        (smoothed, min): (u32, u32),
        now_us: u32,
    ) -> (bool, Option<u32>) {
        if !self.valid {
            return (false, None);
        }
        let window = self.reorder_window(recovering, smoothed, min);
        let mut lost = false;
        let mut wait = None;
        let mut at = self.times.oldest;
        while at != NIL {
            let record = *records.get(at);
            if !sent_after((self.sent_us, self.end), (record.sent_us, record.end())) {
                break; // everything after it was sent later still
            }
            let age = now_us.wrapping_sub(record.sent_us);
            let limit = self.rtt_us.saturating_add(window);
            if age >= limit {
                self.mark_lost(hot, records, at);
                lost = true;
            } else {
                let left = limit - age;
                wait = Some(wait.map_or(left, |w: u32| w.max(left)));
            }
            at = record.newer;
        }
        (lost, wait)
    }

    /// Marks one record lost.
    pub(crate) fn mark_lost(&mut self, hot: &mut Hot, records: &mut Records, at: u32) {
        let record = records.get_mut(at);
        if !record.in_flight() {
            return;
        }
        record.flags |= r::LOST;
        hot.in_flight = hot.in_flight.saturating_sub(record.seq_len());
        hot.set(f::LOST);
        records.unlink_time(&mut self.times, at);
    }
}
