//! Opening from outside: passive opens through the SYN table or cookies, and what happens to segments of nobody (RFC 9293,
//! sections 3.10.7.1, 3.10.7.2, and SYN-RECEIVED of 3.10.7.4).

use crate::address::FlowKey;
use crate::config::{Ecn, SynCookies};
use crate::connections::Connections;
use crate::cookie::{self, Remembered};
use crate::counters::Drop;
use crate::options::{OptionBytes, Options};
use crate::receiver::pieces::Frames;
use crate::receiver::window;
use crate::reply::{Reply, plain, reset_for};
use crate::segment::{Header, Segment, flag};
use crate::sender::rtt::Rtt;
use crate::sequence::Seq;
use crate::tcb::f;
use crate::time::{deadline_us, us_of};

/// What a handshake has settled.
struct Settled {
    key: FlowKey,
    hash: u64,
    iss: Seq,
    irs: Seq,
    ts_recent: u32,
    timestamps: bool,
    remembered: Remembered,
    window: u16,
    path: u32,
    /// Round trip of SYN-ACK and ACK, microseconds, when it was sent once.
    rtt_us: Option<u32>,
    /// SYN-ACK had to be sent again.
    syn_lost: bool,
}

impl Connections {
    /// A segment of no connection: for the SYN table, TIME-WAIT, a listener, or nobody.
    pub(crate) fn stray_arrives(&mut self, segment: &Segment, hash: u64, frames: Frames<'_, '_>) {
        // It may have been made by a segment of this very burst.
        if let Some(slot) = self.find(hash, &segment.key) {
            return self.segment_arrives(slot, segment, hash, frames);
        }
        let outcome = if let Some(at) = self.syns.find(hash, &segment.key) {
            self.syn_received(at, segment, hash, frames)
        } else if let Some(at) = self.time_wait.find(hash) {
            self.time_wait_arrives(at, segment, hash)
        } else {
            self.unknown(segment, hash, None, frames)
        };
        self.account(outcome);
    }

    /// LISTEN, or CLOSED (RFC 9293, sections 3.10.7.2 and 3.10.7.1). `beyond` is where the sequence numbers of an earlier
    /// connection end.
    pub(crate) fn unknown(
        &mut self,
        segment: &Segment,
        hash: u64,
        beyond: Option<Seq>,
        frames: Frames<'_, '_>,
    ) -> Option<Drop> {
        let listener = self.listeners.find(&segment.key.local, segment.key.local_port);
        let Some(listener) = listener else {
            return self.refuse(segment, Drop::NoConnection);
        };
        if segment.has(flag::RST) {
            return Some(Drop::NotSyn);
        }
        if segment.has(flag::ACK) {
            // Perhaps the answer to a cookie.
            return match self.cookie_answer(segment) {
                Some(settled) => self.promote(listener, settled, segment, hash, frames),
                None if self.cookie_at.is_some() => self.refuse(segment, Drop::BadCookie),
                None => self.refuse(segment, Drop::NotSyn),
            };
        }
        if !segment.has(flag::SYN) {
            return Some(Drop::NotSyn);
        }
        // SYN with FIN is what no TCP sends (RFC 9293 lets an implementation decide; RFC 1644 is historic).
        if segment.has(flag::FIN) {
            return Some(Drop::BadFlags);
        }
        self.syn(listener, segment, hash, beyond)
    }

    /// No connection: a reset, unless the segment is one, within the rate.
    fn refuse(&mut self, segment: &Segment, reason: Drop) -> Option<Drop> {
        if segment.has(flag::RST) {
            return Some(reason);
        }
        // For each source its own: a limit over all would tell one peer about another (see `Config::challenge_acks`).
        let source =
            self.secret.port(&segment.key.remote, &segment.key.remote, 0) as usize % self.resets.len();
        if !self.resets[source].take(self.now) {
            return Some(Drop::ResetRate);
        }
        self.replies.push(&mut self.counters, reset_for(segment));
        Some(reason)
    }

