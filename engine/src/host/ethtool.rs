//! A device's driver and receive rules (ntuple), by the ethtool ioctls (linux/ethtool.h). What ethtool's netlink family tells is
//! asked there, see [`super::ethnl`].

use super::link::{SIOCETHTOOL, request_for, socket};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
const ETHTOOL_GRXCLSRULE: u32 = 0x2f;
const ETHTOOL_GRXCLSRLALL: u32 = 0x30;
/// The set of strings that names the driver's counters (`ETH_SS_STATS`), the bytes of a name (`ETH_GSTRING_LEN`), and most
/// counters that are asked for; a NIC with a hundred queues has some thousand.
const STATISTICS: u32 = 1;
const NAME: usize = 32;
const STATISTICS_MAX: usize = 1 << 16;

/// Most rules that are looked at; NICs hold some thousand.
const RULES_MAX: u32 = 8192;

/// `UDP_V4_FLOW` and `UDP_V6_FLOW`, and what of a flow's type is not flags.
const UDP_V4: u32 = 0x02;
const UDP_V6: u32 = 0x06;
const FLOW_KIND: u32 = 0xff;
/// Of a rule that spreads over the queues of an RSS context instead of naming one.
const FLOW_RSS: u32 = 0x2000_0000;

/// Asks one device.
pub struct Ethtool {
    socket: OwnedFd,
    name: String,
}

/// Who drives a device, and where it sits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// The driver's name.
    pub name: String,
    /// The device's address on its bus ("0000:00:03.0"); empty for a virtual one.
    pub bus: String,
}

/// A receive rule for UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpRule {
    /// Its number, to delete it by.
    pub location: u32,
    /// For IPv4; otherwise IPv6.
    pub ipv4: bool,
    /// The destination port.
    pub port: u16,
    /// Bits of the port that count.
    pub port_mask: u16,
    /// It looks at nothing but the port.
    pub any_peer: bool,
    /// Where its packets go.
    pub to: Target,
}

/// Where a rule sends packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this queue.
    Queue(u32),
    /// Nowhere.
    Dropped,
    /// To the queues of an RSS context, or to a virtual function.
    Elsewhere,
}

