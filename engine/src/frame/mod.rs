//! Frames: where packets live, and the accounting that none is lost.
//!
//! ```text
//!            ┌───────────── memory of a port (UMEM, mempool, heap) ─────────────┐
//!            │ chunk 0 │ chunk 1 │ chunk 2 │ …                                   │
//!            └─────────┴────▲────┴─────────┴─────────────────────────────────────┘
//!                           │ owns exactly one chunk, until handed back
//!                        Frame  (not Copy, not Clone)
//! ```
//!
//! A [`Frame`] is a token: whoever holds it owns the chunk, and the call that hands it on consumes it. Ports
//! make frames and take them back; nobody else can. [`Ledger`] says where every chunk of a port is.

mod ledger;
mod pool;

pub use ledger::{Ledger, Owner, Ownership};
pub use pool::FramePool;

use arrayvec::ArrayVec;
use std::ptr::NonNull;

/// Most frames that move at once: one doorbell, one virtual call. 64 frames of headers fill 4 KiB of L1; fewer would
/// pay the per-burst cost more often, more would push a burst's first packets out of L1 before they are answered.
pub const BURST: usize = 64;

/// Frames on their way, at most [`BURST`].
pub type Burst = ArrayVec<Frame, BURST>;

/// Flags a port sets on a received frame, or the net layer on a frame to send.
pub mod flag {
    /// The packet goes on in the next frame of the burst (multi-buffer).
    pub const MORE: u8 = 1;
    /// The device verified the packet's checksums.
    pub const CHECKSUM_VERIFIED: u8 = 2;
    /// The transport checksum field holds the pseudo-header sum only; the device must finish it.
    pub const CHECKSUM_PARTIAL: u8 = 4;
    /// Steering leaves the packet to the kernel, and no kernel stands behind the port: it is not the app's.
    pub const NOT_STEERED: u8 = 8;
}

/// Exclusive ownership of one chunk of packet memory.
///
/// The packet is `len` bytes at `offset` within the chunk; before it is headroom, after it tailroom. Dropping a
/// frame would lose its chunk, so debug builds panic; give it back with the port's `tx` or `free`.
#[must_use = "a frame that is dropped is a chunk lost: give it back to its port"]
#[derive(Debug)]
pub struct Frame {
    chunk: NonNull<u8>,
    token: u64,
    capacity: u32,
    offset: u32,
    len: u32,
    queue: u16,
    flags: u8,
    /// Where a partial checksum begins, halved (headers are even), and whether its field is TCP's; 0 is none.
    checksum: u8,
}

// SAFETY: a frame is the only owner of its chunk (see `from_raw`), so it may move to another thread with it.
unsafe impl Send for Frame {}

/// A frame taken apart by its port: what is needed to put the chunk into a ring or a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// First byte of the chunk.
    pub chunk: NonNull<u8>,
    /// The port's own name for the chunk (UMEM address of its first byte, mbuf pointer, index).
    pub token: u64,
    /// Bytes of the chunk.
    pub capacity: u32,
    /// Where the packet begins in the chunk.
    pub offset: u32,
    /// Bytes of the packet in this chunk.
    pub len: u32,
    /// Queue the frame came from, or leaves on.
    pub queue: u16,
    /// See [`flag`].
    pub flags: u8,
}

impl Frame {
    /// Makes the token for a chunk.
    ///
    /// # Safety
    /// `raw.chunk` is valid for reads and writes of `raw.capacity` initialised bytes, nothing else reads or writes them
    /// until the frame is taken apart again by [`Frame::into_raw`], and the memory outlives the frame. The packet
    /// lies inside the chunk.
    #[inline(always)]
    pub unsafe fn from_raw(raw: RawFrame) -> Frame {
        debug_assert!(u64::from(raw.offset) + u64::from(raw.len) <= u64::from(raw.capacity));
        let RawFrame { chunk, token, capacity, offset, len, queue, flags } = raw;
        Frame { chunk, token, capacity, offset, len, queue, flags, checksum: 0 }
    }