    /// A SYN for a listener.
    fn syn(&mut self, listener: u32, segment: &Segment, hash: u64, beyond: Option<Seq>) -> Option<Drop> {
        self.counters.syns += 1;
        let full = self.syns.is_full();
        let cookies = match self.config.syn_cookies {
            SynCookies::Off => false,
            SynCookies::WhenFull => full,
            SynCookies::Always => true,
        };
        if full && !cookies {
            return Some(Drop::SynFlood);
        }
        let asks = segment.flags & (flag::ECE | flag::CWR) == flag::ECE | flag::CWR;
        let ecn = asks && self.config.ecn != Ecn::Off;
        if cookies {
            if !self.cookies.take(self.now) {
                return Some(Drop::SynFlood);
            }
            self.send_cookie(listener, segment, ecn);
            return None;
        }
        let mut iss = self.initial_sequence(&segment.key);
        if let Some(beyond) = beyond
            && iss.le(beyond + 0xffff)
        {
            // RFC 9293, section 3.10.7.4: larger than the largest used by the earlier connection, a window's length away.
            iss = beyond + 0x1_0001;
        }
        let irs = segment.seq;
        let mut options = segment.options;
        self.agreeable(&mut options);
        let at = self.syns.insert(
            hash,
            segment.key,
            (iss, irs),
            &options,
            segment.window,
            listener,
            segment.path,
            ecn,
        );
        self.wheel.ensure(self.config.max_connections + at);
        self.syns.get_mut(at).sent_us = self.now.us();
        self.send_syn_ack(at);
        None
    }

    /// Takes out what this stack is configured not to speak.
    fn agreeable(&self, options: &mut Options) {
        if !self.config.timestamps {
            options.timestamps = None;
        }
        if !self.config.window_scaling {
            options.window_scale = None;
        }
        options.sack_permitted &= self.config.sack;
    }

    /// Sends SYN-ACK for an entry, and sees to it being sent again.
    pub(crate) fn send_syn_ack(&mut self, at: u32) {
        let entry = *self.syns.get(at);
        let Some(listener) = self.listeners.all.get(entry.listener as usize) else { return };
        let connection = listener.options.connection;
        let scale = entry.window_scale.map(|_| window::scale_for(connection.receive_buffer));
        let offset = self.secret.timestamp(&entry.key.local, &entry.key.remote);
        let stamps = entry.timestamps.then(|| (self.now.ms().wrapping_add(offset), entry.ts_recent));
        let mss = self.our_mss(&entry.key, connection.mss);
        let header = Header {
            seq: entry.iss,
            ack: entry.irs + 1,
            flags: flag::SYN | flag::ACK | if entry.ecn { flag::ECE } else { 0 },
            window: connection.receive_buffer.min(0xffff) as u16,
            options: OptionBytes::syn(mss, scale, entry.sack, stamps),
        };
        let reply = Reply {
            key: entry.key,
            header,
            path: entry.path,
            ttl: connection.ttl,
            tos: connection.tos & 0xfc,
        };
        self.replies.push(&mut self.counters, reply);
        let again = us_of(self.config.initial_rto)
            .saturating_mul(1 << entry.sent.min(10))
            .min(us_of(self.config.max_rto));
        let entry = self.syns.get_mut(at);
        entry.sent = entry.sent.saturating_add(1);
        entry.again_at = deadline_us(self.now, again);
        let again_at = entry.again_at;
        self.wheel.arm_no_later(self.config.max_connections + at, again_at);
    }

    fn send_cookie(&mut self, listener: u32, segment: &Segment, ecn: bool) {
        let connection = self.listeners.all[listener as usize].options.connection;
        let mut options = segment.options;
        self.agreeable(&mut options);
        let mss = options.mss.unwrap_or(536);
        let iss = cookie::sequence(&self.secret, &segment.key, segment.seq, mss, self.now);
        // Without timestamps there is nowhere to keep the options.
        let stamps = options.timestamps.map(|(value, _)| {
            let kept =
                Remembered { mss, window_scale: options.window_scale, sack: options.sack_permitted, ecn };
            let offset = self.secret.timestamp(&segment.key.local, &segment.key.remote);
            (cookie::stamp(self.now.ms(), &kept).wrapping_add(offset), value)
        });
        let keeps = stamps.is_some();
        let scale =
            options.window_scale.filter(|_| keeps).map(|_| window::scale_for(connection.receive_buffer));
        let header = Header {
            seq: iss,
            ack: segment.seq + 1,
            flags: flag::SYN | flag::ACK | if ecn && keeps { flag::ECE } else { 0 },
            window: connection.receive_buffer.min(0xffff) as u16,
            options: OptionBytes::syn(
                self.our_mss(&segment.key, connection.mss),
                scale,
                options.sack_permitted && keeps,
                stamps,
            ),
        };
        let reply = Reply {
            key: segment.key,
            header,
            path: segment.path,
            ttl: connection.ttl,
            tos: connection.tos & 0xfc,
        };
        self.replies.push(&mut self.counters, reply);
        self.counters.cookies_sent += 1;
        self.cookie_at = Some(self.now);
    }

