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
//! | `port` | the datagram port, generic over the I/O model |
//! | `model` | what an I/O model is to it |
//! | [`error`] | why a socket could not be opened |
//! | `open` | options, bind (Linux) |
//! | [`spread`] | who among the sockets that share a port gets a datagram |
//! | [`holder`] | who holds a UDP port (Linux) |
//! | `message` | `msghdr`s and control messages: the unsafe part (Linux) |
//!
//! Under readiness models the kernel copies on every call, so nothing is in flight: a frame is with the app, held, or free.

pub mod error;
#[cfg(target_os = "linux")]
pub mod holder;
#[cfg(target_os = "linux")]
mod message;
mod model;
#[cfg(target_os = "linux")]
mod open;
mod port;
pub mod spread;

pub use error::SocketError;
pub use port::SocketPort;
pub use spread::{Group, Spread};

#[cfg(target_os = "linux")]
pub(super) use message::{
    MAX_ERRORS, Message, Messages, RECEIVE_PREFIX, drops, is_blocked, receive_from, receive_header,
    received_in, send_to,
};
pub(super) use model::{Arrived, Bound, Completed, Completion, Model, Out, Sent};
#[cfg(target_os = "linux")]
pub(super) use open::Socket;

use crate::frame::BURST;

/// What a kernel-socket port is opened with.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// Index of this port among its worker's ports: what [`crate::net::Path::port`] says.
    pub port: u8,
    /// SO_REUSEPORT: the sockets of several workers share an address, and the kernel spreads the peers over them. Without it a
    /// taken port is an error, which is what protects it.
    pub reuse_port: bool,
    /// Bound alone, so that a taken port is an error, and opened to others of this user that set SO_REUSEPORT afterwards.
    pub joinable: bool,
    /// With `reuse_port`: who shares the address, and how (Linux).
    pub group: Group,
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
    /// io_uring: a kernel thread looks for work, so that the worker makes no system calls while it is awake. Takes a core of its
    /// own, or most of the worker's.
    pub sqpoll: bool,
    /// io_uring: datagrams of at least this many bytes leave without a copy (Linux 6.2). 0: none do. Given up by itself where the
    /// way out copies all the same, as loopback and veth do: a second completion each for nothing.
    pub zero_copy_from: u32,
}

/// Bytes of a frame that any UDP datagram fits (65,527 of payload over IPv6). Not a power of two: frames that begin 64 KiB apart
/// would meet in the same few sets of every cache.
const ANY_DATAGRAM: u32 = 65_536 + 128;

impl Default for SocketConfig {
    fn default() -> Self {
        SocketConfig {
            port: 0,
            reuse_port: false,
            joinable: false,
            group: Group::default(),
            receive_buffer: 4 << 20,
            send_buffer: 4 << 20,
            frames: 256 + 2 * BURST as u32,
            frame_bytes: ANY_DATAGRAM,
            hold: 256,
            gso: false,
            gro: false,
            sqpoll: false,
            zero_copy_from: 0,
        }
    }
}

#[cfg(test)]
mod tests;
