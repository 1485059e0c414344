//! A device's offloads, RSS table and ring size, from the kernel's `ethtool` generic-netlink family.
//!
//! Source: Documentation/networking/ethtool-netlink.rst; linux/ethtool_netlink.h. Linux 5.6 has the family, 6.3 tells the RSS
//! table. Receive rules (ntuple) are not in it: those are asked by ioctl, see [`super::ethtool`].

use super::netdev::{exchange, family_id};
use netlink_packet_core::{DecodeError, Emitable, NlasIterator, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::collections::BTreeMap;
use std::io;

/// `ETHTOOL_MSG_*_GET`.
const FEATURES_GET: u8 = 11;
const RINGS_GET: u8 = 15;
const RSS_GET: u8 = 38;
/// `NLA_F_NESTED`, and what of an attribute's type is its number.
const NESTED: u16 = 1 << 15;
const KIND: u16 = !(3 << 14);

/// Attributes, by the message or nest they stand in.
mod attribute {
    /// Of every request: `ETHTOOL_A_*_HEADER`, and `ETHTOOL_A_HEADER_DEV_INDEX` in it.
    pub const HEADER: u16 = 1;
    pub const DEV_INDEX: u16 = 1;
    pub const FEATURES_HW: u16 = 2;
    pub const FEATURES_ACTIVE: u16 = 4;
    pub const RSS_INDIR: u16 = 4;
    pub const RINGS_RX: u16 = 6;
    /// Of a bitset, of its bits, of one bit.
    pub const BITS: u16 = 3;
    pub const BIT: u16 = 1;
    pub const BIT_NAME: u16 = 2;
}

/// Every feature (offload) of interface `index` by ethtool's name, and whether it is on.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::Unsupported`] before Linux 5.6.
pub fn features(index: u32) -> io::Result<BTreeMap<String, bool>> {
    let answer = ask(index, FEATURES_GET)?;
    // The first lists every feature there is, the second those that are on.
    let on = names(&answer, attribute::FEATURES_ACTIVE);
    Ok(names(&answer, attribute::FEATURES_HW)
        .into_iter()
        .map(|name| (name.clone(), on.contains(&name)))
        .collect())
}

/// The RSS table of interface `index`: the queue for each value of the hash.
///
/// # Errors
/// The kernel's; EOPNOTSUPP when the driver has no such table or does not tell.
pub fn rss(index: u32) -> io::Result<Vec<u32>> {
    let answer = ask(index, RSS_GET)?;
    let table = nest(&answer, attribute::RSS_INDIR).next().unwrap_or_default();
    Ok(table.chunks_exact(4).map(word).collect())
}

/// Descriptors of each receive ring of interface `index`, as it is set.
///
/// # Errors
/// The kernel's; EOPNOTSUPP when the driver has no such rings.
pub fn rx_ring(index: u32) -> io::Result<u32> {
    let answer = ask(index, RINGS_GET)?;
    Ok(nest(&answer, attribute::RINGS_RX).next().map_or(0, |value| word(&value)))
}

fn word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

fn ask(index: u32, command: u8) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut attributes = Vec::new();
    attributes.extend(12u16.to_ne_bytes());
    attributes.extend((attribute::HEADER | NESTED).to_ne_bytes());
    attributes.extend(8u16.to_ne_bytes());
    attributes.extend(attribute::DEV_INDEX.to_ne_bytes());
    attributes.extend(index.to_ne_bytes());
    let mut question = GenlMessage::from_payload(Ethtool { command, attributes });
    question.set_resolved_family_id(family_id::<Ethtool>(&socket)?);
    Ok(exchange(&socket, question)?.payload.attributes)
}

/// A question or an answer, its attributes as they are on the wire.
#[derive(Clone, Debug)]
struct Ethtool {
    command: u8,
    attributes: Vec<u8>,
}

impl GenlFamily for Ethtool {
    fn family_name() -> &'static str {
        "ethtool"
    }
    fn command(&self) -> u8 {
        self.command
    }
    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Ethtool {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }
    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Ethtool {
    fn parse_with_param(buffer: &[u8], header: GenlHeader) -> Result<Ethtool, DecodeError> {
        Ok(Ethtool { command: header.cmd, attributes: buffer.to_vec() })
    }
}

/// The values of the attributes of that kind; what is cut short ends the list.
fn nest(bytes: &[u8], kind: u16) -> impl Iterator<Item = Vec<u8>> {
    let whole = NlasIterator::new(bytes).map_while(Result::ok);
    whole
        .filter(move |attribute| attribute.kind() & KIND == kind)
        .map(|attribute| attribute.value().to_vec())
}

/// The names of the bits in the bitset `set`.
fn names(answer: &[u8], set: u16) -> Vec<String> {
    let mut names = Vec::new();
    for bits in nest(answer, set).flat_map(|set| nest(&set, attribute::BITS).collect::<Vec<_>>()) {
        for bit in nest(&bits, attribute::BIT) {
            let name = nest(&bit, attribute::BIT_NAME).next().unwrap_or_default();
            names.push(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One attribute, padded.
    fn put(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn bitset(kind: u16, names: &[&str]) -> Vec<u8> {
        let bit = |name: &&str| {
            put(attribute::BIT | NESTED, &put(attribute::BIT_NAME, &[name.as_bytes(), b"\0"].concat()))
        };
        let bits: Vec<u8> = names.iter().flat_map(bit).collect();
        put(kind | NESTED, &[put(2, &64u32.to_ne_bytes()), put(attribute::BITS | NESTED, &bits)].concat())
    }

    #[test]
    fn a_bitset_is_read_by_name() {
        let answer = [
            put(attribute::HEADER | NESTED, &put(1, &3u32.to_ne_bytes())),
            bitset(attribute::FEATURES_HW, &["rx-gro", "rx-lro", "tx-checksum-ip-generic"]),
            bitset(attribute::FEATURES_ACTIVE, &["rx-gro"]),
        ]
        .concat();
        assert_eq!(names(&answer, attribute::FEATURES_ACTIVE), ["rx-gro"]);
        assert_eq!(names(&answer, attribute::FEATURES_HW).len(), 3);
        assert_eq!(names(&answer[..answer.len() - 5], attribute::FEATURES_ACTIVE).len(), 0, "cut short");
    }

    #[test]
    fn a_number_is_read_by_its_attribute() {
        let answer =
            [put(2, &4096u32.to_ne_bytes()), put(attribute::RINGS_RX, &512u32.to_ne_bytes())].concat();
        assert_eq!(nest(&answer, attribute::RINGS_RX).next().map(|value| word(&value)), Some(512));
        assert_eq!(nest(&answer, 7).next(), None);
    }

    #[test]
    fn loopback_tells_its_features() {
        let features = features(1).unwrap();
        // Loopback is always able to loop back, and no setting changes that.
        assert_eq!(features.get("loopback"), Some(&true), "{features:?}");
        assert!(features.contains_key("rx-gro") && features.contains_key("tx-checksum-ip-generic"));
        assert!(features.values().any(|on| !on), "some are off: {features:?}");
    }

    #[test]
    fn what_a_device_does_not_have_is_an_error() {
        assert!(rss(1).is_err(), "loopback has no queues to spread over");
        assert_eq!(rx_ring(1).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_eq!(features(u32::MAX >> 1).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
