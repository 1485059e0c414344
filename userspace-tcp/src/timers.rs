//! Timers of connections and half-open connections: one wheel entry each, for the earliest of what it waits for.

use crate::connections::Connections;
use crate::input::parts;
use crate::sender::timer::Fired;
use crate::state::State;
use crate::tcb::{Timer, f};
use crate::time::{Instant, before, deadline_ms, due};

impl Connections {
    /// When `timers` should be called next, if nothing else happens before. It may be somewhat early (then nothing fires and it
    /// says when next), never late. O(1).
    pub fn next_deadline(&self) -> Option<Instant> {
        let wheel = self.wheel.next();
        let waiting = self.time_wait.next();
        let next = match (wheel, waiting) {
            (Some(a), Some(b)) => Some(if before(a, b) { a } else { b }),
            (a, b) => a.or(b),
        }?;
        // Milliseconds wrap; the deadline is the one nearest to now.
        let now_ms = self.now.nanos() / 1_000_000;
        let ahead = i64::from(next.wrapping_sub(now_ms as u32) as i32).max(0) as u64;
        Some(Instant::from_millis(now_ms + ahead).max(self.now))
    }

    pub(crate) fn fire_timers(&mut self) {
        let now_ms = self.now.ms();
        self.time_wait.expire(now_ms);
        while let Some(id) = self.wheel.pop_due(now_ms) {
            match id.checked_sub(self.config.max_connections) {
                None => self.fire(id),
                Some(at) => self.fire_half_open(at),
            }
        }
    }

    /// Sees to it that the wheel knows of the sender's timer.
    #[inline]
    pub(crate) fn sync_timer(&mut self, slot: u32) {
        let hot = &self.slab.hot[slot as usize];
        if hot.timer != Timer::Off {
            self.wheel.arm_no_later(slot, hot.timer_at);
        }
    }

    /// Something of a connection may be due.
    fn fire(&mut self, slot: u32) {
        let (now, now_ms) = (self.now, self.now.ms());
        if !self.slab.hot[slot as usize].has(f::USED) || self.slab.hot[slot as usize].has(f::FINISHED) {
            return;
        }
        if self.slab.hot[slot as usize].timer != Timer::Off {
            let (mut tcb, mut shared) = parts!(self, slot);
            match tcb.sender_timer(&mut shared, now) {
                Fired::Nothing => {}
                Fired::Output => self.want_output(slot),
                Fired::GiveUp => return self.give_up(slot),
            }
        }
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        if hot.has(f::ACK_TIMER) && due(cold.ack_at, now_ms) {
            hot.clear(f::ACK_TIMER);
            hot.set(f::ACK_NOW);
            self.want_output(slot);
        }
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        if hot.has(f::LIFE_TIMER) && due(cold.life_at, now_ms) {
            hot.clear(f::LIFE_TIMER);
            return self.end_of_life(slot);
        }
        if hot.has(f::KEEP_TIMER) && due(cold.keep_at, now_ms) && !self.keep_alive(slot) {
            return;
        }
        self.rearm(slot);
    }

    /// Arms the wheel for the earliest of what the connection waits for.
    fn rearm(&mut self, slot: u32) {
        let (hot, cold) = (&self.slab.hot[slot as usize], &self.slab.cold[slot as usize]);
        let mut next = (hot.timer != Timer::Off).then_some(hot.timer_at);
        for (flag, at) in
            [(f::ACK_TIMER, cold.ack_at), (f::LIFE_TIMER, cold.life_at), (f::KEEP_TIMER, cold.keep_at)]
        {
            if hot.has(flag) && next.is_none_or(|n| before(at, n)) {
                next = Some(at);
            }
        }
        if let Some(next) = next {
            self.wheel.arm_no_later(slot, next);
        }
    }

    /// Connect timeout, FIN-WAIT-2, or linger.
    fn end_of_life(&mut self, slot: u32) {
        let hot = &self.slab.hot[slot as usize];
        match hot.state {
            State::FinWait2 => {
                // Nothing of ours is missing at the peer, so that there is nothing to reset (as the field does it).
                self.counters.connections_timed_out += 1;
                self.finish(slot, crate::events::CloseReason::TimedOut);
                self.try_free(slot);
            }
            _ if self.slab.cold[slot as usize].linger.is_some() && hot.has(f::ORPHAN) => {
                self.send_reset(slot);
                self.finish(slot, crate::events::CloseReason::Aborted);
                self.try_free(slot);
            }
            _ => self.give_up(slot),
        }
    }

    /// RFC 9293, section 3.8.4. False when the connection has ended.
    fn keep_alive(&mut self, slot: u32) -> bool {
        let now_ms = self.now.ms();
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        let keep = cold.keep_alive;
        if !hot.state.synchronized() || hot.records.0 != crate::buffer::NIL {
            // Data is in flight: its timeout looks after the connection.
            cold.keep_at = deadline_ms(self.now, keep.idle);
            return true;
        }
        let quiet = now_ms.wrapping_sub(cold.heard_at);
        if quiet < keep.idle {
            cold.keep_at = cold.heard_at.wrapping_add(keep.idle);
            return true;
        }
        if cold.keep_probes >= keep.probes {
            self.give_up(slot);
            return false;
        }
        cold.keep_probes += 1;
        cold.keep_at = deadline_ms(self.now, keep.interval);
        hot.set(f::KEEP_PROBE);
        self.want_output(slot);
        true
    }

    fn fire_half_open(&mut self, at: u32) {
        if !self.syns.is_live(at) {
            return;
        }
        let entry = self.syns.get(at);
        if !due(entry.again_at, self.now.ms()) {
            let again_at = entry.again_at;
            self.wheel.arm_no_later(self.config.max_connections + at, again_at);
        } else if entry.sent >= self.config.syn_ack_attempts {
            self.counters.syn_timeouts += 1;
            self.forget_half_open(at);
        } else {
            self.counters.retransmits += 1;
            self.send_syn_ack(at);
        }
    }
}
