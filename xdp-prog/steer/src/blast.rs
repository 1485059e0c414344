//! The in-kernel traffic generator: what it is told and what it reports.
//!
//! ```text
//!  BPF_PROG_TEST_RUN, live frames                          the generator's interface
//!  template ──► volley_blast: sequence, time, flow, ──► wire ──► ... ──► volley_count: counted, dropped
//!               checksum mended, XDP_TX                                  (everything else passed)
//! ```
//!
//! The program writes a [`Stamp`] near the start of the UDP payload of the template, the source port and the
//! UDP checksum. A template that is too short for the stamp is not sent.
//!
//! The kernel fills a live frame's page from the template once and then sends the page again and again, as its
//! receiver left it. A receiver that merges packets (UDP GRO) leaves other lengths and checksums, so those of IP and UDP
//! are written into every frame.

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What the generator writes into each UDP payload, behind the two bytes of its magic number: the first 18
/// bytes of a payload are what the smallest Ethernet frame has room for over IPv4.
#[derive(FromBytes, IntoBytes, Unaligned, KnownLayout, Immutable, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Stamp {
    /// Flow in the upper 16 bits, sequence number in the lower 48.
    pub id: U64,
    /// When it was sent, `CLOCK_MONOTONIC` in ns.
    pub sent_ns: U64,
}

impl Stamp {
    /// Bytes of the stamp.
    pub const LEN: usize = 16;
    /// Where it begins in the payload: behind a magic number that the template brings along.
    pub const OFFSET: usize = 2;
    /// Bits of the sequence number; the flow stands above them.
    pub const SEQUENCE_BITS: u32 = 48;
}

/// Value of [`maps::BLASTS`](crate::abi::maps::BLASTS), one per CPU: what that CPU sends next.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Blast {
    /// Sequence number of the next packet; the program adds [`Blast::stride`] to it.
    pub sequence: u64,
    /// Step between two packets of this CPU: how many CPUs send.
    pub stride: u64,
    /// Packets sent by this CPU so far.
    pub sent: u64,
    /// Packets not sent because the template is too short for the stamp (0 unless somebody errs).
    pub refused: u64,
    /// Ones' complement sum, not complemented, of the 16-bit words of pseudo-header, UDP header and payload of
    /// the template as they lie in memory, with source port, UDP checksum and stamp taken as zero.
    pub base_sum: u32,
    /// Flow of the next packet, below [`Blast::flows`].
    pub flow: u32,
    /// Number of flows, 1 to 65536: the source port runs over as many numbers.
    pub flows: u32,
    /// Source port of flow 0, host order.
    pub first_port: u16,
    /// Bytes from the start of the frame to the UDP header.
    pub udp_offset: u16,
    /// UDP length, as it lies in memory.
    pub udp_length: u16,
    /// Bytes from the start of the frame to the IP header's length field.
    pub ip_length_offset: u16,
    /// The IP header's length, as it lies in memory.
    pub ip_length: u16,
    /// Bytes from the start of the frame to the IP header's checksum. IPv6 has none: the length once more.
    pub ip_sum_offset: u16,
    /// What stands there, as it lies in memory.
    pub ip_sum: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

/// Value of [`maps::EXPECT`](crate::abi::maps::EXPECT): which packets are answers.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Expect {
    /// UDP source port of answers, host order: the server's port. 0 makes the program pass everything.
    pub port: u16,
    /// Least UDP length (header and payload, bytes) of an answer.
    pub least_len: u16,
    /// Greatest UDP length of an answer.
    pub greatest_len: u16,
    /// Zero.
    pub reserved: u16,
}

/// Value of [`maps::ANSWERS`](crate::abi::maps::ANSWERS), one per CPU: what came back. All of it is dropped.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Answers {
    /// Datagrams from the server's port with an expected length.
    pub answers: u64,
    /// Their UDP lengths added up, bytes.
    pub udp_bytes: u64,
    /// Datagrams from the server's port with another length.
    pub odd_length: u64,
}
