//! ARP over Ethernet for IPv4 (RFC 826).

use crate::ethernet::{Mac, ethertype};
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An ARP packet for Ethernet and IPv4, 28 bytes.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ArpPacket {
    /// Kind of link: 1, Ethernet.
    pub hardware: U16,
    /// Kind of address: the EtherType of IPv4.
    pub protocol: U16,
    /// Bytes of a link address: 6.
    pub hardware_len: u8,
    /// Bytes of a protocol address: 4.
    pub protocol_len: u8,
    /// [`REQUEST`] or [`REPLY`].
    pub operation: U16,
    /// The sender's MAC.
    pub sender_mac: Mac,
    /// The sender's address; all zero in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// The target's MAC; of no meaning in a request.
    pub target_mac: Mac,
    /// The address asked for, or the one that is answered.
    pub target: [u8; 4],
}

/// [`ArpPacket::operation`]: who has it?
pub const REQUEST: u16 = 1;
/// [`ArpPacket::operation`]: I have.
pub const REPLY: u16 = 2;
/// [`ArpPacket::hardware`] of Ethernet.
pub const ETHERNET: u16 = 1;

impl ArpPacket {
    /// Bytes of the packet.
    pub const LEN: usize = 28;

    /// A packet for Ethernet and IPv4.
    pub fn new(operation: u16, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4])) -> ArpPacket {
        ArpPacket {
            hardware: U16::new(ETHERNET),
            protocol: U16::new(ethertype::IPV4),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender_mac: sender.0,
            sender: sender.1,
            target_mac: target.0,
            target: target.1,
        }
    }

    /// True when the packet is about Ethernet and IPv4.
    pub fn is_ethernet_ipv4(&self) -> bool {
        self.hardware.get() == ETHERNET
            && self.protocol.get() == ethertype::IPV4
            && (self.hardware_len, self.protocol_len) == (6, 4)
    }
}
