//! Records of what is in flight: one per segment sent and not yet acknowledged, in two orders.
//!
//! ```text
//!  by sequence number:  SND.UNA ─► r0 ─► r1 ─► r2 ─► SND.NXT      (next; every record)
//!  by time of sending:  oldest  ─► r1 ─► r0 ─► newest             (older/newer; neither SACKed nor lost)
//! ```
//!
//! This is the scoreboard of RFC 6675 and the per-segment state of RFC 8985, section 5.1.

use crate::buffer::{Cursor, NIL};
use crate::sequence::Seq;
use crate::tcb::Hot;

/// Bits of [`Record::flags`].
pub(crate) mod r {
    /// FIN follows the data.
    pub const FIN: u8 = 1;
    /// The peer holds it (RFC 2018).
    pub const SACKED: u8 = 2;
    /// Deduced to be lost; to be sent again.
    pub const LOST: u8 = 4;
    /// Has been sent more than once.
    pub const RESENT: u8 = 8;
    /// PSH goes with it.
    pub const PUSH: u8 = 16;
    /// Sent as a zero-window probe.
    pub const PROBE: u8 = 32;
}

/// One segment in flight.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Record {
    pub seq: Seq,
    /// When it was last sent, in microseconds.
    pub sent_us: u32,
    pub chunk: u32,
    pub next: u32,
    pub older: u32,
    pub newer: u32,
    pub len: u16,
    pub offset: u16,
    pub flags: u8,
    _spare: [u8; 3],
}

const _: () = assert!(size_of::<Record>() == 32);

impl Record {
    pub(crate) fn new(seq: Seq, len: u16, flags: u8, cursor: Cursor, sent_us: u32) -> Record {
        Record {
            seq,
            sent_us,
            chunk: cursor.chunk,
            next: NIL,
            older: NIL,
            newer: NIL,
            len,
            offset: cursor.offset,
            flags,
            _spare: [0; 3],
        }
    }

    #[inline]
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Sequence numbers it takes, FIN included.
    #[inline]
    pub(crate) fn seq_len(&self) -> u32 {
        u32::from(self.len) + u32::from(self.flags & r::FIN)
    }

    #[inline]
    pub(crate) fn end(&self) -> Seq {
        self.seq + self.seq_len()
    }

    #[inline]
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { chunk: self.chunk, offset: self.offset }
    }

    /// It counts as being in the network.
    #[inline]
    pub(crate) fn in_flight(&self) -> bool {
        self.flags & (r::SACKED | r::LOST) == 0
    }
}

/// Ends of the list by time of sending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByTime {
    pub oldest: u32,
    pub newest: u32,
}

impl Default for ByTime {
    fn default() -> ByTime {
        ByTime { oldest: NIL, newest: NIL }
    }
}

/// The records of all connections.
pub(crate) struct Records {
    all: Vec<Record>,
    free: u32,
    max: u32,
    used: u32,
}

impl Records {
    pub(crate) fn new(max: u32) -> Records {
        let max = max.max(16);
        Records { all: Vec::with_capacity(max as usize), free: NIL, max, used: 0 }
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used == self.max
    }

    pub(crate) fn bytes(&self) -> usize {
        self.max as usize * size_of::<Record>()
    }

    fn take(&mut self, record: Record) -> Option<u32> {
        let at = if self.free != NIL {
            let at = self.free;
            self.free = self.all[at as usize].next;
            self.all[at as usize] = record;
            at
        } else if self.all.len() < self.max as usize {
            self.all.push(record);
            self.all.len() as u32 - 1
        } else {
            return None;
        };
        self.used += 1;
        Some(at)
    }

    fn give(&mut self, at: u32) {
        self.all[at as usize].next = self.free;
        self.free = at;
        self.used -= 1;
    }

