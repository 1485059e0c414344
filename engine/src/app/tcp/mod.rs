//! The stream apps that come with the engine: the classical services of RFC 862, 863 and 864, and what sockperf's client
//! wants, for measuring and for kernel tools to be pointed at. Each runs over any stream port.

mod chargen;
mod discard;
mod echo;
mod sockperf;

pub use chargen::TcpChargen;
pub use discard::TcpDiscard;
pub use echo::TcpEcho;
pub use sockperf::TcpSockperf;

/// Bytes one callback moves on one stream before others get their turn.
const PER_TURN: usize = 256 << 10;

#[cfg(test)]
mod tests;
