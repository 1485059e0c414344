//! The chunks of a UMEM: the free ones, and the tokens for those that are out.

use super::umem::Umem;
use crate::frame::{Frame, Owner, Ownership, RawFrame};
use std::mem::ManuallyDrop;

/// The free list, shared by all queues of a port. Last in, first out: the chunk sent last is the one whose lines are still
/// in the cache. It holds every chunk at most once, so it never grows.
pub(super) struct Chunks {
    umem: ManuallyDrop<Umem>,
    free: Vec<u64>,
    /// Tokens outside the port.
    app: u64,
    chunk: u32,
    shift: u32,
    /// Where the packet of an empty frame begins: where a received one would.
    offset: u32,
    total: u32,
    ownership: Ownership,
}

impl Chunks {
    /// All chunks of `umem`, free. `chunk` is a power of two; `offset` bytes are kept before a packet.
    pub fn new(umem: Umem, chunk: u32, offset: u32) -> Chunks {
        let total = (umem.bytes() / chunk as usize) as u32;
        Chunks {
            umem: ManuallyDrop::new(umem),
            // The first to be taken is the one at address 0.
            free: (0..total).rev().map(|index| u64::from(index) * u64::from(chunk)).collect(),
            app: 0,
            chunk,
            shift: chunk.trailing_zeros(),
            offset,
            total,
            ownership: Ownership::new(total as usize),
        }
    }

    #[inline(always)]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    pub fn app(&self) -> u64 {
        self.app
    }

    pub fn total(&self) -> u32 {
        self.total
    }

    pub fn is_huge(&self) -> bool {
        self.umem.is_huge()
    }

    #[inline(always)]
    fn move_to(&mut self, base: u64, from: Owner, to: Owner) {
        self.ownership.transfer((base >> self.shift) as usize, from, to);
    }

    #[inline(always)]
    fn base(&self, addr: u64) -> u64 {
        addr & !u64::from(self.chunk - 1)
    }

    /// A free chunk to post for receive.
    #[inline(always)]
    pub fn post(&mut self) -> Option<u64> {
        let base = self.free.pop()?;
        self.move_to(base, Owner::Free, Owner::KernelRx);
        Some(base)
    }

    /// A free chunk as an empty frame for `queue`.
    #[inline(always)]
    pub fn take(&mut self, queue: u16) -> Option<Frame> {
        let base = self.free.pop()?;
        self.move_to(base, Owner::Free, Owner::App);
        self.app += 1;
        Some(self.frame(base, self.offset, 0, queue, 0))
    }

    /// The token for a packet the kernel put at `addr`.
    #[inline(always)]
    pub fn receive(&mut self, addr: u64, len: u32, queue: u16, flags: u8) -> Frame {
        let base = self.base(addr);
        self.move_to(base, Owner::KernelRx, Owner::App);
        self.app += 1;
        self.frame(base, (addr - base) as u32, len, queue, flags)
    }

    #[inline(always)]
    fn frame(&self, base: u64, offset: u32, len: u32, queue: u16, flags: u8) -> Frame {
        debug_assert!(base < self.umem.bytes() as u64, "address {base:#x} is outside the UMEM");
        // SAFETY: the chunk lies in the UMEM, which stays mapped while a token is out (see `Drop`); it came off the free list or
        // out of a receive ring, so neither the kernel nor another token has it. The kernel writes packets within a chunk.
        let frame = unsafe {
            let chunk = self.umem.memory().add(base as usize);
            Frame::from_raw(RawFrame {
                chunk,
                token: base,
                capacity: self.chunk,
                offset,
                len,
                queue,
                flags,
            })
        };
        prefetch(&frame);
        frame
    }

    /// A chunk the kernel received into, and that goes straight back to the free list.
    #[inline(always)]
    pub fn recycle(&mut self, addr: u64) {
        let base = self.base(addr);
        self.move_to(base, Owner::KernelRx, Owner::Free);
        self.free.push(base);
    }

    /// A token handed over for transmit.
    #[inline(always)]
    pub fn submit(&mut self, frame: Frame) -> RawFrame {
        let raw = frame.into_raw();
        self.move_to(raw.token, Owner::App, Owner::KernelTx);
        self.app -= 1;
        raw
    }

    /// A chunk the kernel has sent from.
    #[inline(always)]
    pub fn complete(&mut self, addr: u64) {
        let base = self.base(addr);
        self.move_to(base, Owner::KernelTx, Owner::Free);
        self.free.push(base);
    }

    /// A token handed back.
    #[inline(always)]
    pub fn give(&mut self, frame: Frame) {
        let raw = frame.into_raw();
        let ours = raw.chunk.as_ptr() == self.umem.memory().as_ptr().wrapping_add(raw.token as usize);
        debug_assert!(ours, "frame {:#x} was given back to a port it does not come from", raw.token);
        self.move_to(raw.token, Owner::App, Owner::Free);
        self.app -= 1;
        self.free.push(raw.token);
    }

    /// What the kernel is told to use: address and bytes.
    pub fn region(&self) -> (*mut u8, usize) {
        (self.umem.memory().as_ptr(), self.umem.bytes())
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        // With tokens still out the memory stays mapped for ever rather than vanish under them.
        if self.app == 0 {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.umem) };
        }
    }
}

/// Fetches the packet's first line: another core or the device wrote it, and the net layer reads it a burst later.
#[inline(always)]
fn prefetch(frame: &Frame) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect but on the cache.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(frame.bytes().as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = frame;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(count: usize) -> Chunks {
        Chunks::new(Umem::new(count * 2048, false, None).unwrap(), 2048, 256)
    }

    #[test]
    fn a_chunk_goes_round_and_is_found_by_any_address_inside() {
        let mut chunks = chunks(4);
        let base = chunks.post().unwrap();
        let frame = chunks.receive(base + 256, 60, 3, 0);
        assert_eq!((frame.len(), frame.headroom(), frame.queue(), chunks.app()), (60, 256, 3, 1));
        let raw = chunks.submit(frame);
        assert_eq!((raw.token, raw.offset), (base, 256));
        chunks.complete(raw.token + u64::from(raw.offset));
        assert_eq!((chunks.free(), chunks.app()), (4, 0));
        assert_eq!(chunks.post(), Some(base), "the warmest chunk is used next");
        chunks.recycle(base + 300);
        assert_eq!(chunks.free(), 4);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "moves from KernelTx to Free, but Free owns it")]
    fn a_chunk_completed_twice_is_noticed() {
        let mut chunks = chunks(1);
        let frame = chunks.take(0).unwrap();
        let raw = chunks.submit(frame);
        chunks.complete(raw.token);
        chunks.complete(raw.token);
    }

    #[test]
    fn memory_outlives_a_frame_that_is_out() {
        let mut chunks = chunks(1);
        let mut frame = chunks.take(0).unwrap();
        drop(chunks);
        assert!(frame.set_len(1024));
        frame.bytes_mut().fill(5);
        assert_eq!(frame.bytes()[1023], 5);
        let _ = frame.into_raw();
    }
}
