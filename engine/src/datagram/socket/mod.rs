//! What the kernel-socket datagram ports have in common: sockets, messages, and all but the two calls that move datagrams.
//!
//! ```text
//!   socket buffer ──receive──► frames in the batch ─► open ─► app ─► settle ──transmit──► kernel
//!                                                                      │ the kernel takes no more
//!   app ──► send ──────────────────────────────────────────► hold ◄────┘ (bounded, copied)
//!                                                              └─flush──transmit──► kernel
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`open`] | options, bind, and errors that say who is in the way |
//! | [`holder`] | who holds a UDP port |
//! | `message` | `msghdr`s and control messages (the unsafe part) |
//! | `port` | the datagram port, generic over how datagrams are moved |
//!
//! The kernel copies on every call, so nothing is in flight: a frame is with the app, held, or free.

pub mod holder;
mod message;
pub mod open;
mod port;

pub use open::SocketError;
pub use port::SocketPort;

pub(super) use message::{Messages, receive_from, send_to};
pub(super) use open::Socket;
pub(super) use port::{Arrived, MAX_ERRORS, Out, Received, SocketIo, is_blocked};

use crate::frame::BURST;

/// What a kernel-socket port is opened with.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// Index of this port among its worker's ports: what [`crate::net::Path::port`] says.
    pub port: u8,
    /// SO_REUSEPORT: the sockets of several workers share an address, and the kernel spreads the peers over them. Without it a
    /// taken port is an error, which is what protects it.
    pub reuse_port: bool,
    /// SO_RCVBUF in bytes. Too little loses bursts while the worker is busy; the kernel counts up to some 800 bytes for a small
    /// datagram.
    pub receive_buffer: usize,
    /// SO_SNDBUF in bytes.
    pub send_buffer: usize,
    /// Frames: a burst with the app, and the held ones. At least `hold` + 2 × [`BURST`] are made.
    pub frames: u32,
    /// Bytes of a frame: a longer datagram is dropped as truncated.
    pub frame_bytes: u32,
    /// Most datagrams kept for when the kernel takes some again, unasked ones of this turn included; what comes on top is
    /// refused (`Full`, [`volley_wire::DropReason::TxFull`]).
    pub hold: usize,
    /// UDP GSO: answers of one length to one peer leave as one message ([`super::MmsgPort`] only). Switched off by itself where
    /// the device cannot (before Linux 6.11: without transmit checksum offload).
    pub gso: bool,
    /// UDP GRO: datagrams of one peer arrive in one buffer ([`super::MmsgPort`] only). An answer in place then has no more room
    /// than the question had.
    pub gro: bool,
}

/// Bytes of a frame that any UDP datagram fits (65,527 of payload over IPv6). Not a power of two: frames that begin 64 KiB apart
/// would meet in the same few sets of every cache.
const ANY_DATAGRAM: u32 = 65_536 + 128;

impl Default for SocketConfig {
    fn default() -> Self {
        SocketConfig {
            port: 0,
            reuse_port: false,
            receive_buffer: 4 << 20,
            send_buffer: 4 << 20,
            frames: 256 + 2 * BURST as u32,
            frame_bytes: ANY_DATAGRAM,
            hold: 256,
            gso: false,
            gro: false,
        }
    }
}

#[cfg(test)]
mod tests;
