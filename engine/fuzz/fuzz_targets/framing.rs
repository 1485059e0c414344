//! Framing: however a stream is cut, the messages are the same; nothing beyond the bound is stored; what is written is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use volley::stream::framing::{self, HEADER, Message, Reader, TooLong};

/// First byte: the bound. Second: how the rest is cut.
fn read(stream: &[u8], most: u32, piece: usize) -> (Vec<(u16, Vec<u8>)>, Result<(), TooLong>, usize) {
    let (mut reader, mut messages) = (Reader::new(most), Vec::new());
    for bytes in stream.chunks(piece) {
        let outcome = reader.feed(bytes, |Message { kind, body }| {
            assert!(body.len() <= most as usize);
            messages.push((kind, body.to_vec()));
        });
        assert!(reader.pending() < HEADER + most as usize || reader.pending() < HEADER);
        if outcome.is_err() {
            assert_eq!(reader.pending(), 0);
            return (messages, outcome, 0);
        }
    }
    let pending = reader.pending();
    (messages, Ok(()), pending)
}

fuzz_target!(|data: &[u8]| {
    let [most, piece, stream @ ..] = data else { return };
    let most = u32::from(*most) * 8;
    let whole = read(stream, most, stream.len().max(1));
    assert_eq!(read(stream, most, usize::from(*piece).max(1)), whole);
    assert_eq!(read(stream, most, 1), whole);
    let (messages, outcome, pending) = whole;
    let mut written = Vec::new();
    for (kind, body) in &messages {
        written.extend(framing::header(*kind, body.len()).expect("it was read"));
        written.extend(body);
    }
    assert!(stream.starts_with(&written));
    if outcome.is_ok() {
        assert_eq!(written.len() + pending, stream.len());
    }
});
