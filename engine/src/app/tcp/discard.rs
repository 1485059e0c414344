//! The TCP sink (RFC 863): everything is read, nothing answered.

use super::PER_TURN;
use crate::app::{App, Ctx};
use crate::stream::{Peer, StreamEvent};

/// Reads and forgets.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDiscard;

impl App for TcpDiscard {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        let Ok(mut stream) = ctx.stream(peer) else { return };
        let mut read = 0;
        // After the peer's end there is no more than the buffers hold, and no other event to stop at.
        let last = event == StreamEvent::PeerClosed;
        while read < PER_TURN || last {
            match stream.peek().map(<[u8]>::len) {
                Ok(n) if n > 0 => {
                    let _ = stream.consume(n);
                    read += n;
                }
                _ => break,
            }
        }
        let _ = match last {
            true => stream.close(),
            false if read >= PER_TURN => stream.again(),
            false => Ok(()),
        };
    }
}
