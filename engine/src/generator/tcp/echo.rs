//! Messages there and back: each connection keeps its window of them on their way.

use super::pattern::Pattern;
use super::tally::Tally;
use super::{Client, Load, OPENED_PER_TURN};
use crate::generator::link::monotonic_ns;
use crate::stream::{CloseReason, StreamEvent, StreamId, StreamPort};

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
    asked: u32,
    open: u32,
    gone: u32,
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
            asked: 0,
            open: 0,
            gone: 0,
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

    fn ended(&mut self, id: StreamId, reason: CloseReason, tally: &mut Tally) {
        let connection = &mut self.connections[id.slot as usize];
        match connection.closing {
            true => tally.counts.closed += 1,
            false => tally.fail(reason),
        }
        self.open -= u32::from(connection.open);
        self.gone += 1;
        connection.id = None;
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
                self.open += 1;
                tally.counts.opened += 1;
            }
            StreamEvent::Closed(reason) => return self.ended(id, reason, tally),
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
        for _ in 0..OPENED_PER_TURN {
            if self.asked == self.load.connections || self.finishing {
                return;
            }
            match streams.connect(self.load.local(u64::from(self.asked)), self.load.target) {
                Ok(id) => {
                    self.connections[id.slot as usize] =
                        Connection { id: Some(id), ..Connection::default() };
                }
                Err(_) => {
                    tally.fail(CloseReason::Unreachable);
                    self.gone += 1;
                }
            }
            self.asked += 1;
        }
    }

    fn is_open(&self) -> bool {
        self.open + self.gone >= self.load.connections
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
        self.gone == self.asked && (self.finishing || self.asked == self.load.connections)
    }

    fn unanswered(&self) -> u64 {
        let waiting =
            |connection: &Connection| connection.sent.div_ceil(self.size) - connection.received / self.size;
        self.connections.iter().map(waiting).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::tcp::Exchange;
    use crate::stream::{EpollStreams, StreamConfig};
    use crate::time::Now;
    use socket2::{Domain, Socket, Type};
    use std::net::SocketAddr;
    use std::time::Duration;

    #[test]
    fn connections_that_are_still_to_be_asked_for_are_under_way() {
        // Bound, so that the port is nobody else's; without a listener, so that it refuses.
        let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let load = Load {
            exchange: Exchange::Echo,
            target: nobody.local_addr().unwrap().as_socket().unwrap(),
            sources: vec![],
            connections: OPENED_PER_TURN as u32 + 1,
            size: 64,
            window: 1,
            bytes: None,
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            linger: Duration::ZERO,
        };
        let config = StreamConfig { connections: Some(load.slots()), ..StreamConfig::default() };
        let mut streams = EpollStreams::for_connects(&config).unwrap();
        let (mut echo, mut tally) = (Echo::new(&load), Tally::default());
        for (asked, all) in [(OPENED_PER_TURN as u32, false), (load.connections, true)] {
            echo.turn(&mut streams, &mut tally);
            while echo.gone < asked {
                streams.poll(Now { ns: monotonic_ns(), unix_secs: 0 });
                while let Some((id, event)) = streams.next_event() {
                    echo.event(&mut streams, id, event, &mut tally);
                }
            }
            assert_eq!((echo.asked, echo.is_open(), echo.is_done()), (asked, all, all));
        }
        assert_eq!(tally.counts.failed, u64::from(load.connections));
    }
}
