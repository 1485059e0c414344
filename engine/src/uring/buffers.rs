//! A ring of provided buffers: memory that receives take from when data is there, not before.
//!
//! ```text
//!   entry: address, length, number ──► the kernel takes them from the head, we add at the tail
//! ```
//!
//! Whose memory it is, and what a number means, its owner knows.

use super::{Ring, UringError, refused};
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The kernel wants the ring to begin a page.
const PAGE: usize = 4096;

/// The ring. The owner gives it no more buffers than it has places.
pub(crate) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    count: u16,
    tail: u16,
    published: u16,
    group: u16,
    /// The kernel knows it.
    registered: bool,
}

// SAFETY: the entries are our own allocation.
unsafe impl Send for BufferRing {}

impl BufferRing {
    /// A registered ring of `count` places (a power of two), all empty, as `group`.
    pub fn new(ring: &Ring, count: u16, group: u16) -> Result<BufferRing, UringError> {
        debug_assert!(count.is_power_of_two());
        let layout = layout(count);
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        let mut buffers =
            BufferRing { entries: memory.cast(), count, tail: 0, published: 0, group, registered: false };
        // SAFETY: page-aligned, zeroed, of that many entries; freed only once it is unregistered.
        unsafe {
            ring.ring.submitter().register_buf_ring_with_flags(memory.as_ptr() as u64, count, group, 0)
        }
        .map_err(refused("registering the buffer ring"))?;
        buffers.registered = true;
        Ok(buffers)
    }

    /// Adds a buffer under a number. The kernel sees it with the next [`BufferRing::publish`].
    ///
    /// # Safety
    /// The memory is valid for writes of `len` bytes, and nobody else's, until a completion names the number, or the ring is
    /// unregistered with no receive under way.
    #[inline]
    pub unsafe fn put(&mut self, start: *mut u8, len: u32, number: u16) {
        // SAFETY: the index is below `count`; the kernel reads an entry only after the tail has passed it.
        unsafe {
            let entry = self.entries.add(usize::from(self.tail & (self.count - 1))).as_mut();
            entry.set_addr(start as u64);
            entry.set_len(len);
            entry.set_bid(number);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel have what was added.
    #[inline]
    pub fn publish(&mut self) {
        if self.tail != self.published {
            // SAFETY: the tail is a field of the first entry, aligned, written by nobody else, read atomically by the kernel.
            let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
            tail.store(self.tail, Ordering::Release);
            self.published = self.tail;
        }
    }

    /// Takes it from the kernel, with every buffer in it. Only when no receive is under way.
    pub fn unregister(&mut self, ring: &Ring) {
        // It fails only when there is no such group.
        let _ = ring.ring.submitter().unregister_buf_ring(self.group);
        self.registered = false;
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // What the kernel may still look into is leaked.
        if !self.registered {
            // SAFETY: allocated with this layout; the kernel has let go of it, or never knew it.
            unsafe { dealloc(self.entries.as_ptr().cast(), layout(self.count)) };
        }
    }
}

fn layout(count: u16) -> Layout {
    let bytes = usize::from(count) * size_of::<BufRingEntry>();
    Layout::from_size_align(bytes, PAGE).expect("a few pages")
}
