//! What the XDP programs and whoever loads them agree on: names of programs and maps, shapes of their values.
//!
//! | map | kind | key | value |
//! | --- | --- | --- | --- |
//! | [`maps::RULES`] | array, mappable | 0 | [`Rules`]: version, generation, both halves |
//! | [`maps::SOCKETS`] | XSKMAP | receive queue | AF_XDP socket |
//! | [`maps::COUNTERS`] | per-CPU array | 0 | [`Counters`] |
//! | [`maps::BUCKETS`] | per-CPU array | [`RuleEntry::bucket`] | `u64`, see [`crate::bucket`] |
//! | [`maps::BLASTS`] | per-CPU array | 0 | [`Blast`](crate::blast::Blast) |
//! | [`maps::EXPECT`] | array | 0 | [`Expect`](crate::blast::Expect) |
//! | [`maps::ANSWERS`] | per-CPU array | 0 | [`Answers`](crate::blast::Answers) |
//!
//! **Rules are changed as a whole set.** The lowest bit of [`Control::generation`] says which of
//! [`Rules::halves`] is read. A writer maps the value, fills the other half in place, then adds one to the word
//! with release ordering. Before it writes again it waits [`GRACE_MS`], so that no CPU still reads the half it is
//! about to overwrite.
//!
//! All of it is one value of one entry, because each lookup costs a packet about a nanosecond.
//!
//! All integers are in host order except where a field says otherwise. Every struct is plain data without
//! padding: `as_bytes()` is what the kernel holds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of everything in this module. A pinned program of another version is refused, not guessed at.
pub const ABI_VERSION: u32 = 3;

/// Milliseconds between switching halves and writing the half that was switched away from.
///
/// A program runs for microseconds; 10 ms covers a CPU that was interrupted by its hypervisor in the middle.
/// Lower risks a torn rule under such a pause, higher only slows down a second change.
pub const GRACE_MS: u64 = 10;

/// Names of the programs in the object.
pub mod programs {
    /// Steers game traffic to AF_XDP sockets.
    pub const STEER: &str = "volley_steer";
    /// The same without direct packet access: for a loader without CAP_PERFMON, whose programs the verifier guards
    /// against Spectre.
    pub const STEER_GUARDED: &str = "volley_guarded";
    /// Traffic generator: stamps and sends the packet it is run with.
    pub const BLAST: &str = "volley_blast";
    /// Traffic generator: counts answers and drops them.
    pub const COUNT: &str = "volley_count";
    /// Yardstick for the cost of steering: redirects one UDP port, checks nothing else.
    pub const PORT_FILTER: &str = "volley_filter";
}

/// Names of the maps in the object (15 bytes at most, or the kernel cuts them).
pub mod maps {
    /// Version, generation word and two halves of rules, one active.
    ///
    /// The first word of the map of this name is the version, in every version: it is what a loader of another
    /// version looks at.
    pub const RULES: &str = "volley_control";
    /// AF_XDP socket per receive queue.
    pub const SOCKETS: &str = "volley_sockets";
    /// Verdict counters per CPU.
    pub const COUNTERS: &str = "volley_counters";
    /// Token buckets of rules with a limit on SYNs, per CPU.
    pub const BUCKETS: &str = "volley_buckets";
    /// What the generator sends.
    pub const BLASTS: &str = "volley_blasts";
    /// Which packets the generator counts as answers.
    pub const EXPECT: &str = "volley_expect";
    /// Answers the generator has counted.
    pub const ANSWERS: &str = "volley_answers";
}

/// Receive queues that can have a socket: entries of [`maps::SOCKETS`] (8 bytes each).
///
/// More than any NIC in use has; a queue beyond it would be treated as one without a socket.
pub const MAX_QUEUES: u32 = 1024;

/// Lists of rules in one half; number 0 means "no list" and is never used.
///
/// A list serves any number of ports, so this bounds how many *different* lists a rule set may need.
pub const MAX_LISTS: usize = 1024;

/// Rules per (protocol, port): bounds the work per packet.
pub const MAX_RULES_PER_PORT: usize = 4;

/// Rules with a limit on SYNs: entries of [`maps::BUCKETS`] (8 bytes each and CPU).
pub const MAX_BUCKETS: u32 = 1024;

/// The head of [`Rules`].
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// [`ABI_VERSION`] of the loader that filled the maps; 0 before any did.
    pub abi_version: u32,
    /// Rises by one with each change of rules; the lowest bit is the half that is read.
    ///
    /// Only that bit is read by the program.
    pub generation: u32,
}

impl Control {
    /// Which of [`Rules::halves`] is read.
    #[inline(always)]
    pub const fn active_half(&self) -> u32 {
        active_half(self.generation)
    }

    /// The half a writer may fill.
    #[inline(always)]
    pub const fn inactive_half(&self) -> u32 {
        (self.generation & 1) ^ 1
    }
}

/// Which of [`Rules::halves`] a generation word selects.
#[inline(always)]
pub const fn active_half(generation: u32) -> u32 {
    generation & 1
}

/// Value of [`maps::RULES`]. About 900 KiB; all zeroes is valid, without rules.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Rules {
    /// Version and generation word.
    pub control: Control,
    /// The two halves; [`Control::generation`] says which is read.
    pub halves: [RuleTable; 2],
}

/// One half of [`Rules`]: for each port the number of its list, and the lists. About 450 KiB.
///
/// All zeroes is a valid table without rules: everything is passed.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RuleTable {
    /// List of each UDP destination port, 0 for none.
    pub udp: [u16; 65536],
    /// List of each TCP destination port, 0 for none.
    pub tcp: [u16; 65536],
    /// The lists; number 0 stays empty.
    pub lists: [RuleList; MAX_LISTS],
}

