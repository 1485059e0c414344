//! What an acknowledgment changes: what is delivered, what is lost, and how much may be sent.

use super::Shared;
use super::congestion::Ack;
use super::rack::DUP_THRESHOLD;
use super::record::r;
use super::recovery::{Frto, Phase};
use crate::buffer::NIL;
use crate::options::SackBlock;
use crate::sequence::Seq;
use crate::tcb::{Tcb, f};
use crate::time::{Instant, before};

/// The longest that the timeout stays backed off after progress without a sample, in microseconds. RFC 6298 (section 5) has no bound;
/// without one a run of lost acknowledgments leaves room for a handful of tries before the user timeout. Lower: a path that grew
/// beyond it at once is never learned without timestamps. Higher: peers without timestamps and SACK are given up where a fifth
/// is lost. RFC 6298 (5.7) has as many seconds for a path of which nothing is known.
const KEPT_US: u32 = 3_000_000;

/// An acceptable acknowledgment.
pub(crate) struct AckIn<'a> {
    pub ack: Seq,
    pub sack: &'a [SackBlock],
    /// TSecr on our clock, in milliseconds.
    pub echo: Option<u32>,
    /// A duplicate in the sense of RFC 5681, section 2.
    pub duplicate: bool,
    /// ECE is set (and ECN was negotiated).
    pub ece: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AckOutcome {
    /// Payload bytes newly acknowledged.
    pub bytes: u32,
    /// Our FIN is acknowledged.
    pub fin: bool,
}

#[derive(Default)]
struct Delivery {
    bytes: u32,
    /// Age of the oldest record acknowledged that was sent once.
    rtt: Option<u32>,
    /// Something that was sent again was acknowledged.
    resent: bool,
    /// When the first of what was acknowledged was last sent, if that was not the first time.
    first_resent: Option<u32>,
    /// Something that was sent once, before the timeout, was acknowledged or SACKed just now.
    original: bool,
    sacked: bool,
    dsack: bool,
    dsack_end: Option<Seq>,
}

