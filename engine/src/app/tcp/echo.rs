//! The TCP echo (RFC 862): every byte goes back.

use super::PER_TURN;
use crate::app::{App, Ctx};
use crate::stream::{Peer, Shutdown, Stream, StreamError, StreamEvent};

/// Bytes copied from what is read to what is written, at a time.
const SCRATCH: usize = 16 << 10;

/// Sends back what it reads. A peer that does not read its echo is not read from: its window closes, and nothing piles up here.
pub struct TcpEcho {
    scratch: Box<[u8]>,
    /// By slot: the peer has closed, and the rest of its echo is still to be sent.
    closing: Vec<bool>,
}

impl Default for TcpEcho {
    fn default() -> Self {
        TcpEcho { scratch: vec![0; SCRATCH].into(), closing: Vec::new() }
    }
}

impl TcpEcho {
    /// Moves what can be moved. True when everything that has arrived is on its way back.
    fn pump(&mut self, stream: &mut Stream<'_>) -> Result<bool, StreamError> {
        let mut moved = 0;
        loop {
            let unread = stream.peek()?;
            let n = unread.len().min(self.scratch.len());
            if n == 0 {
                return Ok(true);
            }
            self.scratch[..n].copy_from_slice(&unread[..n]);
            let written = stream.write(&self.scratch[..n])?;
            stream.consume(written)?;
            if written < n {
                return Ok(false);
            }
            moved += n;
            if moved >= PER_TURN {
                stream.again()?;
                return Ok(false);
            }
        }
    }

    fn closing(&mut self, peer: Peer) -> &mut bool {
        if self.closing.len() <= peer.slot() {
            self.closing.resize((peer.slot() + 1).next_power_of_two(), false);
        }
        &mut self.closing[peer.slot()]
    }
}

impl App for TcpEcho {
    type Msg = ();

    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, ()>) {
        match event {
            StreamEvent::Opened => *self.closing(peer) = false,
            StreamEvent::Closed(_) => return,
            StreamEvent::PeerClosed => *self.closing(peer) = true,
            StreamEvent::Readable | StreamEvent::Writable => {}
        }
        let Ok(mut stream) = ctx.stream(peer) else { return };
        // An error means that the stream has ended, of which `Closed` tells.
        if let Ok(true) = self.pump(&mut stream)
            && *self.closing(peer)
        {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.close();
        }
    }
}
