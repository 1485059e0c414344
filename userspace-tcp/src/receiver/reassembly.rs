//! Out-of-order data: ranges of bytes in the pool, ascending, never touching or overlapping.

use crate::buffer::{CHUNK, NIL, Pool, Queue};
use crate::options::{MAX_SACK_BLOCKS, SackBlock};
use crate::sequence::Seq;
use crate::tcb::Cold;

/// Ranges one connection may hold. More holes than this in one window are an attack, or a path on which nothing helps.
const MAX_RANGES: u16 = 128;

#[derive(Clone, Copy, Debug)]
struct Range {
    seq: Seq,
    end: Seq,
    queue: Queue,
    next: u32,
}

/// The ranges of all connections. Each holds at least one chunk, so there are never more of them than chunks.
pub(crate) struct Ranges {
    all: Vec<Range>,
    free: u32,
    used: u32,
}

/// Why out-of-order data was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// All of it was there already.
    Duplicate,
    /// Too many pieces, or too little data in too many chunks.
    TooMany,
    /// The pool is empty.
    NoMemory,
}

impl Ranges {
    /// Room for `max` ranges; memory is touched as it is needed.
    pub(crate) fn new(max: u32) -> Ranges {
        Ranges { all: Vec::with_capacity(max as usize), free: NIL, used: 0 }
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<Range>()
    }

    fn take(&mut self, range: Range) -> u32 {
        self.used += 1;
        if self.free == NIL {
            self.all.push(range);
            return self.all.len() as u32 - 1;
        }
        let at = self.free;
        self.free = self.all[at as usize].next;
        self.all[at as usize] = range;
        at
    }

    fn give(&mut self, at: u32) {
        self.all[at as usize].next = self.free;
        self.free = at;
        self.used -= 1;
    }

    /// Takes `bytes` that begin at `seq`, beyond what has arrived in order. What is held already is kept, whatever the new
    /// bytes say. On success returns whether any of it was a duplicate.
    pub(crate) fn insert(
        &mut self,
        cold: &mut Cold,
        pool: &mut Pool,
        seq: Seq,
        bytes: &[u8],
    ) -> Result<Option<SackBlock>, Refused> {
        let end = seq + bytes.len() as u32;
        // Small segments must not occupy more chunks than the buffer they were promised.
        if cold.rcv_chunks as usize * CHUNK > 2 * cold.rcv_buf as usize + 8 * CHUNK {
            return Err(Refused::TooMany);
        }
        let mut duplicate: Option<SackBlock> = None;
        let mut taken = false;
        let mut previous = NIL;
        let mut at = cold.ranges;
        let mut from = seq;
        // Walk the ranges, filling each gap that [seq, end) covers.
        while from.lt(end) {
            let next = (at != NIL).then(|| self.all[at as usize]);
            if let Some(range) = next
                && range.end.lt(from)
            {
                previous = at;
                at = range.next;
                continue;
            }
            if let Some(range) = next
                && range.seq.le(from)
            {
                // Inside or just behind this range: step over what it holds.
                if range.end.gt(from) {
                    duplicate.get_or_insert((from, range.end.min(end)));
                }
                from = range.end;
                previous = at;
                at = range.next;
                continue;
            }
            let stop = next.map_or(end, |range| range.seq.min(end));
            let gap = &bytes[(from - seq) as usize..(stop - seq) as usize];
            let before = pool.used();
            let grows = previous != NIL && self.all[previous as usize].end == from;
            let done = if grows {
                let mut queue = self.all[previous as usize].queue;
                let n = queue.push(pool, gap);
                self.all[previous as usize].queue = queue;
                self.all[previous as usize].end += n as u32;
                n
            } else if cold.range_count >= MAX_RANGES {
                return if taken { Ok(duplicate) } else { Err(Refused::TooMany) };
            } else {
                let mut queue = Queue::EMPTY;
                let n = queue.push(pool, gap);
                if n > 0 {
                    let new = self.take(Range { seq: from, end: from + n as u32, queue, next: at });
                    if previous == NIL {
                        cold.ranges = new;
                    } else {
                        self.all[previous as usize].next = new;
                    }
                    cold.range_count += 1;
                    previous = new;
                }
                n
            };
            cold.rcv_chunks += pool.used() - before;
            taken |= done > 0;
            if done < gap.len() {
                return if taken { Ok(duplicate) } else { Err(Refused::NoMemory) };
            }
            from = stop;
            self.join(cold, pool, previous);
            at = self.all[previous as usize].next;
            from = from.max(self.all[previous as usize].end.min(end));
        }
        if !taken {
            return Err(Refused::Duplicate);
        }
        Ok(duplicate)
    }

