//! Where a received packet goes: to the engine's socket, to the kernel, or away.
//!
//! One function, [`steer()`], decides it. It is generic over a [`Packet`] (how bytes are read: direct packet
//! access in the kernel, a slice elsewhere) and an [`Env`] (rules, counters, the socket of the receiving
//! queue), so that the XDP program, user-space receive paths, the tests and the fuzzer run the same code.
//!
//! ```text
//! Ethernet ── VLAN ×0..2 ── IPv4 / IPv6 + extensions ── UDP / TCP ports
//!     │           │                 │                        │
//!     └───────────┴── not for us or malformed ──► pass       ▼
//!                                              rules of (protocol, port): the first whose
//!                                              address matches ──► redirect · pass · drop
//! ICMP and ICMPv6 errors about TCP: the ports of the segment they quote, which left from here
//! ```
//!
//! Each packet is counted exactly once, by the reason of its verdict ([`abi::Counter`]). What is malformed is
//! passed: the kernel knows how to refuse it, and counts it where an administrator looks. Checksums and the
//! length of the datagram are not checked here; whoever answers does.
//!
//! | module | what |
//! | --- | --- |
//! | [`abi`] | maps, their keys and values, counters: what the program and its loader agree on |
//! | [`blast`] | the same for the in-kernel traffic generator |
//! | [`bucket`] | how often a SYN may come |
//! | [`rules`] | the rule table: lookup, address match |
//! | [`headers`] | from the first byte of a frame to its ports |
//! | [`packet`] | reading headers out of a packet |
//! | [`steer()`] | the decision |
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod blast;
pub mod bucket;
pub mod headers;
pub mod packet;
pub mod rules;
mod steer;

pub use abi::Counter;
pub use packet::Packet;
pub use rules::{Action, Address, Protocol, Unbound};
pub use steer::{Env, Verdict, steer};
pub use volley_wire as wire;
pub use zerocopy;
