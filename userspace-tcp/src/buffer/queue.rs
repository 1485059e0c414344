//! A queue of bytes: chunks linked in order. Bytes enter at the tail and leave at the head; a cursor reads in between.

use super::pool::{CHUNK, NIL, Pool};

/// Head and tail of a chain of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub head: u32,
    pub tail: u32,
}

/// A place in a queue: a chunk, and an offset from the chunk's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub chunk: u32,
    pub offset: u16,
}

impl Cursor {
    pub(crate) const NONE: Cursor = Cursor { chunk: NIL, offset: 0 };
}

impl Default for Queue {
    fn default() -> Queue {
        Queue::EMPTY
    }
}

impl Queue {
    pub(crate) const EMPTY: Queue = Queue { head: NIL, tail: NIL };

    pub(crate) fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// Copies as much of `bytes` to the tail as the pool allows; returns how much.
    #[inline]
    pub(crate) fn push(&mut self, pool: &mut Pool, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = if self.tail == NIL { 0 } else { CHUNK - usize::from(pool.meta(self.tail).end) };
            if room == 0 {
                let Some(chunk) = pool.take() else { break };
                if self.tail == NIL {
                    self.head = chunk;
                } else {
                    pool.meta_mut(self.tail).next = chunk;
                }
                self.tail = chunk;
                continue;
            }
            let n = room.min(rest.len());
            let end = usize::from(pool.meta(self.tail).end);
            pool.whole_mut(self.tail)[end..end + n].copy_from_slice(&rest[..n]);
            pool.meta_mut(self.tail).end = (end + n) as u16;
            rest = &rest[n..];
        }
        bytes.len() - rest.len()
    }

    /// Gives up `n` bytes at the head, or all there are; returns how many.
    #[inline]
    pub(crate) fn pop(&mut self, pool: &mut Pool, n: usize) -> usize {
        let mut left = n;
        while left > 0 && self.head != NIL {
            let meta = pool.meta_mut(self.head);
            let here = usize::from(meta.end - meta.start);
            if left < here {
                meta.start += left as u16;
                return n;
            }
            left -= here;
            let next = meta.next;
            pool.give(self.head);
            self.head = next;
            if next == NIL {
                self.tail = NIL;
            }
        }
        n - left
    }

    /// The first bytes, as far as they stand together.
    #[inline]
    pub(crate) fn first<'p>(&self, pool: &'p Pool) -> &'p [u8] {
        if self.head == NIL { &[] } else { pool.bytes(self.head) }
    }

    /// Hangs all of `other` behind the tail.
    pub(crate) fn append(&mut self, pool: &mut Pool, other: Queue) {
        if other.head == NIL {
            return;
        }
        if self.tail == NIL {
            *self = other;
        } else {
            pool.meta_mut(self.tail).next = other.head;
            self.tail = other.tail;
        }
    }

    /// Gives every chunk back.
    pub(crate) fn free(self, pool: &mut Pool) {
        let mut chunk = self.head;
        while chunk != NIL {
            let next = pool.meta(chunk).next;
            pool.give(chunk);
            chunk = next;
        }
    }

    /// Where reading starts.
    pub(crate) fn start(&self, pool: &Pool) -> Cursor {
        if self.head == NIL {
            Cursor::NONE
        } else {
            Cursor { chunk: self.head, offset: pool.meta(self.head).start }
        }
    }
}

impl Cursor {
    /// Copies bytes from here on into `out`; returns how many there were, and the place after them.
    #[inline]
    pub(crate) fn copy(mut self, pool: &Pool, out: &mut [u8]) -> (usize, Cursor) {
        let mut done = 0;
        while done < out.len() && self.chunk != NIL {
            let meta = pool.meta(self.chunk);
            let here = usize::from(meta.end.saturating_sub(self.offset));
            let n = here.min(out.len() - done);
            if n == 0 {
                if meta.next == NIL {
                    break;
                }
                self = Cursor { chunk: meta.next, offset: pool.meta(meta.next).start };
                continue;
            }
            let from = usize::from(self.offset);
            out[done..done + n].copy_from_slice(&pool.whole(self.chunk)[from..from + n]);
            done += n;
            self.offset += n as u16;
        }
        (done, self)
    }

    /// The place `n` bytes further, in the chunk that holds the byte there (if it is queued already).
    #[inline]
    pub(crate) fn advance(mut self, pool: &Pool, mut n: usize) -> Cursor {
        while self.chunk != NIL {
            let meta = pool.meta(self.chunk);
            let here = usize::from(meta.end.saturating_sub(self.offset));
            if n < here || meta.next == NIL {
                self.offset += n.min(here) as u16;
                break;
            }
            n -= here;
            self = Cursor { chunk: meta.next, offset: pool.meta(meta.next).start };
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    fn all(queue: &Queue, pool: &Pool) -> Vec<u8> {
        let mut out = vec![0; 1 << 16];
        let (n, _) = queue.start(pool).copy(pool, &mut out);
        out.truncate(n);
        out
    }

    #[test]
    fn bytes_come_out_as_they_went_in_and_every_chunk_goes_back() {
        let mut pool = Pool::new(64 * CHUNK);
        let data = bytes(10_000);
        let mut queue = Queue::EMPTY;
        for piece in data.chunks(333) {
            assert_eq!(queue.push(&mut pool, piece), piece.len());
        }
        assert_eq!(all(&queue, &pool), data);
        let cursor = queue.start(&pool).advance(&pool, 4_321);
        let mut out = [0; 1460];
        let (n, after) = cursor.copy(&pool, &mut out);
        assert_eq!((n, &out[..]), (1460, &data[4_321..5_781]));
        queue.pop(&mut pool, 4_000);
        assert_eq!(after.copy(&pool, &mut out).0, 1460);
        assert_eq!(&out[..], &data[5_781..7_241]);
        queue.pop(&mut pool, 5_000);
        assert_eq!(all(&queue, &pool), &data[9_000..]);
        let mut tail = Queue::EMPTY;
        tail.push(&mut pool, &data[..700]);
        queue.append(&mut pool, tail);
        assert_eq!(all(&queue, &pool), [&data[9_000..], &data[..700]].concat());
        queue.pop(&mut pool, 1_700);
        assert!(queue.is_empty());
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_full_pool_takes_what_fits_and_says_so() {
        let mut pool = Pool::new(8 * CHUNK);
        let mut queue = Queue::EMPTY;
        assert_eq!(queue.push(&mut pool, &bytes(10_000)), 8 * CHUNK);
        assert!(!pool.reserve(1));
        queue.pop(&mut pool, CHUNK);
        assert!(pool.reserve(CHUNK as u32) && !pool.reserve(1));
        pool.unreserve(CHUNK as u32);
        queue.free(&mut pool);
        assert_eq!((pool.used(), pool.available()), (0, 8));
    }
}
