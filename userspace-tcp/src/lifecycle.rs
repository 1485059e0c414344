//! What the operations have in common: ports in use, the accept queue, the end of a connection, and its slot going back.

use crate::address::FlowKey;
use crate::buffer::NIL;
use crate::connections::Connections;
use crate::events::{CloseReason, bit};
use crate::sequence::Seq;
use crate::state::State;
use crate::tcb::{Timer, f};
use crate::time::deadline_ms;

impl Connections {
    /// Whether a flow has a connection, half-open or not, or waits in TIME-WAIT.
    pub(crate) fn in_use(&self, key: &FlowKey) -> bool {
        let hash = self.secret.flow(key);
        self.demux.find(hash, |slot| self.slab.hot[slot as usize].key == *key).is_some()
            || self.syns.find(hash, key).is_some()
            || self.time_wait.find(hash).is_some()
    }

    /// RFC 6056, section 3.3.3: a hash of the destination, and a counter.
    pub(crate) fn ephemeral(&mut self, key: &FlowKey) -> Option<u16> {
        let (low, high) = self.config.ephemeral_ports;
        let count = u32::from(high.saturating_sub(low)) + 1;
        let offset = self.secret.port(&key.local, &key.remote, key.remote_port);
        for _ in 0..count {
            self.next_port = self.next_port.wrapping_add(1);
            let port = low + (offset.wrapping_add(u32::from(self.next_port)) % count) as u16;
            if port != 0 && !self.in_use(&FlowKey { local_port: port, ..*key }) {
                return Some(port);
            }
        }
        None
    }

    /// Nobody has to accept it any more.
    pub(crate) fn leave_accept_queue(&mut self, slot: u32) {
        let hot = &mut self.slab.hot[slot as usize];
        if !hot.has(f::UNACCEPTED) {
            return;
        }
        hot.clear(f::UNACCEPTED);
        let (before, after) = self.slab.cold[slot as usize].accept_links;
        let listener = &mut self.listeners.all[self.slab.cold[slot as usize].listener as usize];
        listener.count -= 1;
        if before == NIL {
            listener.waiting.0 = after;
        } else {
            self.slab.cold[before as usize].accept_links.1 = after;
        }
        if after == NIL {
            listener.waiting.1 = before;
        } else {
            self.slab.cold[after as usize].accept_links.0 = before;
        }
    }

    pub(crate) fn join_accept_queue(&mut self, slot: u32, at: u32) {
        let listener = &mut self.listeners.all[at as usize];
        let last = listener.waiting.1;
        self.slab.cold[slot as usize].accept_links = (last, NIL);
        self.slab.hot[slot as usize].set(f::UNACCEPTED);
        if last == NIL {
            listener.waiting.0 = slot;
        } else {
            self.slab.cold[last as usize].accept_links.1 = slot;
        }
        listener.waiting.1 = slot;
        listener.count += 1;
    }

    /// The connection has something to send.
    #[inline]
    pub(crate) fn want_output(&mut self, slot: u32) {
        let hot = &mut self.slab.hot[slot as usize];
        if !hot.has(f::IN_OUTPUT) {
            hot.set(f::IN_OUTPUT);
            self.output.push_back(slot);
        }
    }

    /// The connection may live so much longer.
    pub(crate) fn live_until(&mut self, slot: u32, ms: u32) {
        let at = deadline_ms(self.now, ms);
        self.slab.hot[slot as usize].set(f::LIFE_TIMER);
        self.slab.cold[slot as usize].life_at = at;
        self.wheel.arm_no_later(slot, at);
    }

    /// The connection has ended. Its memory but for unread data of a good end goes back at once, the slot when the application
    /// has closed and the event has been pulled.
    pub(crate) fn finish(&mut self, slot: u32, reason: CloseReason) {
        let at = slot as usize;
        if self.slab.hot[at].has(f::FINISHED) {
            return;
        }
        let hash = self.slab.cold[at].hash;
        let cold = &self.slab.cold;
        self.demux.remove(hash, slot, |other| cold[other as usize].hash);
        self.wheel.disarm(slot);
        if self.slab.hot[at].has(f::UNACCEPTED) {
            // Nobody has seen it: it goes by itself.
            self.leave_accept_queue(slot);
            self.slab.hot[at].set(f::ORPHAN);
        }
        let (hot, cold) = (&mut self.slab.hot[at], &mut self.slab.cold[at]);
        self.records.clear(hot, &mut cold.rack.times);
        hot.send.free(&mut self.pool);
        hot.send = crate::buffer::Queue::EMPTY;
        hot.snd_una = Seq(0);
        hot.snd_nxt = Seq(0);
        hot.snd_end = Seq(0);
        hot.timer = Timer::Off;
        hot.state = State::Closed;
        hot.flags &= f::USED | f::ORPHAN | f::IN_OUTPUT | f::IN_EVENTS;
        hot.set(f::FINISHED);
        cold.reason = reason;
        self.ranges.purge(cold, &mut self.pool);
        if reason != CloseReason::Finished || hot.has(f::ORPHAN) {
            self.discard_unread(slot);
        }
        let hot = &mut self.slab.hot[at];
        self.events.raise(slot, hot, bit::CLOSED);
    }

    /// Gives the slot back when nobody needs it any more.
    pub(crate) fn try_free(&mut self, slot: u32) {
        let hot = &self.slab.hot[slot as usize];
        if hot.flags & (f::USED | f::ORPHAN | f::FINISHED) == f::USED | f::ORPHAN | f::FINISHED
            && !hot.has(f::IN_EVENTS | f::IN_OUTPUT)
        {
            self.slab.give(slot);
        }
    }
}
