//! The fixed TCP header (RFC 9293, section 3.1) as a view over bytes.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fixed part of a TCP header, 20 bytes; options follow.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct TcpHeader {
    /// Source port.
    pub source: U16,
    /// Destination port.
    pub destination: U16,
    /// Sequence number of the first byte, or of SYN.
    pub sequence: U32,
    /// The next sequence number expected, when ACK is set.
    pub acknowledgment: U32,
    /// Header length in 32-bit words, in the upper four bits.
    pub offset: u8,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN, from the upper bit down.
    pub flags: u8,
    /// Receive window, not yet scaled.
    pub window: U16,
    /// Checksum over pseudo-header, header and payload.
    pub checksum: U16,
    /// Where urgent data ends, when URG is set.
    pub urgent: U16,
}

impl TcpHeader {
    /// Bytes of the fixed header.
    pub(crate) const LEN: usize = 20;

    /// Bytes of header and options.
    pub(crate) const fn header_len(&self) -> usize {
        (self.offset >> 4) as usize * 4
    }
}
