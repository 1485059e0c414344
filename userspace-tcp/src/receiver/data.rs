//! One segment's payload and FIN: trimmed to the window, taken in order or out of order, or refused (RFC 9293,
//! section 3.10.7.4, seventh and eighth steps).

use super::delayed_ack;
use super::pieces::Frames;
use super::reassembly::Refused;
use super::window;
use crate::connections::Connections;
use crate::counters::Drop;
use crate::events::bit;
use crate::segment::{Segment, flag};
use crate::sequence::Seq;
use crate::state::State;
use crate::tcb::f;

impl Connections {
    /// Takes payload and FIN of an acceptable segment. Returns why none of it was of use, if so.
    pub(crate) fn take_data(
        &mut self,
        slot: u32,
        segment: &Segment,
        frames: Frames<'_, '_>,
    ) -> Option<Drop> {
        let hot = &mut self.slab.hot[slot as usize];
        if segment.len == 0 && !segment.has(flag::FIN) {
            return None;
        }
        let before = (hot.rcv_used, hot.has(f::FIN_RECEIVED));
        let fin = segment.has(flag::FIN);
        let cold = &mut self.slab.cold[slot as usize];
        let (mut start, end) = (segment.data_seq(), segment.data_seq() + segment.len);
        if hot.has(f::FIN_RECEIVED) {
            // Everything up to the FIN is here: this is a retransmission of it, which is acknowledged again.
            hot.set(f::ACK_NOW);
            return Some(if end.gt(hot.rcv_nxt) { Drop::AfterFin } else { Drop::Duplicate });
        }
        if start.lt(hot.rcv_nxt) {
            if hot.has(f::SACK) && segment.len > 0 {
                cold.dsack = Some((start, end.min(hot.rcv_nxt)));
            }
            if end.lt(hot.rcv_nxt) || (end == hot.rcv_nxt && !fin) {
                hot.set(f::ACK_NOW);
                return Some(Drop::Duplicate);
            }
            hot.set(f::ACK_NOW);
            start = hot.rcv_nxt;
        }
        // What lies right of the window is cut off, the FIN with it.
        let edge = hot.rcv_edge.max(hot.rcv_nxt);
        let cut = end.gt(edge);
        let end = end.min(edge);
        let fin = fin && !cut;
        if cut {
            hot.set(f::ACK_NOW);
        }
        // A byte after what the FIN said is the end is no data.
        let end = cold.fin_at.map_or(end, |at| end.min(at));
        if fin && cold.fin_at.is_none() {
            cold.fin_at = Some(end);
        }
        let len = end.after(start);
        if len > 0 {
            let offset = segment.offset + (start - segment.data_seq());
            let refused = if start == hot.rcv_nxt {
                self.take_in_order(slot, segment.frame, offset, len, frames)
            } else {
                self.take_out_of_order(slot, segment.frame, offset, (start, len), frames)
            };
            if refused.is_some() {
                self.slab.hot[slot as usize].set(f::ACK_NOW);
                return refused;
            }
        }
        self.take_fin(slot);
        // What brought nothing new (the probe of a closed window) is no event.
        let hot = &self.slab.hot[slot as usize];
        if (hot.rcv_used, hot.has(f::FIN_RECEIVED)) != before {
            self.note_readable(slot);
        }
        None
    }

    fn take_in_order(
        &mut self,
        slot: u32,
        frame: u32,
        offset: u32,
        len: u32,
        frames: Frames<'_, '_>,
    ) -> Option<Drop> {
        let at = slot as usize;
        let hot = &mut self.slab.hot[at];
        if hot.has(f::READ_SHUT | f::ORPHAN) {
            // Nobody will read it.
            hot.rcv_nxt += len;
            hot.rcv_edge = hot.rcv_edge.max(hot.rcv_nxt);
            delayed_ack::data_arrived(hot, len);
        } else {
            let reserved = self.pool.reserve(len) || (self.make_room(slot) && self.pool.reserve(len));
            if !reserved {
                return Some(Drop::NoMemory);
            }
            let (hot, cold) = (&mut self.slab.hot[at], &mut self.slab.cold[at]);
            self.pieces.push(slot, cold, frame, offset, len);
            hot.rcv_nxt += len;
            hot.rcv_used += len;
            cold.bytes_received += u64::from(len);
            delayed_ack::data_arrived(hot, len);
        }
        self.counters.bytes_received += u64::from(len);
        let (hot, cold) = (&mut self.slab.hot[at], &mut self.slab.cold[at]);
        if cold.ranges != crate::buffer::NIL {
            // RFC 5681, section 4.2: at once for what fills all or part of a gap.
            hot.set(f::ACK_NOW);
            while self.ranges.ready(cold, hot.rcv_nxt) {
                self.pieces.flush(cold, &mut self.pool, &mut self.counters, frames);
                let end = self.ranges.deliver(cold, &mut self.pool, hot.rcv_nxt);
                let more = end.after(hot.rcv_nxt);
                hot.rcv_nxt += more;
                hot.rcv_used += more;
                cold.bytes_received += u64::from(more);
                self.counters.bytes_received += u64::from(more);
            }
            if hot.has(f::READ_SHUT | f::ORPHAN) {
                self.discard_unread(slot);
            }
        }
        None
    }

