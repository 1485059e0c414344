//! The character generator (RFC 864): sends as fast as the peer reads.

use super::PER_TURN;
use crate::app::{App, Ctx};
use crate::stream::{Peer, StreamEvent};

/// Printable characters in a line, before CR and LF; each line begins one character later than the one before.
const LINE: usize = 72;
const FIRST: u8 = b' ';
const CHARACTERS: usize = 95;
/// After so many lines it begins anew.
const PATTERN: usize = CHARACTERS * (LINE + 2);

/// The byte at `position` of the stream.
fn byte(position: usize) -> u8 {
    let (line, column) = (position / (LINE + 2) % CHARACTERS, position % (LINE + 2));
    match column {
        LINE => b'\r',
        column if column > LINE => b'\n',
        column => FIRST + ((line + column) % CHARACTERS) as u8,
    }
}

/// Sends RFC 864's pattern until the peer closes; what it receives is discarded.
pub struct TcpChargen {
    /// The pattern, twice and more, so that a full pattern can be written from any place in it.
    pattern: Box<[u8]>,
    /// By slot: where in the pattern the stream is.
    position: Vec<usize>,
}

impl Default for TcpChargen {
    fn default() -> Self {
        TcpChargen { pattern: (0..4 * PATTERN).map(byte).collect(), position: Vec::new() }
    }
}

impl App for TcpChargen {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        let slot = peer.slot();
        if self.position.len() <= slot {
            self.position.resize((slot + 1).next_power_of_two(), 0);
        }
        if event == StreamEvent::Opened {
            self.position[slot] = 0;
        }
        let Ok(mut stream) = ctx.stream(peer) else { return };
        while let Ok(n @ 1..) = stream.peek().map(<[u8]>::len) {
            let _ = stream.consume(n);
        }
        if event == StreamEvent::PeerClosed {
            let _ = stream.close();
            return;
        }
        let mut sent = 0;
        while sent < PER_TURN {
            let from = self.position[slot];
            let piece = &self.pattern[from..from + 3 * PATTERN];
            let Ok(written) = stream.write(piece) else { return };
            self.position[slot] = (from + written) % PATTERN;
            sent += written;
            if written < piece.len() {
                return;
            }
        }
        let _ = stream.again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_the_rfcs() {
        let pattern = TcpChargen::default().pattern;
        let line = |n: usize| &pattern[n * (LINE + 2)..(n + 1) * (LINE + 2)];
        assert!(line(0).starts_with(b" !\"#$%&'()*+,-./0123456789") && line(0).ends_with(b"efg\r\n"));
        assert!(line(1).starts_with(b"!\"#") && line(1).ends_with(b"fgh\r\n"));
        assert_eq!(line(0), line(CHARACTERS));
    }
}
