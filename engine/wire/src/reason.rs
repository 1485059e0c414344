//! Why a packet was not answered.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet or datagram was dropped. Every drop has exactly one reason and every reason is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// Every reason, in the order of its counter.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)*];
            /// How many reasons there are: the length of a counter array.
            pub const COUNT: usize = Self::ALL.len();

            /// The reason's name in counters and reports (snake case, stable).
            pub const fn as_str(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than the headers it announces.
    Runt = "runt",
    /// Three or more VLAN tags.
    VlanDepth = "vlan_depth",
    /// Neither IPv4 nor IPv6.
    EtherType = "ethertype",
    /// IPv4: the version field is not 4.
    Ipv4Version = "ipv4_version",
    /// IPv4: header length below 20 bytes or beyond the packet.
    Ipv4HeaderLength = "ipv4_header_length",
    /// IPv4: total length below the header or beyond the packet.
    Ipv4TotalLength = "ipv4_total_length",
    /// IPv4: header checksum wrong.
    Ipv4Checksum = "ipv4_checksum",
    /// IPv6: the version field is not 6.
    Ipv6Version = "ipv6_version",
    /// IPv6: payload length beyond the packet.
    Ipv6PayloadLength = "ipv6_payload_length",
    /// IPv6: an extension header runs past the packet.
    Ipv6ExtensionTruncated = "ipv6_extension_truncated",
    /// IPv6: more extension headers than anyone needs.
    Ipv6ExtensionLimit = "ipv6_extension_limit",
    /// A piece of a fragmented datagram.
    Fragment = "fragment",
    /// A source route that is not at its end (IPv4 option, RFC 791; IPv6 routing header, RFC 5095): an answer would follow
    /// whatever way its sender wrote.
    SourceRoute = "source_route",
    /// The transport is not UDP.
    NotUdp = "not_udp",
    /// UDP: length below 8 or beyond the IP payload.
    UdpLength = "udp_length",
    /// UDP: checksum wrong.
    UdpChecksum = "udp_checksum",
    /// UDP over IPv6 without a checksum (RFC 8200, section 8.1).
    UdpChecksumMissing = "udp_checksum_missing",
    /// The source cannot be answered: a group, unspecified or loopback address, or port 0.
    BadSource = "bad_source",
    /// The destination is a group address: an answer from it would be forged.
    NotUnicast = "not_unicast",
    /// The destination MAC is another host's.
    NotForUs = "not_for_us",
    /// A multi-buffer packet with more segments than the port allows.
    ChainTooLong = "chain_too_long",
    /// The kernel cut the datagram (MSG_TRUNC).
    Truncated = "truncated",
    /// The application refused it: malformed for its protocol.
    AppMalformed = "app_malformed",
    /// The application refused it: the peer sends too much.
    AppRateLimited = "app_rate_limited",
    /// The application refused it: the peer may not.
    AppUnauthorized = "app_unauthorized",
    /// The application panicked in the burst that held it.
    AppPanicked = "app_panicked",
    /// The answer does not fit the frame or the MTU.
    AnswerTooLong = "answer_too_long",
    /// The transmit ring stayed full.
    TxFull = "tx_full",
    /// No free frame to send from.
    NoFrame = "no_frame",
    /// The link-layer address of the peer is not known yet.
    Unresolved = "unresolved",
    /// The kernel or device refused to send it.
    TxRefused = "tx_refused",
    /// Steering leaves it to the kernel, and no kernel stands behind the port.
    NotSteered = "not_steered",
    /// ARP, neighbour discovery or ICMP that is malformed, or that says what its sender cannot know.
    BadControl = "bad_control",
    /// More ARP, neighbour discovery or ICMP than is answered in a second.
    RateLimited = "rate_limited",
    /// For the kernel, whose port takes no more.
    ExceptionFull = "exception_full",
    /// The port went away or the engine is shutting down.
    PortClosed = "port_closed",
}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}
