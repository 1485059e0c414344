//! Why an operation was refused.

use std::net::SocketAddr;

/// Why an operation was refused. Nothing has changed when one is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is of a connection or listener that is gone.
    #[error("no such connection or listener: it was closed, and its slot may be another's by now")]
    Stale,
    /// The connection has ended; `close` gives its slot back.
    #[error("the connection has ended: read what is left, then close it")]
    Ended,
    /// This direction has been closed by `shutdown` or `close`.
    #[error("nothing can be written after shutdown")]
    ShutDown,
    /// All connections are in use.
    #[error("all {0} connections are in use: raise max_connections")]
    NoSlot(u32),
    /// Another listener or connection has these addresses.
    #[error("{0} is in use")]
    AddressInUse(SocketAddr),
    /// The addresses are of different families, or one cannot be a peer.
    #[error(
        "cannot connect to {0}: a peer has a unicast address and a port, of the local address's family"
    )]
    BadAddress(SocketAddr),
    /// Every ephemeral port towards this peer is in use.
    #[error("no local port is left towards {0}: widen ephemeral_ports, or connect from another address")]
    NoPort(SocketAddr),
}
