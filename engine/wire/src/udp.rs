//! UDP (RFC 768).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// UDP header, 8 bytes.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UdpHeader {
    /// Source port.
    pub source: U16,
    /// Destination port.
    pub destination: U16,
    /// Bytes of this header and the payload (at least 8).
    pub length: U16,
    /// Checksum over pseudo-header, header and payload; 0 means none (IPv4 only).
    pub checksum: U16,
}

impl UdpHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;
}