    /// What the handshake had settled, if a segment of no connection answers one of our cookies.
    fn cookie_answer(&self, segment: &Segment) -> Option<Settled> {
        // Only when one may be under way: else any acknowledgment would be a free guess.
        let sent = self.cookie_at?;
        if self.now.since(sent).as_secs() > 130 || segment.has(flag::SYN) {
            return None;
        }
        let iss = segment.ack - 1;
        let from =
            |irs| cookie::check(&self.secret, &segment.key, irs, iss, self.now).map(|mss| (irs, mss));
        // A peer whose answer was lost and that waits for us to speak first asks with a keep-alive probe, which stands one byte
        // before the next (RFC 9293, section 3.8.4).
        let probe = segment.len <= 1;
        let (irs, mss) = from(segment.seq - 1).or_else(|| probe.then(|| from(segment.seq)).flatten())?;
        let stamps = segment.options.timestamps.filter(|_| self.config.timestamps);
        let offset = self.secret.timestamp(&segment.key.local, &segment.key.remote);
        let remembered = match stamps {
            Some((_, echo)) => cookie::unstamp(echo.wrapping_sub(offset), mss),
            None => Remembered { mss, window_scale: None, sack: false, ecn: false },
        };
        Some(Settled {
            key: segment.key,
            hash: self.secret.flow(&segment.key),
            iss,
            irs,
            ts_recent: stamps.map_or(0, |(value, _)| value),
            timestamps: stamps.is_some(),
            remembered,
            window: segment.window,
            path: segment.path,
            rtt_us: None,
            syn_lost: false,
        })
    }

    /// A segment for a half-open connection: SYN-RECEIVED (RFC 9293, section 3.10.7.4).
    fn syn_received(
        &mut self,
        at: u32,
        segment: &Segment,
        hash: u64,
        frames: Frames<'_, '_>,
    ) -> Option<Drop> {
        let entry = *self.syns.get(at);
        let rcv_nxt = entry.irs + 1;
        if segment.has(flag::SYN) && segment.seq == entry.irs && !segment.has(flag::ACK | flag::RST) {
            // The same SYN again: the answer was lost. Not more often than the timer would send it at its fastest.
            if entry.sent < self.config.syn_ack_attempts {
                self.send_syn_ack(at);
            }
            return Some(Drop::Duplicate);
        }
        if !segment.has(flag::RST)
            && entry.timestamps
            && segment
                .options
                .timestamps
                .is_some_and(|(value, _)| (value.wrapping_sub(entry.ts_recent) as i32) < 0)
        {
            return Some(Drop::Paws);
        }
        let Some(listener) = self.listeners.all.get(entry.listener as usize) else {
            return Some(Drop::NoConnection);
        };
        let window = listener.options.connection.receive_buffer.min(0xffff);
        let full = listener.count >= listener.options.backlog.max(1);
        let inside = segment.seq - rcv_nxt < window;
        if segment.has(flag::RST) {
            // RFC 5961, section 3.2, and RFC 9293: back to LISTEN.
            if segment.seq != rcv_nxt {
                return Some(if inside { Drop::ResetNotExact } else { Drop::OutOfWindow });
            }
            self.forget_half_open(at);
            self.counters.resets_received += 1;
            return None;
        }
        if !inside || segment.has(flag::SYN) {
            let entry = self.syns.get_mut(at);
            entry.challenges = entry.challenges.saturating_add(1);
            if entry.challenges <= self.config.challenge_acks {
                let challenge = plain(segment, entry.iss + 1, rcv_nxt, flag::ACK, window as u16);
                self.replies.push(&mut self.counters, challenge);
            }
            return Some(if segment.has(flag::SYN) { Drop::SynInWindow } else { Drop::OutOfWindow });
        }
        if !segment.has(flag::ACK) {
            return Some(Drop::NoAck);
        }
        if segment.ack != entry.iss + 1 {
            self.replies.push(&mut self.counters, plain(segment, segment.ack, Seq(0), flag::RST, 0));
            return Some(Drop::AckOutOfRange);
        }
        if full {
            return Some(Drop::AcceptQueueFull);
        }
        let settled = Settled {
            key: entry.key,
            hash,
            iss: entry.iss,
            irs: entry.irs,
            ts_recent: entry.ts_recent,
            timestamps: entry.timestamps,
            remembered: Remembered {
                mss: entry.mss,
                window_scale: entry.window_scale,
                sack: entry.sack,
                ecn: entry.ecn,
            },
            window: entry.window,
            path: segment.path,
            rtt_us: (entry.sent == 1).then(|| self.now.us().wrapping_sub(entry.sent_us)),
            syn_lost: entry.sent > 1,
        };
        let listener = entry.listener;
        let outcome = self.promote(listener, settled, segment, hash, frames);
        if outcome != Some(Drop::NoConnectionSlot) {
            self.forget_half_open(at);
        }
        outcome
    }

