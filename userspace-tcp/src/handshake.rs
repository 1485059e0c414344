//! Opening from here: active and simultaneous opens, and what is common to all that reach ESTABLISHED (RFC 9293, sections 3.5
//! and 3.10.7.3).

use crate::address::FlowKey;
use crate::config::Ecn;
use crate::connections::Connections;
use crate::counters::Drop;
use crate::events::{CloseReason, bit};
use crate::receiver::pieces::Frames;
use crate::receiver::window;
use crate::reply::plain;
use crate::segment::{Segment, flag};
use crate::sender::congestion::initial_window;
use crate::sender::rtt::Rtt;
use crate::sequence::Seq;
use crate::state::State;
use crate::tcb::f;
use crate::time::{deadline_ms, ms_of, us_of};

impl Connections {
    /// ISN = M + F(...), M in steps of 4 microseconds (RFC 6528, section 3).
    pub(crate) fn initial_sequence(&self, key: &FlowKey) -> Seq {
        let clock = (self.now.nanos() / 4_000) as u32;
        Seq(clock.wrapping_add(self.secret.sequence(key)))
    }

    /// The MSS we tell (RFC 9293, section 3.7.1, and RFC 6691: options not subtracted): what the link takes, or less where the
    /// application has said so.
    pub(crate) fn our_mss(&self, key: &FlowKey, clamp: Option<u16>) -> u16 {
        self.config.mtu.saturating_sub(key.ip_header_len() + 20).min(clamp.unwrap_or(u16::MAX)).max(64)
    }

    /// An active open: SYN-SENT (RFC 9293, section 3.10.1).
    pub(crate) fn start_active(&mut self, slot: u32, key: FlowKey, hash: u64, path: u32) {
        let iss = self.initial_sequence(&key);
        let clamp = self.slab.cold[slot as usize].user_mss;
        let our_mss = self.our_mss(&key, Some(clamp));
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        hot.key = key;
        hot.state = State::SynSent;
        hot.set(f::SYN_DUE);
        hot.ts_offset = self.secret.timestamp(&key.local, &key.remote);
        hot.snd_una = iss;
        hot.snd_nxt = iss + 1;
        hot.snd_end = iss + 1;
        cold.hash = hash;
        cold.iss = iss;
        cold.path = path;
        cold.mtu = self.config.mtu;
        cold.our_mss = our_mss;
        cold.recovery.recover = iss;
        cold.rtt = Rtt::start(&self.config);
        hot.rcv_scale = if self.config.window_scaling { window::scale_for(cold.rcv_buf) } else { 0 };
        self.counters.active_opens += 1;
        self.live_until(slot, ms_of(self.config.connect_timeout));
    }

