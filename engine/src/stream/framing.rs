//! Messages on a stream: a byte layer, the same over every kind of stream port.
//!
//! ```text
//!   0               4       6
//!  ┌───────────────┬───────┬──────────────── ─ ─ ─
//!  │ length u32 LE │ type  │ body, `length` bytes
//!  └───────────────┴u16 LE─┴──────────────── ─ ─ ─
//! ```
//!
//! `length` counts the body alone, and may be 0. A receiver has a bound; a longer announcement is an error before a byte of its
//! body is stored, after which the stream is of no more use. What the types mean is the app's business.

/// Bytes before the body.
pub const HEADER: usize = 6;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'b> {
    /// What it is; the app's numbers.
    pub kind: u16,
    /// What it says.
    pub body: &'b [u8],
}

/// The peer announced a message that is longer than we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {announced} bytes was announced; at most {most} are taken here")]
pub struct TooLong {
    /// What was announced, in bytes.
    pub announced: u32,
    /// What is taken, in bytes.
    pub most: u32,
}

/// The header of a message; `None` when the body is too long to be announced.
pub fn header(kind: u16, body_len: usize) -> Option<[u8; HEADER]> {
    let [a, b, c, d] = u32::try_from(body_len).ok()?.to_le_bytes();
    let [e, f] = kind.to_le_bytes();
    Some([a, b, c, d, e, f])
}

/// The first message in `bytes`, and how many bytes it takes there; `None` when it is not whole yet.
///
/// # Errors
/// [`TooLong`], as soon as the length is there.
pub fn first(bytes: &[u8], most: u32) -> Result<Option<(Message<'_>, usize)>, TooLong> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let announced = u32::from_le_bytes(*length);
    if announced > most {
        return Err(TooLong { announced, most });
    }
    let Some((kind, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
    let message = rest
        .get(..announced as usize)
        .map(|body| (Message { kind: u16::from_le_bytes(*kind), body }, HEADER + announced as usize));
    Ok(message)
}

/// Finds the messages in one stream's bytes, however they were cut. What is whole in the bytes at hand is borrowed from them;
/// only the piece of a message that is not whole yet is copied.
#[derive(Debug, Default)]
pub struct Reader {
    most: u32,
    partial: Vec<u8>,
    failed: Option<TooLong>,
}

impl Reader {
    /// A reader that takes bodies of at most `most` bytes. It allocates, at most header and body of one message, only for
    /// messages that arrive in pieces, and keeps that memory.
    pub fn new(most: u32) -> Reader {
        Reader { most, partial: Vec::new(), failed: None }
    }

    /// Takes the stream's next bytes, all of them, and gives out every message that has become whole.
    ///
    /// # Errors
    /// [`TooLong`]; from then on always: there is no way to find the next message.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Message<'_>)) -> Result<(), TooLong> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        while !self.partial.is_empty() && !bytes.is_empty() {
            // First to the end of the header, then, knowing the length, to the end of the message.
            let whole = match self.partial.first_chunk::<4>() {
                Some(length) if self.partial.len() >= HEADER => {
                    HEADER + u32::from_le_bytes(*length) as usize
                }
                _ => HEADER,
            };
            let n = (whole - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            match first(&self.partial, self.most) {
                Ok(Some((message, _))) => {
                    each(message);
                    self.partial.clear();
                }
                Ok(None) => {}
                Err(failed) => return self.fail(failed),
            }
        }
        loop {
            match first(bytes, self.most) {
                Ok(Some((message, taken))) => {
                    each(message);
                    bytes = &bytes[taken..];
                }
                Ok(None) => break,
                Err(failed) => return self.fail(failed),
            }
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn fail(&mut self, failed: TooLong) -> Result<(), TooLong> {
        self.partial = Vec::new();
        self.failed = Some(failed);
        Err(failed)
    }

    /// Bytes of a message that is not whole yet.
    pub fn pending(&self) -> usize {
        self.partial.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The wire, for who implements it elsewhere.
    const GOLDEN: [(u16, &[u8], &[u8]); 4] = [
        (0, b"", &[0, 0, 0, 0, 0, 0]),
        (1, b"hello", b"\x05\0\0\0\x01\0hello"),
        (0x0203, b"\0", &[1, 0, 0, 0, 3, 2, 0]),
        (0xffff, &[0xee; 258], &{
            let mut wire = [0xee; 264];
            (wire[0], wire[1], wire[2], wire[3], wire[4], wire[5]) = (2, 1, 0, 0, 0xff, 0xff);
            wire
        }),
    ];

    fn wire(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let one = |(kind, body): &(u16, Vec<u8>)| [&header(*kind, body.len()).unwrap()[..], body].concat();
        messages.iter().flat_map(one).collect()
    }

    fn read(reader: &mut Reader, bytes: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, TooLong> {
        let mut messages = Vec::new();
        reader.feed(bytes, |message| messages.push((message.kind, message.body.to_vec())))?;
        Ok(messages)
    }

    #[test]
    fn golden_vectors() {
        for (kind, body, wire) in GOLDEN {
            assert_eq!([&header(kind, body.len()).unwrap()[..], body].concat(), wire);
            assert_eq!(first(wire, 1000), Ok(Some((Message { kind, body }, wire.len()))));
            for cut in 0..wire.len() {
                assert_eq!(first(&wire[..cut], 1000), Ok(None), "{cut}");
            }
        }
    }

    #[test]
    fn too_long_is_known_from_the_length_alone_and_final() {
        let mut reader = Reader::new(10);
        let failed = TooLong { announced: 11, most: 10 };
        assert_eq!(read(&mut reader, &[10, 0, 0, 0, 1, 0]), Ok(vec![]));
        assert_eq!(read(&mut reader, &[7; 10]), Ok(vec![(1, vec![7; 10])]));
        assert_eq!(read(&mut reader, &[11, 0]), Ok(vec![]));
        assert_eq!(read(&mut reader, &[0, 0]), Err(failed));
        assert_eq!(read(&mut reader, &[0, 0, 0, 0, 0, 0]), Err(failed));
        assert_eq!(reader.pending(), 0);
        assert_eq!(first(&u32::MAX.to_le_bytes(), u32::MAX - 1).unwrap_err().announced, u32::MAX);
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_messages_are_the_same(
            messages in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let wire = wire(&messages);
            let (mut reader, mut rest, mut got) = (Reader::new(40), &wire[..], Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                got.extend(read(&mut reader, piece).unwrap());
                rest = after;
            }
            prop_assert_eq!(got, messages);
            prop_assert_eq!(reader.pending(), 0);
        }
    }
}
