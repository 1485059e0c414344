//! The rule table: what a rule is, and finding the one for a packet.

use core::net::IpAddr;

use crate::abi::{MAX_LISTS, RuleEntry, RuleList, RuleTable, action, family};

/// The transports that rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// What happens to a redirected packet when its queue has no socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Unbound {
    /// It is dropped.
    Drop = action::DROP,
    /// It goes to the kernel, where a companion socket may answer it.
    Pass = action::PASS,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// To the AF_XDP socket of the receiving queue.
    Redirect {
        /// What is done when that queue has none.
        unbound: Unbound,
    },
    /// To the kernel.
    Pass,
    /// Away.
    Drop,
}

/// A destination address as it lies in the packet: words in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4.
    V4(u32),
    /// IPv6.
    V6([u32; 4]),
}

impl Address {
    /// An IPv4 address.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Address {
        Address::V4(u32::from_ne_bytes(octets))
    }

    /// An IPv6 address.
    #[inline(always)]
    pub const fn v6(o: [u8; 16]) -> Address {
        Address::V6([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Address {
        match address {
            IpAddr::V4(address) => Address::v4(address.octets()),
            IpAddr::V6(address) => Address::v6(address.octets()),
        }
    }
}

impl RuleEntry {
    /// A rule for every destination address of both IP versions.
    pub const fn any(what: Action) -> RuleEntry {
        let (action, unbound) = encode(what);
        RuleEntry {
            address: [0; 4],
            mask: [0; 4],
            family: family::ANY,
            action,
            unbound,
            reserved: 0,
            syn_interval_ns: 0,
            syn_burst: 0,
            bucket: 0,
        }
    }

    /// The same rule, with at most `per_second` SYNs on each CPU in the long run and `burst` at once. `per_second` 0 is no limit.
    pub const fn syn_limit(self, per_second: u32, burst: u32, bucket: u32) -> RuleEntry {
        let syn_interval_ns = match per_second {
            0 => 0,
            per_second => 1_000_000_000u32.div_ceil(per_second),
        };
        RuleEntry { syn_interval_ns, syn_burst: burst, bucket, ..self }
    }

    /// A rule for the destination addresses under `network/prefix_len`; `None` when the prefix is longer than
    /// the address (32 or 128 bits). Bits of `network` beyond the prefix are ignored.
    pub fn prefix(network: IpAddr, prefix_len: u8, what: Action) -> Option<RuleEntry> {
        let bits: u32 = if network.is_ipv4() { 32 } else { 128 };
        if u32::from(prefix_len) > bits {
            return None;
        }
        let (family, words) = match Address::from(network) {
            Address::V4(word) => (family::V4, [word, 0, 0, 0]),
            Address::V6(words) => (family::V6, words),
        };
        let mut entry = RuleEntry { family, ..RuleEntry::any(what) };
        for (word, (mask, address)) in entry.mask.iter_mut().zip(&mut entry.address).enumerate() {
            let left = u32::from(prefix_len).saturating_sub(word as u32 * 32).min(32);
            let host_order = if left == 0 { 0 } else { u32::MAX << (32 - left) };
            *mask = host_order.to_be();
            *address = words[word] & *mask;
        }
        Some(entry)
    }

    /// What the rule does; `None` for an unused entry.
    #[inline(always)]
    pub const fn action(&self) -> Option<Action> {
        // The most frequent first.
        if self.action == action::REDIRECT {
            let unbound = if self.unbound == action::DROP { Unbound::Drop } else { Unbound::Pass };
            return Some(Action::Redirect { unbound });
        }
        match self.action {
            action::PASS => Some(Action::Pass),
            action::DROP => Some(Action::Drop),
            _ => None,
        }
    }

    /// True when the rule is about this destination address.
    #[inline(always)]
    pub const fn matches(&self, to: &Address) -> bool {
        match to {
            Address::V4(word) => {
                self.family & family::V4 != 0 && (*word ^ self.address[0]) & self.mask[0] == 0
            }
            Address::V6(words) => {
                let difference = ((words[0] ^ self.address[0]) & self.mask[0])
                    | ((words[1] ^ self.address[1]) & self.mask[1])
                    | ((words[2] ^ self.address[2]) & self.mask[2])
                    | ((words[3] ^ self.address[3]) & self.mask[3]);
                self.family & family::V6 != 0 && difference == 0
            }
        }
    }
}

const fn encode(what: Action) -> (u8, u8) {
    match what {
        Action::Pass => (action::PASS, 0),
        Action::Drop => (action::DROP, 0),
        Action::Redirect { unbound: Unbound::Pass } => (action::REDIRECT, action::PASS),
        Action::Redirect { unbound: Unbound::Drop } => (action::REDIRECT, action::DROP),
    }
}

impl RuleList {
    /// What is to be done with a packet to this address: the action of the first rule that matches.
    #[inline(always)]
    pub fn find(&self, to: &Address) -> Option<Action> {
        for rule in &self.rules {
            if rule.matches(to) {
                return rule.action();
            }
        }
        None
    }

    /// The same with the rule's limit on SYNs: interval, burst and bucket.
    #[inline(always)]
    pub fn find_limit(&self, to: &Address) -> Option<(u32, u32, u32)> {
        for rule in &self.rules {
            if rule.matches(to) {
                return Some((rule.syn_interval_ns, rule.syn_burst, rule.bucket));
            }
        }
        None
    }
}

impl RuleTable {
    /// The rules of a destination port; `None` when it has none.
    #[inline(always)]
    pub fn rules(&self, protocol: Protocol, port: u16) -> Option<&RuleList> {
        let ports = match protocol {
            Protocol::Udp => &self.udp,
            Protocol::Tcp => &self.tcp,
        };
        let list = ports[usize::from(port)] as usize;
        // The mask bounds the index for the verifier; a loader never writes a number beyond it.
        if list == 0 { None } else { Some(&self.lists[list & (MAX_LISTS - 1)]) }
    }
}

const _: () = assert!(MAX_LISTS.is_power_of_two());
