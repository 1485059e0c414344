//! TCP for the generator: connections to a server, every byte that comes back checked.
//!
//! ```text
//!   client ──► stream port ──────────────────────────► server
//!   echo,      ours over AF_XDP or DPDK, or             │
//!   connect,   kernel sockets                           │
//!   bulk  ◄─── stream port ◄────────────────────────────┘
//!     └──► tally ──► report
//! ```
//!
//! It is a closed loop: a connection has a window of messages on their way and sends the next when one has come back, as
//! the clients of a game do. So a slow server is asked less, and a latency here is a round trip, not a queue's length.
//!
//! | module | what it does | what it never does |
//! | --- | --- | --- |
//! | [`pattern`] | the bytes of a stream, by position | remember anything |
//! | [`echo`] | messages there and back, a window of them on each connection | open a connection anew |
//! | [`connect`] | connect, one message there and back, close, and again | keep a connection |
//! | [`bulk`] | as many bytes as go one way | wait for answers |
//! | `opening` | so many connections a turn until all are open, for [`echo`] and [`bulk`] | open one anew |
//! | [`tally`] | counts and times | |
//! | [`carrier`], [`open`] | our own stack over frames, or the kernel's | judge bytes |
//! | [`run`] | the loop: open, warm up, measure, finish | allocate while it measures |
//! | [`report`] | table and JSON | |
//!
//! Our own stack is the engine's: what checks it is the other end, when that is the kernel's.

pub mod bulk;
pub mod carrier;
pub mod connect;
pub mod echo;
pub mod open;
mod opening;
pub mod pattern;
pub mod report;
pub mod run;
pub mod tally;

use crate::stream::{StreamEvent, StreamId, StreamPort};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tally::Tally;

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Messages there and back: to an echo (RFC 862).
    Echo,
    /// Connect, one message there and back, close, and again: to an echo.
    Connect,
    /// Bytes there: to a discard service (RFC 863).
    Send,
    /// Bytes back: from a character generator (RFC 864), whose pattern is checked.
    Receive,
}

impl Exchange {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Exchange::Echo => "echo",
            Exchange::Connect => "connect",
            Exchange::Send => "send",
            Exchange::Receive => "receive",
        }
    }
}

/// What to do, with whom, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// What the connections do.
    pub exchange: Exchange,
    /// The server.
    pub target: SocketAddr,
    /// Addresses to connect from, in turn; empty when the port below chooses.
    pub sources: Vec<IpAddr>,
    /// Connections at once.
    pub connections: u32,
    /// Bytes of a message, 1 to [`pattern::LONGEST`].
    pub size: usize,
    /// Messages of a connection on their way at once.
    pub window: u32,
    /// Bytes to move in all, over all connections; `None`: as many as there is time for.
    pub bytes: Option<u64>,
    /// How long to exchange without measuring, once the connections are open.
    pub warmup: Duration,
    /// How long to measure at most.
    pub duration: Duration,
    /// How long to wait for what is under way at the end.
    pub linger: Duration,
}

impl Load {
    /// Connection slots of the port below: those at once, and as many that are still closing.
    pub fn slots(&self) -> u32 {
        self.connections.saturating_mul(2).max(64)
    }

    fn local(&self, number: u64) -> Option<SocketAddr> {
        let sources = self.sources.len() as u64;
        let at = number.checked_rem(sources)? as usize;
        Some(SocketAddr::new(self.sources[at], 0))
    }
}

/// One kind of exchange, driven by events and once a turn.
pub(crate) trait Client {
    /// Something happened to a stream.
    fn event(&mut self, streams: &mut dyn StreamPort, id: StreamId, event: StreamEvent, tally: &mut Tally);

    /// Opens what is to be opened, and goes on with what was left.
    fn turn(&mut self, streams: &mut dyn StreamPort, tally: &mut Tally);

    /// True when everything that is to be open before the measurement is.
    fn is_open(&self) -> bool;

    /// Everything that is to be open is. Those that wait for it go to work now.
    fn begin(&mut self, _streams: &mut dyn StreamPort, _tally: &mut Tally) {}

    /// Begins nothing new from now on, and ends what there is in good order.
    fn finish(&mut self, streams: &mut dyn StreamPort);

    /// True when nothing is under way any more.
    fn is_done(&self) -> bool;

    /// Messages without an answer so far.
    fn unanswered(&self) -> u64;
}
