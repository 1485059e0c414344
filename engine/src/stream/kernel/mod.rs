//! Kernel TCP as a stream port.
//!
//! ```text
//!   listeners (one per address, SO_REUSEPORT among workers) ─accept─► slots ─► events ─► app
//!
//!   over epoll:
//!   peek: recv into one shared buffer; what the app leaves moves to a chunk of its own (bounded)
//!   write: send, straight from the app's bytes; what the kernel does not take stays the app's
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`open`] | sockets, their options, the descriptor limit, and errors that say who is in the way |
//! | `listeners` | accepting, and turning away when no descriptor is left |
//! | `ending` | resets, and what the kernel's errors mean |
//! | [`epoll`] | readiness by epoll, edge-triggered: one registration for the life of a connection |
//! | [`uring`] | completions by io_uring: multishot accept and receive, the sends of a turn in one submission |
//! | `option` | options of a connection |
//! | [`unread`] | received bytes that the app has not taken yet |

mod ending;
pub mod epoll;
mod listeners;
pub mod open;
mod option;
pub mod unread;
pub mod uring;

pub use epoll::EpollStreams;
pub use open::StreamOpenError;
pub use uring::UringStreams;

/// What a kernel stream port is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Connections at once, each a slot and a descriptor. `None`: 16,384, or what the descriptor limit leaves room for.
    pub connections: Option<u32>,
    /// SO_REUSEPORT: the listeners of several workers (or processes) share an address, and the kernel spreads the peers over them.
    pub reuse_port: bool,
    /// SO_RCVBUF and SO_SNDBUF of each connection, in bytes. The kernel reserves nothing: it is what a slow reader may tie up.
    pub buffer: usize,
    /// How long a peer may take nothing while written bytes wait, in ns, before it is disconnected.
    pub slow_reader_ns: u64,
    /// After this long without a sign of the peer, in seconds, it is asked (keep-alive); three answers missing, and it is gone.
    pub keep_alive_secs: u32,
    /// Unread bytes kept for apps that do not take all they are shown, in chunks of [`unread::CHUNK`] bytes, over all connections;
    /// over io_uring, as many also for what the kernel has not taken yet.
    pub unread_chunks: usize,
    /// Between two looks of a busy worker, in ns, while there is nothing. 0: each turn. Beside a frame port a system call each
    /// turn would show.
    pub look_every_ns: u64,
    /// io_uring: a kernel thread looks for work. See [`crate::datagram::SocketConfig::sqpoll`].
    pub sqpoll: bool,
}

impl Default for StreamConfig {
    fn default() -> Self {
        StreamConfig {
            connections: None,
            reuse_port: false,
            buffer: 256 << 10,
            slow_reader_ns: 30_000_000_000,
            keep_alive_secs: 60,
            unread_chunks: 4096,
            look_every_ns: 0,
            sqpoll: false,
        }
    }
}
