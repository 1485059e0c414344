//! Messages there and back: each connection keeps its window of them on their way.

use super::opening::Opening;
use super::pattern::Pattern;
use super::tally::Tally;
use super::{Client, Load};
use crate::generator::link::monotonic_ns;
use crate::stream::{StreamEvent, StreamId, StreamPort};

/// Bytes between the places in the pattern at which two connections begin.
const APART: u64 = 7_919;

#[derive(Clone, Copy, Default)]
struct Connection {
    id: Option<StreamId>,
    open: bool,
    /// We have closed it.
    closing: bool,
    sent: u64,
    received: u64,
}

/// The client.
pub(super) struct Echo {
    load: Load,
    size: u64,
    pattern: Pattern,
    /// By slot.
    connections: Vec<Connection>,
    /// When each message on its way was sent: a window for each slot.
    sent_at: Vec<u64>,
    opening: Opening,
    finishing: bool,
}

impl Echo {
    pub(super) fn new(load: &Load) -> Echo {
        let slots = load.slots() as usize;
        Echo {
            load: load.clone(),
            size: load.size as u64,
            pattern: Pattern::default(),
            connections: vec![Connection::default(); slots],
            sent_at: vec![0; slots * load.window as usize],
            opening: Opening::default(),
            finishing: false,
        }
    }

    /// Checks what has arrived, and returns how many messages it completed.
    fn take(&mut self, streams: &mut dyn StreamPort, id: StreamId, now: u64, tally: &mut Tally) {
        let slot = id.slot as usize;
        let Echo { connections, pattern, .. } = self;
        let connection = &mut connections[slot];
        let before = connection.received;
        while let Ok(bytes) = streams.peek(id) {
            let n = bytes.len();
            if n == 0 {
                break;
            }
            if !pattern.is(slot as u64 * APART + connection.received, bytes) {
                tally.counts.corrupted += 1;
            }
            connection.received += n as u64;
            if streams.consume(id, n).is_err() {
                break;
            }
        }
        let (first, last) = (before / self.size, connection.received / self.size);
        let window = u64::from(self.load.window);
        for message in first..last {
            let sent_at = self.sent_at[slot * window as usize + (message % window) as usize];
            tally.times.record(now.saturating_sub(sent_at));
        }
        tally.counts.messages += last - first;
        tally.counts.bytes_received += connection.received - before;
    }

    /// Sends what the window has room for.
    fn give(&mut self, streams: &mut dyn StreamPort, id: StreamId, now: u64, tally: &mut Tally) {
        let slot = id.slot as usize;
        let (size, window) = (self.size, u64::from(self.load.window));
        let connection = &mut self.connections[slot];
        let goal = match self.finishing {
            true => connection.sent.next_multiple_of(size),
            false => (connection.received / size + window) * size,
        };
        while connection.sent < goal {
            let (message, within) = (connection.sent / size, connection.sent % size);
            if within == 0 {
                self.sent_at[slot * window as usize + (message % window) as usize] = now;
            }
            let piece = self.pattern.at(slot as u64 * APART + connection.sent, (size - within) as usize);
            let Ok(written) = streams.write(id, piece) else { return };
            connection.sent += written as u64;
            tally.counts.bytes_sent += written as u64;
            if written < piece.len() {
                return;
            }
        }
        if self.finishing && connection.sent == connection.received && !connection.closing {
            connection.closing = true;
            let _ = streams.close(id);
        }
    }
}

impl Client for Echo {
    fn event(&mut self, streams: &mut dyn StreamPort, id: StreamId, event: StreamEvent, tally: &mut Tally) {
        let now = monotonic_ns();
        let slot = id.slot as usize;
        if self.connections[slot].id != Some(id) {
            return;
        }
        match event {
            StreamEvent::Opened => {
                self.connections[slot].open = true;
                self.opening.opened(tally);
            }
            StreamEvent::Closed(reason) => {
                let connection = &mut self.connections[slot];
                connection.id = None;
                return self.opening.ended(connection.open, (!connection.closing).then_some(reason), tally);
            }
            StreamEvent::PeerClosed => {
                // Nobody asked it to: `Closed` counts as a failure.
                self.take(streams, id, now, tally);
                let _ = streams.close(id);
                return;
            }
            StreamEvent::Readable => self.take(streams, id, now, tally),
            StreamEvent::Writable => {}
        }
        self.give(streams, id, now, tally);
    }

    fn turn(&mut self, streams: &mut dyn StreamPort, tally: &mut Tally) {
        if !self.finishing {
            self.opening.turn(&self.load, streams, tally, |id| {
                self.connections[id.slot as usize] = Connection { id: Some(id), ..Connection::default() };
            });
        }
    }

    fn is_open(&self) -> bool {
        self.opening.is_over(&self.load)
    }

    fn finish(&mut self, streams: &mut dyn StreamPort) {
        self.finishing = true;
        let mut unused = Tally::default();
        for slot in 0..self.connections.len() {
            if let Some(id) = self.connections[slot].id {
                self.give(streams, id, monotonic_ns(), &mut unused);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.opening.is_done(&self.load, self.finishing)
    }

    fn unanswered(&self) -> u64 {
        let waiting =
            |connection: &Connection| connection.sent.div_ceil(self.size) - connection.received / self.size;
        self.connections.iter().map(waiting).sum()
    }
}
