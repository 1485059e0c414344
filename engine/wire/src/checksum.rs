//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// A running ones' complement sum. Order of 16-bit words does not matter; a piece of odd length may only be the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Sum = Sum(0);

    /// Adds one 16-bit word (host order value of the big-endian word on the wire).
    #[inline(always)]
    pub const fn word(self, word: u16) -> Sum {
        Sum(self.0 + word.to_be() as u64)
    }

    /// Adds bytes as they stand on the wire.
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        let mut sum = self.0;
        let mut wide = bytes.chunks_exact(8);
        for eight in &mut wide {
            let value = u64::from_ne_bytes([
                eight[0], eight[1], eight[2], eight[3], eight[4], eight[5], eight[6], eight[7],
            ]);
            let (added, carry) = sum.overflowing_add(value);
            sum = added + carry as u64;
        }
        let mut rest = wide.remainder();
        let mut last = [0u8; 8];
        last[..rest.len()].copy_from_slice(rest);
        rest = &last;
        let value =
            u64::from_ne_bytes([rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6], rest[7]]);
        let (added, carry) = sum.overflowing_add(value);
        Sum(fold_once(added + carry as u64))
    }

    /// Adds the pseudo-header of UDP or TCP: addresses of 4 or 16 bytes, protocol, and transport length in bytes.
    #[inline(always)]
    pub fn pseudo_header(self, source: &[u8], destination: &[u8], protocol: u8, length: u32) -> Sum {
        self.bytes(source)
            .bytes(destination)
            .word(protocol as u16)
            .word((length >> 16) as u16)
            .word(length as u16)
    }

    /// Folds to 16 bits, in host order, not complemented: 0xffff for a packet whose checksum is right.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// The checksum to store: the complement of the fold.
    #[inline(always)]
    pub const fn complement(self) -> u16 {
        !self.fold()
    }
}

/// Keeps 40 bits of head room so that words can be added without a carry.
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
