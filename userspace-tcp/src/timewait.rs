//! TIME-WAIT: closed connections whose old segments are waited out, 40 bytes each and 4 in the table.
//!
//! Entries are in order of expiry, since all wait equally long; the oldest goes when there are too many.

use crate::buffer::NIL;
use crate::connections::Connections;
use crate::counters::Drop;
use crate::events::CloseReason;
use crate::reply::plain;
use crate::segment::{Segment, flag};
use crate::sequence::Seq;
use crate::tcb::f;
use crate::time::{deadline_ms, due, ms_of};

/// Acknowledgments one entry sends at most: the peer needs one, and its retransmissions are few.
const MAX_ANSWERS: u8 = 64;

/// A connection in TIME-WAIT. It is found by the keyed 64-bit hash of its flow, which nobody outside can aim at.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Waiting {
    pub hash: u64,
    pub rcv_nxt: Seq,
    pub snd_nxt: Seq,
    pub ts_recent: u32,
    expires: u32,
    older: u32,
    newer: u32,
    chain: u32,
    pub window: u16,
    /// Timestamps were negotiated.
    pub timestamps: bool,
    /// Acknowledgments sent from here.
    pub answers: u8,
}

const _: () = assert!(size_of::<Waiting>() + 4 <= 48, "at most 48 bytes an entry, its bucket included");

pub(crate) struct TimeWait {
    all: Vec<Waiting>,
    buckets: Box<[u32]>,
    free: u32,
    oldest: u32,
    newest: u32,
    used: u32,
    max: u32,
}

impl TimeWait {
    pub(crate) fn new(max: u32) -> TimeWait {
        let buckets = vec![NIL; (max.max(1) as usize).next_power_of_two()].into_boxed_slice();
        TimeWait {
            all: Vec::with_capacity(max as usize),
            buckets,
            free: NIL,
            oldest: NIL,
            newest: NIL,
            used: 0,
            max,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.used
    }

    fn bucket(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.buckets.len() - 1)
    }

    pub(crate) fn find(&self, hash: u64) -> Option<u32> {
        let mut at = self.buckets[self.bucket(hash)];
        while at != NIL {
            let entry = &self.all[at as usize];
            if entry.hash == hash {
                return Some(at);
            }
            at = entry.chain;
        }
        None
    }

    pub(crate) fn get(&self, at: u32) -> &Waiting {
        &self.all[at as usize]
    }

    /// Adds an entry. Returns whether the oldest had to go for it.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        (snd_nxt, rcv_nxt): (Seq, Seq),
        (timestamps, ts_recent): (bool, u32),
        window: u16,
        expires: u32,
    ) -> bool {
        if self.max == 0 {
            return true;
        }
        let evicted = self.used == self.max;
        if evicted {
            self.remove(self.oldest);
        }
        let bucket = self.bucket(hash);
        let entry = Waiting {
            hash,
            rcv_nxt,
            snd_nxt,
            ts_recent,
            expires,
            older: self.newest,
            newer: NIL,
            chain: self.buckets[bucket],
            window,
            timestamps,
            answers: 0,
        };
        let at = if self.free == NIL {
            self.all.push(entry);
            self.all.len() as u32 - 1
        } else {
            let at = self.free;
            self.free = self.all[at as usize].chain;
            self.all[at as usize] = entry;
            at
        };
        self.buckets[bucket] = at;
        self.link_newest(at);
        self.used += 1;
        evicted
    }

    fn link_newest(&mut self, at: u32) {
        self.all[at as usize].older = self.newest;
        self.all[at as usize].newer = NIL;
        if self.newest == NIL {
            self.oldest = at;
        } else {
            self.all[self.newest as usize].newer = at;
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let Waiting { older, newer, .. } = self.all[at as usize];
        if older == NIL {
            self.oldest = newer;
        } else {
            self.all[older as usize].newer = newer;
        }
        if newer == NIL {
            self.newest = older;
        } else {
            self.all[newer as usize].older = older;
        }
    }

    pub(crate) fn remove(&mut self, at: u32) {
        self.unlink(at);
        let Waiting { hash, chain, .. } = self.all[at as usize];
        let bucket = self.bucket(hash);
        if self.buckets[bucket] == at {
            self.buckets[bucket] = chain;
        } else {
            let mut before = self.buckets[bucket];
            while self.all[before as usize].chain != at {
                before = self.all[before as usize].chain;
            }
            self.all[before as usize].chain = chain;
        }
        self.all[at as usize].chain = self.free;
        self.free = at;
        self.used -= 1;
    }

    /// Starts the wait anew (RFC 9293, section 3.10.7.4, eighth step).
    pub(crate) fn restart(&mut self, at: u32, expires: u32) {
        self.unlink(at);
        self.all[at as usize].expires = expires;
        self.link_newest(at);
    }

    /// Counts an answer; false when the entry has given all that it may.
    pub(crate) fn may_answer(&mut self, at: u32) -> bool {
        let answers = &mut self.all[at as usize].answers;
        *answers = answers.saturating_add(1);
        *answers <= MAX_ANSWERS
    }

    /// Takes note of a newer timestamp.
    pub(crate) fn saw_timestamp(&mut self, at: u32, value: u32) {
        self.all[at as usize].ts_recent = value;
    }

    /// Removes what has waited long enough.
    pub(crate) fn expire(&mut self, now_ms: u32) {
        while self.oldest != NIL && due(self.all[self.oldest as usize].expires, now_ms) {
            self.remove(self.oldest);
        }
    }

    /// When the oldest entry expires.
    pub(crate) fn next(&self) -> Option<u32> {
        (self.oldest != NIL).then(|| self.all[self.oldest as usize].expires)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.max as usize * size_of::<Waiting>() + self.buckets.len() * 4
    }
}