/// The rules of one or more ports, in order: the first whose address matches decides.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleList {
    /// The rules; unused ones are all zeroes ([`RuleEntry::family`] is [`family::NONE`]) and match nothing.
    pub rules: [RuleEntry; MAX_RULES_PER_PORT],
}

/// One rule as the kernel holds it. Build it with [`RuleEntry::new`](crate::rules), not by hand.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleEntry {
    /// Destination address, masked; words in the order of the wire; IPv4 uses the first.
    pub address: [u32; 4],
    /// Which bits of the address count; same layout.
    pub mask: [u32; 4],
    /// Which IP version it matches, see [`family`].
    pub family: u8,
    /// What is done, see [`action`].
    pub action: u8,
    /// Done instead of a redirect when the receiving queue has no socket: [`action::PASS`] or [`action::DROP`].
    pub unbound: u8,
    /// Zero.
    pub reserved: u8,
    /// In the long run there is one SYN in so many ns on each CPU; 0: no limit. TCP only.
    pub syn_interval_ns: u32,
    /// SYNs that may come at once.
    pub syn_burst: u32,
    /// The rule's token bucket, below [`MAX_BUCKETS`]. Rules made from one statement share one.
    pub bucket: u32,
}

/// Values of [`RuleEntry::family`]: a set of bits.
pub mod family {
    /// Matches nothing: an unused entry.
    pub const NONE: u8 = 0;
    /// IPv4 packets.
    pub const V4: u8 = 1;
    /// IPv6 packets.
    pub const V6: u8 = 2;
    /// Both, for a rule without address.
    pub const ANY: u8 = V4 | V6;
}

/// Values of [`RuleEntry::action`] and [`RuleEntry::unbound`]: the kernel's `enum xdp_action`.
pub mod action {
    /// Away.
    pub const DROP: u8 = 1;
    /// To the kernel's stack.
    pub const PASS: u8 = 2;
    /// To the AF_XDP socket of the receiving queue.
    pub const REDIRECT: u8 = 4;
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet got its verdict: each packet is counted by exactly one of these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// Every counter, in the order of [`Counters::values`].
            pub const ALL: &'static [Counter] = &[$(Counter::$name,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The counter's name in reports (snake case, stable).
            pub const fn as_str(self) -> &'static str {
                match self { $(Counter::$name => $text,)* }
            }
        }
    };
}

counters! {
    /// Redirected to the socket of the receiving queue.
    Redirected = "redirected",
    /// A rule redirects, the queue has no socket, and the rule passes then.
    NoSocketPass = "no_socket_pass",
    /// A rule redirects, the queue has no socket, and the rule drops then.
    NoSocketDrop = "no_socket_drop",
    /// Passed by a rule.
    RulePass = "rule_pass",
    /// Dropped by a rule.
    RuleDrop = "rule_drop",
    /// Passed: its protocol and port have no rule.
    NoRule = "no_rule",
    /// Passed: its port has rules, none for its destination address.
    AddressMismatch = "address_mismatch",
    /// Passed: ARP.
    Arp = "arp",
    /// Passed: neither IPv4, IPv6 nor ARP.
    EtherType = "ethertype",
    /// Passed: IP, but neither UDP nor TCP (IPsec, tunnels, ICMP that is no error about a port with rules).
    OtherProtocol = "other_protocol",
    /// Passed: a piece of a fragmented datagram; the kernel puts it together.
    Fragment = "fragment",
    /// Passed: an IPv6 routing header that this host is not the end of.
    RoutingHeader = "routing_header",
    /// Passed: shorter than the headers it announces.
    Runt = "runt",
    /// Passed: three or more VLAN tags.
    VlanDepth = "vlan_depth",
    /// Passed: EtherType IPv4, version field not 4.
    Ipv4Version = "ipv4_version",
    /// Passed: IPv4 header length below 20 bytes.
    Ipv4HeaderLength = "ipv4_header_length",
    /// Passed: IPv4 total length too small for the header and the ports.
    Ipv4TotalLength = "ipv4_total_length",
    /// Passed: EtherType IPv6, version field not 6.
    Ipv6Version = "ipv6_version",
    /// Passed: IPv6 payload length too small for the headers and the ports (jumbograms among them).
    Ipv6PayloadLength = "ipv6_payload_length",
    /// Passed: an IPv6 extension header runs past the packet.
    Ipv6ExtensionTruncated = "ipv6_extension_truncated",
    /// Passed: more IPv6 extension headers than are followed.
    Ipv6ExtensionLimit = "ipv6_extension_limit",
    /// Redirected: an ICMP or ICMPv6 error about a datagram from a port whose rule redirects.
    IcmpRedirected = "icmp_redirected",
    /// Dropped: a SYN beyond its rule's rate on this CPU.
    SynLimited = "syn_limited",
}

impl core::fmt::Display for Counter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `u64`s in [`Counters`]: room for [`Counter::COUNT`], so that adding one leaves the map's shape alone.
pub const COUNTER_SLOTS: usize = 32;

const _: () = assert!(Counter::COUNT <= COUNTER_SLOTS);

/// Value of [`maps::COUNTERS`], one per CPU: packets per [`Counter`].
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Indexed by `Counter as usize`; the slots beyond [`Counter::COUNT`] stay zero.
    pub values: [u64; COUNTER_SLOTS],
}

impl Counters {
    /// Packets counted for one reason.
    #[inline(always)]
    pub const fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// All packets seen: the sum over all reasons.
    pub fn total(&self) -> u64 {
        self.values.iter().fold(0, |sum, value| sum.wrapping_add(*value))
    }
}
