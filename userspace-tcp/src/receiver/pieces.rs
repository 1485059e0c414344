//! Pieces: in-order payload that is still where the device put it. They live until the burst ends; what the application has
//! not read by then is copied to the pool, which was reserved for them on arrival.

use crate::buffer::{NIL, Pool};
use crate::counters::Counters;
use crate::segment::{SegmentIn, Segments};
use crate::tcb::Cold;

#[derive(Clone, Copy, Debug)]
struct Piece {
    frame: u32,
    offset: u32,
    len: u32,
    /// Bytes reserved in the pool for it, since it has shrunk from them.
    reserved: u32,
    next: u32,
}

/// The pieces of a burst.
pub(crate) struct Pieces {
    all: Vec<Piece>,
    /// Connections that have had any.
    pub slots: Vec<u32>,
}

/// The frames a burst borrows.
pub(crate) type Frames<'a, 'f> = &'a [SegmentIn<'f>];

impl Pieces {
    pub(crate) fn new() -> Pieces {
        Pieces { all: Vec::with_capacity(256), slots: Vec::with_capacity(256) }
    }

    /// Adds a piece behind those of its connection. The pool has been reserved for `len`.
    #[inline]
    pub(crate) fn push(&mut self, slot: u32, cold: &mut Cold, frame: u32, offset: u32, len: u32) {
        let at = self.all.len() as u32;
        self.all.push(Piece { frame, offset, len, reserved: len, next: NIL });
        if cold.pieces.1 == NIL {
            cold.pieces = (at, at);
            self.slots.push(slot);
        } else {
            self.all[cold.pieces.1 as usize].next = at;
            cold.pieces.1 = at;
        }
    }

    /// The first bytes of a connection's pieces.
    pub(crate) fn first<'f>(&self, cold: &Cold, frames: &'f (impl Segments + ?Sized)) -> &'f [u8] {
        let Some(piece) = self.all.get(cold.pieces.0 as usize) else { return &[] };
        let frame = frames.segment(piece.frame as usize);
        frame.get(piece.offset as usize..(piece.offset + piece.len) as usize).unwrap_or(&[])
    }

    /// The application has read `n` bytes of them; returns how many of `n` there were.
    pub(crate) fn pop(&mut self, cold: &mut Cold, pool: &mut Pool, mut n: u32) -> u32 {
        let mut done = 0;
        while n > 0 && cold.pieces.0 != NIL {
            let piece = &mut self.all[cold.pieces.0 as usize];
            if n < piece.len {
                piece.len -= n;
                piece.offset += n;
                return done + n;
            }
            n -= piece.len;
            done += piece.len;
            pool.unreserve(piece.reserved);
            cold.pieces.0 = piece.next;
            if piece.next == NIL {
                cold.pieces.1 = NIL;
            }
        }
        done
    }

    /// Copies a connection's pieces to its queue in the pool.
    pub(crate) fn flush(
        &mut self,
        cold: &mut Cold,
        pool: &mut Pool,
        counters: &mut Counters,
        frames: &(impl Segments + ?Sized),
    ) {
        while cold.pieces.0 != NIL {
            let bytes = self.first(cold, frames);
            let piece = self.all[cold.pieces.0 as usize];
            counters.bytes_copied += u64::from(piece.len);
            pool.unreserve(piece.reserved);
            let before = pool.used();
            cold.receive.push(pool, bytes);
            cold.rcv_chunks += pool.used() - before;
            cold.pieces.0 = piece.next;
        }
        cold.pieces.1 = NIL;
    }

    /// Forgets a connection's pieces.
    pub(crate) fn discard(&mut self, cold: &mut Cold, pool: &mut Pool) {
        while cold.pieces.0 != NIL {
            let piece = self.all[cold.pieces.0 as usize];
            pool.unreserve(piece.reserved);
            cold.pieces.0 = piece.next;
        }
        cold.pieces.1 = NIL;
    }

    /// True when no burst is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The burst is over, and every connection's pieces have been flushed.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
        self.slots.clear();
    }
}
