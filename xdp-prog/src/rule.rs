//! Rules as an application states them.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
pub use volley_steer::{Action, Protocol, Unbound};

/// What to do with packets for some destination ports.
///
/// ```
/// use volley_xdp::{Action, Protocol, Rule, Unbound};
/// let game = Rule {
///     protocol: Protocol::Udp,
///     ports: 7777..=7780,
///     addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
///     action: Action::Redirect { unbound: Unbound::Pass },
///     syn_limit: None,
/// };
/// assert_eq!(game.to_string(), "udp 7777-7780 to 192.0.2.1, 2001:db8::/64: redirect, else pass");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// UDP or TCP.
    pub protocol: Protocol,
    /// Destination ports.
    pub ports: RangeInclusive<u16>,
    /// Destination addresses, at most four; empty for every address of both IP versions.
    pub addresses: Vec<Prefix>,
    /// What is done with them.
    pub action: Action,
    /// How many SYNs may come; what is beyond is dropped and counted. TCP only.
    pub syn_limit: Option<SynLimit>,
}

/// A limit on the SYNs that one rule lets through on each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynLimit {
    /// In the long run, each second.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        };
        write!(f, "{protocol} {}", self.ports.start())?;
        if self.ports.end() != self.ports.start() {
            write!(f, "-{}", self.ports.end())?;
        }
        for (i, prefix) in self.addresses.iter().enumerate() {
            write!(f, "{}{prefix}", if i == 0 { " to " } else { ", " })?;
        }
        f.write_str(match self.action {
            Action::Redirect { unbound: Unbound::Pass } => ": redirect, else pass",
            Action::Redirect { unbound: Unbound::Drop } => ": redirect, else drop",
            Action::Pass => ": pass",
            Action::Drop => ": drop",
        })?;
        match self.syn_limit {
            Some(SynLimit { per_second, burst }) => {
                write!(f, "; SYNs: {per_second} a second, {burst} at once")
            }
            None => Ok(()),
        }
    }
}

/// Addresses that share their first bits: `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

/// Not an address prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an address or prefix: write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32")]
pub struct NotAPrefix(pub String);

impl Prefix {
    /// The addresses that share the first `len` bits of `address`; `None` when it has fewer bits.
    pub fn new(address: IpAddr, len: u8) -> Option<Prefix> {
        (len <= width(address)).then_some(Prefix { address, len })
    }

    /// The address it was made with.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits count.
    pub fn bits(&self) -> u8 {
        self.len
    }

    /// True when some address is in both.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        let len = self.len.min(other.len);
        match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(len),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(len),
            _ => false,
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Prefix {
        Prefix { address, len: width(address) }
    }
}

impl FromStr for Prefix {
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Prefix, NotAPrefix> {
        let parsed = match text.split_once('/') {
            None => text.parse::<IpAddr>().ok().map(Prefix::from),
            Some((address, len)) => address
                .parse()
                .ok()
                .zip(len.parse().ok())
                .and_then(|(address, len)| Prefix::new(address, len)),
        };
        parsed.ok_or_else(|| NotAPrefix(text.to_owned()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == width(self.address) {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.len)
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = NotAPrefix;

    fn try_from(text: String) -> Result<Prefix, NotAPrefix> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_read_and_write() {
        for text in ["10.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/33", "fd77::1"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("10.0.0.1/32").to_string(), "10.0.0.1");
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0/8", "host"] {
            assert_eq!(text.parse::<Prefix>(), Err(NotAPrefix(text.to_owned())));
        }
    }

    #[test]
    fn prefixes_overlap_when_one_holds_the_other() {
        assert!(prefix("10.0.0.0/8").overlaps(&prefix("10.9.8.7")));
        assert!(prefix("10.9.8.7").overlaps(&prefix("0.0.0.0/0")));
        assert!(!prefix("10.0.0.0/9").overlaps(&prefix("10.128.0.0/9")));
        assert!(prefix("fd77::/16").overlaps(&prefix("fd77::1")));
        assert!(!prefix("::/0").overlaps(&prefix("0.0.0.0/0")));
    }
}