    pub(crate) fn forget_half_open(&mut self, at: u32) {
        self.wheel.disarm(self.config.max_connections + at);
        self.syns.remove(at);
    }

    /// The handshake is done: a connection is made, and `segment`, which ended it, is its first.
    fn promote(
        &mut self,
        listener: u32,
        settled: Settled,
        segment: &Segment,
        hash: u64,
        frames: Frames<'_, '_>,
    ) -> Option<Drop> {
        let options = self.listeners.all[listener as usize].options;
        if self.listeners.all[listener as usize].count >= options.backlog.max(1) {
            return Some(Drop::AcceptQueueFull);
        }
        let Some(slot) = self.slab.take(&options.connection) else { return Some(Drop::NoConnectionSlot) };
        let our_mss = self.our_mss(&settled.key, options.connection.mss);
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        hot.key = settled.key;
        hot.set(f::PASSIVE);
        hot.put(f::SACK, settled.remembered.sack);
        hot.put(f::TIMESTAMPS, settled.timestamps);
        hot.put(f::ECN, settled.remembered.ecn);
        hot.ts_recent = settled.ts_recent;
        hot.ts_offset = self.secret.timestamp(&settled.key.local, &settled.key.remote);
        if let Some(scale) = settled.remembered.window_scale {
            hot.snd_scale = scale;
            hot.rcv_scale = window::scale_for(cold.rcv_buf);
        }
        hot.snd_una = settled.iss;
        hot.snd_nxt = settled.iss + 1;
        hot.snd_end = settled.iss + 1;
        hot.rcv_nxt = settled.irs + 1;
        hot.rcv_edge = hot.rcv_nxt + cold.rcv_buf.min(0xffff);
        hot.snd_wnd = u32::from(settled.window);
        hot.snd_wl1 = settled.irs;
        cold.hash = settled.hash;
        cold.iss = settled.iss;
        cold.irs = settled.irs;
        cold.path = settled.path;
        cold.mtu = self.config.mtu;
        cold.our_mss = our_mss;
        cold.peer_mss = settled.remembered.mss;
        cold.last_ack_sent = hot.rcv_nxt;
        cold.listener = listener;
        cold.syn_attempts = 1 + u8::from(settled.syn_lost);
        cold.heard_at = self.now.ms();
        cold.rtt = Rtt::start(&self.config);
        if let Some(us) = settled.rtt_us {
            cold.rtt.sample(us, self.now.ms(), &self.config);
        }
        self.demux.insert(hash, slot);
        self.wheel.ensure(slot);
        self.new_mss(slot);
        self.established(slot, segment);
        self.join_accept_queue(slot, listener);
        self.counters.passive_opens += 1;
        if settled.rtt_us.is_none() && !settled.syn_lost {
            self.counters.cookies_accepted += 1;
        }
        self.synchronized(slot, segment, frames)
    }
}