    /// Takes the token apart; the caller is now the owner of the chunk. For ports only.
    #[inline(always)]
    pub fn into_raw(self) -> RawFrame {
        let Frame { chunk, token, capacity, offset, len, queue, flags, checksum: _ } = self;
        #[cfg(debug_assertions)]
        std::mem::forget(self);
        RawFrame { chunk, token, capacity, offset, len, queue, flags }
    }

    /// What [`Frame::into_raw`] would say, for a port that does not know yet whether its device takes the frame.
    #[inline(always)]
    pub fn as_raw(&self) -> RawFrame {
        let Frame { chunk, token, capacity, offset, len, queue, flags, checksum: _ } = *self;
        RawFrame { chunk, token, capacity, offset, len, queue, flags }
    }

    /// The packet.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: offset + len <= capacity is kept by every method, and we own the chunk.
        unsafe {
            std::slice::from_raw_parts(self.chunk.as_ptr().add(self.offset as usize), self.len as usize)
        }
    }

    /// The packet, writable.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes the borrow exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.chunk.as_ptr().add(self.offset as usize), self.len as usize)
        }
    }

    /// The packet and the free bytes behind it, writable: where an answer longer than the question is built.
    #[inline(always)]
    pub fn room_mut(&mut self) -> &mut [u8] {
        let room = (self.capacity - self.offset) as usize;
        // SAFETY: the range runs from the packet's start to the chunk's end.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.as_ptr().add(self.offset as usize), room) }
    }

    /// Bytes of the packet in this frame.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes free before the packet.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        self.offset as usize
    }

    /// Bytes free behind the packet.
    #[inline(always)]
    pub fn tailroom(&self) -> usize {
        (self.capacity - self.offset - self.len) as usize
    }

    /// Makes the packet `len` bytes long, from the same start. False (and unchanged) when the chunk is too short.
    #[inline(always)]
    #[must_use]
    pub fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= (self.capacity - self.offset) as usize;
        if fits {
            self.len = len as u32;
        }
        fits
    }

    /// Moves the packet's start to `offset` and its length to `len`. False (and unchanged) when it does not fit.
    #[inline(always)]
    #[must_use]
    pub fn set_range(&mut self, offset: usize, len: usize) -> bool {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.capacity as usize);
        if fits {
            self.offset = offset as u32;
            self.len = len as u32;
        }
        fits
    }

    /// The queue the frame came from, or leaves on.
    #[inline(always)]
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Chooses the queue the frame leaves on.
    #[inline(always)]
    pub fn set_queue(&mut self, queue: u16) {
        self.queue = queue;
    }

    /// True when `flag` is set, see [`flag`].
    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// All flags, see [`flag`].
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Leaves the transport checksum to the device: sets [`flag::CHECKSUM_PARTIAL`] and notes that the transport header begins
    /// `start` bytes into the packet and that it is TCP's or UDP's. The field must hold the pseudo-header sum. False (and
    /// unchanged) when `start` is odd, 0 or above 254.
    #[must_use]
    pub fn set_partial_checksum(&mut self, start: usize, tcp: bool) -> bool {
        let fits = start.is_multiple_of(2) && (1..=254).contains(&start);
        if fits {
            self.checksum = (start / 2) as u8 | if tcp { 0x80 } else { 0 };
            self.flags |= flag::CHECKSUM_PARTIAL;
        }
        fits
    }

    /// What [`Frame::set_partial_checksum`] noted, for ports: where summing begins, and the checksum field's place after that.
    #[inline(always)]
    pub fn partial_checksum(&self) -> Option<(u8, u8)> {
        let start = (self.checksum & 0x7f) * 2;
        let field = if self.checksum & 0x80 != 0 { 16 } else { 6 };
        (self.has(flag::CHECKSUM_PARTIAL) && start != 0).then_some((start, field))
    }

    /// Replaces the flags.
    #[inline(always)]
    pub fn set_flags(&mut self, flags: u8) {
        self.flags = flags;
    }
}

#[cfg(debug_assertions)]
impl Drop for Frame {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("frame {:#x} was dropped outside its port: its chunk is lost", self.token);
        }
    }
}

#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Frame>() == 32, "a frame is half a cache line");
