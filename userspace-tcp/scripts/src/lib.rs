//! Packet scripts: a text file says what a peer sends, what the application calls and how time passes, and what the stack must
//! send and tell. Time is virtual, so that a script of four minutes takes microseconds, and the same script always does the same.
//!
//! The stack is driven through the public interface of `volley-tcp` alone; the peer's segments are built and read here, with
//! code of this crate's own. `cases/` holds the scripts, `cargo run -p volley-tcp-scripts -- FILE...` runs some.
//!
//! # A script
//!
//! ```text
//! # The peer opens; a question is answered; both close.
//! listen
//! < S 0 win 65535 <mss 1460>          # the peer sends SYN
//! > SA 0 ack 1 <mss 1460>             # the stack must answer so, now
//! < A 1 ack 1
//! accept c
//! event c established
//! < PA 1:6 ack 1                      # five bytes
//! read c 5
//! write c "answer"
//! > PA 1:7 ack 6
//! +40ms < A 6 ack 7                   # 40 ms later; the stack must have said nothing meanwhile
//! ```
//!
//! Each line is one step. A step may begin with a time: `+40ms` lets that much pass first, and `+200ms..300ms >` waits until the
//! stack sends something, which must be in that span. `#` begins a comment.
//!
//! **Whatever the stack sends must be expected**: a segment that no `>` line has taken when the next other step comes is an
//! error, and so is one that is left at the end. At the end, every connection is aborted, and then no memory of any may be left
//! and the stack's ledger of received segments must balance.
//!
//! # Segments
//!
//! ```text
//! < FLAGS SEQ[:END] ["text"] [ack N] [win N] [<options>] [ecn ect0|ect1|ce] …      the peer sends
//! > FLAGS SEQ[:END] ["text"] [ack N] [win N] [<options>] [ecn …] [ttl N] [tos N]    the stack must send
//! ```
//!
//! - `FLAGS` are letters of `SFRPAUEC` in any order (`-` for none): E is ECE, C is CWR.
//! - `SEQ` and `ack` count from the initial sequence number of whoever they are of, so that SYN is 0 and data begins at 1. They
//!   may be negative, and where no connection is known they are absolute.
//! - `SEQ:END` has END − SEQ bytes of payload. Their values are a function of their place, and are verified both ways: what the
//!   stack sends must be what was written, at the right place, also when it is sent again. `"text"` gives bytes in words.
//! - Options are `mss N`, `ws N`, `sack_ok`, `ts VALUE ECHO`, `sack A:B …`, `nop`, `eol`, `raw HEX`. Of a timestamp of the stack's
//!   the script says the milliseconds since it began; the peer's are whatever it says. In `>` a list must match, but for
//!   padding; `<>` says that there are none; without a list they are not looked at.
//! - In `>`, `*` stands for anything, as flags, a number or all of the segment. What is not mentioned (`win`, `ack`, options) may
//!   be anything.
//! - In `<`, `urg N` sets the urgent pointer, `path N` the way back, `offset N` the data offset in words, `reserved N` the
//!   reserved bits, `truncate N` cuts the segment to N bytes, `badsum` spoils the checksum. A line that ends with `&` arrives in
//!   one burst with the next.
//!
//! # Calls and checks
//!
//! | step | what |
//! | --- | --- |
//! | `config KEY=VALUE …` | the stack's configuration, first of all: `time_wait=10s ecn=request syn_cookies=always …` |
//! | `flow NAME [local A] [remote A] [isn N]` | from here on the script is about this pair of addresses, anew if it was used before |
//! | `listen [KEY=VALUE …]`, `close_listener` | takes connections with these options: `nodelay=off delayed_ack=0ms cc=newreno …` |
//! | `connect C [KEY=VALUE …]` | opens one; its local port is the flow's |
//! | `accept C`, `no_accept` | takes one from the listener; there must be none |
//! | `write C N\|"text" [takes N]` | writes; all must be taken, or N bytes |
//! | `read C N\|"text"` | reads so much, and verifies it |
//! | `unread C N`, `state C NAME` | what can be read; the state (`gone` when the connection is) |
//! | `shutdown C read\|write\|both`, `close C`, `abort C` | |
//! | `set C KEY=VALUE` | one option |
//! | `event C KIND`, `no_event C` | the next event: `established readable writable peer_closed closed:REASON`; none is left |
//! | `info C KEY=VALUE …` | what `info` says: `cwnd in_flight mss send_window …`; `>=N` and `<=N` work, too |
//! | `icmp KIND [N] seq N [believed\|refused]` | an ICMP error that quotes the stack's segment: `too_big 1400`, `unreachable`, `transient` |
//! | `count NAME N`, `dropped REASON N` | counters of the stack |
//! | `population KEY=N …` | how many there are: `connections half_open time_wait segments_in_flight chunks ranges` |
//! | `room N` | the egress takes N segments from here on (`room all`: any number) |
//! | `drain` | takes whatever the stack has sent as said |
//! | `fails ERROR CALL` | the call must return that error: `stale ended shut_down no_slot address_in_use bad_address no_port` |
#![forbid(unsafe_code)]

mod error;
mod flow;
mod run;
mod script;
mod segment;
mod settings;
mod wire;
mod word;
mod world;

pub use error::{Error, Mismatch};
pub use run::{Outcome, run};
pub use script::Script;
