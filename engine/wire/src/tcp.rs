//! The two TCP ports (RFC 9293): all that steering reads of a segment.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first four bytes of a TCP header.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TcpPorts {
    /// Source port.
    pub source: U16,
    /// Destination port.
    pub destination: U16,
}

impl TcpPorts {
    /// Bytes of the two ports.
    pub const LEN: usize = 4;
    /// Bytes of the least valid TCP header; a segment shorter than this is a runt.
    pub const MIN_HEADER_LEN: usize = 20;
}
