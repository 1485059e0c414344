//! ICMP (RFC 792), ICMPv6 (RFC 4443), and the neighbour discovery in it (RFC 4861).

use crate::ethernet::Mac;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What ICMP and ICMPv6 messages begin with, 8 bytes.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct IcmpHeader {
    /// What the message is: see [`v4`] and [`v6`].
    pub kind: u8,
    /// Which of its kind.
    pub code: u8,
    /// Checksum over the message; in ICMPv6 over a pseudo-header as well.
    pub checksum: U16,
    /// Depends on the kind: identifier and sequence number of an echo, the MTU of a "packet too big" (in ICMP: its lower half).
    pub rest: U32,
}

impl IcmpHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;
}

/// [`IcmpHeader::kind`] in ICMP.
pub mod v4 {
    /// The answer to an echo.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: it does not fit, and may not be fragmented (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// An echo is asked for.
    pub const ECHO: u8 = 8;
    /// The packet was on its way too long.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Something in the packet's header is wrong.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// [`IcmpHeader::kind`] in ICMPv6. Below 128 are errors.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// It does not fit the next link (RFC 8201).
    pub const PACKET_TOO_BIG: u8 = 2;
    /// The packet was on its way too long.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Something in the packet's header is wrong.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// An echo is asked for.
    pub const ECHO: u8 = 128;
    /// The answer to an echo.
    pub const ECHO_REPLY: u8 = 129;
    /// Who has this address?
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// I have.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// A neighbour solicitation or advertisement without its options, 24 bytes.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NeighbourMessage {
    /// Kind, code and checksum; in advertisements [`IcmpHeader::rest`] holds the flags.
    pub header: IcmpHeader,
    /// The address asked for, or whose MAC is told.
    pub target: [u8; 16],
}

impl NeighbourMessage {
    /// Bytes of the message without options.
    pub const LEN: usize = 24;
    /// Flag of an advertisement: it answers a solicitation.
    pub const SOLICITED: u32 = 0x4000_0000;
    /// Flag of an advertisement: it replaces what is known.
    pub const OVERRIDE: u32 = 0x2000_0000;
}

/// The option that holds a MAC, 8 bytes.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LinkAddressOption {
    /// [`SOURCE_LINK_ADDRESS`] or [`TARGET_LINK_ADDRESS`].
    pub kind: u8,
    /// Length in units of 8 bytes: 1.
    pub length: u8,
    /// The MAC.
    pub mac: Mac,
}

impl LinkAddressOption {
    /// Bytes of the option.
    pub const LEN: usize = 8;
}

/// [`LinkAddressOption::kind`] in a solicitation: the MAC of who asks.
pub const SOURCE_LINK_ADDRESS: u8 = 1;
/// [`LinkAddressOption::kind`] in an advertisement: the MAC of the target.
pub const TARGET_LINK_ADDRESS: u8 = 2;

/// The group every node listens to on its link: ff02::1.
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// The group in which `address` is asked for (RFC 4291, 2.7.1).
pub const fn solicited_node(address: &[u8; 16]) -> [u8; 16] {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, address[13], address[14], address[15]]
}

/// The MAC of an IPv6 group (RFC 2464, section 7).
pub const fn group_mac(group: &[u8; 16]) -> Mac {
    [0x33, 0x33, group[12], group[13], group[14], group[15]]
}

/// The MAC option of `kind` among `options`; `Err` when they are malformed (RFC 4861, 7.1: then all of the message is).
#[allow(clippy::result_unit_err)]
pub fn link_address(mut options: &[u8], kind: u8) -> Result<Option<Mac>, ()> {
    let mut found = None;
    while let [option, units, ..] = *options {
        let length = units as usize * 8;
        if length == 0 || length > options.len() {
            return Err(());
        }
        if option == kind && units == 1 && found.is_none() {
            found = options[2..8].try_into().ok();
        }
        options = &options[length..];
    }
    if options.is_empty() { Ok(found) } else { Err(()) }
}