    fn take_out_of_order(
        &mut self,
        slot: u32,
        frame: u32,
        offset: u32,
        (start, len): (Seq, u32),
        frames: Frames<'_, '_>,
    ) -> Option<Drop> {
        let at = slot as usize;
        let (hot, cold) = (&mut self.slab.hot[at], &mut self.slab.cold[at]);
        // RFC 5681, section 4.2: a duplicate acknowledgment at once.
        hot.set(f::ACK_NOW);
        let Some(bytes) = frames
            .get(frame as usize)
            .and_then(|fr| fr.bytes.get(offset as usize..(offset + len) as usize))
        else {
            return Some(Drop::Runt);
        };
        // In-order data has been promised its chunks; what is out of order gets what is left beyond a reserve.
        if self.pool.available() < self.pool.total() / 8 {
            return Some(Drop::NoMemory);
        }
        match self.ranges.insert(cold, &mut self.pool, start, bytes) {
            Ok(duplicate) => {
                if let Some(block) = duplicate.filter(|_| hot.has(f::SACK)) {
                    cold.dsack = Some(block);
                }
                self.ranges.note_recent(cold, start);
                None
            }
            Err(Refused::Duplicate) => {
                if hot.has(f::SACK) {
                    cold.dsack = Some((start, start + len));
                }
                Some(Drop::Duplicate)
            }
            Err(Refused::TooMany) => Some(Drop::TooManyPieces),
            Err(Refused::NoMemory) => Some(Drop::NoMemory),
        }
    }

    /// The FIN's turn, when everything before it is here.
    fn take_fin(&mut self, slot: u32) {
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        if cold.fin_at != Some(hot.rcv_nxt) || hot.has(f::FIN_RECEIVED) {
            return;
        }
        hot.rcv_nxt += 1;
        hot.rcv_edge = hot.rcv_edge.max(hot.rcv_nxt);
        hot.set(f::FIN_RECEIVED | f::ACK_PENDING | f::ACK_NOW);
        self.events.raise(slot, hot, bit::PEER_CLOSED);
        match hot.state {
            State::Established | State::SynReceived => hot.state = State::CloseWait,
            // Our FIN is not acknowledged, or this very segment would have moved the state on.
            State::FinWait1 => hot.state = State::Closing,
            State::FinWait2 => self.enter_time_wait(slot),
            _ => {}
        }
    }

    /// Tells the application, when there is enough to read.
    fn note_readable(&mut self, slot: u32) {
        let hot = &mut self.slab.hot[slot as usize];
        if hot.rcv_used == 0 || hot.has(f::ORPHAN | f::READ_SHUT) {
            return;
        }
        let low_water = self.slab.cold[slot as usize].low_water;
        if hot.rcv_used >= low_water || hot.has(f::FIN_RECEIVED) {
            self.events.raise(slot, hot, bit::READABLE);
        }
    }

    /// Throws away what nobody will read.
    pub(crate) fn discard_unread(&mut self, slot: u32) {
        let (hot, cold) = (&mut self.slab.hot[slot as usize], &mut self.slab.cold[slot as usize]);
        self.pieces.discard(cold, &mut self.pool);
        let before = self.pool.used();
        cold.receive.free(&mut self.pool);
        cold.rcv_chunks -= before - self.pool.used();
        cold.receive = crate::buffer::Queue::EMPTY;
        hot.rcv_used = 0;
    }

    /// Frees chunks for in-order data: out-of-order data goes first, this connection's before the others'.
    fn make_room(&mut self, slot: u32) -> bool {
        let n = self.slab.hot.len() as u32;
        let purged = self.ranges.purge(&mut self.slab.cold[slot as usize], &mut self.pool);
        self.counters.out_of_order_purged += u64::from(purged);
        let mut looked = 0;
        // A bounded look round, from where the last one ended.
        while self.pool.available() < 4 && self.ranges.used() > 0 && looked < n.min(256) {
            self.purge_at = if self.purge_at + 1 >= n { 0 } else { self.purge_at + 1 };
            let purged = self.ranges.purge(&mut self.slab.cold[self.purge_at as usize], &mut self.pool);
            self.counters.out_of_order_purged += u64::from(purged);
            looked += 1;
        }
        self.pool.available() >= 4
    }

    /// After a read: whether the peer must hear of it.
    pub(crate) fn note_room(&mut self, slot: u32) {
        let hot = &self.slab.hot[slot as usize];
        if window::update_due(hot, &self.slab.cold[slot as usize], &self.pool) {
            self.slab.hot[slot as usize].set(f::ACK_NOW | f::ACK_PENDING);
            self.want_output(slot);
        }
    }
}
