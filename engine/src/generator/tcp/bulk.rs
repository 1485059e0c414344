//! As many bytes as go one way: to a discard service, or from a character generator.

use super::opening::Opening;
use super::pattern::{LONGEST, Pattern};
use super::tally::Tally;
use super::{Client, Exchange, Load};
use crate::stream::{Shutdown, StreamEvent, StreamId, StreamPort};

/// Bytes one connection moves before the others and the port get their turn.
const PER_TURN: usize = 256 << 10;

#[derive(Clone, Copy, Default)]
struct Connection {
    id: Option<StreamId>,
    open: bool,
    /// It took all it was given in this turn: there is room for more.
    ready: bool,
    /// Its share is done; what is left is to end.
    closing: bool,
    moved: u64,
}

/// The client.
pub(super) struct Bulk {
    load: Load,
    pattern: Pattern,
    /// Bytes of each connection.
    share: u64,
    /// By slot.
    connections: Vec<Connection>,
    opening: Opening,
    /// All connections are there: what is moved is timed from then on.
    begun: bool,
    finishing: bool,
}

impl Bulk {
    pub(super) fn new(load: &Load) -> Bulk {
        Bulk {
            pattern: match load.exchange {
                Exchange::Receive => Pattern::characters(),
                _ => Pattern::default(),
            },
            share: load.bytes.map_or(u64::MAX, |bytes| bytes.div_ceil(u64::from(load.connections))),
            connections: vec![Connection::default(); load.slots() as usize],
            load: load.clone(),
            opening: Opening::default(),
            begun: false,
            finishing: false,
        }
    }

    fn give(&mut self, streams: &mut dyn StreamPort, id: StreamId, tally: &mut Tally) {
        let connection = &mut self.connections[id.slot as usize];
        if connection.closing {
            return;
        }
        connection.ready = false;
        let mut given = 0;
        while connection.moved < self.share && !self.finishing {
            if given >= PER_TURN {
                connection.ready = true;
                return;
            }
            let len = (self.share - connection.moved).min(LONGEST as u64) as usize;
            let Ok(written) = streams.write(id, self.pattern.at(connection.moved, len)) else { return };
            connection.moved += written as u64;
            tally.counts.bytes_sent += written as u64;
            given += written;
            if written < len {
                return;
            }
        }
        connection.closing = true;
        // The peer closes when it has read everything: that is when all has arrived.
        let _ = streams.shutdown(id, Shutdown::Write);
    }

    fn take(&mut self, streams: &mut dyn StreamPort, id: StreamId, tally: &mut Tally) {
        let connection = &mut self.connections[id.slot as usize];
        if connection.closing {
            return;
        }
        while let Ok(bytes) = streams.peek(id) {
            let n = bytes.len();
            if n == 0 {
                break;
            }
            if !self.pattern.is(connection.moved, bytes) {
                tally.counts.corrupted += 1;
            }
            connection.moved += n as u64;
            tally.counts.bytes_received += n as u64;
            if streams.consume(id, n).is_err() {
                break;
            }
        }
        if connection.moved >= self.share || self.finishing {
            connection.closing = true;
            // It would go on for ever.
            let _ = streams.abort(id);
        }
    }

    fn go_on(&mut self, streams: &mut dyn StreamPort, id: StreamId, tally: &mut Tally) {
        if !self.begun {
            return;
        }
        match self.load.exchange {
            Exchange::Receive => self.take(streams, id, tally),
            _ => self.give(streams, id, tally),
        }
    }
}

impl Client for Bulk {
    fn event(&mut self, streams: &mut dyn StreamPort, id: StreamId, event: StreamEvent, tally: &mut Tally) {
        let connection = &mut self.connections[id.slot as usize];
        if connection.id != Some(id) {
            return;
        }
        match event {
            StreamEvent::Opened => {
                connection.open = true;
                self.opening.opened(tally);
                self.go_on(streams, id, tally);
            }
            StreamEvent::Readable | StreamEvent::Writable => self.go_on(streams, id, tally),
            StreamEvent::PeerClosed => {
                let _ = streams.close(id);
            }
            StreamEvent::Closed(reason) => {
                connection.id = None;
                self.opening.ended(connection.open, (!connection.closing).then_some(reason), tally);
            }
        }
    }

    fn turn(&mut self, streams: &mut dyn StreamPort, tally: &mut Tally) {
        if !self.finishing {
            self.opening.turn(&self.load, streams, tally, |id| {
                self.connections[id.slot as usize] = Connection { id: Some(id), ..Connection::default() };
            });
        }
        for slot in 0..self.connections.len() {
            if let Connection { id: Some(id), ready: true, .. } = self.connections[slot] {
                self.give(streams, id, tally);
            }
        }
    }

    fn is_open(&self) -> bool {
        self.opening.is_over(&self.load)
    }

    fn begin(&mut self, streams: &mut dyn StreamPort, tally: &mut Tally) {
        self.begun = true;
        for slot in 0..self.connections.len() {
            if let Connection { id: Some(id), open: true, .. } = self.connections[slot] {
                self.go_on(streams, id, tally);
            }
        }
    }

    fn finish(&mut self, streams: &mut dyn StreamPort) {
        self.finishing = true;
        let mut unused = Tally::default();
        for slot in 0..self.connections.len() {
            if let Some(id) = self.connections[slot].id {
                self.go_on(streams, id, &mut unused);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.opening.is_done(&self.load, self.finishing)
    }

    fn unanswered(&self) -> u64 {
        0
    }
}