    /// Reads a record, so that it is near when it is needed; the value means nothing.
    #[inline]
    pub(crate) fn touch(&self, at: u32) -> u32 {
        self.all.get(at as usize).map_or(0, |record| record.seq.0)
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> &Record {
        &self.all[at as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> &mut Record {
        &mut self.all[at as usize]
    }

    /// Adds a segment just sent behind all others.
    pub(crate) fn push(&mut self, hot: &mut Hot, times: &mut ByTime, record: Record) -> Option<u32> {
        let at = self.take(record)?;
        if hot.records.1 == NIL {
            hot.records.0 = at;
        } else {
            self.all[hot.records.1 as usize].next = at;
        }
        hot.records.1 = at;
        self.sent(times, at);
        Some(at)
    }

    /// Removes the first record.
    pub(crate) fn pop(&mut self, hot: &mut Hot, times: &mut ByTime) {
        let at = hot.records.0;
        if self.all[at as usize].in_flight() {
            self.unlink_time(times, at);
        }
        hot.records.0 = self.all[at as usize].next;
        if hot.records.0 == NIL {
            hot.records.1 = NIL;
        }
        self.give(at);
    }

    /// Removes all records of a connection.
    pub(crate) fn clear(&mut self, hot: &mut Hot, times: &mut ByTime) {
        while hot.records.0 != NIL {
            self.pop(hot, times);
        }
        hot.in_flight = 0;
    }

    /// Puts a record at the newest end of the list by time.
    pub(crate) fn sent(&mut self, times: &mut ByTime, at: u32) {
        let newest = times.newest;
        let record = &mut self.all[at as usize];
        record.older = newest;
        record.newer = NIL;
        if newest == NIL {
            times.oldest = at;
        } else {
            self.all[newest as usize].newer = at;
        }
        times.newest = at;
    }

    /// Puts a record where its time of sending belongs.
    pub(crate) fn insert_by_time(&mut self, times: &mut ByTime, at: u32) {
        let sent_us = self.all[at as usize].sent_us;
        let mut older = times.newest;
        while older != NIL && crate::time::before(sent_us, self.all[older as usize].sent_us) {
            older = self.all[older as usize].older;
        }
        let newer = if older == NIL { times.oldest } else { self.all[older as usize].newer };
        self.all[at as usize].older = older;
        self.all[at as usize].newer = newer;
        if older == NIL {
            times.oldest = at;
        } else {
            self.all[older as usize].newer = at;
        }
        if newer == NIL {
            times.newest = at;
        } else {
            self.all[newer as usize].older = at;
        }
    }

    /// Takes a record out of the list by time.
    pub(crate) fn unlink_time(&mut self, times: &mut ByTime, at: u32) {
        let Record { older, newer, .. } = self.all[at as usize];
        if older == NIL {
            times.oldest = newer;
        } else {
            self.all[older as usize].newer = newer;
        }
        if newer == NIL {
            times.newest = older;
        } else {
            self.all[newer as usize].older = older;
        }
    }

    /// Splits a record `keep` bytes after its beginning; the second half gets `cursor`. False when there is no record left.
    pub(crate) fn split(
        &mut self,
        hot: &mut Hot,
        times: &mut ByTime,
        at: u32,
        keep: u16,
        cursor: Cursor,
    ) -> bool {
        let first = self.all[at as usize];
        let second = Record {
            seq: first.seq + u32::from(keep),
            len: first.len - keep,
            chunk: cursor.chunk,
            offset: cursor.offset,
            ..first
        };
        let Some(new) = self.take(second) else { return false };
        let record = &mut self.all[at as usize];
        record.len = keep;
        record.flags &= !(r::FIN | r::PUSH);
        record.next = new;
        if hot.records.1 == at {
            hot.records.1 = new;
        }
        if first.in_flight() {
            // The halves were sent at once: neighbours in time as well.
            let newer = first.newer;
            self.all[new as usize].older = at;
            self.all[new as usize].newer = newer;
            self.all[at as usize].newer = new;
            if newer == NIL {
                times.newest = new;
            } else {
                self.all[newer as usize].older = new;
            }
        }
        true
    }
}
