//! A pool of frames in ordinary memory, for ports without a device of their own (kernel sockets, memory, pcap).

use super::{Burst, Frame, Ledger, Owner, Ownership, RawFrame};
use std::ptr::NonNull;

/// Frames over one heap allocation. The pool's free list never grows: taking and giving back does not allocate.
///
/// When frames are still out as the pool is dropped, its memory is leaked rather than freed under them.
pub struct FramePool {
    memory: NonNull<u8>,
    chunk: u32,
    headroom: u32,
    total: u32,
    free: Vec<u32>,
    ownership: Ownership,
}

// SAFETY: the pool owns its allocation; what is out as frames is owned by those frames.
unsafe impl Send for FramePool {}

impl FramePool {
    /// A pool of `count` frames of `chunk` bytes each, packets beginning after `headroom` bytes.
    ///
    /// # Panics
    /// When `headroom` is not below `chunk`, or the pool's size overflows.
    pub fn new(count: u32, chunk: u32, headroom: u32) -> FramePool {
        assert!(headroom < chunk, "headroom {headroom} leaves nothing of a {chunk}-byte chunk");
        let bytes = (count as usize).checked_mul(chunk as usize).expect("pool size overflows");
        let memory = Box::leak(vec![0u8; bytes].into_boxed_slice());
        FramePool {
            memory: NonNull::from(memory).cast(),
            chunk,
            headroom,
            total: count,
            free: (0..count).rev().collect(),
            ownership: Ownership::new(count as usize),
        }
    }

    /// Takes one empty frame for `queue`; `None` when all are out.
    #[inline]
    pub fn take(&mut self, queue: u16) -> Option<Frame> {
        let index = self.free.pop()?;
        self.ownership.transfer(index as usize, Owner::Free, Owner::App);
        // SAFETY: `index` came off the free list, so nobody else owns that chunk, and it lies inside the allocation, which is
        // freed only when all frames are back.
        Some(unsafe {
            Frame::from_raw(RawFrame {
                chunk: self.memory.add(index as usize * self.chunk as usize),
                token: u64::from(index),
                capacity: self.chunk,
                offset: self.headroom,
                len: 0,
                queue,
                flags: 0,
            })
        })
    }

    /// Takes frames until `burst` holds `want` more, is full, or the pool is empty; returns how many were taken.
    pub fn fill(&mut self, burst: &mut Burst, want: usize, queue: u16) -> usize {
        let want = want.min(burst.remaining_capacity());
        let mut taken = 0;
        while taken < want {
            let Some(frame) = self.take(queue) else { break };
            burst.push(frame);
            taken += 1;
        }
        taken
    }

    /// Takes a frame back.
    ///
    /// # Panics
    /// When the frame belongs to another pool.
    #[inline]
    pub fn give(&mut self, frame: Frame) {
        let raw = frame.into_raw();
        let index = raw.token as usize;
        let ours = index < self.total as usize
            && raw.chunk.as_ptr() == self.memory.as_ptr().wrapping_add(index * self.chunk as usize);
        assert!(ours, "frame {index} was given back to a pool it does not come from");
        self.ownership.transfer(index, Owner::App, Owner::Free);
        self.free.push(index as u32);
    }

    /// Bytes a packet may have in one frame.
    pub fn room(&self) -> usize {
        (self.chunk - self.headroom) as usize
    }

    /// The memory of all frames and its length in bytes, to be registered with the kernel. It stays where it is.
    pub fn memory(&self) -> (NonNull<u8>, usize) {
        (self.memory, self.total as usize * self.chunk as usize)
    }

    /// Where the frames are.
    pub fn ledger(&self) -> Ledger {
        let (total, free) = (u64::from(self.total), self.free.len() as u64);
        Ledger { total, free, app: total - free, ..Ledger::default() }
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        if self.free.len() == self.total as usize {
            let bytes = self.total as usize * self.chunk as usize;
            let slice = NonNull::slice_from_raw_parts(self.memory, bytes);
            // SAFETY: the allocation came from `Box::leak` of a boxed slice of this length, and no frame is out.
            drop(unsafe { Box::from_raw(slice.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_comes_back_once() {
        let mut pool = FramePool::new(4, 256, 64);
        let mut burst = Burst::new();
        assert_eq!(pool.fill(&mut burst, 64, 3), 4);
        assert!(pool.take(0).is_none());
        assert_eq!(pool.ledger().app, 4);
        for (n, frame) in burst.iter_mut().enumerate() {
            assert_eq!((frame.queue(), frame.headroom(), frame.room_mut().len()), (3, 64, 192));
            assert!(frame.set_len(192) && !frame.set_len(193));
            frame.bytes_mut().fill(n as u8);
        }
        assert!(burst.iter().enumerate().all(|(n, f)| f.bytes().iter().all(|b| *b == n as u8)));
        burst.drain(..).for_each(|frame| pool.give(frame));
        assert_eq!(pool.ledger().free, 4);
        assert!(pool.ledger().balances());
    }

    #[test]
    #[should_panic(expected = "does not come from")]
    fn a_foreign_frame_is_refused() {
        let (mut a, mut b) = (FramePool::new(1, 64, 0), FramePool::new(1, 64, 0));
        b.give(a.take(0).unwrap());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "its chunk is lost")]
    fn a_dropped_frame_is_noticed() {
        drop(FramePool::new(1, 64, 0).take(0));
    }
}
