//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// A running ones' complement sum. Order of 16-bit words does not matter; a piece of odd length may only be the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Sum = Sum(0);

    /// Adds one 16-bit word (host order value of the big-endian word on the wire).
    ///
    /// Every other method leaves the sum below 2^36, so 2^47 words may be added before one could overflow.
    #[inline(always)]
    pub const fn word(self, word: u16) -> Sum {
        Sum(self.0 + word.to_be() as u64)
    }

    /// Adds bytes as they stand on the wire.
    #[inline(always)]
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        match bytes.last_chunk::<8>() {
            Some(last) if bytes.len() < 64 => self.few(bytes, last),
            _ => self.any(bytes),
        }
    }

    /// From 8 to 63 bytes, of which `last` are the last: what a game packet has, so without a loop.
    #[inline(always)]
    fn few(self, bytes: &[u8], last: &[u8; 8]) -> Sum {
        let mut sum = u128::from(self.0);
        let mut rest = bytes;
        if let Some((block, after)) = rest.split_first_chunk::<32>() {
            sum += block
                .as_chunks::<8>()
                .0
                .iter()
                .map(|word| u128::from(u64::from_ne_bytes(*word)))
                .sum::<u128>();
            rest = after;
        }
        if let Some((block, after)) = rest.split_first_chunk::<16>() {
            sum += block
                .as_chunks::<8>()
                .0
                .iter()
                .map(|word| u128::from(u64::from_ne_bytes(*word)))
                .sum::<u128>();
            rest = after;
        }
        if let Some((word, after)) = rest.split_first_chunk::<8>() {
            sum += u128::from(u64::from_ne_bytes(*word));
            rest = after;
        }
        // What is left is the end of the last word; what of that was added above is shifted out, as zeroes are shifted in.
        let (last, left) = (u64::from_le_bytes(*last), rest.len());
        let left = (last >> 1) >> (63 - 8 * left);
        Sum(fold_wide(sum + u128::from(u64::from_ne_bytes(left.to_le_bytes()))))
    }

    /// Any number of bytes.
    fn any(self, bytes: &[u8]) -> Sum {
        let mut sum = u128::from(self.0);
        let mut rest = bytes;
        if bytes.len() >= 32 {
            // Four lanes, so that the additions of a block do not wait for each other; in 128 bits, where the carries
            // collect in the upper half and need no look until the end.
            let (blocks, after) = bytes.as_chunks::<32>();
            let mut lanes = [sum, 0, 0, 0];
            for block in blocks {
                let (words, _) = block.as_chunks::<8>();
                for (lane, word) in lanes.iter_mut().zip(words) {
                    *lane += u128::from(u64::from_ne_bytes(*word));
                }
            }
            sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
            rest = after;
        }
        let (words, mut rest) = rest.as_chunks::<8>();
        for word in words {
            sum += u128::from(u64::from_ne_bytes(*word));
        }
        if let Some((four, after)) = rest.split_first_chunk::<4>() {
            sum += u128::from(u32::from_ne_bytes(*four));
            rest = after;
        }
        if let Some((two, after)) = rest.split_first_chunk::<2>() {
            sum += u128::from(u16::from_ne_bytes(*two));
            rest = after;
        }
        if let Some(last) = rest.first() {
            // An odd last byte is the upper half of a word whose lower half is zero.
            sum += u128::from(u16::from_ne_bytes([*last, 0]));
        }
        Sum(fold_wide(sum))
    }

    /// Adds `N` bytes as they stand on the wire: [`Sum::bytes`] for a header, without a loop. `N` is a multiple of four.
    #[inline(always)]
    pub fn fixed<const N: usize>(self, bytes: &[u8; N]) -> Sum {
        const { assert!(N.is_multiple_of(4) && N <= 64) };
        let (words, _) = bytes.as_chunks::<4>();
        Sum(words.iter().fold(self.0, |sum, word| sum + u64::from(u32::from_ne_bytes(*word))))
    }

    /// Adds what another sum has counted.
    #[inline(always)]
    pub const fn and(self, other: Sum) -> Sum {
        Sum(fold_once(self.0) + fold_once(other.0))
    }

    /// Adds the pseudo-header of UDP or TCP: addresses of 4 or 16 bytes, protocol, and transport length in bytes.
    #[inline(always)]
    pub fn pseudo_header(self, source: &[u8], destination: &[u8], protocol: u8, length: u32) -> Sum {
        self.bytes(source).bytes(destination).transport(protocol, length)
    }

    /// Adds the rest of the pseudo-header, when the addresses are in already: protocol and transport length in bytes.
    #[inline(always)]
    pub const fn transport(self, protocol: u8, length: u32) -> Sum {
        self.word(protocol as u16).word((length >> 16) as u16).word(length as u16)
    }

    /// Folds to 16 bits, in host order, not complemented: 0xffff for a packet whose checksum is right.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        // A number plus itself with its halves swapped has, in its upper half, the sum of both halves with the carry
        // brought round: once for 64 bits, once for 32.
        let wide = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        let sum = (wide.wrapping_add(wide.rotate_left(16)) >> 16) as u16;
        u16::from_be(sum)
    }

    /// True when this, the sum of everything a checksum covers and of the checksum itself, says that it is right: the same as folding to
    /// 0xffff.
    #[inline(always)]
    pub const fn holds(self) -> bool {
        // What folds to 0xffff is a multiple of it other than 0. The product with its inverse modulo 2^64 is the quotient then, and for
        // all other numbers more than any quotient.
        const QUOTIENTS: u64 = u64::MAX / 0xffff;
        const INVERSE: u64 = QUOTIENTS.wrapping_neg();
        const { assert!(INVERSE.wrapping_mul(0xffff) == 1) };
        self.0.wrapping_mul(INVERSE).wrapping_sub(1) < QUOTIENTS
    }

    /// The checksum to store: the complement of the fold.
    #[inline(always)]
    pub const fn complement(self) -> u16 {
        !self.fold()
    }
}

/// Brings the carries (each worth 2^64, which is 1 here) and the upper half down; below 2^34 for up to 2^32 additions.
#[inline(always)]
const fn fold_wide(sum: u128) -> u64 {
    fold_once(sum as u64) + (sum >> 64) as u64
}

/// Brings the upper half down (2^32 is 1 in ones' complement of 16 bits).
#[inline(always)]
const fn fold_once(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

/// A UDP checksum of zero is sent as 0xffff, since zero means "none" (RFC 768).
#[inline(always)]
pub const fn udp_nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
#[inline(always)]
pub const fn update_word(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = (!checksum) as u32 + (!old) as u32 + new as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
