//! Ethernet II and VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A 48-bit MAC address in transmission order.
pub type Mac = [u8; 6];

/// The broadcast MAC address.
pub const BROADCAST: Mac = [0xff; 6];

/// EtherType values the engine knows, in host order.
pub mod ethertype {
    /// Internet Protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address Resolution Protocol.
    pub const ARP: u16 = 0x0806;
    /// 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// Internet Protocol version 6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
}

/// Most VLAN tags a frame may carry; a third makes it somebody else's.
pub const MAX_VLAN_TAGS: usize = 2;

/// Ethernet II header, 14 bytes.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EthernetHeader {
    /// Destination MAC address.
    pub destination: Mac,
    /// Source MAC address.
    pub source: Mac,
    /// EtherType of what follows.
    pub ethertype: U16,
}

impl EthernetHeader {
    /// Bytes of the header.
    pub const LEN: usize = 14;
}

/// The four bytes a VLAN tag adds after the source MAC: control information, then the next EtherType.
///
/// The tag's own protocol identifier (0x8100 or 0x88a8) is the EtherType of the header before it.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (3 bits), drop eligibility (1), VLAN identifier (12).
    pub tci: U16,
    /// EtherType of what follows the tag.
    pub ethertype: U16,
}

impl VlanTag {
    /// Bytes of the tag.
    pub const LEN: usize = 4;
}

/// True for an EtherType that announces a VLAN tag.
#[inline(always)]
pub const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::QINQ)
}

/// True for a group address (broadcast included): the lowest bit of the first byte.
#[inline(always)]
pub const fn is_multicast(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}