impl Connections {
    /// A segment for a connection in TIME-WAIT.
    pub(crate) fn time_wait_arrives(&mut self, at: u32, segment: &Segment, hash: u64) -> Option<Drop> {
        let entry = *self.time_wait.get(at);
        if segment.has(flag::RST) {
            // RFC 1337, fix F1: a reset, old or forged, does not end the wait.
            return Some(Drop::TimeWaitReset);
        }
        let stamp = segment.options.timestamps.filter(|_| entry.timestamps).map(|(value, _)| value);
        let newer = |value: u32| value.wrapping_sub(entry.ts_recent) as i32;
        if segment.has(flag::SYN) && !segment.has(flag::ACK) {
            // RFC 6191, section 2: a SYN with a later timestamp, or else a later sequence number, begins a new connection.
            let fresh = match stamp {
                Some(value) => newer(value) > 0 || (newer(value) == 0 && segment.seq.gt(entry.rcv_nxt)),
                None => segment.seq.gt(entry.rcv_nxt),
            };
            let listens = self.listeners.find(&segment.key.local, segment.key.local_port).is_some();
            if fresh && listens {
                self.time_wait.remove(at);
                self.counters.time_waits_reused += 1;
                return self.unknown(segment, hash, Some(entry.snd_nxt), &[]);
            }
        }
        if stamp.is_some_and(|value| newer(value) < 0) {
            self.answer_time_wait(segment, at);
            return Some(Drop::Paws);
        }
        if let Some(value) = stamp
            && newer(value) > 0
            && segment.seq.le(entry.rcv_nxt)
        {
            self.time_wait.saw_timestamp(at, value);
        }
        // A pure acknowledgment that is where it should be needs no answer.
        if segment.seq == entry.rcv_nxt && segment.seq_len() == 0 {
            return Some(Drop::TimeWait);
        }
        if segment.has(flag::FIN) && (segment.seq + segment.seq_len()) == entry.rcv_nxt {
            // The peer's FIN again: our acknowledgment was lost. The wait begins anew.
            self.time_wait.restart(at, deadline_ms(self.now, ms_of(self.config.time_wait)));
        }
        self.answer_time_wait(segment, at);
        Some(Drop::TimeWait)
    }

    fn answer_time_wait(&mut self, segment: &Segment, at: u32) {
        if !self.time_wait.may_answer(at) {
            return;
        }
        let entry = self.time_wait.get(at);
        let mut reply = plain(segment, entry.snd_nxt, entry.rcv_nxt, flag::ACK, entry.window);
        if entry.timestamps {
            let offset = self.secret.timestamp(&segment.key.local, &segment.key.remote);
            reply.header.options.timestamps((self.now.ms().wrapping_add(offset), entry.ts_recent));
        }
        self.replies.push(&mut self.counters, reply);
    }

    /// Our half is closed and acknowledged, and so is the peer's: the rest is waiting (RFC 9293, section 3.10.7.4).
    pub(crate) fn enter_time_wait(&mut self, slot: u32) {
        // The acknowledgment of the peer's FIN leaves now, if it has not yet: the entry below could only repeat it.
        if self.slab.hot[slot as usize].has(f::ACK_PENDING) {
            self.send_plain_ack(slot);
        }
        let (hot, cold) = (&self.slab.hot[slot as usize], &self.slab.cold[slot as usize]);
        let window = (hot.rcv_edge.after(hot.rcv_nxt) >> hot.rcv_scale).min(0xffff) as u16;
        let expires = deadline_ms(self.now, ms_of(self.config.time_wait));
        let stamps = (hot.has(f::TIMESTAMPS), hot.ts_recent);
        let evicted = self.time_wait.insert(cold.hash, (hot.snd_nxt, hot.rcv_nxt), stamps, window, expires);
        self.counters.time_waits += 1;
        self.counters.time_waits_evicted += u64::from(evicted);
        self.finish(slot, CloseReason::Finished);
        self.try_free(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire_in_order_and_the_oldest_makes_room() {
        let mut table = TimeWait::new(4);
        let add = |t: &mut TimeWait, n: u32| {
            t.insert(u64::from(n) << 32 | 5, (Seq(n), Seq(n)), (true, n), 0, 100 + n)
        };
        for n in 0..4 {
            assert!(!add(&mut table, n));
        }
        assert!(add(&mut table, 4));
        assert_eq!((table.find(5), table.len()), (None, 4));
        let one = table.find(1 << 32 | 5).unwrap();
        table.restart(one, 110);
        table.expire(103);
        assert_eq!((table.len(), table.next()), (2, Some(104)));
        assert_eq!(table.get(table.find(1 << 32 | 5).unwrap()).snd_nxt, Seq(1));
        table.expire(110);
        assert_eq!((table.len(), table.next(), table.find(1 << 32 | 5)), (0, None, None));
    }
}