impl Tcb<'_> {
    /// Handles an acknowledgment with SND.UNA <= SEG.ACK <= SND.NXT.
    pub(crate) fn on_ack(
        &mut self,
        shared: &mut Shared<'_>,
        input: &AckIn<'_>,
        now: Instant,
    ) -> AckOutcome {
        let una = self.hot.snd_una;
        let advanced = input.ack.gt(una);
        let recovering = self.cold.recovery.phase == Phase::Recovery;
        if !advanced && input.sack.is_empty() && !input.duplicate && !input.ece {
            return AckOutcome::default();
        }
        let mut delivery = Delivery::default();
        let mut outcome = AckOutcome::default();
        let echoed = |record_us: u32| {
            // Milliseconds on both sides of the comparison; the record's own millisecond.
            input.echo.map(|echo| (echo, now.ms().wrapping_sub(now.us().wrapping_sub(record_us) / 1_000)))
        };
        if advanced {
            self.acknowledge(shared, input.ack, &mut delivery, &echoed, now);
            outcome.bytes = input.ack.min(self.hot.snd_end).after(una);
            outcome.fin = self.hot.has(f::FIN_SENT) && input.ack == self.hot.snd_end + 1;
            self.hot.snd_una = input.ack;
            self.hot.send.pop(shared.pool, outcome.bytes as usize);
            if self.hot.snd_nxt.le(input.ack) {
                self.hot.set_cursor(self.hot.send.start(shared.pool));
            }
            self.cold.progress_at = now.ms();
            self.cold.bytes_acked += u64::from(outcome.bytes);
        }
        if self.hot.has(f::SACK) && !input.sack.is_empty() {
            self.sack(shared, input, &mut delivery, &echoed, now);
        }
        if delivery.resent {
            delivery.rtt = None; // Karn's algorithm (RFC 6298, section 3), also for what is SACKed only now
        }
        let sample = self.round_trip(&delivery, input.echo.filter(|_| advanced), now);
        if let Some(us) = sample {
            self.cold.rtt.sample(us, now.ms(), shared.config);
        }
        // Without a sample the timeout stays backed off (Karn's algorithm; RFC 6298, section 5, last paragraph): the next segment sent
        // once then gives one even if the path has become longer than the timeout. A duplicate reported by what advances says
        // that an acknowledgment was lost, not that it takes longer.
        if advanced && (sample.is_some() || delivery.first_resent.is_none() || delivery.dsack) {
            self.cold.backoff = 0;
        } else if advanced {
            while self.cold.backoff > 0
                && self.cold.rtt.backed_off(self.cold.backoff, shared.config) > KEPT_US
            {
                self.cold.backoff -= 1;
            }
        }
        let mss = u32::from(self.hot.mss);
        if !self.hot.has(f::SACK) {
            self.count_duplicates(shared, input, advanced, outcome.bytes, &mut delivery);
        }
        self.probe_answered(input, &delivery, advanced);
        if delivery.dsack {
            self.cold.rack.dsack(self.hot.snd_una, self.hot.snd_nxt);
        }
        let entered = self.recover(shared, input, &delivery, advanced, now);
        if input.ece && self.cold.recovery.phase == Phase::Open {
            // RFC 3168, section 6.1.2: at most once for each window of data.
            let until = self.cold.recovery.ecn_until;
            if until.is_none_or(|until| self.hot.snd_una.gt(until)) {
                let flight = self.flight_for_reduction();
                self.hot.cwnd = self.cold.congestion.reduce(self.hot.cwnd, flight, mss);
                self.cold.recovery.ecn_until = Some(self.hot.snd_nxt);
                self.hot.set(f::CWR);
                shared.counters.ecn_reductions += 1;
            }
        } else if self.cold.recovery.phase == Phase::Recovery {
            if entered || delivery.bytes > 0 {
                self.prr(delivery.bytes, entered);
            }
        } else if advanced
            && !recovering
            && (self.cold.recovery.limited || self.cold.recovery.phase == Phase::Loss)
        {
            let ack = Ack { bytes: input.ack - una, mss, rtt_us: self.cold.rtt.smoothed, now_ms: now.ms() };
            self.hot.cwnd = self.cold.congestion.grow(self.hot.cwnd, ack);
        }
        if advanced {
            self.restart_rto(shared.config, now);
        }
        self.arm_sender(shared.config, now, advanced || delivery.bytes > 0);
        outcome
    }

    /// What an acknowledgment tells of the path's round-trip time, in microseconds.
    ///
    /// RFC 7323, section 4.1: an acknowledgment of something new gives a sample also when it was sent again. But a duplicate
    /// leaves the peer's TS.Recent alone: once an acknowledgment is lost, the answer to the retransmission echoes the copy that
    /// arrived first, and the whole backoff would be taken for the path's.
    fn round_trip(&self, delivery: &Delivery, echo: Option<u32>, now: Instant) -> Option<u32> {
        if delivery.rtt.is_some() {
            return delivery.rtt;
        }
        let ms = now.ms().wrapping_sub(echo?);
        if let Some(sent_us) = delivery.first_resent {
            let age = now.us().wrapping_sub(sent_us);
            // An answer to the last copy cannot be back sooner than the path's least: then it is the earlier one's, and only late.
            if ms > age.div_ceil(1_000) && age >= self.cold.rtt.min {
                return None;
            }
        }
        (ms < 1 << 20).then(|| ms.max(1) * 1_000)
    }

    /// Takes what is acknowledged off the records (not the queue).
    fn acknowledge(
        &mut self,
        shared: &mut Shared<'_>,
        ack: Seq,
        delivery: &mut Delivery,
        echoed: &dyn Fn(u32) -> Option<(u32, u32)>,
        now: Instant,
    ) {
        if self.hot.records.0 != NIL {
            let first = shared.records.get(self.hot.records.0);
            delivery.first_resent = first.has(r::RESENT).then_some(first.sent_us);
        }
        while self.hot.records.0 != NIL {
            let at = self.hot.records.0;
            let record = *shared.records.get(at);
            if record.seq.ge(ack) {
                break;
            }
            if record.end().gt(ack) {
                // Part of it.
                let n = ack - record.seq;
                let cursor = record.cursor().advance(shared.pool, n as usize);
                let rest = shared.records.get_mut(at);
                rest.seq = ack;
                rest.len -= n as u16;
                rest.chunk = cursor.chunk;
                rest.offset = cursor.offset;
                if record.in_flight() {
                    self.hot.in_flight -= n;
                }
                if !record.has(r::SACKED) {
                    delivery.bytes += n;
                }
                break;
            }
            let n = record.seq_len();
            if record.in_flight() {
                self.hot.in_flight = self.hot.in_flight.saturating_sub(n);
            }
            delivery.resent |= record.has(r::RESENT);
            if record.has(r::SACKED) {
                self.cold.rack.sacked -= 1;
            } else {
                delivery.bytes += n;
                self.deliver(&record, delivery, echoed(record.sent_us), now);
            }
            shared.records.pop(self.hot, &mut self.cold.rack.times);
        }
    }

    /// A record has reached the peer.
    fn deliver(
        &mut self,
        record: &super::record::Record,
        delivery: &mut Delivery,
        echoed: Option<(u32, u32)>,
        now: Instant,
    ) {
        let resent = record.has(r::RESENT);
        if !resent {
            delivery.rtt.get_or_insert(now.us().wrapping_sub(record.sent_us));
            if record.end().le(self.cold.recovery.recover) {
                delivery.original = true;
            }
        }
        let min = self.cold.rtt.min;
        self.cold.rack.delivered(record.sent_us, record.end(), resent, echoed, now.us(), min);
    }

    /// Marks what the peer says it holds (RFC 2018, section 5.1; RFC 2883 for duplicates).
    fn sack(
        &mut self,
        shared: &mut Shared<'_>,
        input: &AckIn<'_>,
        delivery: &mut Delivery,
        echoed: &dyn Fn(u32) -> Option<(u32, u32)>,
        now: Instant,
    ) {
        // RFC 2883, section 4: the first block is below the acknowledgment, or inside the second block.
        let (&(start, end), others) = input.sack.split_first().expect("the caller has looked");
        let inside = |&(s, e): &SackBlock| start.ge(s) && end.le(e);
        if end.le(input.ack) || others.first().is_some_and(inside) {
            delivery.dsack = true;
            delivery.dsack_end = Some(end);
            let recovery = &mut self.cold.recovery;
            if recovery.undo.is_some_and(|undo| start.ge(undo)) {
                recovery.undo_resent = recovery.undo_resent.saturating_sub(1);
            }
        }
        // RFC 8985, section 6.2, step 3 wants ascending order: what one acknowledgment reports is not out of order in itself.
        let mut blocks = [(self.hot.snd_una, self.hot.snd_una); crate::options::MAX_SACK_BLOCKS];
        let blocks = &mut blocks[..input.sack.len()];
        blocks.copy_from_slice(input.sack);
        blocks.sort_unstable_by_key(|block| block.0 - self.hot.snd_una);
        for &mut (start, end) in blocks {
            // RFC 2018 and RFC 5961's spirit: only what has been sent and is not acknowledged.
            if start.ge(end) || end.gt(self.hot.snd_nxt) || start.lt(self.hot.snd_una) {
                continue;
            }
            let mut at = self.hot.records.0;
            while at != NIL {
                let record = *shared.records.get(at);
                if record.seq.ge(end) {
                    break;
                }
                if record.end().le(start) {
                    at = record.next;
                    continue;
                }
                let cut = if record.seq.lt(start) {
                    start - record.seq
                } else if record.end().gt(end) {
                    end - record.seq
                } else {
                    0
                };
                if cut > 0 {
                    let cursor = record.cursor().advance(shared.pool, cut as usize);
                    if !shared.records.split(self.hot, &mut self.cold.rack.times, at, cut as u16, cursor) {
                        break;
                    }
                    if record.has(r::SACKED) {
                        self.cold.rack.sacked += 1;
                    }
                    continue;
                }
                if !record.has(r::SACKED) {
                    let n = record.seq_len();
                    if record.in_flight() {
                        self.hot.in_flight = self.hot.in_flight.saturating_sub(n);
                        shared.records.unlink_time(&mut self.cold.rack.times, at);
                    }
                    let marked = shared.records.get_mut(at);
                    marked.flags = (marked.flags & !r::LOST) | r::SACKED;
                    self.cold.rack.sacked += 1;
                    delivery.bytes += n;
                    delivery.sacked = true;
                    self.deliver(&record, delivery, echoed(record.sent_us), now);
                }
                at = record.next;
            }
        }
    }

    /// Without SACK, duplicates are counted (RFC 5681, section 3.2).
    fn count_duplicates(
        &mut self,
        shared: &Shared<'_>,
        input: &AckIn<'_>,
        advanced: bool,
        bytes: u32,
        delivery: &mut Delivery,
    ) {
        let mss = u32::from(self.hot.mss);
        let recovery = &mut self.cold.recovery;
        if advanced {
            // What is acknowledged now had been counted as it left the network.
            recovery.reno_left = match recovery.phase {
                Phase::Recovery => recovery.reno_left.saturating_sub(bytes.saturating_sub(mss)),
                _ => 0,
            };
            recovery.dupacks = 0;
            if delivery.resent {
                delivery.original = false; // who knows which transmission it was
            }
        } else if input.duplicate && recovery.phase != Phase::Loss && self.hot.records.0 != NIL {
            recovery.dupacks += 1;
            recovery.reno_left = recovery.reno_left.saturating_add(mss).min(self.hot.in_flight);
            delivery.bytes += mss.min(shared.config.mtu.into());
        }
    }

    /// Whether a tail loss probe has repaired a loss (RFC 8985, section 7.4).
    fn probe_answered(&mut self, input: &AckIn<'_>, delivery: &Delivery, advanced: bool) {
        let Some((end, resent)) = self.cold.rack.probe else { return };
        if input.ack.lt(end) {
            return;
        }
        if !resent || delivery.dsack_end == Some(end) {
            self.cold.rack.probe = None;
        } else if input.ack.gt(end) {
            self.cold.rack.probe = None;
            if self.cold.recovery.phase == Phase::Open {
                let (flight, mss) = (self.flight_for_reduction(), u32::from(self.hot.mss));
                self.hot.cwnd = self.cold.congestion.reduce(self.hot.cwnd, flight, mss);
                if self.hot.has(f::ECN) {
                    self.hot.set(f::CWR);
                }
            }
        } else if !advanced && !delivery.sacked {
            // A duplicate acknowledgment: both transmissions arrived.
            self.cold.rack.probe = None;
        }
    }

    /// The recovery state machine. Returns whether fast recovery has just begun.
    fn recover(
        &mut self,
        shared: &mut Shared<'_>,
        input: &AckIn<'_>,
        delivery: &Delivery,
        advanced: bool,
        now: Instant,
    ) -> bool {
        let sack = self.hot.has(f::SACK);
        let done = input.ack.ge(self.cold.recovery.recover);
        match self.cold.recovery.phase {
            Phase::Loss => {
                let all_duplicates = delivery.dsack && self.cold.recovery.undo_resent == 0;
                if (advanced && self.eifel(input.echo))
                    || (all_duplicates && self.cold.recovery.undo.is_some())
                {
                    self.undo(shared);
                } else if self.cold.recovery.frto != Frto::Off {
                    self.frto(shared, input, delivery, advanced, done);
                }
                if self.cold.recovery.phase == Phase::Loss && advanced && done {
                    self.leave_recovery();
                } else if self.cold.recovery.phase == Phase::Loss && advanced && !sack {
                    self.mark_first_lost(shared);
                }
            }
            Phase::Recovery => {
                let all_duplicates = delivery.dsack && self.cold.recovery.undo_resent == 0;
                if self.cold.recovery.undo.is_some()
                    && ((advanced && self.eifel(input.echo)) || all_duplicates)
                {
                    self.undo(shared);
                } else if done && advanced {
                    self.leave_recovery();
                } else if advanced && !sack {
                    // A partial acknowledgment (RFC 6582, section 3.2, step 3): the next one is lost, too, and is sent again now,
                    // whatever proportional reduction would say.
                    self.mark_first_lost(shared);
                    self.hot.set(f::PROBE);
                }
            }
            Phase::Open => {
                let recovery = &self.cold.recovery;
                // RFC 6582, section 3.2, step 2: not for what an earlier recovery may have caused.
                if !sack && recovery.dupacks == DUP_THRESHOLD && self.hot.snd_una.gt(recovery.recover) {
                    self.mark_first_lost(shared);
                    self.enter_recovery(shared);
                    return true;
                }
                // RFC 3708: the retransmissions of a recovery that has ended turn out to have been duplicates, all of them.
                if delivery.dsack && recovery.undo_resent == 0 && recovery.undo.is_some() {
                    self.undo(shared);
                } else if input.ack.gt(recovery.undo_until) {
                    self.cold.recovery.undo = None;
                }
            }
        }
        if sack && (delivery.bytes > 0 || self.cold.rack.sacked > 0) {
            return self.detect(shared, now);
        }
        false
    }

    /// Runs RACK's detection; begins recovery when something is lost. Returns whether it did.
    pub(crate) fn detect(&mut self, shared: &mut Shared<'_>, now: Instant) -> bool {
        let recovering = self.cold.recovery.phase != Phase::Open;
        let rtt = (self.cold.rtt.smoothed, self.cold.rtt.min);
        let (lost, wait) = self.cold.rack.detect(self.hot, shared.records, recovering, rtt, now.us());
        self.cold.reorder_wait = wait.unwrap_or(0);
        if lost && !recovering {
            self.enter_recovery(shared);
            return true;
        }
        false
    }

    /// The first unacknowledged segment is lost.
    pub(crate) fn mark_first_lost(&mut self, shared: &mut Shared<'_>) {
        if self.hot.records.0 != NIL {
            self.cold.rack.mark_lost(self.hot, shared.records, self.hot.records.0);
        }
    }

    /// F-RTO (RFC 5682, sections 2.1 and 3.1).
    fn frto(
        &mut self,
        shared: &mut Shared<'_>,
        input: &AckIn<'_>,
        delivery: &Delivery,
        advanced: bool,
        done: bool,
    ) {
        if delivery.original {
            // Step 3b: data that was sent once, before the timeout, has arrived: the timeout was spurious.
            self.undo(shared);
            return;
        }
        match self.cold.recovery.frto {
            // Step 2a: nothing new, or everything: conventional recovery.
            Frto::Waiting if advanced && !done => self.cold.recovery.frto = Frto::SendNew,
            Frto::Waiting if input.duplicate && !self.hot.has(f::SACK) => {
                self.cold.recovery.frto = Frto::Off
            }
            // Step 3a.
            Frto::Sent if input.duplicate || delivery.sacked => self.cold.recovery.frto = Frto::Off,
            _ => {}
        }
    }

    /// The retransmission timeout starts anew (RFC 6298, 5.3).
    pub(crate) fn restart_rto(&mut self, config: &crate::config::Config, now: Instant) {
        let rto = self.cold.rtt.backed_off(self.cold.backoff, config);
        self.cold.rto_at = crate::time::deadline_us(now, rto);
    }

    /// Whether the timestamp echoed is one that can have been sent.
    pub(crate) fn plausible_echo(&self, echo: u32, now: Instant) -> Option<u32> {
        let ms = echo.wrapping_sub(self.hot.ts_offset);
        (!before(now.ms(), ms)).then_some(ms)
    }
}
