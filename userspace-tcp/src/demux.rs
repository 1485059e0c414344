//! The demultiplexer: from a flow's keyed hash to its connection, in open addressing.
//!
//! An entry is 32 bits of hash and the slot, so that a probe reads one word and a wrong candidate is almost never looked at.

const EMPTY: u64 = u64::MAX;

/// A table of slots by hash, at most half full.
pub(crate) struct Demux {
    table: Box<[u64]>,
    mask: usize,
}

impl Demux {
    pub(crate) fn new(capacity: u32) -> Demux {
        let size = (capacity.max(16) as usize * 2).next_power_of_two();
        Demux { table: vec![EMPTY; size].into_boxed_slice(), mask: size - 1 }
    }

    /// Reads the first entry of a hash, so that the memory is near when [`Demux::find`] comes; and the slot it names.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u32 {
        self.table[hash as usize & self.mask] as u32
    }

    /// The slot with this hash for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = hash as usize & self.mask;
        loop {
            let entry = self.table[at];
            if entry == EMPTY {
                return None;
            }
            if entry >> 32 == hash >> 32 && is(entry as u32) {
                return Some(entry as u32);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Adds a slot. The caller never adds more than the capacity.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        let mut at = hash as usize & self.mask;
        while self.table[at] != EMPTY {
            at = (at + 1) & self.mask;
        }
        self.table[at] = (hash >> 32) << 32 | u64::from(slot);
    }

    /// Takes a slot out; `home` says where the hash of another slot begins, since only half of it is stored here.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32, home: impl Fn(u32) -> u64) {
        let mut at = hash as usize & self.mask;
        while self.table[at] as u32 != slot || self.table[at] == EMPTY {
            if self.table[at] == EMPTY {
                return;
            }
            at = (at + 1) & self.mask;
        }
        // Close the gap: whatever probed across it moves up, so that no tombstones gather.
        let mut gap = at;
        loop {
            at = (at + 1) & self.mask;
            let entry = self.table[at];
            if entry == EMPTY {
                break;
            }
            let wants = home(entry as u32) as usize & self.mask;
            if (at.wrapping_sub(wants) & self.mask) >= (at.wrapping_sub(gap) & self.mask) {
                self.table[gap] = entry;
                gap = at;
            }
        }
        self.table[gap] = EMPTY;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.table.len() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    use std::collections::HashMap;

    #[test]
    fn finds_what_is_in_it_and_nothing_else() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut demux = Demux::new(64);
        let mut model: HashMap<u32, u64> = HashMap::new();
        for _ in 0..50_000 {
            let slot = rng.random_range(0..64u32);
            if let Some(hash) = model.remove(&slot) {
                assert_eq!(demux.find(hash, |s| s == slot), Some(slot));
                demux.remove(hash, slot, |s| model[&s]);
                assert_eq!(demux.find(hash, |s| s == slot), None);
            } else {
                // Few home slots, so that runs form and wrap round the end of the table.
                let hash = rng.random_range(0..6u64) * 25 + (rng.random::<u64>() << 32);
                demux.insert(hash, slot);
                model.insert(slot, hash);
            }
            for (&slot, &hash) in &model {
                assert_eq!(demux.find(hash, |s| s == slot), Some(slot));
            }
        }
    }
}
