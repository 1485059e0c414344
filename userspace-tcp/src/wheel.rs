//! A hierarchical timer wheel: arm, disarm and "when next" in constant time, whatever the number of timers.
//!
//! Four levels of slots, 1 ms, 256 ms, 16 s and 17 min wide. A timer stands in the level whose reach covers it and moves down
//! when its slot comes up. Every id has one timer. It never fires early; it may fire late when it is polled late.

const NIL: u32 = u32::MAX;
const LEVELS: [(u32, u32); 4] = [(0, 256), (8, 64), (14, 64), (20, 64)];
const BASE: [usize; 4] = [0, 256, 320, 384];
const SLOTS: usize = 448;
const UNARMED: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    prev: u32,
    at: u32,
    slot: u16,
}

/// Timers by id, in wrapping milliseconds.
pub(crate) struct Wheel {
    nodes: Vec<Node>,
    heads: [u32; SLOTS],
    /// One bit per slot that is not empty.
    used: [u64; SLOTS / 64],
    /// Everything before this millisecond has fired.
    now: u32,
    armed: u32,
}

impl Wheel {
    pub(crate) fn new(now_ms: u32) -> Wheel {
        Wheel { nodes: Vec::new(), heads: [NIL; SLOTS], used: [0; SLOTS / 64], now: now_ms, armed: 0 }
    }

    /// Makes room for ids up to and including `id`.
    pub(crate) fn ensure(&mut self, id: u32) {
        if self.nodes.len() <= id as usize {
            self.nodes.resize(id as usize + 1, Node { next: NIL, prev: NIL, at: 0, slot: UNARMED });
        }
    }

    pub(crate) fn reserve(&mut self, ids: usize) {
        self.nodes.reserve_exact(ids);
    }

    /// Arms `id` for millisecond `at`, unless it is armed for an earlier one: whoever moves a deadline later leaves the timer,
    /// and looks again when it fires.
    #[inline]
    pub(crate) fn arm_no_later(&mut self, id: u32, at: u32) {
        let node = &self.nodes[id as usize];
        if node.slot != UNARMED {
            if (at.wrapping_sub(node.at) as i32) >= 0 {
                return;
            }
            self.unlink(id);
        }
        self.link(id, at);
    }

    /// Reads a timer, so that it is near when it is needed; the value means nothing.
    #[inline]
    pub(crate) fn touch(&self, id: u32) -> u32 {
        self.nodes.get(id as usize).map_or(0, |node| node.at)
    }

    /// Disarms `id`.
    pub(crate) fn disarm(&mut self, id: u32) {
        if self.nodes.get(id as usize).is_some_and(|node| node.slot != UNARMED) {
            self.unlink(id);
        }
    }

    fn link(&mut self, id: u32, at: u32) {
        let mut ahead = at.wrapping_sub(self.now);
        if ahead as i32 <= 0 {
            ahead = 0;
        }
        // The furthest slot takes what lies beyond it; it is looked at again there.
        ahead = ahead.min((63 << 20) - 1);
        let when = self.now.wrapping_add(ahead);
        // The lowest level on which it is less than a turn ahead, counted in slots: never the slot that stands now.
        let slots_ahead = |shift: u32| ((self.now & ((1 << shift) - 1)) + ahead) >> shift;
        let level = match ahead {
            0..256 => 0,
            _ if slots_ahead(8) < 64 => 1,
            _ if slots_ahead(14) < 64 => 2,
            _ => 3,
        };
        let (shift, slots) = LEVELS[level];
        let slot = BASE[level] + ((when >> shift) & (slots - 1)) as usize;
        let head = self.heads[slot];
        self.nodes[id as usize] = Node { next: head, prev: NIL, at, slot: slot as u16 };
        if head != NIL {
            self.nodes[head as usize].prev = id;
        }
        self.heads[slot] = id;
        self.used[slot / 64] |= 1 << (slot % 64);
        self.armed += 1;
    }

    fn unlink(&mut self, id: u32) {
        let Node { next, prev, slot, .. } = self.nodes[id as usize];
        if prev == NIL {
            self.heads[usize::from(slot)] = next;
            if next == NIL {
                self.used[usize::from(slot) / 64] &= !(1 << (slot % 64));
            }
        } else {
            self.nodes[prev as usize].next = next;
        }
        if next != NIL {
            self.nodes[next as usize].prev = prev;
        }
        self.nodes[id as usize].slot = UNARMED;
        self.armed -= 1;
    }

    /// The next timer that is due at `now_ms`, disarmed; `None` when there is none left.
    pub(crate) fn pop_due(&mut self, now_ms: u32) -> Option<u32> {
        loop {
            if self.armed == 0 {
                self.now = now_ms;
                return None;
            }
            let head = self.heads[(self.now & 255) as usize];
            if head != NIL {
                self.unlink(head);
                return Some(head);
            }
            if (now_ms.wrapping_sub(self.now) as i32) <= 0 {
                return None;
            }
            // To the next slot of level 0 that holds something, or the next turn of it, or now.
            let here = self.now & 255;
            let step = self.next_used(0, (here + 1) & 255, 255 - here).map_or(256 - here, |n| n + 1);
            self.now = self.now.wrapping_add(step.min(now_ms.wrapping_sub(self.now)));
            if self.now & 255 == 0 {
                self.cascade();
            }
        }
    }

