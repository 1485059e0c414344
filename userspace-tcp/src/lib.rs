//! A TCP without I/O: segments and time in, segments and events out.
//!
//! The crate has no thread, no clock, no socket and no source of randomness. Whoever uses it hands in TCP segments as they come
//! out of IP packets, tells the time, and lends buffers for the segments that are to be sent. It knows nothing of the engine.
//!
//! # Driving it
//!
//! ```
//! use volley_tcp::{Config, Egress, EventKind, Instant, ListenOptions, SegmentIn, SegmentOut, Stack};
//!
//! /// Where segments go: here into a list, in life into frames with room for the headers in front.
//! #[derive(Default)]
//! struct Wire(Vec<(SegmentOut, Vec<u8>)>);
//!
//! impl Egress for Wire {
//!     fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]> {
//!         self.0.push((*segment, vec![0; segment.len]));
//!         self.0.last_mut().map(|(_, bytes)| &mut bytes[..])
//!     }
//!     fn commit(&mut self, _segment: &SegmentOut) {}
//! }
//!
//! /// Hands everything on the wire to `stack`, which echoes.
//! fn turn(stack: &mut Stack, now: Instant, incoming: &mut Wire) -> Wire {
//!     let frames: Vec<SegmentIn> = incoming
//!         .0
//!         .iter()
//!         .map(|(s, bytes)| SegmentIn {
//!             source: s.source,
//!             destination: s.destination,
//!             ecn: s.tos & 3,
//!             checksum: Default::default(),
//!             path: 0,
//!             bytes,
//!         })
//!         .collect();
//!     let mut burst = stack.receive_burst(now, &frames);
//!     while let Some(event) = burst.next_event() {
//!         if event.kind == EventKind::Readable {
//!             loop {
//!                 let message = burst.peek(event.connection).unwrap().to_vec();
//!                 if message.is_empty() {
//!                     break;
//!                 }
//!                 burst.read(event.connection, message.len()).unwrap();
//!                 burst.write(event.connection, &message).unwrap();
//!             }
//!         }
//!     }
//!     drop(burst); // what was not read is copied; the frames are free again
//!     stack.timers(now);
//!     let mut out = Wire::default();
//!     stack.transmit(now, &mut out);
//!     out
//! }
//!
//! let now = Instant::from_millis(0);
//! let mut server = Stack::new(Config::default(), &[1; 64], now); // the entropy of a real one is random
//! let mut client = Stack::new(Config::default(), &[2; 64], now);
//! server.listen("10.0.0.1:7".parse().unwrap(), ListenOptions::default()).unwrap();
//! let connection =
//!     client.connect("10.0.0.2:0".parse().unwrap(), "10.0.0.1:7".parse().unwrap(), 0, &Default::default()).unwrap();
//! client.write(connection, b"hello").unwrap();
//! let mut wire = Wire::default();
//! client.transmit(now, &mut wire);
//! for _ in 0..2 {
//!     let mut answer = turn(&mut server, now, &mut wire);
//!     let frames: Vec<SegmentIn> = answer.0.iter().map(|(s, bytes)| SegmentIn {
//!         source: s.source, destination: s.destination, ecn: 0, checksum: Default::default(), path: 0, bytes,
//!     }).collect();
//!     drop(client.receive_burst(now, &frames));
//!     wire = Wire::default();
//!     client.transmit(now, &mut wire);
//! }
//! assert_eq!(client.peek(connection).unwrap(), b"hello");
//! ```
//!
//! Whoever owns the frames, and cannot keep a borrow of them from call to call, detaches the burst ([`Burst::detach`]) and ends it with
//! [`Connections::release`].
//!
//! The loop of a real user is: `receive_burst`, events, drop the burst; `timers` when [`Connections::next_deadline`] has come;
//! `transmit`; sleep until a segment or the deadline. Four rules:
//!
//! - A connection lives until `close` or `abort`, as a descriptor does. `Closed` is its last event and comes once, also after
//!   `close`; then its [`ConnectionId`] is stale, and stale names are errors.
//! - Events are edges. On `Readable` read until `peek` is empty; after a short `write` wait for `Writable`.
//! - `accept` takes connections from a listener after their `Established` event; those that nobody takes fill its backlog.
//! - Nothing blocks. After construction only `listen` allocates, and bursts larger than any before; memory has the cap that
//!   [`Config`] sets.
//!
//! # What is there
//!
//! | what | RFC |
//! | --- | --- |
//! | all states, passive, active and simultaneous open, simultaneous close, half close, reset rules | 9293 |
//! | initial sequence numbers, timestamp offset per pair of addresses, port choice: keyed hashes | 6528, 7323, 6056 |
//! | window scale, timestamps, PAWS; segments without a negotiated timestamp are dropped | 7323 |
//! | timeout: initial 1 s; minimum 200 ms, which is a deviation (the RFC: 1 s), configurable | 6298 |
//! | SACK and D-SACK both ways; limited transmit, by the pipe | 2018, 2883, 6675, 3042 |
//! | RACK-TLP, F-RTO, PRR, Eifel detection and D-SACK undo | 8985, 5682, 6937, 3522, 3708 |
//! | CUBIC; NewReno by option; initial window 10; restart after idle | 9438, 5681, 6582, 6928 |
//! | challenge ACKs, limited per connection only | 5961 |
//! | delayed ACK, Nagle, cork, silly-window avoidance both sides, zero-window probe | 9293, 5681 |
//! | MSS clamp, path MTU from ICMP errors that quote data in flight | 9293, 6691, 1191, 8201, 5927 |
//! | ECN | 3168 |
//! | keep-alive (off), user timeout (5 minutes), linger, FIN-WAIT-2 and orphan timeouts | 9293 |
//! | TIME-WAIT in 44 bytes, reuse, reset protection, cap | 9293, 6191, 1337 |
//! | SYN table and SYN cookies with the options in the timestamp | 4987 |
//!
//! `CONFORMANCE.md` beside this crate names for each requirement of these RFCs the packet script or test that shows it; the scripts are
//! in `scripts/`, a crate of its own. The example `ip` wraps the stack for raw IP packets behind a TUN device.
//!
//! # What is not there
//!
//! - Fast Open (7413), MD5 and AO (2385, 5925), multipath (8684), accurate ECN, HyStart++ (9406), packetization-layer path MTU
//!   discovery (4821), receive buffer tuning, pacing, segmentation offload.
//! - The urgent mechanism: urgent data stays in the stream and the pointer is not told (6093 advises against its use).
//! - Data in SYN is left unacknowledged on passive opens; the peer sends it again.
//! - IP: addresses, fragments, neighbours, ICMP parsing. That is the caller's layer.
//!
//! # The modules
//!
//! In the order in which a segment meets them: [`SegmentIn`] is parsed (`segment`, `options`), found (`demux`, keyed by
//! `secret`), and arrives (`input` for connections; `handshake`, `passive`, `syn_table`, `cookie`, `timewait` for the others). `receiver`
//! has what came in, `sender` what goes out, `buffer` the bytes of both; `events` tells the application, `timers` and `wheel`
//! wake what waits, `output`, `emit` and `reply` send.
#![deny(unsafe_code)]

mod address;
mod buffer;
mod config;
mod connections;
mod cookie;
mod counters;
mod demux;
mod emit;
mod error;
mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handshake;
mod header;
mod icmp;
mod info;
mod input;
mod lifecycle;
mod listen;
mod options;
mod output;
mod passive;
mod receiver;
mod reply;
mod secret;
mod segment;
mod sender;
mod sequence;
mod slab;
mod stack;
mod state;
mod syn_table;
mod tcb;
mod time;
mod timers;
mod timewait;
mod wheel;

pub use config::{
    Config, CongestionControl, ConnectionOptions, Ecn, KeepAlive, ListenOptions, SocketOption, SynCookies,
};
pub use connections::{Connections, Shutdown};
pub use counters::{Counters, Drop};
pub use error::Error;
pub use events::{CloseReason, Event, EventKind};
pub use icmp::{IcmpError, IcmpMessage};
pub use info::{Info, Memory, Population};
pub use listen::ListenerId;
pub use segment::{ChecksumStatus, Egress, PROTOCOL, SegmentIn, SegmentOut, Segments};
pub use stack::{Burst, Stack};
pub use state::State;
pub use tcb::ConnectionId;
pub use time::Instant;
