//! Addresses in the one form the tables use: 16 bytes in four words, IPv4 as IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The third word of an IPv4-mapped address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// An address as four words that hold its bytes as they are on the wire. Words, not bytes, so that copies and comparisons are
/// of words whatever the compiler sees.
pub(crate) type Address = [u32; 4];

/// The 16-byte form of an address.
#[inline(always)]
pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(four) => [0, 0, MAPPED, u32::from_ne_bytes(four.octets())],
        IpAddr::V6(six) => zerocopy::transmute!(six.octets()),
    }
}

/// Whether a 16-byte address is IPv4.
#[inline(always)]
pub(crate) fn is_v4(address: &Address) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == MAPPED
}

/// The bytes of an address, as on the wire.
#[inline(always)]
pub(crate) fn bytes(address: &Address) -> &[u8; 16] {
    zerocopy::transmute_ref!(address)
}

/// The address as the standard library has it.
#[inline(always)]
pub(crate) fn ip(address: &Address) -> IpAddr {
    if is_v4(address) {
        IpAddr::from(address[3].to_ne_bytes())
    } else {
        IpAddr::V6(Ipv6Addr::from(*bytes(address)))
    }
}

/// The four things that name a connection, seen from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub(crate) struct FlowKey {
    pub local: Address,
    pub remote: Address,
    pub local_port: u16,
    pub remote_port: u16,
}

impl FlowKey {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> FlowKey {
        FlowKey {
            local: address(local.ip()),
            remote: address(remote.ip()),
            local_port: local.port(),
            remote_port: remote.port(),
        }
    }

    pub(crate) fn is_v4(&self) -> bool {
        is_v4(&self.remote)
    }

    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(ip(&self.local), self.local_port)
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        SocketAddr::new(ip(&self.remote), self.remote_port)
    }

    /// Bytes of IP header without options.
    pub(crate) fn ip_header_len(&self) -> u16 {
        if self.is_v4() { 20 } else { 40 }
    }
}

/// Whether an address can be a TCP peer: unicast and specified (RFC 9293, section 3.9.2.3, MUST-63, MUST-46).
pub(crate) fn can_be_peer(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(four) => !(four.is_unspecified() || four.is_multicast() || four.is_broadcast()),
        IpAddr::V6(six) => !(six.is_unspecified() || six.is_multicast()),
    }
}

const _: () = assert!(size_of::<FlowKey>() == 36);