    /// Moves the timers of the slots that have come up one or more levels down.
    fn cascade(&mut self) {
        for level in (1..4).rev() {
            let (shift, slots) = LEVELS[level];
            if self.now & ((1 << shift) - 1) != 0 {
                continue;
            }
            let slot = BASE[level] + ((self.now >> shift) & (slots - 1)) as usize;
            let mut id = self.heads[slot];
            while id != NIL {
                let Node { next, at, .. } = self.nodes[id as usize];
                self.unlink(id);
                self.link(id, at);
                id = next;
            }
        }
    }

    /// How many slots after `from` (itself 0) the first used one of `level` is, looking at `count` slots.
    fn next_used(&self, level: usize, from: u32, count: u32) -> Option<u32> {
        let slots = LEVELS[level].1;
        let mut seen = 0;
        while seen < count {
            let slot = (from + seen) & (slots - 1);
            let bit = BASE[level] + slot as usize;
            let word = self.used[bit / 64] >> (bit % 64);
            if word != 0 {
                let n = seen + word.trailing_zeros();
                // Bits of another level never follow within a word: levels are multiples of 64 slots.
                return (n < count).then_some(n);
            }
            seen += 64 - (slot & 63);
        }
        None
    }

    /// A millisecond at or before which no timer is due later than the first: when to poll again. It may be early (a slot of an
    /// upper level), never late.
    pub(crate) fn next(&self) -> Option<u32> {
        if self.armed == 0 {
            return None;
        }
        let mut best: Option<u32> = self.next_used(0, self.now & 255, 256);
        for (level, (shift, slots)) in LEVELS.into_iter().enumerate().skip(1) {
            let here = self.now >> shift;
            if let Some(n) = self.next_used(level, (here + 1) & (slots - 1), slots) {
                let at = (here.wrapping_add(1 + n)) << shift;
                let ahead = at.wrapping_sub(self.now);
                best = Some(best.map_or(ahead, |b| b.min(ahead)));
            }
        }
        best.map(|ahead| self.now.wrapping_add(ahead))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    /// Against the plainest thing that can be right: a list of deadlines.
    #[test]
    fn fires_each_timer_once_in_its_millisecond() {
        for (seed, start) in [(1u64, 0u32), (2, u32::MAX - 5_000), (3, 1_000_003)] {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut wheel = Wheel::new(start);
            let mut model: Vec<Option<u64>> = vec![None; 300];
            wheel.ensure(299);
            let mut now = 0u64;
            for _ in 0..30_000 {
                match rng.random_range(0..4) {
                    0 | 1 => {
                        let id = rng.random_range(0..300u32);
                        let bound = [10, 300, 20_000, 2_000_000, 100_000_000][rng.random_range(0..5)];
                        let at = now + rng.random_range(0..bound);
                        let cell = &mut model[id as usize];
                        if cell.is_none_or(|old| at < old) {
                            *cell = Some(at);
                        }
                        wheel.arm_no_later(id, start.wrapping_add(at as u32));
                    }
                    2 => {
                        let id = rng.random_range(0..300u32);
                        model[id as usize] = None;
                        wheel.disarm(id);
                    }
                    _ => {
                        let next = model.iter().flatten().min().copied();
                        let said = wheel
                            .next()
                            .map(|at| now + u64::from(at.wrapping_sub(start.wrapping_add(now as u32))));
                        assert_eq!(said.is_some(), next.is_some());
                        if let (Some(said), Some(next)) = (said, next) {
                            assert!(said <= next, "next() said {said}, {next} is due");
                        }
                        let most = [2u64, 100, 5_000, 3_000_000][rng.random_range(0..4)];
                        now += rng.random_range(0..most);
                        let mut fired = Vec::new();
                        while let Some(id) = wheel.pop_due(start.wrapping_add(now as u32)) {
                            let at = model[id as usize].take().expect("armed");
                            assert!(at <= now, "{at} fired at {now}");
                            fired.push(id);
                        }
                        assert!(
                            model.iter().flatten().all(|&at| at > now),
                            "a due timer did not fire at {now}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn next_is_exact_within_a_quarter_second() {
        let mut wheel = Wheel::new(1000);
        wheel.ensure(1);
        wheel.arm_no_later(0, 1200);
        assert_eq!(wheel.next(), Some(1200));
        wheel.arm_no_later(1, 1010);
        assert_eq!(wheel.next(), Some(1010));
        assert_eq!(wheel.pop_due(1009), None);
        assert_eq!(wheel.pop_due(1010), Some(1));
        assert_eq!(wheel.pop_due(1199), None);
        assert_eq!(wheel.pop_due(1300), Some(0));
        assert_eq!(wheel.next(), None);
    }
}
