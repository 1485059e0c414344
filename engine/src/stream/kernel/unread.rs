//! Received bytes that the app has not taken yet.
//!
//! Most apps take all they are shown, so one buffer serves every connection: a `recv` fills it, the app looks, and the next
//! `recv` fills it again. What is left when another connection needs the buffer moves to a chunk of that connection's own, out
//! of a bounded pool.

/// Bytes of the shared buffer and of a chunk: what one `recv` may take. Less means more calls for a bulk sender, more means more
/// memory for each connection whose app is behind.
pub const CHUNK: usize = 16 << 10;

/// A piece of memory with unread bytes in it.
struct Chunk {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Chunk {
    fn new() -> Chunk {
        Chunk { bytes: vec![0; CHUNK].into_boxed_slice(), start: 0, end: 0 }
    }
}

/// Where a connection's unread bytes are. Kept with the connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Place(Option<u32>);

/// The shared buffer and the pool of chunks.
pub struct Unread {
    /// The shared one, and which slot it holds bytes of.
    shared: Chunk,
    owner: Option<u32>,
    chunks: Vec<Chunk>,
    free: Vec<u32>,
    most: usize,
}

impl Unread {
    /// A pool of at most `most` chunks, made when first needed and kept.
    pub fn new(most: usize) -> Unread {
        Unread {
            shared: Chunk::new(),
            owner: None,
            chunks: Vec::with_capacity(most),
            free: Vec::with_capacity(most),
            most,
        }
    }

    /// What `slot` has unread here.
    pub fn bytes(&self, slot: u32, place: &Place) -> &[u8] {
        match place.0 {
            Some(index) => {
                let chunk = &self.chunks[index as usize];
                &chunk.bytes[chunk.start..chunk.end]
            }
            None if self.owner == Some(slot) => &self.shared.bytes[self.shared.start..self.shared.end],
            None => &[],
        }
    }

    /// Takes `n` bytes of `slot` as read.
    pub fn consume(&mut self, slot: u32, place: &mut Place, n: usize) {
        let chunk = match place.0 {
            Some(index) => &mut self.chunks[index as usize],
            None if self.owner == Some(slot) => &mut self.shared,
            None => return,
        };
        chunk.start = (chunk.start + n).min(chunk.end);
        if chunk.start == chunk.end {
            match place.0.take() {
                Some(index) => self.free.push(index),
                None => self.owner = None,
            }
        }
    }

    /// The slot whose bytes are in the shared buffer. Before another's come in, they must move: [`Unread::spill`].
    pub fn owner(&self) -> Option<u32> {
        self.owner
    }

    /// Moves the shared buffer's bytes to a chunk of their owner's, whose place this is. False when the pool is used up: they are
    /// lost then, and their connection with them.
    pub fn spill(&mut self, place: &mut Place) -> bool {
        self.owner = None;
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.chunks.len() < self.most => {
                self.chunks.push(Chunk::new());
                (self.chunks.len() - 1) as u32
            }
            None => return false,
        };
        std::mem::swap(&mut self.chunks[index as usize], &mut self.shared);
        place.0 = Some(index);
        true
    }

    /// The shared buffer, empty, to receive into. For [`Unread::received`].
    pub fn room(&mut self) -> &mut [u8] {
        debug_assert!(self.owner.is_none(), "somebody's bytes are in it");
        &mut self.shared.bytes
    }

    /// `n` bytes of `slot` are in the shared buffer now.
    pub fn received(&mut self, slot: u32, n: usize) {
        (self.shared.start, self.shared.end) = (0, n);
        self.owner = (n > 0).then_some(slot);
    }

    /// Forgets what `slot` has.
    pub fn forget(&mut self, slot: u32, place: &mut Place) {
        self.consume(slot, place, usize::MAX / 2);
    }

    /// Chunks in use.
    pub fn used(&self) -> usize {
        self.chunks.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(unread: &mut Unread, slot: u32, bytes: &[u8]) {
        unread.room()[..bytes.len()].copy_from_slice(bytes);
        unread.received(slot, bytes.len());
    }

    #[test]
    fn bytes_move_aside_and_come_out_in_order() {
        let mut unread = Unread::new(1);
        let (mut a, mut b) = (Place::default(), Place::default());
        receive(&mut unread, 7, b"hello");
        assert_eq!(unread.bytes(7, &a), b"hello");
        assert_eq!(unread.bytes(8, &b), b"");
        unread.consume(7, &mut a, 2);
        assert_eq!(unread.owner(), Some(7));
        assert!(unread.spill(&mut a));
        receive(&mut unread, 8, b"world");
        assert_eq!((unread.bytes(7, &a), unread.bytes(8, &b)), (&b"llo"[..], &b"world"[..]));
        assert!(!unread.spill(&mut b), "one chunk is all there is");
        unread.consume(7, &mut a, 3);
        assert_eq!((unread.bytes(7, &a), unread.used()), (&b""[..], 0));
        receive(&mut unread, 8, b"again");
        assert!(unread.spill(&mut b));
        unread.forget(8, &mut b);
        assert_eq!((unread.used(), unread.owner()), (0, None));
    }
}
