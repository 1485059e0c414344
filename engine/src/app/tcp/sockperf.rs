//! What sockperf's client wants of a server: each of its messages back, marked as an answer.
//!
//! ```text
//!   0               8       10              14
//!  │ sequence       │ flags │ length        │ … up to `length` bytes, header included
//!   u64 BE           u16 BE  u32 BE
//!                    1: from a client · 2: wants an answer · 4: warm-up
//! ```
//!
//! A plain echo does not do: sockperf (3.7, `src/message.h`) passes over what is still marked as a client's.

use crate::app::{App, Ctx};
use crate::stream::{Peer, Stream, StreamError, StreamEvent};

const HEADER: usize = 14;
const FROM_CLIENT: u8 = 1;
const WANTS_ANSWER: u8 = 2;
/// Longest message taken: sockperf's own limit for TCP is below it.
const LONGEST: usize = 1 << 17;

#[derive(Clone, Default)]
struct Connection {
    /// The message under way: received so far, or, when it is whole, sent so far.
    message: Vec<u8>,
    sent: usize,
}

/// Answers sockperf's ping-pong and under-load clients over TCP.
#[derive(Default)]
pub struct TcpSockperf {
    /// By slot.
    connections: Vec<Connection>,
}

impl Connection {
    /// Bytes of the message, as far as they are known.
    fn wanted(&self) -> Option<usize> {
        let Some(length) = self.message.get(10..HEADER) else { return Some(HEADER) };
        let length = length.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        (HEADER..=LONGEST).contains(&length).then_some(length)
    }

    /// Takes in and answers what there is. False when it is not sockperf that speaks.
    fn pump(&mut self, stream: &mut Stream<'_>) -> Result<bool, StreamError> {
        loop {
            let Some(wanted) = self.wanted() else { return Ok(false) };
            if self.message.len() >= HEADER && self.message.len() == wanted {
                if self.message[9] & WANTS_ANSWER != 0 {
                    self.message[9] &= !FROM_CLIENT;
                    self.sent += stream.write(&self.message[self.sent..])?;
                    if self.sent < wanted {
                        return Ok(true);
                    }
                }
                self.message.clear();
                self.sent = 0;
                continue;
            }
            let unread = stream.peek()?;
            let n = unread.len().min(wanted - self.message.len());
            if n == 0 {
                return Ok(true);
            }
            self.message.extend_from_slice(&unread[..n]);
            stream.consume(n)?;
        }
    }
}

impl App for TcpSockperf {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        let slot = peer.slot();
        if self.connections.len() <= slot {
            self.connections.resize((slot + 1).next_power_of_two(), Connection::default());
        }
        let connection = &mut self.connections[slot];
        if event == StreamEvent::Opened {
            connection.message.clear();
            connection.sent = 0;
        }
        let Ok(mut stream) = ctx.stream(peer) else { return };
        // An error means that the stream has ended, of which `Closed` tells.
        let _ = match connection.pump(&mut stream) {
            Ok(false) => stream.abort(),
            _ if event == StreamEvent::PeerClosed => stream.close(),
            _ => Ok(()),
        };
    }
}