impl Ethtool {
    /// For the device `name` of the calling thread's network namespace.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn new(name: &str) -> io::Result<Ethtool> {
        Ok(Ethtool { socket: socket()?, name: name.to_owned() })
    }

    /// Its driver.
    ///
    /// # Errors
    /// The kernel's.
    pub fn driver(&self) -> io::Result<Driver> {
        // struct ethtool_drvinfo: cmd, then driver, version, fw_version, bus_info of 32 bytes each, and more: 196 bytes.
        let mut words = [0u32; 49];
        words[0] = ETHTOOL_GDRVINFO;
        self.ask(&mut words)?;
        let bytes = bytes_of(&words);
        let text = |at: usize| text(&bytes[at..at + 32]);
        let bus = Some(text(4 + 3 * 32)).filter(|bus| bus.contains(':')).unwrap_or_default();
        Ok(Driver { name: text(4), bus })
    }

    /// Its receive rules for UDP with a destination port.
    ///
    /// # Errors
    /// The kernel's; EOPNOTSUPP when the driver has no rules.
    pub fn udp_rules(&self) -> io::Result<Vec<UdpRule>> {
        let mut count = vec![0u32; rxnfc::WORDS];
        count[0] = ETHTOOL_GRXCLSRLCNT;
        self.ask(&mut count)?;
        let room = count[rxnfc::RULE_COUNT].min(RULES_MAX);
        let mut all = vec![0u32; rxnfc::WORDS + room as usize];
        (all[0], all[rxnfc::RULE_COUNT]) = (ETHTOOL_GRXCLSRLALL, room);
        self.ask(&mut all)?;
        let found = all[rxnfc::RULE_COUNT].min(room) as usize;
        let mut rules = Vec::new();
        for location in &all[rxnfc::LOCATIONS..rxnfc::LOCATIONS + found] {
            let mut rule = vec![0u32; rxnfc::WORDS];
            (rule[0], rule[rxnfc::LOCATION]) = (ETHTOOL_GRXCLSRULE, *location);
            // One that was deleted meanwhile is no rule any more.
            if self.ask(&mut rule).is_ok() {
                rules.extend(rxnfc::udp(&rule));
            }
        }
        Ok(rules)
    }

    /// The names of the driver's counters, in their order.
    ///
    /// # Errors
    /// The kernel's; EOPNOTSUPP when the driver counts nothing of its own.
    pub fn counter_names(&self) -> io::Result<Vec<String>> {
        // struct ethtool_sset_info: cmd, reserved, mask (64 bits), one length a set asked for.
        let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << STATISTICS, 0, 0];
        self.ask(&mut info)?;
        let count = (info[4] as usize).min(STATISTICS_MAX);
        // struct ethtool_gstrings: cmd, set, count, names.
        let mut names = vec![0u32; 3 + count * NAME / 4];
        names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, STATISTICS, count as u32]);
        self.ask(&mut names)?;
        Ok(bytes_of(&names[3..]).chunks_exact(NAME).map(text).collect())
    }

    /// The driver's counters, of which there are `count`.
    ///
    /// # Errors
    /// The kernel's; also when there are not as many any more.
    pub fn counters(&self, count: usize) -> io::Result<Vec<u64>> {
        let now = {
            let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << STATISTICS, 0, 0];
            self.ask(&mut info)?;
            info[4] as usize
        };
        if now != count {
            return Err(io::Error::other("the driver counts other things than before"));
        }
        // struct ethtool_stats: cmd, count, values.
        let mut values = vec![0u32; 2 + count * 2];
        values[..2].copy_from_slice(&[ETHTOOL_GSTATS, count as u32]);
        self.ask(&mut values)?;
        let value = |pair: &[u32]| u64::from_ne_bytes(bytes_of(pair).try_into().unwrap_or_default());
        Ok(values[2..].chunks_exact(2).map(value).collect())
    }

    /// One ioctl; `words` is the structure that begins with the command.
    fn ask(&self, words: &mut [u32]) -> io::Result<()> {
        let mut request = request_for(&self.name)?;
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the kernel reads and writes the structure that the command at its start names; every caller has made it as long
        // as its counts say.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// `struct ethtool_rxnfc`, as words: cmd, flow_type, data (2), then struct ethtool_rx_flow_spec (42: type, 52 bytes of header,
/// 20 of extensions, both again as masks, a gap, the cookie, the location, a gap), the count of rules, their locations.
mod rxnfc {
    use super::{FLOW_KIND, FLOW_RSS, Target, UDP_V4, UDP_V6, UdpRule, bytes_of};

    pub const WORDS: usize = 48;
    pub const RULE_COUNT: usize = 46;
    pub const LOCATIONS: usize = 47;
    pub const LOCATION: usize = SPEC + 40;
    const SPEC: usize = 4;
    /// In bytes, within the specification.
    const HEADER: usize = 4;
    const MASK: usize = 76;
    const MASK_END: usize = 148;
    const COOKIE: usize = 152;

    /// The rule in an answer, if it is for UDP and looks at the destination port.
    pub fn udp(words: &[u32]) -> Option<UdpRule> {
        let spec = bytes_of(&words[SPEC..RULE_COUNT]);
        let kind = words[SPEC];
        // Source and destination address, source port, then the destination port.
        let at = match kind & FLOW_KIND {
            UDP_V4 => 4 + 4 + 2,
            UDP_V6 => 16 + 16 + 2,
            _ => return None,
        };
        let port = |from: usize| u16::from_be_bytes([spec[from + at], spec[from + at + 1]]);
        let others = (MASK..MASK_END).filter(|byte| !(MASK + at..MASK + at + 2).contains(byte));
        let cookie = u64::from_ne_bytes(spec[COOKIE..COOKIE + 8].try_into().ok()?);
        let to = match cookie {
            u64::MAX => Target::Dropped,
            // The upper half names a virtual function.
            _ if kind & FLOW_RSS != 0 || cookie >> 32 != 0 => Target::Elsewhere,
            queue => Target::Queue(queue as u32),
        };
        let rule = UdpRule {
            location: words[LOCATION],
            ipv4: kind & FLOW_KIND == UDP_V4,
            port: port(HEADER),
            port_mask: port(MASK),
            any_peer: others.into_iter().all(|byte| spec[byte] == 0),
            to,
        };
        (rule.port_mask != 0).then_some(rule)
    }
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_is_an_error() {
        let none = Ethtool::new("no-such-if").unwrap();
        assert!(none.driver().is_err() && none.udp_rules().is_err());
    }

    /// What a driver answers for `ethtool -N eth1 flow-type udp4|udp6 dst-port 7777 action 3`, laid out by the header's own words.
    fn answer(kind: u32, offset: usize, cookie: u64) -> Vec<u32> {
        let mut bytes = [0u8; 192];
        bytes[16..20].copy_from_slice(&kind.to_ne_bytes());
        bytes[20 + offset..22 + offset].copy_from_slice(&7777u16.to_be_bytes());
        bytes[92 + offset..94 + offset].copy_from_slice(&[0xff, 0xff]);
        bytes[168..176].copy_from_slice(&cookie.to_ne_bytes());
        bytes[176..180].copy_from_slice(&1023u32.to_ne_bytes());
        bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn a_rule_is_read_where_the_kernel_puts_it() {
        let rule = rxnfc::udp(&answer(UDP_V4, 10, 3)).unwrap();
        let expected = UdpRule {
            location: 1023,
            ipv4: true,
            port: 7777,
            port_mask: 0xffff,
            any_peer: true,
            to: Target::Queue(3),
        };
        assert_eq!(rule, expected);
        let rule = rxnfc::udp(&answer(UDP_V6, 34, u64::MAX)).unwrap();
        assert_eq!((rule.ipv4, rule.port, rule.to), (false, 7777, Target::Dropped));
        assert_eq!(rxnfc::udp(&answer(UDP_V4 | FLOW_RSS, 10, 0)).unwrap().to, Target::Elsewhere);
        assert_eq!(rxnfc::udp(&answer(0x01, 10, 3)), None, "TCP is not asked about");
        let mut one_peer = answer(UDP_V4, 10, 3);
        one_peer[(92) / 4] = u32::MAX; // the source address counts too
        assert!(!rxnfc::udp(&one_peer).unwrap().any_peer);
    }
}
