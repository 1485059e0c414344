//! What a device is and offers, in words of our own.

use std::fmt;
use volley_dpdk_sys as sys;

macro_rules! bits {
    ($(#[$doc:meta])* $name:ident { $($(#[$bit_doc:meta])* $bit:ident = $value:ident, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub(crate) u32);

        impl $name {
            /// None.
            pub const NONE: $name = $name(0);
            $($(#[$bit_doc])* pub const $bit: $name = $name(sys::$value as u32);)*
            /// Each on its own, with its name.
            pub const EACH: &'static [($name, &'static str)] = &[$(($name::$bit, $text),)*];

            /// Both together.
            #[must_use]
            pub const fn with(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }

            /// What is in both.
            #[must_use]
            pub const fn among(self, other: $name) -> $name {
                $name(self.0 & other.0)
            }

            /// What is here and not there.
            #[must_use]
            pub const fn without(self, other: $name) -> $name {
                $name(self.0 & !other.0)
            }

            /// True when all of `other` is here.
            pub const fn has(self, other: $name) -> bool {
                self.0 & other.0 == other.0
            }

            /// True when there is nothing.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let names: Vec<&str> = Self::EACH.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name).collect();
                f.write_str(if names.is_empty() { "none".into() } else { names.join(", ") }.as_str())
            }
        }
    };
}

bits! {
    /// Work a device takes over.
    Offloads {
        /// Takes the VLAN tag off received packets.
        RX_VLAN_STRIP = VOLLEY_RX_VLAN_STRIP, "rx vlan strip";
        /// Verifies IPv4 header checksums.
        RX_IPV4_CHECKSUM = VOLLEY_RX_IPV4_CHECKSUM, "rx ipv4 checksum";
        /// Verifies UDP checksums.
        RX_UDP_CHECKSUM = VOLLEY_RX_UDP_CHECKSUM, "rx udp checksum";
        /// Verifies TCP checksums.
        RX_TCP_CHECKSUM = VOLLEY_RX_TCP_CHECKSUM, "rx tcp checksum";
        /// Spreads a packet over several mbufs.
        RX_SCATTER = VOLLEY_RX_SCATTER, "rx scatter";
        /// Notes when a packet came.
        RX_TIMESTAMP = VOLLEY_RX_TIMESTAMP, "rx timestamp";
        /// Notes a packet's RSS hash.
        RX_RSS_HASH = VOLLEY_RX_RSS_HASH, "rx rss hash";
        /// Puts the VLAN tag into packets it sends.
        TX_VLAN_INSERT = VOLLEY_TX_VLAN_INSERT, "tx vlan insert";
        /// Computes IPv4 header checksums.
        TX_IPV4_CHECKSUM = VOLLEY_TX_IPV4_CHECKSUM, "tx ipv4 checksum";
        /// Computes UDP checksums.
        TX_UDP_CHECKSUM = VOLLEY_TX_UDP_CHECKSUM, "tx udp checksum";
        /// Computes TCP checksums.
        TX_TCP_CHECKSUM = VOLLEY_TX_TCP_CHECKSUM, "tx tcp checksum";
        /// Sends packets of several mbufs.
        TX_MULTI_SEGMENT = VOLLEY_TX_MULTI_SEGMENT, "tx several segments";
        /// Frees sent mbufs in bulk, when all are single, unshared and of one pool a queue.
        TX_FAST_FREE = VOLLEY_TX_FAST_FREE, "tx fast free";
    }
}

