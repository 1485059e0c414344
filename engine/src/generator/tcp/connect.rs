//! Connect, one message there and back, close, and again.

use super::opening::OPENED_PER_TURN;
use super::pattern::Pattern;
use super::tally::Tally;
use super::{Client, Load};
use crate::generator::link::monotonic_ns;
use crate::stream::{CloseReason, StreamError, StreamEvent, StreamId, StreamPort};

#[derive(Clone, Copy, Default)]
struct Connection {
    id: Option<StreamId>,
    /// The whole message is back, and we have closed.
    closing: bool,
    begun_ns: u64,
    sent: usize,
    received: usize,
}

/// The client.
pub(super) struct Connect {
    load: Load,
    pattern: Pattern,
    /// By slot.
    connections: Vec<Connection>,
    /// Connections begun: the next one's address, and the place of its message in the pattern.
    begun: u64,
    active: u32,
    finishing: bool,
}

impl Connect {
    pub(super) fn new(load: &Load) -> Connect {
        Connect {
            load: load.clone(),
            pattern: Pattern::default(),
            connections: vec![Connection::default(); load.slots() as usize],
            begun: 0,
            active: 0,
            finishing: false,
        }
    }

    fn give(&mut self, streams: &mut dyn StreamPort, id: StreamId, tally: &mut Tally) {
        let connection = &mut self.connections[id.slot as usize];
        let rest = self.load.size - connection.sent;
        if rest > 0 {
            let piece = self.pattern.at(connection.begun_ns + connection.sent as u64, rest);
            let written = streams.write(id, piece).unwrap_or(0);
            connection.sent += written;
            tally.counts.bytes_sent += written as u64;
        }
    }

    fn take(&mut self, streams: &mut dyn StreamPort, id: StreamId, tally: &mut Tally) {
        let connection = &mut self.connections[id.slot as usize];
        while let Ok(bytes) = streams.peek(id) {
            let n = bytes.len();
            if n == 0 {
                break;
            }
            // Each connection has a place of its own in the pattern: the time it was begun.
            let place = connection.begun_ns + connection.received as u64;
            if connection.received + n > self.load.size || !self.pattern.is(place, bytes) {
                tally.counts.corrupted += 1;
            }
            connection.received += n;
            tally.counts.bytes_received += n as u64;
            if streams.consume(id, n).is_err() {
                break;
            }
        }
        if connection.received >= self.load.size && !connection.closing {
            connection.closing = true;
            tally.counts.messages += 1;
            tally.times.record(monotonic_ns().saturating_sub(connection.begun_ns));
            let _ = streams.close(id);
        }
    }
}

impl Client for Connect {
    fn event(&mut self, streams: &mut dyn StreamPort, id: StreamId, event: StreamEvent, tally: &mut Tally) {
        let connection = &mut self.connections[id.slot as usize];
        if connection.id != Some(id) {
            return;
        }
        match event {
            StreamEvent::Opened => {
                tally.counts.opened += 1;
                self.give(streams, id, tally);
            }
            StreamEvent::Readable => self.take(streams, id, tally),
            StreamEvent::Writable => self.give(streams, id, tally),
            StreamEvent::PeerClosed => {
                self.take(streams, id, tally);
                let _ = streams.close(id);
            }
            StreamEvent::Closed(reason) => {
                match (connection.closing, reason) {
                    (true, CloseReason::Finished) => tally.counts.closed += 1,
                    _ => tally.fail(reason),
                }
                connection.id = None;
                self.active -= 1;
            }
        }
    }

    fn turn(&mut self, streams: &mut dyn StreamPort, tally: &mut Tally) {
        for _ in 0..OPENED_PER_TURN {
            if self.active == self.load.connections || self.finishing {
                return;
            }
            match streams.connect(self.load.local(self.begun), self.load.target) {
                Ok(id) => {
                    let begun_ns = monotonic_ns();
                    self.connections[id.slot as usize] =
                        Connection { id: Some(id), begun_ns, ..Connection::default() };
                    self.active += 1;
                }
                // Ports and slots come back when what holds them has ended.
                Err(StreamError::NoPort | StreamError::Full) => {
                    tally.counts.no_port += 1;
                    self.begun += 1;
                    return;
                }
                Err(_) => tally.fail(CloseReason::Unreachable),
            }
            self.begun += 1;
        }
    }

    fn is_open(&self) -> bool {
        true
    }

    fn finish(&mut self, _: &mut dyn StreamPort) {
        self.finishing = true;
    }

    fn is_done(&self) -> bool {
        self.finishing && self.active == 0
    }

    fn unanswered(&self) -> u64 {
        let waits = |connection: &&Connection| connection.id.is_some() && !connection.closing;
        self.connections.iter().filter(waits).count() as u64
    }
}
