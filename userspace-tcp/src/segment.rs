//! Segments: what the caller hands in, what the stack hands out, and the header between them (RFC 9293, section 3.1).

use crate::address::{FlowKey, bytes};
use crate::counters::Drop;
use crate::header::TcpHeader;
use crate::options::{OptionBytes, Options};
use crate::sequence::Seq;
use std::net::IpAddr;
use volley_wire::checksum::Sum;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

/// TCP's number in the IP header.
pub const PROTOCOL: u8 = 6;

pub(crate) mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;
}

/// The two ECN bits of the IP header (RFC 3168, section 5).
pub(crate) mod ecn {
    pub const NOT_ECT: u8 = 0;
    pub const ECT0: u8 = 2;
    pub const CE: u8 = 3;
}

/// Whether somebody has looked at a received segment's checksum already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ChecksumStatus {
    /// The device or the layer below found it right.
    Verified,
    /// Nobody has: the stack does.
    #[default]
    MustVerify,
}

/// A TCP segment as it came in an IP packet.
#[derive(Clone, Copy, Debug)]
pub struct SegmentIn<'f> {
    /// Source address of the packet.
    pub source: IpAddr,
    /// Destination address of the packet: one of ours.
    pub destination: IpAddr,
    /// The two ECN bits of the IP header.
    pub ecn: u8,
    /// Whether the checksum has been verified.
    pub checksum: ChecksumStatus,
    /// Whatever names the way back (an index of the caller's). Segments sent in answer carry it in [`SegmentOut::path`]; a
    /// connection keeps the one of its newest valid segment.
    pub path: u32,
    /// TCP header and payload: the IP payload, without padding of the link.
    pub bytes: &'f [u8],
}

/// The segments of a burst, by their place in it: where unread payload still stands.
pub trait Segments {
    /// The bytes of [`SegmentIn::bytes`] at that place; empty when there is none.
    fn segment(&self, at: usize) -> &[u8];
}

impl Segments for [SegmentIn<'_>] {
    fn segment(&self, at: usize) -> &[u8] {
        self.get(at).map_or(&[], |segment| segment.bytes)
    }
}

/// What the layer below needs to know to send one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentOut {
    /// Source address to put in the packet.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The whole traffic class or TOS octet: DSCP of the connection and the ECN bits.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Set the IPv4 don't-fragment bit (RFC 1191). Always true: segments are never larger than the path allows.
    pub dont_fragment: bool,
    /// The path of the newest segment from this peer, or the one given to `connect`.
    pub path: u32,
    /// Bytes of TCP header, options and payload.
    pub len: usize,
}

/// Where segments go: the caller lends a buffer for each, with whatever headroom it wants in front of it.
pub trait Egress {
    /// Lends at least `segment.len` bytes for the TCP header and payload. `None` means no room now: the stack keeps what it
    /// wants to say and says it at the next [`crate::Connections::transmit`].
    fn lend(&mut self, segment: &SegmentOut) -> Option<&mut [u8]>;

    /// The buffer lent last now holds `segment.len` bytes: send it.
    fn commit(&mut self, segment: &SegmentOut);

    /// Whether the device finishes the checksum. If so only the pseudo-header's sum is stored, not complemented.
    fn checksum_offload(&self) -> bool {
        false
    }
}

/// A parsed segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub key: FlowKey,
    pub seq: Seq,
    pub ack: Seq,
    pub flags: u8,
    pub ecn: u8,
    pub window: u16,
    pub options: Options,
    pub path: u32,
    /// Where the payload stands in the frame.
    pub offset: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Index of the frame in the burst.
    pub frame: u32,
}

impl Segment {
    #[inline]
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// SEG.LEN: payload, and one each for SYN and FIN.
    #[inline]
    pub(crate) fn seq_len(&self) -> u32 {
        self.len + u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN))
    }

    /// Sequence number of the first byte of payload.
    #[inline]
    pub(crate) fn data_seq(&self) -> Seq {
        self.seq + u32::from(self.has(flag::SYN))
    }

    /// Reads a segment, its checksum included.
    #[inline]
    pub(crate) fn parse(input: &SegmentIn<'_>, frame: u32) -> Result<Segment, Drop> {
        let bytes = input.bytes;
        let (header, _) = TcpHeader::ref_from_prefix(bytes).map_err(|_| Drop::Runt)?;
        let header_len = header.header_len();
        if header_len < TcpHeader::LEN {
            return Err(Drop::HeaderLength);
        }
        if header_len > bytes.len() || bytes.len() > 0xffff {
            return Err(Drop::Runt);
        }
        let key = FlowKey {
            local: crate::address::address(input.destination),
            remote: crate::address::address(input.source),
            local_port: header.destination.get(),
            remote_port: header.source.get(),
        };
        if input.checksum == ChecksumStatus::MustVerify
            && sum(&key, bytes.len()).bytes(bytes).fold() != 0xffff
        {
            return Err(Drop::Checksum);
        }
        if key.remote_port == 0 || !crate::address::can_be_peer(input.source) {
            return Err(Drop::BadSource);
        }
        if !crate::address::can_be_peer(input.destination) {
            return Err(Drop::BadDestination);
        }
        let options = match header_len {
            TcpHeader::LEN => Options::default(),
            _ => Options::parse(&bytes[TcpHeader::LEN..header_len]).ok_or(Drop::BadOption)?,
        };
        Ok(Segment {
            key,
            seq: Seq(header.sequence.get()),
            ack: Seq(header.acknowledgment.get()),
            flags: header.flags,
            ecn: input.ecn & 3,
            window: header.window.get(),
            options,
            path: input.path,
            offset: header_len as u32,
            len: (bytes.len() - header_len) as u32,
            frame,
        })
    }
}

/// The pseudo-header's sum. An IPv4-mapped address adds 0xffff to it, which is zero in ones' complement, so both families
/// take the same way.
#[inline]
fn sum(key: &FlowKey, len: usize) -> Sum {
    Sum::ZERO.fixed(bytes(&key.local)).fixed(bytes(&key.remote)).transport(PROTOCOL, len as u32)
}

/// A header to be written in front of payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub seq: Seq,
    pub ack: Seq,
    pub flags: u8,
    pub window: u16,
    pub options: OptionBytes,
}

impl Header {
    /// Bytes of header and options.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        TcpHeader::LEN + self.options.len()
    }

    /// Writes header and checksum in front of the payload that stands in `segment` already.
    #[inline]
    pub(crate) fn write(&self, key: &FlowKey, segment: &mut [u8], offload: bool) {
        let len = self.len();
        let header = TcpHeader {
            source: U16::new(key.local_port),
            destination: U16::new(key.remote_port),
            sequence: U32::new(self.seq.0),
            acknowledgment: U32::new(self.ack.0),
            offset: (len as u8 / 4) << 4,
            flags: self.flags,
            window: U16::new(self.window),
            checksum: U16::new(0),
            urgent: U16::new(0),
        };
        segment[..TcpHeader::LEN].copy_from_slice(header.as_bytes());
        segment[TcpHeader::LEN..len].copy_from_slice(self.options.as_slice());
        let pseudo = sum(key, segment.len());
        let checksum = if offload { pseudo.fold() } else { pseudo.bytes(segment).complement() };
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    }
}
