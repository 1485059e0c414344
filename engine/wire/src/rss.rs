//! Receive-side scaling: the Toeplitz hash that NICs spread packets by, computed in software, and the owner it gives a peer.
//!
//! ```text
//!   source address │ destination address │ ports …       bits, first to last
//!   key:  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒          for each bit that is set, 32 bits of the key
//!         └─ 32 bits ─┘ ► one bit on for each bit         from there on are added (xor)
//! ```
//!
//! **Owner.** A client's UDP, TCP and fragments meet on one worker when the owner is a function of the addresses alone. NICs do
//! not agree on hashing one address only, so both go in, ours too; a client that talks to two of our addresses may have two owners.

/// Bytes of a key: what most NICs take, and enough for two IPv6 addresses and two ports.
pub const KEY_LEN: usize = 40;

/// A key whose 16-bit words are all alike (0x6d5a): swapping source and destination, which are multiples of 16 bits long, leaves
/// the hash as it is. Any other repeated word would do; this one has its bits well spread.
pub const SYMMETRIC_KEY: [u8; KEY_LEN] = {
    let mut key = [0; KEY_LEN];
    let mut at = 0;
    while at < KEY_LEN {
        key[at] = 0x6d;
        key[at + 1] = 0x5a;
        at += 2;
    }
    key
};

/// The key in the specification of RSS, which many drivers start with.
pub const DEFAULT_KEY: [u8; KEY_LEN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The Toeplitz hash of `input`, of which at most the first 36 bytes have a meaning with a 40-byte key.
pub fn toeplitz(key: &[u8; KEY_LEN], input: impl IntoIterator<Item = u8>) -> u32 {
    let mut hash = 0;
    // The 32 bits that are added for the next bit, and the byte that moves in next.
    let mut window = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    let mut coming = key[4..].iter().copied();
    for byte in input {
        let next = coming.next().unwrap_or(0);
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                hash ^= window;
            }
            window = window << 1 | u32::from(next >> bit & 1);
        }
    }
    hash
}

/// The hash of two IPv4 addresses.
pub fn ipv4(key: &[u8; KEY_LEN], source: [u8; 4], destination: [u8; 4]) -> u32 {
    toeplitz(key, source.into_iter().chain(destination))
}

/// The hash of two IPv6 addresses.
pub fn ipv6(key: &[u8; KEY_LEN], source: [u8; 16], destination: [u8; 16]) -> u32 {
    toeplitz(key, source.into_iter().chain(destination))
}

/// Who owns a peer: the same hash as the NIC's, through the same table.
#[derive(Clone, Copy, Debug)]
pub struct Owners<'t> {
    /// The key the NIC was given.
    pub key: &'t [u8; KEY_LEN],
    /// The indirection table it was given: the queue (or worker) of each hash, modulo the table's length.
    pub table: &'t [u16],
}

impl Owners<'_> {
    /// The queue of packets between two IPv4 addresses; `None` when the table is empty.
    pub fn of_ipv4(&self, peer: [u8; 4], local: [u8; 4]) -> Option<u16> {
        self.entry(ipv4(self.key, peer, local))
    }

    /// The queue of packets between two IPv6 addresses; `None` when the table is empty.
    pub fn of_ipv6(&self, peer: [u8; 16], local: [u8; 16]) -> Option<u16> {
        self.entry(ipv6(self.key, peer, local))
    }

    fn entry(&self, hash: u32) -> Option<u16> {
        self.table.get(hash.checked_rem(self.table.len() as u32)? as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the scripts program into a NIC is what workers compute with.
    #[test]
    fn the_scripts_have_the_same_key() {
        let file = include_str!("../../../hw-setup/rss-key");
        let line = file.lines().find(|line| !line.starts_with('#')).unwrap();
        assert!(line.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).eq(SYMMETRIC_KEY));
    }

    /// One line of the verification suite of the RSS specification.
    struct Line {
        destination: ([u8; 4], u16),
        source: ([u8; 4], u16),
        /// Of the addresses alone.
        addresses: u32,
        /// With the ports.
        flow: u32,
    }

    const fn line(destination: ([u8; 4], u16), source: ([u8; 4], u16), addresses: u32, flow: u32) -> Line {
        Line { destination, source, addresses, flow }
    }

    const IPV4: [Line; 5] = [
        line(([161, 142, 100, 80], 1766), ([66, 9, 149, 187], 2794), 0x323e8fc2, 0x51ccc178),
        line(([65, 69, 140, 83], 4739), ([199, 92, 111, 2], 14230), 0xd718262a, 0xc626b0ea),
        line(([12, 22, 207, 184], 38024), ([24, 19, 198, 95], 12898), 0xd2d0a5de, 0x5c2b394a),
        line(([209, 142, 163, 6], 2217), ([38, 27, 205, 30], 48228), 0x82989176, 0xafc7327f),
        line(([202, 188, 127, 2], 1303), ([153, 39, 163, 191], 44251), 0x5d1809c5, 0x10e828a2),
    ];

    #[test]
    fn ipv4_hashes_are_those_of_the_specification() {
        for Line { destination: (destination, to), source: (source, from), addresses, flow } in IPV4 {
            assert_eq!(ipv4(&DEFAULT_KEY, source, destination), addresses, "{source:?}");
            let ports = from.to_be_bytes().into_iter().chain(to.to_be_bytes());
            let input = source.into_iter().chain(destination).chain(ports);
            assert_eq!(toeplitz(&DEFAULT_KEY, input), flow, "{source:?} with ports");
        }
    }

    #[test]
    fn ipv6_hashes_are_those_of_the_specification() {
        let six = |text: &str| text.parse::<core::net::Ipv6Addr>().map(|a| a.octets()).unwrap_or([0; 16]);
        for (destination, source, hash) in [
            ("3ffe:2501:200:3::1", "3ffe:2501:200:1fff::7", 0x2cc18cd5),
            ("ff02::1", "3ffe:501:8::260:97ff:fe40:efab", 0x0f0c461c),
            ("fe80::200:f8ff:fe21:67cf", "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 0x4b61e985),
        ] {
            assert_eq!(ipv6(&DEFAULT_KEY, six(source), six(destination)), hash, "{source}");
        }
    }

    #[test]
    fn with_the_symmetric_key_both_directions_hash_alike() {
        for Line { destination: (a, _), source: (b, _), addresses, .. } in IPV4 {
            let hash = ipv4(&SYMMETRIC_KEY, a, b);
            assert_eq!(hash, ipv4(&SYMMETRIC_KEY, b, a));
            assert_ne!(hash, addresses);
            assert_ne!(ipv4(&DEFAULT_KEY, a, b), ipv4(&DEFAULT_KEY, b, a));
        }
    }

    #[test]
    fn an_owner_is_the_table_entry_of_the_hash() {
        let table: [u16; 128] = core::array::from_fn(|entry| (entry % 3) as u16);
        let owners = Owners { key: &DEFAULT_KEY, table: &table };
        let Line { destination: (local, _), source: (peer, _), addresses: hash, .. } = IPV4[0];
        assert_eq!(owners.of_ipv4(peer, local), Some((hash % 128 % 3) as u16));
        assert_eq!(Owners { key: &DEFAULT_KEY, table: &[] }.of_ipv4(peer, local), None);
        // Peers are spread: no owner of three gets more than half of 256 neighbours.
        let mut got = [0; 3];
        for last in 0..=255 {
            let owner = owners.of_ipv4([10, 0, 0, last], local);
            got[usize::from(owner.unwrap_or(0))] += 1;
        }
        assert!(got.iter().all(|count| (43..=128).contains(count)), "{got:?}");
    }
}
