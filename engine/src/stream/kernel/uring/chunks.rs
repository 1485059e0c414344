//! Memory of one size, in a bounded pool, and chains of it: what a connection has received, and what it is to send.

use super::super::unread::CHUNK;

/// The end of a chain.
const NONE: u16 = u16::MAX;
/// Chunks have numbers of 16 bits (a provided buffer has), and one of them means none.
const MOST: usize = NONE as usize;

/// A piece of memory with bytes in it.
struct Chunk {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    next: u16,
}

/// A pool of at most so many chunks, made when first needed and kept. Where a chunk is does not change.
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
    free: Vec<u16>,
    most: usize,
}

/// A queue of chunks, the oldest first. Kept with the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chain {
    head: u16,
    tail: u16,
    len: u16,
}

impl Default for Chain {
    fn default() -> Self {
        Chain { head: NONE, tail: NONE, len: 0 }
    }
}

impl Chain {
    /// Chunks in it.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Chunks {
    pub fn new(most: usize) -> Chunks {
        let most = most.min(MOST);
        Chunks { chunks: Vec::with_capacity(most), free: Vec::with_capacity(most), most }
    }

    /// Takes an empty chunk.
    pub fn take(&mut self) -> Option<u16> {
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.chunks.len() < self.most => {
                let bytes = vec![0; CHUNK].into_boxed_slice();
                self.chunks.push(Chunk { bytes, start: 0, end: 0, next: NONE });
                (self.chunks.len() - 1) as u16
            }
            None => return None,
        };
        let chunk = &mut self.chunks[usize::from(number)];
        (chunk.start, chunk.end, chunk.next) = (0, 0, NONE);
        Some(number)
    }

    /// Frees a chunk that is in no chain.
    pub fn give(&mut self, number: u16) {
        debug_assert!(!self.free.contains(&number), "freed twice");
        self.free.push(number);
    }

    /// Chunks taken.
    pub fn used(&self) -> usize {
        self.chunks.len() - self.free.len()
    }

    /// Where a chunk's memory begins: [`CHUNK`] bytes.
    pub fn memory(&mut self, number: u16) -> *mut u8 {
        self.chunks[usize::from(number)].bytes.as_mut_ptr()
    }

    /// `len` bytes have been written to a chunk.
    pub fn filled(&mut self, number: u16, len: usize) {
        self.chunks[usize::from(number)].end = len.min(CHUNK);
    }

    /// Adds a chunk to the end of a chain.
    pub fn append(&mut self, chain: &mut Chain, number: u16) {
        match chain.tail {
            NONE => chain.head = number,
            tail => self.chunks[usize::from(tail)].next = number,
        }
        chain.tail = number;
        chain.len += 1;
    }

    /// Copies what fits of `bytes` behind the last bytes of a chain's last chunk; returns how many did.
    pub fn write(&mut self, chain: &Chain, bytes: &[u8]) -> usize {
        let Some(chunk) = self.chunks.get_mut(usize::from(chain.tail)) else { return 0 };
        let n = bytes.len().min(CHUNK - chunk.end);
        chunk.bytes[chunk.end..chunk.end + n].copy_from_slice(&bytes[..n]);
        chunk.end += n;
        n
    }

    /// The bytes of a chain's first chunk.
    pub fn first(&self, chain: &Chain) -> &[u8] {
        match self.chunks.get(usize::from(chain.head)) {
            Some(chunk) => &chunk.bytes[chunk.start..chunk.end],
            None => &[],
        }
    }

    /// Takes the first `n` bytes of a chain's first chunk out, and frees the chunk when it is empty then. True in that case.
    pub fn consume(&mut self, chain: &mut Chain, n: usize) -> bool {
        let Some(chunk) = self.chunks.get_mut(usize::from(chain.head)) else { return false };
        chunk.start = (chunk.start + n).min(chunk.end);
        if chunk.start < chunk.end {
            return false;
        }
        let number = std::mem::replace(&mut chain.head, chunk.next);
        chain.len -= 1;
        if chain.head == NONE {
            chain.tail = NONE;
        }
        self.give(number);
        true
    }

    /// Frees a whole chain.
    pub fn clear(&mut self, chain: &mut Chain) {
        while self.consume(chain, usize::MAX / 2) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_in_which_they_went_in() {
        let mut chunks = Chunks::new(3);
        let (mut a, mut b) = (Chain::default(), Chain::default());
        let put = |chunks: &mut Chunks, chain: &mut Chain, text: &[u8]| {
            let number = chunks.take().unwrap();
            chunks.append(chain, number);
            assert_eq!(chunks.write(chain, text), text.len());
        };
        put(&mut chunks, &mut a, b"hello");
        put(&mut chunks, &mut b, b"world");
        put(&mut chunks, &mut a, b" there");
        assert_eq!((chunks.take(), chunks.used(), a.len()), (None, 3, 2));
        assert_eq!(chunks.write(&a, b"!"), 1);
        assert_eq!(chunks.first(&a), b"hello");
        assert!(!chunks.consume(&mut a, 4) && chunks.consume(&mut a, 1));
        assert_eq!((chunks.first(&a), chunks.first(&b)), (&b" there!"[..], &b"world"[..]));
        chunks.clear(&mut a);
        assert_eq!((a, chunks.used()), (Chain::default(), 1));
        chunks.clear(&mut b);
        assert!(!chunks.consume(&mut b, 1) && chunks.first(&b).is_empty() && chunks.used() == 0);
    }

    #[test]
    fn a_chunk_has_an_end() {
        let mut chunks = Chunks::new(1);
        let mut chain = Chain::default();
        assert_eq!(chunks.write(&chain, b"nowhere"), 0);
        let number = chunks.take().unwrap();
        chunks.append(&mut chain, number);
        assert_eq!(chunks.write(&chain, &vec![1; CHUNK + 5]), CHUNK);
        assert_eq!(chunks.write(&chain, b"more"), 0);
        assert_eq!(chunks.first(&chain).len(), CHUNK);
    }
}
