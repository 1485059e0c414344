//! The pool: chunks of one size, taken and given back in constant time.

/// Bytes of a chunk. Small, since a game message is small and holds at least one; large enough that a full segment takes
/// three. Doubling it doubles what 100,000 short messages occupy; halving it makes a segment six copies.
pub(crate) const CHUNK: usize = 512;
/// No chunk.
pub(crate) const NIL: u32 = u32::MAX;

/// What the pool knows of a chunk.
#[derive(Clone, Copy)]
pub(crate) struct Meta {
    /// The chunk after this one in its queue, or in the free list.
    pub next: u32,
    /// First byte in use.
    pub start: u16,
    /// Byte after the last in use.
    pub end: u16,
}

/// The chunks.
pub(crate) struct Pool {
    data: Box<[u8]>,
    meta: Vec<Meta>,
    free: u32,
    total: u32,
    used: u32,
    /// Chunks promised to data that still stands in frames of the burst.
    reserved: u32,
}

impl Pool {
    pub(crate) fn new(bytes: usize) -> Pool {
        let total = (bytes / CHUNK).clamp(8, NIL as usize - 1);
        // Zeroed memory of this size comes untouched from the system: pages are paid for when they are used first, and the
        // free list below hands out used chunks before fresh ones.
        let data = vec![0; total * CHUNK].into_boxed_slice();
        Pool { data, meta: Vec::with_capacity(total), free: NIL, total: total as u32, used: 0, reserved: 0 }
    }

    /// Chunks that may be taken beyond what is reserved.
    #[inline]
    pub(crate) fn available(&self) -> u32 {
        (self.total - self.used).saturating_sub(self.reserved)
    }

    /// Chunks in use.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Chunks there are.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// Promises chunks for `bytes`. False when there are not so many.
    #[inline]
    pub(crate) fn reserve(&mut self, bytes: u32) -> bool {
        let chunks = bytes.div_ceil(CHUNK as u32);
        let ok = self.available() >= chunks;
        if ok {
            self.reserved += chunks;
        }
        ok
    }

    /// Takes back a promise for `bytes`.
    #[inline]
    pub(crate) fn unreserve(&mut self, bytes: u32) {
        self.reserved = self.reserved.saturating_sub(bytes.div_ceil(CHUNK as u32));
    }

    /// An empty chunk. `None` when all are in use.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<u32> {
        let empty = Meta { next: NIL, start: 0, end: 0 };
        let chunk = if self.free != NIL {
            let chunk = self.free;
            self.free = self.meta[chunk as usize].next;
            self.meta[chunk as usize] = empty;
            chunk
        } else if self.meta.len() < self.total as usize {
            self.meta.push(empty);
            self.meta.len() as u32 - 1
        } else {
            return None;
        };
        self.used += 1;
        Some(chunk)
    }

    /// Gives a chunk back.
    #[inline]
    pub(crate) fn give(&mut self, chunk: u32) {
        self.meta[chunk as usize].next = self.free;
        self.free = chunk;
        self.used -= 1;
    }

    /// Reads what is known of a chunk, so that it is near when it is needed; the value means nothing.
    #[inline]
    pub(crate) fn touch(&self, chunk: u32) -> u32 {
        self.meta.get(chunk as usize).map_or(0, |meta| meta.next)
    }

    #[inline]
    pub(crate) fn meta(&self, chunk: u32) -> &Meta {
        &self.meta[chunk as usize]
    }

    #[inline]
    pub(crate) fn meta_mut(&mut self, chunk: u32) -> &mut Meta {
        &mut self.meta[chunk as usize]
    }

    /// The bytes of a chunk that are in use.
    #[inline]
    pub(crate) fn bytes(&self, chunk: u32) -> &[u8] {
        let Meta { start, end, .. } = self.meta[chunk as usize];
        &self.data[chunk as usize * CHUNK..][usize::from(start)..usize::from(end)]
    }

    /// All bytes of a chunk.
    #[inline]
    pub(crate) fn whole(&self, chunk: u32) -> &[u8] {
        &self.data[chunk as usize * CHUNK..][..CHUNK]
    }

    #[inline]
    pub(crate) fn whole_mut(&mut self, chunk: u32) -> &mut [u8] {
        &mut self.data[chunk as usize * CHUNK..][..CHUNK]
    }

    /// Bytes the pool can hold, and of its tables.
    pub(crate) fn memory(&self) -> usize {
        self.data.len() + self.meta.capacity() * size_of::<Meta>()
    }
}
