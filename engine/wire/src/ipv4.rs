//! IPv4 (RFC 791).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// IPv4 header without options, 20 bytes.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4 bits) and header length in 32-bit words (4 bits).
    pub version_ihl: u8,
    /// Differentiated services (6 bits) and ECN (2 bits).
    pub dscp_ecn: u8,
    /// Bytes of header and payload.
    pub total_length: U16,
    /// Fragment group.
    pub identification: U16,
    /// Flags (3 bits) and fragment offset in 8-byte units (13 bits).
    pub flags_fragment: U16,
    /// Hops left.
    pub ttl: u8,
    /// Protocol of the payload, see [`protocol`].
    pub protocol: u8,
    /// Checksum over the header and its options.
    pub checksum: U16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Bytes of the header without options.
    pub const LEN: usize = 20;
    /// Flag "don't fragment" in [`Ipv4Header::flags_fragment`].
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// Flag "more fragments" in [`Ipv4Header::flags_fragment`].
    pub const MORE_FRAGMENTS: u16 = 0x2000;

    /// The IP version: 4 in a valid header.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Bytes of the header with its options, as the header says (0 to 60; below 20 is invalid).
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0x0f) as usize * 4
    }

    /// True when this is a piece of a datagram: more fragments follow, or the offset is not zero.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & (Self::MORE_FRAGMENTS | 0x1fff) != 0
    }
}

/// Protocol numbers (IPv4) and next-header values (IPv6), from the IANA registry.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 "no next header".
    pub const NO_NEXT: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
}
