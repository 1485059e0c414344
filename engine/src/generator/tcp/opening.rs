//! Opening connections that last: so many a turn until all have been asked for, and how many there are.

use super::Load;
use super::tally::Tally;
use crate::stream::{CloseReason, StreamId, StreamPort};

/// Connections opened in one turn: with their SYNs, about a burst.
pub(super) const OPENED_PER_TURN: usize = 32;

/// How far the opening is. Each connection is asked for once.
#[derive(Default)]
pub(super) struct Opening {
    asked: u32,
    open: u32,
    /// Ended, or never opened.
    gone: u32,
}

impl Opening {
    /// Asks for the next few; `begun` is told of each.
    pub fn turn(
        &mut self,
        load: &Load,
        streams: &mut dyn StreamPort,
        tally: &mut Tally,
        mut begun: impl FnMut(StreamId),
    ) {
        for _ in 0..OPENED_PER_TURN {
            if self.asked == load.connections {
                return;
            }
            match streams.connect(load.local(u64::from(self.asked)), load.target) {
                Ok(id) => begun(id),
                Err(_) => {
                    tally.fail(CloseReason::Unreachable);
                    self.gone += 1;
                }
            }
            self.asked += 1;
        }
    }

    /// One is open.
    pub fn opened(&mut self, tally: &mut Tally) {
        self.open += 1;
        tally.counts.opened += 1;
    }

    /// One has ended, open or not; `failure` when it should not have.
    pub fn ended(&mut self, was_open: bool, failure: Option<CloseReason>, tally: &mut Tally) {
        match failure {
            None => tally.counts.closed += 1,
            Some(reason) => tally.fail(reason),
        }
        self.open -= u32::from(was_open);
        self.gone += 1;
    }

    /// True when each is open, or will not be.
    pub fn is_over(&self, load: &Load) -> bool {
        self.open + self.gone >= load.connections
    }

    /// True when none is left; `finishing` when no more are asked for.
    pub fn is_done(&self, load: &Load, finishing: bool) -> bool {
        self.gone == self.asked && (finishing || self.asked == load.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::link::monotonic_ns;
    use crate::generator::tcp::bulk::Bulk;
    use crate::generator::tcp::echo::Echo;
    use crate::generator::tcp::{Client, Exchange};
    use crate::stream::{EpollStreams, StreamConfig};
    use crate::time::Now;
    use socket2::{Domain, Socket, Type};
    use std::net::SocketAddr;
    use std::time::Duration;

    /// A client of more connections than one turn opens, to a port that refuses them all.
    fn refused(client: fn(&Load) -> Box<dyn Client>) {
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
        let (mut client, mut tally) = (client(&load), Tally::default());
        for (asked, all) in [(OPENED_PER_TURN as u32, false), (load.connections, true)] {
            client.turn(&mut streams, &mut tally);
            while tally.counts.failed < u64::from(asked) {
                streams.poll(Now { ns: monotonic_ns(), unix_secs: 0 });
                while let Some((id, event)) = streams.next_event() {
                    client.event(&mut streams, id, event, &mut tally);
                }
            }
            assert_eq!((client.is_open(), client.is_done()), (all, all), "after {asked}");
        }
    }

    #[test]
    fn connections_that_are_still_to_be_asked_for_are_under_way() {
        refused(|load| Box::new(Echo::new(load)));
        refused(|load| Box::new(Bulk::new(load)));
    }
}