    /// A segment in SYN-SENT (RFC 9293, section 3.10.7.3).
    pub(crate) fn syn_sent(
        &mut self,
        slot: u32,
        segment: &Segment,
        frames: Frames<'_, '_>,
    ) -> Option<Drop> {
        let (now, config_sack, config_ecn) = (self.now, self.config.sack, self.config.ecn);
        let at = slot as usize;
        let hot = &mut self.slab.hot[at];
        // First: ACK. Nothing but our SYN can be acknowledged.
        let acks = segment.has(flag::ACK);
        if acks && segment.ack != hot.snd_nxt {
            if !segment.has(flag::RST) {
                self.replies.push(&mut self.counters, plain(segment, segment.ack, Seq(0), flag::RST, 0));
                return Some(Drop::AckOutOfRange);
            }
            return Some(Drop::BlindReset);
        }
        // Second: RST.
        if segment.has(flag::RST) {
            if !acks {
                return Some(Drop::BlindReset);
            }
            self.counters.resets_received += 1;
            self.finish(slot, CloseReason::Refused);
            self.try_free(slot);
            return None;
        }
        // Fourth: SYN.
        if !segment.has(flag::SYN) {
            return Some(Drop::NotSyn);
        }
        let cold = &mut self.slab.cold[at];
        let options = &segment.options;
        cold.irs = segment.seq;
        cold.last_ack_sent = segment.seq + 1;
        cold.path = segment.path;
        cold.heard_at = now.ms();
        cold.peer_mss = options.mss.unwrap_or(if hot.key.is_v4() { 536 } else { 1220 });
        hot.rcv_nxt = segment.seq + 1;
        hot.rcv_edge = hot.rcv_nxt + cold.rcv_buf.min(0xffff);
        hot.put(f::SACK, options.sack_permitted && config_sack);
        // RFC 7323, section 2.5 and 3.2: only what both have sent counts.
        match options.window_scale.filter(|_| self.config.window_scaling) {
            Some(scale) => hot.snd_scale = scale,
            None => hot.rcv_scale = 0,
        }
        match options.timestamps.filter(|_| self.config.timestamps) {
            Some((value, _)) => {
                hot.set(f::TIMESTAMPS);
                hot.ts_recent = value;
            }
            None => hot.clear(f::TIMESTAMPS),
        }
        // RFC 3168, section 6.1.1: a SYN-ACK with ECE and without CWR agrees; of two crossing SYNs each asks.
        let ecn = match acks {
            true => segment.flags & (flag::ECE | flag::CWR) == flag::ECE && config_ecn == Ecn::Request,
            false => {
                segment.flags & (flag::ECE | flag::CWR) == flag::ECE | flag::CWR && config_ecn != Ecn::Off
            }
        };
        hot.put(f::ECN, ecn);
        // The window of a SYN is never scaled.
        hot.snd_wnd = u32::from(segment.window);
        hot.snd_wl1 = segment.seq;
        cold.max_window = hot.snd_wnd;
        self.new_mss(slot);
        if !acks {
            // Simultaneous open: SYN-RECEIVED, and SYN-ACK.
            let hot = &mut self.slab.hot[at];
            hot.state = State::SynReceived;
            hot.set(f::SYN_DUE);
            self.want_output(slot);
            return None;
        }
        let (hot, cold) = (&mut self.slab.hot[at], &mut self.slab.cold[at]);
        if cold.syn_attempts <= 1 {
            cold.rtt.sample(now.us().wrapping_sub(cold.syn_us), now.ms(), &self.config);
        }
        hot.set(f::ACK_PENDING | f::ACK_NOW);
        self.established(slot, segment);
        let mut dropped = None;
        if segment.len > 0 || segment.has(flag::FIN) {
            dropped = self.take_data(slot, segment, frames);
        }
        self.want_output(slot);
        self.sync_timer(slot);
        dropped
    }

    /// Our SYN is acknowledged: ESTABLISHED.
    pub(crate) fn established(&mut self, slot: u32, segment: &Segment) {
        let now = self.now;
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        hot.snd_una = cold.iss + 1;
        hot.state = State::Established;
        hot.clear(f::LIFE_TIMER | f::SYN_DUE);
        hot.timer = crate::tcb::Timer::Off;
        if !segment.has(flag::SYN) {
            hot.snd_wnd = u32::from(segment.window) << hot.snd_scale;
            hot.snd_wl1 = segment.seq;
        }
        cold.max_window = cold.max_window.max(hot.snd_wnd);
        cold.backoff = 0;
        cold.progress_at = now.ms();
        cold.sent_at = now.ms();
        let syn_lost = cold.syn_attempts > 1;
        hot.cwnd = initial_window(u32::from(hot.mss), self.config.initial_window, syn_lost);
        if syn_lost && cold.rtt.smoothed == 0 {
            // RFC 6298, 5.7.
            cold.rtt.rto = cold.rtt.rto.max(us_of(self.config.initial_rto).saturating_mul(3));
        }
        cold.recovery.recover = cold.iss;
        if hot.has(f::FIN_QUEUED) {
            hot.state = State::FinWait1;
        }
        if cold.keep_alive.idle > 0 {
            hot.set(f::KEEP_TIMER);
            cold.keep_at = deadline_ms(now, cold.keep_alive.idle);
            self.wheel.arm_no_later(slot, cold.keep_at);
        }
        self.events.raise(slot, hot, bit::ESTABLISHED);
    }

    /// The segment size has changed: handshake, option, or path MTU.
    pub(crate) fn new_mss(&mut self, slot: u32) {
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &self.slab.cold[slot as usize]);
        hot.mss = cold.segment_limit(&hot.key) - hot.option_len() as u16;
    }
}