bits! {
    /// What the RSS hash is computed over.
    Hash {
        /// Addresses of IPv4 packets with no known transport.
        IPV4 = VOLLEY_RSS_IPV4, "ipv4";
        /// Addresses of IPv6 packets with no known transport.
        IPV6 = VOLLEY_RSS_IPV6, "ipv6";
        /// Addresses and ports of UDP over IPv4.
        IPV4_UDP = VOLLEY_RSS_IPV4_UDP, "ipv4-udp";
        /// Addresses and ports of UDP over IPv6.
        IPV6_UDP = VOLLEY_RSS_IPV6_UDP, "ipv6-udp";
        /// Addresses and ports of TCP over IPv4.
        IPV4_TCP = VOLLEY_RSS_IPV4_TCP, "ipv4-tcp";
        /// Addresses and ports of TCP over IPv6.
        IPV6_TCP = VOLLEY_RSS_IPV6_TCP, "ipv6-tcp";
        /// Addresses of IPv4 fragments.
        IPV4_FRAGMENT = VOLLEY_RSS_IPV4_FRAGMENT, "ipv4-fragment";
        /// Addresses of IPv6 fragments.
        IPV6_FRAGMENT = VOLLEY_RSS_IPV6_FRAGMENT, "ipv6-fragment";
        /// Of all the above, only the source address.
        SOURCE_ONLY = VOLLEY_RSS_L3_ONLY, "source address only";
    }
}

impl Hash {
    /// Addresses alone, whatever the transport: what sends a client's UDP, TCP and fragments to one queue. Devices that know
    /// no transport hash everything so.
    pub const ADDRESSES: Hash =
        Hash::IPV4.with(Hash::IPV6).with(Hash::IPV4_FRAGMENT).with(Hash::IPV6_FRAGMENT);
    /// Addresses, and ports where there are some.
    pub const FLOWS: Hash =
        Hash::ADDRESSES.with(Hash::IPV4_UDP).with(Hash::IPV6_UDP).with(Hash::IPV4_TCP).with(Hash::IPV6_TCP);
}

/// What a device is and offers.
#[derive(Clone, Debug)]
pub struct Info {
    /// DPDK's number of the port.
    pub id: u16,
    /// Name: a PCI address, or that of a virtual device.
    pub name: String,
    /// The driver in charge.
    pub driver: String,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU now.
    pub mtu: u16,
    /// The MTUs it can have.
    pub mtus: (u16, u16),
    /// The longest frame it takes, in bytes.
    pub max_frame: u32,
    /// Its NUMA node; -1 when it is near all or none.
    pub node: i32,
    /// Most receive and transmit queues.
    pub max_queues: (u16, u16),
    /// Fewest and most descriptors of a receive queue.
    pub rx_descriptors: (u16, u16),
    /// Fewest and most descriptors of a transmit queue.
    pub tx_descriptors: (u16, u16),
    /// The driver's own choice of descriptors, receive and transmit; 0 when it has none.
    pub default_descriptors: (u16, u16),
    /// Most mbufs of a packet to send; 0 when the driver does not say.
    pub max_segments: u16,
    /// What it can take over.
    pub offloads: Offloads,
    /// What it can hash.
    pub hash: Hash,
    /// Entries of its RSS indirection table; 0 when there is none to set.
    pub indirection: u16,
    /// Bytes of its RSS key.
    pub key_len: u8,
}

impl Info {
    pub(crate) fn of(id: u16) -> Result<Info, i32> {
        let mut device = sys::volley_device::default();
        // SAFETY: a place to write.
        let failed = unsafe { sys::volley_device_get(id, &mut device) };
        if failed != 0 {
            return Err(failed);
        }
        Ok(Info {
            id,
            name: text(&device.name),
            driver: text(&device.driver),
            mac: device.mac,
            mtu: device.mtu,
            mtus: (device.min_mtu, device.max_mtu),
            max_frame: device.max_frame,
            node: device.socket,
            max_queues: (device.max_rx_queues, device.max_tx_queues),
            rx_descriptors: (device.min_rx_descriptors, device.max_rx_descriptors),
            tx_descriptors: (device.min_tx_descriptors, device.max_tx_descriptors),
            default_descriptors: (device.rx_descriptors, device.tx_descriptors),
            max_segments: device.max_tx_segments,
            offloads: Offloads(device.offloads),
            hash: Hash(device.rss),
            indirection: device.reta_size,
            key_len: device.rss_key_size,
        })
    }

    /// True for a device that is a program's work, not a NIC's.
    pub fn is_virtual(&self) -> bool {
        !crate::pci::is_address(&self.name)
    }
}

/// A C string in an array.
pub(crate) fn text(bytes: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
