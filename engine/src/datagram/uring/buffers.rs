//! The provided buffers: frames of the pool, lent to the kernel.
//!
//! ```text
//!   frame:  | recvmsg_out | name | control | payload …
//!           └──── RECEIVE_PREFIX bytes ────┘ where the frame's packet begins
//! ```

use crate::datagram::socket::{RECEIVE_PREFIX, receive_header};
use crate::frame::{Frame, FramePool};
use crate::uring::{BufferRing, Ring, UringError};

/// The one group of buffers.
pub(super) const GROUP: u16 = 0;

/// The ring of buffers, and the frames in it.
pub(super) struct Buffers {
    ring: BufferRing,
    /// By buffer number: the frame the kernel has.
    frames: Box<[Option<Frame>]>,
    /// Numbers without a frame.
    free: Vec<u16>,
    /// What the kernel is told of a message's layout; it reads it when a receive is submitted.
    header: Box<libc::msghdr>,
}

// SAFETY: the header is plain data with null pointers.
unsafe impl Send for Buffers {}

impl Buffers {
    /// A registered ring of `count` places, all empty.
    pub(super) fn new(ring: &Ring, count: u16) -> Result<Buffers, UringError> {
        Ok(Buffers {
            ring: BufferRing::new(ring, count, GROUP)?,
            frames: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
            header: Box::new(receive_header()),
        })
    }

    /// The header of every receive.
    pub(super) fn header(&self) -> *const libc::msghdr {
        &raw const *self.header
    }

    /// Lends the kernel frames for all free places, as far as the pool has any.
    #[inline]
    pub(super) fn post_all(&mut self, pool: &mut FramePool) {
        while !self.free.is_empty()
            && let Some(mut frame) = pool.take(0)
            && let Some(number) = self.free.pop()
        {
            debug_assert_eq!(frame.headroom(), RECEIVE_PREFIX);
            let room = frame.room_mut();
            let len = room.len() + RECEIVE_PREFIX;
            // SAFETY: the frame's chunk begins RECEIVE_PREFIX bytes before its room; the frame is kept until its number comes back.
            unsafe { self.ring.put(room.as_mut_ptr().sub(RECEIVE_PREFIX), len as u32, number) };
            self.frames[usize::from(number)] = Some(frame);
        }
        self.ring.publish();
    }

    /// Takes the frame of a buffer that the kernel has filled.
    #[inline]
    pub(super) fn take(&mut self, number: u16) -> Frame {
        self.free.push(number);
        self.frames[usize::from(number)].take().expect("the kernel names each buffer once")
    }

    /// Frames lent, or filled and not taken yet.
    pub(super) fn posted(&self) -> u64 {
        (self.frames.len() - self.free.len()) as u64
    }

    /// Takes every frame back. Only when no receive is under way.
    pub(super) fn give_back(&mut self, ring: &Ring, pool: &mut FramePool) {
        self.ring.unregister(ring);
        for (number, frame) in self.frames.iter_mut().enumerate() {
            if let Some(frame) = frame.take() {
                self.free.push(number as u16);
                pool.give(frame);
            }
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // Frames that are still with the kernel are leaked, and with them the ring it finds them in.
        for frame in self.frames.iter_mut().filter_map(Option::take) {
            let _ = frame.into_raw();
        }
    }
}