    /// Joins a range with the one behind it, when they touch.
    fn join(&mut self, cold: &mut Cold, pool: &mut Pool, at: u32) {
        let next = self.all[at as usize].next;
        if next == NIL || self.all[at as usize].end != self.all[next as usize].seq {
            return;
        }
        let second = self.all[next as usize];
        let first = &mut self.all[at as usize];
        first.queue.append(pool, second.queue);
        first.end = second.end;
        first.next = second.next;
        cold.range_count -= 1;
        self.give(next);
    }

    /// Whether the first range begins at or before `next`: it has become in-order data.
    pub(crate) fn ready(&self, cold: &Cold, next: Seq) -> bool {
        cold.ranges != NIL && self.all[cold.ranges as usize].seq.le(next)
    }

    /// Moves the first range, as far as it lies beyond `next`, to the receive queue. Returns where it ends.
    pub(crate) fn deliver(&mut self, cold: &mut Cold, pool: &mut Pool, next: Seq) -> Seq {
        let at = cold.ranges;
        let mut range = self.all[at as usize];
        cold.ranges = range.next;
        cold.range_count -= 1;
        self.give(at);
        let before = pool.used();
        range.queue.pop(pool, next.after(range.seq).min(range.end - range.seq) as usize);
        cold.rcv_chunks -= before - pool.used();
        cold.receive.append(pool, range.queue);
        range.end
    }

    /// Gives up all out-of-order data of a connection (RFC 2018, section 8 allows it). Returns its bytes.
    pub(crate) fn purge(&mut self, cold: &mut Cold, pool: &mut Pool) -> u32 {
        let mut bytes = 0;
        while cold.ranges != NIL {
            let at = cold.ranges;
            let range = self.all[at as usize];
            bytes += range.end - range.seq;
            let before = pool.used();
            range.queue.free(pool);
            cold.rcv_chunks -= before - pool.used();
            cold.ranges = range.next;
            self.give(at);
        }
        cold.range_count = 0;
        bytes
    }

    /// Takes note that the block around `seq` grew last.
    pub(crate) fn note_recent(&self, cold: &mut Cold, seq: Seq) {
        let block = |at: Seq| self.blocks(cold.ranges).find(|(start, end)| start.le(at) && end.gt(at));
        let Some(newest) = block(seq) else { return };
        let mut recent = [seq; 4];
        let mut n = 1;
        for old in cold.recent_blocks {
            if n < 4 && block(old).is_some_and(|b| b != newest) {
                recent[n] = old;
                n += 1;
            }
        }
        cold.recent_blocks = recent;
    }

