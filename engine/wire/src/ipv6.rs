//! IPv6 and its extension headers (RFC 8200).

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use crate::ipv4::protocol;

/// Most extension headers followed before a packet is given up as hostile.
pub const MAX_EXTENSION_HEADERS: usize = 4;

/// IPv6 header, 40 bytes.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: U32,
    /// Bytes after this header, extension headers included.
    pub payload_length: U16,
    /// What follows: an extension header or the transport protocol.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// Bytes of the header.
    pub const LEN: usize = 40;

    /// The IP version: 6 in a valid header.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        (self.version_class_flow.get() >> 28) as u8
    }
}

/// The first two bytes of a hop-by-hop, destination or routing header.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExtensionHeader {
    /// What follows this header.
    pub next_header: u8,
    /// Length in 8-byte units, not counting the first 8 bytes.
    pub length: u8,
}

impl ExtensionHeader {
    /// Bytes of the part read here; the least an extension header has is 8.
    pub const LEN: usize = 2;

    /// Bytes of the whole extension header (8 to 2,048).
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (self.length as usize + 1) * 8
    }
}

/// True for the extension headers that are stepped over to find the transport header.
#[inline(always)]
pub const fn is_skippable(next_header: u8) -> bool {
    matches!(next_header, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION)
}
