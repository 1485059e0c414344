//! A worker's timers: a bounded heap, filled and emptied without allocation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Names a timer until it fires or is cancelled. A stale one cancels nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    slot: u32,
    generation: u32,
}

struct Slot {
    key: u64,
    generation: u32,
    armed: bool,
}

/// Timers ordered by deadline, at most as many as given at construction.
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Timers {
    /// Room for `capacity` timers at once. The heap has twice that: a cancelled timer keeps its place until it would have
    /// fired, or until the heap is full and is swept.
    pub fn new(capacity: usize) -> Timers {
        let mut slots = Vec::with_capacity(capacity);
        slots.resize_with(capacity, || Slot { key: 0, generation: 0, armed: false });
        Timers {
            heap: BinaryHeap::with_capacity(2 * capacity),
            slots,
            free: (0..capacity as u32).rev().collect(),
        }
    }

    /// Arms a timer for `at_ns`; `None` when all are in use.
    pub fn insert(&mut self, at_ns: u64, key: u64) -> Option<TimerId> {
        let slot = self.free.pop()?;
        let entry = &mut self.slots[slot as usize];
        entry.key = key;
        entry.armed = true;
        let generation = entry.generation;
        if self.heap.len() == 2 * self.slots.len() {
            let slots = &self.slots;
            self.heap.retain(|Reverse((_, slot, generation))| slots[*slot as usize].is(*generation));
        }
        self.heap.push(Reverse((at_ns, slot, generation)));
        Some(TimerId { slot, generation })
    }

    /// Forgets a timer; false when it is gone already.
    pub fn cancel(&mut self, TimerId { slot, generation }: TimerId) -> bool {
        let live = self.slots.get(slot as usize).is_some_and(|s| s.is(generation));
        if live {
            self.release(slot);
        }
        live
    }

    /// The key of the next timer due at `now_ns`, which is then gone.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<u64> {
        while let Some(Reverse((at_ns, slot, generation))) = self.heap.peek().copied() {
            let live = self.slots[slot as usize].is(generation);
            if live && at_ns > now_ns {
                return None;
            }
            self.heap.pop();
            if live {
                let key = self.slots[slot as usize].key;
                self.release(slot);
                return Some(key);
            }
        }
        None
    }

    /// When the next timer is due; may be early by a cancelled one, never late.
    pub fn next_deadline(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ns, _, _))| *at_ns)
    }

    fn release(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        entry.armed = false;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
    }
}

impl Slot {
    fn is(&self, generation: u32) -> bool {
        self.armed && self.generation == generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fire_in_order_of_deadline_and_only_once() {
        let mut timers = Timers::new(4);
        timers.insert(30, 3).unwrap();
        let two = timers.insert(20, 2).unwrap();
        timers.insert(10, 1).unwrap();
        assert_eq!(timers.next_deadline(), Some(10));
        assert_eq!(timers.pop_due(5), None);
        assert!(timers.cancel(two) && !timers.cancel(two));
        assert_eq!(
            (timers.pop_due(100), timers.pop_due(100), timers.pop_due(100)),
            (Some(1), Some(3), None)
        );
    }

    #[test]
    fn cancelling_and_setting_for_ever_stays_within_the_bound() {
        let mut timers = Timers::new(8);
        let keep = timers.insert(1, 99).unwrap();
        let capacity = timers.heap.capacity();
        for n in 0..10_000u64 {
            let id = timers.insert(1_000_000 + n, n).unwrap();
            assert!(timers.cancel(id));
        }
        assert_eq!(timers.heap.capacity(), capacity);
        for n in 0..7 {
            assert!(timers.insert(n + 10, n).is_some());
        }
        assert!(timers.insert(0, 0).is_none(), "the bound holds");
        assert!(timers.cancel(keep));
        assert_eq!(timers.pop_due(10), Some(0));
    }
}