    fn blocks(&self, first: u32) -> impl Iterator<Item = SackBlock> + '_ {
        let mut at = first;
        std::iter::from_fn(move || {
            if at == NIL {
                return None;
            }
            let range = &self.all[at as usize];
            at = range.next;
            Some((range.seq, range.end))
        })
    }

    /// The SACK blocks to report: a duplicate (RFC 2883), then the block that grew last, then the ones before it (RFC 2018,
    /// section 4), then any others.
    pub(crate) fn sack_blocks(&self, cold: &Cold) -> ([SackBlock; MAX_SACK_BLOCKS], usize) {
        let mut out = [(Seq(0), Seq(0)); MAX_SACK_BLOCKS];
        let mut n = 0;
        if let Some(duplicate) = cold.dsack {
            out[0] = duplicate;
            n = 1;
        }
        let first = n;
        let recent = cold
            .recent_blocks
            .iter()
            .filter_map(|&at| self.blocks(cold.ranges).find(|(start, end)| start.le(at) && end.gt(at)));
        for block in recent.chain(self.blocks(cold.ranges)) {
            if n == MAX_SACK_BLOCKS {
                break;
            }
            if !out[first..n].contains(&block) {
                out[n] = block;
                n += 1;
            }
        }
        (out, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConnectionOptions;
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    /// Against a plain array of bytes: random overlapping pieces of a stream across the wrap.
    #[test]
    fn any_order_and_overlap_gives_the_stream_and_leaks_nothing() {
        for seed in 0..20 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let stream: Vec<u8> = (0..20_000u32).map(|i| (i * 31 + i / 255) as u8).collect();
            let base = Seq(u32::MAX - 7_000);
            let mut pool = Pool::new(1 << 20);
            let mut ranges = Ranges::new(4096);
            let mut cold = Cold::new(&ConnectionOptions::default());
            let mut have = vec![false; stream.len()];
            let mut next = 0usize;
            let mut got = Vec::new();
            while next < stream.len() {
                let start = (next + rng.random_range(0..4_000)).min(stream.len());
                let len = rng.random_range(1..1_500).min(stream.len() - start);
                if rng.random_bool(0.9) {
                    if start <= next || len == 0 {
                        continue;
                    }
                    let any_new = have[start..start + len].iter().any(|h| !h);
                    let result = ranges.insert(
                        &mut cold,
                        &mut pool,
                        base + start as u32,
                        &stream[start..start + len],
                    );
                    assert_eq!(result == Err(Refused::Duplicate), !any_new);
                    if result.is_ok() {
                        have[start..start + len].fill(true);
                    }
                    let model: usize = have[next..].windows(2).filter(|w| !w[0] && w[1]).count();
                    assert_eq!(usize::from(cold.range_count), model);
                } else {
                    // The hole at the front is filled, up to the first range.
                    let stop = (next..stream.len()).find(|&i| have[i]).unwrap_or(stream.len());
                    cold.receive.push(&mut pool, &stream[next..stop]);
                    next = stop;
                    while ranges.ready(&cold, base + next as u32) {
                        next = (ranges.deliver(&mut cold, &mut pool, base + next as u32) - base) as usize;
                    }
                    let mut out = vec![0; 30_000];
                    let (n, _) = cold.receive.start(&pool).copy(&pool, &mut out);
                    got.extend_from_slice(&out[..n]);
                    cold.receive.pop(&mut pool, n);
                }
            }
            assert!(got == stream);
            assert_eq!((pool.used(), ranges.used(), cold.range_count), (0, 0, 0));
        }
    }

    #[test]
    fn blocks_are_reported_newest_first_and_their_number_is_bounded() {
        let mut pool = Pool::new(1 << 20);
        let mut ranges = Ranges::new(4096);
        let mut cold = Cold::new(&ConnectionOptions::default());
        for start in [100u32, 300, 500, 200, 700] {
            ranges.insert(&mut cold, &mut pool, Seq(start), &[1; 10]).unwrap();
            ranges.note_recent(&mut cold, Seq(start));
        }
        let (blocks, n) = ranges.sack_blocks(&cold);
        let starts: Vec<u32> = blocks[..n].iter().map(|b| b.0.0).collect();
        assert_eq!(starts, [700, 200, 500, 300]);
        cold.dsack = Some((Seq(10), Seq(20)));
        let (blocks, n) = ranges.sack_blocks(&cold);
        assert_eq!((n, blocks[0], blocks[1].0), (4, (Seq(10), Seq(20)), Seq(700)));
        for i in 0..1_000 {
            let _ = ranges.insert(&mut cold, &mut pool, Seq(2_000 + 2 * i), &[1]);
        }
        assert_eq!(cold.range_count, MAX_RANGES);
        assert_eq!(ranges.insert(&mut cold, &mut pool, Seq(9_000), &[1]), Err(Refused::TooMany));
        ranges.purge(&mut cold, &mut pool);
        assert_eq!((pool.used(), cold.rcv_chunks), (0, 0));
    }
}
