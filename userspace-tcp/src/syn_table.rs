//! The SYN table: passive opens in SYN-RECEIVED, small and bounded. A connection is made when the handshake is done.

use crate::address::FlowKey;
use crate::buffer::NIL;
use crate::sequence::Seq;

/// A half-open connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HalfOpen {
    pub hash: u64,
    pub key: FlowKey,
    pub irs: Seq,
    pub iss: Seq,
    pub ts_recent: u32,
    pub listener: u32,
    pub path: u32,
    /// When SYN-ACK was first sent, microseconds.
    pub sent_us: u32,
    /// When it is sent again, milliseconds.
    pub again_at: u32,
    pub mss: u16,
    pub window: u16,
    pub window_scale: Option<u8>,
    pub timestamps: bool,
    pub sack: bool,
    pub ecn: bool,
    /// SYN-ACKs sent.
    pub sent: u8,
    /// Acknowledgments that answered what did not fit.
    pub challenges: u8,
    chain: u32,
}

pub(crate) struct SynTable {
    all: Vec<HalfOpen>,
    live: Vec<bool>,
    buckets: Box<[u32]>,
    free: u32,
    used: u32,
    max: u32,
}

impl SynTable {
    pub(crate) fn new(max: u32) -> SynTable {
        let buckets = vec![NIL; (max.max(1) as usize).next_power_of_two()].into_boxed_slice();
        SynTable {
            all: Vec::with_capacity(max as usize),
            live: Vec::with_capacity(max as usize),
            buckets,
            free: NIL,
            used: 0,
            max,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.used
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used >= self.max
    }

    fn bucket(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.buckets.len() - 1)
    }

    pub(crate) fn find(&self, hash: u64, key: &FlowKey) -> Option<u32> {
        let mut at = self.buckets[self.bucket(hash)];
        while at != NIL {
            let entry = &self.all[at as usize];
            if entry.hash == hash && entry.key == *key {
                return Some(at);
            }
            at = entry.chain;
        }
        None
    }

    pub(crate) fn get(&self, at: u32) -> &HalfOpen {
        &self.all[at as usize]
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> &mut HalfOpen {
        &mut self.all[at as usize]
    }

    /// Whether an index is in use (a timer may fire for one that is not).
    pub(crate) fn is_live(&self, at: u32) -> bool {
        self.live.get(at as usize).copied().unwrap_or(false)
    }

    /// Adds an entry. The table is not full.
    #[expect(clippy::too_many_arguments, reason = "one per field that only the SYN knows")]
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        key: FlowKey,
        (iss, irs): (Seq, Seq),
        options: &crate::options::Options,
        window: u16,
        listener: u32,
        path: u32,
        ecn: bool,
    ) -> u32 {
        let bucket = self.bucket(hash);
        let entry = HalfOpen {
            hash,
            key,
            irs,
            iss,
            ts_recent: options.timestamps.map_or(0, |(value, _)| value),
            listener,
            path,
            sent_us: 0,
            again_at: 0,
            mss: options.mss.unwrap_or(if key.is_v4() { 536 } else { 1220 }),
            window,
            window_scale: options.window_scale,
            timestamps: options.timestamps.is_some(),
            sack: options.sack_permitted,
            ecn,
            sent: 0,
            challenges: 0,
            chain: self.buckets[bucket],
        };
        let at = if self.free == NIL {
            self.all.push(entry);
            self.live.push(true);
            self.all.len() as u32 - 1
        } else {
            let at = self.free;
            self.free = self.all[at as usize].chain;
            self.all[at as usize] = entry;
            self.live[at as usize] = true;
            at
        };
        self.buckets[bucket] = at;
        self.used += 1;
        at
    }

    pub(crate) fn remove(&mut self, at: u32) {
        let HalfOpen { hash, chain, .. } = self.all[at as usize];
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
        self.live[at as usize] = false;
        self.all[at as usize].chain = self.free;
        self.free = at;
        self.used -= 1;
    }

    /// Removes every entry of a listener; returns their indices' timers to disarm.
    pub(crate) fn remove_listener(&mut self, listener: u32, mut gone: impl FnMut(u32)) {
        for at in 0..self.all.len() as u32 {
            if self.live[at as usize] && self.all[at as usize].listener == listener {
                self.remove(at);
                gone(at);
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.max as usize * (size_of::<HalfOpen>() + 1) + self.buckets.len() * 4
    }
}
