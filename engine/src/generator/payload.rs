//! What is inside a generated datagram.
//!
//! ```text
//!  0     2                 10                18
//!  │magic│ id              │ time            │ pattern …
//!   u16   u64               u64               as long as the payload is,
//!         flow:16 seq:48    ns, monotonic     a function of id alone
//! ```
//!
//! All numbers are little endian. The 18 bytes are exactly what the least Ethernet frame has room for over
//! IPv4: 64 bytes on the wire = 14 Ethernet + 20 IPv4 + 8 UDP + 18 + 4 frame check sequence. Every byte can
//! be checked by who sent it: magic and pattern are computable, the id says which packet it was, and the
//! sender remembers the time. Id and time stand where the in-kernel generator writes its stamp
//! (`volley_steer::blast::Stamp`).

/// What tells a generated payload from others, at its start: "VG" on the wire.
pub const MAGIC: u16 = u16::from_le_bytes(*b"VG");
/// Where the id begins: flow in the upper 16 bits, sequence in the lower 48.
pub const ID_OFFSET: usize = 2;
/// Where the send time begins: CLOCK_MONOTONIC of the sender, ns.
pub const TIME_OFFSET: usize = 10;
/// Bytes before the pattern: the least payload there is.
pub const HEADER_LEN: usize = 18;
/// Sequence numbers are below this: 2^48 packets last 89 years at 100,000 packets/s and 162 days at 20
/// million.
pub const SEQUENCE_LIMIT: u64 = 1 << 48;

/// What the first 18 bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The flow the packet belongs to.
    pub flow: u16,
    /// The packet's number in its run, over all flows; below [`SEQUENCE_LIMIT`].
    pub sequence: u64,
    /// When it was sent: monotonic ns.
    pub time_ns: u64,
}

impl Header {
    #[inline(always)]
    fn id(&self) -> u64 {
        debug_assert!(self.sequence < SEQUENCE_LIMIT);
        u64::from(self.flow) << 48 | self.sequence
    }

    /// Writes the header and the pattern over all of `payload`, which has at least [`HEADER_LEN`] bytes.
    #[inline]
    pub fn encode(&self, payload: &mut [u8]) {
        let (head, pattern) = payload.split_at_mut(HEADER_LEN);
        head[..ID_OFFSET].copy_from_slice(&MAGIC.to_le_bytes());
        head[ID_OFFSET..TIME_OFFSET].copy_from_slice(&self.id().to_le_bytes());
        head[TIME_OFFSET..].copy_from_slice(&self.time_ns.to_le_bytes());
        let mut words = Pattern::new(self.id());
        let mut chunks = pattern.chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&words.next_word());
        }
        let rest = chunks.into_remainder();
        let last = words.next_word();
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// Reads the header; `None` when the payload is too short or has no [`MAGIC`].
    #[inline]
    pub fn decode(payload: &[u8]) -> Option<Header> {
        let head: &[u8; HEADER_LEN] = payload.first_chunk()?;
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let id = word(ID_OFFSET);
        (head[..ID_OFFSET] == MAGIC.to_le_bytes()).then(|| Header {
            flow: (id >> 48) as u16,
            sequence: id & (SEQUENCE_LIMIT - 1),
            time_ns: word(TIME_OFFSET),
        })
    }

    /// True when every byte behind the header is what [`Header::encode`] wrote.
    #[inline]
    pub fn pattern_holds(&self, payload: &[u8]) -> bool {
        let pattern = payload.get(HEADER_LEN..).unwrap_or_default();
        let mut words = Pattern::new(self.id());
        let mut chunks = pattern.chunks_exact(8);
        for chunk in &mut chunks {
            if chunk != words.next_word() {
                return false;
            }
        }
        let rest = chunks.remainder();
        rest == &words.next_word()[..rest.len()]
    }
}

/// An endless row of 8-byte words, different for every id and position (SplitMix64, Steele et al. 2014).
struct Pattern(u64);

impl Pattern {
    #[inline(always)]
    fn new(id: u64) -> Pattern {
        Pattern(id.wrapping_mul(0xd134_2543_de82_ef95))
    }

    #[inline(always)]
    fn next_word(&mut self) -> [u8; 8] {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn least_payload_is_laid_out_as_documented() {
        let mut payload = [0; HEADER_LEN];
        Header { flow: 0x0102, sequence: 0x0304_0506_0708, time_ns: 0x1112_1314_1516_1718 }
            .encode(&mut payload);
        let expected = [b'V', b'G', 8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11];
        assert_eq!(payload, expected);
    }

    #[test]
    fn a_short_or_foreign_payload_is_refused() {
        assert_eq!(Header::decode(&[0; HEADER_LEN]), None);
        assert_eq!(Header::decode(&MAGIC.to_le_bytes()), None);
    }

    fn header() -> impl Strategy<Value = Header> {
        (any::<u16>(), 0..SEQUENCE_LIMIT, any::<u64>()).prop_map(|(flow, sequence, time_ns)| Header {
            flow,
            sequence,
            time_ns,
        })
    }

    proptest! {
        #[test]
        fn encode_then_decode(header in header(), len in HEADER_LEN..1500usize) {
            let mut payload = vec![0xa5; len];
            header.encode(&mut payload);
            prop_assert_eq!(Header::decode(&payload), Some(header));
            prop_assert!(header.pattern_holds(&payload));
        }

        #[test]
        fn any_changed_byte_shows(
            header in header(), len in HEADER_LEN..1500usize, at: prop::sample::Index, flip in 1u8..
        ) {
            let mut payload = vec![0; len];
            header.encode(&mut payload);
            payload[at.index(len)] ^= flip;
            let intact = Header::decode(&payload) == Some(header) && header.pattern_holds(&payload);
            prop_assert!(!intact);
        }
    }
}
