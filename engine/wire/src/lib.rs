//! Headers as they are on the wire, and nothing else.
//!
//! Each header is a `#[repr(C)]`, unaligned, big-endian view over bytes: nothing is parsed into a
//! second form, nothing is allocated, and a reference to a header is a reference into the packet.
//! The crate is `no_std` and depends on `zerocopy` only, so that the eBPF program, the engine and the
//! fuzzers all read packets through the same definitions.
//!
//! | module | what | source |
//! | --- | --- | --- |
//! | [`ethernet`] | Ethernet II header, 802.1Q / 802.1ad tag | IEEE 802.3, 802.1Q |
//! | [`arp`] | ARP for Ethernet and IPv4 | RFC 826 |
//! | [`ipv4`] | IPv4 header | RFC 791 |
//! | [`ipv6`] | IPv6 header, extension headers | RFC 8200 |
//! | [`icmp`] | ICMP, ICMPv6, neighbour discovery | RFC 792, 4443, 4861 |
//! | [`udp`] | UDP header | RFC 768 |
//! | [`tcp`] | the two TCP ports (steering needs no more) | RFC 9293 |
//! | [`checksum`] | Internet checksum: whole, folded, incremental | RFC 1071, RFC 1624 |
//! | [`rss`] | the hash NICs spread packets by, and who owns a peer | Toeplitz, as NICs document it |
//! | [`reason`] | why a packet was not answered | |
//!
//! It never decides what to do with a packet: that is `volley-steer` in the kernel and `Net` in the engine.
#![no_std]
#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod reason;
pub mod rss;
pub mod tcp;
pub mod udp;

pub use reason::DropReason;
